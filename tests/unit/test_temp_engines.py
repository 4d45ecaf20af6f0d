"""TEMP's offline engine on clips whose events were placed by hand."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from pixelis.core.errors import ToolError
from pixelis.tools.engines.temp_changes import Change, crosses_border
from pixelis.tools.engines.temp_default import DefaultTemp, _partner
from pixelis.tools.engines.temp_events import Segment, parse_event, suppress
from pixelis.tools.engines.temp_flow import Leftover
from pixelis.tools.engines.temp_signal import Clip, read_clip

H, W, FPS = 120, 200, 10


def backdrop(seed: int = 0) -> np.ndarray:
    """Grey with a fixed mild grain."""
    rng = np.random.default_rng(seed)
    return np.clip(120 + rng.normal(0, 6, (H, W, 1)) + np.zeros(3), 0, 255).astype(np.uint8)


def clip(count: int, paint=None, noise: float = 0.0) -> list[np.ndarray]:
    rng = np.random.default_rng(1)
    frames = []
    for i in range(count):
        frame = backdrop()
        if paint is not None:
            paint(frame, i)
        frames.append(np.clip(frame + rng.normal(0, noise, frame.shape), 0, 255).astype(np.uint8) if noise else frame)
    return frames


def red_square(on, at=(60, 40), colour=(220, 30, 30)):
    def paint(frame, i):
        if on(i):
            x, y = at(i) if callable(at) else at
            frame[y : y + 24, x : x + 24] = colour(i) if callable(colour) else colour

    return paint


def times(count: int) -> list[float]:
    return [i / FPS for i in range(count)]


def best(frames, event, **kw) -> Segment:
    return DefaultTemp().locate(iter(frames), times(len(frames)), event, **kw)[0]


@pytest.mark.parametrize("noise", [0.0, 6.0])
@pytest.mark.parametrize("box", [None, (50, 30, 95, 75)])
def test_appearance_runs_from_first_to_first_missing_frame(noise, box):
    found = best(clip(40, red_square(lambda i: 12 <= i < 27), noise), "appears", box=box)
    assert (found.start_s, found.end_s) == pytest.approx((1.2, 2.7))
    assert 0.3 < found.score <= 1


def test_appearance_without_an_end_runs_to_the_window_end():
    found = best(clip(40, red_square(lambda i: i >= 12)), "A RED SQUARE APPEARS")
    assert (found.start_s, found.end_s) == pytest.approx((1.2, 4.0))


def test_disappearance_is_the_gap():
    found = best(clip(40, red_square(lambda i: not 12 <= i < 27)), "disappears")
    assert (found.start_s, found.end_s) == pytest.approx((1.2, 2.7))


def test_what_vanishes_for_good_does_not_appear():
    found = DefaultTemp().locate(iter(clip(40, red_square(lambda i: i < 20))), times(40), "appears")
    assert all(segment.score < 0.3 for segment in found)


def test_colour_words_filter():
    frames = clip(40, red_square(lambda i: 12 <= i < 27))
    assert DefaultTemp().locate(iter(frames), times(40), "a blue square appears") == []


def test_change_is_one_frame_step():
    paint = red_square(lambda i: True, colour=lambda i: (30, 60, 220) if i >= 15 else (220, 30, 30))
    found = best(clip(30, paint), "changes")
    assert (found.start_s, found.end_s) == pytest.approx((1.4, 1.5))


def test_gradual_change_spans_the_fade():
    # Red at frame 10, blue from frame 20 on, linear between.
    def fade(i):
        share = min(max((i - 10) / 10, 0), 1)
        return tuple(int(a + (b - a) * share) for a, b in zip((220, 30, 30), (30, 60, 220), strict=True))

    found = best(clip(40, red_square(lambda i: True, colour=fade)), "changes", box=(50, 30, 95, 75))
    assert found.start_s == pytest.approx(1.0, abs=0.21)
    assert found.end_s == pytest.approx(2.0, abs=0.21)


def test_motion_spans_from_last_still_to_first_still_frame():
    # Frame 11 is the first that differs, frame 25 the last.
    paint = red_square(lambda i: True, at=lambda i: (20 + 5 * min(max(i - 10, 0), 15), 40))
    found = best(clip(40, paint, noise=2.0), "moves")
    assert (found.start_s, found.end_s) == pytest.approx((1.0, 2.5))


def shaken(ground: np.ndarray, *, reach: int, count: int = 40, changes_at: int | None = None) -> list[np.ndarray]:
    """A red square and three things beside it before a ground, seen by a camera that swings by up to `reach` px a side."""
    frames = []
    for t in range(count):
        scene = ground.copy()
        square(scene, (60, 40), RED if changes_at is None or t < changes_at else (30, 60, 220))
        for at, colour in (((120, 20), (240, 240, 240)), ((20, 80), (20, 20, 20)), ((150, 75), (40, 160, 60))):
            square(scene, at, colour)
        offset = [round(reach * (0.6 * np.sin(0.9 * t + phase) + 0.4 * np.sin(2.3 * t + 2 * phase))) for phase in (0.3, 1.1)]
        frames.append(np.roll(scene, offset, axis=(0, 1)))
    return frames


def square(frame: np.ndarray, at: tuple[int, int], colour: tuple[int, int, int]) -> np.ndarray:
    frame[at[1] : at[1] + 24, at[0] : at[0] + 24] = colour
    return frame


RED = (220, 30, 30)
GROUNDS = {"textured": backdrop(), "plain": np.full_like(backdrop(), 128)}


@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("event", ["changes", "appears", "disappears"])
def test_nothing_happens_where_the_camera_shakes(ground, event):
    frames = shaken(GROUNDS[ground], reach=6)
    assert DefaultTemp().locate(frames, times(len(frames)), event, box=(48, 28, 92, 72)) == []


@pytest.mark.parametrize("ground", GROUNDS)
def test_a_change_is_the_one_event_where_the_camera_shakes(ground):
    frames = shaken(GROUNDS[ground], reach=6, changes_at=20)
    (found,) = DefaultTemp().locate(frames, times(len(frames)), "changes", box=(48, 28, 92, 72))
    assert (round(found.start_s, 3), round(found.end_s, 3)) == (1.9, 2.0) and found.score > 0.8


@pytest.mark.parametrize("event", ["changes", "appears", "disappears"])
def test_a_shake_of_thin_things_on_plain_ground_is_seen(event):
    """Under two pixels of a hundred differ from frame to frame, and what lies in the box comes and goes with it."""
    frames = []
    for t in range(40):
        scene = np.full((360, 640, 3), 128, np.uint8)
        for x, y in ((100, 60), (420, 80), (250, 200), (520, 280), (120, 300)):
            scene[y : y + 24, x : x + 24] = RED if (x + y) % 40 else (30, 60, 220)
        offset = [round(8 * (0.6 * np.sin(0.9 * t + phase) + 0.4 * np.sin(2.3 * t + 2 * phase))) for phase in (0.3, 1.1)]
        frames.append(np.roll(scene, offset, axis=(0, 1)))
    assert all((np.abs(a.astype(int) - b) > 4).any(-1).mean() < 0.02 for a, b in pairwise(frames))
    assert DefaultTemp().locate(frames, times(40), event, box=(245, 195, 279, 229)) == []


def test_a_box_follows_a_camera_that_shakes_and_none_that_stands_or_travels():
    still, box = square(backdrop(), (60, 40), RED), (48, 28, 92, 72)
    stands = read_clip([still] * 8, times(8), box, None)
    assert all(np.array_equal(frame, stands.lab_THWC[0]) for frame in stands.lab_THWC)
    shakes = read_clip(shaken(backdrop(), reach=6, count=8), times(8), box, None)
    x0, y0, x1, y1 = shakes.region
    middle = shakes.lab_THWC[:, y0 + 16 : y1 - 16, x0 + 16 : x1 - 16].astype(int)  # of the red square, whatever the camera does
    assert np.abs(middle - middle[0]).max() < 12
    assert all(step is None or np.abs(step - np.eye(2, 3)).max() <= 2 for step in shakes.camera)
    wide = np.concatenate([still] * 2, axis=1)
    travels = read_clip([wide[:, 6 * t : 6 * t + still.shape[1]] for t in range(8)], times(8), box, None)
    assert np.array_equal(travels.lab_THWC[7], read_clip([wide[:, 42 : 42 + still.shape[1]]], times(1), box, None).lab_THWC[0])
    assert travels.camera[4] is not None and abs(travels.camera[4][0, 2] + 6 * stands.lab_THWC.shape[2] / (44 + 16)) < 1.5


@pytest.mark.parametrize(
    ("step", "box", "expected"),
    [
        ((-5, 0), (88, 10, 100, 50), True),  # 12 deep, where the camera brings in 5 and what is nearer up to 15
        ((-5, 0), (80, 10, 100, 50), False),  # 20 deep
        ((-5, 0), (0, 10, 9, 50), True),  # leaves on the other side
        ((-5, 0), (40, 10, 52, 50), False),  # in the middle
        ((-5, 0), (40, 0, 60, 10), False),  # at a border over which nothing comes
        ((0, 4), (40, 0, 60, 10), True),
        ((-35, 0), (40, 10, 52, 50), False),  # in the middle, however fast
        ((-35, 0), (10, 10, 100, 50), True),  # 90 deep of a picture that is new altogether
        (None, (88, 10, 100, 50), False),  # a camera that stands still brings nothing
    ],
)
def test_what_a_camera_carries_over_the_border(step, box, expected):
    camera = [None, None if step is None else np.float32([[1, 0, step[0]], [0, 1, step[1]]])]
    seen = Clip(np.zeros((2, 60, 100, 3), np.uint8), np.arange(2.0), 2.0, camera, np.zeros((2, 3), np.float32), (0, 0, 100, 60))
    mask = np.ones((box[3] - box[1], box[2] - box[0]), bool)
    assert crosses_border(seen, Change(0, 1, box, mask, 1.0, 1.0, 1.0)) is expected


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ((10, 11), False),  # the fade's own tail: it took 4 frames, so nothing ends it before frame 12
        ((20, 21), False),  # something in the box, but the square stays
        ((24, 25), True),  # the square is gone
    ],
)
def test_what_ends_a_fade(at, expected):
    """A red square is half there at frame 6, whole from frame 8 on and gone at frame 25."""
    box = (50, 30, 94, 74)
    frames = clip(30, red_square(lambda i: 5 <= i < 25, colour=lambda i: tuple(120 + (c - 120) * min(4, i - 4) // 4 for c in RED)))
    seen = read_clip(frames, times(30), box, None)
    x0, y0, x1, y1 = seen.region
    place = seen.region, np.ones((y1 - y0, x1 - x0), bool)
    fade, other = Change(4, 8, *place, 0.9, 1.0, 1.0), Change(*at, *place, 0.9, -1.0, 1.0)
    assert (_partner(seen, Leftover(seen), fade, [fade, other], 1.0) is other) is expected


@pytest.mark.parametrize("size", [(40, 40), (80, 40), (120, 50)])
@pytest.mark.parametrize("is_textured", [False, True])
def test_a_lone_mover_on_plain_ground_moves(is_textured, size):
    """Nothing else tells its path from the camera's: what fills so little of the picture is a thing."""
    height, width = size
    look = np.full((height, width, 3), RED, np.uint8)
    if is_textured:
        for y, x in ((5, 5), (5, width - 15), (height - 15, 5), (height - 15, width - 15)):
            look[y : y + 10, x : x + 10] = 255
    frames = []
    for t in range(30):
        x = 20 + 5 * min(max(t - 10, 0), 10)
        frames.append(np.full((H * 2, W * 2, 3), 128, np.uint8))
        frames[-1][50 : 50 + height, x : x + width] = look
    found = best(frames, "moves")
    assert abs(found.start_s - 1.0) < 0.15 and abs(found.end_s - 2.0) < 0.25


def test_shots_tile_the_window():
    other = np.zeros((H, W, 3), np.uint8) + np.array([20, 90, 160], np.uint8)
    frames = clip(13) + [other] * 9 + clip(10, lambda f, i: np.copyto(f, 255 - f[:, ::-1] // 3))
    found = sorted(DefaultTemp().locate(iter(frames), times(32), "cut"), key=lambda s: s.start_s)
    assert [(round(s.start_s, 6), round(s.end_s, 6)) for s in found] == [(0.0, 1.3), (1.3, 2.2), (2.2, 3.2)]


@pytest.mark.parametrize("event", ["scene", "SHOT", "cut"])
def test_without_a_cut_the_window_is_one_shot(event):
    assert DefaultTemp().locate(iter(clip(10)), times(10), event) == [Segment(0.0, 1.0, 1.0)]


@pytest.mark.parametrize("event", ["appears", "disappears", "changes", "moves"])
def test_nothing_happens_in_noise_flicker_or_one_flash(event):
    rng = np.random.default_rng(3)
    flicker = [np.clip(backdrop() * rng.uniform(0.96, 1.04) + rng.normal(0, 5, (H, W, 3)), 0, 255).astype(np.uint8) for _ in range(30)]
    found = DefaultTemp().locate(iter(flicker), times(30), event)
    assert all(segment.score < 0.3 for segment in found)
    if event != "moves":
        flash = clip(30)
        flash[14][:] = 255
        assert DefaultTemp().locate(iter(flash), times(30), event) == []


@pytest.mark.parametrize("event", ["appears", "disappears", "changes", "moves"])
@pytest.mark.parametrize("frames", [[backdrop()], [np.full((H, W, 3), 77, np.uint8)] * 8, [np.zeros((1, 1, 3), np.uint8)] * 4])
def test_degenerate_clips_hold_no_event(event, frames):
    assert DefaultTemp().locate(iter(frames), times(len(frames)), event) == []


def test_equal_times_do_not_crash():
    frames = clip(20, red_square(lambda i: i >= 9))
    for event in ("appears", "disappears", "changes", "moves", "cut"):
        for segment in DefaultTemp().locate(iter(frames), [0.5] * 20, event):
            assert segment.start_s == segment.end_s == 0.5


def test_tiny_box_and_box_outside():
    frames = clip(20, red_square(lambda i: i >= 9))
    assert isinstance(DefaultTemp().locate(iter(frames), times(20), "appears", box=(70, 50, 71, 51)), list)
    with pytest.raises(ToolError) as error:
        DefaultTemp().locate(iter(frames), times(20), "appears", box=(300, 10, 310, 20))
    assert error.value.kind == "out_of_frame"


def test_frames_and_times_must_agree():
    for count in (9, 11):
        with pytest.raises(ToolError):
            DefaultTemp().locate(iter(clip(10)), times(count), "cut")
    with pytest.raises(ToolError):
        DefaultTemp().locate(iter([]), [], "cut")


def test_same_input_same_answer():
    frames = clip(30, red_square(lambda i: True, at=lambda i: (20 + 4 * i, 40)), noise=5)
    for event in ("appears", "changes", "moves", "cut"):
        first, second = (DefaultTemp().locate(iter(frames), times(30), event) for _ in range(2))
        assert first == second


def test_should_stop_is_asked_while_reading_and_while_analysing():
    asked = []

    def stop():
        asked.append(1)
        if len(asked) == 5:
            raise ToolError("deadline", "time is up")

    with pytest.raises(ToolError) as error:
        DefaultTemp().locate(iter(clip(20)), times(20), "appears", should_stop=stop)
    assert error.value.kind == "deadline" and len(asked) == 5
    read, asked_after = [], []

    def source():
        yield from clip(20, red_square(lambda i: i >= 9))
        read.append(1)

    DefaultTemp().locate(source(), times(20), "appears", should_stop=lambda: read and asked_after.append(1))
    assert len(asked_after) >= 20


@pytest.mark.parametrize(
    ("text", "kind", "colours"),
    [
        ("a red square appears", "appears", {"red"}),
        ("The gray box disappears.", "disappears", {"grey"}),
        ("the light turns on", "changes", set()),
        ("text changes", "changes", set()),
        ("the square turns blue", "changes", {"blue"}),
        ("the person moves", "moves", set()),
        ("a car turns", "moves", set()),
        ("scene", "cut", set()),
        ("the dog vanishes from the scene", "disappears", set()),
    ],
)
def test_events_are_read_from_text(text, kind, colours):
    request = parse_event(text)
    assert (request.kind, set(request.colours)) == (kind, colours)


def test_unknown_event_lists_what_exists():
    with pytest.raises(ToolError, match="appears, disappears, changes, moves, cut") as error:
        parse_event("love")
    assert error.value.kind == "bad_arguments"


def test_suppression_keeps_the_best_of_a_heap():
    # tIoU of the first two is 9/11 > 0.7; the third overlaps neither enough.
    kept = suppress([Segment(0, 10, 0.5), Segment(1, 11, 0.9), Segment(8, 12, 0.4)])
    assert kept == [Segment(1, 11, 0.9), Segment(8, 12, 0.4)]
