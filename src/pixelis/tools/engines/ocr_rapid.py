"""The text reader: an image or crop of any size in, lines of text with boxes out, in reading order."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from pixelis.tools.engines.ocr_detect import Line, find_lines
from pixelis.tools.engines.ocr_models import DETECTOR, RECOGNISER, model_path, models_version
from pixelis.tools.engines.ocr_order import reading_order
from pixelis.tools.engines.ocr_recognise import Reading, ink_box, read_line

ALGORITHM = "1"
"""Raise when the same image may now give another answer."""
MIN_CONFIDENCE = 0.5
"""Spans read with less are dropped: mostly texture taken for text."""
WHOLE_CROP_MAX_HEIGHT_PX = 160
WHOLE_CROP_MIN_ASPECT = 0.7
WHOLE_CROP_MAX_ASPECT = 60
"""Longer than this is no line of text (about 100 characters), but a rule or a border."""
ONE_LINE_ASPECT = 1.5
WHOLE_CROP_MIN_CONFIDENCE = 0.75
READERS = 2
"""Lines that are read at the same time."""
KEPT_ANSWERS = 16


@dataclass(frozen=True)
class Span:
    """A line of text where it stands."""

    text: str
    box: tuple[float, float, float, float]
    """x0, y0, x1, y1 in pixels of the given image; x1 and y1 exclusive."""
    confidence: float
    """Mean probability of the characters, in [0, 1]."""


class RapidOcr:
    """PP-OCRv6 small on ONNX Runtime; safe to share between threads.

    Raises:
        NotInstalled: the weights' wheel or ONNX Runtime is missing.
    """

    name = "rapidocr"

    def __init__(self) -> None:
        for file_name in (DETECTOR, RECOGNISER):
            model_path(file_name)
        self._answers: OrderedDict[tuple, tuple[Span, ...]] = OrderedDict()
        self._lock = threading.Lock()

    @property
    def version(self) -> str:
        """Changes whenever the same image may give another answer."""
        return f"{models_version()}+{ALGORITHM}"

    def read(self, image_HWC: np.ndarray, *, image_key: str | None = None) -> list[Span]:
        """Lines of text in reading order; empty when there is none.

        Args:
            image_HWC: uint8 RGB [height, width, 3], a crop or a whole page.
            image_key: when given, the answer is remembered under it (and the pixels, so that a wrong key does no harm).
        """
        if image_HWC.ndim != 3 or image_HWC.shape[2] != 3 or image_HWC.dtype != np.uint8:
            raise ValueError(f"expected uint8 RGB [height, width, 3], got {image_HWC.dtype} {image_HWC.shape}")
        if image_key is None:
            return _read(image_HWC)
        key = (image_key, image_HWC.shape, hashlib.blake2b(np.ascontiguousarray(image_HWC), digest_size=16).digest())
        with self._lock:
            if key in self._answers:
                self._answers.move_to_end(key)
                return list(self._answers[key])
        spans = _read(image_HWC)
        with self._lock:
            self._answers[key] = tuple(spans)
            while len(self._answers) > KEPT_ANSWERS:
                self._answers.popitem(last=False)
        return spans


def _read(image_HWC: np.ndarray) -> list[Span]:
    height, width = image_HWC.shape[:2]
    if min(height, width) < 4 or np.ptp(image_HWC.reshape(-1, 3), axis=0).max() < 8:
        return []
    lines = find_lines(image_HWC)
    with ThreadPoolExecutor(READERS) as pool:  # lines do not depend on each other, so their order of reading does not matter
        readings = list(pool.map(lambda line: read_line(image_HWC, line.quad), lines))
    if len(lines) <= 1 and height <= WHOLE_CROP_MAX_HEIGHT_PX and WHOLE_CROP_MIN_ASPECT <= width / height <= WHOLE_CROP_MAX_ASPECT:
        lines, readings = _or_whole_crop(image_HWC, lines, readings)
    spans = []
    for k in reading_order(lines):
        if readings[k].text and readings[k].confidence >= MIN_CONFIDENCE:
            x0, y0, x1, y1 = ink_box(image_HWC, lines[k].quad)
            box = max(0.0, x0), max(0.0, y0), min(float(width), x1), min(float(height), y1)
            spans.append(Span(readings[k].text, box, readings[k].confidence))
    return spans


def _or_whole_crop(image_HWC: np.ndarray, lines: list[Line], readings: list[Reading]) -> tuple[list[Line], list[Reading]]:
    """A crop that is cut close around one line leaves the detector no background: read it whole and keep the better reading."""
    height, width = image_HWC.shape[:2]
    if lines and width < ONE_LINE_ASPECT * height:  # too tall to be cut close around a word: what was found is the better guess
        return lines, readings
    whole = Line(np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float64), 1.0)
    reading = read_line(image_HWC, whole.quad)
    if reading.confidence >= max([WHOLE_CROP_MIN_CONFIDENCE, *(r.confidence for r in readings)]):
        return [whole], [reading]
    return lines, readings
