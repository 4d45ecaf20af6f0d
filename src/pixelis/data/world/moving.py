"""Video families about movers: where one ends, which way it turns, which is faster, and who is who after an occlusion."""

from __future__ import annotations

import itertools
import math

from pixelis.core.geometry import Box
from pixelis.data.world.colours import draw_rgb
from pixelis.data.world.layouts import Crowded
from pixelis.data.world.raster import plate_cover
from pixelis.data.world.scene import Layer, Look, Thing
from pixelis.data.world.stills import small_shape
from pixelis.data.world.studio import COARSE_FRAMES, SMALL_SHAPES, Draft, Studio

Path = list[tuple[int, int]]
_TRK = frozenset({"TRK"})
_QUARTERS = ("top left", "top right", "bottom left", "bottom right")
_MARGIN = 20


def line(start: tuple[float, float], end: tuple[float, float], num_frames: int) -> Path:
    """Whole-pixel positions at a steady speed, both ends included."""
    last = max(num_frames - 1, 1)
    return [(round(start[0] + (end[0] - start[0]) * i / last), round(start[1] + (end[1] - start[1]) * i / last)) for i in range(num_frames)]


def add_mover(studio: Studio, colour: str, shape: str, size: int, path: Path, rgb: tuple[int, int, int] | None = None) -> int:
    look = studio.shape_look(colour, shape, size, rgb)
    height, width = look.layers[0].cover.shape
    for x, y in path[:: max(1, len(path) // 12)] + path[-1:]:
        studio.placer.take(Box(x, y, x + width, y + height).grow(4))
    return studio.scene.add(Thing("shape", [(0, look)], list(path), rest=False))


def _in_quarter(studio: Studio, quarter: str, size: int) -> tuple[int, int]:
    """A place well inside a quarter of the frame."""
    rng, width, height = studio.rng, studio.scene.width, studio.scene.height
    free_x, free_y = int(width * 0.38) - size - _MARGIN, int(height * 0.38) - size - _MARGIN
    x, y = rng.integer(0, max(free_x, 0)) + _MARGIN, rng.integer(0, max(free_y, 0)) + _MARGIN
    if "right" in quarter:
        x = width - size - x
    if "bottom" in quarter:
        y = height - size - y
    return x, y


def _stay_apart(paths: list[Path], gap_px: float) -> bool:
    return all(
        max(abs(ax - bx), abs(ay - by)) >= gap_px
        for i, a in enumerate(paths)
        for b in paths[i + 1 :]
        for (ax, ay), (bx, by) in zip(a, b, strict=True)
    )


def _wander(studio: Studio, start: str, end: str, size: int) -> Path:
    """From one quarter to another over one or two other places, no faster than a tracker can follow (0.6 of its size a frame).

    Returns:
        the path; empty when the way is too long for the time.
    """
    rng, num_frames = studio.rng, studio.scene.num_frames
    stops = [start, *rng.sample([q for q in _QUARTERS if q not in (start, end)], rng.integer(1, 2)), end]
    places = [_in_quarter(studio, stop, size) for stop in stops]
    reach = [math.sqrt((ax - bx) ** 2 + (ay - by) ** 2) for (ax, ay), (bx, by) in itertools.pairwise(places)]
    if sum(reach) > 0.6 * size * (num_frames - 1):
        return []
    path, walked = [places[0]], 0.0
    for (a, b), length in zip(itertools.pairwise(places), reach, strict=True):
        walked += length
        until = round(walked / sum(reach) * (num_frames - 1))
        path += line(a, b, until - len(path) + 2)[1:]
    return path


def links_wrongly(paths: list[Path], number: int) -> bool:
    """Whether somebody who sees `COARSE_FRAMES` frames, and takes the nearest thing to be the same, loses mover `number`."""
    last = len(paths[0]) - 1
    where = number
    for i in range(1, COARSE_FRAMES):
        before, now = ((i - 1) * last // (COARSE_FRAMES - 1)), i * last // (COARSE_FRAMES - 1)
        x, y = paths[where][before]
        where = min(range(len(paths)), key=lambda k: (paths[k][now][0] - x) ** 2 + (paths[k][now][1] - y) ** 2)
    return where != number


def _watch(studio: Studio, number: int) -> tuple[tuple[int, Box], ...]:
    """Where a mover is first and last seen."""
    frames = (0, studio.last_frame)
    return tuple((f, studio.box(number, f)) for f in frames)


def end_place(studio: Studio) -> Draft:
    """Several movers that look the same; where does the one that starts in a given quarter end?"""
    rng = studio.rng
    num = rng.choice((2, 2, 3))
    size = rng.integer(30, 44)
    colour, shape = studio.pairs(1, shapes=SMALL_SHAPES, colours=studio.colours(3, vivid=True))[0]
    rgb = draw_rgb(rng, colour)
    for _ in range(60):
        starts, ends = rng.sample(_QUARTERS, num), rng.sample(_QUARTERS, num)
        if any(a == b for a, b in zip(starts, ends, strict=True)):
            continue
        paths = [_wander(studio, a, b, size) for a, b in zip(starts, ends, strict=True)]
        if all(paths) and _stay_apart(paths, 1.6 * size) and links_wrongly(paths, 0):
            break
    else:
        raise Crowded
    movers = [add_mover(studio, colour, shape, size, path, rgb) for path in paths]
    studio.add_distractors(rng.integer(1, 3), 20, 40)
    name = f"the {colour} {shape} that starts in the {starts[0]}"
    question = studio.wording(
        f"Where does {name} end up?",
        f"In which corner of the picture is {name} at the end?",
        f"Follow {name}. In which part of the frame does it end?",
        f"In the last frame, where is {name}?",
    )
    wrong = tuple(rng.shuffled([q for q in _QUARTERS if q != ends[0]]))
    return _about_place(studio, question, ends[0], wrong, movers[0], name, 0.4 + 0.15 * num)


def _about_place(studio: Studio, question: str, answer: str, wrong: tuple[str, ...], mover: int, name: str, hardness: float) -> Draft:
    side, other = answer.split()
    accept = (f"{other} {side}", f"{side} {other} corner", answer.replace("top", "upper").replace("bottom", "lower"))
    return Draft(
        question,
        answer,
        "word",
        wrong,
        (studio.trk(mover),),
        _TRK,
        _watch(studio, mover),
        (studio.instant(studio.last_frame),),
        accept=accept,
        mentions=((name, mover),),
        hardness=hardness,
    )


_WAYS = {"right": (1, 0), "left": (-1, 0), "down": (0, 1), "up": (0, -1)}


def turn(studio: Studio) -> Draft:
    """A mover that turns once by a right angle: to its left or right, or which way it goes afterwards."""
    rng, scene = studio.rng, studio.scene
    size = studio.small_size(16, 32)
    (colour, shape), (_, s2) = studio.pairs(2, shapes=SMALL_SHAPES, colours=studio.colours(4, vivid=True))
    first = rng.choice(tuple(_WAYS))
    second = rng.choice(("up", "down") if first in ("left", "right") else ("left", "right"))
    bend = round(scene.num_frames * rng.uniform(0.4, 0.6))
    (ux, uy), (vx, vy) = _WAYS[first], _WAYS[second]
    reach = rng.uniform(0.38, 0.55) * scene.height
    before, after = reach / bend, reach / (scene.num_frames - bend)
    steps = [((min(f, bend)) * before, max(f - bend, 0) * after) for f in range(scene.num_frames)]
    offsets = [(round(ux * a + vx * b), round(uy * a + vy * b)) for a, b in steps]
    low_x, low_y = min(x for x, _ in offsets), min(y for _, y in offsets)
    span_x, span_y = max(x for x, _ in offsets) - low_x + size, max(y for _, y in offsets) - low_y + size
    x = rng.integer(_MARGIN, scene.width - _MARGIN - span_x) - low_x
    y = rng.integer(_MARGIN, scene.height - _MARGIN - span_y) - low_y
    mover = add_mover(studio, colour, shape, size, [(x + dx, y + dy) for dx, dy in offsets])
    studio.add_shape(colour, s2 if s2 != shape else next(s for s in SMALL_SHAPES if s != shape), size)
    studio.add_distractors(rng.integer(1, 3), 20, 40)
    event = studio.happen("turns", mover, bend, first, second)
    name = studio.name(mover)
    if rng.chance(0.5):
        # Clockwise as seen on the screen (y grows downwards) is a right turn.
        answer = "right" if ux * vy - uy * vx > 0 else "left"
        question = studio.wording(
            f"Seen from its own direction of travel, does the {name} turn left or right?",
            f"Does the {name} make a left turn or a right turn?",
            f"Which way does the {name} turn, to its left or to its right?",
        )
        wrong, accept = ("left" if answer == "right" else "right",), (f"{answer} turn", f"to its {answer}", f"to the {answer}")
    else:
        question = studio.wording(
            f"In which direction does the {name} move after it has turned: up, down, left or right?",
            f"Which way on the screen does the {name} go after its turn?",
            f"After turning, does the {name} move up, down, left or right?",
        )
        answer, wrong = second, tuple(w for w in _WAYS if w != second)
        accept = {"up": ("upwards", "upward"), "down": ("downwards", "downward")}.get(second, (f"to the {second}",))
    span = studio.instant(bend)
    return Draft(
        question,
        answer,
        "word",
        wrong,
        (studio.trk(mover), studio.motion(mover, 0)),
        small_shape(studio, size, "TRK"),
        (*_watch(studio, mover), (event.frame, studio.box(mover, bend))),
        (span,),
        accept=accept,
        mentions=((name, mover),),
        hardness=0.6,
    )


def faster(studio: Studio) -> Draft:
    """Two movers in lanes of their own, one clearly faster, each for a part of the time."""
    rng, scene = studio.rng, studio.scene
    size = studio.small_size(16, 32)
    # One colour: which is which takes the shape.
    pairs = studio.pairs(2, shapes=SMALL_SHAPES, colours=studio.colours(1, vivid=True))
    ratio = rng.uniform(1.5, 2.1)
    room = scene.width - size - 2 * _MARGIN
    quick = room / (scene.num_frames - 1) * rng.uniform(0.75, 0.98)
    speeds = [quick, quick / ratio]
    lanes = rng.shuffled([scene.height // 4, scene.height * 3 // 4])
    movers = []
    for (colour, shape), speed, lane in zip(pairs, speeds, lanes, strict=True):
        way = speed * (scene.num_frames - 1)
        x = rng.integer(0, int(room - way)) + _MARGIN
        y = lane - size // 2 + rng.integer(-scene.height // 12, scene.height // 12)
        ends = [(x, y), (x + way, y)]
        if rng.chance(0.5):
            ends.reverse()
        movers.append(add_mover(studio, colour, shape, size, line(*ends, scene.num_frames)))
    studio.add_distractors(rng.integer(1, 4), 20, 40)
    wants_quick = rng.chance(0.6)
    won, lost = (0, 1) if wants_quick else (1, 0)
    names = [studio.name(m) for m in movers]
    a, b = rng.shuffled(names)
    word = "faster" if wants_quick else "slower"
    question = studio.wording(
        f"Which moves {word}, the {a} or the {b}?", f"Is the {a} or the {b} {word}?", f"Of the {a} and the {b}, which one is {word}?"
    )
    chain = (studio.trk(movers[0]), studio.trk(movers[1]), studio.motion(movers[0], 0), studio.motion(movers[1], 1))
    return Draft(
        question,
        names[won],
        "word",
        (names[lost],),
        chain,
        small_shape(studio, size, "TRK"),
        tuple(p for m in movers for p in _watch(studio, m)),
        accept=(pairs[won][1],),
        mentions=tuple(zip(names, movers, strict=True)),
        hardness=1.4 - ratio / 2.1,
    )


def occlusion(studio: Studio) -> Draft:
    """Two movers that look the same go behind a wall from both sides, come out opposite, and turn up or down: where does one end?"""
    rng, scene = studio.rng, studio.scene
    size = rng.integer(22, 32)
    colour, shape = studio.pairs(1, shapes=SMALL_SHAPES, colours=studio.colours(3, vivid=True))[0]
    rgb = draw_rgb(rng, colour)
    wall_w = rng.integer(round(2.2 * size), round(3.2 * size))
    wall_x = (scene.width - wall_w) // 2 + rng.integer(-20, 20)
    lanes = [round(scene.height * v) - size // 2 for v in (rng.uniform(0.34, 0.40), rng.uniform(0.60, 0.66))]
    ends_up = [rng.chance(0.5), rng.chance(0.5)]
    starts = ["top left", "bottom right"] if rng.chance(0.5) else ["bottom left", "top right"]
    lanes = lanes if starts[0] == "top left" else lanes[::-1]
    paths, ends = [], []
    for start, lane, is_up in zip(starts, lanes, ends_up, strict=True):
        to_right = "left" in start
        x0, x1 = (_MARGIN, scene.width - _MARGIN - size) if to_right else (scene.width - _MARGIN - size, _MARGIN)
        out = wall_x + wall_w + size // 2 if to_right else wall_x - size - size // 2
        # The way is walked at one speed: level until clear of the wall, then also up or down.
        share = abs(out - x0) / abs(x1 - x0)
        exit_frame = round(share * (scene.num_frames - 1))
        y1 = _MARGIN if is_up else scene.height - _MARGIN - size
        path = line((x0, lane), (out, lane), exit_frame + 1) + line((out, lane), (x1, y1), scene.num_frames - exit_frame)[1:]
        paths.append(path)
        ends.append(f"{'top' if is_up else 'bottom'} {'right' if to_right else 'left'}")
    target = rng.integer(0, 1)
    if not links_wrongly(paths, target):
        raise Crowded
    movers = [add_mover(studio, colour, shape, size, path, rgb) for path in paths]
    wall = Look((Layer(plate_cover(wall_w, scene.height - 40), (92, 88, 84)),), "grey")
    scene.add(Thing("wall", [(0, wall)], [(wall_x, 20)]))
    studio.placer.take(Box(wall_x, 20, wall_x + wall_w, scene.height - 20))
    studio.add_distractors(rng.integer(0, 2), 20, 36)
    name = f"the {colour} {shape} that starts on the {'left' if 'left' in starts[target] else 'right'}"
    plural = f"{colour} {shape}{'es' if shape == 'cross' else 's'}"
    question = studio.wording(
        f"{name[0].upper()}{name[1:]} passes behind the wall. In which corner is it at the end?",
        f"Follow {name} behind the wall. Where does it end?",
        f"Two {plural} pass behind the wall. Where does the one that starts on the {name.rsplit(' ', 1)[1]} finish?",
    )
    hidden = [f for f in range(scene.num_frames) if scene.box(movers[target], f) is None]
    if not hidden:
        raise Crowded
    wrong = tuple(rng.shuffled([q for q in _QUARTERS if q != ends[target]]))
    return _about_place(studio, question, ends[target], wrong, movers[target], name, 0.85)
