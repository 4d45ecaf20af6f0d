"""Reliability of worker classes by Dawid-Skene EM: who agrees with the answers that those who agree give.

The annotators are not single rollouts (one query alone tells nothing about them) but worker classes that persist: toolchain signatures,
pooled over a query and its neighbours. Questions have their own sets of answers, so the one-coin model treats labels as local to their
task: a worker is right with one probability s everywhere, and its errors spread evenly over the task's other answers. The full model needs
classes that mean the same in every task, and pools labels by their text.
Letters: J tasks, V votes, K labels, W workers. Source: supplement 2; Dawid and Skene (1979).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from pixelis.core.errors import ConfigError
from pixelis.core.ops import record

MAX_ITERATIONS = 50
LEAST_GAIN = 1e-4
"""Relative gain of the log-likelihood below which EM stops."""
_TINY = 1e-10


@record
class Cast:
    """One vote: what a worker class said in a task."""

    task: str
    worker: str
    label: str


@record
class Smoothing:
    """Votes that every worker class is taken to have cast before the first: Laplace smoothing of a diagonal confusion matrix."""

    right: float = 2.0
    wrong: float = 1.0
    """So a class never seen is right in two of three cases. 0 and 0 for none."""


@dataclass(frozen=True)
class Reliabilities:
    """What EM came to."""

    of_worker: dict[str, float]
    """Probability of being right, in [0, 1], of every worker class that voted."""
    posterior: dict[str, dict[str, float]]
    """Per task, the probability of each answer that somebody gave (full model: of every answer)."""
    objective: tuple[float, ...]
    """Log-likelihood plus log-prior after each iteration; never falls."""


def signature(ops: Sequence[str]) -> str:
    """The worker class of a rollout: its ops in order, repeats of one joined; empty for one that used no tool."""
    return ">".join(op or "?" for op, _ in groupby(ops))


def one_coin(
    votes: Sequence[Cast],
    *,
    smoothing: Smoothing = Smoothing(),
    shares_labels: bool = False,
    max_iterations: int = MAX_ITERATIONS,
    least_gain: float = LEAST_GAIN,
) -> Reliabilities:
    """One probability of being right per worker class.

    Args:
        shares_labels: labels mean the same in every task: their frequencies are estimated, and errors spread over all of them. Otherwise
            each task has its own answers, equally likely beforehand; at least two, since a wrong one is always possible.
    """
    table = _Table.of(votes, shares_labels)
    skill_W, objective = np.zeros(0), []
    posterior_JK, prior_JK = table.vote_shares(), table.flat_prior()
    for step in range(max_iterations + 1):
        hits_W = np.bincount(table.worker_V, posterior_JK[table.task_V, table.label_V], table.num_workers)
        skill_W = (hits_W + smoothing.right) / np.maximum(table.casts_W + smoothing.right + smoothing.wrong, _TINY)
        if shares_labels:
            prior_JK = np.tile(posterior_JK.mean(0), (table.num_tasks, 1))
        if step == max_iterations or _has_settled(objective, least_gain):
            break
        right_W, wrong_W = np.log(np.maximum(skill_W, _TINY)), np.log(np.maximum(1 - skill_W, _TINY))
        each_wrong_V = wrong_W[table.worker_V] - np.log(table.num_labels_J[table.task_V] - 1)
        log_VK = np.where(table.is_said_VK, right_W[table.worker_V][:, None], each_wrong_V[:, None])
        posterior_JK, likelihood = table.posterior(prior_JK, log_VK)
        objective.append(likelihood + float(smoothing.right * right_W.sum() + smoothing.wrong * wrong_W.sum()))
    return table.result(skill_W, posterior_JK, objective)


def full(
    votes: Sequence[Cast], *, smoothing: Smoothing = Smoothing(), max_iterations: int = MAX_ITERATIONS, least_gain: float = LEAST_GAIN
) -> Reliabilities:
    """A confusion matrix per worker class; its reliability is the matrix's diagonal, weighted by how frequent the classes are.

    For closed sets of answers (letters, yes and no). Labels are one class wherever their text is the same.
    """
    table = _Table.of(votes, True)
    num_k = table.is_said_VK.shape[1]
    pseudo_KK = np.where(np.eye(num_k, dtype=bool), smoothing.right, smoothing.wrong / max(1, num_k - 1))
    objective: list[float] = []
    posterior_JK, prior_JK = table.vote_shares(), table.flat_prior()
    for step in range(max_iterations + 1):
        confusion_WKK = np.tile(pseudo_KK, (table.num_workers, 1, 1))  # [worker, true, said]
        np.add.at(confusion_WKK.transpose(0, 2, 1), (table.worker_V, table.label_V), posterior_JK[table.task_V])
        confusion_WKK = np.maximum(confusion_WKK, _TINY)
        confusion_WKK /= confusion_WKK.sum(-1, keepdims=True)
        prior_JK = np.tile(posterior_JK.mean(0), (table.num_tasks, 1))
        if step == max_iterations or _has_settled(objective, least_gain):
            break
        log_WKK = np.log(np.maximum(confusion_WKK, _TINY))
        posterior_JK, likelihood = table.posterior(prior_JK, log_WKK[table.worker_V, :, table.label_V])
        objective.append(likelihood + float((pseudo_KK * log_WKK).sum()))
    diagonal_WK = np.diagonal(confusion_WKK, axis1=1, axis2=2)
    return table.result(diagonal_WK @ prior_JK[0], posterior_JK, objective)


MODELS: dict[str, Callable[[Sequence[Cast]], Reliabilities]] = {"one_coin": one_coin, "full": full}


def reliabilities(votes: Sequence[Cast], model: str = "one_coin") -> dict[str, float]:
    """Reliability per worker class by the model of this name; empty without votes.

    Raises:
        ConfigError: no model has this name.
    """
    if model not in MODELS:
        raise ConfigError(f"reliability {model!r}: choose one of {', '.join(MODELS)}")
    return MODELS[model](votes).of_worker if votes else {}


def _has_settled(objective: Sequence[float], least_gain: float) -> bool:
    return len(objective) > 1 and objective[-1] - objective[-2] <= least_gain * max(abs(objective[-2]), _TINY)


@dataclass(frozen=True)
class _Table:
    """Votes as numbers; names are numbered as they first come, so that renaming them changes nothing."""

    tasks: tuple[str, ...]
    workers: tuple[str, ...]
    labels: tuple[tuple[str, ...], ...]
    """Per task."""
    task_V: np.ndarray
    worker_V: np.ndarray
    label_V: np.ndarray
    num_labels_J: np.ndarray
    is_label_JK: np.ndarray
    """False for columns that a task has no label for."""

    @classmethod
    def of(cls, votes: Sequence[Cast], shares_labels: bool) -> _Table:
        if not votes:
            raise ValueError("no votes, no reliability")
        tasks = tuple(dict.fromkeys(vote.task for vote in votes))
        workers = tuple(dict.fromkeys(vote.worker for vote in votes))
        everywhere = tuple(dict.fromkeys(vote.label for vote in votes))
        local = {task: tuple(dict.fromkeys(vote.label for vote in votes if vote.task == task)) for task in tasks}
        labels = tuple(everywhere if shares_labels else local[task] for task in tasks)
        num_labels_J = np.array([max(2, len(names)) for names in labels])
        task_V = np.array([tasks.index(vote.task) for vote in votes])
        return cls(
            tasks=tasks,
            workers=workers,
            labels=labels,
            task_V=task_V,
            worker_V=np.array([workers.index(vote.worker) for vote in votes]),
            label_V=np.array([labels[j].index(vote.label) for j, vote in zip(task_V, votes, strict=True)]),
            num_labels_J=num_labels_J,
            is_label_JK=np.arange(num_labels_J.max()) < num_labels_J[:, None],
        )

    @property
    def num_tasks(self) -> int:
        return len(self.tasks)

    @property
    def num_workers(self) -> int:
        return len(self.workers)

    @property
    def casts_W(self) -> np.ndarray:
        return np.bincount(self.worker_V, minlength=self.num_workers).astype(float)

    @property
    def is_said_VK(self) -> np.ndarray:
        return np.arange(self.is_label_JK.shape[1]) == self.label_V[:, None]

    def vote_shares(self) -> np.ndarray:
        """Where EM begins: each answer's share of the task's votes [J, K]."""
        counts_JK = np.zeros(self.is_label_JK.shape)
        np.add.at(counts_JK, (self.task_V, self.label_V), 1.0)
        return counts_JK / counts_JK.sum(-1, keepdims=True)

    def flat_prior(self) -> np.ndarray:
        return self.is_label_JK / self.num_labels_J[:, None]

    def posterior(self, prior_JK: np.ndarray, log_VK: np.ndarray) -> tuple[np.ndarray, float]:
        """Probability of each label being true [J, K], and the log-likelihood of all votes.

        Args:
            log_VK: log-probability of each vote if label k were the true one.
        """
        log_JK = np.where(self.is_label_JK, np.log(np.maximum(prior_JK, _TINY)), -np.inf)
        np.add.at(log_JK, self.task_V, log_VK)
        most_J = log_JK.max(-1, keepdims=True)
        weight_JK = np.exp(log_JK - most_J)
        return weight_JK / weight_JK.sum(-1, keepdims=True), float((most_J[:, 0] + np.log(weight_JK.sum(-1))).sum())

    def result(self, skill_W: np.ndarray, posterior_JK: np.ndarray, objective: Sequence[float]) -> Reliabilities:
        return Reliabilities(
            of_worker=dict(zip(self.workers, (float(skill) for skill in np.clip(skill_W, 0, 1)), strict=True)),
            posterior={
                task: {label: float(p) for label, p in zip(names, row, strict=False)}
                for task, names, row in zip(self.tasks, self.labels, posterior_JK, strict=True)
            },
            objective=tuple(objective),
        )
