"""All six tools on a photo, a page and a video of real pixels: recorded, replayed equal, and unequal when anything was changed."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import skimage.data
from PIL import Image

from pixelis.core import jsontext
from pixelis.core.media import open_medium
from pixelis.core.store import RunWriter, open_run
from pixelis.policy.base import Task
from pixelis.rollout.run import Runner
from pixelis.testing import ScriptedPolicy, WrappedTool
from pixelis.tools import replay
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import build_toolbox, resolved


def call(op: str, **arguments) -> str:
    return f"I act.\n<tool_call>\n{jsontext.dumps({'name': op, 'arguments': arguments})}\n</tool_call>"


TURNS = {
    "photo": [
        call("SEG", bbox_2d=[180, 100, 720, 780]),
        call("PROP", what="colour", ref=1),
        call("ZOOM", ref=1),
        call("PROP", what="size", ref=1),
        call("SEG", point=[500, 500]),
        call("PROP", what="relation", ref=1, other=5),
        call("ZOOM", bbox_2d=[900, 900, 100, 100]),
        "<answer>seen</answer>",
    ],
    "page": [call("OCR"), call("OCR", ref="1.1"), call("ZOOM", ref="1.2"), call("OCR", bbox_2d=[0, 0, 1000, 300]), "<answer>read</answer>"],
    "video": [
        call("TEMP", event="moves"),
        call("TRK", bbox_2d=[100, 300, 250, 520], from_s=0.0, to_s=1.5),
        call("PROP", what="motion", ref=2),
        call("SEG", ref=2, frame=0.5),
        call("OCR", frame=0.2, bbox_2d=[0, 0, 500, 500]),
        call("TRK", ref=2, from_s=1.5, to_s=0.5),
        "<answer>followed</answer>",
    ],
}


def clip():
    """A cat's face slides over a table: real pixels, known path."""
    ground = np.asarray(Image.fromarray(skimage.data.coffee()).resize((480, 320)))
    face = np.asarray(Image.fromarray(skimage.data.chelsea()[60:240, 120:330]).resize((72, 64)))
    frames = []
    for i in range(18):
        frame = ground.copy()
        frame[100 + 2 * i : 164 + 2 * i, 48 + 12 * i : 120 + 12 * i] = face
        frames.append(frame)
    return frames


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    folder = tmp_path_factory.mktemp("replay")
    Image.fromarray(skimage.data.coffee()).save(folder / "photo.png")
    Image.fromarray(skimage.data.page()).convert("RGB").save(folder / "page.png")
    import io

    import av

    data = io.BytesIO()
    with av.open(data, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 480, 320, "yuv420p"
        for frame in clip():
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    (folder / "video.mp4").write_bytes(data.getvalue())

    settings = resolved(ToolSettings())
    runner = Runner(ScriptedPolicy(lambda task: TURNS[task.id]), Executor(build_toolbox(settings)), settings=settings)
    with RunWriter(folder / "run", {"test": True}) as writer:
        jobs = []
        for name in ("photo.png", "page.png", "video.mp4"):
            medium = open_medium(folder / name)
            writer.put_blob((folder / name).read_bytes())
            jobs.append((Task(question="?", medium=medium, id=name.split(".")[0]), 0))
        runner.run(jobs, writer)
    return folder / "run"


@pytest.fixture
def run(recorded, tmp_path):
    """A copy that a test may damage."""
    shutil.copytree(recorded, tmp_path / "run")
    return open_run(tmp_path / "run")


def test_what_was_recorded(recorded):
    photo, page, video = open_run(recorded).trajectories()
    used = {s.call.op for t in (photo, page, video) for s in t.steps if s.result.is_ok}
    assert used == {"SEG", "ZOOM", "TRK", "OCR", "TEMP", "PROP"}
    failed = [(t.task_id, s.call.op, s.result.error) for t in (photo, page, video) for s in t.steps if not s.result.is_ok]
    assert [(name, op, error.kind) for name, op, error in failed] == [("photo", "ZOOM", "bad_arguments")]
    cup = photo.steps[0].result.output
    assert cup.score > 0.3 and 0.05 < cup.area_share < 0.6
    text = " ".join(s.text for s in page.steps[0].result.output.spans).lower()
    assert "region-based segmentation" in text.replace("- ", "-") or "segmentation" in text
    track = video.steps[1].result.output
    last = track.points[-1]
    # frame 15: x 48 + 12 * 15 = 228 to 300, y 100 + 30 = 130 to 194
    assert last.frame == 15 and last.box is not None
    assert abs(last.box.centre[0] - 264) < 12 and abs(last.box.centre[1] - 162) < 12
    motion = {a.name: a.value for a in video.steps[2].result.output.attributes}
    assert "right" in str(motion)
    back = video.steps[5].result.output
    assert back.points[0].frame == 5 and abs(back.points[0].box.centre[0] - (48 + 60 + 36)) < 14


def test_replay_is_equal(recorded):
    report = replay.replay_run(open_run(recorded))
    assert report.is_equal, "\n".join(str(d) for d in report.differences)
    assert (report.num_trajectories, report.num_steps) == (3, 7 + 4 + 6)


def flip(path, position=-20):
    data = bytearray(path.read_bytes())
    data[position] ^= 1
    path.write_bytes(bytes(data))


def test_one_byte_of_a_crop(run):
    (name,) = {s.result.output.image for t in run.trajectories() for s in t.steps[2:3] if t.task_id == "photo"}
    flip(run.blob_path(name))
    (difference,) = replay.replay_run(run).differences
    assert difference.what == "blob" and name in difference.stored and "has changed" in difference.replayed


@pytest.mark.parametrize("task", ["photo", "page", "video"])
def test_one_byte_of_a_medium(run, task):
    medium = next(t.medium for t in run.trajectories() if t.task_id == task)
    flip(run.blob_path(medium.sha256))
    differences = replay.replay_run(run).differences
    assert [d.what for d in differences] == ["medium"]
    assert medium.sha256 in differences[0].stored


def test_a_missing_medium_and_one_given_by_hand(run, tmp_path):
    page = next(t for t in run.trajectories() if t.task_id == "page")
    kept = run.blob_path(page.medium.sha256).rename(tmp_path / "elsewhere.png")
    assert [d.what for d in replay.replay_run(run).differences] == ["medium"]
    assert replay.replay_run(run, media={page.medium.sha256: kept}).is_equal


def test_another_tool_version_is_named(run):
    photo = next(run.trajectories())
    tools = build_toolbox(ToolSettings(**photo.settings))
    tools["PROP"] = WrappedTool(tools["PROP"], version="other 2")
    differences = replay.replay_trajectory(
        photo, run, executors={json.dumps(photo.settings, sort_keys=True): Executor(tools, deadline_s=200)}
    )
    assert {(d.what, d.step) for d in differences} == {("tool version", 2), ("tool version", 4), ("tool version", 6)}
    assert differences[0].replayed == "measure: other 2"


def test_another_result_shows_both_sides(run):
    photo = next(run.trajectories())
    tools = build_toolbox(ToolSettings(**photo.settings))
    tools["PROP"] = WrappedTool(tools["PROP"], output=photo.steps[3].result.output)
    differences = replay.replay_trajectory(
        photo, run, executors={json.dumps(photo.settings, sort_keys=True): Executor(tools, deadline_s=200)}
    )
    assert {(d.what, d.step) for d in differences} == {("result", 2), ("result", 6)}
    assert '"colour"' in differences[0].stored and '"size"' in differences[0].replayed
    with pytest.raises(Exception, match="step 2: result differs"):
        replay.ReplayReport(num_trajectories=1, num_steps=1, num_not_replayed=0, differences=tuple(differences)).raise_if_different()
