"""Encoder figures: does the nearest other crop show the same kind of thing?

Crops are the boxes of COCO objects whose shorter side has at least 32 px, of classes with at least three such objects in at
least two images. The neighbour must come from another image (`nn1`, `nn1_macro`); with the same image allowed
(`nn1_same_image_allowed`) one cow vouches for the next. The share of the commonest class is printed beside.
Run: `python benchmarks/parts/encoder.py [--media DIR] [--encoders efficientnet-stretch histogram]`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

MIN_SIDE_PX = 32


def crops(media: Path) -> tuple[list[np.ndarray], np.ndarray, np.ndarray]:
    """COCO objects as images, with class and source image of each."""
    images, classes, sources = [], [], []
    for n, path in enumerate(sorted((media / "coco" / "images").glob("*.jpg"))):
        frame = cv2.imread(str(path), cv2.IMREAD_COLOR_RGB)
        height, width = frame.shape[:2]
        for line in (media / "coco" / "labels_seg" / f"{path.stem}.txt").read_text().splitlines():
            kind, *numbers = line.split()
            points = np.array(numbers, float).reshape(-1, 2) * (width, height)
            x0, y0 = np.floor(points.min(axis=0)).astype(int)
            x1, y1 = np.ceil(points.max(axis=0)).astype(int)
            if min(x1 - x0, y1 - y0) >= MIN_SIDE_PX:
                images.append(frame[y0:y1, x0:x1])
                classes.append(int(kind))
                sources.append(n)
    seen = defaultdict(set)
    for kind, source in zip(classes, sources, strict=True):
        seen[kind].add(source)
    count = Counter(classes)
    keep = [k for k, kind in enumerate(classes) if count[kind] >= 3 and len(seen[kind]) >= 2]
    return [images[k] for k in keep], np.array(classes)[keep], np.array(sources)[keep]


def histogram(images: list[np.ndarray]) -> np.ndarray:
    """Joint colour histograms, 8 levels a channel, square-rooted, unit length: the baseline."""
    rows = [cv2.calcHist([image], [0, 1, 2], None, [8, 8, 8], [0, 256] * 3).ravel() ** 0.5 for image in images]
    return np.stack([row / np.linalg.norm(row) for row in rows])


def encoders(names: list[str]) -> dict[str, Callable[[list[np.ndarray]], np.ndarray]]:
    """The named ways to embed; unknown names raise KeyError."""
    from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder

    known = {
        "histogram": lambda: histogram,
        "efficientnet-stretch": lambda: EfficientNetEncoder("stretch").embed,
        "efficientnet-pad": lambda: EfficientNetEncoder("pad").embed,
    }
    return {name: known[name]() for name in names}


def rows(media: Path, encoder_names: list[str]) -> list[dict]:
    """One row an encoder: 1-NN accuracy over crops and averaged over classes, and the time of an image."""
    images, classes_N, sources_N = crops(media)
    table = []
    for name, embed in encoders(encoder_names).items():
        embed(images[:2])
        start = time.perf_counter()
        emb_ND = embed(images)
        ms = (time.perf_counter() - start) * 1e3 / len(images)
        cos_NN = emb_ND @ emb_ND.T
        cos_NN[sources_N[:, None] == sources_N[None]] = -np.inf
        hit_N = classes_N[cos_NN.argmax(axis=1)] == classes_N
        any_NN = emb_ND @ emb_ND.T
        np.fill_diagonal(any_NN, -np.inf)
        nn1_any = (classes_N[any_NN.argmax(axis=1)] == classes_N).mean()
        macro = np.mean([hit_N[classes_N == kind].mean() for kind in np.unique(classes_N)])
        commonest = max(Counter(classes_N.tolist()).values()) / len(classes_N)
        table.append(
            {
                "encoder": name,
                "crops": len(images),
                "classes": len(np.unique(classes_N)),
                "nn1": round(float(hit_N.mean()), 3),
                "nn1_macro": round(float(macro), 3),
                "nn1_same_image_allowed": round(float(nn1_any), 3),
                "commonest_class": round(commonest, 3),
                "ms_per_image": round(ms, 1),
            }
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    default = os.environ.get("PIXELIS_MEDIA", Path(__file__).resolve().parents[3] / "shared" / "media")
    parser.add_argument("--media", type=Path, default=Path(default))
    parser.add_argument("--encoders", nargs="+", default=["histogram", "efficientnet-stretch", "efficientnet-pad"])
    args = parser.parse_args()
    for row in rows(args.media, args.encoders):
        print(row)


if __name__ == "__main__":
    main()
