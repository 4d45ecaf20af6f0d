"""TRK figures: every engine on DAVIS clips, on synthetic videos and on PixelWorld's things with a double, from the first frame's true box.

Truth on DAVIS is the tight box of the clip's mask; a mask's foreground (whatever its number of instances) counts as one
object. Synthetic truth is the tight box of the object's visible pixels; none when fewer than 30 % of them show.
HOTA and MOTA are TrackEval's, one track per clip.
Run: `python benchmarks/parts/trk.py [--media DIR] [--engines default botsort] [--only davis|synthetic|doubles]`.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from pixelis.core.errors import NotInstalled
from pixelis.core.geometry import Box
from pixelis.core.media import open_medium
from pixelis.data.world.item import Item
from pixelis.data.world.items import make_item
from pixelis.data.world.items import render as render_item
from pixelis.eval.metrics.tracks import track_scores

MIN_VISIBLE = 0.3
"""Below this share of visible pixels the synthetic object counts as hidden."""


@dataclass(frozen=True)
class Scene:
    """A synthetic video: one target, optional distractors, occluders and camera pan; every random choice from `seed`."""

    name: str
    seed: int
    num_frames: int = 60
    size: tuple[int, int] = (480, 270)
    target: tuple[int, int] = (48, 36)
    speed: float = 3.0
    """Pixels a frame along a Lissajous path (a straight line when `straight`)."""
    shape: str = "ellipse"
    look: str = "textured"
    pan: float = 0.0
    """Camera speed, pixels a frame."""
    growth: float = 0.0
    """Relative size change a frame."""
    occluder: bool = False
    distractor: bool = False
    """An object with the same looks whose path crosses the target's."""
    straight: bool = False
    exits: bool = False
    noise: float = 3.0
    contrast: float = 0.5
    """Of the background; at 1 it holds every colour, the target's too."""


SCENES = [
    Scene("drift24", 1, speed=2.5),
    Scene("small24", 2, target=(22, 20), speed=3),
    Scene("flat24", 3, target=(60, 50), look="flat", shape="box", speed=3),
    Scene("pan24", 4, target=(50, 50), speed=3, pan=4),
    Scene("grow24", 5, target=(40, 30), speed=2, growth=0.012),
    Scene("shrink24", 6, target=(80, 70), speed=2, growth=-0.012),
    Scene("fast8", 7, num_frames=30, target=(30, 26), speed=34),
    Scene("fast5flat", 8, num_frames=24, target=(26, 26), look="flat", speed=45),
    Scene("fast6pan", 9, num_frames=24, target=(36, 30), speed=30, pan=10),
    Scene("fast10big", 10, num_frames=30, target=(76, 60), speed=25),
    Scene("occlude24", 11, num_frames=70, target=(44, 40), speed=5, occluder=True, straight=True),
    Scene("occlude8", 12, num_frames=30, target=(40, 36), speed=12, occluder=True, straight=True),
    Scene("cross24", 13, target=(40, 34), speed=5, distractor=True, straight=True),
    Scene("cross8", 14, num_frames=24, target=(40, 34), speed=14, distractor=True, straight=True),
    Scene("exit24", 15, target=(44, 40), speed=8, straight=True, exits=True),
    Scene("static", 16, target=(50, 40), speed=0),
    Scene("noisy24", 17, target=(48, 40), speed=3, noise=12),
    Scene("busy24", 18, speed=3, contrast=1.0),
    Scene("busy8", 19, num_frames=30, target=(40, 36), speed=25, contrast=1.0),
    Scene("busypan24", 20, target=(60, 44), speed=3, pan=-3, contrast=1.0),
]


@dataclass
class Clip:
    """One video with its true boxes; frames are drawn or decoded when iterated."""

    name: str
    truth: list[tuple[float, float, float, float] | None]
    source: object = field(repr=False)

    def frames(self) -> Iterator[np.ndarray]:
        """RGB uint8 [height, width, 3] frames."""
        if isinstance(self.source, Scene):
            yield from (frame for frame, _ in render(self.source))
        elif isinstance(self.source, Item):
            with open_medium(render_item(self.source), name=self.source.medium_name) as medium:
                yield from medium.frames(0, medium.num_frames)
        else:
            for path in self.source:
                yield cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def _noise_image(rng: np.random.Generator, height: int, width: int, cell: int) -> np.ndarray:
    """Smooth random colours with a grain of `cell` pixels, plus a finer octave; float in [0, 255]."""
    image = np.zeros((height, width, 3), np.float32)
    for octave, weight in ((cell, 0.7), (max(2, cell // 4), 0.3)):
        coarse = rng.uniform(0, 255, (height // octave + 2, width // octave + 2, 3)).astype(np.float32)
        image += weight * np.clip(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC), 0, 255)
    return image


def _looks(scene: Scene, rng: np.random.Generator, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Texture and alpha of the target on a `side` x `side` canvas."""
    base = rng.uniform(0, 255, 3)
    base = np.where(base > 128, 128 + (base - 128) * 0.6 + 50, base * 0.6)
    texture = np.full((side, side, 3), base, np.float32)
    if scene.look == "textured":
        texture = 0.5 * texture + 0.5 * _noise_image(rng, side, side, side // 4)
    alpha = np.zeros((side, side), np.float32)
    if scene.shape == "box":
        alpha[:] = 1
    else:
        cv2.ellipse(alpha, (side // 2, side // 2), (side // 2 - 1, side // 2 - 1), 0, 0, 360, 1.0, -1)
    return texture, alpha


def _paste(frame: np.ndarray, looks: tuple[np.ndarray, np.ndarray], centre: np.ndarray, size: np.ndarray) -> np.ndarray:
    """Draw the looks at a sub-pixel place; returns the alpha it covered."""
    texture, alpha = looks
    side = alpha.shape[0]
    scale = size / side
    matrix = np.array([[scale[0], 0, centre[0] - size[0] / 2], [0, scale[1], centre[1] - size[1] / 2]])
    shrink = max(1, int(1 / scale.max()))
    texture, alpha = (cv2.blur(item, (shrink, shrink)) for item in (texture, alpha))
    dims = (frame.shape[1], frame.shape[0])
    drawn = cv2.warpAffine(texture, matrix, dims, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpAffine(alpha, matrix, dims, flags=cv2.INTER_LINEAR)
    frame += cover[..., None] * (drawn - frame)
    return cover


def _path(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Centres [num_frames, 2] in frame pixels."""
    (width, height), time_N = scene.size, np.arange(scene.num_frames)
    if scene.straight:
        start = np.array([0.15 * width, rng.uniform(0.35, 0.65) * height])
        if scene.exits:
            start[0] = 0.4 * width
        return start + time_N[:, None] * np.array([scene.speed, rng.uniform(-0.1, 0.1) * scene.speed])
    radius = np.array([0.5 * width - scene.target[0], 0.5 * height - scene.target[1]]) * 0.75
    phase, rate = rng.uniform(0, 2 * np.pi), scene.speed / radius.mean() / 1.2
    angle = np.stack([rate * time_N + phase, 1.3 * rate * time_N + 2 * phase], 1)
    return np.array([width, height]) / 2 + radius * np.stack([np.cos(angle[:, 0]), np.sin(angle[:, 1])], 1)


def render(scene: Scene) -> Iterator[tuple[np.ndarray, tuple[float, float, float, float] | None]]:
    """Frames and true boxes of a scene."""
    rng = np.random.default_rng(scene.seed)
    width, height = scene.size
    drift_px = int(abs(scene.pan) * scene.num_frames) + 2
    background = _noise_image(rng, height + 20, width + drift_px, 40)
    background = 128 + scene.contrast * (background - 128)
    looks, centres = _looks(scene, rng, 128), _path(scene, rng)
    mirrored = centres[::-1] if scene.distractor else None
    for index, centre in enumerate(centres):
        offset = scene.pan * index if scene.pan >= 0 else drift_px + scene.pan * index
        matrix = np.array([[1, 0, -offset], [0, 1, 0.0]])
        frame = cv2.warpAffine(background, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
        size = np.array(scene.target) * (1 + scene.growth) ** index
        if mirrored is not None:
            _paste(frame, looks, mirrored[index] + np.array([0, 0.25 * size[1]]), size)
        cover = _paste(frame, looks, centre, size)
        if scene.occluder:
            x0, x1 = int(0.5 * width), int(0.5 * width + 1.6 * scene.target[0])
            frame[:, x0:x1] = np.array([90, 95, 80], np.float32) + 10 * np.sin(np.arange(height) / 5)[:, None, None]
            cover[:, x0:x1] = 0
        frame += rng.normal(0, scene.noise, frame.shape)
        whole = (looks[1] > 0.5).mean() * size[0] * size[1]
        ys, xs = np.nonzero(cover > 0.5)
        box = None
        if len(xs) >= MIN_VISIBLE * whole:
            box = (float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1))
        yield np.clip(frame, 0, 255).astype(np.uint8), box


def davis_clips(media: Path) -> list[Clip]:
    """Every clip under `media/davis`; empty when the folder is absent."""
    clips = []
    for folder in sorted(p for p in (media / "davis").glob("*") if p.is_dir()):
        frames, masks = sorted((folder / "frames").iterdir()), sorted((folder / "masks").iterdir())
        truth = []
        for path in masks:
            mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            ys, xs = np.nonzero(mask.reshape(*mask.shape[:2], -1).any(-1))
            truth.append((float(xs.min()), float(ys.min()), float(xs.max() + 1), float(ys.max() + 1)) if len(xs) else None)
        clips.append(Clip(folder.name, truth, frames))
    return clips


def synthetic_clips() -> list[Clip]:
    """The clips of SCENES."""
    return [Clip(scene.name, [box for _, box in render(scene)], scene) for scene in SCENES]


def double_clips(first: int = 700, count: int = 12) -> list[Clip]:
    """Occlusion items of PixelWorld's train split: two equal things pass behind one wall, and the asked one must not be exchanged."""
    clips = []
    for index in range(first, first + count):
        item = make_item("train", index, family="occlusion")
        track = item.truth.objects[item.mentions[0][1]].track
        clips.append(Clip(f"double{index}", [box and box.as_tuple() for box in track], item))
    return clips


def iou(a: tuple | None, b: tuple | None) -> float:
    """Box IoU in [0, 1]; 1 when both are absent, 0 when one is."""
    if a is None or b is None:
        return float(a is None and b is None)
    shared = max(0.0, min(a[2], b[2]) - max(a[0], b[0])) * max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    return shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared)


def score(truth: list, found: list) -> dict[str, float]:
    """Mean IoU over frames where the object is visible, HOTA (mean over thresholds) and MOTA of one track.

    Args:
        truth: per frame the true box or None when hidden.
        found: per frame the found box or None.
    """
    found_F, truth_F = ([{} if box is None else {1: Box(*map(float, box))} for box in track] for track in (found, truth))
    scores = track_scores([(truth_F, found_F)])
    seen = [iou(a, b) for a, b in zip(truth, found, strict=True) if a is not None]
    return {"iou": float(np.mean(seen)) if seen else float("nan"), "hota": scores.hota, "mota": scores.mota}


def engine(name: str, media: Path):
    """An engine by its short name: default, or botsort (with the detector under `media/../weights`)."""
    if name == "default":
        from pixelis.tools.engines.trk_default import DefaultTrk

        return DefaultTrk()
    if name in ("botsort", "botsort-motion"):
        from pixelis.tools.engines.trk_botsort import BotSortTrk

        return BotSortTrk(media.parent / "weights" / "yolox_nano.onnx" if name == "botsort" else None)
    if name.startswith("sam2:"):
        from pixelis.tools.engines.trk_sam2 import Sam2VideoTrk

        return Sam2VideoTrk(name.removeprefix("sam2:"))
    raise SystemExit(f"unknown engine {name!r}; known: default, botsort, botsort-motion, sam2:CHECKPOINT")


def _timed(clip: Clip, ticks_s: list[float]) -> Iterator[np.ndarray]:
    """The clip's frames; appends the time between handing one over and being asked for the next (decoding excluded)."""
    for frame in clip.frames():
        start = time.perf_counter()
        yield frame
        ticks_s.append(time.perf_counter() - start)


def rows(media: Path, engine_names: list[str], clips: list[Clip] | None = None, *, only_davis: Collection[str] = ()) -> list[dict]:
    """One row per engine and clip, and one per engine and suite (`mean of ...`).

    Args:
        media: folder that holds `davis/`; absent, only drawn clips are run.
        engine_names: what `engine` knows.
        clips: other clips than DAVIS, SCENES and the doubles.
        only_davis: engines that run over DAVIS alone; left out where their packages or weights are missing.
    Returns:
        dicts with engine, clip, frames, iou, hota, mota, fps, p50_ms, p95_ms (per frame, decoding excluded).
    """
    suites = (
        {"given": clips}
        if clips is not None
        else {
            "davis": davis_clips(media),
            "synthetic": synthetic_clips(),
            "doubles": double_clips(),
        }
    )
    table = []
    for name in engine_names:
        try:
            tracker = engine(name, media)
        except NotInstalled:
            if name not in only_davis:
                raise
            print(f"{name} is left out: it is not installed, or its weights are not there", flush=True)
            continue
        for suite, members in suites.items():
            if name in only_davis and suite != "davis":
                continue
            mine, all_s = [], []
            for clip in members:
                ticks_s: list[float] = []
                found = tracker.track(_timed(clip, ticks_s), clip.truth[0])
                mine.append({"engine": name, "clip": clip.name, "frames": len(found)})
                mine[-1] |= score(clip.truth, [item.box for item in found]) | _speed(ticks_s)
                all_s += ticks_s
            if mine:
                means = {key: float(np.mean([row[key] for row in mine])) for key in ("iou", "hota", "mota")}
                overall = {"engine": name, "clip": f"mean of {suite}", "frames": sum(row["frames"] for row in mine)}
                table += [*mine, overall | means | _speed(all_s)]
    return table


def _speed(ticks_s: list[float]) -> dict[str, float]:
    p50, p95 = (float(np.percentile(ticks_s, q) * 1000) for q in (50, 95))
    return {"fps": len(ticks_s) / sum(ticks_s), "p50_ms": p50, "p95_ms": p95}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--media", type=Path, default=Path(os.environ.get("PIXELIS_MEDIA", Path(__file__).parents[3] / "shared/media")))
    parser.add_argument("--engines", nargs="+", default=["default"])
    parser.add_argument("--only", choices=["davis", "synthetic", "doubles"])
    args = parser.parse_args()
    clips = {"davis": lambda: davis_clips(args.media), "synthetic": synthetic_clips, "doubles": double_clips, None: lambda: None}[
        args.only
    ]()
    print(f"{'engine':<16}{'clip':<20}{'frames':>7}{'IoU':>7}{'HOTA':>7}{'MOTA':>7}{'fps':>8}{'p50ms':>7}{'p95ms':>7}")
    for row in rows(args.media, args.engines, clips):
        print(
            f"{row['engine']:<16}{row['clip']:<20}{row['frames']:>7}{row['iou']:>7.3f}{row['hota']:>7.3f}{row['mota']:>7.3f}"
            f"{row['fps']:>8.1f}{row['p50_ms']:>7.1f}{row['p95_ms']:>7.1f}"
        )


if __name__ == "__main__":
    main()
