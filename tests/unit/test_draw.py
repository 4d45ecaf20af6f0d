"""Pictures of results: what is drawn, where, and that nothing is drawn where nothing was found."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tests.viewer_runs import NUM_FRAMES, disc_box, drawn_image, drawn_video, image_trajectory, video_trajectory

from pixelis.core.errors import ToolError
from pixelis.core.geometry import Box
from pixelis.core.media import Medium, open_medium, png_bytes
from pixelis.core.ops import OcrOutput, TempOutput, TextSpan, TrkOutput, ZoomOutput
from pixelis.serve.draw import COLOURS, home_frame, picture
from pixelis.serve.sheet import cut, drawable


@pytest.fixture(scope="module")
def image() -> Medium:
    with open_medium(drawn_image(), name="sign.png") as medium:
        yield medium


@pytest.fixture(scope="module")
def video() -> Medium:
    with open_medium(drawn_video(), name="disc.mp4") as medium:
        yield medium


@pytest.fixture(scope="module")
def outputs(image, video) -> dict:
    steps = (*image_trajectory(image.info, "0" * 64).steps, *video_trajectory(video.info).steps[:2])
    return {step.result.output.op: step.result.output for step in steps if step.result.output is not None}


def medium_of(op: str, image: Medium, video: Medium) -> Medium:
    return video if op in ("TRK", "TEMP") else image


def has_colour(part_HWC: np.ndarray, op: str) -> bool:
    """Whether a pixel is exactly the op's colour."""
    return bool((part_HWC == np.array(COLOURS[op], np.uint8)).all(axis=2).any())


def test_no_result_is_the_frame_itself(image):
    assert np.array_equal(picture(image, None), image.frame(0))


@pytest.mark.parametrize("op", ["SEG", "ZOOM", "OCR", "PROP", "TRK", "TEMP"])
def test_every_op_is_drawn_in_its_colour_the_same_way_twice(op, outputs, image, video):
    medium = medium_of(op, image, video)
    drawn = picture(medium, outputs[op])
    assert drawn.dtype == np.uint8 and drawn.ndim == 3
    assert has_colour(drawn, op)
    assert not any(has_colour(drawn, other) for other in COLOURS if other != op)
    assert np.array_equal(drawn, picture(medium, outputs[op]))


@pytest.mark.parametrize("op", ["SEG", "ZOOM", "OCR", "PROP", "TRK", "TEMP"])
@pytest.mark.parametrize("max_side", [64, 333, 4000])
def test_no_side_is_longer_than_asked(op, max_side, outputs, image, video):
    assert max(picture(medium_of(op, image, video), outputs[op], max_side=max_side).shape) <= max_side


def test_the_medium_is_left_as_it_was(outputs, image):
    before = image.frame(0).copy()
    for op in ("SEG", "ZOOM", "OCR", "PROP"):
        picture(image, outputs[op])
    assert np.array_equal(image.frame(0), before)


def test_mask_tints_its_inside_only(outputs, image):
    drawn, plain = picture(image, outputs["SEG"]), image.frame(0)
    assert drawn[200, 200].tolist() == [int(0.6 * p + 0.4 * c) for p, c in zip(plain[200, 200], COLOURS["SEG"], strict=True)]
    assert np.array_equal(drawn[135, 135], plain[135, 135])  # in the box, outside the disc
    assert np.array_equal(drawn[300:], plain[300:])


def test_zoom_shows_the_crop_large_and_the_rest_dim(outputs, image):
    drawn, plain = picture(image, outputs["ZOOM"]), image.frame(0)
    assert np.array_equal(drawn[110:160, 420:560], plain[110:160, 420:560])  # the box itself stays bright
    assert drawn[470, 630].sum() < 0.7 * plain[470, 630].sum()
    white = (drawn > 230).all(axis=2)
    assert white.sum() > 2 * (plain > 230).all(axis=2).sum()  # the white sign, a second time and larger


def test_zoom_on_nearly_everything_stands_beside(image):
    box = Box(10, 10, 630, 470)
    zoom = ZoomOutput(frame=0, box=box, view=None, width=620, height=460, image="0" * 64)
    height, width = picture(image, zoom).shape[:2]
    assert width > 1.9 * height * 620 / 480


def test_track_shows_the_box_of_its_frame_and_a_strip(outputs, video):
    track = outputs["TRK"]
    assert home_frame(video, track) == 5
    drawn = picture(video, track, frame=12)
    assert drawn.shape[0] > 360 and drawn.shape[1] == 640
    left = round(disc_box(12).x0)
    assert has_colour(drawn[200:230, left - 2 : left + 3], "TRK")
    hidden = picture(video, track, frame=20)  # not visible there
    left = round(disc_box(20).x0)
    assert not has_colour(hidden[225:248, left - 2 : left + 3], "TRK")


def test_track_that_is_never_visible(outputs, video):
    points = tuple(replace(p, box=None) for p in outputs["TRK"].points)
    drawn = picture(video, TrkOutput(track_id=1, points=points, score=0.0))
    assert drawn.shape == (360, 640, 3)
    empty = picture(video, TrkOutput(track_id=1, points=(), score=0.0))
    assert np.array_equal(empty, picture(video, TrkOutput(track_id=1, points=(), score=0.0), frame=0))


def test_time_segments_lie_on_the_bar_where_they_are_in_time(outputs, video):
    drawn = picture(video, outputs["TEMP"])
    bar = drawn[-52 + 6 + 7]  # through the middle of the bar
    columns = np.flatnonzero((bar == np.array(COLOURS["TEMP"], np.uint8)).all(axis=1))
    # 1.0 to 2.5 of 4.0 s, on a bar from 8 to 632
    assert columns.min() == pytest.approx(8 + 0.25 * 624, abs=2)
    assert columns.max() == pytest.approx(8 + 0.625 * 624, abs=2)
    assert home_frame(video, outputs["TEMP"]) in (17, 18)


def test_time_without_a_segment(video):
    nothing = TempOutput(event="cut", box=None, first_frame=0, last_frame=NUM_FRAMES - 1, segments=())
    bar = picture(video, nothing)[-52 + 6 + 7]
    assert not has_colour(bar[None], "TEMP")


def test_much_text_goes_into_a_list_beside(image):
    few = OcrOutput(frame=0, box=Box(0, 0, 640, 480), spans=(TextSpan(text="EXIT", box=Box(400, 200, 500, 230), confidence=1.0),))
    many = tuple(TextSpan(text=f"line {i}", box=Box(20, 5 + i * 9, 620, 13 + i * 9), confidence=1.0) for i in range(50))
    assert picture(image, few).shape == (480, 640, 3)
    assert picture(image, replace(few, spans=many)).shape[1] > 640


def test_evidence_of_another_frame_is_not_drawn_on_this_one(video):
    span = OcrOutput(frame=3, box=Box(100, 100, 200, 200), spans=())
    drawn = picture(video, span, frame=9)
    assert np.array_equal(drawn[40:], video.frame(9)[40:])
    with pytest.raises(ToolError):
        picture(video, span, frame=NUM_FRAMES)


def test_tiny_and_narrow_media_are_drawn():
    for width, height in ((1, 1), (3, 900), (900, 2)):
        with open_medium(png_bytes(np.full((height, width, 3), 90, np.uint8))) as medium:
            box = Box(0, 0, width, height)
            for output in (
                ZoomOutput(frame=0, box=box, view=None, width=1, height=1, image="0" * 64),
                OcrOutput(frame=0, box=box, spans=(TextSpan(text="a long text beside it", box=box, confidence=1.0),)),
            ):
                drawn = picture(medium, output, max_side=500)
                assert min(drawn.shape[:2]) >= 1 and max(drawn.shape[:2]) <= 500


@pytest.mark.parametrize(
    ("text", "drawn"),
    [
        ("EXIT", "EXIT"),
        ("Größe", "Grosse"),
        ("naïve – “so”", 'naive - "so"'),
        ("出口", "??"),
        ("a\nb\t c", "a b c"),
        ("①", "1"),
        ("", ""),
    ],
)
def test_letters_that_the_font_lacks_are_spelled_otherwise(text, drawn):
    assert drawable(text) == drawn


def test_long_text_is_cut():
    assert cut("x" * 300, 100).endswith("...")
    assert len(cut("x" * 300, 100)) < 20
    assert cut("short", 100) == "short"
