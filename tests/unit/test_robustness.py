"""The grid of shifts: numbers worked out by hand, plans that hold or do not, a run that goes on where it was killed."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from types import SimpleNamespace

import pytest
from tests.unit.test_hacks import answer, item_of, near
from typer.testing import CliRunner

from pixelis.cli_probe import app
from pixelis.core.errors import DataError
from pixelis.core.grammar import Turn, render_turn
from pixelis.core.ops import Attribute, Call, PropOutput
from pixelis.data.world.shifts import Shift
from pixelis.eval.pixelworld import ItemSet
from pixelis.eval.robustness import CLEAN, grid_from_json, grid_json, grid_shifts, grid_text, make_grid
from pixelis.eval.robustness_run import GRID_FILE, PLANS_FILE, ROBUSTNESS, plan_survives, read_robustness, run_robustness
from pixelis.eval.scores import ItemScore
from pixelis.eval.sweep import Sweep
from pixelis.serve.report import write_report
from pixelis.testing import ScriptedPolicy
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.zoom import ZoomTool

NUM = 3


def scored(index: int, right: int, shift: str = "", family: str = "count", **changes) -> ItemScore:
    """One step, whose call parses and is valid when the answer is right."""
    name = f"test-0-{index:06d}-{family}{f'@{shift}' if shift else ''}"
    score = ItemScore(
        id=name, index=index, family=family, right=right, answer="x", stop="answered", steps=1, chain=1, ops=("OCR",), errors=("",),
        valid=(bool(right),), fit=(None,), tokens=0, trajectory=f"t{index}",
    )  # fmt: skip
    return replace(score, **changes)


def rights(text: str, shift: str = "") -> list[ItemScore]:
    return [scored(index, int(char), shift) for index, char in enumerate(text)]


# ---------------------------------------------------------------- the numbers


def test_every_cell_is_compared_with_the_clean_items_pair_by_pair():
    """Four differing pairs give p = 2 / 2^4 = 0.125, eight give 2 / 2^8 = 0.0078; of two tests the smaller is doubled."""
    scores = {CLEAN: rights("11111111"), "noise:3": rights("00000000", "noise:3"), "noise:1": rights("11110000", "noise:1")}
    clean, mild, strong = make_grid(scores, {"noise:1": [True, None, False]})
    assert (clean.name, mild.name, strong.name) == ("clean", "noise:1", "noise:3")
    assert (clean.accuracy.value, mild.accuracy.value, strong.accuracy.value) == (1.0, 0.5, 0.0)
    assert (mild.difference.value, strong.difference.value, mild.difference.count) == (-0.5, -1.0, 8)
    assert mild.difference.low < -0.5 < mild.difference.high and math.isnan(strong.difference.low)  # all pairs differ alike
    assert mild.p == pytest.approx(0.125) and strong.p == pytest.approx(2 / 256)
    assert mild.q == pytest.approx(0.125) and strong.q == pytest.approx(4 / 256)
    assert math.isnan(clean.p) and math.isnan(clean.q) and math.isnan(clean.difference.value) and clean.difference.count == 0
    assert (mild.rapr.value, mild.valid.value, mild.parses.value) == (0.5, 0.5, 1.0)
    assert (mild.prc.value, mild.prc.count, mild.prc.num_unscored) == (0.5, 2, 1)
    assert math.isnan(strong.prc.value) and strong.prc.count == 0  # never asked for: unknown, not 0


def test_order_of_items_and_shifts_does_not_matter():
    scores = {CLEAN: rights("1101"), "noise:1": rights("0101", "noise:1"), "lighting:2": rights("1100", "lighting:2")}
    backwards = {name: list(reversed(some)) for name, some in reversed(scores.items())}
    assert grid_json(make_grid(scores)) == grid_json(make_grid(backwards))
    assert [cell.name for cell in make_grid(backwards)] == ["clean", "lighting:2", "noise:1"]


def test_a_busy_machine_is_told_from_a_weak_policy():
    late = [scored(0, 0, "noise:1", errors=("deadline",)), scored(1, 0, "noise:1", stop="time_limit"), scored(2, 1, "noise:1")]
    grid = make_grid({CLEAN: rights("111"), "noise:1": late})
    assert [cell.num_late for cell in grid] == [0, 2]
    assert "2 trajectories failed for the machine's sake" in grid_text(grid)


def test_json_holds_the_whole_grid():
    grid = make_grid({CLEAN: rights("1101"), "noise:1": rights("0101", "noise:1")}, {"noise:1": [None]})
    rows = json.loads(json.dumps(grid_json(grid), allow_nan=False))
    assert grid_json(grid_from_json(rows)) == grid_json(grid)
    assert rows[1]["prc"]["value"] is None and rows[1]["prc"]["num_unscored"] == 1


def test_what_cannot_be_a_grid_is_a_message():
    with pytest.raises(DataError, match="clean items"):
        make_grid({"noise:1": rights("1", "noise:1")})
    with pytest.raises(DataError, match="none is the same"):
        make_grid({CLEAN: rights("1"), "noise:1": [scored(7, 1, "noise:1")]})
    with pytest.raises(DataError, match="no shift is asked for"):
        grid_shifts((), (1,))
    with pytest.raises(DataError, match="no shift fog:1"):
        grid_shifts(("fog",), (1,))
    assert len(grid_shifts()) == 25 and grid_shifts(("noise", "noise"), (3, 1)) == (Shift("noise", 1), Shift("noise", 3))


# ---------------------------------------------------------------- runs


def blinded(task) -> list[str]:
    """Looks at the sign, and knows what stands there unless there is noise."""
    return [near(task), answer("?" if "@noise" in task.id else item_of(task).answer)]


class Counting(ScriptedPolicy):
    def __init__(self, turns):
        super().__init__(turns)
        self.opened: list[str] = []

    def open(self, task, *, seed):
        self.opened.append(task.id)
        return super().open(task, seed=seed)


def sweep_of(folder, policy, **changes) -> Sweep:
    sweep = Sweep(
        kind=ROBUSTNESS,
        policy=policy,
        items=ItemSet(families=("read_sign",)),
        first=0,
        num_items=NUM,
        folder=folder,
        settings=ToolSettings(),
    )
    return replace(sweep, **changes)


ZOOM = {"ZOOM": ZoomTool()}
TWO = (Shift("noise", 2), Shift("compression", 1))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("grids") / "grid"
    run_robustness(sweep_of(folder, ScriptedPolicy(blinded)), Executor(ZOOM), TWO, num_plans=2)
    return folder


def test_the_same_items_go_through_every_shift(folder):
    grid = read_robustness(folder).grid
    assert [cell.name for cell in grid] == ["clean", "noise:2", "compression:1"]
    assert [cell.accuracy.value for cell in grid] == [1.0, 0.0, 1.0]
    assert [cell.difference.value for cell in grid[1:]] == [-1.0, 0.0] and [cell.difference.count for cell in grid[1:]] == [NUM, NUM]
    assert all(cell.rapr.value == 1.0 for cell in grid)  # the sign stays where it was
    # A zoom stands in no answer and nothing is built on it: no evidence, so nothing to survive.
    assert [(cell.prc.count, cell.prc.num_unscored) for cell in grid] == [(0, 0), (0, 2), (0, 2)]


def test_a_killed_grid_goes_on_with_what_is_missing(folder, tmp_path):
    whole = (folder / GRID_FILE).read_bytes()
    again = tmp_path / "grid"
    shutil.copytree(folder, again)
    shutil.rmtree(again / "compression-1")
    path = again / "noise-2" / "trajectories.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    (again / "noise-2" / "scores.jsonl").unlink()
    (again / GRID_FILE).unlink()
    policy = Counting(blinded)
    run_robustness(sweep_of(again, policy), Executor(ZOOM), TWO, num_plans=2)
    assert len(policy.opened) == 1 + NUM and sum("@noise" in name for name in policy.opened) == 1
    assert (again / GRID_FILE).read_bytes() == whole
    run_robustness(sweep_of(again, policy), Executor(ZOOM), TWO, num_plans=2)
    assert len(policy.opened) == 1 + NUM  # nothing is run twice


def test_another_run_in_its_folder_is_refused(folder):
    with pytest.raises(DataError, match=r"items\.seed 0 instead of 4"):
        run_robustness(sweep_of(folder, ScriptedPolicy(blinded), items=ItemSet(seed=4, families=("read_sign",))), Executor(ZOOM), TWO)
    with pytest.raises(DataError, match="nothing to evaluate: 0 items"):
        run_robustness(sweep_of(folder, ScriptedPolicy(blinded), num_items=0), Executor(ZOOM), TWO)


def test_an_unfinished_or_damaged_grid_is_a_message(folder, tmp_path):
    with pytest.raises(DataError, match="it is not finished"):
        read_robustness(tmp_path)
    (tmp_path / GRID_FILE).write_text('{"cells": [{"kind": "clean"}]}')
    with pytest.raises(DataError, match="is damaged"):
        read_robustness(tmp_path)


def test_the_report_draws_the_grid(folder, tmp_path):
    page = write_report([folder], tmp_path / "page.html", markdown=tmp_path / "page.md").read_text("ascii")
    assert (
        'id="heat-0"' in page and 'class="wide heat"' in page and '<td class="v10">1.00 (3)</td>' in page and "--shifts noise" not in page
    )
    lines = (tmp_path / "page.md").read_text().splitlines()
    assert "| noise | 1.00 (3) | - | 0.00 (3) |" in lines  # three pairs: p = 2 / 8, no star
    assert "| compression | 1.00 (3) | 1.00 (3) | - |" in lines
    again = write_report([folder], tmp_path / "again.html").read_bytes()
    assert again == (tmp_path / "page.html").read_bytes()


# ---------------------------------------------------------------- plans on shifted media


class Told:
    """A PROP whose one value is what a function makes of the medium."""

    op, engine, version = "PROP", "told", "1"

    def __init__(self, value):
        self._value = value

    def __call__(self, medium, args, context):
        shown = (Attribute(name="colour", value=self._value(medium), confidence=1.0),)
        return PropOutput(what="colour", frame=0, box=args.box, attributes=shown)


def reads(task) -> list[str]:
    call = Call(op="PROP", arguments={"bbox_2d": [100, 100, 300, 300], "what": "colour"})
    return [render_turn(Turn(thought="I look.", call=call)), answer("red")]


@pytest.mark.parametrize(
    "value, survives", [(lambda medium: "red", 1.0), (lambda medium: ("red", "blue")["noise" in medium.info.name], 0.0)]
)
def test_a_plan_survives_where_its_evidence_is_found_again(tmp_path, value, survives):
    executor = Executor({"PROP": Told(value)})
    sweep = sweep_of(tmp_path / "grid", ScriptedPolicy(reads), num_items=1)
    _, cell = run_robustness(sweep, executor, TWO[:1], num_plans=1).grid
    assert (cell.prc.value, cell.prc.count) == (survives, 1)
    (line,) = (tmp_path / "grid" / "noise-2" / PLANS_FILE).read_text().splitlines()
    assert json.loads(line)["survives"] is bool(survives)


def test_a_video_whose_camera_moves_says_nothing_of_plans():
    shifted = ItemSet(families=("end_place",), shift=Shift("motion", 1))
    assert plan_survives(SimpleNamespace(steps=(None,)), shifted, 0, Executor({})) is None
    assert plan_survives(SimpleNamespace(steps=()), ItemSet(families=("attribute",), shift=Shift("noise", 1)), 0, Executor({})) is None


# ---------------------------------------------------------------- the command


def test_the_command_runs_a_grid(tmp_path):
    words = ["robustness", "--policy", "planner", "--items", "1", "--family", "no_tool", "--shifts", "noise", "--severities", "1"]
    found = CliRunner().invoke(app, [*words, "--out", str(tmp_path / "grid"), "--json"])
    assert found.exit_code == 0, found.output
    values = json.loads(found.stdout)
    assert [cell["kind"] for cell in values["cells"]] == ["clean", "noise"] and values["evaluation"] == "robustness"
    page = write_report([tmp_path / "grid"], tmp_path / "page.html").read_text("ascii")
    wanted = "eval robustness --policy planner --split test --items 1 --seed 0 --family no_tool --shifts noise --severities 1"
    assert f"{wanted} --out PATH/grid" in page
    wrong = CliRunner().invoke(app, ["robustness", "--severities", "mild", "--out", str(tmp_path / "other")])
    assert wrong.exit_code != 0 and "write numbers from 1 to 5" in str(wrong.exception)
    assert not (tmp_path / "other").exists()
