"""The public PixelReasoner SFT format: small files of our own in it, sound and damaged. Boxes are worked out by hand.

The image is 400x200. The box [0.5, 0.25, 0.75, 0.75] of it is [200, 50, 300, 150] px, 100x100, on the wire [500, 250, 750, 750];
padded by 0.1 of the image on each side it is [160, 30, 340, 170] px, 180x140.
"""

from __future__ import annotations

import io
import json

import numpy as np
import pytest
from PIL import Image

from pixelis.core.arguments import resolve
from pixelis.core.errors import DataError
from pixelis.core.geometry import Box
from pixelis.core.grammar import parse_turn
from pixelis.core.media import decode_png, open_medium
from pixelis.core.ops import Call
from pixelis.core.store import RunWriter, sha256
from pixelis.data.cota.load import read_traces
from pixelis.data.cota.pixel_reasoner import read_pixel_reasoner
from pixelis.data.cota.pixel_reasoner_boxes import NoCounterpartError, Picture, share_of, shown_by

GUIDELINES = "\n\nGuidelines: Understand the given visual information and the user query. Put your final answer within \\boxed{}."
WHOLE = Picture(0, Box(0.0, 0.0, 400.0, 200.0), is_whole=True)
BOX = [0.5, 0.25, 0.75, 0.75]


def picture(root, name, size, colour=(10, 20, 30)):
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return name


def crop(box, target=1, tool="crop_image_normalized"):
    return {"name": tool, "arguments": {"bbox_2d": box, "target_image": target}}


def frames(*numbers):
    return {"name": "select_frames", "arguments": {"target_frames": list(numbers)}}


def says(role, *parts):
    return {"role": role, "content": list(parts)}


def record(medium, *turns, question="What is written?", answer="It says \\boxed{B}.", qid="q1"):
    """A record: turns are (call, parts of the reply)."""
    messages = [says("system", {"text": "You have tools."}), says("user", {"text": question + GUIDELINES}, medium)]
    for number, (call, reply) in enumerate(turns):
        text = f"Thought {number}.\n<tool_call>{call if isinstance(call, str) else json.dumps(call)}</tool_call>"
        messages += [says("assistant", {"text": text}), says("user", *reply)]
    return {"qid": qid, "message_list": [*messages, says("assistant", {"text": answer})]}


def cropped(name):
    return [{"text": "\nHere is the cropped image (Image Size: 180x140):"}, {"image": name}]


def convert(root, *records, **options):
    path = root / "release.json"
    path.write_text(json.dumps(list(records), indent=1))
    return list(read_pixel_reasoner(path, **options))


@pytest.fixture
def root(tmp_path):
    picture(tmp_path, "images/1-0.png", (400, 200))
    picture(tmp_path, "images/1-1.png", (180, 140), (200, 0, 0))
    for number in range(4):
        picture(tmp_path, f"videos/7/{number}.png", (64, 48), (60 * number, 0, 0))
    return tmp_path


IMAGE = {"image": "images/1-0.png"}
VIDEO = {"video": [f"videos/7/{number}.png" for number in range(4)]}


# ---------------------------------------------------------------- images


def test_a_crop_becomes_a_zoom(root):
    (found,) = convert(root, record(IMAGE, (crop(BOX), cropped("images/1-1.png"))))
    trajectory = found.trajectory
    assert (found.refusal, found.losses, found.qid, found.source) == ("", (), "q1", f"{root / 'release.json'}:2")
    assert (trajectory.question, trajectory.answer, trajectory.stop, trajectory.task_id) == ("What is written?", "B", "answered", "q1")
    assert trajectory.medium.sha256 == sha256((root / "images/1-0.png").read_bytes()) and found.medium_path == root / "images/1-0.png"
    (step,) = trajectory.steps
    assert step.thought == "Thought 0."
    assert step.call == Call(op="ZOOM", arguments={"bbox_2d": [500, 250, 750, 750]})
    assert parse_turn(step.text).call == step.call and parse_turn(step.text).thought == "Thought 0."
    assert (step.result.status, step.result.engine) == ("ok", "recorded")
    output = step.result.output
    assert output.box.as_tuple() == pytest.approx((160, 30, 340, 170))  # what was shown: the padded box
    assert (output.width, output.height, output.view.scale_x) == (180, 140, pytest.approx(1.0))
    assert (decode_png(found.blobs[output.image])[5, 5] == (200, 0, 0)).all()
    assert '"bbox_2d": [400, 150, 850, 850], "size": [180, 140]' in step.response
    assert parse_turn(trajectory.final_text).thought == "It says B." and parse_turn(trajectory.final_text).answer == "B"


def test_an_unpadded_crop_shows_its_box(root):
    picture(root, "images/1-1.png", (100, 100))
    (found,) = convert(root, record(IMAGE, (crop(BOX), cropped("images/1-1.png"))))
    assert found.trajectory.steps[0].result.output.box.as_tuple() == pytest.approx((200, 50, 300, 150)) and found.losses == ()


def test_a_box_of_an_earlier_crop_counts_in_that_crop(root):
    # [0, 0, 0.5, 0.5] of [160, 30, 340, 170] is [160, 30, 250, 100] px; padded by 0.1 of the crop [160, 30, 268, 114], 108x84
    picture(root, "images/1-2.png", (108, 84))
    turns = (crop(BOX), cropped("images/1-1.png")), (crop([0, 0, 0.5, 0.5], target=2), cropped("images/1-2.png"))
    (found,) = convert(root, record(IMAGE, *turns))
    second = found.trajectory.steps[1]
    assert second.call.arguments == {"bbox_2d": [400, 150, 625, 500]}
    assert second.result.output.box.as_tuple() == pytest.approx((160, 30, 268, 114))


def test_our_own_resolver_reads_the_calls(root):
    image, video = convert(
        root,
        record(IMAGE, (crop(BOX), cropped("images/1-1.png"))),
        record(VIDEO, (frames(3), [{"image": "videos/7/2.png"}]), (crop(BOX), cropped("images/1-1.png")), qid="q2"),
    )
    with open_medium(image.medium_path) as medium:
        assert resolve(image.trajectory.steps[0].call, medium, ()).box == Box(200, 50, 300, 150)
    with open_medium(video.blobs[video.trajectory.medium.sha256]) as medium:
        whole, part = (resolve(step.call, medium, ()) for step in video.trajectory.steps)
        assert (whole.frame, whole.box) == (2, Box(0, 0, 64, 48))
        assert (part.frame, part.box) == (2, Box(32, 12, 48, 36))


def test_textual_reasoning_and_answers(root):
    answers = {
        "So \\boxed{\\text{two cats}}": "two cats",
        "First \\boxed{A}, no: \\boxed{\\frac{1}{2}}.": "\\frac{1}{2}",
        "<think>Hm.</think>\n<answer>red</answer>": "red",
    }
    found = convert(root, *(record(IMAGE, answer=text) for text in answers))
    assert [one.trajectory.answer for one in found] == list(answers.values())
    assert all(one.trajectory.steps == () and one.trajectory.engines == {} for one in found)
    assert parse_turn(found[2].trajectory.final_text).thought == "Hm."


def test_an_error_reply_is_an_error_result(root):
    (found,) = convert(root, record(IMAGE, (crop(BOX), [{"text": "\nExecution error:\nCropped image is too small"}])))
    result = found.trajectory.steps[0].result
    assert (result.status, result.error.kind) == ("error", "bad_arguments")
    assert result.error.message == "Execution error:\nCropped image is too small"
    assert '"error": "bad_arguments"' in found.trajectory.steps[0].response


def test_losses_are_said(root):
    picture(root, "images/odd.png", (100, 300))
    long = f"<tool_call>{json.dumps(crop([200, 50, 300, 150]))}</tool_call> Let me see."
    one = record(IMAGE, (crop(BOX), cropped("images/odd.png")))
    two = record(IMAGE, (crop(BOX), cropped("images/1-1.png")))
    two["message_list"][2] = says("assistant", {"text": long})
    odd, late = convert(root, one, two)
    assert odd.losses == ("a crop of 100x300 px fits neither its box nor the padded one: its box counts as shown",)
    assert odd.trajectory.steps[0].result.output.box.as_tuple() == pytest.approx((200, 50, 300, 150))
    assert late.losses == ("11 characters behind a call are left out", "a box was written in pixels")
    assert late.trajectory.steps[0].call.arguments == {"bbox_2d": [500, 250, 750, 750]}


def test_a_converted_set_is_a_run_that_loads(root, tmp_path):
    found = convert(root, record(IMAGE, (crop(BOX), cropped("images/1-1.png"))), record(VIDEO, (frames(1), [{"image": "videos/7/0.png"}])))
    lines = []
    with RunWriter(tmp_path / "run", {}) as writer:
        for one in found:
            media = {one.trajectory.medium.sha256: one.medium_path.read_bytes()} if one.medium_path else {}
            writer.append(one.trajectory, blobs={**one.blobs, **media})
            line = {"id": one.trajectory.id, "family": "pixel_reasoner", "split": "train", "answer": "B", "accepted": True}
            lines.append(json.dumps(line | {"score": 0.0, "planned_errors": [], "hardness": 0.5, "item": None}) + "\n")
    (tmp_path / "run" / "scores.jsonl").write_text("".join(lines))
    assert [trace.trajectory for trace in read_traces(tmp_path / "run")] == [one.trajectory for one in found]


# ---------------------------------------------------------------- videos


def test_selected_frames_become_zooms(root):
    reply = [{"text": "\nHere are the selected frames"}, {"image": "videos/7/1.png"}, {"image": "videos/7/3.png"}]
    (found,) = convert(root, record(VIDEO, (frames(2, 4), reply)))
    medium = found.trajectory.medium
    assert (medium.kind, medium.num_frames, medium.width, medium.height, medium.name) == ("video", 4, 64, 48, "7")
    assert found.medium_path is None and sha256(found.blobs[medium.sha256]) == medium.sha256
    assert [step.call.arguments for step in found.trajectory.steps] == [{"frame": 1.0}, {"frame": 3.0}]
    assert [step.thought for step in found.trajectory.steps] == ["Thought 0.", ""]
    assert [step.result.output.frame for step in found.trajectory.steps] == [1, 3]
    assert found.losses == (
        "the video is made of its 4 loose frames at 1 frame per second; the source does not time them",
        "one select_frames of 2 frames became 2 ZOOM steps",
    )
    with open_medium(found.blobs[medium.sha256]) as film:  # frame 3 of the film is the fourth picture, up to H.264's rounding
        assert np.abs(film.frame(3).astype(int) - (180, 0, 0)).max() <= 6
    assert [step.response.count('"step": ') for step in found.trajectory.steps] == [1, 1] and '"step": 2' in found.trajectory.steps[
        1
    ].response


def test_a_reply_may_hold_its_frames_as_a_video(root):
    (found,) = convert(root, record(VIDEO, (frames(2, 4), [{"video": ["videos/7/1.png", "videos/7/3.png"]}])))
    assert len(found.trajectory.steps) == 2


def test_odd_frames_lose_their_last_row_and_column(root):
    names = [picture(root, f"videos/8/{number}.png", (65, 49)) for number in range(2)]
    (found,) = convert(root, record({"video": names}))
    assert (found.trajectory.medium.width, found.trajectory.medium.height) == (64, 48)


# ---------------------------------------------------------------- what has no counterpart


@pytest.mark.parametrize(
    ("medium", "turns", "options", "reason"),
    [
        (IMAGE, [({"name": "draw_line", "arguments": {}}, cropped("images/1-1.png"))], {}, "unknown tool 'draw_line'"),
        (IMAGE, [("{not json", cropped("images/1-1.png"))], {}, "a call is not JSON"),
        (IMAGE, [("[1]", cropped("images/1-1.png"))], {}, "a call is no object with name and arguments"),
        (IMAGE, [(crop(BOX, target=2), cropped("images/1-1.png"))], {}, "target_image 2 names none of the 1 pictures"),
        (IMAGE, [(crop(BOX, target=None), cropped("images/1-1.png"))], {}, "target_image None names none"),
        (IMAGE, [(crop([0.5, 0.2, 0.4, 0.9]), cropped("images/1-1.png"))], {}, "is empty or inverted"),
        (IMAGE, [(crop([0.5, 0.2, 300, 0.9]), cropped("images/1-1.png"))], {}, "mixes shares and pixels"),
        (IMAGE, [(crop("all"), cropped("images/1-1.png"))], {}, "is no box of four numbers"),
        (IMAGE, [(crop(BOX), [{"image": "images/1-1.png"}] * 2)], {}, "a crop was answered with 2 pictures"),
        (IMAGE, [(frames(1), [{"image": "images/1-1.png"}])], {}, "select_frames on something else than loose frames"),
        (VIDEO, [(frames(1, 5), [{"image": "videos/7/1.png"}] * 2)], {}, "target_frames [1, 5] are no frames from 1 to 4"),
        (VIDEO, [(frames(1, 2), [{"image": "videos/7/1.png"}])], {}, "2 frames were asked for and 1 came back"),
        (IMAGE, [], {"answer": "I do not know."}, "the last turn has no answer"),
        (IMAGE, [], {"answer": "Open \\boxed{B"}, "the last turn has no answer"),
        (IMAGE, [], {"answer": "<tool_call>{}</tool_call>"}, "the conversation ends with a call"),
        (IMAGE, [], {"answer": "<tool_response> \\boxed{B}"}, "a thought or answer holds one of our own tags"),
        ({"image": ["images/1-0.png", "images/1-1.png"]}, [], {}, "the question comes with 2 images and 0 videos"),
        ({"text": "no picture"}, [], {}, "the question comes with 0 images and 0 videos"),
        ({"video": ["videos/7/0.png", "images/1-0.png"]}, [], {}, "the video's frames have 2 different sizes"),
    ],
)
def test_refusals_say_why(root, medium, turns, options, reason):
    (found,) = convert(root, record(medium, *turns, **options))
    assert found.trajectory is None and reason in found.refusal


def test_two_calls_in_one_turn_are_refused(root):
    one = record(IMAGE, (crop(BOX), cropped("images/1-1.png")))
    one["message_list"][2]["content"][0]["text"] *= 2
    assert "a turn before the last holds 2 calls" in convert(root, one)[0].refusal


def test_a_moving_image_is_refused(root):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8), (255, 0, 0))])
    (root / "images/move.gif").write_bytes(buffer.getvalue())
    assert "it moves" in convert(root, record({"image": "images/move.gif"}))[0].refusal


# ---------------------------------------------------------------- damage


def fault(root, *records, **options) -> str:
    with pytest.raises(DataError) as raised:
        convert(root, *records, **options)
    return str(raised.value)


def test_missing_media_are_all_named(root):
    sound = record(IMAGE)
    bare = record({"image": "images/9-0.png"}, (crop(BOX), cropped("images/9-1.png")), qid="q9")
    said = fault(root, sound, bare)
    line = (root / "release.json").read_text()[: (root / "release.json").read_text().rindex('"qid"')].count("\n")  # where its { stands
    assert said.startswith(f"{root / 'release.json'}:{line}: 2 of 2 media are missing under {root}: images/9-0.png, images/9-1.png.")
    lax = convert(root, sound, bare, is_strict=False)
    assert lax[0].trajectory is not None and lax[1].qid == "q9" and "images/9-1.png" in lax[1].refusal
    assert convert(root, sound, media_root=root)[0].trajectory is not None


def test_a_damaged_medium_is_named(root):
    (root / "images/1-0.png").write_bytes((root / "images/1-0.png").read_bytes()[:60])
    said = fault(root, record(IMAGE))
    assert said.startswith(f"{root / 'release.json'}:2: ") and "1-0.png" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda r: r.pop("message_list"), "a record is an object with the list message_list; this is qid"),
        (lambda r: r["message_list"].pop(), "1 messages besides the system's"),
        (lambda r: r["message_list"].insert(2, says("user", {"text": "x"})), "3 messages besides"),
        (lambda r: r["message_list"].extend([says("assistant", {"text": "x"})] * 2), "message 3 besides the system's is the assistant's"),
        (lambda r: r["message_list"][1].update(role="human"), "message_list[1]: a message is an object with a role"),
        (lambda r: r["message_list"][1].update(content=3), "message_list[1]: content is int"),
        (
            lambda r: r["message_list"][1]["content"].append({"audio": "x"}),
            "content[2]: a part holds one of text, image, video; this one has none",
        ),
        (lambda r: r["message_list"][1]["content"].append({"text": "x", "image": "y"}), "this one has text, image"),
        (lambda r: r["message_list"][1]["content"].append({"image": 5}), "content[2]: image is a path or a list of paths; got '5'"),
        (lambda r: r["message_list"][1]["content"].append({"video": []}), "content[2]: video is a path or a list of paths; got '[]'"),
        (lambda r: r["message_list"][1]["content"][0].update(text=GUIDELINES), "the first user message holds no question"),
    ],
)
def test_a_damaged_record(root, change, said):
    one = record(IMAGE)
    change(one)
    assert f"{root / 'release.json'}:2: " in fault(root, one) and said in fault(root, one)
    assert said in convert(root, one, is_strict=False)[0].refusal


def test_null_columns_and_plain_texts_are_read(root):
    one = record(IMAGE)
    for message in one["message_list"]:
        message["content"] = [{"text": None, "image": None, "video": None, **part} for part in message["content"]]
    one["message_list"][-1]["content"] = "\\boxed{C}"
    assert convert(root, one)[0].trajectory.answer == "C"


def test_one_record_a_line(root):
    path = root / "data.jsonl"
    path.write_text("".join(json.dumps(record(IMAGE, qid=name)) + "\n" for name in "ab"))
    assert [(one.qid, one.source) for one in read_pixel_reasoner(path)] == [("a", f"{path}:1"), ("b", f"{path}:2")]


def test_files_that_are_cut_empty_or_no_json(root):
    path = root / "release.json"
    convert(root, record(IMAGE), record(IMAGE))
    text = path.read_text()
    cases = {
        text[: len(text) - 30]: "record 2 is no JSON",
        text.rstrip()[:-1]: "the list does not end after record 2",
        text + "x": "something stands behind the end of the list",
        "": "there is no record in it",
        "[]": "there is no record in it",
        "PK\x03": f"{path}:1: record 1 is no JSON",
    }
    for content, said in cases.items():
        path.write_text(content)
        with pytest.raises(DataError) as raised:
            list(read_pixel_reasoner(path))
        assert said in str(raised.value) and str(path) in str(raised.value)
    path.write_bytes(b"[\xff")
    with pytest.raises(DataError, match="byte 1 is no UTF-8"):
        list(read_pixel_reasoner(path))
    with pytest.raises(DataError, match="cannot be read"):
        list(read_pixel_reasoner(root / "absent.json"))


# ---------------------------------------------------------------- boxes


def test_shares_and_pixels():
    assert share_of(BOX, WHOLE) == (Box(0.5, 0.25, 0.75, 0.75), False)
    assert share_of([0, 0, 1, 1], WHOLE) == (Box(0, 0, 1, 1), False)
    assert share_of([200, 50, 300, 150], WHOLE) == (Box(0.5, 0.25, 0.75, 0.75), True)
    assert share_of([-0.2, 0.5, 0.5, 0.9], WHOLE)[0] == Box(0, 0.5, 0.5, 0.9)
    with pytest.raises(NoCounterpartError, match="pixels of a crop"):
        share_of([0, 0, 30, 30], Picture(0, Box(0, 0, 50, 50)))


def test_what_a_resized_crop_shows():
    share = Box(0.5, 0.25, 0.75, 0.75)
    assert shown_by((360, 280), share, WHOLE)[0].region.as_tuple() == pytest.approx((160, 30, 340, 170))  # twice the padded 180x140
    assert shown_by((250, 250), share, WHOLE)[0].region.as_tuple() == pytest.approx((200, 50, 300, 150))
    # On a square picture a square box and its padding have one shape: in doubt it was padded.
    square = Picture(0, Box(0, 0, 100, 100), is_whole=True)
    assert shown_by((300, 300), Box(0.4, 0.4, 0.6, 0.6), square)[0].region.as_tuple() == pytest.approx((30, 30, 70, 70))
    # Of 12,000 px, 600 px are 0.05: later versions pad less.
    wide = Picture(0, Box(0, 0, 12000, 12000), is_whole=True)
    assert shown_by((3600, 2400), Box(0.4, 0.4, 0.6, 0.5), wide)[0].region.as_tuple() == pytest.approx((4200, 4200, 7800, 6600))
