"""What SEG and PROP make of boxes as a coarse policy points: too large, on the teacher's grid, or cutting the thing on one side.

python benchmarks/parts/coarse.py [--items N] [--out FILE.md]

Things of PixelWorld's train and test items, drawn, frames of videos pressed as JPEG. Beside each engine stands the same without what it
does for coarse boxes: SEG's fusion alone, PROP's look into the box as it is.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np

from pixelis.core.geometry import Box, box_from_wire
from pixelis.data.world.items import frames, make_item
from pixelis.data.world.moment import mask_at
from pixelis.data.world.rng import Rng
from pixelis.rollout.teacher.hand import MARGIN, Hand, seen_on
from pixelis.tools.engines.prop_shape import shape_of
from pixelis.tools.engines.region import _in_box, cut_out, whole_box
from pixelis.tools.engines.seg_default import DefaultSeg
from pixelis.tools.engines.seg_features import window_around

FAMILIES = ("size_compare", "relation", "faster", "turn", "end_place")
CUTS = (0.1, 0.2, 0.3, 0.4)
JPEG_QUALITY = 55
SIZES = ((0, 20), (20, 32), (32, 1000))


def things(num_items: int) -> Iterator[tuple[np.ndarray, str, Box, np.ndarray, dict[str, tuple[float, ...]]]]:
    """Picture, true shape, true box, true mask, and a box per kind of pointing."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for family in FAMILIES:
            for index in range(500, 500 + num_items):
                item = make_item(split, index, family=family)
                image = next(frames(item))
                if item.kind == "video":
                    pressed = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])[1]
                    image = np.ascontiguousarray(cv2.imdecode(pressed, cv2.IMREAD_COLOR)[..., ::-1])
                hand = Hand(item, Rng("coarse", split, family, index))
                for seen in seen_on(item, 0):
                    thing = next(t for t in item.truth.objects if t.number == seen.number)
                    mask = mask_at(thing, 0)
                    if seen.kind != "shape" or mask is None:
                        continue
                    boxes = {"teacher": box_from_wire(hand.at(seen.box)["bbox_2d"], width=item.width, height=item.height).as_tuple()}
                    side = max(seen.box.width, seen.box.height)
                    for cut in CUTS:
                        room = [MARGIN * side] * 4
                        room[rng.integers(4)] = -cut * side
                        b = seen.box
                        whole = Box(b.x0 - room[0], b.y0 - room[1], b.x1 + room[2], b.y1 + room[3])
                        boxes[f"cut by {cut}"] = whole.clip(width=item.width, height=item.height).as_tuple()
                    yield image, seen.shape, seen.box, mask.to_array().astype(bool), boxes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=4, help="items of each of five families and two splits")
    parser.add_argument("--out", type=Path, help="a Markdown file")
    given = parser.parse_args()
    seg = DefaultSeg()

    def fusion(image: np.ndarray, box: tuple) -> np.ndarray:
        x0, y0, x1, y1 = whole_box(box, *image.shape[:2])
        window = window_around((x0, y0, x1, y1), image.shape)
        return seg._fuse(image, (x0, y0, x1, y1), seg._look(image, window, None))[0]

    def first_look(image: np.ndarray, box: tuple) -> str:
        whole = whole_box(box, *image.shape[:2])
        return shape_of(_in_box(image, whole, whole, True)[0])[0].value

    engines: dict[str, Callable] = {
        "SEG, the fusion alone": fusion,
        "SEG": lambda image, box: seg.segment(image, box=box, point=None)[0],
        "PROP, the box as it is": first_look,
        "PROP": lambda image, box: shape_of(cut_out(image, None, box, is_fine=True))[0].value,
    }
    scores: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    spent: dict[str, list[float]] = defaultdict(list)
    for image, shape, true_box, mask, boxes in things(given.items):
        side = max(true_box.width, true_box.height)
        size = next(f"{low}-{high}" if high < 1000 else f"{low} and more" for low, high in SIZES if low <= side < high)
        for kind, box in boxes.items():
            if box[2] - box[0] < 4 or box[3] - box[1] < 4:
                continue
            for name, run in engines.items():
                if name.startswith("SEG, ") and kind not in ("teacher", "cut by 0.2"):
                    continue  # a quarter of a second each
                start = time.perf_counter()
                found = run(image, box)
                spent[name].append(time.perf_counter() - start)
                is_mask = isinstance(found, np.ndarray)
                scores[name, kind, size].append(float((found & mask).sum() / (found | mask).sum()) if is_mask else float(found == shape))
    lines = ["| engine | box | px | n | mean IoU, or share of shapes right | IoU of 0.5 |", "|---|---|---|---|---|---|"]
    for (name, kind, size), values in sorted(scores.items()):
        half = f"{np.mean(np.array(values) >= 0.5):.3f}" if name.startswith("SEG") else ""
        lines.append(f"| {name} | {kind} | {size} | {len(values)} | {np.mean(values):.3f} | {half} |")
    lines += ["", "| engine | ms p50 | ms p95 |", "|---|---|---|"]
    lines += [f"| {name} | {np.median(t) * 1e3:.1f} | {np.quantile(t, 0.95) * 1e3:.1f} |" for name, t in spent.items()]
    print("\n".join(lines))
    if given.out:
        head = f"# SEG and PROP from coarse boxes\n\n`python benchmarks/parts/coarse.py --items {given.items} --out {given.out}`\n\n"
        given.out.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
