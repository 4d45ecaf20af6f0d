"""How the teacher answers questions about signs, tables and charts: find the place, read it closely, reason aloud in digits."""

from __future__ import annotations

from typing import Any

from pixelis.core.geometry import Box
from pixelis.rollout.teacher.hand import CARD_MARGIN, SIGN_MARGIN, Final, Hand, Part, Plan, Response, seen_on
from pixelis.rollout.teacher.search import absent, find
from pixelis.rollout.teacher.sums import add_aloud, best_aloud, choose_aloud, subtract_aloud


def spans_of(response: Response) -> list[dict[str, Any]]:
    return list(response.get("spans", []))


def joined(response: Response) -> str:
    return " ".join(s["text"] for s in spans_of(response)).lower()


def number_in(text: str) -> int | None:
    """The number a text shows; None when it shows none."""
    digits = "".join(c for c in text.replace("O", "0").replace("o", "0") if c.isdigit())
    return int(digits) if digits and 2 * len(digits) >= len(text.replace(" ", "")) else None


def read_at(hand: Hand, box: Box, thought: str) -> Part:
    return (yield from hand.act(thought, "OCR", hand.at(box, margin=SIGN_MARGIN, side=min(box.width, box.height))))


def read_sign(hand: Hand) -> Plan:
    """A sign by its colour, or the one beside a thing: which thing that is, is measured where several have its colour."""
    phrase, number = hand.item.mentions[0]
    seen = hand.thing(number)
    box, thought = seen.box, f"I read the {phrase}."
    if not phrase.endswith(" sign"):
        lead = f"The {phrase}: {hand.at(box)['bbox_2d']}. "
        if len(hand.candidates(seen.colour, seen.shape, 0)) > 1:
            _, found, lead = yield from find(hand, phrase, goal=f"Where is the {phrase}? ")
            if found is None:
                return absent(phrase, lead)
        signs = [s for s in seen_on(hand.item, 0) if s.kind == "sign"]
        box = min(signs, key=lambda s: abs(s.box.centre[0] - box.centre[0]) + 3 * abs(s.box.centre[1] - box.centre[1])).box
        thought = f"{lead}I read the sign next to the {phrase}."
    response = yield from read_at(hand, box, thought)
    text = joined(response)
    return Final(f"It says {text or 'nothing'}.", text or "nothing")


def compare_signs(hand: Hand) -> Plan:
    values: list[tuple[int, str]] = []
    question = hand.item.question.lower()
    is_sum, is_gap = "sum" in question or "add" in question, "how much" in question or "difference" in question
    goal = "I add." if is_sum else "I subtract." if is_gap else f"Which is {'larger' if 'larger' in question else 'smaller'}?"
    lead = f"{goal} "
    for name in sorted(((n, k) for n, k in hand.item.mentions), key=lambda pair: hand.item.question.find(pair[0].split()[0])):
        response = yield from read_at(hand, hand.thing(name[1]).box, f"{lead}I read the {name[0]}.")
        number = number_in(joined(response))
        values.append((number if number is not None else 0, name[0].split()[0]))
        lead = f"{values[-1][0]}. "
    (a, first), (b, second) = values
    if is_sum:
        return Final(lead + add_aloud(a, b), str(a + b))
    if is_gap:
        return Final(lead + subtract_aloud(a, b), str(abs(a - b)))
    thought, answer = choose_aloud([(str(a), first), (str(b), second)], wants_large="larger" in question)
    return Final(f"{lead}{goal} {thought}.", answer)


# ---------------------------------------------------------------- tables and charts


def _card(hand: Hand, goal: str) -> Part:
    """Read the whole card; its box as written, and the spans. The goal is said first, where all that follows can see it."""
    card = max((s for s in seen_on(hand.item, 0) if s.kind == "panel"), key=lambda s: s.box.area)
    args = hand.at(card.box, margin=CARD_MARGIN, side=min(card.box.width, card.box.height))
    response = yield from hand.act(f"{goal}: I read the card.", "OCR", args)
    return args["bbox_2d"], spans_of(response)


def _printed(hand: Hand, box: Box) -> str:
    """The word of the question that stands in a box."""
    return min((t for t in hand.item.truth.objects if t.kind == "text"), key=lambda t: abs(t.box.x0 - box.x0) + abs(t.box.y0 - box.y0)).text


def _span_at(hand: Hand, spans: list[dict[str, Any]], box: Box) -> dict[str, Any] | None:
    """The span that lies on a true text box; None where the reader missed it."""
    sx, sy = hand.item.width / 1000, hand.item.height / 1000

    def overlap(span: dict[str, Any]) -> float:
        x0, y0, x1, y1 = span["bbox_2d"]
        return Box(x0 * sx, y0 * sy, x1 * sx, y1 * sy).intersect(box).area

    best = max(spans, key=overlap, default=None)
    return best if best is not None and overlap(best) > 0.25 * box.area else None


def _number_at(hand: Hand, spans: list[dict[str, Any]], box: Box) -> tuple[int, list[int]] | None:
    """The number that was read on a true text box, and where; None where the reader missed it."""
    span = _span_at(hand, spans, box)
    number = number_in(span["text"]) if span else None
    return (number, span["bbox_2d"]) if number is not None else None


UNREAD = Final("I cannot read it.", "I cannot tell")


def table(hand: Hand) -> Plan:
    boxes = [box for _, box in hand.item.evidence.boxes]
    if hand.item.answer_kind == "text":
        return (yield from _leader(hand))
    _, spans = yield from _card(hand, f"Row {_printed(hand, boxes[1])}, column {_printed(hand, boxes[2])}")
    row, col = (_span_at(hand, spans, box) for box in boxes[1:3])
    if row is None or col is None:
        return UNREAD
    cell = [col["bbox_2d"][0], row["bbox_2d"][1], col["bbox_2d"][2], row["bbox_2d"][3]]
    thought = f"Row {row['text'].lower()} {row['bbox_2d']}, column {col['text'].lower()} {col['bbox_2d']}."
    known = _number_at(hand, spans, boxes[0])
    if hand.is_terse and known is not None:
        return Final(f"{thought} The cell {known[1]} says {known[0]}.", str(known[0]))
    response = yield from hand.act(thought, "OCR", {"bbox_2d": cell})
    number = number_in(joined(response))
    return Final(f"The cell says {number}.", str(number)) if number is not None else UNREAD


def _leader(hand: Hand) -> Plan:
    """The row with the largest number of a column, which the question names last."""
    column = hand.item.question.rstrip("?").lower().split()[-1]
    card, spans = yield from _card(hand, f"The most of column {column}")
    col = next((s for s in spans if s["text"].lower() == column), None)
    if col is None:
        return UNREAD
    x0, y0, x1, _ = col["bbox_2d"]
    down = {"bbox_2d": [x0, y0, x1, card[3]]}
    response = yield from hand.act(f"Column {col['text'].lower()} {col['bbox_2d']}. I read down it.", "OCR", down)
    numbers = [(number_in(s["text"]), s["bbox_2d"]) for s in spans_of(response)]
    known = [(n, box) for n, box in numbers if n is not None]
    if not known:
        return UNREAD
    _, at = max(known, key=lambda pair: pair[0])
    thought = f"{best_aloud([n for n, _ in known], 'most')} {at}."
    beside = [s for s in spans if number_in(s["text"]) is None and s["bbox_2d"][1] < (at[1] + at[3]) / 2 < s["bbox_2d"][3]]
    if hand.is_terse and beside:
        name = min(beside, key=lambda s: s["bbox_2d"][0])
        text = name["text"].lower()
        return Final(f"{thought} Beside it {text} {name['bbox_2d']}. The row is {text}.", text)
    thought += " I read its row."
    response = yield from hand.act(thought, "OCR", {"bbox_2d": [card[0], at[1], x0, at[3]]})
    text = next((s["text"].lower() for s in spans_of(response) if number_in(s["text"]) is None), "")
    return Final(f"The row is {text}.", text) if text else UNREAD


LABEL_GAP, VALUE_GAP = 10, 30
"""Room on both sides of an upright bar's label and of its number, on the wire: a label may be that much wider than the number."""


def chart(hand: Hand) -> Plan:
    boxes = [box for _, box in hand.item.evidence.boxes]
    if hand.item.answer_kind == "text":
        return (yield from _extreme_bar(hand))
    names = [_printed(hand, box) for box in boxes[0::3]]
    card, spans = yield from _card(hand, f"Bar {names[0]}" if len(names) == 1 else f"Bars {' and '.join(names)}")
    labels = [_span_at(hand, spans, box) for box in boxes[0::3]]
    if any(label is None for label in labels):
        return UNREAD
    known = [_number_at(hand, spans, box) for box in boxes[1::3]]
    if hand.is_terse and all(known):
        pairs = zip(labels, known, strict=True)
        said = "".join(f"Bar {label['text'].lower()} {label['bbox_2d']}, {number} {at}. " for label, (number, at) in pairs)
        return _total(said, [number for number, _ in known])
    values, lead = [], ""
    is_lying = _is_lying(boxes)
    for label in labels:
        x0, y0, x1, y1 = label["bbox_2d"]
        name = label["text"].lower()
        if is_lying:
            bar = [x0, y0, card[2], y1]
        else:
            bar = [max(0, x0 - LABEL_GAP), card[1], min(1000, x1 + LABEL_GAP), y1]
        thought = f"{lead}Bar {name} {label['bbox_2d']}. I read along it."
        response = yield from hand.act(thought, "OCR", {"bbox_2d": bar})
        number = next((n for s in spans_of(response) if (n := number_in(s["text"])) is not None), None)
        if number is None:
            return UNREAD
        values.append(number)
        lead = f"{number}. "
    return _total(lead if len(values) > 1 else "", values)


def _total(lead: str, values: list[int]) -> Final:
    """The value of a bar, or the difference of two."""
    if len(values) == 1:
        return Final(f"{lead}It is {values[0]}.", str(values[0]))
    return Final(lead + subtract_aloud(*values), str(abs(values[0] - values[1])))


def _is_lying(boxes: list[Box]) -> bool:
    """Whether bars lie: a label and its value then stand side by side."""
    label, value = boxes[0], boxes[1]
    return abs(label.centre[1] - value.centre[1]) < abs(label.centre[0] - value.centre[0])


def _extreme_bar(hand: Hand) -> Plan:
    """The label of the highest or lowest bar: its number first, then what stands in its line."""
    wants_low = any(w in hand.item.question for w in ("lowest", "shortest", "smallest"))
    word = "least" if wants_low else "most"
    card, spans = yield from _card(hand, f"The bar with the {word}")
    known = [(n, s["bbox_2d"]) for s in spans if (n := number_in(s["text"])) is not None]
    if not known:
        return UNREAD
    _, at = (min if wants_low else max)(known, key=lambda pair: pair[0])
    label = _span_at(hand, spans, hand.item.evidence.boxes[0][1])
    if label is None:
        return UNREAD
    if _is_lying([box for _, box in hand.item.evidence.boxes]):
        strip = [card[0], at[1], at[2], at[3]]
    else:
        strip = [max(0, at[0] - VALUE_GAP), at[1], min(1000, at[2] + VALUE_GAP), card[3]]
    thought = f"{best_aloud([n for n, _ in known], word)} {at}."
    if hand.is_terse:
        name = label["text"].lower()
        return Final(f"{thought} Beside it {name} {label['bbox_2d']}. The bar is {name}.", name)
    thought += " I read its bar."
    response = yield from hand.act(thought, "OCR", {"bbox_2d": strip})
    names = [s for s in spans_of(response) if number_in(s["text"]) is None]
    middle = (at[0] + at[2]) / 2
    near = min(names, key=lambda s: abs((s["bbox_2d"][0] + s["bbox_2d"][2]) / 2 - middle), default=None)
    return Final(f"The bar is {near['text'].lower()}.", near["text"].lower()) if near else UNREAD
