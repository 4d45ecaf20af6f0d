"""Image families about signs and shapes: read, compare, attribute, count, size, relation."""

from __future__ import annotations

import itertools

from pixelis.core.geometry import Box
from pixelis.data.world.layouts import Crowded
from pixelis.data.world.raster import SHAPES
from pixelis.data.world.scene import Thing
from pixelis.data.world.studio import COARSE_SHAPE_PX, SMALL_SHAPES, Draft, Studio
from pixelis.data.world.words import draw_words, numbers_of

OCR_ONLY = frozenset({"OCR"})


def small_shape(studio: Studio, size: int, op: str) -> frozenset[str]:
    """{op} when a shape of this size cannot be told on the coarse view."""
    return frozenset({op}) if studio.coarse(size) < COARSE_SHAPE_PX else frozenset()


def read_sign(studio: Studio) -> Draft:
    """A word or a code on one of several small signs, named by the sign's colour or by the shape beside it."""
    rng = studio.rng
    texts = draw_words(rng, studio.split, rng.integer(3, 5))
    if rng.chance(0.3):
        texts = [t if rng.chance(0.5) else f"{t} {rng.choice(numbers_of(studio.split, 10, 999))}" for t in texts]
    numbers, colours, cap = studio.add_signs(texts)
    target = numbers[0]
    box = studio.box(target)
    where, mentions = f"the {colours[0]} sign", ((f"{colours[0]} sign", target),)
    if rng.chance(0.35):
        colour, shape = studio.pairs(1, shapes=SMALL_SHAPES)[0]
        beside = _beside(studio, colour, shape, box)
        where, mentions = f"the sign next to the {colour} {shape}", ((f"{colour} {shape}", beside),)
    studio.add_distractors(rng.integer(0, 4), 18, 40)
    question = studio.wording(
        f"What does {where} say?",
        f"Read {where}.",
        f"What is written on {where}?",
        f"Which text is on {where}?",
        f"What can be read on {where}?",
    )
    return Draft(
        question,
        texts[0].lower(),
        "text",
        tuple(t.lower() for t in texts[1:]),
        (studio.ocr(box),),
        OCR_ONLY,
        ((0, box),),
        mentions=mentions,
        hardness=1 - (cap - 8) / 8,
    )


def _beside(studio: Studio, colour: str, shape: str, box: Box) -> int:
    """A shape right next to a box, where there is room."""
    look = studio.shape_look(colour, shape, 22)
    height, width = look.layers[0].cover.shape
    for x in (box.x1 + 7, box.x0 - width - 7):
        at = Box(x, box.centre[1] - height // 2, x + width, box.centre[1] - height // 2 + height)
        if (
            at.x0 > 4
            and at.x1 < studio.scene.width - 4
            and at.y0 > 2
            and at.y1 < studio.scene.height - 2
            and studio.placer.is_free(at.grow(3))
        ):
            studio.placer.take(at)
            return studio.scene.add(Thing("shape", [(0, look)], [(int(at.x0), int(at.y0))]))
    raise Crowded


def compare_signs(studio: Studio) -> Draft:
    """Two numbers on two signs: which is larger, or by how much."""
    rng = studio.rng
    pool = numbers_of(studio.split, 10, 999)
    values = rng.sample(pool, rng.integer(2, 4))
    numbers, colours, cap = studio.add_signs([str(v) for v in values])
    (a, b), (va, vb) = numbers[:2], values[:2]
    if abs(va - vb) < 3:
        raise Crowded
    chain = (studio.ocr(studio.box(a)), studio.ocr(studio.box(b)))
    boxes = ((0, studio.box(a)), (0, studio.box(b)))
    mentions = ((f"{colours[0]} sign", a), (f"{colours[1]} sign", b))
    studio.add_distractors(rng.integer(0, 3), 18, 36)
    way = rng.integer(0, 2)
    if way == 0:
        larger = rng.chance(0.6)
        word = "larger" if larger else "smaller"
        won, lost = (colours[0], colours[1]) if (va > vb) == larger else (colours[1], colours[0])
        question = studio.wording(
            f"Which sign shows the {word} number, the {colours[0]} one or the {colours[1]} one?",
            f"Is the {word} number on the {colours[0]} sign or on the {colours[1]} sign?",
            f"Compare the {colours[0]} sign and the {colours[1]} sign: which one has the {word} number?",
        )
        return Draft(
            question,
            won,
            "word",
            (lost,),
            chain,
            OCR_ONLY,
            boxes,
            accept=(f"{won} sign", f"{won} one"),
            mentions=mentions,
            hardness=1 - (cap - 8) / 8,
        )
    answer = va + vb if way == 1 else abs(va - vb)
    question = (
        studio.wording(
            f"What is the sum of the numbers on the {colours[0]} sign and the {colours[1]} sign?",
            f"Add the number on the {colours[0]} sign to the one on the {colours[1]} sign. What do you get?",
        )
        if way == 1
        else studio.wording(
            f"By how much do the numbers on the {colours[0]} sign and the {colours[1]} sign differ?",
            f"What is the difference between the numbers on the {colours[0]} sign and the {colours[1]} sign?",
        )
    )
    wrong = tuple(
        str(v) for v in dict.fromkeys((answer + 10, max(answer - 10, 1) if answer > 11 else answer + 7, answer + 1, va, vb)) if v != answer
    )
    return Draft(question, str(answer), "number", wrong, chain, OCR_ONLY, boxes, mentions=mentions, hardness=1 - (cap - 8) / 8)


def attribute(studio: Studio) -> Draft:
    """The colour of a spot on a shape, the shape of the one thing of a colour, or the colour of the one thing of a shape."""
    rng = studio.rng
    way = rng.choice(("spot", "spot", "shape", "shape", "colour"))
    if way == "spot":
        return _spot(studio)
    if way == "shape":
        size = studio.small_size(18, 40)
        colours = studio.colours(4)
        shape = rng.choice(SMALL_SHAPES if size < 30 else SHAPES)
        studio.used_pairs.add((colours[0], shape))
        target = studio.add_shape(colours[0], shape, size)
        for colour, other in studio.pairs(rng.integer(3, 7), colours=colours[1:]):
            studio.add_shape(colour, other, rng.integer(16, 40))
        question = studio.wording(
            f"What shape is the {colours[0]} object?",
            f"Which shape does the {colours[0]} thing have?",
            f"The {colours[0]} object: what shape is it?",
        )
        answer, wrong, asked, what = shape, tuple(s for s in SMALL_SHAPES if s != shape), f"{colours[0]} object", "shape"
    else:
        size = rng.integer(26, 60)
        shapes = rng.sample(SHAPES, 4)
        colour = studio.colours(1)[0]
        studio.used_pairs.add((colour, shapes[0]))
        target = studio.add_shape(colour, shapes[0], size)
        for other, shape in studio.pairs(rng.integer(3, 7), shapes=tuple(shapes[1:])):
            studio.add_shape(other, shape, rng.integer(26, 60))
        question = studio.wording(
            f"What colour is the {shapes[0]}?", f"Which colour does the {shapes[0]} have?", f"The {shapes[0]} is of which colour?"
        )
        answer, asked, what = colour, shapes[0], "colour"
        wrong = tuple(c for c in rng.shuffled(("red", "orange", "yellow", "green", "cyan", "blue", "purple", "pink")) if c != colour)
    box = studio.box(target)
    return Draft(
        question,
        answer,
        "word",
        wrong,
        (studio.prop(what, target),),
        small_shape(studio, size, "PROP"),
        ((0, box),),
        mentions=((asked, target),),
        hardness=1 - (size - 16) / 50,
    )


def _spot(studio: Studio) -> Draft:
    rng = studio.rng
    pairs = studio.pairs(rng.integer(3, 6), shapes=("circle", "square", "hexagon", "pentagon", "star"))
    spots = []
    size = rng.integer(34, 56)
    dot = 6 if studio.long_side < 1100 else 7  # about a pixel and a half on the coarse view
    for colour, shape in pairs:
        host = studio.add_shape(colour, shape, size)
        x0, y0, x1, y1 = studio.box(host).as_tuple()
        name = rng.choice(
            [c for c in ("red", "yellow", "green", "cyan", "blue", "pink", "white", "black") if c != colour and (c, colour) not in _ALIKE]
        )
        look = studio.shape_look(name, "circle", dot)
        middle = (y0 + y1) / 2 + (0.03 * size if shape == "star" else 0)
        height, width = look.layers[0].cover.shape
        spots.append(studio.scene.add(Thing("spot", [(0, look)], [(round((x0 + x1 - width) / 2), round(middle - height / 2))])))
    target, name = spots[0], f"{pairs[0][0]} {pairs[0][1]}"
    answer = studio.scene.things[target].first_look.colour
    question = studio.wording(
        f"What colour is the spot on the {name}?",
        f"Which colour is the small dot inside the {name}?",
        f"The {name} has a small spot. What colour is it?",
    )
    wrong = tuple(c for c in rng.shuffled(("red", "yellow", "green", "cyan", "blue", "pink", "white", "black")) if c != answer)
    box = studio.box(target)
    chain = (studio.prop("colour", target),)
    return Draft(question, answer, "word", wrong, chain, frozenset({"PROP"}), ((0, box),), mentions=((name, target - 1),), hardness=0.8)


_ALIKE = {
    ("pink", "red"),
    ("red", "pink"),
    ("red", "orange"),
    ("red", "brown"),
    ("yellow", "orange"),
    ("cyan", "blue"),
    ("blue", "purple"),
    ("blue", "cyan"),
    ("white", "grey"),
    ("pink", "purple"),
    ("yellow", "white"),
    ("white", "yellow"),
    ("black", "brown"),
    ("black", "grey"),
    ("green", "cyan"),
    ("cyan", "green"),
    ("pink", "orange"),
    ("cyan", "white"),
    ("white", "cyan"),
    ("black", "blue"),
    ("black", "purple"),
    ("blue", "black"),
}


def count(studio: Studio) -> Draft:
    """Small things on a card, or shapes of one kind among others."""
    rng = studio.rng
    if rng.chance(0.6):
        return _count_on_card(studio)
    num = rng.integer(1, 5)
    size = studio.small_size(16, 34)
    shapes = SMALL_SHAPES
    colour, shape = studio.pairs(1, shapes=shapes)[0]
    targets = [studio.add_shape(colour, shape, size + rng.integer(0, 3)) for _ in range(num)]
    # One like it in colour, one in shape, so that neither alone gives the number.
    for other in studio.pairs(2, shapes=shapes, colours=[colour]) + studio.pairs(2, shapes=(shape,)):
        studio.add_shape(*other, size + rng.integer(0, 3))
    name = f"{colour} {shape}{'es' if shape == 'cross' else 's'}"
    question = studio.wording(
        f"How many {name} are there?", f"Count the {name}.", f"How many {name} can you see?", f"What is the number of {name}?"
    )
    return Draft(
        question,
        str(num),
        "number",
        _near_numbers(num),
        tuple(studio.seg(t) for t in targets),
        small_shape(studio, size, "SEG"),
        tuple((0, studio.box(t)) for t in targets),
        hardness=0.3 + num / 10,
    )


def _near_numbers(num: int) -> tuple[str, ...]:
    return tuple(str(n) for n in (num + 1, num - 1, num + 2, num - 2, num + 3) if n > 0)


def _count_on_card(studio: Studio) -> Draft:
    rng = studio.rng
    num = rng.integer(2, 9)
    size = rng.integer(10, 13)  # two or three pixels on the coarse view, and a gap of one
    cards = []
    for colour in rng.sample(("white", "black", "brown", "grey"), 2):
        cards.append((*studio.add_panel(colour, rng.integer(130, 180), rng.integer(100, 130)), colour))
    kinds = studio.rng.sample(SMALL_SHAPES, 2)
    inside = {
        "white": ("red", "blue", "green", "purple"),
        "black": ("yellow", "cyan", "pink", "orange"),
        "brown": ("yellow", "cyan", "white"),
        "grey": ("red", "blue", "yellow"),
    }
    for (_, box, card), kind, many in zip(cards, kinds, (num, rng.integer(1, 8)), strict=True):
        studio.placer.taken.remove(box)
        colour = rng.choice(inside[card])
        for _ in range(many):
            studio.add_shape(colour, kind, size, gap_px=5, within=box.grow(-8))
        studio.placer.take(box)
    panel, box, card = cards[0]
    studio.add_distractors(rng.integer(0, 3), 20, 40)
    question = studio.wording(
        f"How many shapes are on the {card} card?", f"Count the small shapes on the {card} card.", f"The {card} card holds how many shapes?"
    )
    chain = (studio.prop("count", panel, box=box),)
    return Draft(
        question,
        str(num),
        "number",
        _near_numbers(num),
        chain,
        frozenset({"PROP"}),
        ((0, box),),
        mentions=((f"{card} card", panel),),
        hardness=0.2 + num / 12,
    )


def size_compare(studio: Studio) -> Draft:
    """Two or three of one shape in different colours: which is the largest or the smallest, by a clear margin of area."""
    rng = studio.rng
    many = rng.choice((2, 2, 3))
    shape = rng.choice(SHAPES)
    colours = studio.colours(many)
    ratio = rng.uniform(1.14, 1.28)
    small = rng.integer(20, 32)
    sizes = [small, round(small * ratio), round(small * ratio * ratio)][:many]
    numbers = [studio.add_shape(c, shape, s) for c, s in zip(colours, sizes, strict=True)]
    studio.used_pairs.update((c, shape) for c in colours)
    wants_large = rng.chance(0.6)
    won = colours[-1] if wants_large else colours[0]
    others = tuple(s for s in SHAPES if s != shape)
    studio.add_distractors(rng.integer(1, 4), 18, 44, shapes=others)
    names = [f"the {c} {shape}" for c in rng.shuffled(colours)]
    listed = f"{', '.join(names[:-1])} or {names[-1]}"
    word = ("larger" if wants_large else "smaller") if many == 2 else ("largest" if wants_large else "smallest")
    question = studio.wording(
        f"Which is {word}, {listed}?", f"Which one is {word}: {listed}?", f"Compare their sizes: {listed}. Which is {word}?"
    )
    return Draft(
        question,
        f"{won} {shape}",
        "word",
        tuple(f"{c} {shape}" for c in colours if c != won),
        tuple(studio.seg(n) for n in numbers),
        # A pixel and a half of difference on the coarse view is within what its blur hides.
        frozenset({"SEG"}) if studio.coarse(min(b - a for a, b in itertools.pairwise(sizes))) < 1.5 else frozenset(),
        tuple((0, studio.box(n)) for n in numbers),
        accept=(won,),
        mentions=tuple((f"{c} {shape}", n) for c, n in zip(colours, numbers, strict=True)),
        hideable=0.05,
        hardness=1.3 - ratio / 1.5,
    )


def relation(studio: Studio) -> Draft:
    """Left, right, above or below, asked openly or with yes and no; or which of two is closer to a third."""
    rng = studio.rng
    size = studio.small_size(16, 36)
    pairs = studio.pairs(3, shapes=SMALL_SHAPES)
    a, b, c = (studio.add_shape(colour, shape, size) for colour, shape in pairs)
    # Twins in colour: the shape must be seen to know which is meant.
    for colour, _ in pairs[:2]:
        studio.add_shape(*studio.pairs(1, shapes=SMALL_SHAPES, colours=[colour])[0], size)
    studio.add_distractors(rng.integer(0, 3), 18, 36)
    na, nb, nc = (studio.name(n) for n in (a, b, c))
    (ax, ay), (bx, by), (cx, cy) = (studio.box(n).centre for n in (a, b, c))
    needs = small_shape(studio, size, "PROP")
    if rng.chance(0.3):
        da, db = ((ax - cx) ** 2 + (ay - cy) ** 2) ** 0.5, ((bx - cx) ** 2 + (by - cy) ** 2) ** 0.5
        if max(da, db) < 1.35 * min(da, db):
            raise Crowded
        won, lost = (na, nb) if da < db else (nb, na)
        question = studio.wording(f"Which is closer to the {nc}, the {na} or the {nb}?", f"Is the {na} or the {nb} nearer to the {nc}?")
        chain = (studio.prop("relation", a, other=c), studio.prop("relation", b, other=c))
        boxes, mentions = tuple((0, studio.box(n)) for n in (a, b, c)), ((na, a), (nb, b), (nc, c))
        return Draft(question, won, "word", (lost,), chain, needs, boxes, mentions=mentions, hardness=1 - (size - 16) / 40)
    dx, dy = ax - bx, ay - by
    is_level = rng.chance(0.5)
    gap = dx if is_level else dy
    if abs(gap) < 50:
        raise Crowded
    side = ("left" if gap < 0 else "right") if is_level else ("above" if gap < 0 else "below")
    chain, boxes, mentions = (studio.prop("relation", a, other=b),), tuple((0, studio.box(n)) for n in (a, b)), ((na, a), (nb, b))
    if rng.chance(0.5):
        opposite = {"left": "right", "right": "left", "above": "below", "below": "above"}[side]
        asked = side if rng.chance(0.5) else opposite
        phrase = f"to the {asked} of" if is_level else asked
        question = studio.wording(f"Is the {na} {phrase} the {nb}?", f"Looking at the picture, is the {na} {phrase} the {nb}?")
        answer, wrong, accept = ("yes", ("no",), ()) if asked == side else ("no", ("yes",), ())
    else:
        words = "left or right of" if is_level else "above or below"
        question = studio.wording(f"Is the {na} {words} the {nb}?", f"Where is the {na} compared with the {nb}: {words} it?")
        answer, wrong = side, ({"left": "right", "right": "left", "above": "below", "below": "above"}[side],)
        accept = (
            (f"{side} of it", f"to the {side}", f"{side} of the {nb}", f"to the {side} of the {nb}")
            if is_level
            else (f"{side} it", f"{side} the {nb}")
        )
    return Draft(question, answer, "word", wrong, chain, needs, boxes, accept=accept, mentions=mentions, hardness=0.8 - (size - 16) / 40)
