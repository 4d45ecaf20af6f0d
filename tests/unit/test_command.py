"""The command line behind a run: what is noted of it, what is not, and that no run is told from another by it."""

from __future__ import annotations

import hashlib
import json

import pytest
from tests.e2e.inprocess import pixelis

from pixelis.cli_command import command_line
from pixelis.core.command import COMMANDS_FILE, Command, commands_of, note_command, read_commands, seen_from_here, under_way
from pixelis.core.errors import DataError
from pixelis.core.versions import versions
from pixelis.eval.join import join
from pixelis.eval.pixelworld import evaluate
from pixelis.eval.runs import open_writer
from pixelis.testing import ScriptedPolicy
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings


def test_paths_are_seen_from_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert seen_from_here(str(tmp_path / "here" / "runs" / "one")) == "runs/one"
    assert seen_from_here(str(tmp_path / "there" / "two")) == "PATH/two"
    assert seen_from_here(f"--out={tmp_path}/here/x=1") == "--out=x=1"
    assert seen_from_here("/elsewhere/of/somebody/three") == "PATH/three"
    assert seen_from_here("--model=/elsewhere/four") == "--model=PATH/four"
    assert [seen_from_here(word) for word in ("runs/x", "../x", "noise:3", "--no-tools")] == ["runs/x", "../x", "noise:3", "--no-tools"]
    assert seen_from_here("https://me:secret@host.example/v1") == "https://host.example/v1"
    assert seen_from_here("--url=http://host.example:8000/v1") == "--url=http://host.example:8000/v1"


def test_a_recipe_is_noted_by_what_it_says(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base.toml").write_text('seed = 1\ncheckpoint = "runs/sft"\n')
    (tmp_path / "own.toml").write_text('# words that say nothing\nbase = "base.toml"\nseed = 2\n')
    noted = command_line(["train", "rft", "own.toml", "--workers", "2"])
    said = hashlib.sha256(b'{"checkpoint": "runs/sft", "seed": 2}').hexdigest()
    assert noted == Command(
        words=("pixelis", "train", "rft", "own.toml", "--workers", "2"), recipes={"own.toml": said}, checkpoint="runs/sft"
    )
    assert command_line(["train", "rft", f"{tmp_path}/own.toml"]).recipes == {"own.toml": said}
    assert command_line(["x", "--recipe=own.toml"]).recipes == {"own.toml": said}
    (tmp_path / "own.toml").write_text("no TOML [")
    assert command_line(["train", "rft", "own.toml"]).recipes == {}  # the command itself will say what is wrong


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (("adapt", "own.toml"), "runs/sft"),
        (("adapt", "own.toml", "--checkpoint", "runs/rft"), "runs/rft"),
        (("adapt", "own.toml", "--checkpoint=runs/a", "--checkpoint=runs/b"), "runs/b"),
        (("eval", "pixelworld", "--policy", "vlm", "--model", "runs/c"), "runs/c"),
        (("eval", "pixelworld", "--policy", "nano-rft", "--recipe", "policy.toml"), "nano-rft"),
        (("eval", "pixelworld", "--recipe", "policy.toml"), "runs/d"),
        (("eval", "pixelworld", "--items", "3"), None),
        (("eval", "pixelworld", "--model", "/elsewhere/weights"), "PATH/weights"),
    ],
)
def test_a_checkpoint_is_noted_as_it_was_named(tmp_path, monkeypatch, words, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.toml").write_text('checkpoint = "runs/sft"\n')
    (tmp_path / "policy.toml").write_text('[policy]\nname = "vlm"\nmodel = "runs/d"\n')
    assert command_line(words).checkpoint == named


def test_a_command_is_noted_once_and_another_beside_it(tmp_path):
    note_command(tmp_path)  # in Python there is none
    assert not (tmp_path / COMMANDS_FILE).exists() and read_commands(tmp_path) == ()
    for items in ("1", "1", "2"):
        with under_way(Command(words=("pixelis", "eval", items))):
            note_command(tmp_path)
    note_command(tmp_path)
    noted = read_commands(tmp_path)
    assert [command.words[-1] for command in noted] == ["1", "2"] and noted[0].versions == versions()
    lines = [json.loads(line) for line in (tmp_path / COMMANDS_FILE).read_text().splitlines()]
    assert commands_of(lines, where="here") == noted


def test_damage_is_named(tmp_path):
    (tmp_path / COMMANDS_FILE).write_text('{"words": ["pixelis"]}\n{"words": 3}\n')
    with pytest.raises(DataError, match=r"commands\.jsonl:2: no command line: words: "):
        read_commands(tmp_path)
    with pytest.raises(DataError, match="journal:1: no command line: words: field required"):
        commands_of([{}], where="journal:1")


def run_of(folder, *, first: int = 0, num: int = 1):
    policy = ScriptedPolicy(["<answer>x</answer>"])
    options = {"families": ("read_sign",), "first": first, "num_items": num, "out_folder": folder, "keep_media": False}
    return evaluate(policy, Executor({}), ToolSettings(), **options)


def test_no_run_is_told_from_another_by_its_command(tmp_path):
    run_of(tmp_path / "plain")
    with under_way(Command(words=("pixelis", "one"))):
        run_of(tmp_path / "noted")
    assert (tmp_path / "plain" / "run.json").read_bytes() == (tmp_path / "noted" / "run.json").read_bytes()
    with under_way(Command(words=("pixelis", "other"))):  # it goes on, of itself or of another command
        run_of(tmp_path / "noted", num=2)
        run_of(tmp_path / "plain", num=2)
    assert [command.words[1] for command in read_commands(tmp_path / "noted")] == ["one", "other"]
    with under_way(Command(words=("pixelis", "third"))), pytest.raises(DataError, match="holds another run"):
        open_writer(tmp_path / "noted", {"evaluation": "another"})
    assert len(read_commands(tmp_path / "noted")) == 2  # what was refused did not work on it


def test_what_is_joined_keeps_the_commands_of_its_parts(tmp_path):
    for number, name in enumerate(("a", "b")):
        with under_way(Command(words=("pixelis", "eval", name))):
            run_of(tmp_path / name, first=number)
    with under_way(Command(words=("pixelis", "eval", "join"))):
        join([tmp_path / "a", tmp_path / "b"], tmp_path / "whole")
    assert [command.words[-1] for command in read_commands(tmp_path / "whole")] == ["a", "b", "join"]


def test_the_command_line_notes_itself(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ["eval", "pixelworld", "--policy", "planner", "--family", "no_tool", "--items", "1", "--run", "runs/one", "--no-media"]
    pixelis(*words)
    (noted,) = read_commands("runs/one")
    assert noted.words == ("pixelis", *words) and noted.checkpoint == "planner" and "numpy" in noted.versions
    pixelis("score", "runs/one")  # reads it, and makes nothing
    assert read_commands("runs/one") == (noted,)
