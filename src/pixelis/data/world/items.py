"""From a seed to an item and its file: families, the truth, shifts, and rendering.

`make_item(split, index, seed=...)` is a pure function of its arguments: the same item, the same frames, on any machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.geometry import Box
from pixelis.data.world import asides, charts, moving, shifts, stills, timed
from pixelis.data.world.encode import mp4_bytes, png_bytes
from pixelis.data.world.item import LETTERS, Evidence, Item, Truth, WorldObject
from pixelis.data.world.layouts import Crowded
from pixelis.data.world.raster import plate_cover
from pixelis.data.world.rng import Rng
from pixelis.data.world.scene import Layer, Look, Scene, Thing
from pixelis.data.world.shifts import Shift
from pixelis.data.world.studio import IMAGE_SIZES, LARGE_SIZES, LARGE_VIDEO_SIZES, VIDEO_SIZES, Draft, Studio, open_image, open_video
from pixelis.data.world.words import check_split, draw_style

CHOICE_SHARE = 0.4
"""Share of multiple-choice items."""
MAX_CHOICES = 4
_TRIES = 200


@dataclass(frozen=True)
class Family:
    """How a family's items are made: the function that sets up the scene, and for a video its length in seconds."""

    make: Callable[[Studio], Draft]
    length_s: tuple[float, float] | None = None
    sizes: tuple[tuple[int, int], ...] = IMAGE_SIZES + LARGE_SIZES


FAMILIES: dict[str, Family] = {
    "read_sign": Family(stills.read_sign, sizes=LARGE_SIZES),
    "compare_signs": Family(stills.compare_signs, sizes=LARGE_SIZES),
    "attribute": Family(stills.attribute, sizes=LARGE_SIZES),
    "count": Family(stills.count, sizes=LARGE_SIZES),
    "size_compare": Family(stills.size_compare, sizes=LARGE_SIZES),
    "relation": Family(stills.relation, sizes=LARGE_SIZES),
    "table": Family(charts.table, sizes=LARGE_SIZES),
    "chart": Family(charts.chart, sizes=LARGE_SIZES),
    "no_tool": Family(asides.no_tool),
    "false_premise": Family(asides.false_premise),
    "end_place": Family(moving.end_place, (5.0, 9.0), VIDEO_SIZES),
    "turn": Family(moving.turn, (3.0, 6.0), VIDEO_SIZES[:1] + LARGE_VIDEO_SIZES),
    "faster": Family(moving.faster, (2.5, 6.0), VIDEO_SIZES[:1] + LARGE_VIDEO_SIZES),
    "occlusion": Family(moving.occlusion, (4.0, 8.0), VIDEO_SIZES),
    "when_appears": Family(timed.when_appears, (5.0, 10.0), VIDEO_SIZES),
    "when_disappears": Family(timed.when_disappears, (5.0, 10.0), VIDEO_SIZES),
    "when_changes": Family(timed.when_changes, (5.0, 10.0), VIDEO_SIZES),
    "order": Family(timed.order, (4.0, 9.0), VIDEO_SIZES),
    "timed_text": Family(timed.timed_text, (5.0, 9.0), LARGE_VIDEO_SIZES),
    "false_event": Family(asides.false_event, (4.0, 8.0), VIDEO_SIZES),
}
IMAGE_FAMILIES = tuple(name for name, family in FAMILIES.items() if family.length_s is None)
VIDEO_FAMILIES = tuple(name for name, family in FAMILIES.items() if family.length_s is not None)


def family_of(index: int) -> str:
    """The family of item `index` where none is asked for: all in turn."""
    return tuple(FAMILIES)[index % len(FAMILIES)]


def make_item(split: str, index: int, *, seed: int = 0, family: str | None = None, shift: Shift | None = None, variant: int = 0) -> Item:
    """Item `index` of a split.

    Args:
        split: one of `words.SPLITS`.
        index: from 0; with the seed it names the item.
        seed: of the whole set; any seed gives items of the same distribution.
        family: a key of `FAMILIES`; None takes them in turn.
        shift: the same item under a shift; its scene is the same, its truth follows what the shift hides or moves.
        variant: from 1: the same medium and the same thing asked in other words, or with other options.

    Raises:
        DataError: unknown split or family, or a negative index.
    """
    return _build(split, index, seed, family or (family_of(index) if index >= 0 else ""), shift, variant)[0]


def render(item: Item) -> bytes:
    """The item's medium as the bytes of a PNG or MP4 file."""
    if item.kind == "image":
        return png_bytes(next(frames(item)))
    return mp4_bytes(frames(item), fps=item.fps, width=item.width, height=item.height)


def frames(item: Item) -> Iterator[np.ndarray]:
    """The item's frames before encoding, uint8 [height, width, 3], drawn one by one."""
    _, scene = _build(item.split, item.index, item.seed, item.family, item.shift, item.variant)
    drawn = scene.frames()
    if item.shift is None:
        return drawn
    rng = Rng("shift", item.shift.kind, item.split, item.seed, item.index, item.family)
    return shifts.apply(item.shift, drawn, is_video=item.kind == "video", rng=rng)


@lru_cache(maxsize=2)
def _build(split: str, index: int, seed: int, family: str, shift: Shift | None, variant: int = 0) -> tuple[Item, Scene]:
    check_split(split)
    if family not in FAMILIES or index < 0 or variant < 0:
        raise DataError(
            f"no PixelWorld item {split}/{index} of family {family!r}, variant {variant}: index and variant start at 0, "
            f"families are {', '.join(FAMILIES)}"
        )
    for attempt in range(_TRIES):
        material = (split, seed, index, family, attempt)
        try:
            return _try(material, split, index, seed, family, shift, variant)
        except Crowded:
            continue
    raise RuntimeError(f"family {family} found no scene for {split}/{seed}/{index} in {_TRIES} attempts")


def _try(material: tuple, split: str, index: int, seed: int, family: str, shift: Shift | None, variant: int) -> tuple[Item, Scene]:
    rng = Rng("item", *material)
    style = draw_style(rng, split)
    length_s, sizes = FAMILIES[family].length_s, FAMILIES[family].sizes
    if length_s is None:
        studio = open_image(rng, split, style, material, sizes=sizes)
    else:
        studio = open_video(rng, split, style, material, min_s=length_s[0], max_s=length_s[1], sizes=sizes)
    studio.rewording = Rng("variant", variant, *material) if variant else None
    draft = FAMILIES[family].make(studio)
    answer, choices = _choices(studio.rewording or rng, draft)
    scene = studio.scene
    if shift:
        _shift_scene(scene, draft, shift, Rng("shift scene", *material))
    is_video = scene.fps > 0
    name = f"{split}-{seed}-{index:06d}-{family}"
    asked = f"{name}-{variant}" if variant else name
    medium = f"{name}{f'-{shift.kind}{shift.severity}' if shift else ''}.{'mp4' if is_video else 'png'}"
    item = Item(
        id=asked if shift is None else f"{asked}@{shift}", split=split, index=index, seed=seed, family=family, question=draft.question,
        answer=answer, answer_kind=draft.answer_kind, accept=draft.accept if not choices else (), choices=choices,
        medium_name=medium, kind="video" if is_video else "image",
        width=scene.width, height=scene.height, num_frames=scene.num_frames, fps=scene.fps,
        difficulty=_difficulty(draft, scene), needs=draft.needs, chain=draft.chain, evidence=Evidence(boxes=draft.boxes, spans=draft.spans),
        mentions=draft.mentions, absent=draft.absent, style=style, shift=shift, truth=_truth(studio), variant=variant,
    )  # fmt: skip
    return (_with_camera(item, scene) if scene.shake else item), scene


def _choices(rng: Rng, draft: Draft) -> tuple[str, tuple[str, ...]]:
    """The answer and the options: none for an open question, else the answer is a letter."""
    wrong = [w for w in dict.fromkeys(draft.wrong) if w != draft.answer and w not in draft.accept]
    if not rng.chance(CHOICE_SHARE) or not wrong or set(wrong) <= {"yes", "no"}:
        return draft.answer, ()
    options = rng.shuffled([draft.answer, *wrong[: MAX_CHOICES - 1]])
    return LETTERS[options.index(draft.answer)], tuple(options)


def _difficulty(draft: Draft, scene: Scene) -> float:
    clutter = min(len(scene.things), 12) / 12
    hardness = min(max(draft.hardness, 0.0), 1.0)
    return round(min(0.55 * hardness + 0.15 * min(len(draft.chain), 4) / 4 + 0.15 * clutter + 0.15 * bool(draft.needs), 1.0), 3)


def _truth(studio: Studio) -> Truth:
    scene = studio.scene
    objects = []
    for number, thing in enumerate(scene.things):
        track = tuple(scene.box(number, f) for f in range(scene.num_frames)) if scene.fps else ()
        first = next((f for f, box in enumerate(track) if box is not None), 0)
        box = track[first] if track else scene.box(number, 0)
        if box is None:  # wholly hidden by the occlusion shift
            continue
        look = thing.look(first)
        mask = None if thing.kind == "text" else scene.mask(number, first)
        text = look.text or next((later.text for _, later in thing.looks if later.text), "")
        objects.append(
            WorldObject(
                number=number,
                kind=thing.kind,
                colour=look.colour,
                shape=look.shape,
                text=text,
                first_frame=first,
                box=box,
                mask=mask,
                track=track,
            )
        )
    return Truth(objects=tuple(objects), events=tuple(studio.events))


def _shift_scene(scene: Scene, draft: Draft, shift: Shift, rng: Rng) -> None:
    """What a shift does to the scene itself: a shaking camera, or plates in front."""
    if shift.kind == "motion" and scene.fps:
        scene.shake = shifts.shake_path(shift.severity, scene.num_frames, rng)
    if shift.kind != "occlusion":
        return
    places = _to_be_seen(scene, draft)
    left = shifts.max_plates(shift.severity)
    for x, y, width, height in shifts.plate_plan(shift.severity, scene.width, scene.height, rng):
        plate = Box(x, y, x + width, y + height)
        if left and all(place.intersect(plate).area <= share * place.area for place, share in places):
            grey = 60 + (x + y) % 60
            scene.add(Thing("occluder", [(0, Look((Layer(plate_cover(width, height, 3), (grey, grey, grey)),), "grey"))], [(x, y)]))
            left -= 1


def _to_be_seen(scene: Scene, draft: Draft) -> list[tuple[Box, float]]:
    """Boxes that the occlusion shift must leave, with the share of each that it may hide.

    These are the evidence, the things the question names on their whole way, and everything that stands in a region of the chain: a count
    or the highest bar would change with what is hidden there.
    """
    has_text = any(call.op == "OCR" for call in draft.chain)
    share = 0.0 if has_text else draft.hideable
    places = [(box, share) for _, box in draft.boxes]
    asked = {number for _, number in draft.mentions}
    regions = [call.args.box for call in draft.chain]
    for number, thing in enumerate(scene.things):
        for frame in range(0, scene.num_frames, 2):
            box = thing.box_at(frame)
            if box and (number in asked or any(region.intersect(box).area > 0.9 * box.area for region in regions)):
                places.append((box, share))
            if thing.rest:
                break
    return places


def _with_camera(item: Item, scene: Scene) -> Item:
    """Chain and evidence where the shaken camera sees them; the truth's boxes are there already."""

    def move(box: Box, frame: int) -> Box:
        dx, dy = scene.shake[frame]
        return Box(box.x0 + dx, box.y0 + dy, box.x1 + dx, box.y1 + dy).clip(width=scene.width, height=scene.height)

    chain = []
    for call in item.chain:
        args = call.args
        frame = getattr(args, "frame", getattr(args, "first_frame", 0))
        changes = {name: move(getattr(args, name), frame) for name in ("box", "other_box") if getattr(args, name, None) is not None}
        if getattr(args, "track", ()):
            changes["track"] = tuple(p if p.box is None else replace(p, box=move(p.box, p.frame)) for p in args.track)
        chain.append(replace(call, args=replace(args, **changes)))
    boxes = tuple((frame, move(box, frame)) for frame, box in item.evidence.boxes)
    return replace(item, chain=tuple(chain), evidence=replace(item.evidence, boxes=boxes))
