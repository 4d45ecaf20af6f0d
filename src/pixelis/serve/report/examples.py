"""Example trajectories as cards: the question, each step with what it found drawn on the medium, and the answer beside the right one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from pixelis.core import jsontext
from pixelis.core.errors import DataError, PixelisError
from pixelis.core.media import Medium, open_medium
from pixelis.core.ops import Output
from pixelis.core.store import sha256
from pixelis.core.trajectory import Step
from pixelis.data.world.items import render
from pixelis.serve.draw import picture
from pixelis.serve.report.sources import Evaluation, Example
from pixelis.serve.report.table import in_html
from pixelis.serve.viewer.embed import Budget, jpeg_url

SIDE_PX = 320
QUALITY = 72
MAX_STEPS = 6
"""Of an example; a longer one says how many more there were."""
MAX_LETTERS = 600
"""Of one text."""


class Media:
    """The media of examples: from the run where it kept them, else made again from the item, once for all runs."""

    def __init__(self) -> None:
        self._made: dict[str, bytes] = {}

    @contextmanager
    def open(self, example: Example) -> Iterator[Medium]:
        """Raises: DataError: there is no medium of that content."""
        info, path = example.trajectory.medium, example.run.blob_path(example.trajectory.medium.sha256)
        if not path.is_file() and info.sha256 not in self._made:
            data = render(example.item)
            if sha256(data) != info.sha256:
                raise DataError(f"{info.name} is not in the run, and PixelWorld makes it otherwise by now")
            self._made[info.sha256] = data
        with open_medium(path if path.is_file() else self._made[info.sha256], name=info.name) as medium:
            yield medium


def examples_html(evaluation: Evaluation, media: Media, budget: Budget) -> str:
    """All examples of an evaluation, a line per family: the first right item, and the first wrong one.

    Args:
        budget: bytes of pictures that the page may still take.
    """
    families = dict.fromkeys(example.score.family for example in evaluation.examples)
    return cards_html({name: [e for e in evaluation.examples if e.score.family == name] for name in families}, media, budget)


def cards_html(groups: Mapping[str, Sequence[Example]], media: Media, budget: Budget) -> str:
    """Cards under a heading for each group that has any."""
    parts = []
    for name, few in groups.items():
        if few:
            cards = "\n".join(_card(example, media, budget) for example in few)
            parts.append(f'<h4>{in_html(name)}</h4>\n<div class="cards">\n{cards}\n</div>')
    return "\n".join(parts)


def _card(example: Example, media: Media, budget: Budget) -> str:
    trajectory, item = example.trajectory, example.item
    shown = trajectory.steps[:MAX_STEPS]
    pictures = _pictures(example, media, budget, [step.result.output for step in shown])
    steps = [_step(number, step, example.score.valid[number], pictures[number]) for number, step in enumerate(shown)]
    if not steps:
        steps = [f'<li><p class="quiet">no step</p>{pictures[0]}</li>']
    rest = len(trajectory.steps) - len(shown)
    if rest > 0:
        steps.append(f'<li class="quiet">and {rest} more steps, which pixelis view shows</li>')
    verdict = "right" if example.score.right else "wrong"
    said = trajectory.answer if trajectory.answer is not None else f"none ({trajectory.stop.replace('_', ' ')})"
    return (
        f'<article class="card {verdict}">\n<p class="badge">{verdict}</p><p class="id">{in_html(item.id)}</p>\n'
        f'<p class="question">{_short(trajectory.question)}</p>\n<ol>\n' + "\n".join(steps) + "\n</ol>\n"
        f'<p class="answer">answer: <b>{_short(said)}</b>; right: <b>{_short(item.answer)}</b></p>\n</article>'
    )


def _step(number: int, step: Step, is_valid: bool, image: str) -> str:
    call = _short(f"{step.call.op} {jsontext.dumps(step.call.arguments)}") if step.call is not None else _short(step.text)
    if step.result.is_ok:
        state, word = ("valid", "valid") if is_valid else ("invalid", "not valid")
    else:
        state, word = "invalid", step.result.error.kind.replace("_", " ") if step.result.error else "switched off"
    said = f'<p class="quiet">{in_html(step.result.error.message[:MAX_LETTERS])}</p>' if step.result.error else ""
    thought = f"<p>{_short(step.thought)}</p>" if step.thought else ""
    shown = image if step.result.is_ok else ""
    return f'<li>{thought}<p class="call">{call}</p><p class="state {state}">{in_html(word)}</p>{said}{shown}</li>'


def _short(text: str) -> str:
    return in_html(text if len(text) <= MAX_LETTERS else f"{text[:MAX_LETTERS]}…")


def _pictures(example: Example, media: Media, budget: Budget, outputs: Sequence[Output | None]) -> list[str]:
    """An image of each output on its frame, or words where it cannot be shown; the frame alone where there is no step."""
    if outputs and not any(outputs):
        return [""] * len(outputs)
    try:
        with media.open(example) as medium:
            return [_picture(medium, output, budget) if output is not None or not outputs else "" for output in outputs or (None,)]
    except PixelisError as error:
        return [f'<p class="quiet">No picture: {in_html(str(error))}</p>', *[""] * (len(outputs) - 1)]


def _picture(medium: Medium, output: Output | None, budget: Budget) -> str:
    url = jpeg_url(picture(medium, output, max_side=SIDE_PX), QUALITY)
    if not budget.take("pictures", len(url)):
        return '<p class="quiet">The picture is left out: the page has no room for more.</p>'
    return f'<img src="{url}" alt="{in_html(output.op if output else "the first frame")}">'
