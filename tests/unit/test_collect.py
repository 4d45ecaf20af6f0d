"""Collecting traces: whole shards or none, resumable, judged over all of them, and only what the plan says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from pixelis.agent import make_policy
from pixelis.config import PolicySettings
from pixelis.core.errors import DataError
from pixelis.core.store import open_run
from pixelis.data.cota.load import check_traces, read_traces
from pixelis.data.stats import table, trace_stats
from pixelis.rollout.collect import Plan, Share, collect, shard_folders, trace_facts
from pixelis.rollout.teacher.policy import TeacherPolicy

PLAN = Plan("train", 3, {"no_tool": Share(4), "read_sign": Share(3), "when_changes": Share(1, questions=3)}, shard_media=4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return collect(tmp_path_factory.mktemp("set") / "traces", PLAN, num_workers=1)


def test_the_mixture_is_even():
    media = Plan("train", 0, {"no_tool": Share(4), "read_sign": Share(2)}).media()
    # Places 1/8, 3/8, 5/8, 7/8 for the first and 1/4, 3/4 for the second.
    assert [family for family, *_ in media] == ["no_tool", "read_sign", "no_tool", "no_tool", "read_sign", "no_tool"]


def test_what_a_set_holds(folder):
    shards = shard_folders(folder)
    assert [p.name for p in shards] == ["0000", "0001"]
    traces = list(read_traces(folder, only_accepted=False))
    families = [trace.family for trace in traces]
    assert families.count("no_tool") == 4 and families.count("read_sign") == 3 and 2 <= families.count("when_changes") <= 3
    report = check_traces(folder)
    assert report.is_ok, report.problems
    assert report.num_accepted >= len(traces) - 2
    changes = [t for t in traces if t.family == "when_changes"]
    assert len({t.trajectory.medium.sha256 for t in changes}) == 1 and len({t.trajectory.question for t in changes}) == len(changes)


def test_statistics_of_a_set(folder):
    stats = trace_stats(trace_facts(folder))
    text = table(stats)
    assert "read_sign" in text and "OCR" in text


def test_a_cut_collection_goes_on_where_it_stopped(tmp_path, folder):
    part = collect(tmp_path / "traces", PLAN, num_workers=1, max_shards=1)
    assert len(shard_folders(part)) == 1
    done = (part / "shards" / "0000" / "trajectories.jsonl").read_bytes()
    (part / "shards" / "0001.part").mkdir()  # what a kill leaves behind
    (part / "shards" / "0001.part" / "trajectories.jsonl").write_text("half a li")
    collect(part, PLAN, num_workers=1)
    assert (part / "shards" / "0000" / "trajectories.jsonl").read_bytes() == done
    for one, two in zip(shard_folders(part), shard_folders(folder), strict=True):
        for name in ("trajectories.jsonl", "facts.jsonl", "scores.jsonl"):
            assert (one / name).read_bytes() == (two / name).read_bytes(), name


def test_another_plan_does_not_mix_in(folder):
    with pytest.raises(DataError, match="seed"):
        collect(folder, Plan("train", 4, PLAN.shares, shard_media=4), num_workers=1)
    with pytest.raises(DataError, match="no_such"):
        collect(folder.parent / "other", Plan("train", 4, {"no_such": Share(1)}), num_workers=1)


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(DataError, match="not an empty folder"):
        collect(tmp_path, PLAN, num_workers=1)
    with pytest.raises(DataError, match="no trace set"):
        shard_folders(tmp_path)


def test_a_damaged_line_is_named(tmp_path):
    part = collect(tmp_path / "traces", Plan("train", 3, {"no_tool": Share(2)}), num_workers=1)
    path = part / "shards" / "0000" / "facts.jsonl"
    lines = path.read_text().splitlines()
    path.write_text(lines[0] + "\n" + lines[1][:20] + "\n")
    with pytest.raises(DataError, match=r"facts\.jsonl:2"):
        list(trace_facts(part))


def test_planned_errors_are_facts(folder):
    for shard in shard_folders(folder):
        trajectories = list(open_run(shard).trajectories())
        for trajectory, line in zip(trajectories, (shard / "facts.jsonl").read_text().splitlines(), strict=True):
            facts = json.loads(line)
            assert facts["id"] == trajectory.id and len(facts["valid"]) == len(trajectory.steps)
            assert all(k < len(trajectory.steps) for k in facts["planned_errors"])


def test_another_policy_may_teach(tmp_path):
    plan = Plan("train", 3, {"read_sign": Share(2)}, shard_media=4, teacher="planner")
    make_teacher = partial(make_policy, PolicySettings(name="planner"))
    found = collect(tmp_path / "traces", plan, make_teacher=make_teacher, num_workers=1)
    traces = list(read_traces(found, only_accepted=False))
    assert len(traces) == 2 and {trace.trajectory.policy.name for trace in traces} == {"planner"}
    with pytest.raises(DataError, match="teacher"):
        collect(found, Plan("train", 3, {"read_sign": Share(2)}, shard_media=4), num_workers=1)


class Hasty(TeacherPolicy):
    """Plans a mistake for a step that its trace, cut short, will never reach."""

    def open(self, task, *, seed):
        session = super().open(task, seed=seed)
        self.hands[task.id].mistakes.append(99)
        return session


def test_a_mistake_that_was_not_made_is_not_recorded(tmp_path):
    plan = Plan("train", 3, {"read_sign": Share(1)}, shard_media=1)
    folder = collect(tmp_path / "traces", plan, make_teacher=Hasty, num_workers=1)
    (line,) = [json.loads(text) for text in (shard_folders(folder)[0] / "facts.jsonl").read_text().splitlines()]
    assert line["planned_errors"] == [] and line["ops"]


def test_two_collections_do_not_share_a_folder(tmp_path):
    plan, refused = Plan("train", 3, {"no_tool": Share(2)}, shard_media=1), []

    def begin_another(done, of, traces):
        with pytest.raises(DataError, match="another process"):
            collect(tmp_path / "traces", plan, num_workers=1)
        refused.append(done)

    collect(tmp_path / "traces", plan, num_workers=1, progress=begin_another)
    assert refused == [1, 2]
    collect(tmp_path / "traces", plan, num_workers=1)  # and afterwards it is free


def test_workers_go_with_the_process_that_wanted_them(tmp_path):
    """A killed collection must not leave workers that write on where nobody waits."""
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, time\n"
        "from pixelis.rollout.workers import workers\n"
        "if __name__ == '__main__':\n"
        "    with workers(1) as pool:\n"
        "        print(pool.submit(os.getpid).result(), flush=True)\n"
        "        pool.submit(time.sleep, 600).result()\n"
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as parent:
        worker = int(parent.stdout.readline())
        os.kill(worker, 0)  # it is there
        parent.kill()
    for _ in range(100):
        try:
            os.kill(worker, 0)
        except ProcessLookupError:
            return
        time.sleep(0.2)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its parent by twenty seconds")
