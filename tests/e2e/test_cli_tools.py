"""`pixelis tool`, `replay` and `doctor`, in this process: options, files and exit codes."""

from __future__ import annotations

import io
import json
import sys

import numpy as np
import pytest
from PIL import Image
from tests.e2e.inprocess import pixelis

from pixelis.core.media import open_medium, png_bytes
from pixelis.core.store import TRAJECTORIES_FILE, RunWriter
from pixelis.policy.base import Task
from pixelis.rollout.run import Runner
from pixelis.testing import ScriptedPolicy
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.zoom import ZoomTool

ZOOM = '<tool_call>{"name": "ZOOM", "arguments": {"bbox_2d": [0, 0, 500, 500]}}</tool_call>'


@pytest.fixture
def photo(tmp_path):
    slope = np.add.outer(np.arange(200), np.arange(300)) % 256
    Image.fromarray(slope.astype(np.uint8)).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def lines(monkeypatch, *args: object, stdin: list[dict | str], ok: bool = True):
    text = "\n".join(line if isinstance(line, str) else json.dumps(line) for line in stdin)
    monkeypatch.setattr(sys, "stdin", io.StringIO(text + "\n"))
    done = pixelis("tool", "-", *args, ok=ok)
    return done, [json.loads(line) for line in done.stdout.splitlines()]


def test_lines_go_on_behind_a_bad_one(photo, monkeypatch):
    call = {"op": "ZOOM", "arguments": {"bbox_2d": [0, 0, 500, 500]}}
    done, found = lines(monkeypatch, photo, stdin=[call, "nonsense", {**call, "typo": 1}, call], ok=False)
    assert done.returncode == 1 and done.stderr == ""
    assert [facts["status"] for facts in found] == ["ok", "error", "error", "ok"]
    assert [facts.get("line") for facts in found] == [None, 2, 3, None]
    assert found[3]["is_cached"] and "the keys are op, name" in found[2]["error"]["hint"]


@pytest.mark.parametrize(
    "option", ["--bbox=0,0,1,1", "--point=1,1", "--args={}", "--what=size", "--frame=0", "--engine=opencv", "--save=x.png"]
)
def test_options_of_a_single_call_are_not_passed_over(photo, monkeypatch, option):
    done, found = lines(monkeypatch, photo, option, stdin=[], ok=False)
    assert (done.returncode, found) == (2, [])
    assert f"{option.split('=')[0]}: belongs to a single call" in done.stderr


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["SEG", "--point", "301,100", "--px"], 1, "point [301, 100] misses the medium: x runs from 0 to 300 pixels"),
        (["SEG", "--bbox", "0,0,90,90", "--point", "500,500"], 1, "point [500, 500] lies outside bbox_2d [0, 0, 90, 90]"),
        (["ZOOM", "--bbox", "0,0,9,9", "--frame", "1e12"], 1, "time 1e+12 s is outside: the medium is an image"),
        (["ZOOM", "--bbox", "0,0,9,9", "--args", '{"bbox_2d": [1, 1, 2, 2]}'], 2, "bbox_2d is given twice, by --bbox and in --args"),
        (["TEMP", "--from", "1", "--args", '{"from_s": 2}'], 2, "from_s is given twice, by --from and in --args"),
        (["ZOOM", "--bbox", "0,0,9,9", "--engine", "magic"], 2, "ZOOM has no engine 'magic': auto, opencv"),
        (["SEG", "--bbox", "0,0,9,9", "--set", "seg=magic"], 2, "SEG has no engine 'magic'"),
        (["SEG", "--bbox", "0,0,9,9", "--set", "segg=magic"], 2, "the keys are seg, trk"),
        (["ZOOM", "--bbox", "0,0,9,9", "--set", "disabled=ZOOM"], 1, ""),
    ],
)
def test_what_is_said_of_mistakes(photo, args, code, says):
    done = pixelis("tool", args[0], photo, *args[1:], ok=False)
    assert done.returncode == code and says in done.stderr, done.stderr


def test_an_engine_of_a_named_folder(photo, tmp_path):
    (tmp_path / "r.toml").write_text('[tools]\nseg = "mobile-sam"\n')
    call = ("tool", "SEG", photo, "--bbox", "0,0,500,500", "--recipe", tmp_path / "r.toml")
    missing = pixelis(*call, "--set", f"mobile_sam_folder={tmp_path / 'weights'}", ok=False)
    assert missing.returncode == 2 and f"{tmp_path / 'weights'} is neither a file nor a folder" in missing.stderr
    assert json.loads(pixelis(*call, "--engine", "classical", "--json").stdout)["engine"] == "classical"


def test_the_engine_that_doctor_names_and_results_kept_on_disk(photo, tmp_path):
    call = ("tool", "ZOOM", photo, "--bbox", "0,0,500,500", "--engine", "opencv", "--json", "--set", f"cache_folder={tmp_path / 'kept'}")
    one, two = (json.loads(pixelis(*call).stdout) for _ in range(2))
    assert (one["engine"], one["is_cached"], two["is_cached"]) == ("opencv", False, True)
    assert one["pixels"] == two["pixels"] and len(list((tmp_path / "kept").iterdir())) == 1


def test_a_replay_of_nothing_is_no_success(tmp_path):
    data = png_bytes(np.zeros((40, 60, 3), np.uint8))
    runner = Runner(
        ScriptedPolicy([ZOOM, "<answer>x</answer>"]), Executor({"ZOOM": ZoomTool()}, deadline_s=200), settings=ToolSettings(seg="sam7")
    )
    with RunWriter(tmp_path / "run", {}) as writer, open_medium(data) as medium:
        writer.put_blob(data)
        runner.run([(Task(question="?", medium=medium), 0)], writer)
    assert pixelis("replay", tmp_path / "run").stdout.strip() == "1 trajectories, 1 steps: equal"
    refused = pixelis("replay", tmp_path / "run", "--set", "seg=classical", ok=False)
    assert refused.returncode == 2 and "mobile_sam_folder, sam2_checkpoint, detector, device" in refused.stderr
    records = tmp_path / "run" / TRAJECTORIES_FILE
    records.write_bytes(records.read_bytes()[:-1])
    cut = pixelis("replay", tmp_path / "run", ok=False)
    assert cut.returncode == 1 and cut.stdout.strip().endswith("0 trajectories, 0 steps: nothing was compared")
    facts = json.loads(pixelis("replay", tmp_path / "run", "--json", ok=False).stdout)
    assert (facts["is_equal"], facts["verdict"], facts["not_executed"]) == (False, "nothing was compared", [])


def test_doctor_names_a_broken_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("PIXELIS_MOBILE_SAM", str(tmp_path))
    done = pixelis("doctor")
    assert f"SEG passes mobile-sam over: PIXELIS_MOBILE_SAM names {tmp_path}, which holds none of encoder.onnx" in done.stderr
