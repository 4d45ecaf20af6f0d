"""The text reader against rendered text, whose words and boxes are known exactly."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from pixelis.core.errors import NotInstalled
from pixelis.tools.engines import ocr_models
from pixelis.tools.engines.ocr_detect import Line
from pixelis.tools.engines.ocr_order import reading_order
from pixelis.tools.engines.ocr_rapid import RapidOcr, Span

pytest.importorskip("onnxruntime", reason="the text reader runs on onnxruntime")
pytest.importorskip("rapidocr", reason="the text reader's weights come in the rapidocr wheel")


@pytest.fixture(scope="module")
def reader() -> RapidOcr:
    return RapidOcr()


def paint(
    lines: list[tuple[str, int, int, int]], *, size=(400, 120), ground=(235, 235, 228), ink=(25, 25, 40)
) -> tuple[np.ndarray, list[tuple]]:
    """Text, x, y, font px each, in Pillow's own font; returns the image and the ink box of each."""
    image = Image.new("RGB", size, ground)
    draw = ImageDraw.Draw(image)
    boxes = []
    for text, x, y, font_px in lines:
        font = ImageFont.load_default(font_px)
        draw.text((x, y), text, font=font, fill=ink)
        boxes.append(draw.textbbox((x, y), text, font=font))
    return np.array(image), boxes


def iou(a: tuple, b: tuple) -> float:
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def texts(spans: list[Span]) -> list[str]:
    return [span.text for span in spans]


def check_spans(spans: list[Span], image_HWC: np.ndarray) -> None:
    height, width = image_HWC.shape[:2]
    for span in spans:
        x0, y0, x1, y1 = span.box
        assert 0 <= x0 < x1 <= width
        assert 0 <= y0 < y1 <= height
        assert 0 <= span.confidence <= 1
        assert span.text == span.text.strip() != ""


@pytest.mark.parametrize("font_px", [10, 14, 24, 48])
@pytest.mark.parametrize(
    ("ground", "ink"), [((240, 240, 240), (20, 20, 20)), ((30, 60, 40), (250, 230, 90)), ((180, 40, 40), (255, 255, 255))]
)
def test_words_spaces_and_box_are_the_painted_ones(reader, font_px, ground, ink):
    image, [truth] = paint([("Gate 42 opens", 15, 20, font_px)], ground=ground, ink=ink)
    spans = reader.read(image)
    assert texts(spans) == ["Gate 42 opens"]
    check_spans(spans, image)
    assert iou(spans[0].box, truth) > 0.6
    assert spans[0].confidence > 0.8


def test_noisy_ground(reader):
    image, _ = paint([("Platform 9", 40, 30, 36)])
    noise = np.random.default_rng(0).normal(0, 20, image.shape)
    assert texts(reader.read((image + noise).clip(0, 255).astype(np.uint8))) == ["Platform 9"]


def test_order_is_rows_then_columns(reader):
    image, _ = paint(
        [("omega", 30, 150, 28), ("right", 300, 20, 28), ("left", 30, 24, 28), ("middle", 150, 85, 28)], size=(420, 210)
    )  # painted in another order, and the first row not quite level
    assert texts(reader.read(image)) == ["left", "right", "middle", "omega"]


def tilted(boxes: list[tuple[float, float, float, float]], angle: float) -> list[Line]:
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return [Line(np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) @ turn.T, 1.0) for x0, y0, x1, y1 in boxes]


@pytest.mark.parametrize("angle", [-0.2, 0.0, 0.2])
def test_order_on_a_tilted_page(angle):
    # At 0.2 rad the right column of a row lies 100 px below its left one, three rows further down.
    boxes = [(x, y, x + 150, y + 20) for y in (0, 30, 60, 90) for x in (0, 500)]
    shuffled = np.random.default_rng(1).permutation(len(boxes))
    order = reading_order(tilted([boxes[k] for k in shuffled], angle))
    assert [int(shuffled[k]) for k in order] == list(range(len(boxes)))


def test_order_of_nothing():
    assert reading_order([]) == []


def test_narrow_gap_is_a_space(reader):
    font = ImageFont.load_default(28)
    image = Image.new("RGB", (420, 60), (240, 240, 230))
    draw = ImageDraw.Draw(image)
    draw.text((20, 12), "GRAND", font=font, fill=(20, 20, 60))
    draw.text((20 + draw.textlength("GRAND", font=font) + 0.22 * 28, 12), "HOTEL", font=font, fill=(20, 20, 60))
    assert texts(reader.read(np.array(image))) == ["GRAND HOTEL"]


def test_crop_cut_close_around_a_word(reader):
    image, [(x0, y0, x1, y1)] = paint([("Bakery", 20, 20, 30)])
    crop = image[int(y0) : int(y1), int(x0) : int(x1)]
    assert texts(reader.read(crop)) == ["Bakery"]


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turned_text(reader, turns):
    image, _ = paint([("Emergency exit", 30, 40, 36)], size=(420, 120))
    turned = np.ascontiguousarray(np.rot90(image, turns))
    spans = reader.read(turned)
    assert texts(spans) == ["Emergency exit"]
    check_spans(spans, turned)


def test_small_text_in_a_large_image(reader):
    image, [truth] = paint([("Ticket 20417", 2200, 1500, 14)], size=(3000, 2200))
    spans = reader.read(image)
    assert texts(spans) == ["Ticket 20417"]
    assert iou(spans[0].box, truth) > 0.5


def test_large_text_in_a_large_image(reader):
    image, [truth] = paint([("SALE", 300, 500, 700)], size=(3000, 1800))
    spans = reader.read(image)
    assert texts(spans) == ["SALE"]
    assert iou(spans[0].box, truth) > 0.6


def test_line_longer_than_one_piece(reader):
    words = " ".join(["bread", "milk", "sugar", "lemons", "rice"] * 8)
    image, _ = paint([(words, 10, 10, 20)], size=(3200, 45))
    assert " ".join(texts(reader.read(image))) == words


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 3), (60, 200), (900, 1400)])
@pytest.mark.parametrize("level", [0, 128, 255])
def test_uniform_images_hold_nothing(reader, size, level):
    assert reader.read(np.full((*size, 3), level, np.uint8)) == []


@pytest.mark.parametrize("size", [(5, 3000), (3000, 5), (4, 4), (33, 31), (2500, 700)])
def test_odd_sizes_of_noise_and_gradients_stay_in_bounds(reader, size):
    rng = np.random.default_rng(3)
    image = (np.linspace(0, 200, size[1])[None, :, None] + rng.integers(0, 40, (*size, 3))).astype(np.uint8)
    check_spans(reader.read(image), image)


@pytest.mark.parametrize("bad", [np.zeros((10, 10), np.uint8), np.zeros((10, 10, 4), np.uint8), np.zeros((10, 10, 3), np.float32)])
def test_other_arrays_are_refused(reader, bad):
    with pytest.raises(ValueError, match="uint8 RGB"):
        reader.read(bad)


def test_same_pixels_same_answer_also_from_threads(reader):
    image, _ = paint([("Main Street", 20, 15, 24), ("7:30 am", 20, 60, 24)])
    first = reader.read(image)
    assert texts(first) == ["Main Street", "7:30 am"]
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(lambda _: RapidOcr().read(image), range(8)))
    assert all(other == first for other in others)


def test_the_input_is_not_written_to(reader):
    image, _ = paint([("Friday", 20, 20, 30)])
    before = image.copy()
    image.flags.writeable = False
    reader.read(image)
    assert np.array_equal(image, before)


def test_a_key_never_returns_another_images_text(reader):
    one, _ = paint([("coffee", 20, 20, 30)])
    two, _ = paint([("garden", 20, 20, 30)])
    assert texts(reader.read(one, image_key="k")) == ["coffee"]
    assert texts(reader.read(two, image_key="k")) == ["garden"]
    kept = reader.read(one, image_key="k")
    kept.clear()
    assert texts(reader.read(one, image_key="k")) == ["coffee"]


def test_version_names_weights_and_libraries(reader):
    assert reader.version.startswith("rapidocr-")
    assert "det-" in reader.version
    assert "rec-" in reader.version


def test_absent_weights_say_how_to_get_them():
    with pytest.raises(NotInstalled, match="pip install rapidocr"):
        ocr_models.model_path(ocr_models.DETECTOR, package="no_such_package_here")
    with pytest.raises(NotInstalled, match="pip install rapidocr"):
        ocr_models.model_path("no_such_model.onnx")


def test_reading_is_silent_and_opens_no_connection():
    code = (
        "import socket, sys\n"
        "def refuse(*a, **k): raise SystemExit('a connection was opened')\n"
        "socket.socket.connect = refuse\n"
        "import numpy as np\n"
        "from pixelis.tools.engines.ocr_rapid import RapidOcr\n"
        "image = np.full((60, 200, 3), 255, np.uint8); image[20:40, 20:180:8] = 0\n"
        "RapidOcr().read(image)\n"
        "assert 'rapidocr' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=120,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
