"""Near-duplicate removal on PixelWorld: planted duplicates found, innocent scenes removed, for the paper's rule and the worlds' rule.

Every scene is taken once as it is and once per edit; the edits come later in ingest order, so each must go and every scene must stay.
"lost" counts edits that went for another scene's sake. Scenes cycle through the families. --plain N adds N more scenes without edits
and without embeddings, stage 1 only: how innocent pairs grow with their number.

    python benchmarks/dedup.py --scenes 300 --videos 20 --plain 2000
"""

from __future__ import annotations

import argparse
import io
import itertools
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from PIL import Image
from scipy.stats import binomtest

from pixelis.data.dedup import (
    WORLD,
    DedupReport,
    DedupSettings,
    Encoder,
    Fingerprint,
    MediaRecord,
    deduplicate,
    default_encoder,
    fingerprint,
    report_text,
)
from pixelis.data.world.items import IMAGE_FAMILIES, VIDEO_FAMILIES, frames, make_item

SPLIT = "train"


def jpeg(image_HWC: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(image_HWC).save(file, "jpeg", quality=50)
    return np.asarray(Image.open(file).convert("RGB"))


def halved(image_HWC: np.ndarray) -> np.ndarray:
    return cv2.resize(image_HWC, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def cropped(image_HWC: np.ndarray) -> np.ndarray:
    """3 % of the width and height gone, half on each side."""
    height, width = image_HWC.shape[:2]
    y, x = round(0.015 * height), round(0.015 * width)
    return image_HWC[y : height - y, x : width - x]


def cornered(image_HWC: np.ndarray) -> np.ndarray:
    """3 % of the width and height gone, on the right and below."""
    height, width = image_HWC.shape[:2]
    return image_HWC[: height - round(0.03 * height), : width - round(0.03 * width)]


def brighter(image_HWC: np.ndarray) -> np.ndarray:
    return np.clip(image_HWC.astype(np.int16) + 8, 0, 255).astype(np.uint8)


def noisy(image_HWC: np.ndarray) -> np.ndarray:
    noise_HWC = np.random.default_rng(0).normal(0, 4, image_HWC.shape)
    return np.clip(image_HWC + noise_HWC, 0, 255).round().astype(np.uint8)


EDITS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "exact copy": np.copy,
    "JPEG quality 50": jpeg,
    "resized 0.5x": halved,
    "crop 3 %, centred": cropped,
    "crop 3 %, corner": cornered,
    "brightness +8": brighter,
    "noise, sigma 4": noisy,
}


def scene_frames(index: int, family: str, seed: int) -> tuple[np.ndarray, ...]:
    """A scene's picture, or its frames at 1 fps."""
    item = make_item(SPLIT, index, seed=seed, family=family)
    step = max(round(item.fps), 1) if item.kind == "video" else 1
    return tuple(itertools.islice(frames(item), 0, None, step))


def planted(families: tuple[str, ...], count: int, seed: int, encoder: Encoder | None) -> Iterator[Fingerprint]:
    """Every scene, and behind all scenes its edits; an edit's id is "scene/edit"."""
    for index in range(count):
        family = families[index % len(families)]
        name = f"{family} {index}"
        shown = scene_frames(index, family, seed)
        yield fingerprint(MediaRecord(name, index, shown), encoder)
        for number, (edit, change) in enumerate(EDITS.items(), start=1):
            edited = tuple(change(frame) for frame in shown)
            yield fingerprint(MediaRecord(f"{name}/{edit}", number * count + index, edited), encoder)


def interval(successes: int, trials: int) -> str:
    bounds = binomtest(successes, trials).proportion_ci(method="exact")
    return f"{successes}/{trials} [{bounds.low:.3f}, {bounds.high:.3f}]"


def table(title: str, count: int, reports: dict[str, DedupReport]) -> None:
    print(f"\n## {title}\n\n| | {' | '.join(reports)} |\n|---|{'---|' * len(reports)}")
    # (scene, edit or "", the scene it went for)
    gone = [[(*entry.id.partition("/")[::2], entry.kept_id.split("/")[0]) for entry in report.removed] for report in reports.values()]
    for edit in EDITS:
        found = [sum(which == edit and scene == kept for scene, which, kept in ids) for ids in gone]
        print(f"| found: {edit} | {' | '.join(f'{number}/{count}' for number in found)} |")
    innocent = [interval(sum(not which for _, which, _ in ids), count) for ids in gone]
    lost = [str(sum(bool(which) and scene != kept for scene, which, kept in ids)) for ids in gone]
    print(f"| innocent removed | {' | '.join(innocent)} |\n| lost | {' | '.join(lost)} |")


def compare(title: str, families: tuple[str, ...], count: int, seed: int, encoder: Encoder | None) -> None:
    started = time.perf_counter()
    media = list(planted(families, count, seed, encoder))
    made = time.perf_counter()
    rules = {"paper's rule": DedupSettings(), "worlds' rule": WORLD}
    reports = {name: deduplicate(media, settings) for name, settings in rules.items()}
    table(title, count, reports)
    print(f"\n{len(media)} media drawn, edited and fingerprinted in {made - started:.0f} s, compared in {time.perf_counter() - made:.0f} s")
    for name, report in reports.items():
        print(f"\n{name}\n{report_text(report)}")


def innocents(count: int, seed: int) -> None:
    media = []
    for index in range(count):
        family = IMAGE_FAMILIES[index % len(IMAGE_FAMILIES)]
        media.append(fingerprint(MediaRecord(f"{family} {index}", index, scene_frames(index, family, seed + 1))))
    print(f"\n## {count} scenes without edits, stage 1 only")
    for name, settings in {"paper's rule": DedupSettings(), "worlds' rule": WORLD}.items():
        started = time.perf_counter()
        report = deduplicate(media, settings)
        print(f"\n{name}: innocent removed {interval(len(report.removed), count)}, {time.perf_counter() - started:.0f} s")
        print(report_text(report))
        for entry in report.removed[:10] if settings.phash_recheck else ():
            print(f"  {entry}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scenes", type=int, default=300, help="images, each with all edits")
    parser.add_argument("--videos", type=int, default=0, help="videos at 1 fps, each with all edits")
    parser.add_argument("--plain", type=int, default=0, help="images without edits")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-encoder", action="store_true", help="stage 1 only")
    args = parser.parse_args()
    encoder = None if args.no_encoder else default_encoder()
    if args.scenes:
        compare(f"{args.scenes} images", IMAGE_FAMILIES, args.scenes, args.seed, encoder)
    if args.videos:
        compare(f"{args.videos} videos", VIDEO_FAMILIES, args.videos, args.seed, encoder)
    if args.plain:
        innocents(args.plain, args.seed)


if __name__ == "__main__":
    main()
