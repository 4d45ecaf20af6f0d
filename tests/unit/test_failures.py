"""Failures by mode: traits from exact facts, rates worked out by hand, and a gallery on the report."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest
from tests.unit.test_hacks import answer, near, right
from tests.unit.test_robustness import scored
from typer.testing import CliRunner

from pixelis.cli_probe import app
from pixelis.core.geometry import Box
from pixelis.data.world.item import Evidence, Truth, WorldObject
from pixelis.data.world.items import make_item
from pixelis.eval.failures import (
    DENSE,
    OTHER,
    audit,
    audit_json,
    audit_text,
    first_invalid,
    is_dense,
    is_fast,
    is_stylised,
    is_thin_or_small,
)
from pixelis.eval.failures_run import FAILURES_FILE, audit_run
from pixelis.eval.pixelworld import evaluate
from pixelis.serve.report import write_report
from pixelis.testing import ScriptedPolicy
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.zoom import ZoomTool

PLAIN = replace(
    make_item("test", 0, family="attribute"), width=1000, height=1000, mentions=(("the red star", 0),), truth=Truth(objects=()),
    evidence=Evidence(boxes=((0, Box(0, 0, 100, 100)),)),
)  # fmt: skip


def thing(number: int = 0, kind: str = "shape", track: tuple = ()) -> WorldObject:
    box = Box(0, 0, 10, 10)
    return WorldObject(number=number, kind=kind, colour="red", shape="star", text="", first_frame=0, box=box, mask=None, track=track)


def looked_at(width: float, height: float):
    return replace(PLAIN, evidence=Evidence(boxes=((0, Box(0, 0, 100, 100)), (0, Box(5, 5, 5 + width, 5 + height)))))


def test_the_smallest_region_decides_what_is_small():
    """Of 1000 x 1000 pixels the limits are 300 square pixels and 7.8 pixels."""
    assert not is_thin_or_small(PLAIN) and not is_thin_or_small(looked_at(20, 15.1))
    assert is_thin_or_small(looked_at(20, 14.9)) and is_thin_or_small(looked_at(500, 7.7)) and not is_thin_or_small(looked_at(500, 7.9))
    assert not is_thin_or_small(replace(PLAIN, evidence=Evidence()))


def test_a_hand_is_stylised_only_where_it_must_be_read():
    sign = make_item("test", 0, family="read_sign")
    hands = {
        name: is_stylised(replace(sign, style=replace(sign.style, fonts=(name,))))
        for name in ("plain", "italic", "slab", "brush", "signal")
    }
    assert hands == {"plain": False, "italic": True, "slab": True, "brush": True, "signal": False}
    assert not is_stylised(replace(PLAIN, style=replace(PLAIN.style, fonts=("italic",))))


def test_a_thing_is_fast_when_its_boxes_no_longer_overlap():
    def moving(step: float, number: int = 0):
        track = tuple(Box(step * f, 0, step * f + 10, 10) for f in range(4))
        return replace(PLAIN, truth=Truth(objects=(thing(number, track=(*track, None)),)))

    assert is_fast(moving(11)) and not is_fast(moving(9)) and not is_fast(PLAIN)
    assert not is_fast(moving(11, number=1))  # nobody asks for that one


def test_a_layout_is_dense_by_what_is_to_be_seen():
    def crowd(count: int, kind: str = "shape"):
        return replace(PLAIN, truth=Truth(objects=tuple(thing(k, kind) for k in range(count))))

    assert is_dense(crowd(DENSE)) and not is_dense(crowd(DENSE - 1)) and not is_dense(crowd(DENSE, "occluder"))


# ---------------------------------------------------------------- rates


def pair(index: int, right: int, *, small: bool, family: str = "a", **changes):
    item = looked_at(5, 5) if small else PLAIN
    score = scored(index, right, family=family, **changes)
    return replace(item, id=score.id, index=index, family=family), score


PAIRS = [
    pair(0, 0, small=True, ops=("SEG", "OCR"), errors=("", ""), valid=(True, False), steps=2, fit=(None, None)),
    pair(1, 0, small=True, ops=("none",)),
    pair(2, 0, small=True, ops=("SEG",)),
    pair(3, 1, small=True, family="b"),
    pair(4, 1, small=False),
    pair(5, 0, small=False),
    pair(6, 1, small=False),
    pair(7, 1, small=False, family="c"),
]


def test_a_mode_is_set_against_items_without_its_trait():
    """Small fails 3 of 4, the others 1 of 4; in family a the others fail 1 of 3, and b has none of them."""
    modes = {mode.name: mode for mode in audit(PAIRS)}
    small, other = modes["thin or small"], modes[OTHER]
    assert (small.failed.value, small.failed.count, small.failed.method) == (0.75, 4, "Clopper-Pearson")
    assert (small.without.value, small.without.count) == (0.25, 4) and (small.same_families, small.num_same) == (pytest.approx(1 / 3), 3)
    assert small.p == pytest.approx(34 / 70)  # tables of 4 and 4 with 4 failures: 1, 16, 36, 16, 1 of 70; as rare or rarer than 3 : 1
    assert (small.rapr.value, small.rapr_without.value) == (pytest.approx(1.5 / 4), 0.75)
    assert small.broke_at == {"OCR": 1, "SEG": 1, "no call": 1}
    assert [score.index for score in small.worst] == [1, 2, 0]
    assert (other.failed.value, other.failed.count) == (0.25, 4) and other.broke_at == {"OCR": 1}
    fast = modes["fast motion"]
    assert math.isnan(fast.failed.value) and fast.failed.count == 0 and math.isnan(fast.p) and math.isnan(fast.q) and fast.worst == ()
    assert small.q == pytest.approx(34 / 70) and list(modes)[-1] == OTHER
    json.dumps(audit_json(tuple(modes.values())), allow_nan=False)
    assert "0.333 (3)" in audit_text(tuple(modes.values()))


def test_order_does_not_matter_and_the_number_of_worst_is_a_limit():
    assert audit_json(audit(PAIRS[::-1])) == audit_json(audit(PAIRS))
    assert [len(mode.worst) for mode in audit(PAIRS, num_worst=1)] == [1, 0, 0, 0, 1]


def test_where_a_chain_broke():
    assert first_invalid(scored(0, 0, ops=("SEG", "TRK"), valid=(True, False))) == "TRK"
    assert first_invalid(scored(0, 0, ops=("SEG",), valid=(True,))) == "none" and first_invalid(scored(0, 0, ops=(), valid=())) == "none"


# ---------------------------------------------------------------- a run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("failures") / "run"
    policy = ScriptedPolicy(lambda task: [near(task), right(task) if "000000" in task.id else answer("?")])
    evaluate(policy, Executor({"ZOOM": ZoomTool()}), ToolSettings(), num_items=3, families=("read_sign",), out_folder=folder)
    return folder


def test_the_audit_names_the_worst_and_where_their_media_lie(folder):
    modes = audit_run(folder, num_worst=2)
    assert sum(len(mode.worst) for mode in modes) >= 2
    values = json.loads((folder / FAILURES_FILE).read_bytes())
    assert (values["items"], values["failures"]) == (3, 2)
    worst = [one for mode in values["modes"] for one in mode["worst"]]
    assert {one["item"] for one in worst} == {"test-0-000001-read_sign", "test-0-000002-read_sign"}
    assert all((folder / one["medium"]).is_file() for one in worst)


def test_the_report_has_a_gallery_where_the_audit_was_made(folder, tmp_path):
    (folder / FAILURES_FILE).unlink(missing_ok=True)
    assert 'id="gallery"' not in write_report([folder], tmp_path / "without.html").read_text("ascii")
    found = CliRunner().invoke(app, ["failures", str(folder)])
    assert found.exit_code == 0 and "thin or small" in found.stdout, found.output
    page = write_report([folder], tmp_path / "page.html").read_text("ascii")
    assert 'id="failures-0"' in page and 'id="gallery"' in page and '<a href="#gallery">Failures</a>' in page
    gallery = page[page.index('<section id="gallery"') :]
    assert gallery.count('<article class="card wrong">') == 2 and '<article class="card right">' not in gallery
