"""The runner: limits, stop reasons, order, interruption, and what the policy gets to read."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time

import pytest

from pixelis.core.geometry import Box
from pixelis.core.store import RunWriter, open_run
from pixelis.policy.base import PolicyError, Task, TokenLimit
from pixelis.rollout.run import MAX_IDLE_TURNS, MAX_SAME_CALLS, Limits, Runner
from pixelis.testing import ScriptedPolicy, WrappedTool
from pixelis.testing.scenes import background, disc, image_medium
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.zoom import ZoomTool


def zoom_to(x: int) -> str:
    """A turn that zooms in; another x is another call."""
    return f'I look.\n<tool_call>\n{{"name": "ZOOM", "arguments": {{"bbox_2d": [{x}, 100, {x + 200}, 300]}}}}\n</tool_call>'


ZOOM = zoom_to(100)
ANSWER = "So.\n<answer>red</answer>"


@pytest.fixture(scope="module")
def medium():
    return image_medium(disc(background(0), Box(100, 120, 160, 180), "red"), "scene")


def runner(policy, tool=None, **options) -> Runner:
    return Runner(policy, Executor({"ZOOM": tool or ZoomTool()}), settings=ToolSettings(), **options)


def one(policy, medium, **options):
    (rollout,) = runner(policy, **options).run([(Task(question="what?", medium=medium), 7)])
    return rollout


def test_act_call_observe_answer(medium):
    policy = ScriptedPolicy([ZOOM, ANSWER])
    rollout = one(policy, medium)
    trajectory = rollout.trajectory
    assert (trajectory.stop, trajectory.answer, trajectory.final_text) == ("answered", "red", ANSWER)
    (step,) = trajectory.steps
    assert (step.thought, step.text, step.call.op) == ("I look.", ZOOM, "ZOOM")
    (observed,) = policy.observed
    assert observed.response == step.response
    facts = json.loads(step.response.removeprefix("<tool_response>\n").removesuffix("\n</tool_response>"))
    assert facts["step"] == 1 and facts["bbox_2d"] == [100, 100, 300, 300]
    assert observed.image_png == rollout.blobs[step.result.output.image]


def test_stop_reasons(medium):
    limited = one(ScriptedPolicy([zoom_to(10 * i) for i in range(5)]), medium, limits=Limits(max_steps=3)).trajectory
    assert limited.stop == "step_limit" and len(limited.steps) == 3
    idle = one(ScriptedPolicy(["hm"]), medium).trajectory
    assert idle.stop == "no_action" and len(idle.steps) == MAX_IDLE_TURNS
    assert all(s.call is None and s.result.error.kind == "bad_call" for s in idle.steps)
    empty = one(ScriptedPolicy([""]), medium).trajectory
    assert empty.stop == "no_action"


@pytest.mark.parametrize("turns", [[ZOOM], [ZOOM, zoom_to(10), ZOOM, "hm", ZOOM, zoom_to(10)], [ZOOM.replace("300]", "-1]")]])
def test_a_call_that_has_had_its_result_three_times_is_a_loop(medium, turns):
    looping = one(ScriptedPolicy(turns), medium).trajectory
    assert (looping.stop, looping.answer) == ("loop", None)
    assert sum(s.call == looping.steps[-1].call and s.result == looping.steps[-1].result for s in looping.steps) == MAX_SAME_CALLS


def test_a_call_may_be_made_again_before_an_answer_and_after_another_result(medium):
    assert one(ScriptedPolicy([ZOOM] * (MAX_SAME_CALLS - 1) + [ANSWER]), medium).trajectory.answer == "red"

    class FailsOnce(ZoomTool):
        has_failed = False

        def __call__(self, *args):
            if not self.has_failed:
                self.has_failed = True
                raise RuntimeError("fell over")
            return super().__call__(*args)

    (rollout,) = runner(ScriptedPolicy([ZOOM] * MAX_SAME_CALLS + [ANSWER]), FailsOnce()).run([(Task(question="what?", medium=medium), 7)])
    assert rollout.trajectory.answer == "red"
    assert [s.result.status for s in rollout.trajectory.steps] == ["error", "ok", "ok"]


def test_who_wants_to_may_go_round_in_circles(medium):
    circling = one(ScriptedPolicy([ZOOM] * 6 + [ANSWER]), medium, limits=Limits(max_same_calls=None)).trajectory
    assert (circling.stop, len(circling.steps)) == ("answered", 6)


def test_what_fails_for_the_machines_sake_is_no_loop(medium):
    class Fails(ZoomTool):
        def __call__(self, *args):
            raise RuntimeError("fell over")

    policy = ScriptedPolicy([ZOOM] * (MAX_SAME_CALLS + 1) + [ANSWER])
    (rollout,) = runner(policy, Fails()).run([(Task(question="what?", medium=medium), 7)])
    assert rollout.trajectory.answer == "red"
    assert {s.result.error.kind for s in rollout.trajectory.steps} == {"crashed"}


def test_a_mistake_is_shown_to_the_policy_and_the_episode_goes_on(medium):
    wrong = ZOOM + ZOOM
    policy = ScriptedPolicy([wrong, ZOOM, ANSWER])
    trajectory = one(policy, medium).trajectory
    assert trajectory.answer == "red"
    assert [s.result.status for s in trajectory.steps] == ["error", "ok"]
    assert "2 calls in one turn" in policy.observed[0].response


class Failing(ScriptedPolicy):
    """Fails in its second turn."""

    def __init__(self, error):
        super().__init__([ZOOM, ANSWER])
        self._error = error

    def open(self, task, *, seed):
        session, error = super().open(task, seed=seed), self._error
        act, turns = session.act, []

        async def failing():
            turns.append(1)
            if len(turns) == 2 and seed == 13:
                if isinstance(error, float):
                    await asyncio.sleep(error)
                else:
                    raise error
            return await act()

        session.act = failing
        return session


@pytest.mark.parametrize(
    ("error", "stop"),
    [
        (PolicyError("server fell over"), "policy_error"),
        (TokenLimit("full"), "token_limit"),
        (60.0, "time_limit"),
        (KeyError("bug"), "policy_error"),
    ],
)
def test_a_failing_policy_costs_one_trajectory(medium, error, stop):
    jobs = [(Task(question="q", medium=medium), seed) for seed in (12, 13, 14)]
    rollouts = runner(Failing(error), limits=Limits(max_seconds=1.0)).run(jobs)
    assert [r.trajectory.stop for r in rollouts] == ["answered", stop, "answered"]
    assert len(rollouts[1].trajectory.steps) == 1


def test_a_policy_that_cannot_open_costs_one_trajectory(medium):
    class Closed(ScriptedPolicy):
        def open(self, task, *, seed):
            raise PolicyError("no such model")

    trajectory = one(Closed([ANSWER]), medium).trajectory
    assert (trajectory.stop, trajectory.stop_detail, trajectory.steps) == ("policy_error", "no such model", ())


def test_the_file_has_the_order_of_the_jobs_and_equal_runs_equal_bytes(medium, tmp_path):
    def turns(task):
        return [zoom_to(10 * i) for i in range(int(task.id))] + [ANSWER]

    contents = []
    for name in "ab":
        jobs = [(Task(question="q", medium=medium, id=str(9 - i)), i) for i in range(9)]  # the first takes longest
        with RunWriter(tmp_path / name, {}) as writer:
            runner(ScriptedPolicy(turns), num_parallel=4).run(jobs, writer)
        contents.append((tmp_path / name / "trajectories.jsonl").read_bytes())
        assert [t.task_id for t in open_run(tmp_path / name).trajectories()] == list("987654321")
    assert contents[0] == contents[1]


def test_a_slow_tool_of_one_trajectory_does_not_hold_up_the_others(medium):
    slow = WrappedTool(ZoomTool(), sleep_s=0.3)
    start = time.monotonic()
    jobs = [(Task(question="q", medium=medium), i) for i in range(6)]
    runner(ScriptedPolicy([ZOOM, ANSWER]), slow, num_parallel_calls=6).run(jobs)
    assert time.monotonic() - start < 6 * 0.3


CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # as under a terminal; a shell in the background lets its children ignore it
from pixelis.core.store import RunWriter
from pixelis.policy.base import Task
from pixelis.rollout.run import Runner
from pixelis.testing import ScriptedPolicy, WrappedTool
from pixelis.testing.scenes import background, image_medium
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.zoom import ZoomTool
from tests.unit.test_run import ANSWER, zoom_to
medium = image_medium(background(0), "scene")
jobs = [(Task(question="q", medium=medium), i) for i in range(500)]
tools = {"ZOOM": WrappedTool(ZoomTool(), sleep_s=0.05)}
runner = Runner(ScriptedPolicy([*map(zoom_to, range(5)), ANSWER]), Executor(tools), settings=ToolSettings(),
                on_step=lambda task, n, step: print(n, flush=True))
with RunWriter(sys.argv[1], {}) as writer:
    runner.run(jobs, writer)
"""


def test_ctrl_c_leaves_a_readable_run(tmp_path):
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path / "run")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for _ in range(60):
        child.stdout.readline()
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=30)
    assert child.returncode != 0 and "KeyboardInterrupt" in errors
    stops = [t.stop for t in open_run(tmp_path / "run").trajectories()]
    assert stops.count("answered") >= 4
    assert "interrupted" in stops and set(stops) == {"answered", "interrupted"}
    assert len(stops) < 500
