"""What OCR reads of pictures that the camera moved in, with and without that undone, and what it takes for such a blur that is none.

python benchmarks/parts/motion_blur.py [--media DIR] [--lines N] [--out FILE.md]

Rendered lines (12, 16 and 24 px) pasted into photographs of the media folder; the whole photograph is then averaged along a line of any
direction and length (in hundredths of a pixel, not in whole taps as the tool assumes), and given a camera's noise or a JPEG's loss.

Words and short lines by themselves, in eleven fonts of 10 to 60 px and three contrasts, on plain and graded ground and on photographs, as
they are and blurred, and what stands in PixelWorld's pictures. There a reading is right when nothing else was read.

False alarms: photographs and frames as they are, and with an even (Gaussian) blur, at places drawn by chance.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from ocr import FONTS, VOCABULARY, best_run, loose_form, rendered  # beside this file
from PIL import Image, ImageDraw, ImageFont
from rapidfuzz.distance import Levenshtein

from pixelis.core.geometry import Box
from pixelis.data.world.items import frames, make_item
from pixelis.data.world.shifts import parse_shift
from pixelis.tools.engines.motion_blur import find_motion_blur
from pixelis.tools.engines.ocr_rapid import RapidOcr, Span
from pixelis.tools.ocr import read_box

LENGTHS_PX = (0.0, 4.0, 6.0, 9.0, 13.0)
LOSSES = ("none", "noise of 1", "noise of 2", "JPEG 95")
ROOM_PX = 4
MOST_BLUR_PX = 24
GROUNDS = ("plain ground", "graded ground", "photographs")
WORD_FONTS = (None, *FONTS, "DejaVuSans-ExtraLight.ttf", cv2.FONT_HERSHEY_SIMPLEX, cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX)
WORD_SIZES_PX, CONTRASTS, WORD_ROOMS_PX, WORD_BLURS_PX = (10, 14, 20, 28, 40, 60), (200, 110, 55), (4, 10, 20, 40), (5, 7, 9, 11, 13, 15)
WORDS = "closed open MARKET harbour lilac EXIT billing Hello 4217 minimum illicit north total HHHH small"
"""Many of them full of upright strokes, which leave stripes of their own."""
SHIFTS = ("", "motion:1", "motion:3", "motion:5")
WORLD_FAMILIES = ("read_sign", "compare_signs", "table", "chart", "no_tool", "attribute", "timed_text")
NUM_WORLD_ITEMS = 6

Place = tuple[np.ndarray, tuple[int, int, int, int], str]
"""A picture, the box to read, and what stands there."""


class Reader:
    """The reader, which remembers what it read last: it is asked for the same place with and without."""

    def __init__(self) -> None:
        engine = RapidOcr()
        self._read = lru_cache(4)(lambda data, shape: tuple(engine.read(np.frombuffer(data, np.uint8).reshape(shape))))

    def read(self, image_HWC: np.ndarray, *, image_key: str | None = None) -> list[Span]:
        return list(self._read(image_HWC.tobytes(), image_HWC.shape))

    def both(self, image: np.ndarray, box: tuple[int, int, int, int]) -> tuple[list[Span], list[Span]]:
        """What is read in a box without and with a blur undone."""
        x0, y0, x1, y1 = box
        return self.read(np.ascontiguousarray(image[y0:y1, x0:x1])), list(read_box(self, image, box))


# ---------------------------------------------------------------- pictures


def moved(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """The mean over a hundred positions along the way, as floats."""
    one = np.zeros((2 * MOST_BLUR_PX + 1, 2 * MOST_BLUR_PX + 1), np.float32)
    one[MOST_BLUR_PX, MOST_BLUR_PX] = 1
    total = np.zeros_like(one)
    for at in np.linspace(-0.5, 0.5, 100):
        shift = np.float32([[1, 0, at * length * math.cos(angle)], [0, 1, at * length * math.sin(angle)]])
        total += cv2.warpAffine(one, shift, one.shape, flags=cv2.INTER_LINEAR)
    return cv2.filter2D(image.astype(np.float32), -1, total / 100, borderType=cv2.BORDER_REPLICATE)


def lost(image: np.ndarray, loss: str, rng: np.random.Generator) -> np.ndarray:
    """As a camera would hand it over; uint8."""
    kind, _, amount = loss.rpartition(" ")
    if kind == "noise of":
        image = image + rng.normal(0, float(amount), image.shape)
    whole = np.clip(np.rint(image), 0, 255).astype(np.uint8)
    if kind == "JPEG":
        whole = cv2.imdecode(cv2.imencode(".jpg", whole[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(amount)])[1], cv2.IMREAD_COLOR)[
            ..., ::-1
        ]
    return np.ascontiguousarray(whole)


def photographs(media: Path, side: int = 480) -> Iterator[np.ndarray]:
    """Squares out of the middle of COCO's pictures and of the first frames of clips."""
    for path in (*sorted((media / "coco").rglob("*.jpg")), *sorted((media / "davis").rglob("*00000.jpg"))):
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is not None and min(image.shape[:2]) >= 200:
            height, width = image.shape[:2]
            y, x = max(0, (height - side) // 2), max(0, (width - side) // 2)
            yield np.ascontiguousarray(image[y : y + side, x : x + side, ::-1])


def pasted(photo: np.ndarray, line: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The line somewhere in a photograph, and its box."""
    height, width = line.shape[:2]
    x, y = (int(rng.integers(0, max(1, whole - own))) for whole, own in ((photo.shape[1], width), (photo.shape[0], height)))
    image = photo.copy()
    image[y : y + height, x : x + width] = line[: image.shape[0] - y, : image.shape[1] - x]
    return image, (x, y, min(x + width, image.shape[1]), min(y + height, image.shape[0]))


def grown(box: tuple[int, int, int, int], room: int, image: np.ndarray) -> tuple[int, int, int, int]:
    return Box(*box).grow(room).pixels(width=image.shape[1], height=image.shape[0])


def ground(kind: str, photos: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    """Something to write on, RGB uint8 [480, 640, 3]."""
    if kind == "photographs":
        return cv2.resize(photos[int(rng.integers(len(photos)))], (640, 480))
    image = np.full((480, 640, 3), rng.integers(30, 250, 3), np.float32)
    if kind == "graded ground":
        across, down = np.linspace(-1, 1, 640)[None, :, None], np.linspace(-1, 1, 480)[:, None, None]
        image += across * rng.uniform(-50, 50) + down * rng.uniform(-50, 50)
    return np.clip(image, 0, 255).astype(np.uint8)


def inked(image: np.ndarray, text: str, font: str | int | None, size: int, contrast: int, rng: np.random.Generator) -> Place | None:
    """A picture with a text somewhere, by Pillow or (a number of its fonts) OpenCV; None where it is too long."""
    if isinstance(font, int):
        thick = max(1, round(size / 14))
        (width, height), low = cv2.getTextSize(text, font, size / 30, thick)
        left, top, height = 0, -height, height + low
    else:
        face = ImageFont.load_default(size) if font is None else ImageFont.truetype(font, size)
        left, top, right, bottom = (int(v) for v in face.getbbox(text))
        width, height = right - left, bottom - top
    if width > 570:
        return None
    x, y = int(rng.integers(30, 610 - width)), int(rng.integers(30, 450 - height))
    mean = image[y : y + height, x : x + width].mean(axis=(0, 1))
    ink = tuple(int(v) for v in np.clip(mean + (-contrast if mean.mean() > 127 else contrast), 0, 255))
    if isinstance(font, int):
        image = cv2.putText(image.copy(), text, (x, y - top), font, size / 30, ink, thick, cv2.LINE_AA)
    else:
        picture = Image.fromarray(image)
        ImageDraw.Draw(picture).text((x - left, y - top), text, font=face, fill=ink)
        image = np.array(picture)
    return image, (x, y, x + width, y + height), text


def words(kind: str, photos: list[np.ndarray], count: int, *, is_blurred: bool) -> Iterator[Place]:
    """Words of every size, font and contrast on one kind of ground, with a camera's losses."""
    rng = np.random.default_rng([GROUNDS.index(kind), is_blurred])
    while count:
        one, many = str(rng.choice(WORDS.split())), " ".join(rng.choice(VOCABULARY.split(), rng.integers(2, 5)))
        font, size, contrast = WORD_FONTS[rng.integers(len(WORD_FONTS))], int(rng.choice(WORD_SIZES_PX)), int(rng.choice(CONTRASTS))
        place = inked(ground(kind, photos, rng), one if rng.random() < 0.6 else many, font, size, contrast, rng)
        length, angle, loss, room = rng.choice(WORD_BLURS_PX), rng.uniform(0, math.pi), rng.choice(LOSSES), int(rng.choice(WORD_ROOMS_PX))
        if place is None:
            continue
        image, box, text = place
        image = lost(moved(image, length, angle) if is_blurred else image.astype(np.float32), str(loss), rng)
        yield image, grown(box, room, image), text
        count -= 1


def world(shift: str, num_items: int) -> Iterator[Place]:
    """Signs, plates and labels of PixelWorld's dev pictures, one by one."""
    rng = np.random.default_rng(1)
    for family in WORLD_FAMILIES:
        for index in range(num_items):
            item = make_item("dev", index, family=family, shift=parse_shift(shift) if shift else None)
            image = next(frames(item))
            texts = [thing for thing in item.truth.objects if thing.text and thing.first_frame == 0]
            for thing in texts[:4]:
                box = thing.box.grow(float(rng.integers(2, 25))).pixels(width=item.width, height=item.height)
                if sum(other.box.intersect(Box(*box)).area >= 0.5 * other.box.area for other in texts) == 1:
                    yield image, box, thing.text


# ---------------------------------------------------------------- tables


def reads(spans: list, truth: str) -> tuple[float, float]:
    """Whether some run of the words read is the line strictly, and the similarity of the best run in its loose form."""
    strict, best = best_run([word for span in spans for word in span.text.split()], truth)
    return float(strict), best


def line_rows(reader: Reader, photos: list[np.ndarray], per_size: int) -> Iterator[str]:
    """Lines in photographs, a row for each length of blur and each loss."""
    yield "| blurred over, px | then | lines | found | read without | read with it undone | similarity without | with |"
    yield "|---|---|---:|---:|---:|---:|---:|---:|"
    for length in LENGTHS_PX:
        for loss in LOSSES:
            rng = np.random.default_rng(7)
            found, plain, undoing = [], [], []
            for k, item in enumerate(rendered((12, 16, 24), per_height=per_size, seed=5)):
                image, line = pasted(photos[k % len(photos)], item.image_HWC, rng)
                angle = rng.uniform(0, math.pi)
                image = lost(moved(image, length, angle) if length else image.astype(np.float32), loss, rng)
                box = grown(line, ROOM_PX, image)
                found.append(find_motion_blur(image, box) is not None)
                for scores, spans in zip((plain, undoing), reader.both(image, box), strict=True):
                    scores.append(reads(spans, item.truth[0][1]))
            (strict, near), (strict_with, near_with) = np.mean(plain, axis=0), np.mean(undoing, axis=0)
            row = [f"{length:g}", loss, str(len(found)), f"{np.mean(found):.2f}"]
            row += [f"{value:.2f}" for value in (strict, strict_with, near, near_with)]
            yield f"| {' | '.join(row)} |"


def word_rows(reader: Reader, photos: list[np.ndarray], per_size: int) -> Iterator[str]:
    """Words by themselves; better and worse: how many are nearer to and further from the truth with the blur undone."""
    yield "| words by themselves | number | found | read without | read with it undone | better | worse |"
    yield "|---|---:|---:|---:|---:|---:|---:|"
    many, few, each = 12 * per_size, 5 * per_size, max(1, NUM_WORLD_ITEMS * per_size // 12)
    sources = [(f"on {kind}", words(kind, photos, many, is_blurred=False)) for kind in GROUNDS]
    sources += [(f"on {kind}, blurred over 5 to 15 px", words(kind, photos, few, is_blurred=True)) for kind in GROUNDS]
    sources += [(f"PixelWorld{', ' * bool(shift)}{shift}", world(shift, each)) for shift in SHIFTS]
    for name, places in sources:
        found, near = [], []
        for image, box, truth in places:
            found.append(find_motion_blur(image, box) is not None)
            said = ("".join(loose_form(span.text) for span in spans) for spans in reader.both(image, box))
            near.append([Levenshtein.normalized_similarity(text, loose_form(truth)) for text in said])
        plain, undoing = np.array(near).T
        row = [len(found), sum(found), (plain == 1).sum(), (undoing == 1).sum(), (undoing > plain).sum(), (undoing < plain).sum()]
        yield f"| {name} | {' | '.join(str(value) for value in row)} |"


def alarm_rows(photos: list[np.ndarray]) -> Iterator[str]:
    """Places without a straight blur, and what it takes to look."""
    yield "| no straight blur: | places | found |"
    yield "|---|---:|---:|"
    rng, spent = np.random.default_rng(3), []
    for name, sigma in (
        ("photographs and frames as they are", 0.0),
        ("blurred evenly, sigma 1.5 px", 1.5),
        ("blurred evenly, sigma 3 px", 3.0),
    ):
        hits, count = 0, 0
        for photo in photos:
            image = cv2.GaussianBlur(photo, (0, 0), sigma) if sigma else photo
            for _ in range(2):
                x, y = (int(rng.integers(0, side - 64)) for side in (image.shape[1], image.shape[0]))
                begun = time.perf_counter()
                hits += find_motion_blur(image, (x, y, x + 64, y + 32)) is not None
                spent.append(time.perf_counter() - begun)
                count += 1
        yield f"| {name} | {count} | {hits} |"
    yield ""
    yield f"Looking for a blur takes {np.median(spent) * 1e3:.1f} ms (median), {np.quantile(spent, 0.95) * 1e3:.1f} ms (95th percentile)."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("PIXELIS_MEDIA", Path(__file__).resolve().parents[3] / "shared" / "media")
    parser.add_argument("--media", type=Path, default=Path(default))
    parser.add_argument("--lines", type=int, default=12, help="per size and row; words in proportion")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    reader, photos = Reader(), list(photographs(given.media))
    lines = []
    for rows in (line_rows(reader, photos, given.lines), word_rows(reader, photos, given.lines), alarm_rows(photos)):
        for row in rows:
            print(row, flush=True)
            lines.append(row)
        lines.append("")
    if given.out:
        command = f"python benchmarks/parts/motion_blur.py{'' if given.lines == 12 else f' --lines {given.lines}'} --out {given.out}"
        given.out.write_text(f"# OCR where the camera moved\n\n`{command}`\n\n" + "\n".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main()
