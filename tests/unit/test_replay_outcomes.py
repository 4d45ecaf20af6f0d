"""What a replay can end in: equal, different, not executed, or nothing compared. Real crops, engines that are missing or stuck."""

from __future__ import annotations

import json

import pytest

from pixelis.core.errors import ConfigError, NotInstalled, ReplayMismatch
from pixelis.core.geometry import Box
from pixelis.core.media import open_medium, png_bytes
from pixelis.core.store import TRAJECTORIES_FILE, RunWriter, open_run
from pixelis.policy.base import Task
from pixelis.rollout.run import Runner
from pixelis.testing import ScriptedPolicy, WrappedTool
from pixelis.testing.scenes import background, disc
from pixelis.tools.engines.seg_default import ClassicalSeg
from pixelis.tools.execute import Executor
from pixelis.tools.replay import Difference, NotExecuted, ReplayReport, replay_run, replay_trajectory
from pixelis.tools.seg import SegTool
from pixelis.tools.settings import ToolSettings
from pixelis.tools.zoom import ZoomTool

ELSEWHERE = "/old/machine/path"


def call(op: str, **arguments) -> str:
    return f'<tool_call>{{"name": "{op}", "arguments": {json.dumps(arguments)}}}</tool_call>'


def recorded(folder, *turns: str, **settings: str):
    """A run of one trajectory, whose settings may name engines that did not serve it."""
    data = png_bytes(disc(background(0), Box(100, 120, 180, 200), "red"))
    medium = open_medium(data, name="scene")
    executor = Executor({"ZOOM": ZoomTool(), "SEG": SegTool(ClassicalSeg())}, deadline_s=200)
    runner = Runner(ScriptedPolicy([*turns, "<answer>seen</answer>"]), executor, settings=ToolSettings(**settings))
    with RunWriter(folder, {"test": True}) as writer:
        writer.put_blob(data)
        runner.run([(Task(question="?", medium=medium), 0)], writer)
    return open_run(folder)


ZOOM = call("ZOOM", bbox_2d=[100, 100, 400, 400])
SEG = call("SEG", bbox_2d=[150, 240, 290, 430])


def test_equal(tmp_path):
    report = replay_run(recorded(tmp_path, ZOOM))
    assert (report.is_equal, report.verdict, report.num_steps) == (True, "equal", 1)


def test_a_run_whose_only_record_was_cut_is_not_called_equal(tmp_path):
    run = recorded(tmp_path, ZOOM)
    path = run.folder / TRAJECTORIES_FILE
    path.write_bytes(path.read_bytes()[:-1])
    report = replay_run(open_run(tmp_path))
    assert (report.num_trajectories, report.is_equal, report.verdict) == (0, False, "nothing was compared")
    assert ReplayReport(num_trajectories=1, num_steps=2, num_not_replayed=2, differences=()).verdict == "nothing was compared"
    assert ReplayReport(num_trajectories=1, num_steps=2, num_not_replayed=1, differences=()).is_equal
    assert ReplayReport(num_trajectories=1, num_steps=0, num_not_replayed=0, differences=()).is_equal  # an answer without a call
    with pytest.raises(ReplayMismatch, match="nothing was compared"):
        report.raise_if_different()


@pytest.mark.parametrize(
    ("tool", "says"),
    [
        (WrappedTool(ZoomTool(), sleep_s=1.0), "ZOOM did not finish within 0.05 s"),
        (WrappedTool(ZoomTool(), error=NotInstalled("it", "pip install it")), "it is not installed"),
        (WrappedTool(ZoomTool(), error=ZeroDivisionError()), "ZOOM failed inside"),
    ],
)
def test_what_this_machine_cannot_do_is_no_difference(tmp_path, tool, says):
    run = recorded(tmp_path, ZOOM)
    (trajectory,) = run.trajectories()
    executors = {json.dumps(trajectory.settings, sort_keys=True): Executor({"ZOOM": tool}, deadline_s=0.05)}
    (found,) = replay_trajectory(trajectory, run, executors=executors)
    assert isinstance(found, NotExecuted) and found.step == 1 and says in found.why
    assert "step 1: could not be executed" in str(found)


def test_a_missing_engine_costs_the_steps_that_need_it(tmp_path, monkeypatch):
    monkeypatch.delenv("PIXELIS_MOBILE_SAM", raising=False)
    run = recorded(tmp_path / "run", ZOOM, SEG, call("SEG", bbox_2d=[9, 9, 1, 1]), seg="mobile-sam", mobile_sam_folder=ELSEWHERE)
    report = replay_run(run)
    assert not report.differences and [n.step for n in report.not_executed] == [2, 3]  # of 3, refused arguments, the version is unknown
    assert all(ELSEWHERE in n.why for n in report.not_executed)
    assert (report.is_equal, report.verdict) == (False, "2 steps could not be executed")
    with pytest.raises(ReplayMismatch, match="step 2: could not be executed"):
        report.raise_if_different()


def test_this_machine_says_where_its_engines_are(tmp_path, monkeypatch):
    here = tmp_path / "here"
    here.mkdir()
    run = recorded(tmp_path / "run", SEG, seg="mobile-sam", mobile_sam_folder=ELSEWHERE)
    monkeypatch.setenv("PIXELIS_MOBILE_SAM", str(here))
    (by_environment,) = replay_run(run).not_executed
    monkeypatch.delenv("PIXELIS_MOBILE_SAM")
    (by_option,) = replay_run(run, changes=[f"mobile_sam_folder={here}"]).not_executed
    assert by_environment.why == by_option.why and f"{here} holds none of encoder.onnx" in by_option.why
    sam2 = recorded(tmp_path / "two", SEG, seg="sam2", sam2_checkpoint=ELSEWHERE)
    (told,) = replay_run(sam2, changes=[f"sam2_checkpoint={here}"]).not_executed
    assert ELSEWHERE not in told.why
    with pytest.raises(ConfigError, match="takes the tools as they are recorded"):
        replay_run(run, changes=["seg=classical"])


def test_an_engine_that_this_version_does_not_know(tmp_path):
    (found,) = replay_run(recorded(tmp_path, SEG, seg="sam7")).not_executed
    assert "SEG has no engine 'sam7'" in found.why
    assert replay_run(recorded(tmp_path / "zoom", ZOOM, seg="sam7")).is_equal


def test_a_wrong_medium_hides_no_changed_crop(tmp_path):
    run = recorded(tmp_path, ZOOM)
    (trajectory,) = run.trajectories()
    (step,) = trajectory.steps
    for name in (trajectory.medium.sha256, step.result.output.image):
        data = bytearray(run.blob_path(name).read_bytes())
        data[-20] ^= 1
        run.blob_path(name).write_bytes(bytes(data))
    found = replay_trajectory(trajectory, run)
    assert [(d.what, d.step) for d in found if isinstance(d, Difference)] == [("medium", 0), ("blob", 1)]
    assert step.result.output.image in found[1].stored
