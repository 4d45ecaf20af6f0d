"""OCR figures: a receipt, word crops, and rendered text with exact truth.

A truth box is *found strictly* when some run of whole words among the spans that cover at least half of it, in reading
order, equals its text after NFKC with white space removed; *loosely* when, with punctuation removed and case folded too, the
run's ANLS (1 - edit distance / longer length) is at least 0.85. CER is the edit distance of the loosely best run over the
truth's length, both in the loose form. White space is scored apart, on rendered text, where the truth has it: a line's
spacing is right when its sequence of words, case and punctuation included, is the truth's. Each image is read whole, through the
tool: what it does besides its engine is in the figures and in the times.
Run: `python benchmarks/parts/ocr.py [--media DIR] [--engines rapidocr] [--parts receipt words rendered]`.
"""

from __future__ import annotations

import argparse
import json
import os
import time
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rapidfuzz.distance import Levenshtein

from pixelis.core.media import open_medium, png_bytes
from pixelis.core.ops import OcrArgs, TextSpan
from pixelis.tools.base import Context
from pixelis.tools.ocr import OcrEngine, OcrTool

PARTS = ("receipt", "words", "rendered")
LOOSE_ANLS = 0.85
VOCABULARY = """
Exit Gate 42 North Bakery OPEN Daily from 7:30 am total $18.95 invoice No. 20417 please keep left The quick brown fox
jumps over a lazy dog Hotel Grand Pacific room 1207 Platform 9 delayed speed limit 60 Warning: wet floor SALE -50%
Coffee & cake 3.20 e-mail: info@example.org Main Street parking only Monday to Friday
"""
FONTS = (
    "DejaVuSans.ttf",
    "DejaVuSans-Bold.ttf",
    "DejaVuSerif.ttf",
    "DejaVuSerif-Italic.ttf",
    "DejaVuSansMono.ttf",
    "DejaVuSansCondensed.ttf",
)


@dataclass(frozen=True)
class Item:
    """An image and the text in it."""

    name: str
    image_HWC: np.ndarray
    truth: list[tuple[tuple[float, float, float, float], str]]
    """Axis-aligned boxes in pixels, and what stands in each."""


def strict_form(text: str) -> str:
    return "".join(unicodedata.normalize("NFKC", text).split())


def loose_form(text: str) -> str:
    return "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())


def best_run(words: list[str], truth: str) -> tuple[bool, float]:
    """Whether some run of words equals the truth strictly, and the best loose similarity in [0, 1] of a run."""
    is_strict, best = False, 0.0
    for i in range(len(words)):
        for j in range(i + 1, len(words) + 1):
            run = "".join(words[i:j])
            is_strict |= strict_form(run) == strict_form(truth)
            best = max(best, Levenshtein.normalized_similarity(loose_form(run), loose_form(truth)))
    return is_strict, best


def score(item: Item, spans: Sequence[TextSpan]) -> list[dict]:
    """One record a truth box."""
    records, seen = [], [(span.box.as_tuple(), span.text) for span in spans]
    for box, text in item.truth:
        words = [word for by, said in seen if _share_covered(box, by) >= 0.5 for word in said.split()]
        is_strict, similarity = best_run(words, text)
        records.append({"strict": is_strict, "loose": similarity >= LOOSE_ANLS, "similarity": similarity, "spaced": words == text.split()})
        records[-1]["iou"] = max((_iou(box, by) for by, _ in seen), default=0.0)
    return records


def _shared(a: tuple, b: tuple) -> float:
    return max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))


def _share_covered(box: tuple, by: tuple) -> float:
    return _shared(box, by) / ((box[2] - box[0]) * (box[3] - box[1]))


def _iou(a: tuple, b: tuple) -> float:
    shared = _shared(a, b)
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def receipts(media: Path) -> Iterator[Item]:
    for path in sorted((media / "ocr").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            record = json.loads(line)
            image = np.array(Image.open(next(path.parent.glob(path.stem + ".jp*g"))).convert("RGB"))
            boxes = [(np.array(a["box"]).reshape(-1, 2), a["text"]) for a in record["annotations"] if loose_form(a["text"])]
            yield Item(path.stem, image, [((*q.min(axis=0), *q.max(axis=0)), text) for q, text in boxes])


def words(media: Path) -> Iterator[Item]:
    for entry in json.loads((media / "ocr" / "words.json").read_text())["data_list"]:
        path = media / "ocr" / "words" / entry["img_path"]
        if path.is_file():  # the list names more crops than the folder holds
            image = np.array(Image.open(path).convert("RGB"))
            yield Item(path.stem, image, [((0, 0, image.shape[1], image.shape[0]), entry["instances"][0]["text"])])


def rendered(heights: tuple[int, ...] = (9, 12, 16, 24, 40), *, per_height: int = 12, seed: int = 0) -> Iterator[Item]:
    """Lines of one to six words in six fonts on plain, graded and noisy grounds; a name tells the font size in pixels."""
    rng = np.random.default_rng(seed)
    for size in heights:
        for n in range(per_height):
            text = " ".join(rng.choice(VOCABULARY.split(), rng.integers(1, 7)))
            font = ImageFont.truetype(FONTS[n % len(FONTS)], size)
            yield Item(f"{size}px", *_render(text, font, rng))


def _render(text: str, font: ImageFont.FreeTypeFont, rng: np.random.Generator) -> tuple[np.ndarray, list]:
    left, top, right, bottom = font.getbbox(text)
    margin = rng.integers(4, 4 + 2 * int(font.size), 4)
    width, height = int(right - left + margin[0] + margin[1]), int(bottom - top + margin[2] + margin[3])
    is_dark = rng.random() < 0.5
    low, high = rng.integers(0, 60, 3), rng.integers(170, 256, 3)
    ground, ink = (low, high) if is_dark else (high, low)
    slope = np.linspace(0, rng.integers(-50, 51), width)[None, :, None]
    noise = rng.normal(0, rng.choice([0.0, 4.0, 10.0]), (height, width, 1))
    image = Image.fromarray((ground + slope + noise).clip(0, 255).astype(np.uint8))
    x, y = int(margin[0]) - left, int(margin[2]) - top
    ImageDraw.Draw(image).text((x, y), text, font=font, fill=tuple(int(v) for v in ink))
    return np.array(image), [((x + left, y + top, x + right, y + bottom), text)]


def engines(names: list[str]) -> dict[str, OcrEngine]:
    """The named engines; unknown names raise KeyError."""
    from pixelis.tools.engines.ocr_rapid import RapidOcr

    known = {"rapidocr": RapidOcr}
    return {name: known[name]() for name in names}


def rows(media: Path, engine_names: list[str], parts: tuple[str, ...] = PARTS) -> list[dict]:
    """One row an engine and part (an engine, part and text size when rendered).

    Returns:
        Dicts with counts beside rates, p50 and p95 latency of one image in ms (the first is read once before, not counted).
    """
    table = []
    for name, engine in engines(engine_names).items():
        items = [("receipt", i) for i in receipts(media)] if "receipt" in parts else []
        items += [("words", i) for i in words(media)] if "words" in parts else []
        items += [(f"rendered {i.name}", i) for i in rendered()] if "rendered" in parts else []
        for part in dict.fromkeys(part for part, _ in items):
            group = [item for kind, item in items if kind == part]
            table.append({"engine": name, "part": part, **_row(OcrTool(engine), group)})
    return table


def _row(tool: OcrTool, items: list[Item]) -> dict:
    records, times_ms = [], []
    for k, item in enumerate([items[0], *items]):  # the first one warms up
        with open_medium(png_bytes(item.image_HWC), name=item.name) as medium:
            medium.frame(0)
            start = time.perf_counter()
            spans = tool(medium, OcrArgs(frame=0), Context()).spans
            spent = time.perf_counter() - start
        if k:
            times_ms.append(spent * 1e3)
            records += score(item, spans)
    row = {"images": len(items), "boxes": len(records)}
    row |= {key: round(float(np.mean([r[key] for r in records])), 3) for key in ("strict", "loose", "spaced", "iou")}
    row["cer"] = round(float(np.mean([1 - r["similarity"] for r in records])), 3)
    row |= {f"p{q}_ms": round(float(np.percentile(times_ms, q))) for q in (50, 95)}
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("PIXELIS_MEDIA", Path(__file__).resolve().parents[3] / "shared" / "media")
    parser.add_argument("--media", type=Path, default=Path(default))
    parser.add_argument("--engines", nargs="+", default=["rapidocr"])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    args = parser.parse_args()
    for row in rows(args.media, args.engines, tuple(args.parts)):
        print(json.dumps(row))


if __name__ == "__main__":
    main()
