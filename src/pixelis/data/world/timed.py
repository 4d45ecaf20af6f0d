"""Video families about moments: when something happens, what comes first, and text that is there only for a while."""

from __future__ import annotations

from pixelis.core.geometry import TimeSpan
from pixelis.data.world.layouts import Crowded
from pixelis.data.world.scene import Layer, Look
from pixelis.data.world.studio import SMALL_SHAPES, Draft, Studio
from pixelis.data.world.words import draw_words

_TEMP = frozenset({"TEMP"})
_CONFUSABLE = (
    {"red", "pink"},
    {"red", "orange"},
    {"orange", "yellow"},
    {"blue", "purple"},
    {"blue", "cyan"},
    {"pink", "purple"},
    {"green", "cyan"},
)
FAR_S = 1.0
"""Two events of one video are at least this far apart."""


def event_frame(studio: Studio, low: float = 0.18, high: float = 0.82) -> int:
    last = studio.scene.num_frames - 1
    return studio.rng.integer(max(2, round(last * low)), min(last - 2, round(last * high)))


def apply_event(studio: Studio, kind: str, number: int, frame: int) -> str:
    """Make a resting thing appear, disappear or change colour at a frame; the new colour's name, or nothing."""
    thing, rng, scene = studio.scene.things[number], studio.rng, studio.scene
    place, look = thing.path[0], thing.first_look
    after = ""
    if kind == "appears":
        thing.path = [None] * frame + [place] * (scene.num_frames - frame)
    elif kind == "disappears":
        thing.path = [place] * frame + [None] * (scene.num_frames - frame)
    else:
        taken = {t.first_look.colour for t in scene.things}
        names = [c for c in studio.colours(5, vivid=True) if c not in taken and {c, look.colour} not in _CONFUSABLE]
        if not names:
            raise Crowded
        after = rng.choice(names)
        fresh = studio.shape_look(after, look.shape, 20)
        thing.looks.append((frame, Look((Layer(look.layers[0].cover, fresh.layers[0].rgb),), after, look.shape)))
    thing.rest = False
    studio.happen(kind, number, frame, look.colour, after)
    return after


def _asks_when(kind: str):
    def family(studio: Studio) -> Draft:
        rng, scene = studio.rng, studio.scene
        colours = studio.colours(6, vivid=True)
        size = rng.integer(18, 44)
        pairs = studio.pairs(rng.integer(3, 5), shapes=SMALL_SHAPES, colours=colours)
        numbers = [studio.add_shape(c, s, size + rng.integer(-2, 6)) for c, s in pairs]
        target, frame = numbers[0], event_frame(studio)
        name = studio.name(target)
        box = studio.box(target)
        apply_event(studio, kind, target, frame)
        if rng.chance(0.6):  # something else happens too, clearly at another time
            other = event_frame(studio)
            if abs(scene.time_s(other) - scene.time_s(frame)) >= FAR_S:
                apply_event(studio, rng.choice(("appears", "disappears", "changes")), numbers[1], other)
        when = {
            "appears": (
                f"When does the {name} appear?",
                f"At what time does the {name} show up?",
                f"At which second is the {name} first visible?",
            ),
            "disappears": (
                f"When does the {name} disappear?",
                f"At what time does the {name} vanish?",
                f"At which second is the {name} gone?",
            ),
            "changes": (
                f"When does the {name} change colour?",
                f"At what time does the colour of the {name} change?",
                f"At which second does the {name} turn another colour?",
            ),
        }[kind]
        time_s = scene.time_s(frame)
        answer = f"{time_s:.1f}"
        length = scene.num_frames / scene.fps
        wrong = [f"{t:.1f}" for t in (time_s - 2.4, time_s - 1.2, time_s + 1.2, time_s + 2.4, time_s + 3.6) if 0.1 < t < length]
        frames = (frame - 1, frame)
        where = tuple((f, box) for f in frames)
        return Draft(
            studio.wording(*when),
            answer,
            "time",
            tuple(rng.shuffled(wrong)),
            (studio.temp(kind, box),),
            _TEMP,
            where,
            (TimeSpan(time_s, scene.time_s(frame + 1)),),
            mentions=((name, target),),
            hardness=0.9 - size / 90,
        )

    family.__doc__ = f"At what time one of several things {kind}: seconds, to a tenth."
    return family


when_appears = _asks_when("appears")
when_disappears = _asks_when("disappears")
when_changes = _asks_when("changes")

_DOES = {"appears": "{} appears", "disappears": "{} disappears", "changes": "{} changes colour"}


def order(studio: Studio) -> Draft:
    """Two events of two things, at least a second apart: which comes first or last, or whether one comes before the other."""
    rng, scene = studio.rng, studio.scene
    pairs = studio.pairs(rng.integer(3, 4), shapes=SMALL_SHAPES, colours=studio.colours(6, vivid=True))
    numbers = [studio.add_shape(c, s, rng.integer(20, 40)) for c, s in pairs]
    frames = sorted((event_frame(studio), event_frame(studio)))
    if scene.time_s(frames[1]) - scene.time_s(frames[0]) < FAR_S:
        raise Crowded
    kinds = [rng.choice(tuple(_DOES)) for _ in range(2)]
    boxes, names = [studio.box(n) for n in numbers[:2]], [studio.name(n) for n in numbers[:2]]
    for kind, number, frame in zip(kinds, numbers, frames, strict=False):
        apply_event(studio, kind, number, frame)
    said = [_DOES[kind].format(f"the {name}") for kind, name in zip(kinds, names, strict=True)]
    chain = tuple(studio.temp(kind, box) for kind, box in zip(kinds, boxes, strict=True))
    where = tuple((frame, box) for frame, box in zip(frames, boxes, strict=True))
    spans, mentions = tuple(studio.instant(f) for f in frames), tuple(zip(names, numbers, strict=False))
    a, b = rng.shuffled(said)
    if rng.chance(0.35):
        question = studio.wording(f"Is it true that {a} before {b}?", f"Does this happen in this order: first {a}, then {b}?")
        answer = "yes" if a == said[0] else "no"
        return Draft(
            question, answer, "word", ("no" if answer == "yes" else "yes",), chain, _TEMP, where, spans, mentions=mentions, hardness=0.6
        )
    is_first = rng.chance(0.7)
    won, lost = (0, 1) if is_first else (1, 0)
    word = "first" if is_first else "last"
    question = studio.wording(
        f"Which happens {word}: {a}, or {b}?",
        f"What comes {word} in the video: {a} or {b}?",
        f"Of these two, which happens {word}: {a}; {b}?",
    )
    accept = (names[won], names[won].split()[0])
    return Draft(
        question,
        said[won].removeprefix("the "),
        "word",
        (said[lost].removeprefix("the "),),
        chain,
        _TEMP,
        where,
        spans,
        accept=accept,
        mentions=mentions,
        hardness=0.6,
    )


def timed_text(studio: Studio) -> Draft:
    """A sign that shows its text for a short while, or whose text changes once."""
    rng, scene = studio.rng, studio.scene
    texts = draw_words(rng, studio.split, 4)
    numbers, colours, cap = studio.add_signs(texts[:3], low=8, high=14)
    target, colour = numbers[0], colours[0]
    thing = scene.things[target]
    first = thing.first_look
    height, width = first.layers[0].cover.shape
    box, rgb, name = studio.box(target), first.layers[0].rgb, f"{colour} sign"
    blank = studio.sign_look(colour, "", cap, size=(width, height), rgb=rgb)
    if rng.chance(0.6):
        # Shorter than the gap between the coarse view's frames, and between two of them.
        longest = max(2, int(scene.num_frames / 8 * 0.9)) if scene.num_frames >= 24 else 2
        on = event_frame(studio, 0.15, 0.7)
        off = min(on + rng.integer(2, longest) if longest > 2 else on + 2, scene.num_frames - 1)
        thing.looks = [(0, blank), (on, first), (off, blank)]
        studio.happen("text", target, on, "", texts[0].lower())
        studio.happen("text", target, off, texts[0].lower(), "")
        question = studio.wording(
            f"For a moment the {name} shows a word. Which one?",
            f"What does the {name} say while it shows text?",
            f"Which word flashes on the {name}?",
            f"The {name} is blank most of the time. What does it show?",
        )
        chain = (studio.temp("appears", box), studio.ocr(box, (on + off - 1) // 2))
        answer, wrong, span = texts[0].lower(), texts[1:], (on, off)
    else:
        cover = studio.sign_look(colour, texts[3], cap, rgb=rgb).layers[0].cover
        if cover.shape[1] > width + 10:
            raise Crowded
        change = event_frame(studio, 0.25, 0.75)
        thing.looks = [(0, first), (change, studio.sign_look(colour, texts[3], cap, size=(width, height), rgb=rgb))]
        studio.happen("text", target, change, texts[0].lower(), texts[3].lower())
        is_new = rng.chance(0.6)
        question = (
            studio.wording(f"What does the {name} say after it has changed?", f"The text of the {name} changes. What is the new text?")
            if is_new
            else studio.wording(f"What did the {name} say before it changed?", f"The text of the {name} changes. What was it at first?")
        )
        span = (change, scene.num_frames) if is_new else (0, change)
        frame = (change + scene.num_frames) // 2 if is_new else change // 2
        chain = (studio.temp("changes", box), studio.ocr(box, frame))
        answer = (texts[3] if is_new else texts[0]).lower()
        wrong = [t for t in texts if t.lower() != answer]
    studio.add_distractors(rng.integer(0, 2), 18, 36)
    needs = frozenset({"TEMP", "OCR"}) if chain[0].args.event == "appears" else frozenset({"OCR"})
    spans = (TimeSpan(scene.time_s(span[0]), scene.time_s(span[1])),)
    return Draft(
        question,
        answer,
        "text",
        tuple(t.lower() for t in wrong),
        chain,
        needs,
        ((chain[1].args.frame, box),),
        spans,
        mentions=((name, target),),
        hardness=1 - (cap - 8) / 8,
    )
