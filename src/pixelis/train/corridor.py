"""The KL corridor: a PID controller in log beta that keeps the measured token-KL to an anchor between two bounds.

Pure: a state and a measurement give the next state. The same controller serves phase 2 (anchor: the SFT policy) and test-time learning
(anchor: the EMA policy). Source: paper §3.2.2, §6.1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace


@dataclass(frozen=True)
class CorridorSettings:
    """What to hold, and how hard.

    Args:
        target, low, high: token-KL in nats per action token.
        decay: of the running mean of measurements.
        proportional, integral, derivative: gains, chosen by `benchmarks/corridor.py`.
        silent: first updates in which the derivative does not act: the running mean rises then because it began at nothing.
        least_beta, most_beta: bounds.
        most_error: a relative error beyond this counts as this.
    """

    target: float = 0.15
    low: float = 0.10
    high: float = 0.20
    decay: float = 0.9
    proportional: float = 0.02
    integral: float = 1e-5
    derivative: float = 1.0
    silent: int = 100
    least_beta: float = 1e-4
    most_beta: float = 10.0
    most_error: float = 2.0

    def __post_init__(self) -> None:
        """Raises: ValueError: bounds in the wrong order."""
        if not 0 < self.low < self.target < self.high:
            raise ValueError(f"a corridor needs 0 < low < target < high, not {self.low}, {self.target}, {self.high}")
        if not 0 < self.least_beta < self.most_beta:
            raise ValueError(f"beta needs 0 < least < most, not {self.least_beta}, {self.most_beta}")


@dataclass(frozen=True)
class CorridorState:
    """All that the controller remembers."""

    log_beta: float
    mean_kl: float | None = None
    """Running mean; None before the first measurement."""
    integral: float = 0.0
    """Sum of relative errors."""
    last_error: float | None = None
    num_updates: int = 0

    @property
    def beta(self) -> float:
        return math.exp(self.log_beta)

    @classmethod
    def start(cls, beta: float = 0.3) -> CorridorState:
        return cls(math.log(beta))


def regulate(state: CorridorState, kl: float, settings: CorridorSettings = CorridorSettings()) -> CorridorState:
    """The state after one optimiser step whose token-KL was measured.

    The integral does not grow while beta rests on a bound that it pushes against (anti-windup). A measurement that is not finite
    changes nothing.

    Args:
        kl: nats per action token, by an estimator that is never negative.
    """
    if not math.isfinite(kl):
        return state
    mean = kl if state.mean_kl is None else settings.decay * state.mean_kl + (1 - settings.decay) * kl
    error = max(-settings.most_error, min(settings.most_error, (mean - settings.target) / settings.target))
    change = 0.0 if state.last_error is None or state.num_updates < settings.silent else error - state.last_error
    low, high = math.log(settings.least_beta), math.log(settings.most_beta)
    integral = state.integral + error
    wanted = state.log_beta + settings.proportional * error + settings.integral * integral + settings.derivative * change
    log_beta = max(low, min(high, wanted))
    if log_beta != wanted and (wanted - log_beta) * error > 0:
        integral = state.integral
    return replace(state, log_beta=log_beta, mean_kl=mean, integral=integral, last_error=error, num_updates=state.num_updates + 1)
