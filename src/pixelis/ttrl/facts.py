"""What a decision is made from: one record per query, complete, that goes to JSON and back without losing a bit.

A field that is None is unknown. What can be made again from these facts is not among them: calibrated confidences, VisFid, weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from pixelis.core.errors import DataError
from pixelis.core.ops import record
from pixelis.core.trajectory import Trajectory
from pixelis.data.world.item import LETTERS
from pixelis.data.world.score import chosen_letter, fold
from pixelis.rewards.answer import is_flood, normalised
from pixelis.ttrl.evidence import Evidence, evidence_of
from pixelis.ttrl.reliability import Cast, signature

T = TypeVar("T")


@record
class RolloutFacts:
    """One rollout of the query."""

    id: str
    """Of its trajectory."""
    answer: str | None
    """Its words; None for no answer, or a flood of them."""
    label: str | None
    """The answer as it is voted on: `label_of`."""
    ranking: tuple[str, ...] = ()
    """Labels of all answers that it considered, best first; empty where it gave only one."""
    confidence: float | None = None
    """The policy's own probability of the answer, in [0, 1], before calibration."""
    entropy_nats: float | None = None
    """Mean token entropy on decisive steps; None where there is no such step."""
    curiosity: float | None = None
    coherence: float | None = None
    evidence: tuple[Evidence, ...] = ()
    """One entry per step."""

    def __post_init__(self) -> None:
        """Raises: ValueError: a value outside its range."""
        if self.confidence is not None and not 0 <= self.confidence <= 1:
            raise ValueError(f"rollout {self.id}: a confidence of {self.confidence} is no probability")
        if self.entropy_nats is not None and not self.entropy_nats >= 0:
            raise ValueError(f"rollout {self.id}: an entropy of {self.entropy_nats} nats")
        if self.label is not None and self.ranking and self.ranking[0] != self.label:
            raise ValueError(f"rollout {self.id}: it answers {self.label!r}, but ranks {self.ranking[0]!r} first")

    @property
    def worker(self) -> str:
        return signature([step.op for step in self.evidence])

    @property
    def num_steps(self) -> int:
        return len(self.evidence)

    @property
    def num_invalid(self) -> int:
        """Calls that no tool answered: malformed, with bad arguments, or failed; not those that the machine failed."""
        return sum(not step.is_ok and not step.is_excused for step in self.evidence)

    @property
    def intrinsic(self) -> float:
        """Curiosity + coherence; NaN where either is unknown."""
        return float("nan") if self.curiosity is None or self.coherence is None else self.curiosity + self.coherence


@record
class NeighbourFacts:
    """One earlier query that retrieval found, with what memory holds of it."""

    id: str
    similarity: float
    """To the query, by retrieval."""
    medium: str
    """As in `QueryFacts`."""
    votes: tuple[Cast, ...] = ()
    """Its rollouts' answers, all of one task."""
    evidence: tuple[Evidence, ...] = ()
    """Of its exemplar: references for VisFid where the medium is the same."""
    intrinsic: float | None = None
    """Curiosity + coherence of its exemplar."""
    answer: str | None = None
    """The label that its query came to."""
    stress: Literal["", "flip", "near_miss"] = ""
    """What was done to it on purpose, see `ttrl/stress.py`; empty for what retrieval found."""


@record
class QueryFacts:
    """All that the decisions on one query were made from."""

    id: str
    medium: str
    """Names the medium family: media whose pixels and times mean the same, such as a file and its copies. Its SHA-256 will do."""
    rollouts: tuple[RolloutFacts, ...]
    neighbours: tuple[NeighbourFacts, ...] = ()

    def __post_init__(self) -> None:
        """Raises: ValueError: no rollouts, or two of one name."""
        if not self.rollouts:
            raise ValueError(f"query {self.id}: no rollouts, nothing to decide")
        for what, parts in (("rollouts", self.rollouts), ("neighbours", self.neighbours)):
            if len({part.id for part in parts}) != len(parts):
                raise ValueError(f"query {self.id}: two of its {len(parts)} {what} have one id")

    def votes(self) -> tuple[Cast, ...]:
        """Votes of the query's rollouts and of all neighbours; a neighbour's task is its own, whatever name it was given."""
        own = [Cast(task="query", worker=r.worker, label=r.label) for r in self.rollouts if r.label is not None]
        others = [Cast(task=f"neighbour {n.id}", worker=v.worker, label=v.label) for n in self.neighbours for v in n.votes]
        return tuple(own + others)


def label_of(answer: str | None, choices: Sequence[str] = ()) -> str | None:
    """An answer as it is voted on: the option's letter where it names one, else its folded words; None for no answer.

    Args:
        choices: the question's options, in order.
    """
    if answer is None or not answer.strip():
        return None
    # Folding drops articles, and would lose the answer "A".
    return chosen_letter(answer, choices) or fold(answer) or normalised(answer) or None


def in_words(answer: str | None, choices: Sequence[str] = ()) -> str | None:
    """An answer as evidence is looked for in it: the words of the option that it names, else as it is."""
    return dict(zip(LETTERS, choices, strict=False)).get(label_of(answer, choices) or "", answer)


def rollout_facts(
    trajectory: Trajectory,
    *,
    choices: Sequence[str] = (),
    ranking: Sequence[str] = (),
    confidence: float | None = None,
    entropy_nats: float | None = None,
    curiosity: float | None = None,
    coherence: float | None = None,
) -> RolloutFacts:
    """The facts of one rollout. An answer in a flood of text is none.

    Args:
        choices: the question's options; the chosen one's words then stand for its letter where evidence is looked for in the answer.
    """
    answer = None if trajectory.answer is None or is_flood(trajectory.final_text) else trajectory.answer
    return RolloutFacts(
        id=trajectory.id,
        answer=answer,
        label=label_of(answer, choices),
        ranking=tuple(ranking),
        confidence=confidence,
        entropy_nats=entropy_nats,
        curiosity=curiosity,
        coherence=coherence,
        evidence=evidence_of(trajectory, answer=in_words(answer, choices) or ""),
    )


_FACTS = TypeAdapter(QueryFacts)


def dump_facts(facts: QueryFacts) -> bytes:
    """One line of JSON without its newline."""
    return _FACTS.dump_json(facts)


def load_facts(data: bytes, *, where: str) -> QueryFacts:
    """The facts in a line of JSON.

    Args:
        where: file and line, for the error.

    Raises:
        DataError: not JSON, or a missing, unknown, mistyped or impossible field.
    """
    return load_record(_FACTS, data, where=where)


def load_record(adapter: TypeAdapter[T], data: bytes, *, where: str) -> T:
    """A record in a line of JSON, or the message that says what is wrong with it."""
    try:
        return adapter.validate_json(data)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"]) or "the line"
        raise DataError(
            f"{where}: {field}: {first['msg']} ({error.error_count()} problems in all); its decision cannot be made again"
        ) from None
