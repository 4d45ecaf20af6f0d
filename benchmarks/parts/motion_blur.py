"""What OCR reads of pictures that the camera moved in, with and without that undone, and what it takes for such a blur that is none.

python benchmarks/parts/motion_blur.py [--media DIR] [--lines N] [--out FILE.md]

Rendered lines (12, 16 and 24 px) pasted into photographs of the media folder; the whole photograph is then averaged along a line of any
direction and length (in hundredths of a pixel, not in whole taps as the tool assumes), and given a camera's noise or a JPEG's loss. False
alarms: photographs and frames as they are, and with an even (Gaussian) blur, at places drawn by chance.
"""

from __future__ import annotations

import argparse
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from ocr import best_run, rendered  # beside this file

from pixelis.tools.engines.motion_blur import find_motion_blur
from pixelis.tools.engines.ocr_rapid import RapidOcr
from pixelis.tools.ocr import read_box

LENGTHS_PX = (0.0, 4.0, 6.0, 9.0, 13.0)
LOSSES = ("none", "noise of 1", "noise of 2", "JPEG 95")
ROOM_PX = 4


def moved(image: np.ndarray, length: float, angle: float) -> np.ndarray:
    """The mean over a hundred positions along the way, as floats."""
    height, width = image.shape[:2]
    total = np.zeros(image.shape, np.float32)
    for at in np.linspace(-0.5, 0.5, 100):
        shift = np.float32([[1, 0, at * length * math.cos(angle)], [0, 1, at * length * math.sin(angle)]])
        total += cv2.warpAffine(image.astype(np.float32), shift, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return total / 100


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


def written(photo: np.ndarray, line: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, tuple[int, int, int, int]]:
    """The line pasted somewhere, and its box."""
    height, width = line.shape[:2]
    x, y = (int(rng.integers(0, max(1, whole - own))) for whole, own in ((photo.shape[1], width), (photo.shape[0], height)))
    image = photo.copy()
    image[y : y + height, x : x + width] = line[: image.shape[0] - y, : image.shape[1] - x]
    return image, (x, y, min(x + width, image.shape[1]), min(y + height, image.shape[0]))


def reads(spans: list, truth: str) -> tuple[float, float]:
    """Whether some run of the words read is the line strictly, and the similarity of the best run in its loose form."""
    strict, best = best_run([word for span in spans for word in span.text.split()], truth)
    return float(strict), best


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("PIXELIS_MEDIA", Path(__file__).resolve().parents[3] / "shared" / "media")
    parser.add_argument("--media", type=Path, default=Path(default))
    parser.add_argument("--lines", type=int, default=12, help="per size and row")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    engine, photos = RapidOcr(), list(photographs(given.media))
    lines = ["| blurred over, px | then | lines | found | read without | read with it undone | similarity without | with |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|---:|"]
    for length in LENGTHS_PX:
        for loss in LOSSES:
            rng = np.random.default_rng(7)
            found, plain, undoing = [], [], []
            for k, item in enumerate(rendered((12, 16, 24), per_height=given.lines, seed=5)):
                image, (x0, y0, x1, y1) = written(photos[k % len(photos)], item.image_HWC, rng)
                angle = rng.uniform(0, math.pi)
                image = lost(moved(image, length, angle) if length else image.astype(np.float32), loss, rng)
                box = max(0, x0 - ROOM_PX), max(0, y0 - ROOM_PX), min(image.shape[1], x1 + ROOM_PX), min(image.shape[0], y1 + ROOM_PX)
                truth = item.truth[0][1]
                found.append(find_motion_blur(image, box) is not None)
                plain.append(reads(engine.read(np.ascontiguousarray(image[box[1] : box[3], box[0] : box[2]])), truth))
                undoing.append(reads(list(read_box(engine, image, box)), truth))
            (strict, near), (strict_with, near_with) = np.mean(plain, axis=0), np.mean(undoing, axis=0)
            row = [f"{length:g}", loss, str(len(found)), f"{np.mean(found):.2f}"]
            row += [f"{value:.2f}" for value in (strict, strict_with, near, near_with)]
            lines.append(f"| {' | '.join(row)} |")
            print(lines[-1], flush=True)
    lines += ["", "| no straight blur: | places | found |", "|---|---:|---:|"]
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
        lines.append(f"| {name} | {count} | {hits} |")
    lines += [
        "",
        f"Looking for a blur takes {np.median(spent) * 1e3:.1f} ms (median), {np.quantile(spent, 0.95) * 1e3:.1f} ms (95th percentile).",
    ]
    print("\n".join(lines))
    if given.out:
        command = f"python benchmarks/parts/motion_blur.py{'' if given.lines == 12 else f' --lines {given.lines}'} --out {given.out}"
        given.out.write_text(f"# OCR where the camera moved\n\n`{command}`\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
