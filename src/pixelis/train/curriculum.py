"""Which examples are seen when: a warm-up on everything, then medium and hard ones, and batches of similar length.

Everything follows from its arguments, so that a resumed run goes on with the very order it was in. Letters: N examples.
Source: paper §3.2.1, "Curriculum".
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pixelis.core.errors import ConfigError, DataError

WARM_UP = 0
MIX = {1: (2, 1), 2: (1, 2)}
"""Medium to hard in each phase behind the warm-up. The paper mixes them 2:1 and does not say what it advances to: the mix turned
around; the last phase goes on to the end."""

LAST_PHASE = max(MIX)
POOL = 1024
"""Examples among which those of similar length are brought together: many batches' worth, few beside a data set."""

_ORDER, _BATCHES = 1, 2  # streams of random numbers that must not be the same


def order(epoch: int, phase: int, hardness_N: np.ndarray, seed: int) -> np.ndarray:
    """Indices of the examples of one epoch, in the order in which they are seen; int64 [N].

    The warm-up holds each example once. Every later epoch is as long, so that a schedule of steps does not depend on when the
    curriculum advances: it draws medium and hard examples in the phase's ratio, each as often as the others of its tertile, give
    or take one. Easy ones have been seen in the warm-up.

    Args:
        epoch: from 0; another epoch is another order.
        phase: `WARM_UP`, or a key of `MIX`.
        hardness_N: error of each example, such as its loss under the model after the warm-up; ignored in the warm-up.

    Raises:
        DataError: no examples, or one whose hardness is not a number.
        ConfigError: no such phase.
    """
    num = len(hardness_N)
    if num == 0:
        raise DataError("there are no examples to train on: the split is empty, or all of it was left out")
    rng = np.random.default_rng([seed, _ORDER, epoch])
    if phase == WARM_UP:
        return rng.permutation(num)
    if phase not in MIX:
        raise ConfigError(f"phase {phase} is none of the curriculum's: {WARM_UP} is the warm-up, then {', '.join(map(str, MIX))}")
    _, medium, hard = tertiles(hardness_N)
    medium, hard = (medium, hard) if len(medium) else (hard, hard)
    share = MIX[phase]
    num_hard = round(num * share[1] / sum(share))
    return rng.permutation(np.concatenate([_draw(medium, num - num_hard, rng), _draw(hard, num_hard, rng)]))


def tertiles(hardness_N: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Indices of the easy, the medium and the hard third, equal in size up to one; equals keep their order.

    Raises:
        DataError: a hardness that is not a finite number.
    """
    wrong = np.flatnonzero(~np.isfinite(hardness_N))
    if len(wrong):
        raise DataError(f"the hardness of {len(wrong)} of {len(hardness_N)} examples is no finite number, first of example {wrong[0]}")
    ranked, num = np.argsort(hardness_N, kind="stable"), len(hardness_N)
    return ranked[: num // 3], ranked[num // 3 : 2 * num // 3], ranked[2 * num // 3 :]


def _draw(pool: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` of the pool without putting back until all of it has been drawn."""
    rounds = [rng.permutation(pool) for _ in range(-(-count // len(pool)))]
    return np.concatenate([*rounds, pool[:0]])[:count]


def smoothed(losses: Sequence[float], decay: float) -> np.ndarray:
    """Exponential moving average that starts at the first value; float64, as long as `losses`."""
    values = np.array(losses, float)
    for index in range(1, len(values)):
        values[index] = decay * values[index - 1] + (1 - decay) * values[index]
    return values


def advance(dev_losses: Sequence[float], *, decay: float, window: int, min_gain: float = 0.01) -> bool:
    """Whether the smoothed dev loss fell by less than `min_gain` of itself over the last `window` evaluations.

    Args:
        dev_losses: those since the phase began, oldest first; never True before there are `window` + 1 of them.
        decay: of the moving average, in [0, 1).
    Returns:
        False where the loss is not finite: what diverged is not done.
    """
    if window < 1 or not 0 <= decay < 1:
        raise ConfigError(f"the window must be at least 1 and decay in [0, 1); got {window} and {decay}")
    if len(dev_losses) <= window:
        return False
    ema = smoothed(dev_losses, decay)
    return bool(np.isfinite(ema[-1]) and ema[-1 - window] - ema[-1] < min_gain * ema[-1 - window])


def batches(lengths_N: np.ndarray, indices: np.ndarray, *, max_tokens_per_batch: int, seed: int) -> list[np.ndarray]:
    """The indices in batches of similar length whose padded size, examples times the longest, keeps within a budget.

    Args:
        lengths_N: tokens of each example of the data set.
        indices: of one epoch, in its order; one that stands there twice is batched twice.
        seed: another one each epoch, or the batches come in the same order of lengths again.
    Returns:
        Batches in random order; together they hold exactly `indices`.

    Raises:
        DataError: an example that is longer than the budget.
    """
    indices, lengths_N = np.asarray(indices), np.asarray(lengths_N)
    if len(indices) and lengths_N[indices].max() > max_tokens_per_batch:
        worst = indices[lengths_N[indices].argmax()]
        raise DataError(
            f"example {worst} has {lengths_N[worst]} tokens, more than a batch of {max_tokens_per_batch} holds: "
            "raise max_tokens_per_batch, or lower max_tokens so that it is left out"
        )
    found: list[np.ndarray] = []
    for start in range(0, len(indices), POOL):
        pool = indices[start : start + POOL]
        found += _cut(pool[np.argsort(lengths_N[pool], kind="stable")], lengths_N, max_tokens_per_batch)
    shuffled = np.random.default_rng([seed, _BATCHES]).permutation(len(found))
    return [found[index] for index in shuffled]


def _cut(ranked: np.ndarray, lengths_N: np.ndarray, budget: int) -> list[np.ndarray]:
    """Full batches from the longest down: the small one that is left over is made of the shortest."""
    found, end = [], len(ranked)
    while end > 0:
        start = max(0, end - max(1, budget // max(1, int(lengths_N[ranked[end - 1]]))))
        found.append(ranked[start:end])
        end = start
    return found
