"""Rollouts in worker processes: each has its own copy of the policy and its own tools on one core, and answers one prompt at a time.

The copies take over the weights of the policy that learns before every batch of prompts. A prompt's rollouts depend on weights and
seeds alone, not on how many workers there are.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor as Pool
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from pixelis.core.errors import DataError
from pixelis.core.media import open_medium
from pixelis.data.world.item import Item
from pixelis.data.world.items import render
from pixelis.policy.base import Task
from pixelis.policy.vlm import VlmPolicy
from pixelis.rollout.run import Limits, Rollout, Runner
from pixelis.rollout.workers import workers
from pixelis.tools.cache import cache_for
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import build_toolbox
from pixelis.train.learner import learning_of, take_learning


@dataclass(frozen=True)
class Prompt:
    """One item, and the seeds of the rollouts that it gets."""

    item: Item
    seeds: tuple[int, ...]


@dataclass(frozen=True)
class Answered:
    """What a worker gives back."""

    medium: bytes
    """The item's medium, as it was rendered."""
    rollouts: tuple[Rollout, ...]


@dataclass(frozen=True)
class Equipment:
    """What every worker is given once; it must be picklable.

    Args:
        make_policy: builds a copy of the policy, on the CPU, with the same parameters learning.
    """

    make_policy: Callable[[], VlmPolicy]
    settings: ToolSettings
    limits: Limits


class Crew:
    """Workers that are ready; see `crew`."""

    def __init__(self, pool: Pool, equipment: Equipment, folder: Path) -> None:
        self._pool, self._equipment, self._folder, self._version = pool, equipment, folder, 0

    def answer(self, policy: VlmPolicy, prompts: Sequence[Prompt]) -> list[Answered]:
        """Let every prompt be answered under the policy's present weights, and return what came of it in their order.

        Raises:
            DataError: a worker died.
        """
        weights = self._hand_out(policy)
        by_length = sorted(range(len(prompts)), key=lambda k: -prompts[k].item.num_frames)  # videos take longest: first
        futures = {k: self._pool.submit(_answer, self._equipment, weights, self._version, prompts[k]) for k in by_length}
        try:
            return [futures[k].result() for k in range(len(prompts))]
        except BrokenProcessPool as error:
            raise DataError(f"a worker died, perhaps for want of memory ({error}): run it again, which goes on") from error
        finally:
            weights.unlink()

    def _hand_out(self, policy: VlmPolicy) -> Path:
        """Write the weights that learn where the workers find them."""
        self._version += 1
        path = self._folder / f"weights-{self._version}.pt"
        with policy.paused() as model:
            torch.save({name: value.cpu() for name, value in learning_of(model).items()}, path)
        return path


@contextmanager
def crew(count: int, equipment: Equipment) -> Iterator[Crew]:
    """Start so many workers; they end with the block."""
    folder = Path(tempfile.mkdtemp(prefix="pixelis-crew-"))
    try:
        with workers(count) as pool:
            yield Crew(pool, equipment, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- in a worker


@dataclass
class _Place:
    """What a worker holds between prompts."""

    policy: VlmPolicy
    executor: Executor
    version: int = 0


_place: _Place | None = None


def _answer(equipment: Equipment, weights: Path, version: int, prompt: Prompt) -> Answered:
    global _place
    if _place is None:
        torch.set_num_threads(1)
        executor = Executor(build_toolbox(equipment.settings), disabled=equipment.settings.disabled, cache=cache_for(equipment.settings))
        _place = _Place(equipment.make_policy(), executor)
    if _place.version != version:
        with _place.policy.paused() as model:
            take_learning(model, torch.load(weights, weights_only=True))
        _place.version = version
    runner = Runner(_place.policy, _place.executor, settings=equipment.settings, limits=equipment.limits, num_parallel=len(prompt.seeds))
    data = render(prompt.item)
    with open_medium(data, name=prompt.item.medium_name) as medium:
        task = Task(question=prompt.item.prompt, medium=medium, id=prompt.item.id)
        return Answered(data, tuple(runner.run([(task, seed) for seed in prompt.seeds])))
