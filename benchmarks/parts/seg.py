"""How well and how fast SEG's engines cut out objects: DAVIS frames, COCO objects, drawn shapes; by box and by point.

python benchmarks/parts/seg.py MEDIA_FOLDER [engine ...] [--every N]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

MIN_AREA_PX = 32 * 32
SHAPES = ("circle", "square", "star", "triangle")
GROUNDS = ("texture", "gradient", "photo", "flat")


@dataclass(frozen=True)
class Item:
    set: str
    group: str
    """Clip or image: objects of one group are not independent."""
    image: np.ndarray
    mask: np.ndarray


def davis_items(media: Path, frames: int = 1) -> list[Item]:
    """`frames` evenly spread frames of each clip (1: the first); all objects of a frame count as one mask, as in DAVIS 2016."""
    items = []
    for clip in sorted((media / "davis").glob("*/")):
        paths = sorted((clip / "frames").glob("*.jpg"))
        for i in np.linspace(0, len(paths) - 1, frames).astype(int) if frames > 1 else [0]:
            mask = cv2.imread(str(clip / "masks" / (paths[i].stem + ".png")), cv2.IMREAD_GRAYSCALE) > 0
            if mask.any():
                items.append(Item("davis", clip.name, _read(paths[i]), mask))
    return items


def coco_items(media: Path) -> list[Item]:
    """Every labelled object above 32 x 32 px."""
    items = []
    for path in sorted((media / "coco" / "images").glob("*")):
        label = media / "coco" / "labels_seg" / (path.stem + ".txt")
        if not label.is_file():
            continue
        image = _read(path)
        height, width = image.shape[:2]
        for line in label.read_text().splitlines():
            corners = np.array(line.split()[1:], float).reshape(-1, 2) * [width, height]
            mask = np.zeros((height, width), np.uint8)
            cv2.fillPoly(mask, [np.round(corners).astype(np.int32)], 1)
            if mask.sum() > MIN_AREA_PX:
                items.append(Item("coco", path.stem, image, mask > 0))
    return items


def drawn_items(count: int, seed: int, size: tuple[int, int] = (360, 480)) -> list[Item]:
    """Coloured shapes of 15-80 px on flat, shaded, textured and photographed grounds, with exact truth."""
    rng = np.random.default_rng(seed)
    return [draw_shape(rng, SHAPES[i % 4], GROUNDS[i // 4 % 4], size) for i in range(count)]


def draw_shape(rng: np.random.Generator, shape: str, ground: str, size: tuple[int, int]) -> Item:
    """One shape whose colour differs from what it covers by at least 45 Lab units."""
    height, width = size
    image = _ground(rng, ground, size)
    radius = rng.uniform(8, 40)
    centre = rng.uniform([radius + 4, radius + 4], [width - radius - 4, height - radius - 4])
    mask = np.zeros((height, width), np.uint8)
    if shape == "circle":
        cv2.circle(mask, tuple(int(v) for v in centre), int(radius), 1, -1)
    else:
        num = {"square": 4, "triangle": 3, "star": 10}[shape]
        angle = rng.uniform(0, 2 * np.pi) + np.arange(num) * 2 * np.pi / num
        reach = np.where((np.arange(num) % 2 == 1) & (shape == "star"), 0.45, 1.0) * radius
        corners = centre + np.stack([reach * np.cos(angle), reach * np.sin(angle)], 1)
        cv2.fillPoly(mask, [corners.round().astype(np.int32)], 1)
    under = _lab(image[mask > 0].mean(0))
    colour = rng.uniform(0, 255, 3)
    while np.linalg.norm(_lab(colour) - under) < 45:
        colour = rng.uniform(0, 255, 3)
    fill = np.ones((height, width, 1)) * colour
    if rng.random() < 0.5:
        fill = fill + cv2.GaussianBlur(rng.normal(0, 20, (height, width)).astype(np.float32), (0, 0), 1)[:, :, None]
    image[mask > 0] = np.clip(fill, 0, 255).astype(np.uint8)[mask > 0]
    return Item("drawn", f"{ground}-{shape}-{centre[0]:.1f}-{centre[1]:.1f}", image, mask > 0)


def _ground(rng: np.random.Generator, ground: str, size: tuple[int, int]) -> np.ndarray:
    height, width = size
    if ground == "photo":
        from skimage import data

        photo = (data.astronaut, data.coffee, data.chelsea, data.rocket)[rng.integers(4)]()
        return cv2.resize(photo, (width, height), interpolation=cv2.INTER_AREA)
    image = np.ones((height, width, 1)) * rng.uniform(40, 215, 3)
    if ground == "gradient":
        slope = np.linspace(0, 0.6, width)[None, :, None] + np.linspace(0, 0.4, height)[:, None, None]
        image = image * (1 - slope) + rng.uniform(0, 255, 3) * slope
    elif ground == "texture":
        grain = cv2.GaussianBlur(rng.normal(0, 1, (height, width, 3)).astype(np.float32), (0, 0), rng.uniform(0.5, 3))
        image = image + grain / grain.std() * rng.uniform(6, 25)
    return np.clip(image, 0, 255).astype(np.uint8)


def _lab(rgb: np.ndarray) -> np.ndarray:
    return cv2.cvtColor(np.float32([[rgb]]) / 255, cv2.COLOR_RGB2LAB)[0, 0]


def _read(path: Path) -> np.ndarray:
    return np.ascontiguousarray(cv2.imread(str(path), cv2.IMREAD_COLOR)[:, :, ::-1])


def tight_box(mask_HW: np.ndarray) -> tuple[float, float, float, float]:
    rows, columns = np.flatnonzero(mask_HW.any(1)), np.flatnonzero(mask_HW.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def inner_point(mask_HW: np.ndarray) -> tuple[float, float]:
    """The mask's pixel that is farthest from its outline."""
    depth = cv2.distanceTransform(np.pad(mask_HW.astype(np.uint8), 1), cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(x) + 0.5, float(y) + 0.5


def iou(a: np.ndarray, b: np.ndarray) -> float:
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 0.0


def group_interval(scores: np.ndarray, groups: list[str], rounds: int = 2000) -> tuple[float, float]:
    """95 % percentile bootstrap of the mean that resamples clips or images, because their objects are not independent."""
    names = sorted(set(groups))
    sums = np.array([[scores[[g == n for g in groups]].sum(), groups.count(n)] for n in names])
    picks = np.random.default_rng(0).integers(0, len(names), (rounds, len(names)))
    means = sums[picks, 0].sum(1) / sums[picks, 1].sum(1)
    return float(np.quantile(means, 0.025)), float(np.quantile(means, 0.975))


def engines() -> dict[str, Callable]:
    """Constructors by name; a missing one raises NotInstalled when called."""
    from pixelis.tools.engines.seg_default import ClassicalSeg, DefaultSeg
    from pixelis.tools.engines.seg_mobile_sam import MobileSamSeg
    from pixelis.tools.engines.seg_sam2 import Sam2Seg

    return {"u2netp-fusion": DefaultSeg, "classical": ClassicalSeg, "mobile-sam": MobileSamSeg, "sam2": Sam2Seg}


def rows(media: Path, engine_names: list[str], *, every: int = 1) -> list[dict]:
    """One row per engine, data set and prompt.

    Args:
        media: folder with `davis/` and `coco/`; a missing set is left out.
        engine_names: keys of `engines()`.
        every: take each n-th object, for a quick look.
    Returns:
        dicts with engine, version, set, prompt, n, miou, ci_low, ci_high (bootstrap over clips or images), share_half (IoU >= 0.5),
        half_a and half_b (mIoU of the two halves of the clips or images), score_corr (rank correlation of the engine's confidence with IoU;
        NaN below 3 objects), and latencies in ms: first_p50, first_p95 (a new image), again_p50, again_p95 (second prompt on it).
    Raises:
        NotInstalled: an engine that was asked for is missing.
    """
    return list(each_row(media, engine_names, every=every))


def each_row(media: Path, engine_names: list[str], *, every: int = 1) -> Iterator[dict]:
    """The rows of `rows`, each as soon as it is measured."""
    items = [*davis_items(media), *coco_items(media), *drawn_items(96, seed=0)]
    for name in engine_names:
        engine = engines()[name]()
        engine.segment(items[0].image, box=tight_box(items[0].mask), point=None)  # warm up: not counted
        for kind in ("davis", "coco", "drawn"):
            chosen = [item for item in items if item.set == kind][::every]
            for prompt in ("box", "point") if chosen else ():
                yield {"engine": engine.name, "version": engine.version} | _row(engine, kind, prompt, chosen)


def _row(engine, kind: str, prompt: str, items: list[Item]) -> dict:
    from scipy.stats import spearmanr

    scores, trust, first_ms, again_ms = [], [], [], []
    for i, item in enumerate(items):
        box = tight_box(item.mask) if prompt == "box" else None
        point = inner_point(item.mask) if prompt == "point" else None
        key = f"{kind}-{prompt}-{i}"
        start = time.perf_counter()
        mask, score = engine.segment(item.image, box=box, point=point, image_key=key)
        first_ms.append(1000 * (time.perf_counter() - start))
        if i < 20:  # another prompt, not the same one: what is cached must be the image
            other = None if box is None else (box[0], box[1], max(box[0] + 1, box[2] - 5), max(box[1] + 1, box[3] - 5))
            beside = None if point is None else (point[0], max(0.0, point[1] - 1))
            start = time.perf_counter()
            engine.segment(item.image, box=other, point=beside, image_key=key)
            again_ms.append(1000 * (time.perf_counter() - start))
        scores.append(iou(mask, item.mask))
        trust.append(score)
    found, groups = np.array(scores), [item.group for item in items]
    low, high = group_interval(found, groups)
    in_half = np.array([sorted(set(groups)).index(g) % 2 == 0 for g in groups])
    corr = float(spearmanr(found, trust).statistic) if len(items) > 2 else float("nan")
    return {
        "set": kind,
        "prompt": prompt,
        "n": len(items),
        "miou": float(found.mean()),
        "ci_low": low,
        "ci_high": high,
        "share_half": float((found >= 0.5).mean()),
        "half_a": float(found[in_half].mean()),
        "half_b": float(found[~in_half].mean()) if not in_half.all() else float("nan"),
        "score_corr": corr,
        "first_p50": float(np.quantile(first_ms, 0.5)),
        "first_p95": float(np.quantile(first_ms, 0.95)),
        "again_p50": float(np.quantile(again_ms, 0.5)),
        "again_p95": float(np.quantile(again_ms, 0.95)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("media", type=Path)
    parser.add_argument("engine", nargs="*", default=["u2netp-fusion"], help=", ".join(engines()))
    parser.add_argument("--every", type=int, default=1, help="take each n-th object")
    args = parser.parse_args()
    print("engine          set    prompt    n   mIoU [95 % CI]       >=.5   halves        score~IoU  first ms p50/p95  again ms p50/p95")
    for r in each_row(args.media, args.engine, every=args.every):
        print(
            f"{r['engine']:15s} {r['set']:6s} {r['prompt']:6s} {r['n']:4d}   {r['miou']:.3f} [{r['ci_low']:.3f}, {r['ci_high']:.3f}]  "
            f"{r['share_half']:.3f}  {r['half_a']:.3f} {r['half_b']:.3f}   {r['score_corr']:9.2f}  "
            f"{r['first_p50']:7.0f} {r['first_p95']:7.0f}   {r['again_p50']:7.0f} {r['again_p95']:7.0f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
