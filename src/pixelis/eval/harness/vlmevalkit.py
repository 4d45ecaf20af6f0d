"""VLMEvalKit asks the agent: its messages as questions, one at a time.

A message is a list of parts, each {"type": "text" | "image" | "video", "value": text or path}. Source: VLMEvalKit, `vlmeval/vlm/base.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from pixelis.core.errors import ConfigError
from pixelis.eval.harness.asker import Asker, Question

NAME = "vlmevalkit"
MODEL = "pixelis"
CLASS = "Pixelis"
"""What a configuration file calls the class."""


class VlmEvalKitAnswers:
    """A VLMEvalKit model whose answers are the agent's; to be mixed with `vlmeval.vlm.base.BaseModel`, first.

    Without `chat_inner`: VLMEvalKit then refuses data sets of several turns, which the agent cannot answer.

    Args:
        options: for `open_asker`.
    """

    INTERLEAVE = False
    VIDEO_LLM = True
    """Videos come as paths, not as frames that were chosen beforehand: choosing moments is the agent's work."""
    allowed_types = ["text", "image", "video"]
    is_api = False
    open_asker: Callable[..., Asker]
    """Opens the agent; set by the class that mixes this in."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.asker = type(self).open_asker(**options)

    def generate_inner(self, message: Sequence[Mapping[str, Any]], dataset: str | None = None) -> str:
        """The agent's final answer; an empty text where it gave none.

        Raises:
            ConfigError, DataError: as `Asker.answer`.
        """
        (answer,) = self.asker.answer([question_of(message, dataset)])
        return answer


def question_of(message: Sequence[Mapping[str, Any]], dataset: str | None) -> Question:
    """A message as a question: its texts a line each, named after the data set and the file, which carries the item's number.

    Raises:
        ConfigError: it has parts that are neither text, image nor video, or answers to copy.
    """
    texts, visuals = [], []
    for part in message:
        if part.get("role") == "assistant":
            raise ConfigError(f"{dataset}: it shows answers to copy, and the agent is asked one question: choose another data set")
        if part["type"] not in VlmEvalKitAnswers.allowed_types:
            raise ConfigError(f"{dataset}: it holds {part['type']}, and the agent only sees: choose another data set")
        (texts if part["type"] == "text" else visuals).append(part["value"])
    file = Path(visuals[0]).name if visuals and isinstance(visuals[0], (str, Path)) else ""
    name = "/".join(part for part in (dataset, file) if part) or "one question"
    return Question(id=name, text="\n".join(texts), visuals=tuple(visuals))


def register(vlm: Any, supported: dict[str, Any], model: type, *, policies: Iterable[str]) -> None:
    """Make the agent known to a VLMEvalKit that is already imported.

    Args:
        vlm: its module `vlmeval.vlm`, where configuration files find classes.
        supported: its table `supported_VLM`, where `--model` finds names.
        model: the class that mixes in `VlmEvalKitAnswers`.
        policies: those that need no more than their name; each becomes a model `pixelis-NAME`, kept in `runs/vlmevalkit-NAME`.
    """
    setattr(vlm, CLASS, model)
    for policy in policies:
        supported[f"{MODEL}-{policy}"] = partial(model, policy=policy, run=f"runs/{NAME}-{policy}")
