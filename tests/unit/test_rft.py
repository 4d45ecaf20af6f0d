"""Phase 2 in miniature: a newborn policy with the real tools, its journal, its gates, and a killed run that goes on."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from transformers import AutoModelForImageTextToText

from pixelis.agent import make_executor
from pixelis.core.errors import ConfigError, DataError
from pixelis.core.geometry import Box
from pixelis.core.media import open_medium
from pixelis.core.ops import Call, CallError, OcrOutput, Result
from pixelis.core.store import alone
from pixelis.core.trajectory import Step
from pixelis.data.world.items import make_item, render
from pixelis.policy.base import Task
from pixelis.policy.prompt import Prompting
from pixelis.policy.vlm import VlmPolicy
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.policy.vlm_make import make_checkpoint
from pixelis.rollout.run import Limits, Runner
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import resolved
from pixelis.train import policy_learner, rft
from pixelis.train.bank import FeatureBank
from pixelis.train.grpo import PolicyFacts
from pixelis.train.packing import pack_rollouts
from pixelis.train.policy_learner import PolicyLearner
from pixelis.train.rft import run_rft
from pixelis.train.rft_record import alarm_of, journal
from pixelis.train.rft_reward import Judge, Seen
from pixelis.train.rft_state import Progress, RftSettings
from pixelis.train.start import load_learner, make_sampler
from pixelis.train.vocabulary import make_vocabulary

SIZES = {"hidden": 48, "num_layers": 3, "num_heads": 3, "num_kv_heads": 3, "vision_hidden": 32, "vision_layers": 1, "num_deepstack": 0}
PROMPTING = Prompting(guide="", has_schemas=False, max_pixels=128 * 96, max_frames=2, image_size=(128, 96), frame_size=(128, 96))
SETTINGS = RftSettings(updates=3, prompts=2, group=3, families=("read_sign", "no_tool"), rate=1e-3, probe_every=2, max_steps=3)


@pytest.fixture(scope="module")
def born(tmp_path_factory):
    folder = make_checkpoint(tmp_path_factory.mktemp("born"), make_vocabulary(), **SIZES, max_pixels=128 * 96)
    PROMPTING.save(folder)
    return folder


class NoE(Judge):
    """Punishes every e that was written, so that the rollouts of a newborn policy differ in something."""

    def judge(self, seen, *, seed):
        parts = super().judge(seen, seed=seed)
        return replace(parts, total_N=np.array([-float(sum(step.text.count("e") for step in one.trajectory.steps)) for one in seen]))


def train(born, out, settings=SETTINGS, *, log=lambda _: None, blind=False, make_copy=None, **sampling):
    tools = resolved(ToolSettings())
    learner = load_learner(born)
    if blind:
        with torch.no_grad():
            for parameter in learner.base.model.visual.merger.parameters():
                parameter.zero_()
    policy = VlmPolicy(learner, max_new_tokens=12, **sampling)
    try:
        judge = NoE(SIZES["hidden"], seed=settings.seed)
        return run_rft(policy, make_executor(tools), tools, out, settings, judge=judge, make_copy=make_copy, log=log)
    finally:
        policy.close()


def test_a_model_written_in_half_precision_learns_in_single(born, tmp_path):
    half = AutoModelForImageTextToText.from_pretrained(born, dtype=torch.float16)
    shutil.copytree(born, tmp_path, dirs_exist_ok=True)
    half.save_pretrained(tmp_path)
    assert {p.dtype for p in load_learner(tmp_path).model.parameters()} == {torch.float32}
    with pytest.raises(ConfigError, match="float16"):
        load_learner(tmp_path, dtype="float16")


def rows_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def weights_of(folder):
    return dict(load_checkpoint(folder).model.named_parameters())


@pytest.fixture(scope="module")
def trained(born, tmp_path_factory):
    return train(born, tmp_path_factory.mktemp("rft") / "whole")


def test_the_journal_says_what_happened(trained):
    rows = rows_of(trained)
    assert [row["update"] for row in rows] == [0, 1, 2]
    assert rows[0]["kl"] == pytest.approx(0, abs=1e-9)  # the policy is its own anchor before the first step
    assert all(row["mismatch"] < 1e-4 and not row["is_held"] for row in rows)
    assert rows[0]["sight"] > 1e-3 and rows[1]["sight"] is None
    assert all(row["rollouts"] + row["num_lost"] == 6 and row["groups"] == 2 for row in rows)
    # A newborn writes nothing that is a call: every step costs 0.30.
    assert all(row["skipped"] == [] and row["advantage"]["p5"] <= row["advantage"]["p50"] <= row["advantage"]["p95"] for row in rows)
    assert all(0 < row["entropy"] < 10 for row in rows)  # at most the logarithm of the vocabulary
    assert rows[0]["penalty"] > 0 and rows[0]["invalid"] == 1.0 and rows[0]["answer"] == 0.0
    for row in rows:  # of every prompt, the means over its rollouts
        assert len(row["prompts"]) == 2 and all(set(of) == {"accuracy", "steps", "RaPR", "RaCPR", "AE"} for of in row["prompts"].values())
        assert np.mean([of["steps"] for of in row["prompts"].values()]) == pytest.approx(row["chain_length"], abs=1e-3)


def test_the_anchor_stays_and_the_policy_moves(born, trained):
    before, after = weights_of(born), weights_of(trained)
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert not any("visual" in name for name in moved)
    assert moved and sum(row["used"] for row in rows_of(trained)) > 6
    assert rows_of(trained)[-1]["kl"] > 0  # and the anchor, which did not move, sees it


def test_one_huge_gradient_is_shortened_to_what_is_usual(born):
    """Three gradients of a few norms, then the same a thousandfold: the optimiser sees 3 times their median."""
    policy = VlmPolicy(load_learner(born), max_new_tokens=8)
    bank, tools = FeatureBank(policy.vision, max_bytes=1 << 24), resolved(ToolSettings())
    with closing(policy), open_medium(render(item := make_item("train", 0, family="no_tool")), name=item.medium_name) as medium:
        task = Task(question=item.prompt, medium=medium, id=item.id)
        packed = pack_rollouts(
            policy, bank, task, Runner(policy, make_executor(tools), settings=tools, limits=Limits(max_steps=1)).run([(task, 1)])
        )
        learner = PolicyLearner(policy, bank, rate=0.0, clip=1e9, clip_times=3.0)
        seen = []
        learner.optimizer.step = lambda: seen.append(float(torch.cat([p.grad.flatten() for p in learner._learning]).norm()))
        with policy.paused():
            facts = [learner.update([packed[0][1]], lambda _, logp, __, k=k: k * logp.sum()) for k in (1.0, 2.0, 3.0, 1000.0, 2.0)]
    norms = [norm for _, norm, _ in facts]  # as they were
    assert norms[3] == pytest.approx(500 * norms[1], rel=1e-3)
    assert seen == pytest.approx([*norms[:3], 3 * norms[1], norms[4]], rel=1e-3)
    assert learner.state()["norms"] == norms


def test_the_journal_of_a_resumed_run_is_whole_before_its_next_row(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"update": 0}\n{"update": 1}\n{"upda')
    with journal(path, 1) as write:
        assert path.read_text() == '{"update": 0}\n'  # what a kill here would leave
        write({"update": 1})
    assert path.read_text() == '{"update": 0}\n{"update": 1}\n'


def test_two_processes_do_not_train_in_one_folder(born, tmp_path):
    with alone(tmp_path), pytest.raises(DataError, match="another process is at work"):
        train(born, tmp_path)


def test_a_killed_run_goes_on_to_the_same_bytes(born, trained, tmp_path):
    class Killed(Exception):
        pass

    def log(row):
        if row["update"] == 1:
            raise Killed

    settings = replace(SETTINGS, save_every_s=0.0)
    with pytest.raises(Killed):
        train(born, tmp_path / "run", settings, log=log)
    train(born, tmp_path / "run", settings)
    one, two = weights_of(trained), weights_of(tmp_path / "run")
    assert all(torch.equal(one[name], two[name]) for name in one)
    clean = [
        [{k: v for k, v in row.items() if k not in ("seconds", "mismatch")} for row in rows_of(f)] for f in (trained, tmp_path / "run")
    ]
    assert clean[0] == clean[1]


def test_workers_roll_out_with_the_weights_of_now(born, tmp_path):
    """One process or two: the same bytes; and the sampler's log-probabilities are those of the weights that learn, in every update."""
    copy = partial(make_sampler, born, max_new_tokens=12, num_slots=3, device="cpu")
    for count in (1, 2):
        rows = []
        train(born, tmp_path / str(count), replace(SETTINGS, updates=2, workers=count), log=rows.append, make_copy=copy)
        assert [row["update"] for row in rows] == [0, 1] and all(row["mismatch"] < 1e-3 for row in rows)
        assert all(row["rollouts"] == 6 and row["used"] > 0 for row in rows_of(tmp_path / str(count)))
    one, two = weights_of(tmp_path / "1"), weights_of(tmp_path / "2")
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_run_may_end_by_the_clock(born, tmp_path):
    train(born, tmp_path / "short", replace(SETTINGS, minutes=1e-4))
    assert [row["update"] for row in rows_of(tmp_path / "short")] == [0]  # the first never depends on the clock
    assert (tmp_path / "short" / "model.safetensors").is_file()


def test_workers_need_copies(born, tmp_path):
    with pytest.raises(ConfigError, match="2 workers need copies"):
        train(born, tmp_path / "none", replace(SETTINGS, workers=2))


def test_what_cannot_be_learnt_from_is_refused(born, trained, tmp_path):
    with pytest.raises(ConfigError, match="temperature = 1"):
        train(born, tmp_path / "cold", temperature=0.7)
    with pytest.raises(ConfigError, match="its settings differ"):
        train(born, trained, replace(SETTINGS, rate=0.5))
    with pytest.raises(DataError, match="blind"):
        train(born, tmp_path / "blind", blind=True)


def test_a_sampler_that_sees_other_things_holds_every_update(born, tmp_path):
    with pytest.raises(DataError, match="three updates in a row"):
        train(born, tmp_path / "held", replace(SETTINGS, max_mismatch=-1.0))
    rows = rows_of(tmp_path / "held")
    assert [row["is_held"] for row in rows] == [True, True] and not any(row["loss"] for row in rows)


def test_alarms_say_what_collapsed():
    start = Progress(first_tool_rate=0.8, first_entropy=0.4)
    assert alarm_of(0.41, 0.11, start) == ""
    assert alarm_of(0.39, 0.11, start) == "tool rate fell below half of what it was at the start"
    assert alarm_of(0.8, 0.09, start) == "entropy fell below a quarter of what it was at the start"
    assert alarm_of(0.0, 0.0, start).count(";") == 1


@pytest.mark.parametrize(
    ("kind", "truth", "said", "exact", "graded"),
    [
        ("text", "Locket", "locket", 1, 1),
        ("text", "Locket", "rocket", 0, 5 / 6),  # one edit of six
        ("text", "Locket", "voyage", 0, 0),  # under a half
        ("number", "100", "90", 0, 0.9),  # off by a tenth: it meets nine of ten thresholds
        ("number", "100", "one hundred", 0, 0),
        ("number", "100", "100", 1, 1),
        ("time", "2.4", "9.9", 0, 0),
        ("word", "red star", "red stars", 0, 0),
        ("none", "never", "2.4", 0, 0),
        ("text", "Locket", None, 0, 0),
    ],
)
def test_answers_by_degree(kind, truth, said, exact, graded):
    item = SimpleNamespace(answer_kind=kind, answer=truth, accept=(), choices=())
    one = Seen(0, item, SimpleNamespace(answer=said, final_text=f"<answer>{said}</answer>"), None)
    assert one.accuracy == exact and one.graded == pytest.approx(graded)
    flood = Seen(0, item, SimpleNamespace(answer=said, final_text=f"<answer>7</answer><answer>{said}</answer>"), None)
    assert flood.accuracy == flood.graded == 0


def test_options_have_no_degrees():
    item = SimpleNamespace(answer_kind="number", answer="B", accept=(), choices=("90", "100"))
    assert Seen(0, item, SimpleNamespace(answer="A", final_text=""), None).graded == 0


@pytest.mark.parametrize(
    ("fines", "cost"),
    [
        ({}, 0.3),  # the paper's: 0.30 for a call that failed, six free steps
        ({"invalid": "untrue"}, 0.9),
        ({"invalid": "untrue", "free_steps": 1}, 0.98),
        ({"free_steps": 0}, 0.4),
        ({"free_steps": 1, "extra_step": 0.05}, 0.5),
        ({"invalid": "untrue", "invalid_call": 0.1}, 0.3),
    ],
)
def test_what_the_penalty_counts(fines, cost):
    """Five steps, one of which failed and two more of which are not true."""
    one = SimpleNamespace(num_steps=5, num_failed=1, num_untrue=3)
    assert Judge(8, **fines)._cost(one) == pytest.approx(cost)


def test_what_the_machine_failed_is_nobodys_mistake():
    """A call that is true, one that ran out of time, one of a tool that is off, one without a box, and one that is not true."""
    results = [
        result("ok"),
        result("error", CallError(kind="deadline", message="30 s")),
        result("disabled"),
        result("error", CallError(kind="bad_arguments", message="no box")),
        result("ok"),
    ]
    steps = tuple(Step(thought="", text="", call=Call(op="OCR", arguments={}), result=one, response="") for one in results)
    one = Seen(0, None, SimpleNamespace(steps=steps), None)
    vars(one)["valid_steps"] = (True, False, False, False, False)
    assert (one.num_failed, one.num_untrue) == (1, 2)
    nan = pytest.approx(np.nan, nan_ok=True)
    assert Judge(8).valid(one) == (1, nan, nan, 0, 1)
    assert Judge(8, invalid="untrue").valid(one) == (1, nan, nan, 0, 0)
    assert Judge(8, invalid="untrue").fines(one).sum() == pytest.approx(Judge(8, invalid="untrue")._cost(one))


def result(status, error=None):
    output = OcrOutput(frame=0, box=Box(0, 0, 9, 9), spans=()) if status == "ok" else None
    return Result(op="OCR", status=status, engine="e", version="1", output=output, error=error)


def test_groups_are_compared_within_themselves():
    class One:
        is_cut = False

        def __init__(self, group):
            self.group = group

    class Total:
        total_N = np.array([1.0, 0.0, 5.0, 5.0, 3.0])

    groups, gain = rft._compare([One(0), One(0), One(1), One(1), One(2)], Total(), SETTINGS)
    assert [group.is_flat for group in groups] == [False, True]  # the third has one rollout and nothing to compare it with
    assert gain[0] == -gain[1] > 0.99 and np.isnan(gain[2:]).all()


@pytest.mark.parametrize(("scale", "gains"), [("group", (1.0, 1.0)), ("batch", (0.05 / 0.4206, 0.5 / 0.4206)), ("none", (0.05, 0.5))])
def test_what_advantages_are_divided_by(scale, gains):
    """Rewards 1 and 0.9, and 1 and 0: deviations 0.05 and 0.5 within the groups, sqrt(0.1769) = 0.4206 over all four."""
    parts = SimpleNamespace(total_N=np.array([1.0, 0.9, 1.0, 0.0]))
    _, gain = rft._compare([SimpleNamespace(group=k // 2, is_cut=False) for k in range(4)], parts, replace(SETTINGS, scale=scale))
    assert gain == pytest.approx([gains[0], -gains[0], gains[1], -gains[1]], rel=3e-3)


def test_credit_by_turn_lies_on_the_tokens_of_the_turn():
    """Turns of 2 and 3 tokens after a fine of 0.3, and one of 4 without: the answer's turn is not charged with what lies behind it."""
    runs = [[SimpleNamespace(role="policy", ids=[0] * n) for n in lengths] for lengths in ((2, 3), (4,))]
    runs[0].insert(1, SimpleNamespace(role="tool", ids=[0] * 9))
    seen = [SimpleNamespace(group=0, is_cut=False, trajectory=SimpleNamespace(tokens=run)) for run in runs]
    seen.append(SimpleNamespace(group=1, is_cut=False, trajectory=None))
    parts = SimpleNamespace(total_N=np.array([0.7, 0.0, 1.0]), penalty_N=np.array([0.3, 0.0, 0.0]))
    judge = SimpleNamespace(fines=lambda one: np.array([0.3]) if one is seen[0] else np.zeros(0))
    settings = replace(SETTINGS, scale="none", credit="turn")
    one, two, none = rft._by_turn(seen, parts, np.array([1.0, -1.0, np.nan]), judge, settings)
    assert one == pytest.approx([0.35, 0.35, 0.5, 0.5, 0.5], abs=1e-3) and two == pytest.approx([-0.35] * 4, abs=1e-3)
    assert np.isnan(none)


def test_credit_by_call_judges_coordinates_by_their_own_call():
    """Two rollouts of one call each, true and not: coordinates get half of (1 - 1/2) and of (0 - 1/2), all else what it had."""
    text = ["look", "[", "12", ",", "34", "]"]
    runs = [
        SimpleNamespace(role="policy", ids=range(6)),
        SimpleNamespace(role="tool", ids=[1, 2]),
        SimpleNamespace(role="policy", ids=range(3)),
    ]
    seen = [SimpleNamespace(group=0, is_cut=False, trajectory=SimpleNamespace(tokens=runs), is_true=is_true) for is_true in (True, False)]
    judge = SimpleNamespace(valid=lambda one: (one.is_true,))
    parts, had = SimpleNamespace(total_N=np.array([1.0, 0.0])), [np.full(9, 0.7), np.full(9, -0.7)]
    for negative in (1.0, 0.5):
        settings = replace(SETTINGS, scale="none", credit="call", negative=negative)
        one, two = rft._by_call(seen, parts, had, judge, settings, lambda ids: text[ids[0]])
        assert one == pytest.approx([0.7, 0.7, 0.25, 0.25, 0.25, 0.7, 0.7, 0.7, 0.7], abs=1e-3)
        assert two == pytest.approx([-0.7, -0.7, *[-0.25 * negative] * 3, *[-0.7] * 4], abs=1e-3)
    # A call that the machine failed is no part of the share, and its coordinates are worth nothing: the other one's share is its own.
    unknown = SimpleNamespace(valid=lambda one: (float("nan") if one.is_true else 0.0,))
    one, two = rft._by_call(seen, parts, had, unknown, settings, lambda ids: text[ids[0]])
    assert one.tolist() == [0.7, 0.7, 0, 0, 0, 0.7, 0.7, 0.7, 0.7] and two.tolist() == [-0.7, -0.7, 0, 0, 0, -0.7, -0.7, -0.7, -0.7]
    assert rft._by_call(seen, parts, [had[0], np.nan], judge, settings, lambda ids: text[ids[0]])[1] is np.nan


@pytest.mark.parametrize("spares", [True, False])
def test_finer_credit_spares_what_was_cut_off_as_well(spares):
    """A cut rollout that is the better one as a whole, but not from its second turn on, nor by its first call."""
    tokens = [SimpleNamespace(role="policy", ids=[0, 1])] * 2
    seen = [SimpleNamespace(group=0, is_cut=cut, trajectory=SimpleNamespace(tokens=tokens)) for cut in (True, False)]
    parts = SimpleNamespace(total_N=np.array([0.2, 0.0]), penalty_N=np.array([0.0, 0.6]))  # before fines 0.2 and 0.6
    judge = SimpleNamespace(fines=lambda one: np.array([0.0, 0.0] if one.is_cut else [0.6, 0.0]), valid=lambda one: (not one.is_cut, True))
    settings = replace(SETTINGS, scale="none", credit="turn", spares_cut=spares)
    cut, _ = rft._by_turn(seen, parts, np.array([0.1, -0.1]), judge, settings)
    assert cut[0] > 0 and (cut[2] == 0 if spares else cut[2] < 0)
    cut, _ = rft._by_call(seen, parts, [np.full(4, 0.3), np.full(4, -0.3)], judge, settings, lambda ids: "[7"[ids[0]])
    assert cut[0] == 0.3 and (cut[1] == 0 if spares else cut[1] < 0)


def test_what_a_step_was_left_out_for_is_named(born, tmp_path, monkeypatch):
    """A loss that is not finite: the weights stay, the rollouts are in the journal, and the run goes on."""
    monkeypatch.setattr(policy_learner, "grpo_loss", lambda logp, *rest, **options: (logp.sum() * float("nan"), NOTHING))
    out = train(born, tmp_path / "nan", replace(SETTINGS, updates=2))
    rows = rows_of(out)
    ids = {one for row in rows for step in row["skipped"] for one in step}
    assert len(rows) == 2 and len(ids) == sum(row["used"] for row in rows) and all(len(one) == 16 for one in ids)
    before, after = (dict(load_checkpoint(folder).model.named_parameters()) for folder in (born, out))
    assert all(torch.equal(before[name], after[name]) for name in before)


NOTHING = PolicyFacts(0.0, 0.0, 0.0, 1, 0.0)


def test_the_corridor_is_steered_by_steps_that_were_taken(born, tmp_path, monkeypatch):
    steered = []
    monkeypatch.setattr(rft, "regulate", lambda state, kl, settings: steered.append(kl) or state)
    train(born, tmp_path / "usual", replace(SETTINGS, updates=2))
    assert len(steered) == 2
    learn = rft._learn
    monkeypatch.setattr(rft, "_learn", lambda *parts: [replace(fact, is_skipped=True) for fact in learn(*parts)])
    train(born, tmp_path / "skipped", replace(SETTINGS, updates=1))
    monkeypatch.setattr(rft, "_learn", lambda *_: [])  # every group alike
    train(born, tmp_path / "flat", replace(SETTINGS, updates=1))
    assert len(steered) == 2


@pytest.mark.parametrize("credit", ["turn", "call"])
def test_a_run_with_finer_credit(born, tmp_path, credit):
    train(born, tmp_path / credit, replace(SETTINGS, credit=credit))
    assert all(row["used"] and np.isfinite(row["loss"]).all() for row in rows_of(tmp_path / credit))


@pytest.mark.parametrize("spares", [True, False])
def test_a_rollout_at_the_limit_is_spared_where_the_recipe_says_so(spares):
    rollouts = [SimpleNamespace(group=0, is_cut=cut) for cut in (False, False, True)]
    parts = SimpleNamespace(total_N=np.array([1.0, 0.0, 0.0]))
    _, gain = rft._compare(rollouts, parts, replace(SETTINGS, spares_cut=spares))
    assert gain[0] > 0 > gain[1]
    assert np.isnan(gain[2]) if spares else gain[2] == gain[1]
