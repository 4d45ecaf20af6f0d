"""A benchmark as a run: what a scripted policy must get, and what the run folder must survive."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from tests.unit.test_bench_rules import mmbench_folder, mvbench_folder, vsibench_rows, vstar_folder

from pixelis.core.errors import ConfigError, DataError
from pixelis.core.media import open_medium, png_bytes
from pixelis.core.ops import OPS
from pixelis.core.store import open_run
from pixelis.data.world.encode import mp4_bytes
from pixelis.eval.bench import mvbench, vsibench, vstar
from pixelis.eval.bench.base import MediumRef
from pixelis.eval.bench.media import open_ref
from pixelis.eval.bench.report import report_json, report_text, score_bench_run
from pixelis.eval.bench.run import evaluate_bench
from pixelis.testing import ScriptedPolicy
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.zoom import ZoomTool

SETTINGS = ToolSettings()
CODEC = 6
"""Levels by which two passes of a near-lossless codec may move a grey."""


class Counting(ScriptedPolicy):
    """Knows which tasks it was given, and what it was shown."""

    def __init__(self, turns):
        super().__init__(turns)
        self.opened: list[str] = []
        self.shown: dict[str, tuple] = {}

    def open(self, task, *, seed):
        self.opened.append(task.id)
        medium = task.medium
        self.shown[task.id] = (medium.kind, medium.num_frames, int(medium.frame(0)[0, 0, 0]))
        assert task.facts == {}
        return super().open(task, seed=seed)


def saying(text: str) -> Counting:
    return Counting([f"<answer>{text}</answer>"])


def run(name, folder, policy, run_folder, settings=SETTINGS, **options):
    executor = Executor({"ZOOM": ZoomTool()}, disabled=settings.disabled)
    return evaluate_bench(name, folder, policy, executor, settings, run_folder=run_folder, **options)


def grey_video(levels, *, fps=2) -> bytes:
    frames = [np.full((16, 16, 3), level, np.uint8) for level in levels]
    return mp4_bytes(frames, fps=fps, width=16, height=16)


def vsi_folder(folder):
    (folder / "scannet").mkdir(parents=True)
    (folder / "scannet" / "scene0001_00.mp4").write_bytes(grey_video([10, 60]))
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, vsibench_rows())))
    return folder


def test_a_policy_that_says_a_letter(tmp_path):
    report = run("vstar", vstar_folder(tmp_path), saying("A"), tmp_path / "run")
    rates = {row.name: row.rate.value for row in report.table.rows}
    assert rates["published option order"] == 1.0 and report.table.headline.rate.value < 1.0
    assert report.budget["items"] == 8 and report.budget["steps"] == 0 and report.budget["seconds"] > 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "scores.jsonl").read_text().splitlines()]
    assert [line["id"] for line in lines] == [score.id for score in report.scores] and lines[1]["answer"] == "A"
    json.dumps(report_json(report), allow_nan=False)
    assert report_text(report).startswith("V* Bench, seed 0\npolicy scripted 1; tools all on")


def test_offline_scoring_says_the_same(tmp_path):
    made = run("mmbench", mmbench_folder(tmp_path), saying("B"), tmp_path / "run")
    before = (tmp_path / "run" / "scores.jsonl").read_bytes()
    (tmp_path / "MMBench_DEV_EN_V11.tsv").unlink()  # neither data set nor policy is needed
    again = score_bench_run(tmp_path / "run")
    assert again == made and (tmp_path / "run" / "scores.jsonl").read_bytes() == before
    assert len(list((tmp_path / "run" / "blobs").iterdir())) == 1  # the one image, which no file holds


def test_a_run_goes_on_and_grows(tmp_path):
    folder, policy = vsi_folder(tmp_path / "data"), saying("B")
    first = run("vsibench", folder, policy, tmp_path / "run", tasks=("route_planning", "object_counting"))
    assert policy.opened == ["4", "7"] and first.table.num_asked == 2
    assert any("2 of 10 questions were asked" in note for note in first.table.notes)
    done = []
    second = run("vsibench", folder, policy, tmp_path / "run", progress=lambda *pair: done.append(pair))
    assert len(policy.opened) == 10 == len(set(policy.opened)) and done == [(10, 10)]
    assert second.table.num_asked == 10 and [score.id for score in second.scores] == [str(k) for k in range(10)]
    whole = run("vsibench", folder, saying("B"), tmp_path / "other")
    assert whole.table == second.table
    assert run("vsibench", folder, saying("B"), tmp_path / "few", num_per_task=1).table == second.table


def test_another_run_is_not_mixed_in(tmp_path):
    folder = vsi_folder(tmp_path / "data")
    run("vsibench", folder, saying("B"), tmp_path / "run", tasks=("route_planning",))
    with pytest.raises(DataError, match=r"holds another run \(seed 0 instead of 1\)"):
        run("vsibench", folder, saying("B"), tmp_path / "run", seed=1)
    off = ToolSettings(disabled=OPS)
    with pytest.raises(DataError, match="tool_settings"):
        run("vsibench", folder, saying("B"), tmp_path / "run", settings=off)
    rows = vsibench_rows()
    rows[4]["question"] = "changed?"
    (folder / "test.jsonl").write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match="items_sha256"):
        run("vsibench", folder, saying("B"), tmp_path / "run")


def test_no_answer_earns_nothing_and_a_long_one_what_its_rule_says(tmp_path):
    folder = vsi_folder(tmp_path / "data")
    silent = run("vsibench", folder, ScriptedPolicy(["I will not say."]), tmp_path / "silent")
    assert silent.table.headline.rate.value == 0.0 and silent.table.num_unanswered == 10
    assert {score.stop for score in silent.scores} == {"no_action"}
    for text, share in (("B " + "x" * 5_000, 1.0), ("x" * 5_000 + " B", 0.0)):  # the first word is scored, however much stands behind it
        long = run("vsibench", folder, saying(text), tmp_path / f"long-{share}", tasks=("route_planning",))
        assert long.table.headline.rate.value == share and long.table.num_unanswered == 0 and long.scores[0].answer == text
    last = ScriptedPolicy(["B? <answer>A</answer> or <answer>B</answer>"])  # the last one counts
    assert run("vsibench", folder, last, tmp_path / "last", tasks=("route_planning",)).table.headline.rate.value == 1.0


def test_wrong_requests_are_messages(tmp_path):
    folder = vsi_folder(tmp_path / "data")
    with pytest.raises(ConfigError, match="no benchmark 'vsi': vstar, mmbench"):
        run("vsi", folder, saying("B"), tmp_path / "run")
    with pytest.raises(ConfigError, match="no task 'counting'"):
        run("vsibench", folder, saying("B"), tmp_path / "run", tasks=("counting",))
    (folder / "scannet" / "scene0001_00.mp4").unlink()
    with pytest.raises(DataError, match=r"1 media files are missing \(scannet/scene0001_00.mp4\).*nyu-visionx/VSI-Bench"):
        run("vsibench", folder, saying("B"), tmp_path / "run")
    with pytest.raises(DataError, match="is no run folder"):
        score_bench_run(tmp_path / "nowhere")


def test_changed_or_damaged_items_are_named(tmp_path):
    folder = vsi_folder(tmp_path / "data")
    run("vsibench", folder, saying("B"), tmp_path / "run", tasks=("route_planning",))
    path = tmp_path / "run" / "items.jsonl"
    whole = path.read_text()
    path.write_text(whole.replace('"B"', '"A"'))
    with pytest.raises(DataError, match="has changed since the run was made"):
        score_bench_run(tmp_path / "run")
    path.write_text(whole.splitlines()[0] + '\n{"id": "1"}\n')
    with pytest.raises(DataError, match=r"items.jsonl:2: "):
        score_bench_run(tmp_path / "run")


def test_stretches_and_frames_become_videos(tmp_path):
    folder = mvbench_folder(tmp_path / "data")
    star = folder / "video" / "star" / "Charades_v1_480"
    star.mkdir(parents=True)
    # Two frames a second: 0, 0.5, 1, 1.5, 2, 2.5, 3 s; asked about is 1 to 2.5 s, which are four frames.
    (star / "action_sequence.mp4").write_bytes(grey_video([0, 20, 100, 120, 140, 160, 220]))
    frames = folder / "video" / "tvqa" / "frames_fps3_hq" / "episodic_reasoning.mp4"
    frames.mkdir(parents=True)
    for number in range(12):  # a third of a second apart: numbers 3 to 7 lie within 1 to 2.5 s
        (frames / f"{number + 1:05d}.jpg").write_bytes(png_bytes(np.full((18, 17, 3), 20 * number, np.uint8)))
    policy = saying("B")
    tasks = ("action_sequence", "episodic_reasoning")
    report = run("mvbench", folder, policy, tmp_path / "run", tasks=tasks)
    assert report.table.headline.rate.value == 1.0
    kind, count, level = policy.shown["action_sequence/000"]
    assert (kind, count) == ("video", 4) and abs(level - 100) <= CODEC
    kind, count, level = policy.shown["episodic_reasoning/000"]
    assert (kind, count) == ("video", 5) and abs(level - 60) <= CODEC
    stored = open_run(tmp_path / "run")
    for trajectory in stored.trajectories():  # and the run replays by itself
        with open_medium(stored.blob(trajectory.medium.sha256)) as medium:
            assert medium.sha256 == trajectory.medium.sha256


def test_a_stretch_past_the_end_keeps_a_frame(tmp_path):
    (tmp_path / "v.mp4").write_bytes(grey_video([0, 200]))
    opened = open_ref(tmp_path, MediumRef(path="v.mp4", start_s=9.0, end_s=10.0))
    with opened.medium as medium:
        assert medium.num_frames == 1 and abs(int(medium.frame(0)[0, 0, 0]) - 200) <= CODEC
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="holds no image"):
        open_ref(tmp_path, MediumRef(path="empty", fps=3.0))


def test_a_run_of_older_rules_is_scored_by_todays(tmp_path):
    folder = vsi_folder(tmp_path / "data")
    made = run("vsibench", folder, saying("B"), tmp_path / "run")
    about = json.loads((tmp_path / "run" / "run.json").read_text())
    assert about["rules"] == 2
    (tmp_path / "run" / "run.json").write_text(json.dumps({**about, "rules": 1}))
    again = score_bench_run(tmp_path / "run")
    assert (again.table, again.scores, again.about["rules"]) == (made.table, made.scores, 2)
    (tmp_path / "run" / "run.json").write_text(json.dumps({**about, "rules": 0}))
    with pytest.raises(DataError, match="names no benchmark run of rules 2"):
        score_bench_run(tmp_path / "run")


def test_files_that_are_not_complete_are_warned_of_before_the_work(tmp_path, caplog):
    with pytest.raises(ConfigError, match="no task"):
        run("vstar", vstar_folder(tmp_path), saying("A"), tmp_path / "run", tasks=("none",))
    assert "the files hold 4 questions; the published set has 191: they are not complete" in caplog.text


def test_the_same_run_has_the_same_bytes(tmp_path):
    folder = vsi_folder(tmp_path / "data")
    for name in ("one", "two"):
        run("vsibench", folder, saying("B"), tmp_path / name)
    for file in ("run.json", "items.jsonl", "trajectories.jsonl", "scores.jsonl"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_the_rule_is_the_benchmarks_own(tmp_path):
    item = vsibench.read(vsi_folder(tmp_path))[0]
    assert vsibench.item_score(item, "The answer is B") == 0.0
    assert mvbench.item_score(item, "The answer is B") == 0.0
    assert vstar.item_score(item, "The answer is B") == 1.0  # the same answer, by another benchmark's rule
    assert math.isnan(vsibench.score([item], {}).headline.rate.value)
