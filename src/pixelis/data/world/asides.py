"""Families that test restraint: questions that need no tool, and questions whose premise is false."""

from __future__ import annotations

from pixelis.data.world.raster import SHAPES
from pixelis.data.world.studio import SMALL_SHAPES, Draft, Studio
from pixelis.data.world.timed import apply_event, event_frame
from pixelis.data.world.words import draw_words

NUMBER_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")


def no_tool(studio: Studio) -> Draft:
    """Something large enough to be seen at once, the background's lightness, or a sum that needs no picture."""
    rng = studio.rng
    way = rng.choice(("colour", "shape", "number", "light", "sum"))
    big = min(studio.scene.width, studio.scene.height)
    if way in ("colour", "shape"):
        (colour, shape), *others = studio.pairs(rng.integer(1, 2))
        target = studio.add_shape(colour, shape, rng.integer(big * 32 // 100, big * 42 // 100))
        for pair in others:
            if pair[0] != colour and pair[1] != shape:
                studio.add_shape(*pair, rng.integer(24, 40))
        if way == "colour":
            question = studio.wording(f"What colour is the big {shape}?", f"Which colour does the large {shape} have?")
            return Draft(question, colour, "word", _others(studio, colour), mentions=((f"big {shape}", target),), hardness=0.0)
        question = studio.wording("What shape is the big object?", "Which shape does the large thing in the picture have?")
        return Draft(
            question,
            shape,
            "word",
            tuple(rng.shuffled([s for s in SHAPES if s != shape])),
            mentions=(("big object", target),),
            hardness=0.0,
        )
    if way == "number":
        num = rng.integer(1, 3)
        for pair in studio.pairs(num):
            studio.add_shape(*pair, rng.integer(big * 24 // 100, big * 30 // 100))
        question = studio.wording("How many big shapes are in the picture?", "How many large objects do you see?")
        return Draft(question, str(num), "number", tuple(str(n) for n in range(1, 6) if n != num), hardness=0.0)
    studio.add_distractors(rng.integer(1, 3), 30, 60)
    if way == "light":
        is_dark = sum(studio.scene.behind()) / 3 < 128
        question = studio.wording("Is the background mostly dark or mostly light?", "Is the background of this picture dark or light?")
        return Draft(
            question,
            "dark" if is_dark else "light",
            "word",
            ("light" if is_dark else "dark",),
            accept=("mostly dark",) if is_dark else ("mostly light", "bright"),
            hardness=0.0,
        )
    a, b = rng.integer(1, 9), rng.integer(1, 9)
    said = (str(a), str(b)) if rng.chance(0.6) else (NUMBER_WORDS[a], NUMBER_WORDS[b])
    question = studio.wording(
        f"What is {said[0]} plus {said[1]}?",
        f"Leave the picture aside: how much is {said[0]} plus {said[1]}?",
        f"Add {said[0]} and {said[1]}.",
    )
    return Draft(question, str(a + b), "number", tuple(str(n) for n in (a + b + 1, a + b - 1, a + b + 2)), hardness=0.0)


def _others(studio: Studio, colour: str) -> tuple[str, ...]:
    return tuple(
        c
        for c in studio.rng.shuffled(("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink", "black", "white"))
        if c != colour
    )


def false_premise(studio: Studio) -> Draft:
    """A question about a shape or a sign that is not there: the answer says so."""
    rng = studio.rng
    if rng.chance(0.4):
        numbers, colours, _ = studio.add_signs(draw_words(rng, studio.split, rng.integer(2, 4)))
        absent = rng.choice(
            [c for c in ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white", "black") if c not in colours]
        )
        name = f"{absent} sign"
        question = studio.wording(f"What does the {name} say?", f"Read the {name}.", f"What is written on the {name}?")
        wrong = tuple(studio.scene.things[n].first_look.text for n in numbers)
        studio.add_distractors(rng.integer(0, 3), 30, 50)
    else:
        pairs = studio.pairs(rng.integer(4, 6), shapes=SMALL_SHAPES)
        for pair in pairs:
            studio.add_shape(*pair, rng.integer(30, 56))
        # The absent thing shares its colour with one thing and its shape with another.
        options = [(a[0], b[1]) for a in pairs for b in pairs if (a[0], b[1]) not in pairs]
        colour, shape = rng.choice(options or [(pairs[0][0], "hexagon")])
        name = f"{colour} {shape}"
        other = f"{pairs[0][0]} {pairs[0][1]}"
        way = rng.integer(0, 2)
        question = (
            studio.wording(
                f"Is the {name} to the left or to the right of the {other}?", f"Where is the {name}: left or right of the {other}?"
            ),
            studio.wording(f"What colour is the spot on the {name}?", f"Which colour is the dot inside the {name}?"),
            studio.wording(f"Which is larger, the {name} or the {other}?", f"Is the {name} larger or smaller than the {other}?"),
        )[way]
        wrong = (("left", "right"), ("white", "black", "yellow"), ("larger", "smaller"))[way]
    answer = f"there is no {name}"
    return Draft(question, answer, "none", wrong, absent=(name,), hardness=0.3)


def false_event(studio: Studio) -> Draft:
    """When does a thing do what it never does: the thing is there all the time, another one does it."""
    rng = studio.rng
    pairs = studio.pairs(rng.integer(3, 4), shapes=SMALL_SHAPES, colours=studio.colours(6, vivid=True))
    numbers = [studio.add_shape(c, s, rng.integer(22, 44)) for c, s in pairs]
    name = studio.name(numbers[0])
    box = studio.box(numbers[0])
    kind = rng.choice(("disappears", "changes"))
    apply_event(studio, kind, numbers[1], event_frame(studio))
    does = "disappear" if kind == "disappears" else "change colour"
    question = studio.wording(
        f"When does the {name} {does}?", f"At what time does the {name} {does}?", f"At which second does the {name} {does}?"
    )
    length = studio.scene.num_frames / studio.scene.fps
    wrong = tuple(f"{length * share:.1f}" for share in (0.3, 0.55, 0.8))
    return Draft(
        question,
        "never",
        "none",
        wrong,
        (studio.temp(kind, box),),
        frozenset({"TEMP"}),
        ((0, box), (studio.last_frame, box)),
        accept=(f"it does not {does}", f"does not {does}"),
        mentions=((name, numbers[0]),),
        hardness=0.6,
    )
