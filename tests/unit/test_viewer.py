"""The page as a file: it holds everything, escapes everything, and says what is missing."""

from __future__ import annotations

import base64
import hashlib
import html.parser
import json
import re
import stat
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.viewer_runs import HOSTILE, NUM_FRAMES, drawn_image, drawn_video, image_trajectory, video_trajectory, write_run

from pixelis.core.errors import DataError
from pixelis.core.geometry import Mask
from pixelis.core.media import open_medium
from pixelis.core.ops import Call, CallError, Result
from pixelis.core.store import RunWriter, sha256
from pixelis.core.trajectory import Step
from pixelis.serve.viewer import describe, embed, write_page


class Reader(html.parser.HTMLParser):
    """What a browser would make of the file: elements, their attributes, and the text of scripts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.scripts: list[tuple[dict, str]] = []
        self.styles: list[str] = []
        self._inside: tuple[str, dict] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside = (tag, dict(attrs))

    def handle_data(self, data):
        if self._inside and self._inside[0] == "script":
            self.scripts.append((self._inside[1], data))
        if self._inside and self._inside[0] == "style":
            self.styles.append(data)

    def handle_endtag(self, tag):
        self._inside = None

    @property
    def blocks(self) -> dict[str, dict]:
        return {attrs["id"]: json.loads(text) for attrs, text in self.scripts if attrs.get("type") == "application/json"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("runs") / "run")


@pytest.fixture(scope="module")
def page(run) -> Path:
    return write_page(run, run.parent / "page.html")


@pytest.fixture(scope="module")
def read(page) -> Reader:
    return Reader(page.read_text("ascii"))


def image_run(folder: Path, **changes) -> Path:
    """A run of the image trajectory with fields changed."""
    image = drawn_image()
    with open_medium(image, name="sign.png") as medium:
        trajectory = replace(image_trajectory(medium.info, "0" * 64), **changes)
    with RunWriter(folder, {}) as writer:
        writer.append(trajectory, blobs={sha256(image): image})
    return folder


def test_page_holds_every_trajectory_as_it_was_written(read, run):
    index = read.blocks["index"]
    assert [t["answer"] for t in index["trajectories"]] == ["EXIT", None, "nach rechts"]
    first = read.blocks["t-0"]
    assert first["steps"][0]["response"].startswith('<tool_response>\n{"step": 1, "op": "SEG"')
    assert first["steps"][4]["error"] == {"kind": "bad_arguments", "message": "bbox_2d is empty or inverted"}
    assert first["steps"][5]["status"] == "disabled"
    assert first["seed"] == "7" and first["stop"] == "answered" and first["engines"] == [["OCR", "drawn 1"], ["SEG", "drawn 1"]]
    assert first["total_s"] == 3.25 and first["steps"][3]["timing"] == {"policy_s": 0.4, "tool_s": 0.1, "is_cached": True}
    assert read.blocks["t-1"]["steps"][0]["timing"] is None


def test_evidence_is_in_pixels(read):
    seg, zoom, ocr = (step["found"] for step in read.blocks["t-0"]["steps"][:3])
    assert seg["box"] == [120, 120, 281, 281]
    assert seg["mask"]["size"] == [480, 640]
    assert Mask(480, 640, seg["mask"]["counts"]).area_px == pytest.approx(np.pi * 80**2, rel=0.01)
    assert zoom["box"] == [400, 90, 580, 170]
    assert ocr["spans"][0]["text"] == "EXIT"
    asked = read.blocks["t-0"]["steps"][0]["asked"]
    assert asked["point"] == pytest.approx([199.68, 200.16]) and asked["box"] is None
    assert read.blocks["t-0"]["steps"][4]["asked"]["box"] is None  # inverted: nothing to draw


def test_validity_is_there_only_when_scored(read):
    assert [s["is_valid"] for s in read.blocks["t-0"]["steps"]] == [True, False, True, None, False, None]
    assert all("is_valid" not in s for s in read.blocks["t-1"]["steps"])


def test_page_is_small_and_its_pictures_are_inside(read, page, tmp_path):
    one = write_page(write_run(tmp_path / "one", with_video=False), tmp_path / "one.html")
    assert one.stat().st_size < 1_000_000
    media = [block for key, block in read.blocks.items() if key.startswith("m-")]
    assert sorted(len(m["frames"]) for m in media) == [1, NUM_FRAMES]  # two trajectories share the video
    for frame in media[0]["frames"] + media[1]["frames"]:
        kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.+)", frame["src"]).groups()
        with open_medium(base64.b64decode(data)) as picture:
            assert picture.width == 640, kind


def test_page_allows_its_own_script_and_style_and_nothing_else(read):
    policy = next(a["content"] for t, a in read.tags if t == "meta" and a.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    code = [text for attrs, text in read.scripts if "type" not in attrs]
    assert len(code) == 1 and len(read.styles) == 1
    assert rules["script-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(code[0].encode()).digest()).decode()}'"
    assert rules["style-src"] == f"'sha256-{base64.b64encode(hashlib.sha256(read.styles[0].encode()).digest()).decode()}'"
    assert rules["default-src"] == "'none'" and rules["img-src"] == "data:"


def test_script_never_parses_text_as_html(read):
    code = next(text for attrs, text in read.scripts if "type" not in attrs)
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function|DOMParser|\bfetch\(|XMLHttpRequest", code
    )


def test_nothing_is_loaded_from_anywhere(page, read):
    for _, attrs in read.tags:
        assert all(attrs.get(name, "data:").startswith(("data:", "#")) for name in ("src", "href", "action"))
    assert "@import" not in read.styles[0] and "url(" not in read.styles[0]


def test_hostile_text_adds_no_element(tmp_path, read):
    run = write_run(tmp_path / "run", hostile=True, with_video=False)
    hostile = Reader(write_page(run, tmp_path / "page.html").read_text("ascii"))
    kinds = {tag for tag, _ in hostile.tags}
    assert kinds == {tag for tag, _ in read.tags}
    code = [text for attrs, text in hostile.scripts if "type" not in attrs]
    assert len(code) == 1
    blocks = hostile.blocks
    assert blocks["t-0"]["answer"] == HOSTILE
    assert blocks["t-0"]["steps"][2]["found"]["spans"][0]["text"] == HOSTILE


def test_folder_with_a_hostile_name(tmp_path, read):
    run = write_run(tmp_path / "<script>alert(1)<", with_video=False)
    written = Reader(write_page(run, tmp_path / "page.html").read_text("ascii"))
    assert {tag for tag, _ in written.tags} == {tag for tag, _ in read.tags}
    assert written.blocks["index"]["run"]["name"] == "<script>alert(1)<"


def test_page_does_not_say_where_it_was_made(tmp_path):
    run = write_run(tmp_path / "run", with_video=False)
    for blob in (run / "blobs").iterdir():
        blob.unlink()
    assert str(tmp_path) not in write_page(run, tmp_path / "page.html").read_text("ascii")


def test_missing_blobs_are_said_in_place(tmp_path):
    run = write_run(tmp_path / "run", with_video=False)
    for blob in (run / "blobs").iterdir():
        blob.unlink()
    blocks = Reader(write_page(run, tmp_path / "page.html").read_text("ascii")).blocks
    medium = next(block for key, block in blocks.items() if key.startswith("m-"))
    crop = next(block for key, block in blocks.items() if key.startswith("b-"))
    assert medium["frames"] == [] and "does not hold sign.png" in medium["problem"]
    assert "is missing" in crop["problem"]


def test_changed_and_damaged_blobs_are_not_shown(tmp_path):
    run = write_run(tmp_path / "run", with_video=False)
    with open_medium(drawn_video(num_frames=3)) as other:
        assert other.num_frames == 3
    for name in (run / "blobs").iterdir():
        name.write_bytes(drawn_video(num_frames=3))
    blocks = Reader(write_page(run, tmp_path / "page.html").read_text("ascii")).blocks
    assert "content has changed" in next(block for key, block in blocks.items() if key.startswith("m-"))["problem"]
    assert "has changed" in next(block for key, block in blocks.items() if key.startswith("b-"))["problem"]
    for name in (run / "blobs").iterdir():
        name.write_bytes(b"\x89PNG damaged")
    blocks = Reader(write_page(run, tmp_path / "page.html").read_text("ascii")).blocks
    assert all(not block["frames"] for key, block in blocks.items() if key.startswith("m-"))


def test_pictures_past_the_budget_are_left_out_and_counted(run, tmp_path):
    blocks = Reader(write_page(run, tmp_path / "page.html", picture_bytes=1000).read_text("ascii")).blocks
    assert all(not block["frames"] for key, block in blocks.items() if key.startswith("m-"))
    assert blocks["index"]["run"]["notice"].startswith("Left out, since the page has no room for more pictures: 2 media and 1 crops.")


def test_limit_shows_the_first_and_says_that_there_are_more(run, tmp_path):
    index = Reader(write_page(run, tmp_path / "page.html", limit=1).read_text("ascii")).blocks["index"]
    assert len(index["trajectories"]) == 1 and index["run"]["has_more"] is True
    index = Reader(write_page(run, tmp_path / "page.html", limit=3).read_text("ascii")).blocks["index"]
    assert len(index["trajectories"]) == 3 and index["run"]["has_more"] is False


def test_an_empty_run_is_a_page(tmp_path):
    RunWriter(tmp_path / "run", {}).close()
    assert Reader(write_page(tmp_path / "run", tmp_path / "page.html").read_text("ascii")).blocks["index"]["trajectories"] == []


def test_a_cut_tail_is_said(tmp_path):
    run = write_run(tmp_path / "run", with_video=False)
    with open(run / "trajectories.jsonl", "ab") as file:
        file.write(b'{"sha256":"12')
    notice = Reader(write_page(run, tmp_path / "page.html").read_text("ascii")).blocks["index"]["run"]["notice"]
    assert "13 bytes" in notice


def test_same_run_same_bytes(run, page, tmp_path):
    assert write_page(run, tmp_path / "again.html").read_bytes() == page.read_bytes()


def test_page_is_there_whole_or_not_at_all(run, tmp_path):
    (tmp_path / "page.html").write_text("before")
    (tmp_path / "page.html.d").mkdir()
    with pytest.raises(DataError, match="cannot be written"):
        write_page(run, tmp_path / "page.html.d")  # a folder stands there
    with pytest.raises(DataError, match="cannot be written"):
        write_page(run, tmp_path / "nowhere" / "page.html")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["page.html", "page.html.d"]
    write_page(run, tmp_path / "page.html", limit=1)
    assert (tmp_path / "page.html").read_text("ascii").startswith("<!doctype html>")
    assert stat.S_IMODE((tmp_path / "page.html").stat().st_mode) & 0o400


@pytest.mark.parametrize("line", ["{", "[]", '{"id": "x"}', '{"id": "x", "steps": [1]}', '{"id": "x", "steps": [{"is_valid": 1}]}'])
def test_damaged_scores_are_the_users_to_mend(line, tmp_path):
    run = write_run(tmp_path / "run", with_video=False)
    (run / "scores.jsonl").write_text('{"id": "image-run", "steps": []}\n' + line + "\n")
    with pytest.raises(DataError, match=r"scores\.jsonl:2"):
        write_page(run, tmp_path / "page.html")


def test_a_step_without_a_call_and_odd_arguments(tmp_path):
    odd = {"point": "here", "bbox_2d": [1, 2], "frame": 10**400}
    failed = Result(op="", status="error", engine="", version="", error=CallError(kind="bad_call", message="two calls"))
    steps = (
        Step(thought="", text="<tool_call>x<tool_call>", call=None, result=failed, response="no"),
        Step(
            thought="t",
            text="t",
            call=Call(op="SEG", arguments=odd),
            result=failed,
            response="no",
        ),
    )
    blocks = Reader(write_page(image_run(tmp_path / "run", steps=steps), tmp_path / "page.html").read_text("ascii")).blocks
    first, second = blocks["t-0"]["steps"]
    assert first["arguments"] is None and first["text"] == "<tool_call>x<tool_call>"
    assert second["asked"] == {"box": None, "point": None, "other": None, "frame": None}
    assert f'"frame": {10**400}' in second["arguments"]  # as written, not as JavaScript would round it


def test_json_in_the_page_has_no_way_out():
    text = describe.embeddable({"a": "</script><!-- & \u2028", "b": float("nan"), "c": (float("inf"), 1.5)})
    assert not set(text) & set("<>&") and text.isascii()
    assert json.loads(text) == {"a": "</script><!-- & \u2028", "b": None, "c": [None, 1.5]}


def test_frames_that_steps_looked_at_are_on_the_page():
    with open_medium(drawn_video(num_frames=200), name="long.mp4") as medium:
        frames = embed._choose(medium, [3, 61, 199, 4000])
    assert {0, 3, 61, 199} <= set(frames)
    assert len(frames) <= embed.VIDEO_FRAMES + 3 and max(frames) == 199


def test_track_frames_are_wanted():
    with open_medium(drawn_video(num_frames=3)) as medium:
        track, temp, prop = (r.output for r in video_trajectory(medium.info).results)
    assert describe.frames_of(track) == {5, 22, 35}  # first, middle of the 27 visible, last
    assert describe.frames_of(temp) == {0, 39} and describe.frames_of(prop) == {30}


def test_large_pictures_are_made_smaller():
    big = np.zeros((3000, 1500, 3), np.uint8)
    assert embed.shrink(big, 1600).shape == (1600, 800, 3)
    assert embed.shrink(big[:100, :50], 1600).shape == (100, 50, 3)
    assert embed.shrink(np.zeros((1, 9000, 3), np.uint8), 1600).shape == (1, 1600, 3)
