"""Puts a harness's questions to the agent and gives its final answers back; both adapters stand on this.

Every trajectory is kept in a run folder, so that any score of the harness can be traced to what the agent saw and did. What the folder
already holds is not asked again: a killed evaluation goes on where it stopped.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pixelis.core.errors import ConfigError
from pixelis.core.media import Medium
from pixelis.core.store import open_run
from pixelis.core.trajectory import Trajectory, trajectory_id
from pixelis.eval.harness.visuals import open_only
from pixelis.eval.runs import open_writer, run_facts
from pixelis.policy.base import Policy, Task
from pixelis.rollout.run import Limits, Runner
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings

CHUNK = 16
"""Questions whose media are open at once, or as many as run in parallel."""

EVALUATION = "harness"

PLACEHOLDERS = ("<image>", "<video>")
"""Where other models' prompts put the medium. To some models they are tokens, and the agent's prompt has its own place for it."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a harness asks, of one document."""

    id: str
    """Names the document, in the run and in messages: `mme/test/17`."""
    text: str
    """As the harness words it."""
    visuals: tuple[object, ...]
    """What it shows: pictures of Pillow, and paths of images or videos."""
    until: tuple[str, ...] = ()
    """Texts before which the harness wants the answer to end. The agent's thoughts and calls are not cut."""


class Asker:
    """Asks the agent; owns the policy and the run folder.

    Args:
        policy: answers; closed by `close`.
        executor: the tools, made from `settings`; `toolbox.resolved` first, so that names and not `auto` are recorded.
        harness: its name, for `run.json`.
        run_folder: where trajectories are kept. One begun by the same policy, tools, limits and seed goes on.
        seed: of the policy's sampling; the n-th repetition of a question within one call takes `seed + n`.
        num_parallel: trajectories under way at once, where the harness asks several questions at once.
        keep_media: copy media files into the run, so that it can be viewed and replayed by itself. Pictures that no file holds always are.
        versions: of the harness, to be recorded.

    Raises:
        DataError: the folder holds another run, or cannot be written.
    """

    def __init__(
        self,
        policy: Policy,
        executor: Executor,
        settings: ToolSettings,
        *,
        harness: str,
        run_folder: Path,
        seed: int = 0,
        limits: Limits = Limits(),
        num_parallel: int = 8,
        keep_media: bool = False,
        versions: Mapping[str, str] = {},
    ) -> None:
        if num_parallel < 1:
            raise ConfigError(f"{num_parallel} trajectories at once; wanted is 1 or more")
        self._policy, self._seed, self._keep_media, self._harness = policy, seed, keep_media, harness
        self._chunk = max(CHUNK, num_parallel)
        self._runner = Runner(policy, executor, settings=settings, limits=limits, num_parallel=num_parallel)
        about = run_facts(policy, settings, limits=limits, evaluation=EVALUATION, harness=harness, seed=seed)
        about["versions"].update(versions)
        self._writer = open_writer(run_folder, about)
        self._answers: dict[str, str | None] = {}
        self._stops: dict[str, str] = {}
        try:
            for trajectory in open_run(run_folder).trajectories():
                self._take(trajectory)
        except BaseException:
            self._writer.close()
            raise
        self._num_stored = len(self._answers)
        self._asked: set[str] = set()

    def answer(self, questions: Iterable[Question]) -> list[str]:
        """The final answers in the order of the questions; an empty text where the agent gave none.

        Questions may be made as they are read: only a few are held at once.

        Raises:
            ConfigError: a question is empty, or shows anything but one image or one video.
            DataError: a medium is missing or damaged; names the document. Answers given before are in the run folder.
        """
        answers: list[str] = []
        repeats: Counter[str] = Counter()
        rest = iter(questions)
        while chunk := list(islice(rest, self._chunk)):
            answers += self._answer_chunk(chunk, repeats)
        return answers

    def summary(self) -> str:
        """One line: how many questions were answered, from where, and how many of them without an answer."""
        stops = Counter(self._stops[id] for id in self._asked if self._answers[id] is None)
        silent = f" ({', '.join(f'{count} {stop}' for stop, count in sorted(stops.items()))})" if stops else ""
        new = len(self._answers) - self._num_stored
        return (
            f"{self._harness}: {len(self._asked)} questions, {new} newly run, {sum(stops.values())} without an answer{silent}; "
            f"trajectories in {self._writer.folder}"
        )

    def close(self) -> None:
        """Free the policy and the run folder. Safe to call twice."""
        self._writer.close()
        self._policy.close()

    def _answer_chunk(self, chunk: Sequence[Question], repeats: Counter[str]) -> list[str]:
        wanted: list[str] = []
        missing: dict[str, tuple[Task, int]] = {}
        with ExitStack() as media:
            for question in chunk:
                medium = media.enter_context(self._open(question))
                task = Task(question=worded(question), medium=medium, id=question.id)
                first = self._trajectory_id(task, self._seed)
                seed = self._seed + repeats[first]
                repeats[first] += 1
                wanted.append(self._trajectory_id(task, seed))
                if wanted[-1] not in self._answers:
                    missing[wanted[-1]] = (task, seed)
            if missing:
                for rollout in self._runner.run(missing.values(), self._writer):
                    self._take(rollout.trajectory)
                    _warn(rollout.trajectory)
        self._asked |= set(wanted)
        return [cut(self._answers[id] or "", question.until) for id, question in zip(wanted, chunk, strict=True)]

    def _open(self, question: Question) -> Medium:
        medium, data = open_only(question.visuals, name=question.id)
        try:
            if data is None and self._keep_media and medium.path is not None:
                data = medium.path.read_bytes()
            if data is not None:
                self._writer.put_blob(data)
        except BaseException:
            medium.close()
            raise
        return medium

    def _trajectory_id(self, task: Task, seed: int) -> str:
        return trajectory_id(question=task.question, medium=task.medium.sha256, policy=self._policy.info, seed=seed, task_id=task.id)

    def _take(self, trajectory: Trajectory) -> None:
        if trajectory.stop == "interrupted":  # by the user: says nothing of the policy, and is asked again
            return
        self._answers[trajectory.id], self._stops[trajectory.id] = trajectory.answer, trajectory.stop


def worded(question: Question) -> str:
    """The question as the agent reads it: as asked, without the places where other models' prompts put the medium.

    Raises:
        ConfigError: nothing is left of it.
    """
    text = question.text
    for placeholder in PLACEHOLDERS:
        text = text.replace(placeholder, "")
    if not text.strip():
        raise ConfigError(f"{question.id}: the question is empty: choose a task that asks something")
    return text.strip()


def cut(answer: str, until: Sequence[str]) -> str:
    """The answer up to the first of the texts at which it is to end."""
    ends = [answer.find(stop) for stop in until if stop and stop in answer]
    return answer[: min(ends, default=len(answer))]


def _warn(trajectory: Trajectory) -> None:
    if trajectory.stop == "policy_error":  # a server that is down would else only show as a score of 0
        log.warning("%s: the policy failed (%s)", trajectory.task_id, trajectory.stop_detail)
