"""Votes, re-ranking and late fusion over stored rollouts: shares worked out by hand, splits kept apart, runs that go on."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from tests.unit.test_hacks import answer, near, pairs_of
from typer.testing import CliRunner

from pixelis.cli_probe import app
from pixelis.core.errors import ConfigError, DataError
from pixelis.core.geometry import Box, View
from pixelis.core.ops import OcrOutput, TextSpan, ZoomOutput
from pixelis.core.trajectory import PolicyInfo, TokenRun
from pixelis.data.world.items import make_item
from pixelis.eval.consistency import (
    METHODS,
    Draw,
    Fitted,
    Pool,
    answer_confidence,
    draw_of,
    fit,
    process_reward,
    ranking_of,
    support,
)
from pixelis.eval.consistency_run import CONSISTENCY, CONSISTENCY_FILE, read_consistency, run_consistency
from pixelis.eval.consistency_table import ORACLE, SINGLE, consistency_from_json, consistency_json, consistency_text, make_consistency
from pixelis.eval.pixelworld import ItemSet, evaluate
from pixelis.eval.sweep import Sweep
from pixelis.serve.report import write_report
from pixelis.serve.report.commands import probe_command
from pixelis.testing import ScriptedPolicy
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.zoom import ZoomTool
from pixelis.ttrl.evidence import Evidence
from pixelis.ttrl.facts import RolloutFacts


def read(text: str, *, bottom: float = 10, is_decisive: bool = True) -> Evidence:
    """What stands in a box as wide as it is: two of the same text agree fully, of different ones not at all."""
    box = Box(0, 0, 10, bottom)
    output = OcrOutput(frame=0, box=box, spans=(TextSpan(text=text, box=box, confidence=1.0),))
    return Evidence(op="OCR", output=output, is_decisive=is_decisive)


def looked(bottom: float) -> Evidence:
    output = ZoomOutput(frame=0, box=Box(0, 0, 10, bottom), view=View(0, 0, 1, 1), width=10, height=10, image="")
    return Evidence(op="ZOOM", output=output, is_decisive=False)


FAILED = Evidence(op="OCR", output=None, is_decisive=False)


def draw(number: int, label: str | None, *, kind: str = "on", confidence: float | None = None, evidence=(), ranking=()) -> Draw:
    said = {"answer": label, "label": label, "ranking": tuple(ranking)}
    facts = RolloutFacts(id=f"{kind}-{number:02d}", **said, confidence=confidence, evidence=tuple(evidence))
    return Draw(facts, tokens=10, calls=len(evidence))


def pool(answers: str, name: str = "item", off: str = "", **same) -> Pool:
    """One rollout per letter; a blank is no answer."""
    on = tuple(draw(k, None if char == " " else char, **same) for k, char in enumerate(answers))
    return Pool(name, on, tuple(draw(k, char, kind="off") for k, char in enumerate(off)))


def choose(name: str, one: Pool, fitted: Fitted = Fitted()):
    return METHODS[name].choose(one, fitted)


def judge(name: str, said: str | None) -> int:
    """The right answer is always "a"."""
    return int(said == "a")


# ---------------------------------------------------------------- each method by hand


def test_most_votes_win_and_silence_counts_against_the_winner():
    assert (choose("majority", pool("abb")).answer, choose("majority", pool("abb")).confidence) == ("b", pytest.approx(2 / 3))
    assert choose("majority", pool("bb  ")).confidence == pytest.approx(1 / 2)
    assert choose("majority", pool("ba")).answer == "b"  # of equals the first
    silent = choose("majority", pool("  "))
    assert (silent.answer, silent.confidence, silent.is_abstaining) == (None, 0.0, None)


def test_a_second_place_everywhere_wins_by_ranks():
    """Of three answers a first place is worth 3, a second 2: c has 2 + 2 + 3 of 13 in all, a and b have 3 each."""
    rankings = [("a", "c"), ("b", "c"), ("c",)]
    one = Pool("item", tuple(draw(k, ranking[0], ranking=ranking) for k, ranking in enumerate(rankings)))
    assert (choose("ranked", one).answer, choose("ranked", one).confidence) == ("c", pytest.approx(7 / 13))
    assert choose("majority", one).answer == "a"
    assert choose("ranked", pool("abb")) == choose("majority", pool("abb"))  # nobody ranks


def test_one_sure_rollout_outweighs_two_unsure_ones():
    """0.9 against 0.2 + 0.3 of 1.4: ahead by 0.4 / 1.4. What it comes to is 0.9 / 3, for two of three were unsure of something else."""
    sure = [draw(k, label, confidence=c) for k, (label, c) in enumerate([("a", 0.9), ("b", 0.2), ("b", 0.3)])]
    found = choose("calibrated", Pool("item", tuple(sure)))
    assert (found.answer, found.confidence, found.is_abstaining) == ("a", pytest.approx(0.3), False)
    close = Pool("item", (draw(0, "a", confidence=0.5), draw(1, "b", confidence=0.45)))
    assert choose("calibrated", close).is_abstaining is True  # 0.05 / 0.95 is below 0.15
    unknown = choose("calibrated", pool("abb"))
    assert (unknown.answer, unknown.confidence) == ("b", pytest.approx(2 / 3))  # no confidence is known: all weigh the same
    assert choose("calibrated", pool("  ")).is_abstaining is True


def test_shared_evidence_outweighs_a_majority_that_saw_nothing_in_common():
    """x: 3 * (0.1 + 1/5) = 0.9. y: 2 * (0.1 + 2/5) = 1.0, though it has one vote less."""
    seen = [("x", "EXIT"), ("x", "MOON"), ("x", "BUCK"), ("y", "RAIN"), ("y", "RAIN")]
    one = Pool("item", tuple(draw(k, label, evidence=[read(text)]) for k, (label, text) in enumerate(seen)))
    assert support([part.facts.evidence for part in one.on]) == pytest.approx([0.2, 0.2, 0.2, 0.4, 0.4])
    assert (choose("steps", one).answer, choose("steps", one).confidence) == ("y", pytest.approx(1.0 / 1.9))
    assert choose("majority", one).answer == "x"


def test_support_is_of_decisive_steps_alone():
    """The first rollout's decisive step is seen by itself and the second one; whether theirs was decisive is not asked."""
    chains = [(read("EXIT"), FAILED), (read("EXIT", is_decisive=False),), ()]
    first, second, third = support(chains)
    assert first == pytest.approx(2 / 3) and math.isnan(second) and math.isnan(third)


def test_the_process_reward_by_hand():
    assert process_reward(()) == 0.0
    assert process_reward((read("EXIT"),)) == 1.0
    assert process_reward((read("EXIT"), FAILED)) == 0.5
    assert process_reward((FAILED, FAILED)) == 0.0
    assert process_reward((read("EXIT"), read("EXIT"))) == 0.5  # (2 - 1) / 2, and a repeat is no coherence
    assert process_reward((looked(10), read("EXIT", bottom=20))) == 1.25  # boxes with IoU 1/2, halved
    assert process_reward((looked(10), FAILED, read("EXIT"))) == pytest.approx(2 / 3)  # no neighbours that both showed something


def test_the_best_process_wins_against_the_majority():
    chains = [("b", (FAILED, read("EXIT"))), ("b", ()), ("a", (looked(10), read("EXIT"))), (None, (looked(10), read("EXIT")))]
    one = Pool("item", tuple(draw(k, label, evidence=chain) for k, (label, chain) in enumerate(chains)))
    assert choose("process", one).answer == "a" and choose("process", pool("  ")).answer is None
    assert choose("process", pool("ba")).answer == "b"  # nothing to choose by: the first


def test_late_fusion_takes_half_of_each_pool():
    """Of four rollouts with tools the first two count, which say a; both without tools say b."""
    one = pool("aabb", off="bbbb")
    for weight, said, share in ((0.7, "a", 0.7), (0.3, "b", 0.7), (0.5, "a", 0.5)):
        found = choose("late_fusion", one, Fitted(weight=weight))
        assert (found.answer, found.confidence) == (said, pytest.approx(share))
    assert len(METHODS["late_fusion"].draws(one)) == 4
    with pytest.raises(ValueError, match="needs 2 with all tools off; there are 1"):
        choose("late_fusion", pool("aabb", off="b"), Fitted(weight=0.5))


def test_what_is_fitted():
    """Confidences of 0.9 that are right in 3 of 4 cases: logit(0.9) / T = logit(0.75), so T = ln 9 / ln 3 = 2, and the vote needs none.

    Tools are wrong and no tools right: any weight below 1/2 does, and 0.4 is the nearest.
    """
    pools = [replace(pool(char, f"item {k}", confidence=0.9)) for k, char in enumerate("aaab")]
    found = fit(pools, judge)
    assert found.rollout.temperature == pytest.approx(2.0, abs=1e-4) and found.vote.temperature == pytest.approx(1.0, abs=1e-4)
    assert found.weight is None
    assert choose("calibrated", pools[0], found).confidence == pytest.approx(0.75, abs=1e-4)
    without = fit([pool("bb", "one", off="a"), pool("bb", "two", off="a")], judge)
    assert without.weight == 0.4 and without.rollout is None
    assert fit([pool("aa", "one", off="b")], judge).weight == 0.5  # with equal shares the first wins: tools
    with pytest.raises(ValueError, match="no rollouts"):
        Pool("item", ())


# ---------------------------------------------------------------- the table

ITEMS = [pool("aab", "1"), pool("abb", "2"), pool("aaa", "3"), pool("bbc", "4")]


def test_the_table_by_hand():
    """Single: 2/3, 1/3, 1, 0. Majority: 1, 0, 1, 0. The first answer: 1, 1, 1, 0, as of any: two pairs that differ give p = 2 / 2^2."""
    found = make_consistency(ITEMS, judge)
    single, majority, process, oracle = (found.find(name) for name in (SINGLE, "majority", "process", ORACLE))
    assert (single.accuracy.value, single.accuracy.count) == (pytest.approx(0.5), 4) and single.difference.count == 0
    assert (majority.accuracy.value, majority.p) == (0.5, 1.0) and majority.difference.value == pytest.approx(0.0)
    assert (process.accuracy.value, process.p, process.q) == (0.75, 0.5, 1.0)  # four methods: 4 * 0.5, cut at 1
    assert oracle.accuracy.value == 0.75 and oracle.difference.value == pytest.approx(0.25) and math.isnan(oracle.q)
    assert (single.rollouts, single.tokens, majority.rollouts, majority.tokens, majority.calls) == (1, 10, 3, 30, 0)
    assert majority.coverage.count == 0 and math.isnan(process.aurc) and math.isnan(process.ece)
    assert set(found.left_out) == {"greedy", "calibrated", "late_fusion"}
    assert (found.num_items, found.num_rollouts, found.num_ranked, found.num_confident) == (4, 12, 0, 0)


def test_abstaining_costs_coverage_and_not_accuracy():
    """Shares 2/3, 2/3 and 1 are far ahead; one to one is not. Of three answered items one is wrong.

    By confidence first the sure item (right), then two alike with one error, then the tie (right), which it abstains from: AURC is the
    mean of 0, (1/2)/2, 1/3, 1/4.
    """
    found = make_consistency([*ITEMS[:3], pool("ab", "5")], judge, fitted=Fitted()).find("calibrated")
    assert (found.accuracy.value, found.accuracy.count) == (0.75, 4)
    assert (found.coverage.value, found.coverage.count) == (0.75, 4)
    assert (found.error.value, found.error.count) == (pytest.approx(1 / 3), 3)
    assert found.aurc == pytest.approx((0 + 1 / 4 + 1 / 3 + 1 / 4) / 4)
    # 1 is right; two of 2/3 are right once; one of 1/2 is right: (0 + 2 * 1/6 + 1/2) / 4
    assert found.ece == pytest.approx(5 / 24)


def test_no_method_but_the_oracle_looks_at_the_truth():
    """With every truth turned round, what was chosen stays, so accuracies turn round."""
    pools = [replace(one, greedy=draw(0, "a", kind="greedy"), off=(draw(0, "c", kind="off"),)) for one in ITEMS]
    there = make_consistency(pools, judge, fitted=Fitted(weight=0.5))
    back = make_consistency(pools, lambda name, said: 1 - judge(name, said), fitted=Fitted(weight=0.5))
    assert not there.left_out and [row.name for row in there.rows] == [SINGLE, *METHODS, ORACLE]
    for a, b in zip(there.rows[:-1], back.rows[:-1], strict=True):
        assert a.accuracy.value + b.accuracy.value == pytest.approx(1.0)
    assert there.rows[-1].accuracy.value + back.rows[-1].accuracy.value > 1


def test_chain_stability_by_hand():
    """The first item: two equal chains; a third with another op whose box has IoU 1/2 with theirs: 1, 1/4, 1/4. The second: a chain beside
    none: 0. Nobody took a step on the third, and the fourth has one rollout: unscored. (1/2 + 0) / 2.
    """
    chains = [((read("EXIT"),), (read("EXIT"),), (looked(20),)), ((read("EXIT"),), ()), ((), (), ()), ((read("EXIT"),),)]
    pools = [Pool(str(n), tuple(draw(k, "a", evidence=one) for k, one in enumerate(some))) for n, some in enumerate(chains)]
    other = draw(0, "a", kind="off", evidence=(looked(10),))
    found = make_consistency([replace(one, off=(other,), greedy=other) for one in pools], judge)
    stable = found.stability
    assert (stable.value, stable.count, stable.num_unscored) == (pytest.approx(0.25), 2, 2)
    assert "RCS 0.250" in consistency_text(found) and "over 2 items; on 2 others" in consistency_text(found)
    assert consistency_json(found)["stability"]["num_unscored"] == 2
    # sabotage: a policy that only talks has no chains, and its stability is unknown, not perfect
    silent = make_consistency(ITEMS, judge)
    assert math.isnan(silent.stability.value) and silent.stability.num_unscored == 4 and "RCS -:" in consistency_text(silent)


def test_json_and_text_hold_what_was_found():
    found = make_consistency(ITEMS, judge, fitted=Fitted(weight=0.4), num_late=2)
    values = json.loads(json.dumps(consistency_json(found), allow_nan=False))
    assert consistency_json(consistency_from_json(values)) == consistency_json(found)
    assert [row["name"] for row in values["methods"] if not row["is_method"]] == [SINGLE, ORACLE]
    text = consistency_text(found)
    assert "no method: knows the truth" in text and "0 of 12 rollouts ranked" in text and "2 trajectories failed" in text
    assert "late_fusion is left out" in text and "weight of tools on 0.4" in text
    with pytest.raises(DataError, match="nothing to choose from"):
        make_consistency([], judge)


# ---------------------------------------------------------------- from trajectories


def test_a_ranking_is_several_answers_in_order():
    assert ranking_of("B > A", ("red", "blue")) == ("B", "A") and ranking_of("blue > red", ("red", "blue")) == ("B", "A")
    assert ranking_of("B", ("red", "blue")) == () and ranking_of(None) == ()
    assert ranking_of("B > blue", ("red", "blue")) == ()  # one answer twice is no ranking
    assert ranking_of("a>b") == ()


def test_what_a_trajectory_says_of_itself(tmp_path):
    """exp of the mean of ln 1/2 and ln 1/8 is 1/4; of the last turn alone."""
    policy = ScriptedPolicy(lambda task: [near(task), answer("red > blue")])
    evaluate(policy, Executor({"ZOOM": ZoomTool()}), ToolSettings(), num_items=1, families=("read_sign",), out_folder=tmp_path / "run")
    ((_, plain),) = pairs_of(tmp_path / "run")
    turns = (
        TokenRun(role="prompt", ids=(1, 2, 3)),
        TokenRun(role="policy", ids=(4,), logp=(-9.0,)),
        TokenRun(role="tool", ids=(5, 6)),
        TokenRun(role="policy", ids=(7, 8), logp=(math.log(1 / 2), math.log(1 / 8))),
    )
    told = replace(plain, tokens=turns)
    assert answer_confidence(told) == pytest.approx(1 / 4)
    assert answer_confidence(plain) is None and answer_confidence(replace(told, stop="step_limit", answer=None)) is None
    made = draw_of(told, "on-00")
    assert (made.tokens, made.calls, made.facts.id) == (3, 1, "on-00")
    assert (made.facts.answer, made.facts.label, made.facts.ranking) == ("red", "red", ("red", "blue"))
    flood = draw_of(replace(told, final_text="x" * 2000), "on-00").facts
    assert (flood.answer, flood.label, flood.ranking) == (None, None, ())


# ---------------------------------------------------------------- runs


class Even:
    """Right under even seeds, silent under odd ones; says with which it was opened."""

    def __init__(self, temperature: float = 0.7):
        self.info = PolicyInfo(name="even", version="1", sampling={"temperature": temperature})
        self.opened: list[tuple[str, int]] = []
        self.is_closed = False

    def open(self, task, *, seed):
        self.opened.append((task.id, seed))
        split, items_seed, index, family = task.id.split("-")
        truth = make_item(split, int(index), seed=int(items_seed), family=family).answer
        return ScriptedPolicy([answer(truth if seed % 2 == 0 else "?")]).open(task, seed=seed)

    def close(self):
        self.is_closed = True


def sweep_of(folder, policy, split: str = "test", **changes) -> Sweep:
    items = ItemSet(split=split, families=("no_tool",))
    made = Sweep(kind=CONSISTENCY, policy=policy, items=items, first=0, num_items=2, folder=folder, settings=ToolSettings())
    return replace(made, **changes)


def run(folder, policy=None, split: str = "test", *, num_rollouts: int = 4, **options):
    sweep = sweep_of(folder, policy or Even(), split)
    return run_consistency(sweep, {"ZOOM": ZoomTool()}, num_rollouts=num_rollouts, is_fused=True, **options).found


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Rollouts of the dev split, and of the test split with what was fitted on the first."""
    at = tmp_path_factory.mktemp("consistency")
    run(at / "cal", split="dev", greedy=lambda: Even(0.0))
    run(at / "test", greedy=lambda: Even(0.0), calibration=at / "cal")
    return at


def test_every_rollout_has_a_seed_of_its_own(tmp_path):
    policy, sure, steps = Even(), Even(0.0), []
    found = run(tmp_path / "run", policy, greedy=lambda: sure, progress=lambda done, of: steps.append((done, of)))
    assert [seed for _, seed in policy.opened] == [0, 0, 1, 1, 2, 2, 3, 3, 0, 0, 1, 1]  # two items: four with tools, two without
    assert [seed for _, seed in sure.opened] == [0, 0] and sure.is_closed and not policy.is_closed
    assert steps[-1] == (14, 14)
    assert json.loads((tmp_path / "run" / "on-03" / "run.json").read_text())["policy"]["sampling"]["seed"] == 3
    assert len(json.loads((tmp_path / "run" / "off-01" / "run.json").read_text())["tool_settings"]["disabled"]) == 6
    assert found.find(SINGLE).accuracy.value == 0.5 and found.find("majority").accuracy.value == 1.0
    assert found.find("greedy").accuracy.value == 1.0 and set(found.left_out) == {"calibrated", "late_fusion"}
    assert math.isnan(found.find(SINGLE).tokens)  # a policy without tokens: unknown, not 0


def test_nothing_is_run_twice_and_more_may_follow(folders):
    policy, whole = Even(), (folders / "test" / CONSISTENCY_FILE).read_bytes()
    run(folders / "test", policy, greedy=lambda: Even(0.0), calibration=folders / "cal")
    assert policy.opened == [] and (folders / "test" / CONSISTENCY_FILE).read_bytes() == whole
    found = read_consistency(folders / "test")
    assert not found.found.left_out and found.about["calibration"] == {
        "run": "cal",
        "items": {"split": "dev", "seed": 0, "shift": None, "families": ["no_tool"], "first": 0, "count": 2},
    }
    run(folders / "cal", policy, "dev", num_rollouts=5)
    assert [seed for _, seed in policy.opened] == [4, 4]
    with pytest.raises(DataError, match=r"policy\.sampling"):
        run(folders / "test", Even(1.0))


def test_what_was_fitted_on_the_tested_split_is_refused(folders, tmp_path):
    with pytest.raises(DataError, match="split 'test', which is the one under test"):
        run(tmp_path / "new", calibration=folders / "test")
    with pytest.raises(DataError, match="differs in policy"):
        run(tmp_path / "new", Even(1.0), calibration=folders / "cal")
    with pytest.raises(DataError, match="lacks the rollouts on-06, on-07, off-02, off-03"):
        run(tmp_path / "new", num_rollouts=8, calibration=_without(folders, tmp_path))
    with pytest.raises(DataError, match="holds no rollouts to calibrate on"):
        run(tmp_path / "new", calibration=folders / "cal" / "on-00")
    assert not (tmp_path / "new").exists()  # all said before the work


def _without(folders, tmp_path):
    """The dev split's facts as if six rollouts with and two without tools had been made."""
    there = json.loads((folders / "cal" / "run.json").read_text())
    there["conditions"] = [*(f"on-{k:02d}" for k in range(6)), "off-00", "off-01"]
    (tmp_path / "cal").mkdir()
    (tmp_path / "cal" / "run.json").write_text(json.dumps(there))
    return tmp_path / "cal"


def test_what_cannot_be_compared_is_a_message(folders, tmp_path):
    with pytest.raises(ConfigError, match="1 rollouts of an item have nothing to vote on"):
        run(tmp_path / "new", num_rollouts=1)
    with pytest.raises(ConfigError, match="with all tools on"):
        run_consistency(sweep_of(tmp_path / "new", Even(), settings=ToolSettings(disabled=("OCR",))), {}, num_rollouts=2)
    with pytest.raises(DataError, match="it is not finished"):
        read_consistency(tmp_path)
    (tmp_path / CONSISTENCY_FILE).write_text('{"methods": [{"name": "single"}]}')
    with pytest.raises(DataError, match="is damaged"):
        read_consistency(tmp_path)


def test_the_report_draws_the_table(folders, tmp_path):
    page = write_report([folders / "test"], tmp_path / "page.html", markdown=tmp_path / "page.md").read_text("ascii")
    assert 'id="consistency-0"' in page and "no method: knows the truth" in page
    lines = (tmp_path / "page.md").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("| majority")]
    assert line.startswith("| majority | 2 | 1.000 \\[")


def test_the_command_that_makes_it_again():
    info = {
        "evaluation": "consistency",
        "policy": {"name": "vlm:nano-sft", "version": "1", "sampling": {"temperature": 0.7}},
        "items": {"split": "test", "count": 40, "seed": 3, "families": []},
        "conditions": ["on-00", "on-01", "off-00", "greedy"],
        "calibration": {"run": "cal", "items": {}},
    }
    assert probe_command(info, "votes") == (
        "pixelis eval consistency --policy nano-sft --split test --items 40 --seed 3 "
        "--rollouts 2 --temperature 0.7 --fusion --calibration cal --out votes  # not recorded: the command as given"
    )


def test_the_command_rolls_out_and_votes(tmp_path):
    words = ["consistency", "--policy", "planner", "--items", "1", "--family", "no_tool", "--rollouts", "2", "--out", str(tmp_path / "run")]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    assert "majority" in found.stdout and "RCS " in found.stdout
    assert "calibrated is left out: it needs rollouts of another, labelled split" in found.stdout
    values = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert values["evaluation"] == "consistency" and [row["name"] for row in values["methods"]][:2] == ["single", "greedy"]
