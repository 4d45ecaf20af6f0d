"""Tools taken away and made worse: drops worked out by hand, subsets that stay frozen, and tools that see badly the same way every time."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from tests.unit.test_hacks import item_of, near
from tests.unit.test_robustness import Told, scored
from typer.testing import CliRunner

from pixelis.cli_probe import app
from pixelis.core.errors import DataError
from pixelis.core.geometry import Box, Mask, View
from pixelis.core.grammar import Turn, render_turn
from pixelis.core.ops import (
    Attribute,
    OcrOutput,
    PropArgs,
    PropOutput,
    Segment,
    SegOutput,
    TempOutput,
    TextSpan,
    TrackPoint,
    TrkOutput,
    ZoomOutput,
)
from pixelis.core.trajectory import PolicyInfo
from pixelis.data.world.rng import Rng
from pixelis.eval.degrade import Blur, DegradedTool, degrade_toolbox, degraded
from pixelis.eval.necessity import (
    ALL,
    CHOSEN,
    DEGRADED,
    NEEDED,
    OFF,
    counterfactual,
    make_necessity,
    necessity_from_json,
    necessity_json,
    necessity_text,
)
from pixelis.eval.necessity_run import NECESSITY, SUBSETS_FILE, content_hash, freeze_subsets, read_necessity, read_subsets, run_necessity
from pixelis.eval.pixelworld import ItemSet
from pixelis.eval.sweep import Sweep
from pixelis.serve.report import write_report
from pixelis.testing.scenes import background, disc, image_medium
from pixelis.tools.base import Context
from pixelis.tools.settings import ToolSettings
from pixelis.tools.zoom import ZoomTool


def answers(text: str) -> list:
    """Items 0 to 3 are of family a, the others of family b."""
    return [scored(index, int(char), family="a" if index < 4 else "b") for index, char in enumerate(text)]


SCORES = {ALL: answers("11111110"), "off-OCR": answers("00001110"), "off-TRK": answers("11111111"), "degraded-OCR": answers("01111110")}
NEEDS = {score.id: frozenset({"OCR"} if score.index < 2 else ()) for score in SCORES[ALL]}


def test_a_tool_is_worth_what_is_lost_without_it():
    """Four pairs that differ give p = 2 / 2^4 = 0.125, one gives 1. Of four tests of families 0.125 becomes 0.5, of two over all 0.25."""
    found = make_necessity(SCORES, NEEDS)
    assert (found.overall.value, found.overall.count) == (7 / 8, 8)
    everywhere, on_a, on_b = (found.find(OFF, "OCR", group) for group in (ALL, "a", "b"))
    assert (everywhere.drop.value, everywhere.drop.count) == (0.5, 8) and everywhere.without.value == 3 / 8
    assert (on_a.accuracy.value, on_a.without.value, on_a.drop.value, on_a.drop.count) == (1.0, 0.0, 1.0, 4)
    assert (on_b.drop.value, on_b.p) == (0.0, 1.0)
    assert on_a.p == pytest.approx(0.125) and on_a.q == pytest.approx(0.5) and everywhere.q == pytest.approx(0.25)
    assert on_a.rapr_drop.value == 1.0  # here a step is valid when the answer is right
    harmful = found.find(OFF, "TRK", "b")
    assert harmful.drop.value == -0.25  # one item more is right without it
    needed = found.find(OFF, "OCR", NEEDED)
    assert (needed.drop.value, needed.drop.count, needed.p) == (1.0, 2, 0.5)  # two pairs: 2 / 2^2
    never = found.find(OFF, "TRK", NEEDED)
    assert math.isnan(never.drop.value) and never.drop.count == 0 and math.isnan(never.p)
    assert found.find(DEGRADED, "OCR", "a").drop.value == 0.25 and found.find(DEGRADED, "TRK", "a") is None
    assert found.families == ("a", "b") and found.find(OFF, "OCR", CHOSEN) is None


def test_items_that_turn_on_a_tool():
    chosen = counterfactual(SCORES)
    assert chosen == {"OCR": tuple(score.id for score in SCORES[ALL][:4]), "TRK": ()}
    trk, ocr = make_necessity(SCORES, NEEDS).needs  # in the order of the ops
    assert (ocr.op, ocr.by_truth.value, ocr.by_truth.count, ocr.counterfactual.value, ocr.counterfactual.count) == (
        "OCR",
        0.25,
        8,
        4 / 7,
        7,
    )
    assert (trk.op, trk.counterfactual.value) == ("TRK", 0.0)


def test_a_subset_of_an_earlier_run_is_a_group():
    chosen = {"OCR": frozenset({SCORES[ALL][3].id, SCORES[ALL][4].id}), "TRK": frozenset()}
    effect = make_necessity(SCORES, NEEDS, chosen=chosen).find(OFF, "OCR", CHOSEN)
    assert (effect.drop.value, effect.drop.count) == (0.5, 2)


def test_json_and_text_hold_what_was_found():
    found = make_necessity(SCORES, NEEDS)
    values = json.loads(json.dumps(necessity_json(found), allow_nan=False))
    assert necessity_json(necessity_from_json(values)) == necessity_json(found)
    text = necessity_text(found)
    assert "OCR off, where the truth needs it" in text and "drop, degraded" in text
    with pytest.raises(DataError, match="all tools is missing"):
        make_necessity({"off-OCR": SCORES["off-OCR"]}, NEEDS)


# ---------------------------------------------------------------- frozen subsets


CONTENT = {"world": 2, "items": {"count": 2}, "counterfactual": {"OCR": ["test-0-000000-a"]}, "by_truth": {"OCR": []}, "seed": 0}


def test_what_is_frozen_stays(tmp_path):
    path = tmp_path / SUBSETS_FILE
    freeze_subsets(path, CONTENT)
    first = path.read_bytes()
    freeze_subsets(path, CONTENT)
    assert path.read_bytes() == first and read_subsets(path)["sha256"] == content_hash(CONTENT)
    with pytest.raises(DataError, match="frozen by another run"):
        freeze_subsets(path, {**CONTENT, "seed": 1})
    assert path.read_bytes() == first


def test_a_changed_subset_is_refused(tmp_path):
    path = tmp_path / SUBSETS_FILE
    freeze_subsets(path, CONTENT)
    path.write_text(path.read_text().replace("000000", "000001"))
    with pytest.raises(DataError, match="has changed since it was frozen"):
        read_subsets(path)
    with pytest.raises(DataError, match="has changed since it was frozen"):
        freeze_subsets(path, CONTENT)
    with pytest.raises(DataError, match="is not JSON"):
        path.write_text("{")
        read_subsets(path)
    with pytest.raises(DataError, match="No such file"):
        read_subsets(tmp_path / "none.json")
    other = {**CONTENT, "world": 1}
    path.write_text(json.dumps({**other, "sha256": content_hash(other)}))
    with pytest.raises(DataError, match="version 1 of PixelWorld"):
        read_subsets(path)


# ---------------------------------------------------------------- tools that see badly


def bad(output, strength=0.25, seed=0):
    return degraded(output, strength, Rng(seed), width=200, height=100, duration_s=10.0)


def boxes_at(dx: float, dy: float, box: Box) -> set[Box]:
    return {Box(box.x0 + x, box.y0 + y, box.x1 + x, box.y1 + y) for x in (dx, -dx) for y in (dy, -dy)}


def test_masks_and_tracks_are_moved_by_a_quarter_of_their_sides():
    mask_HW = np.zeros((100, 200), bool)
    mask_HW[40:60, 80:120] = True
    box = Box(80, 40, 120, 60)
    output = SegOutput(frame=0, box=box, mask=Mask.from_array(mask_HW), area_share=0.04, score=0.8)
    moved = bad(output)
    assert moved.box in boxes_at(10, 5, box) and moved.mask.area_px == 800 and moved.area_share == 0.04 and moved.score == 0.4
    assert moved.mask.iou(output.mask) == pytest.approx(0.75 * 0.75 / (2 - 0.75 * 0.75))  # below 0.5: no longer a valid step
    points = tuple(TrackPoint(frame=f, time_s=f / 10, box=None if f == 1 else box, score=1.0) for f in range(3))
    track = bad(TrkOutput(track_id=1, points=points, score=1.0))
    assert track.points[1].box is None and {p.box for p in track.points if p.box} <= boxes_at(10, 5, box) and track.points[0].score == 0.5
    corner = Box(0, 0, 40, 20)  # it has room to two sides only
    stuck = bad(TrkOutput(track_id=1, points=(TrackPoint(frame=0, time_s=0, box=corner, score=1.0),), score=1.0)).points[0].box
    assert stuck in {Box(x, y, x + 40, y + 20) for x in (0, 10) for y in (0, 5)}


def test_texts_spans_and_values_are_mistaken():
    span = TextSpan(text="Ab 1-9", box=Box(0, 0, 9, 9), confidence=0.9)
    (read,) = bad(OcrOutput(frame=0, box=Box(0, 0, 9, 9), spans=(span,)), strength=1.0).spans
    assert len(read.text) == 6 and read.text[2] == " " and read.text[4] == "-" and read.confidence == 0.45
    assert all(a != b for a, b in zip(read.text, "Ab 1-9", strict=True) if b.isalnum())
    assert read.text[0].isupper() and read.text[1].islower() and read.text[3].isdigit()
    segments = bad(
        TempOutput(event="appears", box=None, first_frame=0, last_frame=99, segments=(Segment(start_s=4.0, end_s=5.5, score=1.0),))
    )
    assert (segments.segments[0].start_s, segments.segments[0].end_s) in {(3.0, 4.5), (5.0, 6.5)}  # a quarter of 4 s
    at_end = Segment(start_s=9.5, end_s=10.0, score=1.0)
    late = [bad(TempOutput(event="cut", box=None, first_frame=0, last_frame=9, segments=(at_end,)), seed=k).segments[0] for k in range(9)]
    assert {(one.start_s, one.end_s) for one in late} == {(8.5, 9.0), (9.5, 10.0)}
    told = (("colour", "red", ""), ("count", 4, ""), ("horizontal", "left of", ""), ("width", 8.0, "px"), ("centre_x", 400, "/1000"))
    values = tuple(Attribute(name=name, value=value, confidence=1.0, unit=unit) for name, value, unit in told)
    colour, count, side, width, centre = bad(
        PropOutput(what="size", frame=0, box=Box(0, 0, 9, 9), attributes=values), strength=1.0
    ).attributes
    assert colour.value not in ("red", 4) and count.value in (3, 5) and side.value == "right of"
    assert width.value in (0.0, 16.0) and centre.value in (0, 800) and isinstance(centre.value, int) and width.confidence == 0.5


def test_a_view_is_moved_before_it_is_cut_out():
    medium = image_medium(disc(background(1), Box(100, 120, 160, 180), "red"), "disc")
    from pixelis.core.ops import ZoomArgs

    args = ZoomArgs(frame=0, box=Box(100, 120, 160, 180))
    context = Context()
    seen = DegradedTool(ZoomTool(), Blur())(medium, args, context)
    assert isinstance(seen, ZoomOutput) and seen.box in boxes_at(15, 15, args.box) and seen.image in context.blobs
    assert seen.view == View(seen.box.x0, seen.box.y0, seen.view.scale_x, seen.view.scale_y)
    assert DegradedTool(ZoomTool(), Blur())(medium, args, Context()) == seen


def test_a_degraded_tool_says_so_and_is_the_only_one():
    tools = {"PROP": Told(lambda medium: "red"), "ZOOM": ZoomTool()}
    changed = degrade_toolbox(tools, "PROP", Blur(strength=1.0, seed=3))
    assert changed["ZOOM"] is tools["ZOOM"] and changed["PROP"].version == "1; degraded 1 seed 3"
    medium = image_medium(background(1), "grey")
    output = changed["PROP"](medium, PropArgs(what="colour", frame=0, box=Box(0, 0, 50, 50)), Context())
    assert output.attributes[0].value != "red"


# ---------------------------------------------------------------- runs


class Shown:
    """Looks at the sign, and knows what stands there only when a picture came back."""

    info = PolicyInfo(name="shown", version="1")

    def __init__(self):
        self.opened: list[str] = []

    def open(self, task, *, seed):
        self.opened.append(task.id)
        return ShownSession(task)

    def close(self):
        return None


class ShownSession:
    def __init__(self, task):
        self._task, self._has_looked, self._sees = task, False, False

    async def act(self):
        if not self._has_looked:
            self._has_looked = True
            return near(self._task)
        return render_turn(Turn(thought="So.", answer=item_of(self._task).answer if self._sees else "?"))

    def observe(self, observation):
        self._sees = observation.image_png is not None

    def tokens(self):
        return ()

    def close(self):
        return None


def sweep_of(folder, policy, **changes) -> Sweep:
    items = ItemSet(families=("read_sign", "attribute"))
    return replace(
        Sweep(kind=NECESSITY, policy=policy, items=items, first=0, num_items=4, folder=folder, settings=ToolSettings()), **changes
    )


TOOLS = {"ZOOM": ZoomTool()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("necessity") / "run"
    run_necessity(sweep_of(folder, Shown()), TOOLS, ops=("ZOOM", "TRK"))
    return folder


def test_a_tool_that_is_off_answers_empty_and_a_bad_one_does_not(folder):
    found = read_necessity(folder).found
    assert found.find(OFF, "ZOOM", ALL).drop.value == 1.0 and found.find(OFF, "ZOOM", ALL).rapr_drop.value == 1.0
    assert found.find(OFF, "TRK", ALL).drop.value == 0.0 and found.find(DEGRADED, "ZOOM", ALL).drop.value == 0.0
    assert {score for score in (folder / "off-ZOOM" / "scores.jsonl").read_text().split('"') if score == "disabled"} == {"disabled"}
    subsets = read_subsets(folder / SUBSETS_FILE)
    assert len(subsets["counterfactual"]["ZOOM"]) == 4 and subsets["counterfactual"]["TRK"] == []
    assert subsets["run"] == "run" and subsets["seed"] == 0 and subsets["policy"]["name"] == "shown"
    truth = {item.id for item in map(ItemSet(families=("read_sign", "attribute")).item, range(4)) if "OCR" in item.needs}
    assert set(subsets["by_truth"]["OCR"]) == truth


def test_nothing_is_run_twice_and_a_changed_file_stops_the_run(folder):
    policy, whole = Shown(), (folder / "necessity.json").read_bytes()
    run_necessity(sweep_of(folder, policy), TOOLS, ops=("ZOOM", "TRK"))
    assert policy.opened == [] and (folder / "necessity.json").read_bytes() == whole
    with pytest.raises(DataError, match=r"degraded 0\.25 seed 0"):
        run_necessity(sweep_of(folder, policy), TOOLS, ops=("ZOOM", "TRK"), blur=Blur(strength=0.5))
    path = folder / SUBSETS_FILE
    frozen = path.read_text()
    path.write_text(frozen.replace('"seed": 0', '"seed": 1', 1))
    with pytest.raises(DataError, match="has changed since it was frozen"):
        run_necessity(sweep_of(folder, policy), TOOLS, ops=("ZOOM", "TRK"))
    path.write_text(frozen)


def test_a_later_run_is_measured_on_the_frozen_subset(folder, tmp_path):
    sweep = sweep_of(tmp_path / "later", Shown(), num_items=2)
    found = run_necessity(sweep, TOOLS, ops=("ZOOM",), ways=(OFF,), subsets=folder / SUBSETS_FILE).found
    assert (found.find(OFF, "ZOOM", CHOSEN).accuracy.value, found.find(OFF, "ZOOM", CHOSEN).drop.count) == (1.0, 2)


def test_the_report_draws_the_matrix(folder, tmp_path):
    page = write_report([folder], tmp_path / "page.html", markdown=tmp_path / "page.md").read_text("ascii")
    assert 'id="matrix-off-0"' in page and '<td class="v10">1.00 (4)</td>' in page
    lines = (tmp_path / "page.md").read_text().splitlines()
    assert "| family | ZOOM | TRK |" in lines and "| read\\_sign | 1.00 (2) | 0.00 (2) |" in lines
    assert "necessity_run in Python, with the policy" in page


def test_the_command_takes_each_tool_away(tmp_path):
    words = ["necessity", "--policy", "planner", "--items", "1", "--family", "no_tool", "--no-degraded", "--out", str(tmp_path / "run")]
    found = CliRunner().invoke(app, words)
    assert found.exit_code == 0, found.output
    assert "PROP off" in found.stdout and (tmp_path / "run" / SUBSETS_FILE).is_file()
    (tmp_path / "r.toml").write_text('[tools]\ndisabled = ["OCR"]\n')
    wrong = CliRunner().invoke(app, [*words, "--recipe", str(tmp_path / "r.toml")])
    assert wrong.exit_code != 0 and "with all tools on" in str(wrong.exception)
