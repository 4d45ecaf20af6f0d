"""Two grids side by side: cells and what stands over them, worked out by hand."""

from __future__ import annotations

import json
import math

import pytest
from tests.unit.test_robustness import rights
from typer.testing import CliRunner

from pixelis.cli_probe import app
from pixelis.core.errors import DataError
from pixelis.eval.grid_pair import grid_pair_json, grid_pair_text, pair_grids, read_cells
from pixelis.eval.scores import write_scores

ONE = {"clean": rights("11111111"), "noise-3": rights("11111111", "noise:3"), "motion-1": rights("1111", "motion:1")}
TWO = {"clean": rights("11110000"), "noise-3": rights("00000000", "noise:3"), "lighting-2": rights("1111", "lighting:2")}


def test_cells_and_all_of_them_by_hand():
    """Four differing pairs give p = 2 / 2^4, eight 2 / 2^8; over both cells every item differs, by 0.5 four times and by 1 four times."""
    pair = pair_grids(ONE, TWO)
    assert [row.name for row in pair.cells] == ["clean", "noise-3"]  # what one grid alone has is left out
    assert [row.difference.value for row in pair.cells] == [0.5, 1.0]
    assert [row.p for row in pair.cells] == [pytest.approx(2 / 16), pytest.approx(2 / 256)]
    assert [row.q for row in pair.cells] == [pytest.approx(2 / 16), pytest.approx(4 / 256)]
    accuracy = pair.overall[0]
    assert (accuracy.name, accuracy.one, accuracy.two, accuracy.difference.value) == ("accuracy", 1.0, 0.25, 0.75)
    assert accuracy.difference.count == 8 and accuracy.p == pytest.approx(2 / 256)  # eight items, not sixteen answers
    assert math.isnan(accuracy.q) and grid_pair_json(pair)["overall"][0]["q"] is None
    assert pair.left_out == ("lighting-2", "motion-1") and pair.num_items == 8


def test_over_all_cells_only_items_that_are_in_all():
    pair = pair_grids({**ONE, "noise-3": ONE["noise-3"][:5]}, TWO)
    assert pair.cells[0].difference.count == 8 and pair.overall[0].difference.count == 5
    assert "3 of 8 items are not in all of these cells" in grid_pair_text(pair)


def test_nothing_in_common_is_said():
    with pytest.raises(DataError, match="one grid has motion-1, the other lighting-2"):
        pair_grids({"motion-1": ONE["motion-1"]}, {"lighting-2": TWO["lighting-2"]})
    with pytest.raises(DataError, match="no item is in all of the 2 cells"):
        pair_grids({**ONE, "noise-3": ONE["noise-3"][4:]}, {**TWO, "clean": TWO["clean"][:4]})


def test_the_command_reads_what_lies_there(tmp_path):
    for name, grid in (("one", ONE), ("two", TWO)):
        for cell, scores in grid.items():
            (tmp_path / name / cell).mkdir(parents=True)
            write_scores(tmp_path / name / cell, scores)
    assert list(read_cells(tmp_path / "one")) == ["clean", "motion-1", "noise-3"]
    done = CliRunner().invoke(app, ["grids", str(tmp_path / "one"), str(tmp_path / "two")], catch_exceptions=False)
    assert (
        done.exit_code == 0
        and "over 2 cells" in done.output
        and "noise-3" in done.output
        and "only one of them has lighting-2, motion-1" in done.output
    )
    done = CliRunner().invoke(app, ["grids", str(tmp_path / "one"), str(tmp_path / "two"), "--json"], catch_exceptions=False)
    assert json.loads(done.output)["overall"][0]["difference"]["value"] == 0.75
    with pytest.raises(DataError, match="no scored cell"):
        read_cells(tmp_path)
