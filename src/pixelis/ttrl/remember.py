"""What a memory keeps of a query, and what a later query reads from it."""

from __future__ import annotations

import json
from typing import Any

from pydantic import TypeAdapter, ValidationError

from pixelis.core.errors import DataError
from pixelis.retrieval.entry import Neighbour
from pixelis.ttrl.evidence import Evidence
from pixelis.ttrl.facts import NeighbourFacts, QueryFacts, RolloutFacts
from pixelis.ttrl.reliability import Cast

MAX_EVIDENCE_BYTES = 40_000
"""Of an exemplar's evidence in the memory; a longer one is not kept, and then is no reference."""

_EVIDENCE, _CASTS = TypeAdapter(tuple[Evidence, ...]), TypeAdapter(tuple[Cast, ...])


def entry_facts(facts: QueryFacts, exemplar: RolloutFacts) -> dict[str, Any]:
    """Votes of all rollouts, and the evidence of one, as plain JSON values."""
    votes = tuple(Cast(task="", worker=one.worker, label=one.label) for one in facts.rollouts if one.label is not None)
    evidence = _EVIDENCE.dump_json(exemplar.evidence)
    return {
        "votes": json.loads(_CASTS.dump_json(votes)),
        "evidence": json.loads(evidence) if len(evidence) <= MAX_EVIDENCE_BYTES else [],
    }


def neighbour_facts(found: Neighbour) -> NeighbourFacts:
    """A retrieved entry as what a decision is made from.

    Raises:
        DataError: the entry was written by something else.
    """
    entry = found.entry
    try:
        votes = _CASTS.validate_json(json.dumps(entry.facts["votes"]))
        evidence = _EVIDENCE.validate_json(json.dumps(entry.facts["evidence"]))
    except (KeyError, ValidationError) as error:
        raise DataError(f"memory entry {entry.id} holds no votes and evidence ({error}); it is not one of this loop's") from None
    return NeighbourFacts(
        id=entry.id,
        similarity=max(-1.0, min(1.0, found.similarity)),
        medium=entry.medium,
        votes=votes,
        evidence=evidence,
        intrinsic=entry.value,
        answer=entry.answer,
    )
