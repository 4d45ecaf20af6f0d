"""Tools by hand: many calls as JSON lines, each line's mistakes its own, and words in the units that were typed."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from pixelis.core.errors import ToolError
from pixelis.core.media import open_medium
from pixelis.core.ops import Call
from pixelis.tools import byhand
from pixelis.tools.byhand import check_call, execute_lines
from pixelis.tools.settings import ToolSettings

BOX = [100, 100, 500, 500]


@pytest.fixture(scope="module")
def media(tmp_path_factory):
    """Ten pictures of 300x200, each of its own grey."""
    folder = tmp_path_factory.mktemp("media")
    for number in range(10):
        Image.fromarray(np.full((200, 300, 3), 20 * number, np.uint8)).save(folder / f"{number}.png")
    return [str(folder / f"{number}.png") for number in range(10)]


@pytest.fixture
def medium(media):
    with open_medium(media[0]) as medium:
        yield medium


def run(*lines: object, **options) -> list[dict]:
    return list(execute_lines([line if isinstance(line, (str, bytes)) else json.dumps(line) for line in lines], **options))


def zoom(path: str, **changes) -> dict:
    return {"op": "ZOOM", "media": path, "arguments": {"bbox_2d": BOX}, **changes}


def test_a_bad_line_costs_itself(media):
    good = zoom(media[0])
    bad = {
        '{"op": "ZOOM", ': "no JSON",
        "[1]": "a JSON list, not an object",
        "7": "a JSON int, not an object",
        json.dumps({**good, "arguments": {"bbox_2d": [float("nan"), 0, 1, 1]}}): "NaN is not a number",
        json.dumps({**good, "media": 3}): "names no medium",
        json.dumps({"op": "ZOOM"}): "names no medium",
        json.dumps({**good, "media": "absent.png"}): "absent.png: cannot be opened",
        json.dumps({**good, "typo": 1}): "no key 'typo'",
        json.dumps({**good, "name": "OCR"}): "both op and name",
        json.dumps({"media": media[0]}): "names no tool",
        json.dumps({**good, "px": "no"}): "px must be true or false, got 'no'",
        json.dumps({**good, "engine": 3}): "engine must be a name",
        json.dumps({**good, "engine": "nope"}): "ZOOM has no engine 'nope': auto, opencv",
        b'{"op": "\xff"}': "no JSON",
    }
    found = run(good, "", *bad, good)
    assert [facts["status"] for facts in found] == ["ok", *["error"] * len(bad), "ok"]
    for line, says, facts in zip(range(3, 99), bad.values(), found[1:], strict=False):
        assert (facts["line"], facts["error"]["kind"]) == (line, "bad_line"), facts
        assert says in facts["error"]["message"] and len(facts["error"]["hint"]) > 10, facts
        assert "AttributeError" not in facts["error"]["message"] and "attribute" not in facts["error"]["message"]


def test_mistakes_in_a_call_are_results(media):
    unknown, odd, box = run({"op": "DANCE", "media": media[0]}, zoom(media[0], arguments=[1]), zoom(media[0], arguments={"bbox_2d": [1]}))
    assert [f["error"]["kind"] for f in (unknown, odd, box)] == ["unknown_op", "bad_arguments", "bad_arguments"]
    assert "line" not in unknown


def test_equal_calls_are_computed_once(media, tmp_path):
    assert [f["is_cached"] for f in run(zoom(media[0]), zoom(media[0]), zoom(media[1]))] == [False, True, False]
    kept = ToolSettings(cache_folder=str(tmp_path))
    assert [f["is_cached"] for _ in range(2) for f in run(zoom(media[0]), settings=kept)] == [False, True]


def test_a_medium_keeps_its_steps_when_its_file_was_closed(media):
    assert len(media) > byhand.MAX_OPEN_MEDIA
    *_, last = run(*map(zoom, media), zoom(media[0], arguments={"ref": 1}))
    assert (last["status"], last["medium"]["name"]) == ("ok", "0.png")
    _, failed, third = run(zoom(media[0]), zoom(media[0], arguments={}), zoom(media[0], arguments={"ref": 2}))
    assert "that step produced nothing" in third["error"]["message"] and failed["status"] == "error"


def test_a_file_that_has_changed_is_another_medium(media, tmp_path):
    path = tmp_path / "a.png"

    def lines():
        shutil.copy(media[0], path)
        yield json.dumps(zoom(str(path)))
        shutil.copy(media[1], path)
        yield from (json.dumps(zoom(other)) for other in media[2:])  # so that it is opened anew
        yield json.dumps(zoom(str(path), arguments={"ref": 1}))

    *_, last = execute_lines(lines())
    assert "no step has been taken yet" in last["error"]["message"]


def test_every_line_has_its_units_and_engine(media):
    in_px, wire, other = run(
        zoom(media[0], arguments={"bbox_2d": [30, 20, 150, 100]}), zoom(media[0], px=False), zoom(media[0], engine="opencv"), is_px=True
    )
    assert in_px["pixels"]["box"] == wire["pixels"]["box"] == {"x0": 30.0, "y0": 20.0, "x1": 150.0, "y1": 100.0}
    assert other["pixels"]["box"]["x1"] == 300  # 500 px are cut at the edge
    seg = {"op": "SEG", "media": media[0], "arguments": {"bbox_2d": BOX}}
    missing, classical = run(
        {**seg, "engine": "mobile-sam"}, {**seg, "engine": "classical"}, settings=ToolSettings(mobile_sam_folder="/no")
    )
    assert missing["error"]["message"].startswith("MobileSAM") and "PIXELIS_MOBILE_SAM" in missing["error"]["hint"]
    assert classical["engine"] == "classical"


@pytest.mark.parametrize(
    ("op", "arguments", "says"),
    [
        ("SEG", {"point": [301, 100]}, "point [301, 100] misses the medium: x runs from 0 to 300 pixels, y to 200"),
        ("SEG", {"point": [-1, 5]}, "point [-1, 5] misses the medium"),
        ("ZOOM", {"bbox_2d": [300, 0, 400, 50]}, "bbox_2d [300, 0, 400, 50] misses the medium"),
        ("ZOOM", {"bbox_2d": [50, 50, 20, 60]}, "bbox_2d [50, 50, 20, 60] is empty or inverted"),
        ("ZOOM", {"bbox_2d": [float("nan"), 0, 1, 1]}, "bbox_2d must be [x0, y0, x1, y1] in pixels of a 300x200 medium"),
        ("ZOOM", {"bbox_2d": [0, 0, 1e9, 1]}, "in pixels of a 300x200 medium"),
        ("PROP", {"what": "relation", "bbox_2d": [0, 0, 9, 9], "other": [400, 0, 500, 9]}, "other [400, 0, 500, 9] misses the medium"),
        ("SEG", {"bbox_2d": [0, 0, 90, 90], "point": [91, 10]}, "point [91, 10] lies outside bbox_2d [0, 0, 90, 90]"),
        ("ZOOM", {"bbox_2d": [0, 0, 9, 9], "frame": 1e12}, "time 1e+12 s is outside: the medium is an image"),
    ],
)
def test_what_was_typed_is_what_is_said(medium, op, arguments, says):
    with pytest.raises(ToolError) as caught:
        check_call(Call(op=op, arguments=arguments), medium, is_px=True)
    assert says in caught.value.message


def test_what_is_right_passes(medium):
    for op, arguments, is_px in [
        ("SEG", {"point": [300, 200]}, True),
        ("SEG", {"point": [150, 100], "bbox_2d": [-20, -20, 150, 100]}, True),
        ("SEG", {"point": [1000, 1000], "bbox_2d": [900, 900, 1000, 1000]}, False),
        ("ZOOM", {"ref": 1, "frame": 0.0, "bbox_2d": [900, 900, 2000, 2000]}, False),
        ("TEMP", {"point": [1, 2], "bbox_2d": [5, 5, 6, 6]}, False),  # an argument that TEMP has not, which it says itself
    ]:
        check_call(Call(op=op, arguments=arguments), medium, is_px=is_px)
    with pytest.raises(ToolError, match="lies outside"):
        check_call(Call(op="SEG", arguments={"point": [5, 5], "bbox_2d": [900, 900, 1000, 1000]}), medium, is_px=False)
