"""The memory of a stored run asked again, as each of its queries met it: for more or fewer neighbours, by more or less of the pixels, under
stress.

A query sees what the memory took in before it, by exact comparison. It asks with the key that the memory keeps of it, in half precision: a
similarity may differ from the recorded one by 1e-4, and entries that are as alike may change places. What the earlier queries came to stays
as it was. N items, K the width of a key, D features. Source: paper §3.2.3 "Hybrid retrieval", supplement 9 "Neighborhood pathologies".
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.media import open_medium
from pixelis.core.store import Run, open_run
from pixelis.core.trajectory import Trajectory
from pixelis.policy.base import Task
from pixelis.retrieval.entry import Neighbour
from pixelis.retrieval.index import best_of
from pixelis.retrieval.keys import make_keys
from pixelis.retrieval.memory import read_memory
from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder
from pixelis.ttrl.adapt import MEMORY_FOLDER
from pixelis.ttrl.excluded import TRAJECTORIES_FOLDER
from pixelis.ttrl.facts import NeighbourFacts, RolloutFacts
from pixelis.ttrl.fit import Record
from pixelis.ttrl.observe import Rolled, pixel_key
from pixelis.ttrl.remember import neighbour_facts
from pixelis.ttrl.state import ABOUT_FILE
from pixelis.ttrl.stream import Query
from pixelis.ttrl.stress import NUM_POOL, Stress, stressed, through_journey

NUM_CHECKED = 20
"""Queries whose key is also made again without stress, to see that it is the stored one."""
LEAST_COSINE = 0.999
"""Between the two; half precision costs 1e-4."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Asking:
    """How neighbours are asked for.

    Args:
        num: neighbours; with near misses so many stay of `NUM_POOL` more.
        omega: weight of the pixel cosine.
        stress: what is done to them, and to the pictures of the asking key.
        seed: of what stress draws, with the query's number.
    """

    num: int
    omega: float
    stress: Stress = Stress()
    seed: int = 0


@dataclass(frozen=True)
class Agreement:
    """What asking as the run did finds, beside what the run recorded.

    Attributes:
        same: queries with the same neighbours, by id, answer and stress, in any order.
        count: queries that asked again.
        left_out: queries that the memory did not take in, so that nobody knows their key.
        gap: largest difference of a neighbour's similarity, over the queries in `same`.
    """

    same: int
    count: int
    left_out: int
    gap: float


def asking_of(folder: str | os.PathLike) -> Asking:
    """How the queries of a run asked.

    Raises:
        DataError: no run of pixelis adapt lies there.
    """
    path = Path(folder) / ABOUT_FILE
    try:
        settings = json.loads(path.read_bytes())["settings"]
        stress = Stress(**settings.get("stress", {}))
        return Asking(num=settings["neighbours"], omega=settings["omega"], stress=stress, seed=settings["seed"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: {type(error).__name__}: {error}; no run of pixelis adapt lies there") from None


class PastMemory:
    """A run's memory, as each of its queries met it.

    Args:
        folder: of the run, with its memory and its rollouts.
        records: all that the run recorded, in order.
        progress: called with (queries, of how many) while pictures are encoded.

    Raises:
        DataError: memory or rollouts are missing or damaged, the run asked for no neighbours, or its keys lack a part.
    """

    def __init__(self, folder: str | os.PathLike, records: Sequence[Record], *, progress: Progress = lambda done, of: None) -> None:
        self.own, self._folder, self._progress = asking_of(folder), Path(folder), progress
        for part in (MEMORY_FOLDER, TRAJECTORIES_FOLDER):
            if not (self._folder / part).is_dir():
                raise DataError(f"{self._folder / part} is missing: asking again takes a run's {MEMORY_FOLDER}/ and {TRAJECTORIES_FOLDER}/")
        if not self.own.num:
            raise DataError(f"{folder}: its queries asked for no neighbours (neighbours = 0), so there is nothing to ask again")
        with read_memory(self._folder / MEMORY_FOLDER) as memory:
            self._spec, self._rows_NK, self._entries = memory.spec, memory.rows(), list(memory.entries())
        if self._spec.omega in (0, 1):
            part = "pixels" if self._spec.omega == 0 else "text"
            raise DataError(f"{folder}: its keys hold no {part} (omega = {self._spec.omega:g}), so no other omega can be asked for")
        place = {entry.id: position for position, entry in enumerate(self._entries)}
        self._asked = [(n, place[one.facts.id], one) for n, one in enumerate(records) if one.facts.id in place]
        """Number, place in the memory and record of every query that the memory took in."""
        self._num_left_out = len(records) - len(self._asked)
        if not self._asked:
            raise DataError(f"{self._folder / MEMORY_FOLDER} holds none of the run's {len(records)} queries; it is another run's")
        self._pressed: dict[tuple[int | None, float], list[np.ndarray]] = {}

    def facing(self, how: Asking) -> list[Record]:
        """The records of the queries that the memory took in, with the neighbours that they find when they ask like this."""
        pixel_ND = self._pressed_parts(how.stress) if how.stress.changes_pictures else [self._stored(at)[1] for _, at, _ in self._asked]
        found = []
        for (number, place, record), pixel_D in zip(self._asked, pixel_ND, strict=True):
            neighbours = self._neighbours(number, place, record, pixel_D, how)
            found.append(replace(record, facts=replace(record.facts, neighbours=neighbours)))
        return found

    def agreement(self) -> Agreement:
        """Ask as the run did, its own stress included."""
        same, gap = 0, 0.0
        for (_, _, record), again in zip(self._asked, self.facing(self.own), strict=True):
            was, now = (sorted(one.facts.neighbours, key=lambda near: near.id) for one in (record, again))
            if [(one.id, one.answer, one.stress) for one in was] == [(one.id, one.answer, one.stress) for one in now]:
                same += 1
                gap = max([gap, *(abs(a.similarity - b.similarity) for a, b in zip(was, now, strict=True))])
        return Agreement(same, len(self._asked), self._num_left_out, gap)

    def _neighbours(self, number: int, place: int, record: Record, pixel_D: np.ndarray, how: Asking) -> tuple[NeighbourFacts, ...]:
        """Among the items before the query's own, which are those of the queries before it."""
        num = how.num + (NUM_POOL if how.stress.near_miss else 0)
        query_K = make_keys(self._spec, self._stored(place)[0][None], pixel_D[None], omega=how.omega)[0]
        found = zip(*best_of(self._rows_NK[:place], query_K, np.arange(place), num), strict=True)
        near = [neighbour_facts(Neighbour(int(at), float(similarity), self._entries[at])) for at, similarity in found]
        return stressed(near, [one.label for one in record.facts.rollouts], how.stress, (how.seed, number), num=how.num)

    def _stored(self, place: int) -> tuple[np.ndarray, np.ndarray]:
        """The text and the pixel part of an item's key, [D] each, at the lengths in which they are stored."""
        row_K, width = np.asarray(self._rows_NK[place], np.float64), self._spec.pixel_dim
        return row_K[width:], row_K[:width]

    # ------------------------------------------------------------ pictures

    def _pressed_parts(self, stress: Stress) -> list[np.ndarray]:
        """The pixel part of every asking key after the journey of its pictures, [D] each; made once."""
        journey = (stress.jpeg, stress.rescale)
        if journey not in self._pressed:
            self._pressed[journey] = self._encoded(lambda image_HWC: through_journey(image_HWC, stress))
        return self._pressed[journey]

    def _encoded(self, change: Callable[[np.ndarray], np.ndarray]) -> list[np.ndarray]:
        encoder, run = EfficientNetEncoder(), open_run(self._folder / TRAJECTORIES_FOLDER)
        firsts = _firsts(run, [record for _, _, record in self._asked])
        found = []
        for done, ((_, place, record), one) in enumerate(zip(self._asked, firsts, strict=True)):
            self._progress(done, len(firsts))
            changes = (change, _as_it_is) if done < NUM_CHECKED else (change,)
            pixel_D, *plain = _pixel_parts(run, one, record.facts.rollouts[0], encoder, changes)
            for again_D in plain:
                self._check(again_D, self._stored(place)[1], record.facts.id)
            found.append(pixel_D)
        self._progress(len(firsts), len(firsts))
        return found

    def _check(self, again_D: np.ndarray, stored_D: np.ndarray, name: str) -> None:
        cosine = float(again_D @ stored_D / (np.linalg.norm(again_D) * np.linalg.norm(stored_D)))
        if cosine < LEAST_COSINE:
            raise DataError(
                f"{self._folder}: the pixel key of query {name} comes out otherwise than it is stored (cosine {cosine:.4f}): its rollouts "
                "are another run's, or the encoder has changed, and then pressed pictures say nothing"
            )


def _firsts(run: Run, records: Sequence[Record]) -> list[Trajectory]:
    """Of each query the rollout that its key was made from: the first of its facts.

    Raises:
        DataError: one is not in the run.
    """
    wanted = {record.facts.rollouts[0].id for record in records}
    found = {one.id: one for one in run.trajectories() if one.id in wanted}
    if len(found) < len(wanted):
        raise DataError(f"{run.folder}: {len(wanted) - len(found)} of {len(wanted)} rollouts that keys were made from are missing")
    return [found[record.facts.rollouts[0].id] for record in records]


def _pixel_parts(
    run: Run, one: Trajectory, facts: RolloutFacts, encoder: EfficientNetEncoder, changes: Sequence[Callable[[np.ndarray], np.ndarray]]
) -> list[np.ndarray]:
    """The pixel part of a key after each change of its pictures, [D] each."""
    rolled = Rolled(one, example=None, measured=None)  # a pixel key is made of footprints, not of tokens
    with open_medium(run.blob(one.medium.sha256), name=one.medium.name) as medium:
        query = Query(Task(question=one.question, medium=medium, id=one.task_id), (), b"")
        return [pixel_key(rolled, facts, query, encoder, change) for change in changes]


def _as_it_is(image_HWC: np.ndarray) -> np.ndarray:
    return image_HWC
