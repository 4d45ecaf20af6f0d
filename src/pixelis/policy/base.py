"""What a policy is: something that opens a session on a task and writes one turn after another."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

from pixelis.core.media import Medium
from pixelis.core.trajectory import PolicyInfo, TokenRun


@dataclass(frozen=True, kw_only=True)
class Task:
    """A question about one medium."""

    question: str
    medium: Medium
    id: str = ""
    facts: dict[str, Any] = field(default_factory=dict)
    """Ground truth and family where there is some: for teachers and scoring. A policy under test never reads it."""


@dataclass(frozen=True, kw_only=True)
class Observation:
    """What came back from a call, as the policy reads it."""

    response: str
    """The exact text, tags included."""
    image_png: bytes | None = None
    """A zoom's crop; travels with its text as one message or not at all."""
    image_sha256: str = ""


class PolicyError(Exception):
    """The policy could not write a turn: a server that stalls or answers nonsense, a model that raises.

    The trajectory stops with `policy_error` and this text; the run goes on.
    """


class TokenLimit(PolicyError):
    """The session's context or token budget is used up; the trajectory stops with `token_limit`."""


class Session(Protocol):
    """One conversation of a policy about one task."""

    async def act(self) -> str:
        """The policy's next turn, exactly as it wrote it (a turn cut at its length limit included).

        Raises:
            PolicyError: it could not write one.
        """
        ...

    def observe(self, observation: Observation) -> None:
        """Add a result to the conversation, text and image together."""
        ...

    def tokens(self) -> tuple[TokenRun, ...]:
        """The token sequence so far; empty for a policy that has none."""
        ...

    def close(self) -> None:
        """Free what the session holds. Safe to call twice."""
        ...


class Policy(Protocol):
    """Opens sessions; many may be open at once."""

    info: PolicyInfo

    def open(self, task: Task, *, seed: int) -> Session:
        """Start a conversation. The same task and seed give the same turns, wherever the policy can promise that."""
        ...

    def close(self) -> None: ...
