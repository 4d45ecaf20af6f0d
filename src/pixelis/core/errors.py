"""Every error Pixelis raises on purpose: whose fault it is decides which class it gets.

The user's mistakes are messages (`DataError`, `ConfigError`, `NotInstalled`, `ReplayMismatch`), the agent's are data
(`ToolError`, `GrammarError`: shown to the policy and recorded), ours are tracebacks (anything else).
"""

from __future__ import annotations

MACHINE_ERRORS = ("deadline", "unavailable", "crashed")
"""Kinds of a failed call that tell of the machine, not of the policy or the medium: another time it may succeed."""


class PixelisError(Exception):
    """Base of all errors whose text is meant for a reader: what happened, the numbers, what to do."""


class DataError(PixelisError):
    """A medium, run folder, trace or blob cannot be used; the text names the file and what is wrong with it."""


class ConfigError(PixelisError):
    """A recipe or command-line value is wrong; the text names the key and what it may be."""


class NotInstalled(PixelisError):
    """An engine or extra is missing.

    Args:
        what: the thing that is missing, in words.
        command: what to run to get it, complete.
    """

    def __init__(self, what: str, command: str) -> None:
        super().__init__(f"{what} is not installed. To get it: {command}")
        self.what = what
        self.command = command


class ReplayMismatch(PixelisError):
    """A stored result and its re-execution differ; the text shows both sides."""


class AgentError(PixelisError):
    """A mistake of the agent: becomes a typed error result that the policy reads.

    Args:
        kind: one of `ERROR_KINDS`, machine-readable.
        message: one short sentence that says what to write instead.
    """

    def __init__(self, kind: str, message: str) -> None:
        if kind not in ERROR_KINDS:
            raise ValueError(f"unknown error kind {kind!r}; known: {', '.join(ERROR_KINDS)}")
        super().__init__(message)
        self.kind = kind
        self.message = message


class GrammarError(AgentError):
    """The policy's text holds something that is not one well-formed call or answer."""


class ToolError(AgentError):
    """A tool could not do what was asked of it."""


ERROR_KINDS = (
    "bad_call",  # the text is no call: not JSON, two calls, unclosed tag, too long or too deep
    "unknown_op",  # no such tool
    "bad_arguments",  # missing, unknown, mistyped, NaN, inverted, empty
    "out_of_frame",  # the box or point misses the frame
    "out_of_time",  # the time misses the medium
    "bad_ref",  # `ref` names no step, or one that produced nothing of the kind asked for
    "wrong_medium",  # a video tool on an image
    "nothing_found",  # the tool ran and found nothing
    "deadline",  # the tool did not finish in time
    "unavailable",  # the engine is not installed or failed to load
    "crashed",  # the engine raised something it should not have
)
