"""lmms-eval asks the agent: its requests as questions, generation only.

A request names a document (task, split, number) and a function that shows it: `doc_to_messages` for models of its kind "chat",
`doc_to_visual` beside the finished text for its kind "simple". Both kinds are taken. Source: lmms-eval, `lmms_eval/api` (0.3 to 0.8).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

from pixelis.core.errors import ConfigError
from pixelis.eval.harness.asker import Asker, Question
from pixelis.eval.harness.visuals import DAMAGE, damaged

NAME = "lmms-eval"
MODEL = "pixelis"
"""What follows `--model`."""


class LmmsEvalAnswers:
    """An lmms-eval model whose answers are the agent's; to be mixed with `lmms_eval.api.model.lmms`, first.

    Args:
        batch_size, max_batch_size, device: lmms-eval gives them to every model; the agent has no use for them.
        options: for `open_asker`, from `--model_args`.
    """

    is_simple = True
    open_asker: Callable[..., Asker]
    """Opens the agent; set by the class that mixes this in."""
    task_dict: Mapping[str, Mapping[str, Any]]
    """Documents by task and split; lmms-eval fills it in."""

    def __init__(self, batch_size: object = None, max_batch_size: object = None, device: object = None, **options: Any) -> None:
        super().__init__()
        self.asker = type(self).open_asker(**options)

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """The agent's final answers in the order of the requests; an empty text where it gave none.

        `until` ends an answer. `max_new_tokens`, `temperature` and the like are not obeyed: they are meant for one turn of a model, and
        would cut the agent off between two calls. Its own are in the run folder.

        Raises:
            ConfigError, DataError: as `Asker.answer`.
        """
        return self.asker.answer(self._questions(requests))

    def loglikelihood(self, requests: Sequence[Any]) -> NoReturn:
        """Raises: ConfigError: always; the agent writes answers, and weighs no given ones."""
        raise ConfigError(
            f"{_tasks(requests)}: {len(requests)} requests want the likelihood of given texts, and the agent only writes answers: "
            "choose tasks whose output_type is generate_until"
        )

    def generate_until_multi_round(self, requests: Sequence[Any]) -> NoReturn:
        """Raises: ConfigError: always; the agent answers one question about one medium."""
        raise ConfigError(
            f"{_tasks(requests)}: {len(requests)} requests go on after the first answer, and the agent answers once: "
            "choose tasks whose output_type is generate_until"
        )

    def _questions(self, requests: Sequence[Any]) -> Iterator[Question]:
        return (question_of(request.args, self.task_dict) for request in requests)


def question_of(args: Sequence[Any], documents: Mapping[str, Mapping[str, Any]]) -> Question:
    """A request of the kind "chat" or "simple" as a question; which one it is shows in the order of its parts.

    Args:
        args: (text, options, doc_to_visual, number, task, split), or (text, doc_to_messages, options, number, task, split), the text of
            the latter left out by some versions.
        documents: by task, split and number.

    Raises:
        ConfigError: it shows something that the agent cannot be asked about.
        DataError: a picture is damaged; names the document.
    """
    *head, number, task, split = args
    name = f"{task}/{split}/{number}"
    is_chat = callable(head[-2])
    show, options = head[-2:] if is_chat else reversed(head[-2:])
    try:
        shown = show(documents[task][split][number])  # a picture of the data set is decoded here at the latest
    except DAMAGE as error:
        raise damaged(name, error) from error
    text, visuals = read_messages(shown, name=name) if is_chat else (head[0], _listed(shown))
    until = options.get("until") or ()
    return Question(id=name, text=text, visuals=visuals, until=(until,) if isinstance(until, str) else tuple(until))


def read_messages(messages: Sequence[Mapping[str, Any]], *, name: str) -> tuple[str, tuple[object, ...]]:
    """The texts of a conversation that holds one question, a line each, and what it shows.

    Raises:
        ConfigError: there are answers in it, or parts that are neither text, image nor video.
    """
    texts, visuals = [], []
    for message in messages:
        if message["role"] == "assistant":
            raise ConfigError(f"{name}: it shows answers to copy, and the agent is asked one question: leave out --num_fewshot")
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part["type"] == "text":
                texts.append(part["text"])
            elif part["type"] in ("image", "video"):
                visuals.append(part["url"])
            else:
                raise ConfigError(f"{name}: it holds {part['type']}, and the agent only sees: choose another task")
    return "\n".join(texts), tuple(visuals)


def register(models: Any, manifest: Callable[..., Any] | None, *, chat: str, simple: str) -> None:
    """Make `--model pixelis` known to an lmms-eval that is already imported.

    Args:
        models: its module `lmms_eval.models`.
        manifest: its class `ModelManifest`; None for a version that has tables of names instead.
        chat, simple: dotted paths of the two classes.
    """
    if manifest is not None:
        models.MODEL_REGISTRY_V2.register_manifest(manifest(model_id=MODEL, chat_class_path=chat, simple_class_path=simple), overwrite=True)
    elif hasattr(models, "AVAILABLE_SIMPLE_MODELS"):  # its table of chat models takes no dotted path in all versions
        models.AVAILABLE_SIMPLE_MODELS[MODEL] = simple
    else:
        models.AVAILABLE_MODELS[MODEL] = simple


def _listed(shown: object) -> tuple[object, ...]:
    if shown is None:
        return ()
    return tuple(shown) if isinstance(shown, (list, tuple)) else (shown,)


def _tasks(requests: Sequence[Any]) -> str:
    names = sorted({str(getattr(request, "task_name", None) or request.args[-2]) for request in requests})
    return ", ".join(names) or "no task"
