"""The command line as its user meets it: output, exit codes, and one line for every mistake."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import skimage.data
from PIL import Image
from pycocotools import mask as coco

from pixelis.testing.scenes import disc, written


def pixelis(*args: object, stdin: str = "", cwd=None) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pixelis.cli", *map(str, args)]
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=120, cwd=cwd, env=environment)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    from pixelis.core.geometry import Box

    folder = tmp_path_factory.mktemp("media")
    Image.fromarray(skimage.data.coffee()).save(folder / "photo.png")
    Image.fromarray(written("OPEN 24 HOURS", (60, 80), 40)).save(folder / "sign.png")
    ground = np.full((480, 640, 3), 170, np.uint8)
    Image.fromarray(disc(ground, Box(100, 120, 180, 200), "red")).save(folder / "disc.png")
    return folder


def test_help_names_every_verb_and_gives_examples():
    done = pixelis("--help")
    assert done.returncode == 0
    for verb in ("ask", "tool", "view", "replay", "doctor", "data", "train", "eval", "score"):
        assert verb in done.stdout
    assert "pixelis tool OCR page.png" in pixelis("tool", "--help").stdout.replace("\n", " ")


def test_a_tool_by_hand_in_json(folder):
    done = pixelis("tool", "SEG", folder / "disc.png", "--bbox", "90,110,190,210", "--px", "--json")
    facts = json.loads(done.stdout)
    assert (done.returncode, facts["op"], facts["status"]) == (0, "SEG", "ok")
    mask = coco.decode(facts["mask"]).astype(bool)
    assert mask.shape == (480, 640)
    yy, xx = np.mgrid[:480, :640]
    truth = (xx + 0.5 - 140) ** 2 + (yy + 0.5 - 160) ** 2 <= 40**2
    assert (mask & truth).sum() / (mask | truth).sum() > 0.9
    assert facts["pixels"]["box"]["x0"] == pytest.approx(100, abs=2)
    assert facts["result"]["bbox_2d"][0] == pytest.approx(100 / 640 * 1000, abs=3)
    assert facts["engine"] and facts["version"] and facts["seconds"] > 0


def test_a_tool_by_hand_in_words_with_a_picture(folder, tmp_path):
    done = pixelis("tool", "OCR", folder / "sign.png", "--save", tmp_path / "out.png")
    assert done.returncode == 0 and "OPEN 24" in done.stdout
    assert Image.open(tmp_path / "out.png").size[0] >= 300


def test_wire_and_pixel_coordinates_agree(folder):
    one = json.loads(pixelis("tool", "ZOOM", folder / "disc.png", "--bbox", "250,250,500,500", "--json").stdout)
    two = json.loads(pixelis("tool", "ZOOM", folder / "disc.png", "--bbox", "160,120,320,240", "--px", "--json").stdout)
    assert one["pixels"] == two["pixels"] and one["pixels"]["box"]["x1"] == 320


def test_several_calls_at_once(folder):
    lines = [
        {"op": "SEG", "media": str(folder / "disc.png"), "arguments": {"point": [219, 333]}},
        {"op": "PROP", "media": str(folder / "disc.png"), "arguments": {"what": "colour", "ref": 1}},
        {"name": "READ", "media": str(folder / "sign.png"), "arguments": {}},
        {"op": "PROP", "media": str(folder / "sign.png"), "arguments": {"what": "wisdom"}},
    ]
    done = pixelis("tool", "-", stdin="\n".join(map(json.dumps, lines)))
    results = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 1
    assert [r["status"] for r in results] == ["ok", "ok", "ok", "error"]
    assert results[1]["result"]["attributes"][0]["value"] == "red"
    assert "OPEN 24" in results[2]["result"]["spans"][0]["text"]
    assert results[3]["error"]["kind"] == "bad_arguments"


@pytest.mark.parametrize(
    ("args", "code", "says"),
    [
        (["tool", "OCR", "absent.png"], 2, "absent.png"),
        (["tool", "OCR", "."], 2, "folder"),
        (["tool", "OCR", "https://example.org/a.png"], 2, "Download it first"),
        (["tool", "DANCE", "{photo}"], 2, "there is no tool 'DANCE'"),
        (["tool", "OCR"], 2, "give the medium"),
        (["tool", "SEG", "{photo}", "--bbox", "1,2,3"], 2, "--bbox takes 4 numbers"),
        (["tool", "SEG", "{photo}", "--bbox", "a,b,c,d"], 2, "--bbox takes 4 numbers"),
        (["tool", "SEG", "{photo}", "--bbox", "500,500,100,100"], 1, "empty or inverted"),
        (["tool", "SEG", "{photo}", "--bbox", "nan,0,1,1"], 1, "bbox_2d must be"),
        (["tool", "SEG", "{photo}"], 1, "SEG needs"),
        (["tool", "SEG", "{photo}", "--args", "{{"], 2, "--args is not JSON"),
        (["tool", "SEG", "{photo}", "--args", "[1]"], 2, "--args takes a JSON object"),
        (["tool", "SEG", "{photo}", "--engine", "magic"], 2, "SEG has no engine 'magic'"),
        (["tool", "TRK", "{photo}", "--bbox", "0,0,100,100"], 1, "needs a video"),
        (["tool", "ZOOM", "{photo}", "--bbox", "0,0,100,100", "--save", "no/such/folder/x.png"], 2, "cannot write the picture"),
        (["tool", "-", "--bbox", "0,0,1,1", "--save", "x.png"], 2, "--bbox, --save: belongs to a single call"),
        (["replay", "absent"], 2, "is no run folder"),
        (["view", "absent"], 2, "is no run folder"),
        (["ask", "absent.png", "what?"], 2, "absent.png"),
        (["ask", "{photo}", "  "], 2, "the question is empty"),
        (["ask", "{photo}", "what?", "--policy", "oracle"], 2, "there is no policy 'oracle'"),
        (["ask", "{photo}", "what?", "--policy", "vlm"], 2, "needs a checkpoint"),
        (["ask", "{photo}", "what?", "--recipe", "absent.toml"], 2, "absent.toml"),
        (["frobnicate"], 2, "No such command"),
    ],
)
def test_mistakes_are_one_line_and_honest_codes(folder, tmp_path, args, code, says):
    args = [str(a).replace("{photo}", str(folder / "photo.png")) for a in args]
    done = pixelis(*args, stdin="nonsense\n", cwd=tmp_path)
    assert done.returncode == code, done.stderr
    assert says in done.stderr.replace("\n", " "), done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "runs").exists()


def test_a_recipe_with_a_typo_names_the_key(folder, tmp_path):
    (tmp_path / "r.toml").write_text('[policy]\nname = "planner"\ntemprature = 1.0\n')
    done = pixelis("ask", folder / "photo.png", "what?", "--recipe", tmp_path / "r.toml", cwd=tmp_path)
    assert done.returncode == 2
    assert "policy.temprature" in done.stderr and "temperature" in done.stderr.replace("temprature", "")


def test_ask_view_replay(folder, tmp_path):
    planner = ("--policy", "planner")
    asked = pixelis("ask", folder / "sign.png", "What does the sign say?", "--json", *planner, cwd=tmp_path)
    facts = json.loads(asked.stdout)
    assert asked.returncode == 0 and "open 24 hours" in facts["answer"].lower()
    assert facts["steps"][0]["call"]["op"] == "OCR" and facts["run"] == "runs/ask-1"
    again = pixelis("ask", folder / "sign.png", "What does the sign say?", *planner, cwd=tmp_path)
    assert "answer:" in again.stdout and "runs/ask-2" in again.stdout
    one, two = ((tmp_path / f"runs/ask-{i}" / "trajectories.jsonl").read_bytes() for i in (1, 2))
    assert one == two
    viewed = pixelis("view", "runs/ask-1", "--out", "page.html", cwd=tmp_path)
    assert viewed.returncode == 0 and (tmp_path / "page.html").stat().st_size > 10_000
    assert pixelis("replay", "runs/ask-1", cwd=tmp_path).stdout.strip().endswith("equal")
    blob = max((tmp_path / "runs/ask-1/blobs").iterdir(), key=lambda p: p.stat().st_size)
    data = bytearray(blob.read_bytes())
    data[-30] ^= 1
    blob.write_bytes(bytes(data))
    damaged = pixelis("replay", "runs/ask-1", cwd=tmp_path)
    assert damaged.returncode == 1 and "medium differs" in damaged.stdout


def test_doctor_names_engines(tmp_path):
    facts = json.loads(pixelis("doctor", "--json").stdout)
    assert set(facts["ops"]) == {"SEG", "ZOOM", "TRK", "OCR", "TEMP", "PROP"}
    assert all(entry["engine"] and entry["problem"] is None for entry in facts["ops"].values())


def test_data_make_and_show(tmp_path):
    made = pixelis("data", "make", "dev", tmp_path / "dev", "--items", 4, "--family", "count")
    assert made.returncode == 0 and "4 items" in made.stdout
    assert pixelis("data", "show", tmp_path / "dev", "--out", tmp_path / "sheet.png").returncode == 0
    wrong = pixelis("data", "make", "dev", tmp_path / "dev", "--items", 4, "--seed", 9)
    assert wrong.returncode == 2 and "holds another split" in wrong.stderr


def test_python_in_a_few_lines(folder):
    from pixelis import ask
    from pixelis.config import PolicySettings, Recipe

    answer = ask(folder / "sign.png", "What does the sign say?", recipe=Recipe(policy=PolicySettings(name="planner")))
    assert "open 24 hours" in str(answer).lower() and answer.trajectory.stop == "answered"
