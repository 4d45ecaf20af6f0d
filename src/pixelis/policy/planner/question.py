"""What a question wants: an intent, the things it names, and its options. Keywords and patterns; no grammar of English."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from pixelis.tools.engines.prop_colour import COLOUR_WORDS

SHAPES = ("circle", "square", "rectangle", "triangle", "star", "pentagon", "hexagon", "cross", "diamond", "ring", "ellipse")
SHAPE_WORDS = {name: name for name in SHAPES} | {
    "disc": "circle", "disk": "circle", "dot": "circle", "ball": "circle", "rhombus": "diamond", "plus": "cross", "oval": "ellipse",
    "box": "square",
}  # fmt: skip
PLACE_WORDS = ("top left", "top right", "bottom left", "bottom right", "middle", "centre", "center", "top", "bottom", "left", "right")
LETTERS = "ABCDEFGH"
_NUMBERS = {
    w: i for i, w in enumerate(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"])
}
_OPTION = re.compile(r"^\(?([A-H])[).:]\s*(.+)$")
_COLOURS = "|".join(COLOUR_WORDS)
_SHAPES = "|".join(sorted((f"{w}(?:es|s)?" for w in SHAPE_WORDS), key=len, reverse=True))


@dataclass(frozen=True)
class Thing:
    """Something a question names: a colour, a shape or another noun, perhaps where it starts."""

    colour: str = ""
    shape: str = ""
    noun: str = ""
    words: str = ""
    place: str = ""

    @property
    def is_sign(self) -> bool:
        return self.noun == "sign"


@dataclass(frozen=True)
class Question:
    """A parsed question. `text` is lower case without options; `options` are as written."""

    raw: str
    text: str
    intent: str
    things: tuple[Thing, ...] = ()
    options: tuple[str, ...] = ()


def parse(raw: str, *, is_video: bool) -> Question:
    """The intent and the named things of a question; every text gives some intent."""
    lines = [line.strip() for line in raw.strip().splitlines() if line.strip()]
    options = tuple(m[2].strip() for line in lines if (m := _OPTION.match(line)))
    body = " ".join(line for line in lines if not _OPTION.match(line) and not re.match(r"answer with (the|a) letter", line.lower()))
    text = re.sub(r"\s+", " ", body.lower().replace("gray", "grey").replace("color", "colour")).strip()
    things = things_in(text)
    start = re.search(r"starts? (?:in|at|on) the ((?:top|bottom) (?:left|right)|top|bottom|left|right)", text)
    if start and things and not things[0].place:
        things = (replace(things[0], place=start[1]), *things[1:])
    return Question(raw, text, _intent(text, is_video), things, options)


def things_in(text: str) -> tuple[Thing, ...]:
    """Phrases such as `red star`, `white card`, `object that starts in the top left`, in the order of the text."""
    found: list[Thing] = []
    for match in re.finditer(
        rf"\b(?:({_COLOURS})\s+)?(?:small |big |large |little )?({_SHAPES}|signs?|cards?|objects?|things?|one)\b", text
    ):
        colour, noun = COLOUR_WORDS.get(match[1] or "", ""), match[2]
        shape = next((SHAPE_WORDS[w] for w in SHAPE_WORDS if re.fullmatch(rf"{w}(es|s)?", noun)), "")
        if not colour and not shape and noun not in ("sign", "card"):
            continue
        if noun in ("one", "plus") and not colour:
            continue
        after = text[match.end() : match.end() + 48]
        place = m[1] if (m := re.match(r" (?:that|which) starts? (?:in|at|on) the ([a-z]+(?: left| right)?)", after)) else ""
        found.append(Thing(colour, shape, noun.rstrip("s") if noun in ("signs", "cards") else noun, match[0].strip(), place))
    return tuple(found)


_INTENTS_VIDEO: tuple[tuple[str, str], ...] = (
    ("order_true", r"is it true that .* before |in this order"),
    ("order", r"(happens|comes|occurs) (first|last)|which (happens|comes) (first|last)|what happens first|what comes first"),
    ("timed_text_before", r"(before it changed|what was it at first)"),
    ("timed_text_after", r"(after it has changed|new text)"),
    ("timed_text", r"(for a moment|while it shows|flashes|blank most of the time|which word|shows? text|text .*visible)"),
    ("when_appears", r"(when|at what time|at which second|what second).*(\bappear|show up|shows up|first visible|turn up|arrive|enter)"),
    ("when_disappears", r"(when|at what time|at which second|what second).*(disappear|vanish|gone|leave)"),
    ("when_changes", r"(when|at what time|at which second|what second).*(change|turn another colour|switch)"),
    ("when_moves", r"(when|at what time|at which second|what second).*(move|start)"),
    ("when_cut", r"(when|at what time|at which second).*(cut|scene)"),
    ("speed", r"how (fast|quick)|what speed|speed of"),
    ("faster", r"\b(faster|slower|fastest|slowest|quicker)\b"),
    ("turn_side", r"(turn left or right|left turn or a right turn|to its left or to its right|which way does .* turn)"),
    ("turn_after", r"(after it has turned|after its turn|after turning)"),
    ("end_place", r"(end up|at the end|does it end|last frame|come out|finish|end\b)"),
    ("direction", r"(which way|what direction|which direction|in which direction|where .*(mov|go))"),
)
_SUM = r"(what is|how much is|leave the picture aside).* plus |^add (\w+) and (\w+)\W*$"
_INTENTS: tuple[tuple[str, str], ...] = (
    ("text_there", r"(is|are) there (any )?(text|writing|words|letters)|can you read any"),
    ("light", r"background.*(dark|light)"),
    ("sign_sum", r"(sum of the numbers|add the number)"),
    ("sign_difference", r"(by how much|difference between the numbers).*sign"),
    ("sign_compare", r"(larger|smaller|higher|lower|bigger|greater) number"),
    ("chart_difference", r"(how much more is|difference between the bars)"),
    ("chart_best", r"(bar has the|belongs to the|(highest|longest|largest|lowest|shortest|smallest) bar)"),
    ("chart_value", r"(\bbar\b|\bchart\b)"),
    ("table_best", r"(which row|who has the most|leads in the column)"),
    ("table_cell", r"(in the table|value of .* for |look up|row .* column)"),
    ("spot", r"(spot|dot) (on|inside|in)|has a small spot"),
    ("count_big", r"how many (big|large) "),
    ("count_card", r"(on|holds?).*\bcard\b.*|card holds"),
    ("count", r"(how many|count the|number of)"),
    ("closer", r"(closer|nearer) to"),
    ("size_which", r"(which|what).*(larger|smaller|largest|smallest|bigger|biggest)|compare their sizes|larger or smaller"),
    ("relation_side", r"(left or right|above or below|left or to the right)"),
    ("relation_true", r"^(looking at the picture, )?is (the|there|a|an) .*(left of|right of|above|below)"),
    ("shape", r"(what|which) shape|shape is it|shape does"),
    (
        "read",
        r"(\bsays?\b|\bread\b|written|which text|what text|title|heading|\btotal\b|\bdate\b|phone|number plate|name of"
        r"|what word|printed|spell|headline|amount|price|\btax\b|what time is on)",
    ),
    ("colour", r"(what|which) colours?\b|colour is it|of which colour"),
    ("how_big", r"how (big|large|tall|wide)|what size"),
    ("orientation", r"(orientation|tilted|angle|horizontal or vertical)"),
    ("where", r"^where|in which (part|corner)|position of"),
    ("unknown", r"^(is|are|does|do|did|was|were|has|have|can|why|who) "),
)


def _intent(text: str, is_video: bool) -> str:
    if re.search(_SUM, text):
        return "sum"
    for intent, pattern in (*(_INTENTS_VIDEO if is_video else ()), *_INTENTS):
        if re.search(pattern, text):
            return intent
    return "describe_video" if is_video else "describe"


def number_of(word: str) -> int | None:
    """An integer from digits or a number word."""
    word = word.strip(" ?.!,")
    return int(word) if re.fullmatch(r"\d{1,6}", word) else _NUMBERS.get(word)


def choose(options: tuple[str, ...], answer: str) -> str:
    """The letter of the option that fits an answer best; the answer itself when there are no options."""
    if not options:
        return answer
    from rapidfuzz.distance import JaroWinkler

    folded = answer.lower().strip()
    scores = []
    for option in options:
        words = option.lower().strip()
        if words == folded:
            return LETTERS[options.index(option)]
        scores.append(_likeness(words, folded, JaroWinkler.normalized_similarity(words, folded)))
    return LETTERS[max(range(len(options)), key=lambda i: (scores[i], -i))]


def _likeness(option: str, answer: str, similarity: float) -> float:
    """Numbers by nearness, denials together, words by containment, then by spelling."""
    one, two = re.search(r"-?\d+(\.\d+)?", option), re.search(r"-?\d+(\.\d+)?", answer)
    if one and two:
        return 2.0 - abs(float(one[0]) - float(two[0])) / (1 + abs(float(two[0])))
    denial = ("there is no", "no ", "never", "none")
    if answer.startswith(denial) and option.startswith(denial):
        return 3.0
    if option in answer or answer in option:
        return 1.5
    return similarity
