"""Plans for questions about text: signs, tables, charts, pages."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rapidfuzz import fuzz

from pixelis.core.geometry import Box
from pixelis.policy.planner.base import Act, Plan, Response, Scene, absent, is_ok
from pixelis.policy.planner.question import PLACE_WORDS, Thing
from pixelis.policy.planner.sight import colour_around


@dataclass(frozen=True)
class Read:
    """A text with its box in pixels."""

    text: str
    box: Box

    @property
    def number(self) -> int | None:
        digits = re.sub(r"[^\d]", "", self.text.replace("O", "0").replace("o", "0"))
        return int(digits) if digits and len(digits) >= 0.5 * len(self.text.replace(" ", "")) else None


def reads(scene: Scene, response: Response) -> list[Read]:
    return [Read(s["text"], scene.box(s["bbox_2d"])) for s in response.get("spans", [])] if is_ok(response) else []


def find_sign(scene: Scene, thing: Thing, spans: list[Read], frame: int = 0) -> Box | None:
    """The box of a sign: a patch of that colour, or the text that stands on that colour."""
    on_colour = [s for s in spans if colour_around(scene.image(frame), s.box) == thing.colour]
    found = scene.find(thing, frame)
    # A text that fills its sign leaves no rim to tell the colour by: the patch under it does.
    backed = [b.box for b in scene.blobs(frame) if b.colour == thing.colour and b.fill > 0.8 and _holds_any(b.box, spans)]
    if backed:
        return backed[0]
    if on_colour:
        inside = [b.box for b in found if any(b.box.intersect(s.box).area > 0.6 * s.box.area for s in on_colour)]
        return inside[0] if inside else on_colour[0].box.grow(6)
    for blob in found:
        if blob.box.width < 0.5 * scene.medium.width:
            return blob.box
    return None


def _holds_any(box: Box, spans: list[Read]) -> bool:
    return box.area > 0 and any(box.intersect(s.box).area > 0.6 * s.box.area for s in spans)


def read_sign(scene: Scene) -> Plan:
    """Text on a named sign, in a named place, after a named word, or all there is."""
    text = scene.question.text
    sign = next((t for t in scene.question.things if t.is_sign), None)
    beside = re.search(r"(?:next to|beside|by|near) the ", text)
    spans = yield from _read_all(scene, "I read what there is, to see which text is meant.")
    if beside and sign is not None:
        thing = next((t for t in scene.question.things if t.shape), None)
        blobs = scene.find(thing) if thing else []
        if thing is not None and not blobs:
            return absent(thing)
        if thing is not None:
            return (yield from _nearest_text(scene, spans, blobs[0].box, thing.words))
    if sign is not None and sign.colour:
        box = find_sign(scene, sign, spans)
        if box is None:
            return absent(sign)
        return (yield from _read_box(scene, box, sign.words))
    return (yield from _read_page(scene, spans, text))


def _read_all(scene: Scene, thought: str) -> Plan:
    """Every text: a long page is read on from where the answer was cut short."""
    response = yield Act(thought, "OCR", {})
    spans = reads(scene, response)
    for _ in range(4):
        if not spans or not response.get("more"):
            break
        top = max(s.box.y0 for s in spans)
        rest = scene.wire(Box(0, top - 2, scene.medium.width, scene.medium.height))
        response = yield Act("The page goes on; I read the rest.", "OCR", {"bbox_2d": rest})
        new = [s for s in reads(scene, response) if not any(s.box.iou(o.box) > 0.4 for o in spans)]
        if not new:
            break
        spans += new
    return spans


def _nearest_text(scene: Scene, spans: list[Read], to: Box, words: str) -> Plan:
    # A shape may itself be read as a letter, or be seen as a small panel.
    texts = [s.box for s in spans if len(s.text.strip()) > 1 and s.box.intersect(to).area < 0.3 * s.box.area]
    panels = [b.box for b in scene.blobs() if b.is_panel and any(b.box.intersect(t).area > 0.6 * t.area for t in texts)]
    near = min([*panels, *(t.grow(6) for t in texts)], key=lambda b: _gap(b, to), default=None)
    if near is None:
        return "there is no text"
    return (yield from _read_box(scene, near, f"sign next to the {words}"))


def _gap(a: Box, b: Box) -> float:
    dx = max(a.x0 - b.x1, b.x0 - a.x1, 0)
    dy = max(a.y0 - b.y1, b.y0 - a.y1, 0)
    return dx + dy


def _read_box(scene: Scene, box: Box, words: str, frame: int | None = None) -> Plan:
    moment = {} if frame is None else {"frame": scene.seconds(frame)}
    response = yield Act(f"Now the {words}, closely.", "OCR", {"bbox_2d": scene.wire(box, 3), **moment})
    spans = reads(scene, response)
    if not spans:
        response = yield Act("Nothing read; I take a wider look.", "OCR", {"bbox_2d": scene.wire(box, 0.4 * box.height + 8), **moment})
        spans = reads(scene, response)
    return " ".join(s.text for s in spans).lower() if spans else "nothing"


_LABELS = {
    "total": ("total", "balance", "amount due", "to pay"), "date": ("date",), "phone": ("phone", "tel"), "tax": ("tax", "vat"),
    "subtotal": ("subtotal",), "price": ("price",), "amount": ("amount",), "change": ("change",), "cash": ("cash",), "time": ("time",),
}  # fmt: skip
"""A word of the question, and the words a page may label the value with, the surest first."""
_DATE = r"\b\d{1,4}[/.-]\d{1,2}[/.-]\d{2,4}\b|\b\d{1,2}\.? ?(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?,? ?\d{2,4}"
_FORMS = {
    "date": _DATE + r"|\b(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.? ?\d{1,2},? ?\d{4}",
    "phone": r"\+?\(?\d{2,4}\)?[ .-]\d{3,4}[ .-]?\d{3,4}\b|\+\d[\d -]{7,}",
    "time": r"\b\d{1,2}:\d{2}(?::\d{2})?(?: ?[ap]m)?\b",
}
"""What a value looks like that needs no label."""


def _read_page(scene: Scene, spans: list[Read], text: str) -> Plan:
    if not spans:
        response = yield Act("Nothing at first sight; I read the middle closely.", "OCR", {"bbox_2d": [150, 150, 850, 850]})
        spans = reads(scene, response)
        if not spans:
            return "there is no text"
    if re.search(r"title|heading|headline|name of the (shop|store)|(shop|store) called", text):
        tall = max(s.box.height for s in spans)
        return min((s for s in spans if s.box.height > 0.75 * tall), key=lambda s: s.box.y0).text
    asked = next((w for w in _LABELS if re.search(rf"\b{w}", text)), None)
    if asked:
        found = _of_form(spans, _FORMS.get(asked)) or next((v for w in _LABELS[asked] if (v := _value_beside(spans, w))), None)
        return found or f"I cannot tell: I read no {asked}"
    place = next((p for p in PLACE_WORDS if re.search(rf"\b{p}\b", text)), None)
    if place:
        there = [s for s in spans if _is_at(s.box, place, scene)]
        return " ".join(s.text for s in there) if there else f"there is no text in the {place}"
    return " ".join(s.text for s in spans[:40])


def _of_form(spans: list[Read], form: str | None) -> str | None:
    return next((m[0] for s in spans if form and (m := re.search(form, s.text, re.IGNORECASE))), None)


def _value_beside(spans: list[Read], word: str) -> str | None:
    """What stands after a word on its own line, or to its right at the same height."""
    labels = [s for s in spans if fuzz.partial_ratio(word, s.text.lower()) > 85 and not (word == "total" and "sub" in s.text.lower())]
    for label in sorted(labels, key=lambda s: (not s.text.lower().startswith(word), -s.box.height)):
        rest = re.sub(rf"(?i)^.*{word}\w*\W*", "", label.text).strip()
        if re.search(r"\d", rest):
            return rest
        level = [
            s
            for s in spans
            if s.box.x0 > label.box.x0 and abs(s.box.centre[1] - label.box.centre[1]) < label.box.height and re.search(r"\d", s.text)
        ]
        if level:
            return min(level, key=lambda s: abs(s.box.centre[1] - label.box.centre[1])).text
    return None


def _is_at(box: Box, place: str, scene: Scene) -> bool:
    u, v = box.centre[0] / scene.medium.width, box.centre[1] / scene.medium.height
    wants = {
        "top": v < 0.36,
        "bottom": v > 0.64,
        "left": u < 0.5,
        "right": u > 0.5,
        "middle": 0.3 < v < 0.7,
        "centre": 0.3 < v < 0.7,
        "center": 0.3 < v < 0.7,
    }
    return all(wants[w] for w in place.split())


def text_there(scene: Scene) -> Plan:
    response = yield Act("I try to read.", "OCR", {})
    spans = reads(scene, response)
    return f"yes: {' '.join(s.text for s in spans[:10])}" if spans else "no"


def sign_numbers(scene: Scene) -> Plan:
    """Compare, add or subtract the numbers on two signs."""
    signs = [t for t in scene.question.things if t.colour][:2]
    if len(signs) < 2:
        return (yield from read_sign(scene))
    response = yield Act("I read all signs.", "OCR", {})
    spans = reads(scene, response)
    values: list[int] = []
    for sign in signs:
        thing = Thing(colour=sign.colour, noun="sign", words=f"{sign.colour} sign")
        box = find_sign(scene, thing, spans)
        if box is None:
            return absent(thing)
        text = yield from _read_box(scene, box, thing.words)
        number = Read(text, box).number
        values.append(number if number is not None else 0)
    intent, text = scene.question.intent, scene.question.text
    if intent == "sign_sum":
        return str(sum(values))
    if intent == "sign_difference":
        return str(abs(values[0] - values[1]))
    wants_large = re.search(r"larger|higher|bigger|greater", text) is not None
    return signs[0].colour if (values[0] > values[1]) == wants_large else signs[1].colour


# ---------------------------------------------------------------- tables and charts


def _card(scene: Scene) -> tuple[Act, Box | None]:
    """Read the largest card closely; the whole picture where no card is seen."""
    cards = [b for b in scene.blobs() if b.fill > 0.7 and b.area_px > 0.02 * scene.medium.width * scene.medium.height]
    box = max(cards, key=lambda b: b.area_px).box if cards else None
    return Act("I read the table or chart.", "OCR", {"bbox_2d": scene.wire(box, 4)} if box else {}), box


def _like(word: str, spans: list[Read]) -> Read | None:
    best = max(spans, key=lambda s: fuzz.ratio(s.text.lower().strip(), word), default=None)
    return best if best is not None and fuzz.ratio(best.text.lower().strip(), word) >= 60 else None


def table_cell(scene: Scene) -> Plan:
    act, _ = _card(scene)
    spans = reads(scene, (yield act))
    row, col = _row_and_column(scene.question.text, spans)
    if row is None or col is None:
        return "I cannot tell: I found no such row or column"
    numbers = [s for s in spans if s.number is not None]
    if not numbers:
        return "I cannot tell: I read no numbers"
    best = min(numbers, key=lambda s: abs(s.box.centre[1] - row.box.centre[1]) * 2 + abs(s.box.x1 - col.box.x1))
    return str(best.number)


_CELL_FORMS = (
    r"value of (?P<col>\w+) for (?P<row>\w+)",
    r"what is the (?P<col>\w+) of (?P<row>\w+)",
    r"look up (?P<row>\w+) in the table: what is in the column (?P<col>\w+)",
    r"row (?P<row>\w+), column (?P<col>\w+)",
)


def _row_and_column(text: str, spans: list[Read]) -> tuple[Read | None, Read | None]:
    for form in _CELL_FORMS:
        found = re.search(form, text)
        if found:
            return _like(found["row"], spans), _like(found["col"], spans)
    return None, None


def table_best(scene: Scene) -> Plan:
    act, _ = _card(scene)
    spans = reads(scene, (yield act))
    words = re.findall(r"(?:value of|the most|in the column) (\w+)", scene.question.text)
    col = _like(words[-1], spans) if words else None
    if col is None:
        return "I cannot tell: I found no such column"
    column = [s for s in spans if s.number is not None and s.box.x0 < col.box.x1 + 6 and s.box.x1 > col.box.x0 - 6]
    if not column:
        return "I cannot tell: I read no numbers"
    best = max(column, key=lambda s: s.number or 0)
    level = [s for s in spans if s.number is None and abs(s.box.centre[1] - best.box.centre[1]) < 0.8 * best.box.height]
    return min(level, key=lambda s: s.box.x0).text.lower() if level else "I cannot tell"


def _bars(spans: list[Read]) -> list[tuple[Read, int]]:
    """(label, value) pairs of a bar chart: lying bars share a height, upright bars share a column."""
    labels = [s for s in spans if s.number is None and re.search(r"[a-zA-Z]{2}", s.text)]
    numbers = [s for s in spans if s.number is not None]
    if not labels or not numbers:
        return []
    is_upright = _spread([s.box.centre[0] for s in labels]) > _spread([s.box.centre[1] for s in labels])
    axis = 0 if is_upright else 1
    pairs = []
    for label in labels:
        value = min(numbers, key=lambda s: abs(s.box.centre[axis] - label.box.centre[axis]))
        pairs.append((label, value.number or 0))
    return pairs


def _spread(values: list[float]) -> float:
    return max(values) - min(values)


def chart(scene: Scene) -> Plan:
    act, _ = _card(scene)
    spans = reads(scene, (yield act))
    bars = _bars(spans)
    if not bars:
        return "I cannot tell: I found no bars with labels"
    text = scene.question.text
    if scene.question.intent == "chart_best":
        wants_low = re.search(r"lowest|shortest|smallest", text) is not None
        return (min if wants_low else max)(bars, key=lambda b: b[1])[0].text.lower()
    values = {label.text.lower().strip(): value for label, value in bars}
    if scene.question.intent == "chart_difference":
        names = re.search(r"how much more is (\w+) than (\w+)|between the bars (\w+) and (\w+)", text)
        pair = [n for n in names.groups() if n] if names else []
        known = [values[_nearest(n, list(values))] for n in pair]
        return str(abs(known[0] - known[1])) if len(known) == 2 else "I cannot tell"
    names = re.findall(r"(?:labelled|the bar(?! labelled)|how much is|gives? for) (\w+)", text)
    return str(values[_nearest(names[-1] if names else text, list(values))])


def _nearest(word: str, known: list[str]) -> str:
    return max(known, key=lambda k: fuzz.ratio(k, word))
