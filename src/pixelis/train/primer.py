"""The primer: dialogues that teach a small language model to point and to think in small steps, before it sees a trace.

A dialogue about a view asks where things are, in the very calls that traces will write, and what is where; those without a picture are
in `drills`. Everything follows from views and a seed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.grammar import render_call
from pixelis.core.ops import Call
from pixelis.data.world.glances import COLOUR_NAMES, Sight
from pixelis.data.world.raster import SHAPES
from pixelis.policy.buffer import ChatFormat, ImageRef, TokenBuffer
from pixelis.rollout.pack import PROMPT, TEXT, TOOL, Example
from pixelis.rollout.teacher.hand import quarter
from pixelis.rollout.teacher.search import LOOK_AGAIN, list_boxes
from pixelis.train.drills import without_picture
from pixelis.train.views import View, pointing_box

Dialogue = list[tuple[str, str]]
"""Questions and answers, in turn."""


def pack_dialogue(dialogue: Dialogue, chat: ChatFormat, image: ImageRef | None = None) -> Example:
    """A dialogue as one example; the answers are learnt. The image stands in the first question."""
    buffer, roles = TokenBuffer(image_id=chat.image_id, merge=chat.merge), []
    for number, (question, answer) in enumerate(dialogue):
        if number == 0:
            ids = chat.prompt([image, question] if image else [question])
            buffer.append("prompt", ids, images=[image] if image else [])
            roles += [PROMPT] * len(ids)
        else:
            ids = chat.encode(f"\n<|im_start|>user\n{chat.plain(question)}<|im_end|>\n<|im_start|>assistant\n", [])
            buffer.append("tool", ids)
            roles += [TOOL] * len(ids)
        ids = [*chat.tokenizer.encode(answer, add_special_tokens=False), chat.end_id]
        buffer.append("policy", ids, logp=[0.0] * len(ids))
        roles += [TEXT] * len(ids)
    return Example(
        ids_T=np.array(buffer.ids, np.int32),
        role_T=np.array(roles, np.int8),
        positions_3T=buffer.positions().astype(np.int32),
        images=tuple(buffer.images),
        turns=(),
        trajectory_id="",
    )


# ---------------------------------------------------------------- about a view


LISTS_SHARE = 0.5


def about_view(view: View, rng: np.random.Generator, *, num_questions: int = 8) -> Dialogue:
    """Questions about what lies where: half of the dialogues are lists, the others hold every kind as often as chance has it."""
    if not view.things:
        return [("How many things are there?", "0")]
    if rng.random() < LISTS_SHARE:
        return _lists(view, rng, num_lists=num_questions // 2)
    asks = (_point, _point, _list, _list, _list_in, _list_in, _rest, _rest, _beside, _card, _name, _count, _largest, _light)
    first = [_everything(view, rng)] if rng.random() < 0.4 else []
    return first + [asks[rng.integers(len(asks))](view, rng) for _ in range(num_questions - len(first))]


def _lists(view: View, rng: np.random.Generator, *, num_lists: int) -> Dialogue:
    """Lists of several colours, above all of those that many things have.

    One of its colour is found after minutes. With two or more, a box must take all its sides from the same one, and the next must come
    after it: nearly all that a small model gets wrong about where things are.
    """
    counts = Counter(thing.colour for thing in view.things)
    chosen = sorted(counts, key=lambda colour: rng.random() * 2 - min(counts[colour], 4))[:num_lists]
    return [_listed(*_alike(view, colour)) for colour in chosen]


def _pick(view: View, rng: np.random.Generator) -> Sight:
    return view.things[rng.integers(len(view.things))]


def _call(thing: Sight, view: View, rng: np.random.Generator) -> str:
    """The call that a trace would begin with at this thing."""
    kind, box = thing.name.split()[1], pointing_box(thing, view)
    if kind == "sign":
        return render_call(Call(op="OCR", arguments={"bbox_2d": box}))
    if kind == "panel":
        return render_call(Call(op="SEG", arguments={"bbox_2d": box}))
    what = "colour" if kind == "spot" else "shape"
    return render_call(Call(op="PROP", arguments={"what": what, "bbox_2d": box}))


MAX_LISTED, MAX_ALIKE = 10, 8


def _everything(view: View, rng: np.random.Generator) -> tuple[str, str]:
    """All that is seen, from left to right: the densest lesson in pointing."""
    lines = [f"{thing.name} {json.dumps({'bbox_2d': pointing_box(thing, view)})}" for thing in view.things[:MAX_LISTED]]
    return "What is there?", "\n".join(lines)


def _point(view: View, rng: np.random.Generator) -> tuple[str, str]:
    """A thing by its name; what is there twice is meant from left to right; what is not there is said not to be."""
    thing = _pick(view, rng)
    if rng.random() < 0.12:
        colours = {t.colour for t in view.things}
        absent = [name for k, name in enumerate(COLOUR_NAMES) if k not in colours]
        if absent:
            name = f"{absent[rng.integers(len(absent))]} {thing.name.split()[1]}"
            return f"Point at the {name}.", f"I see no {name}."
    alike = [t for t in view.things if t.colour == thing.colour and t.kind == thing.kind]
    first = min(alike, key=lambda t: t.box[0] + t.box[2])
    return f"Point at the {thing.name}.", f"Is this the {thing.name}?\n{_call(first, view, rng)}"


def _list(view: View, rng: np.random.Generator) -> tuple[str, str]:
    """All things of a colour, from left to right: where candidates are looked for."""
    colour, boxes = _alike(view, _pick(view, rng).colour)
    if rng.random() < 0.7:
        return _listed(colour, boxes)
    return f"Point at every {colour} thing.", "\n".join(json.dumps({"bbox_2d": box}) for box in boxes)


def _listed(colour: str, boxes: list[list[int]]) -> tuple[str, str]:
    return f"List every {colour} thing.", list_boxes(colour, boxes).strip()


def _list_in(view: View, rng: np.random.Generator) -> tuple[str, str]:
    """The things of a colour in one quarter of the picture: which of several is meant by where it is."""
    colour, boxes = _alike(view, _pick(view, rng).colour)
    place = quarter(boxes[rng.integers(len(boxes))])
    return f"List every {colour} thing in the {place}.", list_boxes(colour, [box for box in boxes if quarter(box) == place]).strip()


def _rest(view: View, rng: np.random.Generator) -> tuple[str, str]:
    """What a list has left out: a search that goes on where the first list did not have the thing."""
    colour, boxes = _alike(view, _pick(view, rng).colour)
    is_listed = rng.random(len(boxes)) < 0.6
    listed = [box for box, is_in in zip(boxes, is_listed, strict=True) if is_in] or boxes[:1]
    left = [box for box in boxes if box not in listed]
    answer = f"{LOOK_AGAIN}{list_boxes(colour, left)}" if left else f"I see no other {colour} thing."
    return f"{list_boxes(colour, listed)}What else?", answer.strip()


def _alike(view: View, colour: int) -> tuple[str, list[list[int]]]:
    """A colour's name, and where a call would point at the things that have it, from left to right."""
    return COLOUR_NAMES[colour], [pointing_box(t, view) for t in view.things if t.colour == colour][:MAX_ALIKE]


def _beside(view: View, rng: np.random.Generator) -> tuple[str, str]:
    """The sign next to a thing; where there is none, a thing by its name."""
    height, width = view.pixels_HWC.shape[:2]

    def centre(thing: Sight) -> tuple[float, float]:
        return (thing.box[0] + thing.box[2]) / 2 * width, (thing.box[1] + thing.box[3]) / 2 * height

    names = [t.name for t in view.things]
    signs = [t for t in view.things if t.name.endswith(" sign")]
    things = [t for t in view.things if t.name.split()[1] in SHAPES and names.count(t.name) == 1]
    if not signs or not things:
        return _point(view, rng)
    thing = things[rng.integers(len(things))]
    x, y = centre(thing)
    sign = min(signs, key=lambda s: abs(centre(s)[0] - x) + 3 * abs(centre(s)[1] - y))
    return f"Read the sign next to the {thing.name}.", _call(sign, view, rng)


def _card(view: View, rng: np.random.Generator) -> tuple[str, str]:
    """Reading the largest card; where there is none, a list."""
    height, width = view.pixels_HWC.shape[:2]
    cards = [t for t in view.things if t.name.endswith(" panel")]
    if not cards:
        return _list(view, rng)
    card = max(cards, key=lambda t: (t.box[2] - t.box[0]) * width * (t.box[3] - t.box[1]) * height)
    return "Read the card.", render_call(Call(op="OCR", arguments={"bbox_2d": pointing_box(card, view)}))


def _light(view: View, rng: np.random.Generator) -> tuple[str, str]:
    """How light the background is, which is most of the picture; a middle one is asked nothing about."""
    light = float(np.median(view.pixels_HWC.mean(-1)))
    if 112 <= light <= 144:
        return _count(view, rng)
    return "Is the background dark or light?", f"The background is {'dark' if light < 128 else 'light'}."


def _name(view: View, rng: np.random.Generator) -> tuple[str, str]:
    thing = _pick(view, rng)
    return f"What is at {json.dumps({'bbox_2d': pointing_box(thing, view)})}?", f"A {thing.name}."


def _count(view: View, rng: np.random.Generator) -> tuple[str, str]:
    colour = int(rng.integers(len(COLOUR_NAMES))) if rng.random() < 0.3 else _pick(view, rng).colour
    return f"How many {COLOUR_NAMES[colour]} things are there?", str(sum(t.colour == colour for t in view.things))


def _largest(view: View, rng: np.random.Generator) -> tuple[str, str]:
    height, width = view.pixels_HWC.shape[:2]
    big = max(view.things, key=lambda t: (t.box[2] - t.box[0]) * width * (t.box[3] - t.box[1]) * height)
    return "What is the largest thing?", f"A {big.name}."


STAGES = ((0.08, 2, 1.0), (0.18, 2, 0.1), (0.28, 4, 0.15), (0.4, 7, 0.2), (1.0, 1000, 0.2))
"""(until which share of the run, things a view has at most, share of dialogues without a picture). Copying comes first: without pictures it
is learnt from a million tokens, beside them not from seven. Where one thing is all there is to see, a place is learnt from hundreds of
dialogues; among many, finding the thing hides it for thousands."""


@dataclass(frozen=True)
class Lessons:
    """An endless series of dialogues over some views.

    Args:
        refs: how the model knows each view.
        text_share: of dialogues without a picture, beside views of any kind; None begins with little, as the stages have it.
    """

    views: Sequence[View]
    refs: Sequence[ImageRef]
    chat: ChatFormat
    seed: int
    text_share: float | None = None

    def __post_init__(self) -> None:
        """Raises: DataError: a stage finds no view that is simple enough."""
        if not all(self._simple.values()):
            raise DataError(f"of {len(self.views)} views none has at most {STAGES[0][1]} things: make more views")

    @cached_property
    def _simple(self) -> dict[int, list[int]]:
        return {most: [k for k, view in enumerate(self.views) if len(view.things) <= most] for _, most, _ in STAGES}

    def example(self, number: int, *, share: float = 1.0) -> Example:
        """Example `number`, as it is at a share of the run."""
        _, most, text_share = next(stage for stage in STAGES if share <= stage[0])
        if self.text_share is not None:
            most, text_share = STAGES[-1][1], self.text_share
        rng = np.random.default_rng([self.seed, number])
        if rng.random() < text_share:
            return pack_dialogue(without_picture(rng), self.chat)
        simple = self._simple[most]
        k = simple[int(rng.integers(len(simple)))]
        return pack_dialogue(about_view(self.views[k], rng), self.chat, self.refs[k])
