"""What TEMP may be asked for, and what it answers with: event words, colour filters, segments, suppression in time.

Source: proposals with scores and non-maximum suppression by temporal IoU, as UniVTG (arXiv 2307.16715) post-processes its windows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from pixelis.core.errors import ToolError
from pixelis.core.geometry import TimeSpan
from pixelis.tools.engines.prop_colour import COLOUR_NAMES, COLOUR_WORDS

KINDS = ("appears", "disappears", "changes", "moves", "cut")
MAX_SEGMENTS = 8
MAX_SHOTS = 16  # shots tile the window: dropping some would leave holes in the story

# Order matters: "disappears" holds "appear", "vanishes from the scene" holds "scene", "stops moving" is about motion.
_WORDS: tuple[tuple[str, str], ...] = (
    (
        "disappears",
        r"disappear\w*|vanish\w*|(is|are|gets?|got) (gone|removed|hidden|taken)|remov\w+|goes away|go away|leaves?|leaving|left the"
        r"|exits?|hides?",
    ),
    (
        "appears",
        r"appear\w*|shows? up|showing up|(becomes?|is|are) visible|pops? up|enters?|entering|arriv\w+|comes? (in|into)"
        r"|(is|are) (added|placed|shown|put)|emerg\w+",
    ),
    (
        "changes",
        r"chang\w+|turns? (on|off)|switch\w*|lights? up|blink\w*|(becomes?|turns?|gets?|goes) (\w+ )?(COLOUR|bright\w*|dark\w*|light\w*)"
        r"|fad\w+|brighten\w*|darken\w*|dims?|differ\w*",
    ),
    (
        "moves",
        r"mov(e|es|ed|ing|ement)|motion|walk\w*|runs?|running|slid\w+|driv\w+|rotat\w+|turn(s|ing)?|danc\w+|jump\w*|fl(y|ies|ying)"
        r"|falls?|falling|roll\w*|travel\w*|swim\w*",
    ),
    ("cut", r"cuts?|scenes?|shots?"),
)
_COLOUR = "|".join(COLOUR_WORDS)
_PATTERNS = tuple((kind, re.compile(rf"\b(?:{words.replace('COLOUR', _COLOUR)})\b")) for kind, words in _WORDS)
_COLOUR_PATTERN = re.compile(rf"\b({_COLOUR})\b")


@dataclass(frozen=True)
class Segment:
    """One answer: a stretch of time, `end_s` exclusive, and how clear the evidence for it is, in [0, 1]."""

    start_s: float
    end_s: float
    score: float


@dataclass(frozen=True)
class Request:
    """An event text after parsing: one of `KINDS`, and the colours the thing must have (empty: any)."""

    kind: str
    colours: frozenset[str]


def parse_event(event: str) -> Request:
    """One of the event kinds and a colour filter out of a word or a short sentence, whatever its case.

    Raises:
        ToolError: the text names no event.
    """
    text = " ".join(str(event).lower().split())[:300]
    colours = frozenset(COLOUR_WORDS[word] for word in _COLOUR_PATTERN.findall(text))
    for kind, pattern in _PATTERNS:
        if pattern.search(text):
            return Request(kind, colours)
    raise ToolError(
        "bad_arguments",
        f"no event in {text[:40]!r}: write one of {', '.join(KINDS)}, or a sentence with such a verb and at most a colour "
        f"({', '.join(COLOUR_NAMES)}), e.g. 'a red square appears'",
    )


def suppress(segments: Sequence[Segment], *, tiou: float = 0.7, keep: int = MAX_SEGMENTS) -> list[Segment]:
    """Best first, without any that overlaps a better one by `tiou` or more; ties go to the earlier, then the longer."""
    kept: list[Segment] = []
    for segment in sorted(segments, key=lambda s: (-s.score, s.start_s, -s.end_s)):
        span = TimeSpan(segment.start_s, segment.end_s)
        if all(span.tiou(TimeSpan(other.start_s, other.end_s)) < tiou for other in kept):
            kept.append(segment)
        if len(kept) == keep:
            break
    return kept
