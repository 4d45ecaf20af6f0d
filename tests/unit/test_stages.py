"""Stages: run in order or side by side, kept, taken up again, and named when they do not fit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from pixelis.config import load_recipe_as
from pixelis.core.errors import ConfigError, DataError
from pixelis.reproduce import ReproduceRecipe, reproduce
from pixelis.stages import StageTable, minutes_in_all, needs_of, run_stages, startable


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


def stage(name, *, minutes=10, threads=None, needs=None, command=("doctor",), makes="nothing"):
    return StageTable(name=name, command=command, makes=str(makes), minutes=minutes, threads=threads, needs=needs)


PLAN = (
    stage("train", minutes=30),
    stage("short", minutes=10, threads=1, needs=("train",)),
    stage("long", minutes=25, threads=1, needs=("train",)),
    stage("after", minutes=10, threads=1, needs=("short",)),
    stage("page", minutes=1),
)


def test_what_may_start():
    needs = needs_of(PLAN)

    def names(left, running, processors=2):
        return [one.name for one in startable([one for one in PLAN if one.name in left], needs, running, processors)]

    everything = {one.name for one in PLAN}
    assert names(everything, []) == ["train"]
    assert names(everything, ["train"]) == []
    assert names(everything - {"train"}, []) == ["short", "long"]
    assert names(everything - {"train"}, [], processors=1) == ["short"]
    assert names(everything - {"train", "short"}, ["long"]) == ["after"]
    assert names({"long", "page"}, ["long"]) == []  # a page stands on all before it
    assert names({"page"}, []) == ["page"]


def test_none_overtakes_one_that_waits_for_room():
    plan = (stage("one", threads=1, needs=()), stage("wide", needs=()), stage("other", threads=1, needs=()))
    assert [one.name for one in startable(plan, needs_of(plan), ["one"], 2)] == []


def test_minutes_in_all():
    """30, then 10 + 10 beside 25, then 1: 56 with two processors and 76 with one."""
    needs = needs_of(PLAN)
    assert minutes_in_all(PLAN, needs) == 56
    assert minutes_in_all(PLAN, needs, processors=1) == 76
    assert minutes_in_all(PLAN, needs, speed=2) == 112
    # 20 of the first are over; or it is done, and 5 of the long one are
    assert minutes_in_all(PLAN, needs, begun={"train": 20}) == 36
    assert minutes_in_all(PLAN[1:], needs, begun={"short": 0, "long": 5}) == 21


def working_on(folder):
    """Command lines of processes that name a folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended meanwhile
            found.append(path.read_bytes())
    return [line for line in found if str(folder).encode() in line]


def two_beside(tmp_path, second):
    first = ("data", "make", "dev", str(tmp_path / "one"), "--items", "2")
    return (
        stage("one", threads=1, needs=(), command=first, makes=tmp_path / "one" / "items.jsonl"),
        stage("two", threads=1, needs=(), command=second, makes=tmp_path / "two" / "items.jsonl"),
    )


def test_stages_of_one_thread_run_side_by_side(tmp_path):
    stages = two_beside(tmp_path, ("data", "make", "test", str(tmp_path / "two"), "--items", "2"))
    said: list[str] = []
    record = run_stages(stages, tmp_path / "log", say=said.append, processors=2)
    said = [line for line in said if not line.startswith("    ")]  # what a slow machine shows meanwhile
    assert ["pixelis" in line for line in said] == [True, True, False, False]
    assert all(done["seconds"] > 0 for done in json.loads(record.read_text()).values())
    assert all("2 items" in (tmp_path / "log" / f"{name}.log").read_text() for name in ("one", "two"))


def test_a_failed_stage_stops_those_beside_it(tmp_path):
    """The first would draw for hours."""
    second = two_beside(tmp_path, ("data", "show", str(tmp_path / "nowhere")))[1]
    endless = stage("one", threads=1, needs=(), command=("data", "make", "dev", str(tmp_path / "one"), "--items", "3000"))
    with pytest.raises(DataError, match=r"stage two failed \(exit status 2\)"):
        run_stages((endless, second), tmp_path / "log", say=lambda _: None, processors=2)
    assert json.loads((tmp_path / "log" / "reproduce.json").read_text())["one"]["seconds"] is None
    assert not working_on(tmp_path / "one")


def test_a_stage_needs_what_is_named_before_it(tmp_path):
    with pytest.raises(ConfigError, match="stage one needs two, which is not named before it"):
        run_stages((stage("one", needs=("two",)), stage("two")), tmp_path)


def test_everything_takes_a_working_day_at_most():
    """On two cores, by the minutes that its stages took."""
    stages = load_recipe_as(ReproduceRecipe, Path(__file__).parents[2] / "recipes" / "nano" / "reproduce.toml").stage
    assert minutes_in_all(stages, needs_of(stages), processors=2) <= 8 * 60


ENDLESS = """
import signal
import sys
from pathlib import Path
from pixelis.stages import StageTable, run_stages
signal.signal(signal.SIGINT, signal.default_int_handler)  # where the tests run in the background it is ignored
folder = Path(sys.argv[1])
command = ("data", "make", "dev", str(folder / "one"), "--items", "3000")
run_stages([StageTable(name="one", command=command, makes="x", minutes=1)], folder / "log")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_no_stage_outlives_the_run_that_wanted_it(tmp_path, number):
    with subprocess.Popen([sys.executable, "-c", ENDLESS, str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as run:
        until = time.monotonic() + 60
        while not (tmp_path / "one").exists() and time.monotonic() < until:
            time.sleep(0.1)
        os.kill(run.pid, number)
        try:
            assert run.wait(timeout=30) != 0
        finally:
            run.kill()
    until = time.monotonic() + 30
    while working_on(tmp_path / "one") and time.monotonic() < until:
        time.sleep(0.1)
    assert (tmp_path / "one").exists() and not working_on(tmp_path / "one")


def test_what_stands_on_a_stage_that_is_made_again_is_named(tmp_path):
    reproduce(recipe(tmp_path), say=lambda _: None)
    (tmp_path / "split" / "items.jsonl").unlink()
    with pytest.raises(DataError, match=r"stage sheet: .*sheet\.png is there, but split, which it stands on, is not"):
        reproduce(recipe(tmp_path), say=lambda _: None)


def test_no_stage_stands_on_a_half(tmp_path):
    record = reproduce(recipe(tmp_path), only=("split",), say=lambda _: None)
    known = json.loads(record.read_text())
    known["split"]["seconds"] = None
    record.write_text(json.dumps(known))
    with pytest.raises(DataError, match="stage sheet stands on split, which is not finished"):
        reproduce(recipe(tmp_path), only=("sheet",))


def test_a_stage_that_cannot_begin_and_two_of_one_name_are_named(tmp_path):
    (tmp_path / "split.log").mkdir()
    first = recipe(tmp_path).stage[0]
    with pytest.raises(DataError, match=r"stage split cannot begin: .*split\.log"):
        run_stages((first,), tmp_path, say=lambda _: None)
    with pytest.raises(ConfigError, match="two stages have one name: split"):
        run_stages((first, first), tmp_path)


def test_what_ended_well_beside_a_failure_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr("pixelis.stages.POLL_S", 20.0)  # both have ended when they are looked at
    bad = two_beside(tmp_path, ("data", "show", str(tmp_path / "nowhere")))[1]
    good = two_beside(tmp_path, ("doctor",))[0]
    with pytest.raises(DataError, match="stage two failed"):
        run_stages((bad, good), tmp_path / "log", say=lambda _: None, processors=2)
    assert json.loads((tmp_path / "log" / "reproduce.json").read_text())["one"]["seconds"] > 0
