"""PROP's engine on drawings whose properties are known."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pixelis.core.errors import ToolError
from pixelis.tools.engines.prop_colour import COLOUR_NAMES, name_pixels
from pixelis.tools.engines.prop_default import WHATS, DefaultProp
from pixelis.tools.engines.region import resized

H, W = 240, 300


def canvas(colour=(200, 190, 170), noise: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(2)
    return np.clip(np.zeros((H, W, 3)) + colour + rng.normal(0, noise, (H, W, 3)), 0, 255).astype(np.uint8)


def values(what: str, **kw) -> dict:
    kw.setdefault("image_HWC", canvas())
    kw.setdefault("box", (0, 0, W, H))
    return {a.name: a.value for a in DefaultProp().measure(what, **kw)}


@pytest.mark.parametrize(
    ("rgb", "name"),
    [
        ((255, 0, 0), "red"), ((255, 165, 0), "orange"), ((255, 255, 0), "yellow"), ((0, 128, 0), "green"), ((0, 255, 255), "cyan"),
        ((0, 0, 255), "blue"), ((128, 0, 128), "purple"), ((255, 192, 203), "pink"), ((139, 69, 19), "brown"), ((0, 0, 0), "black"),
        ((128, 128, 128), "grey"), ((255, 255, 255), "white"),
    ],
)  # fmt: skip
def test_css_colours_bear_their_names(rgb, name):
    assert COLOUR_NAMES[int(name_pixels(np.array(rgb, np.uint8).reshape(1, 1, 3))[0, 0])] == name


@pytest.mark.parametrize("noise", [0.0, 8.0])
def test_rectangle_is_measured(noise):
    image = canvas(noise=noise)
    image[60:100, 90:170] = (30, 60, 210)
    image = np.clip(image + np.random.default_rng(0).normal(0, noise, image.shape), 0, 255).astype(np.uint8)
    box = (82, 53, 177, 108)
    assert values("color", image_HWC=image, box=box)["colour"] == "blue"
    size = values("size", image_HWC=image, box=box)
    assert size["width"] == pytest.approx(80, abs=2) and size["height"] == pytest.approx(40, abs=2)
    assert size["share"] == pytest.approx(3200 / (H * W), rel=0.05)
    assert values("shape", image_HWC=image, box=box)["shape"] == "rectangle"
    place = values("position", image_HWC=image, box=box)
    # Centre 130, 80 of 300 x 240: 433 and 333 thousandths; 80 is the border between the top and middle rows.
    assert place["centre_x"] == pytest.approx(433, abs=5) and place["centre_y"] == pytest.approx(333, abs=5)
    assert values("orientation", image_HWC=image, box=box)["orientation"] == "horizontal"


def test_mask_wins_over_the_background_model():
    image = canvas()
    image[60:100, 90:130] = (220, 30, 30)
    image[60:100, 130:170] = (30, 60, 210)
    mask = np.zeros((H, W), bool)
    mask[60:100, 130:170] = True
    assert values("colour", image_HWC=image, box=(80, 50, 180, 110), mask_HW=mask)["colour"] == "blue"


def test_second_colour_is_told():
    image = canvas()
    image[60:100, 90:140] = (220, 30, 30)
    image[60:100, 140:170] = (30, 60, 210)
    found = values("colour", image_HWC=image, box=(84, 54, 176, 106))
    assert (found["colour"], found["second_colour"]) == ("red", "blue")


@pytest.mark.parametrize("turn", [0, 17, 40])
@pytest.mark.parametrize(("sides", "name"), [(3, "triangle"), (5, "pentagon"), (6, "hexagon"), (60, "circle")])
def test_polygons_in_any_pose(sides, name, turn):
    image = canvas()
    angle = np.radians(turn) + np.arange(sides) * 2 * np.pi / sides
    points = np.stack([150 + 50 * np.cos(angle), 120 + 50 * np.sin(angle)], -1)
    cv2.fillPoly(image, [points.round().astype(np.int32)], (200, 30, 40), cv2.LINE_AA)
    assert values("shape", image_HWC=image, box=(95, 65, 205, 175))["shape"] == name


def test_square_on_its_corner_is_a_diamond_and_a_holed_disc_a_ring():
    image = canvas()
    cv2.fillPoly(image, [np.array([[150, 70], [200, 120], [150, 170], [100, 120]])], (200, 30, 40), cv2.LINE_AA)
    assert values("shape", image_HWC=image, box=(95, 65, 205, 175))["shape"] == "diamond"
    image = canvas()
    cv2.circle(image, (150, 120), 45, (200, 30, 40), 16, cv2.LINE_AA)
    assert values("shape", image_HWC=image, box=(90, 60, 210, 180))["shape"] == "ring"


def test_angle_is_counter_clockwise_on_screen():
    image = canvas()
    cv2.line(image, (100, 170), (200, 70), (20, 20, 20), 12)  # from lower left to upper right
    found = values("orientation", image_HWC=image, box=(90, 60, 210, 180))
    assert found["angle"] == pytest.approx(45, abs=3) and found["orientation"] == "diagonal"


@pytest.mark.parametrize("cut", [0.1, 0.2, 0.3])
@pytest.mark.parametrize("side", range(4))
def test_a_box_that_cuts_its_thing_measures_all_of_it(cut, side):
    image = canvas(noise=3.0)
    cv2.circle(image, (150, 120), 25, (200, 30, 40), -1, cv2.LINE_AA)
    cv2.rectangle(image, (215, 95), (264, 144), (30, 60, 210), -1)  # a neighbour, which is none of its business
    room = [12.0, 12.0, 12.0, 12.0]
    room[side] = -cut * 50
    box = (125 - room[0], 95 - room[1], 175 + room[2], 145 + room[3])
    assert values("shape", image_HWC=image, box=box)["shape"] == "circle"
    assert values("size", image_HWC=image, box=box)["area"] == pytest.approx(np.pi * 25**2, rel=0.08)
    assert values("colour", image_HWC=image, box=box)["colour"] == "red"


def test_a_box_beside_a_thing_does_not_take_it():
    image = canvas(noise=3.0)
    cv2.circle(image, (150, 120), 25, (200, 30, 40), -1, cv2.LINE_AA)
    assert values("colour", image_HWC=image, box=(60, 90, 121, 150))["colour"] != "red"


def test_counting_splits_touching_discs_and_follows_an_example():
    image = canvas()
    for x, y in ((50, 60), (88, 60), (150, 150), (240, 90)):  # the first two touch
        cv2.circle(image, (x, y), 20, (200, 30, 40), -1, cv2.LINE_AA)
    assert values("count", image_HWC=image)["count"] == 4
    cv2.circle(image, (60, 180), 20, (30, 60, 210), -1, cv2.LINE_AA)
    assert values("count", image_HWC=image)["count"] == 5
    assert values("count", image_HWC=image, other_box=(220, 70, 260, 110))["count"] == 4


@pytest.mark.parametrize("beyond", [0, 2, 5])
def test_counting_on_a_surface_leaves_out_what_its_outline_took_along(beyond):
    """A mask that runs some pixels beside its card: the strip outside is no thing, and no background either."""
    image = canvas((90, 120, 80))
    cv2.rectangle(image, (60, 50), (219, 189), (245, 245, 240), -1)
    for x, y in ((85, 80), (130, 75), (180, 100), (95, 150), (165, 160)):
        cv2.circle(image, (x, y), 9, (200, 30, 40), -1, cv2.LINE_AA)
    mask = np.zeros((H, W), bool)
    mask[50 - beyond : 190 + beyond, 60 - beyond : 220 + beyond] = True
    box = (60 - beyond, 50 - beyond, 220 + beyond, 190 + beyond)
    assert values("count", image_HWC=image, mask_HW=mask, box=box)["count"] == 5


def test_a_mask_of_separate_things_is_no_surface():
    image = canvas()
    mask = np.zeros((H, W), bool)
    for x, y in ((50, 60), (150, 150), (240, 90)):
        cv2.circle(image, (x, y), 20, (200, 30, 40), -1, cv2.LINE_AA)
        mask |= np.hypot(*np.mgrid[-y : H - y, -x : W - x]) <= 20
    assert values("count", image_HWC=image, mask_HW=mask)["count"] == 3


def test_motion_of_a_straight_track():
    # 30 px a second to the left and as much up: on screen up-left, 42.4 px/s.
    track = [(i * 0.1, (200 - 3 * i, 200 - 3 * i, 220 - 3 * i, 220 - 3 * i)) for i in range(21)]
    found = values("motion", track=track)
    assert (found["moving"], found["direction"], found["path"]) == ("moving", "up-left", "straight")
    assert found["speed"] == pytest.approx(42.4, abs=0.5)
    assert found["speed_widths"] == pytest.approx(42.4 / W, abs=0.005)
    assert found["distance"] == pytest.approx(84.9, abs=1)


def test_turns_are_signed_as_seen_on_screen():
    # A quarter circle from heading right to heading up: a left turn.
    angle = np.linspace(0, np.pi / 2, 20)
    points = np.stack([100 + 80 * np.sin(angle), 200 - 80 * (1 - np.cos(angle))], -1)
    track = [(i * 0.1, (x - 10, y - 10, x + 10, y + 10)) for i, (x, y) in enumerate(points)]
    assert values("motion", track=track)["path"] == "turns left"
    mirrored = [(t, (x0, -y1, x1, -y0)) for t, (x0, y0, x1, y1) in track]
    assert values("motion", track=mirrored)["path"] == "turns right"


def test_a_resting_box_is_still_despite_jitter():
    rng = np.random.default_rng(0)
    track = [(i * 0.1, tuple(np.array([50, 50, 90, 90]) + rng.normal(0, 0.7, 4))) for i in range(30)]
    assert values("motion", track=track)["moving"] == "still"


@pytest.mark.parametrize(
    ("a", "b", "word"),
    [
        ((10, 100, 30, 120), (100, 105, 120, 125), "left of"),
        ((200, 100, 220, 120), (100, 105, 120, 125), "right of"),
        ((100, 10, 120, 30), (103, 105, 123, 125), "above"),
        ((100, 200, 120, 220), (103, 105, 123, 125), "below"),
        ((110, 110, 120, 120), (100, 100, 140, 140), "inside"),
        ((100, 100, 140, 140), (110, 110, 120, 120), "contains"),
    ],
)
def test_relations(a, b, word):
    assert values("relation", box=a, other_box=b)["relation"] == word


def test_relation_measures():
    found = values("relation", box=(0, 100, 20, 120), other_box=(100, 100, 140, 140))
    # Centres 10, 110 and 120, 120; areas 400 and 1600.
    assert found["distance"] == pytest.approx(np.hypot(110, 10) / W, abs=1e-4)
    assert (found["size"], found["size_ratio"], found["contact"]) == ("smaller", 0.25, "apart")
    assert values("relation", box=(0, 0, 50, 50), other_box=(50, 0, 100, 50))["contact"] == "touching"
    assert values("relation", box=(0, 0, 50, 50), other_box=(30, 0, 100, 50))["contact"] == "overlaps"


@pytest.mark.parametrize("what", [w for w in WHATS if w not in ("motion", "relation")])
@pytest.mark.parametrize("box", [(5, 5, 6, 6), (0, 0, 2, 2), (-20, -20, 4, 4), (0, 0, W, H)])
def test_degenerate_regions_answer_with_little_confidence(what, box):
    for image in (np.full((H, W, 3), 90, np.uint8), np.zeros((H, W, 3), np.uint8)):
        found = DefaultProp().measure(what, image_HWC=image, box=box)
        assert found and all(0 <= a.confidence <= 1 for a in found)
        assert found == DefaultProp().measure(what, image_HWC=image, box=box)
        if what == "shape":
            assert found[0].confidence < 0.5


@pytest.mark.parametrize("seed", range(30))
def test_boxes_of_any_length_on_a_large_picture(seed):
    """A copy of a long box is as large as the box says, whatever squares it is made from: no mask is asked beyond its edge."""
    rng = np.random.default_rng(seed)
    height, width = (int(v) for v in rng.integers(500, 1500, 2))
    image = np.full((height, width, 3), 220, np.uint8)
    cv2.ellipse(image, (width // 2, height // 2), (width // 5, height // 6), 0, 0, 360, (30, 60, 160), -1)
    room = rng.uniform(0.08, 0.25, 4)
    box = width * (0.3 - room[0]), height * (0.33 - room[1]), width * (0.7 + room[2]), height * (0.67 + room[3])
    found = {what: DefaultProp().measure(what, image_HWC=image, box=box)[0].value for what in ("colour", "count", "size", "shape")}
    assert found["colour"] == "blue"
    assert found["size"] == pytest.approx(width * 0.4, rel=0.04) and found["shape"] in ("ellipse", "circle")


@pytest.mark.parametrize("scale", [0.2, 0.37, 0.5, 0.51, 0.9])
def test_a_smaller_copy_shows_the_same_picture(scale):
    smooth = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 255, (203, 331, 3)).astype(np.uint8), (0, 0), 9)
    copy = resized(smooth, scale)
    other = cv2.resize(smooth, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    assert copy.shape == other.shape and np.abs(copy.astype(int) - other).max() <= 3


def test_bad_requests():
    tool, image = DefaultProp(), canvas()
    for kw, kind in (
        ({"what": "smell", "box": (0, 0, 9, 9)}, "bad_arguments"),
        ({"what": "colour", "box": (400, 0, 420, 9)}, "out_of_frame"),
        ({"what": "motion", "box": (0, 0, 9, 9)}, "bad_arguments"),
        ({"what": "motion", "box": (0, 0, 9, 9), "track": [(0.0, (0, 0, 1, 1)), (0.0, (5, 5, 6, 6))]}, "bad_arguments"),
        ({"what": "relation", "box": (0, 0, 9, 9)}, "bad_arguments"),
    ):
        with pytest.raises(ToolError) as error:
            tool.measure(kw.pop("what"), image_HWC=image, **kw)
        assert error.value.kind == kind
