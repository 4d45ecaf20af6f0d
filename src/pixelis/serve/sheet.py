"""What pictures of results are made of: a scaled frame that takes boxes, paths, masks and labels.

Every shape is drawn twice, a dark halo below its colour, and every text stands on a dark ground, so that both show on
any picture. Letters come with Pillow (Latin without accents); what it lacks is spelled with what it has, or as `?`.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixelis.core.geometry import Box
from pixelis.core.media import Medium

HALO, GROUND, INK, SOFT = (11, 13, 18), (13, 16, 22), (255, 255, 255), (150, 158, 172)
MIN_LONG_SIDE_PX = 480
"""Smaller frames are enlarged: no label is legible on 64 pixels."""
TEXT_PX, PAD_PX, GAP_PX = 14, 8, 6
SIMPLER = str.maketrans({"–": "-", "—": "-", "−": "-", "‘": "'", "’": "'", "“": '"', "”": '"', "→": ">", "×": "x", "€": "EUR", "ß": "ss"})


# ---------------------------------------------------------------- the sheet


class Sheet:
    """One frame, scaled into `max_width` x `max_height`, and what is drawn on it; boxes are in the frame's own pixels."""

    def __init__(self, medium: Medium, frame: int, max_width: float, max_height: float) -> None:
        scale = min(max_width / medium.width, max_height / medium.height, max(1.0, MIN_LONG_SIDE_PX / max(medium.width, medium.height)))
        self.width, self.height = max(1, round(medium.width * scale)), max(1, round(medium.height * scale))
        self.scale_x, self.scale_y = self.width / medium.width, self.height / medium.height
        self.image = fit(medium.frame(frame), self.width, self.height)
        self.line_px = max(2, round(max(self.width, self.height) / 400))
        self.taken: list[Box] = []

    def on_sheet(self, box: Box) -> Box:
        x0, y0, x1, y1 = box.x0 * self.scale_x, box.y0 * self.scale_y, box.x1 * self.scale_x, box.y1 * self.scale_y
        return Box(x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)).clip(width=self.width, height=self.height)

    def box(self, box: Box, colour: tuple[int, int, int], *, line_px: int | None = None) -> None:
        line = line_px or self.line_px
        x0, y0, x1, y1 = (round(v) for v in self.on_sheet(box).as_tuple())
        corners = (min(x0, self.width - 1), min(y0, self.height - 1)), (max(x1 - 1, 0), max(y1 - 1, 0))
        cv2.rectangle(self.image, *corners, HALO, line + (2 if line > 1 else 1), cv2.LINE_AA)
        cv2.rectangle(self.image, *corners, colour, line, cv2.LINE_AA)

    def path(self, points: Sequence[tuple[float, float]], colour: tuple[int, int, int]) -> None:
        """A line through positions in the frame's pixels."""
        scaled = np.array([(x * self.scale_x, y * self.scale_y) for x, y in points])
        whole = [np.round(scaled * 16).astype(np.int32).reshape(-1, 1, 2)]  # 4 fractional bits
        for ink, line in ((HALO, self.line_px + 2), (colour, self.line_px)):
            cv2.polylines(self.image, whole, False, ink, line, cv2.LINE_AA, 4)

    def mask(self, mask_HW: np.ndarray, colour: tuple[int, int, int]) -> None:
        """A tint over the mask, and its edge."""
        inside = fit(mask_HW.astype(np.uint8) * 255, self.width, self.height) >= 128
        self.image[inside] = (0.6 * self.image[inside] + 0.4 * np.array(colour)).astype(np.uint8)
        contours, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(self.image, contours, -1, HALO, self.line_px + 2, cv2.LINE_AA)
        cv2.drawContours(self.image, contours, -1, colour, self.line_px, cv2.LINE_AA)

    def label(self, box: Box, text: str, colour: tuple[int, int, int], *, must: bool = True) -> bool:
        """Text beside a box, where nothing else is written; False, and nothing drawn, when there is no such place."""
        pill = text_pill(text, colour, max_width=self.width)
        height, width = pill.shape[:2]
        at = self.on_sheet(box)
        left = min(max(0.0, at.x0), max(0.0, self.width - width))
        places = [
            (left, at.y0 - height - 4),
            (left, at.y1 + 4),
            (at.x1 + 4, at.y0),
            (at.x0 - width - 4, at.y0),
            (left, min(at.y0 + 4, self.height - height)),
        ]
        for x, y in places:
            place = Box(x, y, x + width, y + height)
            is_inside = x >= 0 and y >= 0 and x + width <= self.width and y + height <= self.height
            if is_inside and all(place.intersect(other).is_empty for other in self.taken):
                self._stick(pill, place)
                return True
        if must:
            self._stick(pill, Box(left, max(0.0, at.y0), left + width, max(0.0, at.y0) + height))
        return must

    def _stick(self, pill: np.ndarray, place: Box) -> None:
        paste(self.image, pill, round(place.x0), round(place.y0))
        self.taken.append(place)


def fit(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The image at another size, as an array of its own."""
    if image.shape[1::-1] == (width, height):
        return image.copy()
    shrinks = width < image.shape[1]
    return cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def paste(ground: np.ndarray, image: np.ndarray, x: int, y: int) -> None:
    """Lay an image onto another; what sticks out is cut."""
    x, y = max(x, 0), max(y, 0)
    room = ground[y : y + image.shape[0], x : x + image.shape[1]]
    room[:] = image[: room.shape[0], : room.shape[1]]


# ---------------------------------------------------------------- text


@lru_cache(maxsize=8)
def font(size_px: int) -> ImageFont.FreeTypeFont:
    return ImageFont.load_default(size_px)


@lru_cache(maxsize=4096)
def _has_glyph(letter: str) -> bool:
    glyph, missing = font(TEXT_PX).getmask(letter), font(TEXT_PX).getmask("\U000f0000")
    return letter == " " or (glyph.size, bytes(glyph)) != (missing.size, bytes(missing))


def drawable(text: str) -> str:
    """The text in letters that Pillow's own font has: others lose their accents or become `?`."""
    flat = " ".join(unicodedata.normalize("NFC", text).translate(SIMPLER).split())[:400]
    letters = []
    for letter in flat:
        if not _has_glyph(letter):
            plain = "".join(c for c in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(c))
            letter = plain if plain and all(map(_has_glyph, plain)) else "?"
        letters.append(letter)
    return "".join(letters)


def cut(text: str, width_px: float) -> str:
    """The text, shortened until it is no wider."""
    text = drawable(text)
    if font(TEXT_PX).getlength(text) <= width_px:
        return text
    while len(text) > 1 and font(TEXT_PX).getlength(text + "...") > width_px:
        text = text[:-1]
    return text + "..."


def text_pill(text: str, colour: tuple[int, int, int], *, max_width: int) -> np.ndarray:
    """Text on a dark ground with a bar of its colour at the left."""
    shown = cut(text, max_width - 2 * PAD_PX - 4)
    width, height = int(font(TEXT_PX).getlength(shown)) + 2 * PAD_PX + 4, TEXT_PX + 8
    image = Image.new("RGB", (min(width, max(1, max_width)), height), GROUND)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 3, height), fill=colour)
    draw.text((PAD_PX + 3, height / 2), shown, fill=INK, font=font(TEXT_PX), anchor="lm")
    return np.asarray(image)
