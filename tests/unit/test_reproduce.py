"""Stages from nothing: run in order, kept, taken up again, and named when they do not fit."""

from __future__ import annotations

import json

import pytest

from pixelis.core.errors import ConfigError, DataError
from pixelis.reproduce import ReproduceRecipe, reproduce


def recipe(tmp_path, *, second=("data", "show", "{0}/split", "--out", "{0}/sheet.png", "--items", "1")):
    def words(command):
        return [word.format(tmp_path) for word in command]

    first = words(("data", "make", "dev", "{0}/split", "--items", "2"))
    return ReproduceRecipe.model_validate(
        {
            "out": str(tmp_path / "log"),
            "stage": [
                {"name": "split", "command": first, "makes": str(tmp_path / "split" / "items.jsonl"), "minutes": 1},
                {"name": "sheet", "command": words(second), "makes": str(tmp_path / "sheet.png"), "minutes": 3},
            ],
        }
    )


def test_stages_run_in_order_and_are_kept(tmp_path):
    said: list[str] = []
    record = reproduce(recipe(tmp_path), say=said.append)
    assert (tmp_path / "sheet.png").is_file() and "wrote" in (tmp_path / "log" / "sheet.log").read_text()
    assert said[0].startswith("[1/2] split: pixelis data make dev") and said[0].endswith("(about 1 min; 4 min left in all)")
    assert set(json.loads(record.read_text())) == {"split", "sheet"}
    again: list[str] = []
    reproduce(recipe(tmp_path), say=again.append)
    assert [line.split(": ")[1].split(",")[0] for line in again] == ["done", "done"]
    with pytest.raises(DataError, match=r"stage sheet.*was made by another command"):
        reproduce(recipe(tmp_path, second=("data", "show", "{0}/split", "--out", "{0}/sheet.png", "--items", "2")))


def test_a_stage_cut_short_is_run_again(tmp_path):
    record = reproduce(recipe(tmp_path), say=lambda _: None)
    known = json.loads(record.read_text())
    known["sheet"]["seconds"] = None  # as a kill leaves it
    record.write_text(json.dumps(known))
    (tmp_path / "sheet.png").write_bytes(b"half")
    said: list[str] = []
    reproduce(recipe(tmp_path), say=said.append)
    assert "done" in said[0] and "pixelis data show" in said[1] and (tmp_path / "sheet.png").stat().st_size > 1000


def test_a_failed_stage_shows_why_and_stops(tmp_path):
    with pytest.raises(DataError, match=r"stage sheet failed \(exit status 2\)(.|\n)*nowhere"):
        reproduce(recipe(tmp_path, second=("data", "show", "{0}/nowhere")), say=lambda _: None)
    with pytest.raises(DataError, match="left no"):
        reproduce(recipe(tmp_path, second=("doctor",)), say=lambda _: None)


def test_only_some_stages(tmp_path):
    reproduce(recipe(tmp_path), only=("split",), say=lambda _: None)
    assert not (tmp_path / "sheet.png").exists()
    with pytest.raises(ConfigError, match="no stage sleep: there are split, sheet"):
        reproduce(recipe(tmp_path), only=("sleep",))


def test_a_damaged_record_is_named(tmp_path):
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "reproduce.json").write_text("{half")
    with pytest.raises(DataError, match=r"reproduce\.json: is damaged"):
        reproduce(recipe(tmp_path))
