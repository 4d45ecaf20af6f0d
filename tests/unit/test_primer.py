"""The primer's dialogues: true of the view, in the words of traces, and learnt only where the model speaks."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from pixelis.core.errors import DataError
from pixelis.core.grammar import parse_turn
from pixelis.core.ops import Call
from pixelis.data.world.glances import Sight
from pixelis.policy.buffer import ChatFormat, ImageRef
from pixelis.rollout.pack import TEXT, weights
from pixelis.train.drills import without_picture
from pixelis.train.primer import STAGES, Lessons, about_view, pack_dialogue
from pixelis.train.views import View, grid_of, pointing_box
from pixelis.train.vocabulary import make_vocabulary

CHAT = ChatFormat(make_vocabulary(), schemas=(), guide="")
# 200 x 100 pixels: a red circle (colour 0, kind 0) of 20 px, and a blue sign (colour 5, kind 9) of 40 x 10 px.
VIEW = View(np.zeros((96, 192, 3), np.uint8), (Sight((0.1, 0.2, 0.2, 0.4), 0, 0), Sight((0.5, 0.5, 0.7, 0.6), 5, 9)))


def test_boxes_by_hand():
    # The circle: 19.2 x 19.2 px at (19.2, 19.2); a margin of 0.25 * 19.2 = 4.8 px gives 75 to 225 across, 150 to 450 down.
    assert pointing_box(VIEW.things[0], VIEW) == [70, 150, 230, 450]
    # The sign: 38.4 x 9.6 px; a margin of 4.8 px gives 475 to 725 across, 450 to 650 down.
    assert pointing_box(VIEW.things[1], VIEW) == [470, 450, 730, 650]


def test_every_answer_about_a_view_is_true():
    rng = np.random.default_rng(0)
    for _ in range(60):
        for question, answer in about_view(VIEW, rng):
            if question.startswith("Point at the") and "<tool_call>" in answer:
                turn = parse_turn(answer)
                thing = VIEW.things[0] if "red" in question else VIEW.things[1]
                assert turn.call.arguments["bbox_2d"] == pointing_box(thing, VIEW)
                assert turn.call.op == ("PROP" if thing is VIEW.things[0] else "OCR")
            elif question.startswith("How many"):
                colour = question.split()[2]
                assert answer == {"red": "1", "blue": "1"}.get(colour, "0")
            elif question.startswith("Point at every"):
                assert len(answer.splitlines()) == 1
            elif question.startswith("Read the sign next to the red circle"):
                assert parse_turn(answer).call.arguments["bbox_2d"] == pointing_box(VIEW.things[1], VIEW)
            elif question.endswith("What else?"):
                assert answer == f"I see no other {'red' if 'Red' in question else 'blue'} thing."
            elif question.startswith("List every"):
                colour, thing = question.split()[2], VIEW.things[0] if "red" in question else VIEW.things[1]
                assert answer == f"{colour.capitalize()}: {pointing_box(thing, VIEW)}."
            elif question == "Is the background dark or light?":
                assert answer == f"The background is {'dark' if np.median(VIEW.pixels_HWC) < 128 else 'light'}."
            elif question.startswith("What is at"):
                box = json.loads(question[len("What is at ") : -1])["bbox_2d"]
                assert answer == ("A red circle." if box == pointing_box(VIEW.things[0], VIEW) else "A blue sign.")
            elif question == "What is there?":
                names = [re.match(r"\w+ \w+", line)[0] for line in answer.splitlines()]
                boxes = [json.loads(line[line.index("{") :])["bbox_2d"] for line in answer.splitlines()]
                assert names == ["red circle", "blue sign"] and boxes == [pointing_box(t, VIEW) for t in VIEW.things]
            elif question.startswith("What is the largest"):
                assert answer in ("A red circle.", "A blue sign.")
            else:
                assert answer.startswith("I see no")


# Three red circles of which two stand in the top left, a blue one with a yellow sign beside it, and two cards.
MANY = View(
    np.zeros((320, 320, 3), np.uint8),
    (
        Sight((0.05, 0.1, 0.1, 0.15), 0, 0),
        Sight((0.1, 0.6, 0.15, 0.65), 5, 0),
        Sight((0.2, 0.6, 0.3, 0.63), 2, 9),
        Sight((0.3, 0.2, 0.35, 0.25), 0, 0),
        Sight((0.5, 0.1, 0.6, 0.3), 8, 10),
        Sight((0.6, 0.6, 0.9, 0.9), 9, 10),
        Sight((0.8, 0.2, 0.85, 0.25), 0, 0),
        Sight((0.9, 0.9, 0.97, 0.93), 3, 9),
    ),
)


def test_lists_can_be_asked_in_parts():
    rng, seen = np.random.default_rng(3), set()
    red = [pointing_box(MANY.things[k], MANY) for k in (0, 3, 6)]
    for question, answer in (pair for _ in range(200) for pair in about_view(MANY, rng)):
        if question.startswith("List every red thing in the"):
            place = question.rsplit("the ", 1)[1].rstrip(".")
            assert answer == "Red: " + " ".join(map(str, red[:2] if place == "top left" else red[2:])) + "."
            assert place in ("top left", "top right")
            seen.add(place)
        elif question.startswith("Red:") and question.endswith("What else?"):
            listed, more = ([json.loads(box) for box in re.findall(r"\[[\d, ]+\]", said)] for said in (question, answer))
            assert sorted(listed + more) == red and listed
            assert answer.startswith("I look again. Red:" if more else "I see no other red thing.")
            seen.add(len(more))
        elif question == "Read the sign next to the blue circle.":
            assert parse_turn(answer).call.arguments["bbox_2d"] == pointing_box(MANY.things[2], MANY)
            seen.add("sign")
        elif question == "Read the card.":
            assert parse_turn(answer).call == Call(op="OCR", arguments={"bbox_2d": pointing_box(MANY.things[5], MANY)})
            seen.add("card")
    assert seen == {"top left", "top right", 0, 1, 2, "sign", "card"}


def test_half_of_the_dialogues_list_what_there_is_most_of():
    rng = np.random.default_rng(4)
    dialogues = [about_view(MANY, rng) for _ in range(200)]
    lists = [d for d in dialogues if len(d) == 4]
    assert 70 < len(lists) < 130 and {len(d) for d in dialogues} == {4, 8}
    for dialogue in lists:  # red things are three, all others single
        red = " ".join(str(pointing_box(MANY.things[k], MANY)) for k in (0, 3, 6))
        assert dialogue[0] == ("List every red thing.", f"Red: {red}.")
        assert len(dict(dialogue)) == 4


def test_every_answer_without_a_picture_is_true():
    rng = np.random.default_rng(1)
    for _ in range(80):
        for question, answer in without_picture(rng):
            if question.startswith("Add"):
                a, b = map(int, re.findall(r"\d+", question))
                assert answer.endswith(f"<answer>{a + b}</answer>")
            elif question.startswith("By how much"):
                a, b = map(int, re.findall(r"\d+", question))
                assert answer.endswith(f"<answer>{abs(a - b)}</answer>")
            elif question.startswith('{"spans"') and "Which is the" in question:
                spans = json.loads(question[: question.index("} Which") + 1])["spans"]
                numbers = [(int(s["text"]), s["bbox_2d"]) for s in spans if s["text"].isdigit()]
                value, box = (max if "most" in question else min)(numbers)
                assert answer.endswith(f": {value} {box}.") and answer.startswith(" ".join(str(n) for n, _ in numbers))
            elif question.startswith("Which is the"):
                values = [int(v) for v in re.findall(r"\d+", question)]
                assert answer.endswith(f": {max(values) if 'most' in question else min(values)}.")
            elif question.startswith("Found"):
                found, asked = re.findall(r"left|right|above|below", question)
                assert answer.endswith("yes." if found == asked else "no.")
            elif question.endswith("Which way?"):
                one, two = [json.loads(box) for box in re.findall(r"\[[\d, ]+\]", question)]
                dx, dy = two[0] - one[0], two[1] - one[1]
                assert answer.endswith(
                    {(1, 1): "right.", (1, 0): "left.", (0, 1): "down.", (0, 0): "up."}[
                        abs(dx) > abs(dy), (dx if abs(dx) > abs(dy) else dy) > 0
                    ]
                )
            elif question.endswith("The next?"):
                *boxes, tried = [json.loads(box) for box in re.findall(r"\[[\d, ]+\]", question)]
                after = boxes[boxes.index(tried) + 1 :]
                assert answer == json.dumps({"bbox_2d": after[0]}) if after else "no other" in answer
            elif ". Which is " in question:
                pairs = [pair.rsplit(" ", 1) for pair in question.split(". Which")[0].split(", ")]
                wants_large = question.rstrip("?").rsplit(" ", 1)[1] in ("larger", "faster", "last")
                won = (max if wants_large else min)(pairs, key=lambda pair: float(pair[1]))[0]
                assert answer.endswith(f"{'More' if wants_large else 'Less'}: {won}.")
            elif "Where is" in question:
                spans = json.loads(question[: question.index("} Where") + 1])["spans"]
                word = question.rsplit(" ", 1)[1].rstrip("?")
                assert json.loads(answer)["bbox_2d"] == next(s["bbox_2d"] for s in spans if s["text"] == word.upper())
            elif "Answer with the letter" in question:
                letter = re.search(r"<answer>(\w)</answer>", answer)[1]
                option = re.search(rf"\n{letter}\. (.+)", question)[1]
                said = question.split("\n")[0].rstrip(".").split()[-1]
                assert option == said or abs(float(option) - float(said)) < 0.15


def test_only_answers_are_learnt():
    image = ImageRef("v", grid_of(VIEW.pixels_HWC))
    example = pack_dialogue([("Who?", "Me."), ("Why?", "Because.")], CHAT, image)
    learnt = [int(i) for i in example.ids_T[weights(example) > 0]]
    assert CHAT.decode(learnt) == "Me.<|im_end|>Because.<|im_end|>"
    assert example.images[0].end - example.images[0].start == 18
    assert set(example.role_T[weights(example) > 0]) == {TEXT}


def test_a_dialogue_reads_as_the_template_writes_it():
    example = pack_dialogue([("Who?", "Me."), ("Why?", "Because.")], CHAT)
    messages = [
        {"role": "user", "content": [{"type": "text", "text": "Who?"}]},
        {"role": "assistant", "content": "Me."},
        {"role": "user", "content": [{"type": "text", "text": "Why?"}]},
        {"role": "assistant", "content": "Because."},
    ]
    assert CHAT.decode(example.ids_T.tolist()) == CHAT.render(messages, to_continue=False).rstrip("\n")


def test_examples_follow_from_number_and_seed():
    refs = [ImageRef("v", grid_of(VIEW.pixels_HWC))]
    one, two = (Lessons([VIEW], refs, CHAT, 3).example(7) for _ in range(2))
    assert np.array_equal(one.ids_T, two.ids_T)
    assert any(not np.array_equal(one.ids_T, Lessons([VIEW], refs, CHAT, 3).example(k).ids_T) for k in range(8, 12))


def test_the_first_lessons_have_no_picture_and_the_next_little_in_it():
    crowd = View(VIEW.pixels_HWC, tuple(Sight((k / 20, 0.1, k / 20 + 0.04, 0.2), k % 12, k % 9) for k in range(12)))
    refs = [ImageRef(name, grid_of(VIEW.pixels_HWC)) for name in ("little", "much")]
    lessons = Lessons([VIEW, crowd], refs, CHAT, 3)
    for share, wanted in ((0.0, set()), (STAGES[0][0], set()), (STAGES[1][0], {"little"}), (1.0, {"little", "much"})):
        assert {placed.image.sha256 for k in range(40) for placed in lessons.example(k, share=share).images} == wanted
    with pytest.raises(DataError, match="at most 2"):
        Lessons([crowd], refs[1:], CHAT, 3)
    drills = Lessons([VIEW, crowd], refs, CHAT, 3, text_share=1.0)
    assert not any(drills.example(k, share=share).images for k in range(20) for share in (0.0, 1.0))
    views_only = Lessons([VIEW, crowd], refs, CHAT, 3, text_share=0.0)
    assert {placed.image.sha256 for k in range(20) for placed in views_only.example(k, share=0.0).images} == {"little", "much"}
