"""TEMP against composed events with exact truth: real clips with things pasted in, joined shots, drawn scenes.

Run: python benchmarks/parts/temp.py [MEDIA_DIR]
"""

from __future__ import annotations

import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

import cv2
import numpy as np

ENGINES = ("frame-difference",)
PASTED = ("appears", "disappears", "changes", "fade")


@dataclass
class Case:
    """One question with its truth: the best-ranked segment is compared with the nearest of `truth`."""

    group: str
    event: str
    frames: list[np.ndarray]
    times: list[float]
    truth: list[tuple[float, float]]
    box: tuple | None = None


def load_clips(media: Path, limit: int = 96) -> dict[str, tuple[list[np.ndarray], float]]:
    """DAVIS sequences (24 fps) and the bedroom video, RGB, at about 480 lines."""
    clips: dict[str, tuple[list[np.ndarray], float]] = {}
    for folder in sorted((media / "davis").glob("*")):
        files = sorted((folder / "frames").glob("*.jpg"))[:limit]
        clips[folder.name] = [cv2.cvtColor(cv2.imread(str(f)), cv2.COLOR_BGR2RGB) for f in files], 24.0
    path = media / "video" / "bedroom.mp4"
    if path.exists():
        import av

        with av.open(str(path)) as container:
            frames = [f.to_ndarray(format="rgb24") for f, _ in zip(container.decode(video=0), range(limit), strict=False)]
        clips["bedroom"] = [cv2.resize(f, (854, 480), interpolation=cv2.INTER_AREA) for f in frames], 30.0
    return clips


def stickers(media: Path, clips: dict, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray]]:
    """Real objects with masks (DAVIS), plus a drawn sign and a photo crop: things to paste."""
    out = []
    for folder in sorted((media / "davis").glob("*")):
        image = cv2.cvtColor(cv2.imread(str(folder / "frames" / "00010.jpg")), cv2.COLOR_BGR2RGB)
        mask = cv2.imread(str(folder / "masks" / "00010.png"), 0) > 0
        ys, xs = np.nonzero(mask)
        out.append((image[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1], mask[ys.min() : ys.max() + 1, xs.min() : xs.max() + 1]))
    sign = np.full((60, 120, 3), (240, 220, 40), np.uint8)
    cv2.putText(sign, "EXIT", (12, 42), cv2.FONT_HERSHEY_SIMPLEX, 1.2, (20, 20, 20), 3)
    out.append((sign, np.ones((60, 120), bool)))
    photo = next(iter(clips.values()))[0][0][100:260, 100:320]
    out.append((photo, np.ones(photo.shape[:2], bool)))
    return out


def paste(frame: np.ndarray, sticker: tuple[np.ndarray, np.ndarray], x: int, y: int, side: int, alpha: float = 1.0) -> np.ndarray:
    image, mask = sticker
    scale = side / max(image.shape[:2])
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    mask = cv2.resize(mask.astype(np.float32), image.shape[1::-1], interpolation=cv2.INTER_AREA)[..., None] * alpha
    frame = frame.copy()
    h, w = image.shape[:2]
    frame[y : y + h, x : x + w] = (frame[y : y + h, x : x + w] * (1 - mask) + image * mask).round().astype(np.uint8)
    return frame


def sticker_box(sticker, x: int, y: int, side: int) -> tuple[int, int, int, int]:
    scale = side / max(sticker[0].shape[:2])
    return x, y, x + round(sticker[0].shape[1] * scale), y + round(sticker[0].shape[0] * scale)


def _sample(clip: tuple[list, float], rng: np.random.Generator) -> tuple[list[np.ndarray], list[float], float]:
    """A stretch of the clip at one of three rates, starting at 0."""
    frames, fps = clip
    step = int(rng.choice([1, 2, 4]))
    frames = [f.copy() for f in frames[::step]]
    dt = step / fps
    return frames, [i * dt for i in range(len(frames))], dt


def real_cases(media: Path, seed: int, per_kind: int, least: int = 20) -> Iterator[Case]:
    """`per_kind` rounds over the kinds, where a coin says which have a box; then more of each pasted group that has fewer than `least`."""
    rng = np.random.default_rng(seed)
    clips = load_clips(media)
    things = stickers(media, clips, rng)
    names = list(clips)
    seen: Counter[str] = Counter()
    for _ in range(per_kind):
        for kind in (*PASTED, "moves", "cut"):
            clip = _sample(clips[names[int(rng.integers(len(names)))]], rng)
            if kind == "cut":
                yield _joined(clips, names, rng)
            elif kind == "moves":
                yield _held(clip, rng)
            else:
                case = pasted(kind, clip, things, rng)
                seen[case.group] += 1
                yield case
    for kind, has_box in product(PASTED, (False, True)):
        for _ in range(least - seen[group_of(kind, has_box)] if has_box or kind != "fade" else 0):
            clip = _sample(clips[names[int(rng.integers(len(names)))]], rng)
            yield pasted(kind, clip, things, rng, has_box=has_box)


def _held(clip: tuple[list[np.ndarray], list[float], float], rng: np.random.Generator) -> Case:
    """A clip whose first frame is held for a while: then things move."""
    frames, times, dt = clip
    n = len(frames)
    hold = int(rng.integers(n // 4, n // 2))
    frozen = [frames[0]] * hold + frames[: n - hold]
    noisy = [np.clip(f + rng.normal(0, 2, f.shape), 0, 255).astype(np.uint8) for f in frozen]
    return Case("real moves", "moves", noisy, times, [(times[hold], times[-1] + dt)])


def group_of(kind: str, has_box: bool) -> str:
    return "real fade-in box" if kind == "fade" else f"real {kind}" + (" box" if has_box else "")


def pasted(kind: str, clip: tuple[list[np.ndarray], list[float], float], things: list, rng: np.random.Generator, *, has_box=None) -> Case:
    """Something pasted into a clip for a while, or a rectangle recoloured; `has_box` None leaves that to a coin."""
    frames, times, dt = clip
    n = len(frames)
    height, width = frames[0].shape[:2]
    side = int(rng.integers(50, 180))
    thing = things[int(rng.integers(len(things)))]
    x, y = int(rng.integers(0, width - side)), int(rng.integers(0, height - side))
    box = sticker_box(thing, x, y, side)
    grown = (box[0] - 10, box[1] - 10, box[2] + 10, box[3] + 10)
    a = int(rng.integers(n // 6, n // 2))
    b = int(min(n - 2, a + rng.integers(max(2, n // 5), n // 2)))
    tail = bool(rng.integers(3) == 0)
    coin = bool(rng.integers(2))
    has_box = coin if has_box is None else has_box
    end = times[-1] + dt
    group = group_of(kind, has_box)
    if kind == "appears":
        b = n if tail else b
        frames[a:b] = [paste(f, thing, x, y, side) for f in frames[a:b]]
        return Case(group, kind, frames, times, [(times[a], times[b] if b < n else end)], grown if has_box else None)
    if kind == "disappears":
        frames[:a] = [paste(f, thing, x, y, side) for f in frames[:a]]
        frames[b:] = [paste(f, thing, x, y, side) for f in frames[b:]] if not tail else frames[b:]
        return Case(group, kind, frames, times, [(times[a], times[b] if not tail else end)], grown if has_box else None)
    if kind == "changes":
        shift = np.array([[40, 40, 40], [-45, -45, -45], [60, -20, -30], [-30, 40, 20]][int(rng.integers(4))])
        x0, y0, x1, y1 = x, y, x + max(60, side), y + max(60, side)
        for f in frames[a:]:
            f[y0:y1, x0:x1] = np.clip(f[y0:y1, x0:x1] + shift, 0, 255).astype(np.uint8)
        return Case(group, kind, frames, times, [(times[a - 1], times[a])], (x0, y0, x1, y1) if has_box else None)
    length = max(3, round(0.6 / dt))
    for j in range(a, n):
        frames[j] = paste(frames[j], thing, x, y, side, min(1.0, (j - a + 1) / length))
    return Case(group, "appears", frames, times, [(times[a] + length * dt / 2, end)], grown)


def _joined(clips: dict, names: list[str], rng: np.random.Generator) -> Case:
    """Two to four stretches of different clips at one frame rate: the shots are the truth."""
    step = int(rng.choice([1, 2, 4]))
    dt = step / 24
    order = rng.permutation(names)[: int(rng.integers(2, 5))]
    frames: list[np.ndarray] = []
    starts = []
    for name in order:
        source = clips[name][0][::step]
        length = int(rng.integers(max(3, len(source) // 3), len(source)))
        starts.append(len(frames))
        frames += [cv2.resize(f, (854, 480)) for f in source[:length]]
    times = [i * dt for i in range(len(frames))]
    edges = [times[s] for s in starts] + [times[-1] + dt]
    return Case("real cut (all shots)", "cut", frames, times, list(pairwise(edges)))


PALETTE = {
    "red": (215, 40, 40),
    "green": (40, 160, 60),
    "blue": (40, 70, 215),
    "yellow": (235, 215, 40),
    "orange": (240, 140, 30),
    "purple": (140, 50, 170),
    "cyan": (40, 205, 215),
    "pink": (250, 130, 190),
    "brown": (130, 80, 40),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
    "grey": (128, 128, 128),
}


def textured(rng: np.random.Generator, h: int, w: int) -> np.ndarray:
    """A background: gradient, blurred blobs of several sizes, grain, tinted."""
    base = np.zeros((h, w), np.float32)
    for size, weight in ((4, 18), (16, 14), (64, 20)):
        rough = rng.normal(0, 1, (max(2, h // size), max(2, w // size))).astype(np.float32)
        base += weight * cv2.resize(rough, (w, h), interpolation=cv2.INTER_CUBIC) * rng.uniform(0, 1)
    tilt = np.linspace(-1, 1, w)[None] * rng.uniform(-25, 25) + np.linspace(-1, 1, h)[:, None] * rng.uniform(-25, 25)
    tint = rng.uniform(90, 180) + rng.uniform(-25, 25, 3)
    return np.clip(base[..., None] + tilt[..., None] + tint, 0, 255)


def shape(frame: np.ndarray, kind: str, x: float, y: float, side: float, colour) -> None:
    """Draw in place, with a sub-pixel centre."""
    r = side / 2
    centre = (round(x * 16), round(y * 16))
    if kind == "circle":
        cv2.circle(frame, centre, round(r * 16), colour, -1, cv2.LINE_AA, 4)
        return
    corners = {"square": 4, "triangle": 3}[kind]
    turn = np.pi / 4 if kind == "square" else -np.pi / 2
    angles = turn + np.arange(corners) * 2 * np.pi / corners
    points = np.stack(
        [x + r * np.sqrt(2 if kind == "square" else 1) * np.cos(angles), y + r * np.sqrt(2 if kind == "square" else 1) * np.sin(angles)], -1
    )
    cv2.fillConvexPoly(frame, (points * 16).round().astype(np.int32), colour, cv2.LINE_AA, 4)


def drawn_cases(seed: int, per_kind: int) -> Iterator[Case]:
    rng = np.random.default_rng(seed)
    for _ in range(per_kind):
        for kind in ("appears", "disappears", "changes", "moves"):
            yield _drawn(kind, rng)


def _drawn(kind: str, rng: np.random.Generator) -> Case:
    w, h = [(640, 360), (640, 480), (960, 540), (1280, 720)][int(rng.integers(4))]
    fps = float(rng.choice([4, 5, 8, 10]))
    n = int(rng.uniform(2.5, 8) * fps)
    back = textured(rng, h, w)
    side = float(rng.uniform(20, 60))
    names = list(PALETTE)
    colour_name, second = rng.choice(names[:9], 2, replace=False)
    form = str(rng.choice(["circle", "square", "triangle"]))
    x, y = rng.uniform(80, w - 80), rng.uniform(80, h - 80)
    velocity = rng.uniform(60, 160) * np.array([np.cos(t := rng.uniform(0, 6.28)), np.sin(t)])
    movers = [
        (rng.uniform(0, w), rng.uniform(0, h), rng.uniform(-120, 120, 2), float(rng.uniform(20, 60)), str(rng.choice(names[9:])))
        for _ in range(int(rng.integers(0, 3)))
    ]
    a = int(rng.integers(max(2, n // 5), n // 2))
    b = int(rng.integers(a + max(2, n // 5), n + 1))
    mode = int(rng.integers(3))
    stop = a + 1  # the last moving frame: b, or when the border is reached
    while stop < min(b, n - 1) and not _outside(x, y, velocity, (stop - a + 2) / fps, w, h):
        stop += 1
    frames = []
    noise = float(rng.choice([0, 2, 5]))
    for i in range(n):
        frame = back.copy().astype(np.uint8)
        for mx, my, mv, ms, mc in movers:
            shape(frame, "circle", *_bounce(mx, my, mv, i / fps, w, h), ms, PALETTE[mc])
        on = {"appears": a <= i < b, "disappears": not a <= i < b}.get(kind, True)
        tint = PALETTE[second] if kind == "changes" and i >= a else PALETTE[colour_name]
        sx, sy = x, y
        if kind == "moves":
            gone = (min(i, stop) - a + 1) / fps if i >= a else 0.0
            sx, sy = np.array([x, y]) + velocity * gone
        if on:
            shape(frame, form, sx, sy, side, tint)
        frames.append(np.clip(frame + rng.normal(0, noise, frame.shape), 0, 255).astype(np.uint8) if noise else frame)
    times = [i / fps for i in range(n)]
    span = (times[a], times[b] if b < n else n / fps)
    if kind == "changes":
        span = (times[a - 1], times[a])
    if kind == "moves":
        span = (times[a - 1], n / fps if stop >= n - 1 else times[stop])
    event = f"a {colour_name} {form} {kind}" if mode == 1 or (kind == "moves" and movers) else kind
    r = side
    box = (x - r, y - r, x + r, y + r) if mode == 2 and kind != "moves" else None
    return Case(f"drawn {kind}" + (" box" if box else ""), event, frames, times, [span], box)


def _bounce(x, y, velocity, after, w, h) -> tuple[float, float]:
    """Where a thing is that bounces off the borders."""
    px, py = abs(x + velocity[0] * after) % (2 * w), abs(y + velocity[1] * after) % (2 * h)
    return min(px, 2 * w - px), min(py, 2 * h - py)


def _outside(x, y, velocity, after, w, h) -> bool:
    px, py = np.array([x, y]) + velocity * after
    return not (5 < px < w - 5 and 5 < py < h - 5)


def tiou(a: tuple[float, float], b: tuple[float, float]) -> float:
    shared = max(0.0, min(a[1], b[1]) - max(a[0], b[0]))
    union = max(a[1] - a[0], 0) + max(b[1] - b[0], 0) - shared
    return shared / union if union > 0 else 0.0


def score(case: Case, segments) -> float:
    """tIoU of the best-ranked segment; for shots the mean over all true shots of the best match."""
    found = [(s.start_s, s.end_s) for s in segments]
    if not found:
        return 0.0
    if case.event == "cut":
        return float(np.mean([max(tiou(t, f) for f in found) for t in case.truth]))
    return max(tiou(t, found[0]) for t in case.truth)


def rows(media: Path, engine_names: list[str], *, seed: int = 1, per_kind: int = 12, least: int = 20, verbose: bool = False) -> list[dict]:
    """One row per engine and group: n, mean tIoU of the first answer, share at 0.5 and 0.8, latency without decoding."""
    from pixelis.tools.engines.temp_default import DefaultTemp

    engines = {DefaultTemp.name: DefaultTemp}
    out = []
    for engine_name in engine_names:
        engine = engines[engine_name]()
        cases = list(drawn_cases(seed, per_kind))
        scores: dict[str, list[float]] = {}
        spent: dict[str, list[float]] = {}

        def feed(source, scores=scores, spent=spent, engine=engine):
            for case in source:
                start = time.perf_counter()
                segments = engine.locate(iter(case.frames), case.times, case.event, box=case.box)
                spent.setdefault(case.group, []).append(time.perf_counter() - start)
                value = score(case, segments)
                scores.setdefault(case.group, []).append(value)
                if verbose and value < 0.8:
                    got = [(round(s.start_s, 2), round(s.end_s, 2), round(s.score, 2)) for s in segments][:4]
                    about = f"{case.group!r} {case.event!r} n={len(case.frames)} dt={case.times[1]:.3f}"
                    print(f"  {value:.2f} {about} truth={np.round(case.truth, 2).tolist()} got={got}")

        feed(cases)
        if (media / "davis").is_dir():
            feed(real_cases(media, seed, per_kind, least))
        for group in sorted(scores):
            values, times_s = np.array(scores[group]), np.array(spent[group])
            out.append(
                {
                    "engine": engine_name,
                    "part": "temp",
                    "group": group,
                    "n": len(values),
                    "tiou": float(values.mean()),
                    "at_0.5": float((values >= 0.5).mean()),
                    "at_0.8": float((values >= 0.8).mean()),
                    "p50_s": float(np.median(times_s)),
                    "p95_s": float(np.quantile(times_s, 0.95)),
                }
            )
    return out


def main() -> None:
    default = os.environ.get("PIXELIS_MEDIA") or Path(__file__).resolve().parents[2].parent / "shared" / "media"
    arguments = [a for a in sys.argv[1:] if not a.startswith("-")]
    seed = int(os.environ.get("SEED", "1"))
    per_kind = int(os.environ.get("PER_KIND", "12"))
    print(f"{'group':26} {'n':>4} {'tIoU':>6} {'@0.5':>6} {'@0.8':>6} {'p50 s':>7} {'p95 s':>7}")
    for row in rows(Path(arguments[0] if arguments else default), list(ENGINES), seed=seed, per_kind=per_kind, verbose="-v" in sys.argv):
        shares = f"{row['group']:26} {row['n']:4d} {row['tiou']:6.3f} {row['at_0.5']:6.2f} {row['at_0.8']:6.2f}"
        print(f"{shares} {row['p50_s']:7.2f} {row['p95_s']:7.2f}")


if __name__ == "__main__":
    main()
