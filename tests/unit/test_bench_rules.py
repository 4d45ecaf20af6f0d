"""The six public benchmarks: small files in each published format, and each rule's edges worked out by hand."""

from __future__ import annotations

import base64
import csv
import json
import math
import re
import sys

import numpy as np
import pytest

from pixelis.core.errors import DataError, NotInstalled
from pixelis.core.media import png_bytes
from pixelis.eval.bench import BENCHMARKS, infographicvqa, mmbench, mvbench, videommmu, vsibench, vstar
from pixelis.eval.bench.base import BenchItem, MediumRef, bench_text, macro_rate, order_of, table_json
from pixelis.eval.bench.files import table_image
from pixelis.eval.stats import mean_rate

PIXEL = png_bytes(np.full((1, 1, 3), 200, np.uint8))


def rows_of(table) -> dict:
    return {row.name: row.rate for row in (table.headline, *table.rows)}


def right(items) -> dict:
    return {item.id: item.truth[0] for item in items}


def write_parquet(path, rows) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=2)


# ---------------------------------------------------------------- V* Bench


def vstar_folder(folder):
    """Three questions about attributes with four options, one about positions with two; the truth first."""
    for category, name, options in [
        ("direct_attributes", "sa_1", ["red", "green", "blue", "white"]),
        ("direct_attributes", "sa_2", ["wood", "steel", "glass", "paper"]),
        ("direct_attributes", "sa_3", ["one", "two", "three", "four"]),
        ("relative_position", "sa_4", ["on the left", "on the right"]),
    ]:
        (folder / category).mkdir(exist_ok=True)
        (folder / category / f"{name}.jpg").write_bytes(PIXEL)
        facts = {"target_object": ["cup"], "bbox": [[0, 0, 1, 1]], "question": f"What about {name}?", "options": options}
        (folder / category / f"{name}.json").write_text(json.dumps(facts))
    return folder


def test_vstar_asks_in_two_orders(tmp_path):
    items = vstar.read(vstar_folder(tmp_path), seed=0)
    assert len(items) == 8
    raw = next(item for item in items if item.id == "direct_attributes/sa_1#raw")
    assert (raw.truth, raw.choices, raw.medium.path) == (("A",), ("red", "green", "blue", "white"), "direct_attributes/sa_1.jpg")
    assert raw.prompt.splitlines()[:3] == ["What about sa_1?", "(A) red", "(B) green"]
    for item in items:
        first = {"sa_1": "red", "sa_2": "wood", "sa_3": "one", "sa_4": "on the left"}[item.group.rpartition("/")[2]]
        assert item.choices["ABCD".index(item.truth[0])] == first
    assert {item.truth[0] for item in items if item.facts["order"] == "shuffled"} != {"A"}


def test_vstar_shuffle_is_the_items_own(tmp_path):
    all_of = vstar.read(vstar_folder(tmp_path), seed=3)
    (tmp_path / "direct_attributes" / "sa_1.json").unlink()
    fewer = vstar.read(tmp_path, seed=3)
    assert len(fewer) == 6 and all(item in all_of for item in fewer)  # the others did not move
    assert sorted(order_of("x", 5, seed=1)) == [0, 1, 2, 3, 4]
    assert len({order_of(f"item {k}", 4, seed=0) for k in range(200)}) == 24  # every order turns up
    assert any(order_of(f"item {k}", 4, seed=0) != order_of(f"item {k}", 4, seed=1) for k in range(3))


def test_vstar_always_a_is_perfect_in_the_published_order_only(tmp_path):
    items = vstar.read(vstar_folder(tmp_path), seed=0)
    rates = rows_of(vstar.score(items, {item.id: "A" for item in items}))
    assert rates["published option order"].value == 1.0
    in_front = [item for item in items if item.facts["order"] == "shuffled" and item.truth == ("A",)]
    assert rates["accuracy"].value == len(in_front) / 4 < 1.0


def test_vstar_micro_and_macro(tmp_path):
    items = [item for item in vstar.read(vstar_folder(tmp_path)) if item.facts["order"] == "shuffled"]
    answers = {item.id: item.truth[0] if item.task == "relative_position" else "" for item in items}
    table = vstar.score(items, answers)
    rates = rows_of(table)
    assert rates["accuracy"].value == 1 / 4 and rates["accuracy"].count == 4
    assert rates["mean over categories"].value == pytest.approx((0 + 1) / 2)
    assert table.num_unanswered == 3 and math.isnan(rates["published option order"].value)
    assert "the files hold 4 questions; the published set has 191: they are not complete, download them again" in table.notes


def test_vstar_from_lines(tmp_path):
    text = "What is it?\n(A) rubber\n(B) cotton\nAnswer with the option's letter from the given choices directly."
    row = {"question_id": 0, "image": "direct_attributes/sa_9.jpg", "text": text, "category": "direct_attributes", "label": "B"}
    path = tmp_path / "test_questions.jsonl"
    path.write_text(json.dumps(row) + "\n")
    shuffled, raw = vstar.read(tmp_path)
    assert (raw.choices, raw.truth) == (("rubber", "cotton"), ("B",)) and shuffled.choices["AB".index(shuffled.truth[0])] == "cotton"
    path.write_text(json.dumps(row) + "\n{broken\n")
    with pytest.raises(DataError, match=r"test_questions.jsonl:2: is not JSON"):
        vstar.read(tmp_path)
    path.write_text(json.dumps({**row, "label": "C"}) + "\n")
    with pytest.raises(DataError, match="the label 'C' is none of 2 options"):
        vstar.read(tmp_path)


def test_vstar_damage_is_named(tmp_path):
    vstar_folder(tmp_path)
    (tmp_path / "direct_attributes" / "sa_2.json").write_text('{"question": "x",\n oops}')
    with pytest.raises(DataError, match=r"sa_2.json:2: is not JSON"):
        vstar.read(tmp_path)
    (tmp_path / "direct_attributes" / "sa_2.json").write_text('{"question": "x", "options": [1, 2]}')
    with pytest.raises(DataError, match="'options' is no list of texts"):
        vstar.read(tmp_path)
    (tmp_path / "direct_attributes" / "sa_2.json").unlink()
    (tmp_path / "direct_attributes" / "sa_1.jpg").unlink()
    with pytest.raises(DataError, match=r"no image beside direct_attributes/sa_1.json"):
        vstar.read(tmp_path)


# ---------------------------------------------------------------- MMBench

COLUMNS = ("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "image", "source", "l2-category", "comment", "split")


def mmbench_row(index, options, answer, *, image, hint="", category="ocr", l2="coarse_perception"):
    options = [*options, *[""] * (4 - len(options))]
    return [str(index), "Which?", hint, *options, answer, category, image, "", l2, "", "dev"]


def write_tsv(folder, rows, columns=COLUMNS):
    with open(folder / mmbench.FILE, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, delimiter="\t")
        writer.writerow(columns)
        writer.writerows(rows)


def mmbench_folder(folder):
    """One question with its four published rotations, one with three options whose rotations are not published."""
    picture = base64.b64encode(PIXEL).decode()
    options = ["ant", "bee", "cat", "dog"]
    rows = [mmbench_row(7, options, "B", image=picture, hint="Look\nclosely.")]
    for turn in range(1, 4):  # each puts the options one place further on
        turned = options[-turn:] + options[:-turn]
        rows.append(mmbench_row(7 + turn * 1_000_000, turned, "ABCD"[turned.index("bee")], image="7", hint="Look\nclosely."))
    rows.append(mmbench_row(8, ["x1", "x2", "x3", "nan"], "A", image=picture, hint="nan", category="celebrity", l2="logic_reasoning"))
    write_tsv(folder, rows)
    return folder


def test_mmbench_reads_the_published_table(tmp_path):
    items = mmbench.read(mmbench_folder(tmp_path))
    assert [item.id for item in items] == ["7", "1000007", "2000007", "3000007", "8", "1000008", "2000008"]
    first, turned = items[:2]
    assert first.prompt == (
        "Hint: Look\nclosely.\nQuestion: Which?\nOptions:\nA. ant\nB. bee\nC. cat\nD. dog\n"
        "Please select the correct answer from the options above."
    )
    assert (turned.choices, turned.truth, turned.group, turned.medium.key) == (("dog", "ant", "bee", "cat"), ("C",), "7", "7")
    assert table_image(tmp_path / mmbench.FILE, "7") == PIXEL
    # Three options (nan is absent), whose rotations are made here: the first moves to the end, so x1 stands at A, then C, then B.
    assert [(item.choices, item.truth) for item in items[4:]] == [
        (("x1", "x2", "x3"), ("A",)), (("x2", "x3", "x1"), ("C",)), (("x3", "x1", "x2"), ("B",)),
    ]  # fmt: skip
    assert "Hint" not in items[5].prompt and "A. x2\nB. x3" in items[5].prompt


def test_mmbench_counts_a_question_only_when_every_rotation_is_right(tmp_path):
    items = mmbench.read(mmbench_folder(tmp_path))
    all_right = rows_of(mmbench.score(items, right(items)))
    assert (all_right["circular accuracy"].value, all_right["circular accuracy"].count) == (1.0, 2)
    answers = {**right(items), "3000007": "D" if right(items)["3000007"] != "D" else "A"}  # three of four
    rates = rows_of(mmbench.score(items, answers))
    assert rates["circular accuracy"].value == 0.5 and rates["first rotation only"].value == 1.0
    assert rates["category: ocr"].value == 0.0 and rates["category: celebrity"].value == 1.0
    assert rates["L2: coarse_perception"].value == 0.0 and rates["L2: logic_reasoning"].count == 1
    assert rows_of(mmbench.score(items, dict.fromkeys(right(items), "A")))["circular accuracy"].value == 0.0


def test_mmbench_leaves_out_what_was_asked_in_part(tmp_path):
    items = mmbench.read(mmbench_folder(tmp_path))
    answers = right(items)
    del answers["2000007"]
    table = mmbench.score(items, answers)
    assert table.headline.rate.count == 1 and any("some of their rotations" in note for note in table.notes)
    assert any("hold 2 questions; the published set has 1292: they are not complete" in note for note in table.notes)


def test_mmbench_damage_is_named(tmp_path):
    picture = base64.b64encode(PIXEL).decode()
    write_tsv(tmp_path, [mmbench_row(1, ["a", "b"], "A", image=picture), ["2", "cut"]])
    with pytest.raises(DataError, match=r"MMBench_DEV_EN_V11.tsv:3: 2 columns, the header has 14"):
        mmbench.read(tmp_path)
    write_tsv(tmp_path, [mmbench_row(1, ["a", "b"], "", image=picture)])
    with pytest.raises(DataError, match="the test answers are not public"):
        mmbench.read(tmp_path)
    write_tsv(tmp_path, [mmbench_row(1 + k * 1_000_000, ["a", "b", "c"], "A", image=picture) for k in range(2)])
    with pytest.raises(DataError, match="question 1 has 2 rotations of 3 options"):
        mmbench.read(tmp_path)


# ---------------------------------------------------------------- MVBench


def mvbench_folder(folder):
    """Every task with one question, moving_count with three."""
    (folder / "json").mkdir(parents=True)
    for task, clips in mvbench.TASKS.items():
        bounds = {"start": 1, "end": 2.5} if clips.has_bounds else {}
        row = {"video": f"{task}.mp4", "question": f"{task}?", "candidates": ["yes", "no", "perhaps"], "answer": "no", **bounds}
        (folder / "json" / f"{task}.json").write_text(json.dumps([row] * (3 if task == "moving_count" else 1)))
    return folder


def test_mvbench_reads_twenty_tasks(tmp_path):
    items = mvbench.read(mvbench_folder(tmp_path))
    assert len(items) == 22 and len({item.task for item in items}) == 20 and {item.truth for item in items} == {("B",)}
    known = {item.task: item.medium for item in items}
    assert (known["action_sequence"].path, known["action_sequence"].start_s, known["action_sequence"].end_s) == (
        "video/star/Charades_v1_480/action_sequence.mp4", 1.0, 2.5,
    )  # fmt: skip
    assert (known["episodic_reasoning"].fps, known["moving_count"].start_s) == (3.0, None)
    later = tmp_path / "video" / "data0613" / "clevrer" / "video_validation"
    later.mkdir(parents=True)
    (later / "moving_count.mp4").write_bytes(b"x")
    assert mvbench.read(tmp_path)[-1].medium.path.startswith("video/clevrer")  # another video is still where it was
    assert {item.medium.path for item in mvbench.read(tmp_path) if item.task == "moving_count"} == {
        "video/data0613/clevrer/video_validation/moving_count.mp4"
    }


def test_mvbench_mean_over_tasks(tmp_path):
    items = mvbench.read(mvbench_folder(tmp_path))
    answers = {item.id: "A" if item.task == "moving_count" else "(B) no" for item in items}
    rates = rows_of(mvbench.score(items, answers))
    assert rates["accuracy, mean over tasks"].value == pytest.approx(19 / 20)
    assert rates["mean over items"].value == pytest.approx(19 / 22)  # three of 22 wrong
    part = mvbench.score(items, {key: value for key, value in answers.items() if not key.startswith("moving_count")})
    assert part.headline.rate.value == 1.0 and "1 of 20 tasks were not asked" in part.notes
    assert any("19 of 22 questions were asked" in note for note in part.notes)


def test_mvbench_prints_its_own_rule_and_the_letter_however_written(tmp_path):
    items = mvbench.read(mvbench_folder(tmp_path))
    said = {"state_change": "The answer is B", "action_count": "(A)(B)", "scene_transition": "B: no", "moving_count": "."}
    answers = {item.id: said.get(item.task, "B") for item in items}
    rates = rows_of(mvbench.score(items, answers))
    # By the first word: neither the sentence nor "B:" nor the full stop. However written: neither two letters nor the full stop.
    assert rates["accuracy, mean over tasks"].value == pytest.approx(17 / 20)
    assert rates["letter however written"].value == pytest.approx(18 / 20)
    assert (rates["action_count"].value, rates["state_change"].value, rates["moving_count"].count) == (1.0, 0.0, 3)


def test_mvbench_damage_is_named(tmp_path):
    mvbench_folder(tmp_path)
    path = tmp_path / "json" / "state_change.json"
    path.write_text(json.dumps([{"video": "x.mp4", "question": "?", "candidates": ["yes"], "answer": "no"}]))
    with pytest.raises(DataError, match=r"state_change.json: question 0: the answer 'no' is none of the 1 candidates"):
        mvbench.read(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match=r"holds no json/state_change.json. Download .* OpenGVLab/MVBench"):
        mvbench.read(tmp_path)
    (tmp_path / "json" / "action_sequence.json").write_text(
        json.dumps([{"video": "x.mp4", "question": "?", "candidates": ["no"], "answer": "no", "start": "1"}])
    )
    with pytest.raises(DataError, match="'start' is str, wanted is int or float"):
        mvbench.read(tmp_path)


# ---------------------------------------------------------------- InfographicVQA


def infographic_rows():
    picture = {"bytes": PIXEL, "path": None}
    return [
        {"questionId": "1", "question": "How much?", "answers": ["5%", "five"], "answer_type": ["single span"], "image": picture},
        {"questionId": "2", "question": "Who?", "answers": ["abcd"], "answer_type": ["multi-span", "single span"], "image": picture},
        {"questionId": "3", "question": "What?", "answers": ["Main  Street"], "answer_type": ["single span"], "image": picture},
    ]


def test_infographicvqa_reads_parquet(tmp_path):
    write_parquet(tmp_path / "InfographicVQA" / "validation-00000-of-00001.parquet", infographic_rows())
    items = infographicvqa.read(tmp_path)
    assert [item.truth for item in items] == [("5%", "five"), ("abcd",), ("Main  Street",)]
    assert items[2].prompt == "What?\nAnswer the question using a single word or phrase."
    assert table_image(tmp_path / items[2].medium.path, items[2].medium.key) == PIXEL  # in the second row group
    table = infographicvqa.score(items, {"1": "FIVE", "2": "abxx", "3": "main street"})
    assert table.headline.rate.value == pytest.approx((1 + 0.5 + 1) / 3)
    assert rows_of(table)["answer type: multi-span"].value == 0.5


def test_anls_by_hand(tmp_path):
    write_parquet(tmp_path / "InfographicVQA" / "validation-00000-of-00001.parquet", infographic_rows())
    percent, word, _ = infographicvqa.read(tmp_path)

    def anls(answer):
        return infographicvqa.item_score(word, answer)  # the truth is abcd

    assert anls("abxx") == 0.5  # two of four: on the border, which counts
    assert anls("axxx") == 0.0  # 0.25
    assert anls("abcx") == 0.75 and anls("ABCD") == 1.0
    assert anls("abcd.") == pytest.approx(0.8)  # a full stop is an edit
    assert anls("") == anls(None) == 0.0
    assert infographicvqa.item_score(percent, "fivx") == 0.75  # the best of "5%" and "five"


def test_infographicvqa_test_answers_are_hidden(tmp_path):
    rows = [{**row, "answers": None} for row in infographic_rows()]
    write_parquet(tmp_path / "InfographicVQA" / "test-00000-of-00001.parquet", rows)
    with pytest.raises(DataError, match="test set only, whose answers are not public"):
        infographicvqa.read(tmp_path)
    write_parquet(tmp_path / "InfographicVQA" / "validation-00000-of-00001.parquet", rows)
    with pytest.raises(DataError, match=r"parquet:1: has no answers"):
        infographicvqa.read(tmp_path)


def test_a_damaged_parquet_and_a_missing_pyarrow(tmp_path, monkeypatch):
    path = tmp_path / "InfographicVQA" / "validation-00000-of-00001.parquet"
    path.parent.mkdir()
    path.write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="cannot be read as parquet"):
        infographicvqa.read(tmp_path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(NotInstalled, match="pip install pyarrow"):
        infographicvqa.read(tmp_path)


# ---------------------------------------------------------------- Video-MMMU


def videommmu_folder(folder, *, has_before=True):
    """Adaptation with two choices and one open question, the other tracks with one question each."""
    choice = {"options": ["rises", "falls"], "question_type": "multiple-choice"}
    adaptation = [
        {"id": "validation_Economics_1", "question": "Q1", "answer": "A", **choice},
        {"id": "validation_Art_Theory_2", "question": "Q2", "answer": "B", **choice},
        {"id": "validation_Math_3", "question": "Q3", "answer": "3.5", "options": [], "question_type": "open"},
    ]
    write_parquet(folder / "Adaptation" / "test-00000-of-00001.parquet", adaptation)
    for track in ("Perception", "Comprehension"):
        one = {
            "id": "dev_Public_Health_4",
            "question": "Q4",
            "answer": "B",
            "options": ["A. up", "B. down"],
            "question_type": "multiple-choice",
        }
        write_parquet(folder / track / "test-00000-of-00001.parquet", [one])
    if has_before:
        (folder / "question_only").mkdir()
    return folder


def test_videommmu_reads_three_tracks(tmp_path):
    items = {item.id: item for item in videommmu.read(videommmu_folder(tmp_path))}
    assert len(items) == 8
    after, before = items["adaptation/validation_Art_Theory_2"], items["adaptation-before/validation_Art_Theory_2"]
    assert (after.medium.path, before.medium.path) == ("Art/validation_Art_Theory_2.mp4", "question_only/validation_Art_Theory_2_image.mp4")
    assert after.prompt.endswith("at the end of the video.\nQ2\nA. rises\nB. falls") and before.prompt == "Q2\nA. rises\nB. falls"
    assert "open-ended question" in items["adaptation/validation_Math_3"].prompt
    seen = items["perception/dev_Public_Health_4"]
    assert seen.medium.path == "Medicine/dev_Public_Health_4.mp4"
    assert seen.prompt == "Q4\nA. up\nB. down\nPlease directly output the option letter/data as the answer."  # lettered once


def test_videommmu_knowledge_gain_by_hand(tmp_path):
    items = videommmu.read(videommmu_folder(tmp_path))
    answers = right(items)
    for name in ("validation_Art_Theory_2", "validation_Math_3"):
        answers[f"adaptation-before/{name}"] = "no idea"
    answers["adaptation/validation_Math_3"] = "7"
    rates = rows_of(videommmu.score(items, answers))
    # before 1/3, after 2/3: (2/3 - 1/3) / (1 - 1/3) = 1/2, which is 50 %
    assert rates["knowledge gain (Δknowledge)"].value == pytest.approx(0.5) and rates["knowledge gain (Δknowledge)"].count == 3
    assert rates["adaptation"].value == pytest.approx(2 / 3) and rates["adaptation before"].value == pytest.approx(1 / 3)
    assert rates["overall, mean over tracks"].value == pytest.approx((1 + 1 + 2 / 3) / 3)
    assert rates["overall, mean over tracks"].count == 5  # before the lecture does not count
    assert rates["discipline: Medicine"].count == 2


def test_knowledge_gain_at_its_borders():
    assert videommmu.knowledge_gain([0.0, 1.0], [0.0, 0.0]).value == -1.0  # (0 - 1/2) / (1/2)
    assert math.isnan(videommmu.knowledge_gain([1.0, 1.0], [1.0, 0.0]).value)
    assert math.isnan(videommmu.knowledge_gain([], []).value)


def test_videommmu_without_the_folder_of_questions(tmp_path):
    items = videommmu.read(videommmu_folder(tmp_path, has_before=False))
    table = videommmu.score(items, right(items))
    assert len(items) == 5 and table.headline.rate.value == 1.0
    assert math.isnan(rows_of(table)["knowledge gain (Δknowledge)"].value) and any("gain is unknown" in note for note in table.notes)
    assert table_json(table)["rows"][4]["value"] is None
    assert re.search(r"Δknowledge\) +- +- +0", bench_text(table))


def test_videommmu_refuses_an_unknown_subject(tmp_path):
    videommmu_folder(tmp_path)
    row = {"id": "dev_Alchemy_1", "question": "Q", "answer": "A", "options": ["x", "y"], "question_type": "multiple-choice"}
    write_parquet(tmp_path / "Perception" / "test-00000-of-00001.parquet", [row])
    with pytest.raises(DataError, match="names no known subject"):
        videommmu.read(tmp_path)


# ---------------------------------------------------------------- VSI-Bench


def vsibench_rows():
    tasks = [*vsibench.CHOICE_TASKS, *vsibench.NUMBER_TASKS]
    base = {"dataset": "scannet", "scene_name": "scene0001_00", "question": "?"}
    return [
        {
            **base,
            "id": number,
            "question_type": task,
            "options": ["A. left", "B. right"] if task in vsibench.CHOICE_TASKS else None,
            "ground_truth": "B" if task in vsibench.CHOICE_TASKS else "4",
        }
        for number, task in enumerate(tasks)
    ]


def test_vsibench_reads_parquet_and_lines(tmp_path):
    write_parquet(tmp_path / "test-00000-of-00001.parquet", vsibench_rows())
    items = vsibench.read(tmp_path)
    assert len(items) == 10 and items[0].medium.path == "scannet/scene0001_00.mp4"
    assert items[0].prompt == (
        "These are frames of a video.\n?\nOptions:\nA. left\nB. right\nAnswer with the option's letter from the given choices directly."
    )
    assert items[9].prompt.endswith("?\nPlease answer the question using a single word or phrase.")
    other = tmp_path / "lines"
    other.mkdir()
    (other / "test.jsonl").write_text("\n".join(map(json.dumps, vsibench_rows())))
    assert vsibench.read(other) == items


def number_item(truth):
    return BenchItem(id="n", task="object_counting", group="n", prompt="?", medium=MediumRef(path="x"), truth=(str(truth),))


def test_mean_relative_accuracy_by_hand():
    def score(answer, truth):
        return vsibench.item_score(number_item(truth), answer)

    assert score("4", 4) == 1.0
    assert score("2", 4) == score("6", 4) == pytest.approx(0.1)  # off by exactly half: only the threshold 0.5 holds, and it does
    assert score("3", 4) == pytest.approx(0.6)  # 0.25 <= 0.5, 0.45, 0.4, 0.35, 0.3, 0.25
    assert score("1.9", 4) == 0.0  # 0.525
    assert score("8", 4) == score("-4", 4) == 0.0
    # Off by a tenth: the ninth threshold is 0.8999..., whose distance from 1 is just more than a tenth, so it is met.
    for answer, truth in [("9", 10), ("11", 10), ("18", 20), ("22", 20), ("4.5", 5), ("90", 100)]:
        assert score(answer, truth) == pytest.approx(0.9), (answer, truth)
    # Off by a fifth: 1 - 0.8 comes out just below 0.2, so the seventh is not met; off by 0.15 and by 0.05 the last one is.
    assert score("8", 10) == score("12", 10) == pytest.approx(0.6)
    assert score("8.5", 10) == pytest.approx(0.8) and score("9.5", 10) == score("19", 20) == 1.0
    assert score("4.", 4) == score("4 metres", 4) == 1.0
    assert score("about 4", 4) == score("four", 4) == score("", 4) == score(None, 4) == score("nan", 4) == score("inf", 4) == 0.0
    assert score("0", 0) == 1.0 and score("0.1", 0) == 0.0


def test_vsibench_overall(tmp_path):
    write_parquet(tmp_path / "test-00000-of-00001.parquet", vsibench_rows())
    items = vsibench.read(tmp_path)
    by_task = {item.task: item.id for item in items}
    answers = {**dict.fromkeys(by_task.values(), "A"), by_task["object_rel_direction_easy"]: "b. right", by_task["object_counting"]: "3"}
    rates = rows_of(vsibench.score(items, answers))
    assert rates["object_rel_direction, mean over levels"].value == pytest.approx(1 / 3)
    # Eight tasks: direction 1/3, counting 0.6, the others 0.
    assert rates["overall, mean over tasks"].value == pytest.approx((1 / 3 + 0.6) / 8)
    assert rates["mean over items"].value == pytest.approx(1.6 / 10)
    assert vsibench.score(items, {by_task["object_rel_direction_easy"]: "B"}).headline.rate.value == 1.0
    assert "7 of 8 tasks were not asked" in vsibench.score(items, {by_task["object_rel_direction_easy"]: "B"}).notes


def test_vsibench_first_word_only(tmp_path):
    write_parquet(tmp_path / "test-00000-of-00001.parquet", vsibench_rows())
    item = vsibench.read(tmp_path)[0]
    assert [vsibench.item_score(item, text) for text in ("B", "b.", "B. right", "right", "The answer is B", "A", "")] == [
        1,
        1,
        1,
        0,
        0,
        0,
        0,
    ]


def test_vsibench_damage_is_named(tmp_path):
    path = tmp_path / "test.jsonl"
    path.write_text(json.dumps({**vsibench_rows()[0], "question_type": "colour"}))
    with pytest.raises(DataError, match=r"test.jsonl:1: unknown question_type 'colour'"):
        vsibench.read(tmp_path)
    path.write_text(json.dumps({**vsibench_rows()[9], "ground_truth": "many"}))
    with pytest.raises(DataError, match="the truth 'many'"):
        vsibench.read(tmp_path)


# ---------------------------------------------------------------- all of them


@pytest.mark.parametrize("name", BENCHMARKS)
def test_what_is_missing_is_said(name, tmp_path):
    source = BENCHMARKS[name].SOURCE
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(DataError, match=r"Download .* of the hub data set" if source.hub else "Download .* into") as raised:
            BENCHMARKS[name].read(folder)
        assert (source.hub or source.url) in str(raised.value) and str(folder) in str(raised.value)
        assert all(pattern in str(raised.value) for pattern in source.patterns) and source.terms in str(raised.value)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_nothing_asked_is_unknown_not_zero(name):
    table = BENCHMARKS[name].score([], {})
    assert math.isnan(table.headline.rate.value) and table.headline.rate.count == 0
    json.dumps(table_json(table), allow_nan=False)
    assert table.rule in bench_text(table)


def test_macro_rate_by_hand():
    found = macro_rate([(1, [1.0, 0.0, 0.0, 0.0]), (3, [1.0])])
    assert found.value == pytest.approx((0.25 + 3) / 4) and found.count == 5
    # The one-item stratum does not vary: the interval is a quarter of that of four draws with p = 1/4, from 3/4 on.
    assert 0.75 <= found.low < found.value < found.high <= 1.0 and found == macro_rate([(1, [1.0, 0.0, 0.0, 0.0]), (3, [1.0])])
    assert macro_rate([(1, [0.5]), (1, [])]).value == 0.5 and math.isnan(macro_rate([(1, [0.5])]).low)


def test_macro_rate_is_bca():
    skewed = [0.0] * 7 + [0.25, 0.5, 1.0]
    alone, plain = macro_rate([(2, skewed)]), mean_rate(skewed)
    assert (alone.value, alone.low, alone.high) == (plain.value, plain.low, plain.high)  # one stratum: the mean's own interval
    beside = macro_rate([(1, skewed), (1, [1.0, 1.0, 1.0])])  # a constant stratum halves it and moves it by a half
    assert (beside.low, beside.high) == pytest.approx((0.5 + plain.low / 2, 0.5 + plain.high / 2))
    assert beside.high - beside.value > beside.value - beside.low  # skewed as the data are
    assert beside.method == "stratified BCa bootstrap"
