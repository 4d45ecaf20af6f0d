from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.core.errors import DataError
from pixelis.core.geometry import Box
from pixelis.core.media import MediumInfo
from pixelis.core.ops import Call, CallError, OcrOutput, Result, TextSpan
from pixelis.core.store import RunWriter, open_run, sha256
from pixelis.core.trajectory import PolicyInfo, Step, Timing, TokenRun, Trajectory, dump_trajectory, load_trajectory

MEDIUM = MediumInfo(kind="image", sha256="0" * 64, width=640, height=480, num_frames=1, fps=None, duration_s=0.0, name="a.png")


def make(identity: str = "t0", text: str = "EXIT") -> Trajectory:
    span = TextSpan(text=text, box=Box(1.25, 2, 30, 40), confidence=0.5)
    output = OcrOutput(frame=0, box=Box(0, 0, 640, 480), spans=(span,))
    result = Result(op="OCR", status="ok", engine="e", version="v", output=output)
    failed = Result(op="", status="error", engine="none", version="", error=CallError(kind="bad_call", message="m"))
    steps = (
        Step(thought="t", text="t<tool_call>", call=Call(op="OCR", arguments={"frame": 0.1}), result=result, response="r"),
        Step(thought="", text="??", call=None, result=failed, response="r"),
    )
    return Trajectory(
        id=identity,
        question="q?",
        medium=MEDIUM,
        policy=PolicyInfo(name="p", version="1", sampling={"temperature": 0.7}),
        seed=3,
        steps=steps,
        stop="answered",
        answer=text,
        tokens=(TokenRun(role="policy", ids=(1, 2), logp=(-0.1, -1e-9)),),
    )


@given(st.text(max_size=40).filter(lambda s: not any("\ud800" <= c <= "\udfff" for c in s)))
def test_load_of_dump_is_the_same(text):
    trajectory = make(text=text)
    assert load_trajectory(dump_trajectory(trajectory), where="x") == trajectory


def test_write_and_read(tmp_path):
    with RunWriter(tmp_path / "run", {"seed": 1}) as writer:
        writer.append(make("a"), blobs={sha256(b"crop"): b"crop"}, timing=Timing(id="a", steps=(), total_s=0.5))
        writer.append(make("b", "caf\u00e9 \u4e2d"))
    run = open_run(tmp_path / "run")
    assert [t.id for t in run.trajectories()] == ["a", "b"]
    assert list(run.trajectories())[1].answer == "caf\u00e9 \u4e2d"
    assert run.blob(sha256(b"crop")) == b"crop"
    assert run.timings()["a"].total_s == 0.5
    assert run.info == {"seed": 1} and run.num_cut_bytes == 0


def test_same_trajectories_same_bytes(tmp_path):
    for name in "xy":
        with RunWriter(tmp_path / name, {"seed": 1}) as writer:
            writer.append(make("a"))
    assert (tmp_path / "x" / "trajectories.jsonl").read_bytes() == (tmp_path / "y" / "trajectories.jsonl").read_bytes()
    assert (tmp_path / "x" / "run.json").read_bytes() == (tmp_path / "y" / "run.json").read_bytes()


@settings(max_examples=60, deadline=None)
@given(cut=st.integers(1, 10_000))
def test_cut_at_any_byte_keeps_what_was_acknowledged(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    with RunWriter(folder, {}) as writer:
        writer.append(make("a"))
        kept = (folder / "trajectories.jsonl").stat().st_size
        writer.append(make("b"))
    path = folder / "trajectories.jsonl"
    size = path.stat().st_size
    cut = kept + cut % (size - kept)
    os.truncate(path, cut)
    run = open_run(folder)
    assert [t.id for t in run.trajectories()] == ["a"]
    assert run.num_cut_bytes == cut - kept
    with RunWriter(folder, {}, resume=True) as writer:
        writer.append(make("c"))
    assert [t.id for t in open_run(folder).trajectories()] == ["a", "c"]
    if cut > kept:
        assert (folder / f"torn-{kept}.bin").stat().st_size == cut - kept


CHILD = """
import sys
from tests.unit.test_store import make
from pixelis.core.store import RunWriter
with RunWriter(sys.argv[1], {}) as writer:
    for i in range(100000):
        writer.append(make(f"t{i}", "x" * 5000), blobs={})
        print(i, flush=True)
"""


def test_killed_while_writing_loses_nothing_acknowledged(tmp_path):
    for attempt in range(3):
        folder = tmp_path / str(attempt)
        child = subprocess.Popen([sys.executable, "-c", CHILD, str(folder)], stdout=subprocess.PIPE, text=True)
        first = child.stdout.readline()
        time.sleep(0.05 * (attempt + 1))
        child.send_signal(signal.SIGKILL)
        acknowledged = [int(first), *(int(line) for line in child.stdout.read().splitlines() if line)]
        child.wait()
        found = [t.id for t in open_run(folder).trajectories()]
        assert found[: len(acknowledged)] == [f"t{i}" for i in acknowledged]
        assert len(found) - len(acknowledged) in (0, 1)


def test_a_changed_record_is_named(tmp_path):
    with RunWriter(tmp_path / "r", {}) as writer:
        writer.append(make("a"))
        writer.append(make("b"))
    path = tmp_path / "r" / "trajectories.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[1].replace(b"EXIT", b"EXIS"))
    with pytest.raises(DataError, match=r"trajectories.jsonl:2: the record has changed"):
        list(open_run(tmp_path / "r").trajectories())
    path.write_bytes(b"{}\n" + lines[1])
    with pytest.raises(DataError, match=r"trajectories.jsonl:1: this line is no trajectory record"):
        list(open_run(tmp_path / "r").trajectories())


def test_another_schema_and_unknown_fields_are_refused():
    facts = json.loads(dump_trajectory(make()))
    with pytest.raises(DataError, match="schema 99"):
        load_trajectory(json.dumps({**facts, "schema_version": 99}).encode(), where="f:1")
    with pytest.raises(DataError, match="f:1: colour"):
        load_trajectory(json.dumps({**facts, "colour": 1}).encode(), where="f:1")
    with pytest.raises(DataError, match="f:1"):
        load_trajectory(b"{", where="f:1")


def test_a_damaged_timing_is_named(tmp_path):
    with RunWriter(tmp_path / "r", {}) as writer:
        writer.append(make("a"), timing=Timing(id="a", steps=(), total_s=0.5))
    with open(tmp_path / "r" / "timings.jsonl", "ab") as file:
        file.write(b"{}\n{torn")
    with pytest.raises(DataError, match=r"timings.jsonl:2: this line is no timing"):
        open_run(tmp_path / "r").timings()


def test_a_changed_or_missing_blob_is_named(tmp_path):
    name = sha256(b"crop")
    with RunWriter(tmp_path / "r", {}) as writer:
        writer.append(make(), blobs={name: b"crop"})
    run = open_run(tmp_path / "r")
    run.blob_path(name).write_bytes(b"crOp")
    with pytest.raises(DataError, match="has changed"):
        run.blob(name)
    run.blob_path(name).unlink()
    with pytest.raises(DataError, match="is missing"):
        run.blob(name)


def test_writers_refuse_what_would_lose_data(tmp_path):
    writer = RunWriter(tmp_path / "r", {})
    with pytest.raises(DataError, match="already holds a run"):
        RunWriter(tmp_path / "r", {})
    with pytest.raises(DataError, match="another process is writing"):
        RunWriter(tmp_path / "r", {}, resume=True)
    with pytest.raises(DataError, match="has the content of"):
        writer.append(make(), blobs={"0" * 64: b"x"})
    writer.close()
    assert list(open_run(tmp_path / "r").trajectories()) == []
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match="cannot write"):
        RunWriter(tmp_path / "file", {})
    for wrong in (tmp_path, tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(DataError, match="is no run folder"):
            open_run(wrong)
