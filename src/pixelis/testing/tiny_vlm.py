"""A small, randomly initialised Qwen3-VL checkpoint with Qwen's tokenizer class, for tests of policies and trainers."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pixelis.core.arguments import tool_schemas
from pixelis.policy import vlm_make
from pixelis.policy.prompt import system_text
from pixelis.policy.vlm_make import CHAT_TEMPLATE, SPECIALS, TAGS


def make_checkpoint(folder: str | Path, *, corpus: Iterable[str] | None = None, vocab_size: int = 1024, **sizes: Any) -> Path:
    """Write a checkpoint: model, tokenizer, image processor and chat template.

    Args:
        corpus: texts that the tokenizer's merges are learnt from; the system message and examples of calls when left out.
        vocab_size: entries of the tokenizer, special tokens included; at least 256 + the special tokens.
        sizes: see `pixelis.policy.vlm_make.make_checkpoint`.
    Returns:
        The folder.
    Raises:
        NotInstalled: torch, transformers or tokenizers is missing.
    """
    return vlm_make.make_checkpoint(folder, make_tokenizer(corpus, vocab_size), **sizes)


def make_tokenizer(corpus: Iterable[str] | None = None, vocab_size: int = 1024):
    """Qwen's tokenizer class with merges learnt from `corpus`: byte-level, every digit a token of its own.

    Returns:
        A `Qwen2Tokenizer` with `SPECIALS`, `TAGS` and `CHAT_TEMPLATE`.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, trainers
    from transformers import Qwen2Tokenizer

    learner = Tokenizer(models.BPE())
    plain = Qwen2Tokenizer()
    learner.normalizer = plain._tokenizer.normalizer
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex("|".join(map(_escape, (*SPECIALS, *TAGS)))), behavior="removed"), plain._tokenizer.pre_tokenizer]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(SPECIALS) - len(TAGS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(list(corpus) if corpus is not None else _default_corpus(), trainer)
    model = json.loads(learner.to_str())["model"]
    vocab = dict(sorted(model["vocab"].items(), key=lambda item: item[1]))
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=[tuple(pair) for pair in model["merges"]],
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
        additional_special_tokens=[t for t in SPECIALS if t not in ("<|im_end|>", "<|endoftext|>")],
    )
    tokenizer.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer.chat_template = CHAT_TEMPLATE.strip()
    return tokenizer


def _escape(token: str) -> str:
    return token.replace("|", "\\|")


def _default_corpus() -> list[str]:
    calls = [
        f"The {what} is small, I look closer.\n<tool_call>\n"
        + json.dumps({"name": schema["function"]["name"], "arguments": {key: [1, 2]}})
        + "\n</tool_call>"
        for schema in tool_schemas()
        for key in schema["function"]["parameters"]["properties"]
        for what in ("sign", "ball", "number", "person", "object")
    ]
    answers = [f"I see the {c} {s}.\n<answer>{c}</answer>" for c in ("red", "blue", "green", "yellow") for s in ("circle", "square", "car")]
    return [system_text(), *calls, *answers]
