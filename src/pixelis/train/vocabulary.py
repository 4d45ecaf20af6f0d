"""A small model's own tokeniser: words, phrases of the wire format and coordinates as single tokens, all else byte by byte.

A coordinate inside brackets is one token, so that a place is one choice among neighbours: written digit by digit, the second digit is a
saw-tooth of the place, and small models do not find it (docs/decisions/0008). Numbers elsewhere are counted with, and stay digits.

A learnt merge would cut a word it has never seen into pieces it has never seen together, and a small model could not copy it from a sign
in capitals into an answer in lower case. So there are no merges: what is not in the vocabulary is spelt. Any text can be written
(byte-level), and transformers loads the folder without code of ours.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from pixelis.core.ops import EVENTS, OPS, PROPERTIES
from pixelis.data.world.colours import COLOURS
from pixelis.data.world.raster import SHAPES
from pixelis.data.world.words import WORDS
from pixelis.policy.vlm_make import CHAT_TEMPLATE, SPECIALS, TAGS

PHRASES = (
    '\n{"name": "', '", "arguments": {"', '": "', '": [', '": ', '", "', '"}}\n', "]}}\n", "}}\n", '], "', ', "', "], ", ", ",
    '\n{"step": ', ', "op": "', '", "what": "', '", "attributes": [{"name": "', '", "value": "', '", "value": ', ', "score": ',
    '", "score": ', '}, {"name": "', "}]}\n", '", "spans": [{"text": "', '", "spans": []}\n', '", "bbox_2d": [', '], "score": ',
    '], "score": 1.0}, {"text": "', '}, {"text": "', '], "area": ', ', "unit": "', '", "id": ', ', "track": [{"t": ', ']}, {"t": ',
    ', "bbox_2d": [', ']}], "score": ', '", "event": "', '", "segments": [{"from_s": ', '", "segments": []}\n', ', "to_s": ',
    '}, {"from_s": ', '", "error": "', '", "message": "', '"}\n', "}\n", '], "size": [', "]}\n", " seconds>", "<answer>", "</answer>",
    "<answer>there is no ", "\n<answer>", "\n<answer>there is no ", "\nAnswer with the letter.", "\nA. ", "\nB. ", "\nC. ", "\nD. ",
    "user\n", "assistant\n", "system\n", '{"', '"}', "px/s", "px2", "frame widths/s", "frame widths", "of frame",
)  # fmt: skip
"""Stretches of JSON and of the chat that stand as one token, digits left out."""

MAX_COORDINATE = 1000
COORDINATE = r"(?<=\[|\d, )(?:1000|[1-9]\d{0,2}|0)(?=, \d|\])"
"""A whole number from 0 to 1000 in a bracketed list of numbers."""

_KEYS = (
    "bbox_2d",
    "point",
    "label",
    "frame",
    "scale",
    "ref",
    "from_s",
    "to_s",
    "event",
    "what",
    "other",
    "step",
    "hidden",
    "true",
    "false",
    "null",
)


def make_vocabulary(words: Sequence[str] | None = None) -> Any:
    """A tokeniser with these words as tokens.

    Args:
        words: with the blank before them where they have one; PixelWorld's (`words.json`) when left out. `frequent_words` finds them.

    Returns:
        A `PreTrainedTokenizerFast` with Qwen's special tokens and chat template.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    phrases = sorted(dict.fromkeys((*PHRASES, *(f"{word}" for word in (*_KEYS, *OPS)))), key=lambda p: (-len(p), p))
    words = world_words() if words is None else list(words)
    entries = dict.fromkeys([*alphabet, *(_as_bytes(t) for t in (*phrases, *words)), *map(str, range(MAX_COORDINATE + 1))])
    learner = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(entries)}, merges=[], ignore_merges=True))
    pieces = "|".join([*map(re.escape, phrases), COORDINATE, r" ?\p{L}+", r"\p{N}", r"\s", r"[^\s\p{L}\p{N}]"])
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pieces), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    learner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=learner,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=[t for t in SPECIALS if t not in ("<|im_end|>", "<|endoftext|>")],
        clean_up_tokenization_spaces=False,
    )
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer.chat_template = CHAT_TEMPLATE.strip()
    return tokenizer


def world_words() -> list[str]:
    """The words of PixelWorld's questions, of what its teacher says and of what the tools return."""
    return json.loads((Path(__file__).parent / "words.json").read_text(encoding="utf-8"))


def frequent_words(corpus: Iterable[str], *, room: int = 1024, min_count: int = 3) -> list[str]:
    """The words of a corpus that are worth a token, most frequent first behind the world's closed vocabulary.

    Words that signs show are never among them: they must be spelt, or a word that no sign of the training split shows could not be read.

    Args:
        corpus: texts that hold what the model will often read and write: questions, thoughts, calls, results.
        room: words at most.
        min_count: words seen less often are spelt.
    """
    spelt = {form for word in WORDS for form in (word, word.upper(), word.capitalize())}
    count: Counter[str] = Counter()
    for text in corpus:
        count.update(re.findall(r" ?[A-Za-z]+", text))
    always = [f"{lead}{w}" for w in (*COLOURS, *SHAPES, *PROPERTIES, *EVENTS) for lead in ("", " ")]
    frequent = [w for w, n in sorted(count.items(), key=lambda pair: (-pair[1], pair[0])) if n >= min_count and w.strip() not in spelt]
    return list(dict.fromkeys([*always, *frequent]))[:room]


def _as_bytes(text: str) -> str:
    """A text in the letters that stand for bytes in a byte-level vocabulary."""
    from tokenizers import pre_tokenizers

    pieces = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    return "".join(piece for piece, _ in pieces)
