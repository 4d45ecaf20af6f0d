"""Traces in our own format: what is read back, and every fault named with its file and line."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pixelis.core.errors import DataError
from pixelis.core.geometry import Box, View
from pixelis.core.media import MediumInfo
from pixelis.core.ops import Call, Result, ZoomOutput
from pixelis.core.store import RunWriter, sha256
from pixelis.core.trajectory import PolicyInfo, Step, TokenRun, Trajectory, dump_trajectory
from pixelis.data.cota.leak import find_leak, split_options
from pixelis.data.cota.load import check_traces, read_traces
from pixelis.data.world.items import FAMILIES, make_item

MEDIUM = MediumInfo(kind="image", sha256="5" * 64, width=640, height=480, num_frames=1, fps=None, duration_s=0.0, name="a.png")
CROP = b"crop"
ITEM = {"split": "train", "index": 4, "seed": 7, "family": "attribute", "variant": 0}


def trajectory(name: str, *, question: str = "What colour is the star?", op: str = "ZOOM", answer: str | None = "red") -> Trajectory:
    box = Box(10, 20, 30, 40)
    output = ZoomOutput(frame=0, box=box, view=View(10, 20, 4, 4), width=80, height=80, image=sha256(CROP))
    step = Step(
        thought="look",
        text="...",
        call=Call(op=op, arguments={"bbox_2d": [16, 42, 47, 83]}),
        result=Result(op="ZOOM", status="ok", engine="opencv", version="1", output=output),
        response="...",
    )
    return Trajectory(
        id=name,
        question=question,
        medium=MEDIUM,
        policy=PolicyInfo(name="planner", version="1"),
        seed=0,
        steps=(step,),
        stop="answered" if answer else "step_limit",
        answer=answer,
        tokens=(TokenRun(role="prompt", ids=(1,), images=(f"{MEDIUM.sha256}:0",)),),
    )


def score(name: str, **changes) -> dict:
    line = {"id": name, "family": "attribute", "split": "train", "answer": "red", "accepted": True, "score": 0.25}
    return line | {"planned_errors": [0], "hardness": 0.5, "item": ITEM} | changes


def write(folder, pairs, *, blobs={sha256(CROP): CROP}):
    with RunWriter(folder, {"seed": 1}) as writer:
        for one, _ in pairs:
            writer.append(one, blobs=blobs)
    (folder / "scores.jsonl").write_text("".join(json.dumps(line) + "\n" for _, line in pairs))
    return folder


@pytest.fixture
def run(tmp_path):
    """Three traces: accepted, rejected, and accepted of another split."""
    dev = {"split": "dev", "item": ITEM | {"split": "dev"}}
    pairs = [(trajectory("a"), score("a")), (trajectory("b"), score("b", accepted=False)), (trajectory("c"), score("c", **dev))]
    return write(tmp_path / "run", pairs)


def edit(path, line, change):
    lines = path.read_bytes().split(b"\n")
    lines[line - 1] = change(lines[line - 1])
    path.write_bytes(b"\n".join(lines))


def fault(folder, **options) -> str:
    with pytest.raises(DataError) as raised:
        list(read_traces(folder, **options))
    return str(raised.value)


# ---------------------------------------------------------------- what is read


def test_reads_what_was_written(run):
    traces = list(read_traces(run))
    assert [trace.trajectory.id for trace in traces] == ["a", "c"]
    first = traces[0]
    assert first.trajectory == trajectory("a")
    assert (first.family, first.split, first.answer, first.accepted) == ("attribute", "train", "red", True)
    assert (first.score, first.hardness, first.planned_errors, first.item) == (0.25, 0.5, (0,), ITEM)


def test_rejected_ones_and_splits_on_request(run):
    assert [trace.accepted for trace in read_traces(run, only_accepted=False)] == [True, False, True]
    assert [trace.trajectory.id for trace in read_traces(run, split="dev")] == ["c"]


def test_further_keys_of_the_scorer_are_passed_over(run):
    edit(run / "scores.jsonl", 1, lambda line: line[:-1] + b', "s_logic": 0.1}')
    assert len(list(read_traces(run))) == 2


def test_report_of_a_sound_run(run):
    report = check_traces(run)
    assert report.is_ok and report.problems == ()
    assert (report.num_traces, report.num_accepted, report.num_steps) == (3, 2, 3)
    assert report.num_by_split == {"dev": 1, "train": 2} and report.num_by_family == {"attribute": 3}


def test_a_question_from_elsewhere_needs_its_medium_among_the_blobs(tmp_path):
    medium = replace(MEDIUM, sha256=sha256(b"photo"))
    pairs = [(replace(trajectory("a"), medium=medium, tokens=()), score("a", item=None))]
    bare = write(tmp_path / "bare", pairs)
    assert "trajectories.jsonl:1: the medium" in fault(bare) and sha256(b"photo") in fault(bare)
    whole = write(tmp_path / "whole", pairs, blobs={sha256(CROP): CROP, sha256(b"photo"): b"photo"})
    assert next(iter(read_traces(whole))).item is None


def test_a_trace_set_is_read_shard_by_shard(tmp_path):
    write(tmp_path / "shards" / "0000", [(trajectory("a"), score("a", accepted=False))])  # nothing accepted here is no fault of the set
    write(tmp_path / "shards" / "0001", [(trajectory("b"), score("b"))])
    (tmp_path / "shards" / "0002.part").mkdir()  # being written
    assert [trace.trajectory.id for trace in read_traces(tmp_path)] == ["b"]
    assert check_traces(tmp_path).is_ok and check_traces(tmp_path).num_traces == 2
    write(tmp_path / "shards" / "0003", [(trajectory("b"), score("b"))])
    assert "0003/trajectories.jsonl:1: trajectory b stands already in" in fault(tmp_path)
    (tmp_path / "shards" / "0003" / "scores.jsonl").unlink()
    with pytest.raises(DataError, match="0003 holds trajectories without scores"):
        read_traces(tmp_path)


# ---------------------------------------------------------------- damage


def test_no_run_and_no_scores(run, tmp_path):
    with pytest.raises(DataError, match="no run folder"):
        read_traces(tmp_path / "absent")
    (run / "scores.jsonl").unlink()
    for read in (read_traces, check_traces):
        with pytest.raises(DataError, match="score the run first"):
            read(run)


def test_a_changed_record(run):
    edit(run / "trajectories.jsonl", 2, lambda line: line.replace(b"What colour", b"Which colour"))
    assert f"{run / 'trajectories.jsonl'}:2: the record has changed" in fault(run)
    report = check_traces(run)
    assert [(p.line, p.kind) for p in report.problems] == [(2, "record")]
    assert report.num_traces == 2  # the others are still read


def test_a_line_that_is_no_record(run):
    edit(run / "trajectories.jsonl", 1, lambda line: b"garbage")
    assert "trajectories.jsonl:1: this line is no trajectory record" in fault(run)


@settings(max_examples=40, deadline=None)
@given(share=st.floats(0, 1, exclude_max=True))
def test_cut_anywhere_is_named(tmp_path_factory, share):
    folder = write(tmp_path_factory.mktemp("cut") / "run", [(trajectory(name), score(name)) for name in "ab"])
    path = folder / "trajectories.jsonl"
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    line = data[: int(share * len(data))].count(b"\n") + 1
    assert f"{path}:{line}: " in fault(folder)
    assert check_traces(folder).problems[0].line == line


def test_scores_cut_at_a_line(run):
    path = run / "scores.jsonl"
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
    assert f"{path}:3: the file ends before this line, but trajectories.jsonl goes on" in fault(run)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda line: line[:40], "the line: Invalid JSON"),
        (lambda line: line.replace(b'"hardness"', b'"hardnes"'), "hardness: Field required"),
        (lambda line: line.replace(b"0.25", b"NaN"), "score: "),
        (lambda line: line.replace(b'"accepted": true', b'"accepted": "yes"'), "accepted: "),
        (lambda line: line.replace(b'"id": "c"', b'"id": "x"'), "scores of x, but line 3 of trajectories.jsonl is c"),
        (lambda line: line.replace(b"[0]", b"[1]"), "planned_errors names step 1, counted from 0, but the trajectory has 1 steps"),
        (lambda line: line.replace(b'"split": "dev"', b'"split": "test"', 1), "split is 'test', but the item's is 'dev'"),
        (lambda line: line.replace(b'"index": 4, ', b""), "item.index is missing"),
        (lambda line: line.replace(b'"index": 4', b'"index": "4"'), "item.index is of the wrong type"),
    ],
)
def test_a_bad_line_of_scores(run, change, said):
    edit(run / "scores.jsonl", 3, change)
    assert f"{run / 'scores.jsonl'}:3: {said}" in fault(run)
    assert [(p.line, p.kind) for p in check_traces(run).problems] == [(3, "scores")]


def test_mixed_schema_versions(run):
    body = dump_trajectory(trajectory("b")).replace(b'"schema_version":1', b'"schema_version":2,"steps_seen":[]')
    record = b'{"sha256":"' + sha256(body).encode() + b'","trajectory":' + body + b"}"
    edit(run / "trajectories.jsonl", 2, lambda _: record)
    assert "trajectories.jsonl:2: schema 2, but this version of Pixelis reads schema 1" in fault(run)
    assert [(p.line, p.kind) for p in check_traces(run).problems] == [(2, "schema")]


def test_the_same_trajectory_twice(tmp_path):
    folder = write(tmp_path / "run", [(trajectory("a"), score("a")), (trajectory("a"), score("a"))])
    assert f"trajectories.jsonl:2: trajectory a stands already in {folder / 'trajectories.jsonl'}:1" in fault(folder)


def test_blobs_missing_and_changed(run):
    path = run / "blobs" / sha256(CROP)
    path.write_bytes(b"crap")
    assert len(list(read_traces(run))) == 2  # reading does not open every crop; checking does
    assert [(p.line, p.kind) for p in check_traces(run).problems] == [(1, "blob"), (2, "blob"), (3, "blob")]
    path.unlink()
    assert f"trajectories.jsonl:1: step 1: blob {sha256(CROP)} is missing" in fault(run)
    assert len(list(read_traces(run, need_crops=False))) == 2
    shutil.rmtree(run / "blobs")
    assert "is missing" in fault(run)


# ---------------------------------------------------------------- content


def test_an_unknown_op(tmp_path):
    folder = write(tmp_path / "run", [(trajectory("a"), score("a")), (trajectory("b", op="ENHANCE"), score("b"))])
    assert "trajectories.jsonl:2: step 1 calls the unknown op 'ENHANCE'" in fault(folder)


def test_a_leaked_answer_and_a_rejected_one(tmp_path):
    leaky = trajectory("b", question="What colour is the star? Answer: red")
    folder = write(tmp_path / "run", [(trajectory("a"), score("a")), (leaky, score("b"))])
    assert "trajectories.jsonl:2: the question states the answer: 'Answer: red'" in fault(folder)
    rejected = write(tmp_path / "gated", [(trajectory("a"), score("a")), (leaky, score("b", accepted=False))])
    assert [trace.trajectory.id for trace in read_traces(rejected)] == ["a"]
    assert [(p.line, p.kind) for p in check_traces(rejected).problems] == [(2, "leak")]


def test_accepted_without_an_answer(tmp_path):
    folder = write(tmp_path / "run", [(trajectory("a", answer=None), score("a"))])
    assert "trajectories.jsonl:1: accepted, but it stopped with 'step_limit' and has no answer" in fault(folder)


def test_nothing_left(run, tmp_path):
    assert "no accepted trace of split 'test' in it (traces by split: dev 1, train 2; 2 accepted in all)" in fault(run, split="test")
    none = write(tmp_path / "none", [(trajectory("a"), score("a", accepted=False))])
    assert "no accepted trace in it (traces by split: train 1; 0 accepted in all)" in fault(none)
    assert [p.kind for p in check_traces(none).problems] == ["empty"]
    empty = write(tmp_path / "empty", [])
    assert f"{empty}: no trace in it (traces by split: none at all; 0 accepted in all)" in fault(empty, only_accepted=False)
    assert [p.kind for p in check_traces(empty).problems] == ["empty"]


def test_the_report_goes_on_after_a_fault(tmp_path):
    pairs = [(trajectory(name), score(name)) for name in "abcd"]
    pairs[1] = (trajectory("b", op="ENHANCE"), score("b"))
    pairs[3] = (trajectory("d", question="The answer is red. What colour?"), score("d"))
    folder = write(tmp_path / "run", pairs)
    edit(folder / "scores.jsonl", 3, lambda _: b"{}")
    report = check_traces(folder)
    assert [(p.path.name, p.line, p.kind) for p in report.problems] == [
        ("trajectories.jsonl", 2, "op"),
        ("scores.jsonl", 3, "scores"),
        ("trajectories.jsonl", 4, "leak"),
    ]
    assert str(report.problems[0]).startswith(f"{folder / 'trajectories.jsonl'}:2: step 1 calls")


# ---------------------------------------------------------------- leaks

OPTIONS = "\nA. red\nB. blue\nAnswer with the letter."


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What colour is the star? answer: red", "red"),
        ("What colour is the star? The answer is RED.", "red"),
        ("What colour? The correct answer is **the red**.", "red"),
        ("How many stars? Answer = 3", "3"),
        ("How many stars? \\boxed{3}", "3"),
        ("What colour is the star? <answer>red</answer>", "red"),
        ("What colour is the star?" + OPTIONS + "\nThe correct option is A.", "red"),
        ("What colour is the star?\nA. red (correct)\nB. blue", "red"),
        ("Is the star red? Answer: yes", "yes"),
        ("The star is red. What colour is it?", "red"),
        ("What colour is the red star?\nA. red\nB. blue", "red"),
        ("Which word is on the sign that says BAKERY?", "bakery"),
        ("There are 7 stars. Count them.", "7"),
        ("What colour is the star?\nA. red", "red"),  # one option is no choice
        ("Which word is on the sign?\nA. bakery\nC. diner", "bakery"),  # a letter is skipped: no block
    ],
)
def test_leaks(question, answer):
    assert find_leak(question, answer)


@pytest.mark.parametrize(
    ("question", "answer"),
    [
        ("What colour is the star?" + OPTIONS, "red"),
        ("Is the star red or blue?", "red"),
        ("Which is larger, the red star or the blue circle?", "red star"),
        ("Of the red star and the red circle, which one is faster?", "red star"),
        ("Is it true that the star is red? Answer: yes or no.", "yes"),
        ("Is no star red?", "no"),
        ("Which one is larger?", "1"),
        ("When does it stop? Write never if it does not.", "never"),
        ("What is the answer?\nA. a lot\nB. few", "a lot"),
        ("Which is larger, 12 or 21?", "12"),
        ("How many of the 12 stars are red?", "2"),
        ("Look at the redwood. What colour is it?", "red"),
        ("Is it a bakery or a diner? A bakery sells bread.", "bakery"),
        ("The answer is a number. How many stars?\nA. 1\nB. 2", "1"),
    ],
)
def test_innocent_questions(question, answer):
    assert find_leak(question, answer) is None


def test_option_blocks():
    assert split_options("Q?\nA. x\nB. y z\nAnswer.") == ("Q?\nAnswer.", {"A": "x", "B": "y z"})
    assert split_options("Q?\n(A) x\n(B) y") == ("Q?", {"A": "x", "B": "y"})
    assert split_options("Q?\nB. x\nA. y") == ("Q?\nB. x\nA. y", {})


def test_no_question_of_pixelworld_is_blamed_and_every_planted_leak_is_found():
    items = [make_item(split, index, seed=11, variant=index % 3) for split in ("train", "test") for index in range(200)]
    assert {item.family for item in items} == set(FAMILIES)
    assert [(item.prompt, leak) for item in items if (leak := find_leak(item.prompt, item.plain_answer))] == []
    for item in items:
        assert find_leak(f"{item.prompt}\nThe correct answer is {item.answer}.", item.plain_answer), item.prompt
        assert find_leak(f"(answer: {item.plain_answer})\n{item.prompt}", item.plain_answer), item.prompt
