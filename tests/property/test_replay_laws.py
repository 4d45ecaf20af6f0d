"""Laws of replay, on calls that nobody would think of: it changes no byte and finds equal what was recorded, and names what was changed."""

from __future__ import annotations

import io
import json
import tempfile
from contextlib import contextmanager
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.property.test_tool_laws import calls

from pixelis.core.errors import MACHINE_ERRORS
from pixelis.core.geometry import Box
from pixelis.core.media import open_medium, png_bytes
from pixelis.core.store import RunWriter, open_run
from pixelis.policy.base import Task
from pixelis.rollout.run import Runner
from pixelis.testing import ScriptedPolicy, WrappedTool
from pixelis.testing.scenes import background, disc
from pixelis.tools.execute import Executor
from pixelis.tools.replay import replay_run, replay_trajectory
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import build_toolbox, resolved

SETTINGS = resolved(ToolSettings())
few = settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@st.composite
def media(draw) -> bytes:
    """A picture, or a video of eight frames, with one or two discs on grey noise."""
    width, height = draw(st.sampled_from([96, 128, 160])), draw(st.sampled_from([96, 120]))
    ground = background(draw(st.integers(0, 999)))[:height, :width]
    side, dx = draw(st.integers(14, 40)), draw(st.integers(0, 6))
    x, y, colour = draw(st.integers(0, 40)), draw(st.integers(0, 50)), draw(st.sampled_from(["red", "green", "blue"]))
    if draw(st.booleans()):
        ground = disc(ground, Box(70, 60, 92, 92), "blue")
    if not draw(st.booleans()):
        return png_bytes(disc(ground, Box(x, y, x + side, y + side), colour))
    return _video([disc(ground, Box(x + i * dx, y, x + i * dx + side, y + side), colour) for i in range(8)])


def _video(frames: list[np.ndarray]) -> bytes:
    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.height, stream.width, stream.pix_fmt = *frames[0].shape[:2], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return data.getvalue()


def _written(op: str, arguments: dict) -> str:
    return f"I act.\n<tool_call>\n{json.dumps({'name': op, 'arguments': arguments})}\n</tool_call>"


SURE = [_written("ZOOM", {"bbox_2d": [100, 100, 700, 700]}), _written("PROP", {"what": "size", "bbox_2d": [100, 100, 700, 700]})]
"""Calls of every trajectory, so that there is something to compare, and a crop to damage."""
turns = st.lists(calls().map(lambda call: _written(call.op, call.arguments)), max_size=3).map(
    lambda written: [*SURE, *written, "<answer>seen</answer>"]
)


@pytest.fixture(scope="module")
def executor():
    return Executor(build_toolbox(SETTINGS), deadline_s=200)


@contextmanager
def recorded(executor: Executor, data: bytes, texts: list[str]):
    """The run of one trajectory about one medium."""
    with tempfile.TemporaryDirectory() as folder:
        with open_medium(data, name="drawn") as medium, RunWriter(folder, {"test": True}) as writer:
            writer.put_blob(data)
            runner = Runner(ScriptedPolicy(texts), executor, settings=SETTINGS)
            runner.run([(Task(question="?", medium=medium), 0)], writer)
        yield open_run(folder)


def _bytes_of(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place % len(data)] ^= 1
    path.write_bytes(bytes(data))


@few
@given(media(), turns)
def test_a_replay_is_equal_and_changes_nothing(executor, data, texts):
    with recorded(executor, data, texts) as run:
        before = _bytes_of(run.folder)
        report = replay_run(run)
        assert report.is_equal, "\n".join(map(str, [*report.differences, *report.not_executed]))
        assert (report.num_trajectories, report.num_steps, report.num_not_replayed) == (1, len(texts) - 1, 0)
        assert _bytes_of(run.folder) == before


@few
@given(media(), turns, st.integers(0, 10**9))
def test_a_changed_medium_is_named(executor, data, texts, place):
    with recorded(executor, data, texts) as run:
        (trajectory,) = run.trajectories()
        _flip(run.blob_path(trajectory.medium.sha256), place)
        (difference,) = replay_run(run).differences
        assert (difference.what, difference.step) == ("medium", 0) and trajectory.medium.sha256 in difference.stored


@few
@given(media(), turns, st.integers(0, 10**9))
def test_a_changed_blob_is_named(executor, data, texts, place):
    with recorded(executor, data, texts) as run:
        (trajectory,) = run.trajectories()
        name = trajectory.steps[0].result.output.image
        _flip(run.blob_path(name), place)
        found = replay_trajectory(trajectory, run, executors={_key(trajectory): executor})
        assert {d.what for d in found} == {"blob"} and found[0].step == 1
        assert all(name in d.stored for d in found)


@few
@given(media(), turns, st.sampled_from(["ZOOM", "PROP", "SEG", "OCR", "TRK", "TEMP"]))
def test_another_version_of_a_tool_is_named_wherever_it_served(executor, data, texts, op):
    with recorded(executor, data, texts) as run:
        (trajectory,) = run.trajectories()
        served = [
            number
            for number, step in enumerate(trajectory.steps, 1)
            if step.call is not None and step.call.op == op and not (step.result.error and step.result.error.kind in MACHINE_ERRORS)
        ]
        others = Executor({**executor.tools, op: WrappedTool(executor.tools[op], version="another")}, deadline_s=200)
        found = replay_trajectory(trajectory, run, executors={_key(trajectory): others})
        assert [(d.what, d.step) for d in found] == [("tool version", number) for number in served]
        assert all(d.replayed.endswith(": another") for d in found)


def _key(trajectory) -> str:
    return json.dumps(trajectory.settings, sort_keys=True)
