"""PixelWorld as an examination: what scripted policies with known conduct must get, and what a run folder must survive."""

from __future__ import annotations

import json
import math

import pytest
import typer
from typer.testing import CliRunner

from pixelis.cli_eval import app, score
from pixelis.core.errors import ConfigError, DataError
from pixelis.core.grammar import Turn, render_turn
from pixelis.core.ops import OPS, Call
from pixelis.core.store import RunWriter, open_run
from pixelis.data.world.items import make_item
from pixelis.data.world.shifts import Shift
from pixelis.eval.compare import compare, comparison_json, comparison_text
from pixelis.eval.join import join
from pixelis.eval.pixelworld import evaluate, rescore
from pixelis.eval.report import make_report, report_json, report_text
from pixelis.eval.scores import SCORES_FILE, ItemScore, read_scores, score_trajectory
from pixelis.eval.stats import BCA, CLOPPER_PEARSON
from pixelis.policy.planner import PlannerPolicy
from pixelis.rollout.run import Limits
from pixelis.testing import ScriptedPolicy
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import build_toolbox, resolved
from pixelis.tools.zoom import ZoomTool

FAMILIES = ("attribute", "count", "read_sign")
SETTINGS = ToolSettings()


def item_of(task):
    """The item behind a task, which only a test may look up."""
    _, seed, index, family = task.id.partition("@")[0].split("-")
    return make_item("test", int(index), seed=int(seed), family=family)


def zoom(box) -> str:
    return render_turn(Turn(thought="I look closer.", call=Call(op="ZOOM", arguments={"bbox_2d": list(box)})))


def target(item) -> list[int]:
    """Evidence that is smaller than half of the frame, in wire coordinates, with room around."""
    box = min((box for _, box in item.evidence.boxes), key=lambda box: box.area)
    x, y = 1000 / item.width, 1000 / item.height
    edges = (box.x0 * x - 5, box.y0 * y - 5, box.x1 * x + 5, box.y1 * y + 5)
    return [min(max(round(edge), 0), 1000) for edge in edges]


def right_answer(task) -> str:
    return render_turn(Turn(thought="So it is.", answer=item_of(task).answer))


def looking(task) -> list[str]:
    """One malformed turn, one look at the evidence, one look past the frame, and the right answer."""
    return ["<tool_call>{", zoom(target(item_of(task))), zoom((2000, 2000, 2100, 2100)), right_answer(task)]


def run(policy, num_items=6, settings=SETTINGS, **options):
    executor = Executor({"ZOOM": ZoomTool()}, disabled=settings.disabled)
    return evaluate(policy, executor, settings, num_items=num_items, **{"families": FAMILIES, **options})


def without_times(report) -> dict:
    facts = report_json(report)
    return {key: value for key, value in facts.items() if key not in ("seconds_per_item", "budget")}


class Counting(ScriptedPolicy):
    """Knows which tasks it was given."""

    def __init__(self, turns):
        super().__init__(turns)
        self.opened: list[str] = []

    def open(self, task, *, seed):
        self.opened.append(task.id)
        return super().open(task, seed=seed)


# ---------------------------------------------------------------- what conduct is worth


def test_a_talk_only_policy_gets_nothing():
    report = run(ScriptedPolicy(["I could look at this, but I would rather not."]))
    assert (report.accuracy.value, report.accuracy.count) == (0.0, 6)
    assert (report.overall.rapr.value, report.overall.rapr.count) == (0.0, 6)
    assert report.overall.parses.value == report.overall.valid.value == 0.0 and report.overall.parses.count == 18
    assert report.stops == {"no_action": 6}
    assert [(row.op, row.errors) for row in report.tools] == [("none", {"bad_call": 18})]


def test_a_policy_that_answers_without_looking_has_no_rapr():
    report = run(ScriptedPolicy(lambda task: [right_answer(task)]))
    assert (report.accuracy.value, report.accuracy.method) == (1.0, CLOPPER_PEARSON)
    assert (report.overall.rapr.value, report.overall.steps.value) == (0.0, 0.0)
    assert math.isnan(report.overall.parses.value) and report.overall.parses.count == 0
    assert report.tools == () and report.stops == {"answered": 6}
    json.dumps(report_json(report), allow_nan=False)
    assert report_json(report)["parses"]["value"] is None
    assert "calls that parse      -" in report_text(report)


def test_a_known_conduct_is_counted_call_by_call():
    report = run(ScriptedPolicy(looking))
    assert report.accuracy.value == 1.0
    assert report.overall.rapr.value == pytest.approx(1 / 3)  # of three steps one is valid, in every trajectory
    assert report.overall.parses.value == pytest.approx(2 / 3) and report.overall.valid.value == pytest.approx(1 / 3)
    assert report.overall.steps.value == 3.0 and math.isnan(report.overall.steps.low)
    looked, none = report.tools
    assert (looked.op, looked.failed.count, looked.failed.value, looked.valid.value) == ("ZOOM", 12, 0.5, 0.5)
    assert (none.op, none.failed.count, none.failed.value, none.errors) == ("none", 6, 1.0, {"bad_call": 6})
    assert sum(looked.errors.values()) == 6 and looked.num_disabled == 0
    assert [(group.name, group.accuracy.count) for group in report.families] == [(name, 2) for name in FAMILIES]
    chains = [len(make_item("test", i, family=FAMILIES[i % 3]).chain) for i in range(6)]
    assert report.overall.chain == sum(chains) / 6
    assert report.budget["steps"] == 18 and report.seconds.count == 6 and report.seconds.total > 0
    assert report.scores[0].valid == (False, True, False) and report.scores[0].errors[0] == "bad_call"


def test_half_right_has_a_bca_interval():
    policy = ScriptedPolicy(lambda task: [right_answer(task) if item_of(task).index % 2 else "<answer>nonsense</answer>"])
    accuracy = run(policy).accuracy
    assert (accuracy.value, accuracy.method) == (0.5, BCA) and 0 <= accuracy.low < 0.5 < accuracy.high <= 1


def test_failures_of_the_machine_are_pointed_out():
    late = ItemScore(**{**scored(0, 0).__dict__, "errors": ("deadline",), "stop": "time_limit"})
    assert "note: 1 calls and 1 trajectories failed for the machine's sake" in report_text(make_report({}, [late, scored(1, 1)]))
    assert "note:" not in report_text(make_report({}, [scored(1, 1)]))


def test_switched_off_tools_are_no_failures_and_not_valid():
    report = run(ScriptedPolicy(looking), settings=ToolSettings(disabled=OPS))
    assert report.accuracy.value == 1.0 and report.overall.rapr.value == 0.0
    (looked, _) = report.tools
    assert (looked.num_disabled, looked.failed.value, looked.valid.value) == (12, 0.0, 0.0)
    assert "tools off: SEG ZOOM TRK OCR TEMP PROP" in report_text(report)


def test_the_planner_needs_its_tools():
    found = {}
    for off in ((), OPS):
        settings = resolved(ToolSettings(disabled=off))
        executor = Executor(build_toolbox(settings), disabled=off, deadline_s=200)
        patient = Limits(max_seconds=250)
        found[off] = evaluate(PlannerPolicy(), executor, settings, num_items=2, families=("count", "table"), limits=patient)
    assert found[()].accuracy.value == 1.0 and found[()].overall.rapr.value > 0.5
    assert found[OPS].accuracy.value <= 0.5 and found[OPS].overall.rapr.value == 0.0


# ---------------------------------------------------------------- run folders


def test_equal_runs_write_equal_bytes_and_rescoring_changes_nothing(tmp_path):
    reports = [run(ScriptedPolicy(looking), out_folder=tmp_path / name) for name in "ab"]
    one, two = ((tmp_path / name / SCORES_FILE).read_bytes() for name in "ab")
    assert one == two and without_times(reports[0]) == without_times(reports[1])
    line = json.loads(one.splitlines()[0])
    assert (line["id"], line["family"], line["right"], line["steps"]) == ("test-0-000000-attribute", "attribute", 1, 3)
    assert (line["valid"], line["ops"], line["stop"]) == ([False, True, False], ["none", "ZOOM", "ZOOM"], "answered")
    (tmp_path / "a" / SCORES_FILE).unlink()
    again = rescore(tmp_path / "a")
    assert report_json(again) == report_json(reports[0]) and again.scores == reports[0].scores
    assert (tmp_path / "a" / SCORES_FILE).read_bytes() == one
    assert tuple(read_scores(tmp_path / "b")) == again.scores


def test_a_run_goes_on_where_it_stopped(tmp_path):
    first = Counting(looking)
    run(first, 2, out_folder=tmp_path / "run")
    seen: list[tuple[int, int]] = []
    second = Counting(looking)
    report = run(second, 5, out_folder=tmp_path / "run", progress=lambda done, total: seen.append((done, total)))
    assert [name[:13] for name in second.opened] == ["test-0-000002", "test-0-000003", "test-0-000004"]
    assert seen == [(i, 5) for i in range(1, 6)]
    assert len(list(open_run(tmp_path / "run").trajectories())) == 5
    assert report.scores == run(ScriptedPolicy(looking), 5).scores
    third = Counting(looking)
    assert run(third, 5, out_folder=tmp_path / "run").scores == report.scores and third.opened == []
    # a later range in the same folder is its own report, beside what stands there
    assert [s.index for s in run(Counting(looking), 2, first=4, out_folder=tmp_path / "run").scores] == [4, 5]
    assert [s.index for s in rescore(tmp_path / "run").scores] == [0, 1, 2, 3, 4, 5]


def test_parts_join_to_the_run_of_the_whole(tmp_path):
    whole = run(ScriptedPolicy(looking), num_items=6, out_folder=tmp_path / "whole")
    parts = [tmp_path / "late", tmp_path / "early"]
    run(ScriptedPolicy(looking), first=4, num_items=2, out_folder=parts[0])
    run(ScriptedPolicy(looking), first=0, num_items=4, out_folder=parts[1])
    joined = join(parts, tmp_path / "joined")
    assert without_times(joined) == without_times(whole)
    for name in ("trajectories.jsonl", "scores.jsonl"):
        assert (tmp_path / "joined" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert {p.name for p in (tmp_path / "joined" / "blobs").iterdir()} == {p.name for p in (tmp_path / "whole" / "blobs").iterdir()}
    assert open_run(tmp_path / "joined").info["items"] == open_run(tmp_path / "whole").info["items"]


def test_what_cannot_be_joined_is_said(tmp_path):
    run(ScriptedPolicy(looking), num_items=3, out_folder=tmp_path / "a")
    run(ScriptedPolicy(looking), first=4, num_items=2, out_folder=tmp_path / "gap")
    run(ScriptedPolicy(looking), first=3, num_items=2, seed=1, out_folder=tmp_path / "other")
    wrong = {("a",): "nothing to join", ("a", "gap"): "0 to 2 and .* goes on at 4", ("a", "other"): "items.seed 1 instead of 0"}
    for parts, says in wrong.items():
        with pytest.raises(DataError, match=says):
            join([tmp_path / part for part in parts], tmp_path / "out")
    lines = (tmp_path / "gap" / "trajectories.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "gap" / "trajectories.jsonl").write_bytes(lines[0])
    with pytest.raises(DataError, match="1 of its 2 items"):
        join([tmp_path / "a", tmp_path / "gap"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_interrupted_trajectory_is_no_result_and_is_run_again(tmp_path):
    class Interrupting(Counting):
        def open(self, task, *, seed):
            if len(self.opened) == 3:
                raise KeyboardInterrupt
            return super().open(task, seed=seed)

    with pytest.raises(KeyboardInterrupt):
        run(Interrupting(looking), 6, out_folder=tmp_path / "run", num_parallel=1)
    stops = [t.stop for t in open_run(tmp_path / "run").trajectories()]
    kept = [s.index for s in read_scores(tmp_path / "run")]
    assert kept == list(range(stops.count("answered"))) and len(kept) < 6
    policy = Counting(looking)
    report = run(policy, 6, out_folder=tmp_path / "run")
    assert len(policy.opened) == 6 - len(kept) and report.stops == {"answered": 6}
    assert rescore(tmp_path / "run").scores == report.scores


def test_stored_interruptions_count_for_nothing(tmp_path):
    report = run(ScriptedPolicy(looking), 2, out_folder=tmp_path / "run")
    record = list(open_run(tmp_path / "run").trajectories())[1]
    with RunWriter(tmp_path / "run", {}, resume=True) as writer:
        writer.append(type(record)(**{**record.__dict__, "stop": "interrupted", "steps": (), "answer": None}))
    assert rescore(tmp_path / "run").scores == report.scores


def test_media_are_kept_for_the_viewer_unless_told_otherwise(tmp_path):
    run(ScriptedPolicy(["<answer>1</answer>"]), 2, out_folder=tmp_path / "with")
    run(ScriptedPolicy(["<answer>1</answer>"]), 2, out_folder=tmp_path / "without", keep_media=False)
    kept = open_run(tmp_path / "with")
    assert all(kept.blob(t.medium.sha256) for t in kept.trajectories())
    assert list((tmp_path / "without" / "blobs").iterdir()) == []


def test_shifted_items_and_other_splits_are_made_again_from_run_json(tmp_path):
    policy = ScriptedPolicy([zoom((0, 0, 300, 300)), "<answer>2</answer>"])
    report = run(policy, 3, split="dev-cal", seed=5, first=7, shift=Shift("noise", 2), families=(), out_folder=tmp_path / "run")
    assert report.scores[0].id == "dev-cal-5-000007-chart@noise:2"
    assert rescore(tmp_path / "run").scores == report.scores
    assert report_json(report)["items"] == {"split": "dev-cal", "seed": 5, "shift": "noise:2", "families": [], "first": 7, "count": 3}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"seed": 1}, "items.seed 0 instead of 1"),
        ({"shift": Shift("noise", 1)}, "items.shift None instead of noise:1"),
        ({"families": ("count",)}, "items.families"),
        ({"settings": ToolSettings(disabled=OPS)}, "tool_settings.disabled"),
    ],
)
def test_another_evaluation_does_not_go_on_in_the_same_folder(tmp_path, options, says):
    run(ScriptedPolicy(["<answer>1</answer>"]), 1, out_folder=tmp_path / "run")
    before = (tmp_path / "run" / "trajectories.jsonl").read_bytes()
    with pytest.raises(DataError, match=says.replace(".", r"\.")):
        run(ScriptedPolicy(["<answer>1</answer>"]), 2, out_folder=tmp_path / "run", **options)
    assert (tmp_path / "run" / "trajectories.jsonl").read_bytes() == before


def test_wrong_requests_name_what_is_wrong(tmp_path):
    policy = ScriptedPolicy(["<answer>1</answer>"])
    with pytest.raises(DataError, match="'cuont'"):
        run(policy, families=("cuont",))
    with pytest.raises(DataError, match="no split 'tset'"):
        run(policy, split="tset")
    with pytest.raises(DataError, match="0 items from number 0"):
        run(policy, 0)
    with pytest.raises(ConfigError, match="switched off"):
        evaluate(policy, Executor({"ZOOM": ZoomTool()}), ToolSettings(disabled=OPS), num_items=1)
    with pytest.raises(DataError, match="is no run folder"):
        rescore(tmp_path)
    RunWriter(tmp_path / "ask", {"pixelis": "0"}).close()
    with pytest.raises(DataError, match="names no PixelWorld evaluation"):
        rescore(tmp_path / "ask")
    with pytest.raises(DataError, match="holds another run"):
        run(policy, 1, out_folder=tmp_path / "ask")
    with pytest.raises(DataError, match=r"scores\.jsonl.*pixelis score"):
        list(read_scores(tmp_path))


def test_damaged_and_foreign_lines_are_named(tmp_path):
    run(ScriptedPolicy(["<answer>1</answer>"]), 2, out_folder=tmp_path / "run")
    path = tmp_path / "run" / SCORES_FILE
    path.write_bytes(path.read_bytes().replace(b'"steps":0', b'"steps":"many"'))
    with pytest.raises(DataError, match=r"scores\.jsonl:1: steps"):
        list(read_scores(tmp_path / "run"))
    record = next(open_run(tmp_path / "run").trajectories())
    with pytest.raises(DataError, match="asks something else"):
        score_trajectory(make_item("test", 3, family="attribute"), record)
    with RunWriter(tmp_path / "run", {}, resume=True) as writer:
        writer.append(type(record)(**{**record.__dict__, "task_id": "dev-0-000000-attribute"}))
    with pytest.raises(DataError, match="'dev-0-000000-attribute', which is no item"):
        rescore(tmp_path / "run")


# ---------------------------------------------------------------- comparison


def scored(index: int, right: int, *, family: str = "count", tail: str = "") -> ItemScore:
    return ItemScore(
        id=f"test-0-{index:06d}-{family}{tail}", index=index, family=family, right=right, answer="1", stop="answered", steps=1, chain=1,
        ops=("ZOOM",), errors=("",), valid=(bool(right),), fit=(1.0,), tokens=0, trajectory=str(index),
    )  # fmt: skip


def test_a_comparison_by_hand():
    one = [scored(i, 1) for i in range(5)] + [scored(i, 1, family="table") for i in range(5, 8)] + [scored(99, 1)]
    two = [scored(i, 0, tail="@noise:3") for i in range(5)] + [scored(i, int(i > 5), family="table", tail="@noise:3") for i in range(5, 8)]
    found = compare(one, two)
    accuracy = found.overall[0]
    assert (accuracy.one, accuracy.two, accuracy.difference.value) == (1.0, 0.25, 0.75)
    assert (accuracy.difference.count, found.num_unpaired) == (8, 1)
    assert accuracy.p == 2 / 2**6  # six pairs differ, all the same way
    count, table = found.families
    assert (count.name, count.p, count.q) == ("count", 2 / 2**5, 2 * 2 / 2**5)
    assert (table.name, table.one, table.two, table.p, table.q) == ("table", 1.0, pytest.approx(2 / 3), 1.0, 1.0)
    assert compare(two, one).overall[0].difference.value == -0.75
    json.dumps(comparison_json(found), allow_nan=False)
    assert "0.0312" in comparison_text(found) and "1 items stand on one side only" in comparison_text(found)
    with pytest.raises(DataError, match="of 1 and 1 items none is the same"):
        compare([scored(1, 1)], [scored(2, 1)])


def test_a_report_does_not_depend_on_the_order_of_its_scores():
    scores = [scored(i, i % 2) for i in range(9)]
    assert report_json(make_report({}, scores)) == report_json(make_report({}, scores[::-1]))


# ---------------------------------------------------------------- command line


def command_line(*args):
    top = typer.Typer()
    top.add_typer(app, name="eval")
    top.command("score")(score)
    return CliRunner().invoke(top, [str(arg) for arg in args])


def test_eval_score_and_compare_from_the_command_line(tmp_path):
    common = ("eval", "pixelworld", "--policy", "planner", "--items", 2, "--family", "count", "--seed", 3, "--json")
    plain = command_line(*common, "--run", tmp_path / "run")
    assert plain.exit_code == 0, plain.output
    facts = json.loads(plain.stdout)
    assert (facts["policy"]["name"], facts["items"]["seed"], facts["items"]["count"], facts["accuracy"]["count"]) == ("planner", 3, 2, 2)
    assert {"pixelis", "python", "scipy"} <= set(facts["versions"]) and facts["tool_settings"]["disabled"] == []
    again = json.loads(command_line("score", tmp_path / "run", "--json").stdout)
    assert again == facts
    off = json.loads(command_line(*common, "--no-tools", "--compare", tmp_path / "run").stdout)
    assert off["tool_settings"]["disabled"] == list(OPS) and off["rapr"]["value"] == 0.0
    assert off["compare"]["overall"][0]["difference"]["value"] == off["accuracy"]["value"] - facts["accuracy"]["value"]
    told = command_line("score", tmp_path / "run", "--compare", tmp_path / "run").stdout
    assert "PixelWorld test, seed 3" in told and "q (BH)" in told


def test_wrong_commands_fail_before_the_work(tmp_path):
    wrong = command_line("eval", "pixelworld", "--policy", "oracle", "--items", 1)
    assert isinstance(wrong.exception, ConfigError) and "oracle" in str(wrong.exception)
    wrong = command_line("eval", "pixelworld", "--items", 1, "--compare", tmp_path / "absent", "--run", tmp_path / "run")
    assert isinstance(wrong.exception, DataError) and "absent" in str(wrong.exception) and not (tmp_path / "run").exists()
    wrong = command_line("eval", "pixelworld", "--items", 1, "--shift", "fog:3", "--run", tmp_path / "run")
    assert isinstance(wrong.exception, DataError) and "fog" in str(wrong.exception) and not (tmp_path / "run").exists()
    assert command_line("eval", "pixelworld", "--items", 0).exit_code == 2
