"""What a tool is: a name, an engine with a version, and a function from a medium and typed arguments to a typed output."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from pixelis.core.errors import ToolError
from pixelis.core.geometry import Box
from pixelis.core.media import Medium
from pixelis.core.ops import Output


def _never() -> None:
    return None


@dataclass(frozen=True)
class Context:
    """What a tool may use besides its arguments."""

    check: Callable[[], None] = _never
    """Call it in long loops: it raises `ToolError("deadline")` once the call's time is up."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Where a tool leaves bytes that its output names by SHA-256."""


class Tool(Protocol):
    """One op. Deterministic: the same medium, arguments and version give the same output."""

    op: str
    engine: str
    version: str
    """Engine, weights and algorithm: whatever changes an output changes this text.

    Of the libraries not all: with SciPy, Pillow and (but for SEG and TRK) NumPy in it, each of their updates would void every recorded run
    and cached result, moved or not. A run's record names them (`core.versions`), and a replay finds a result that they moved.
    """

    def __call__(self, medium: Medium, args: Any, context: Context) -> Output:
        """Do it.

        Raises:
            ToolError: it cannot be done, in words that tell the policy what to write instead.
            NotInstalled: the engine is missing.
        """
        ...


Toolbox = dict[str, Tool]
"""Op to tool, built in one visible place: `pixelis.tools.toolbox.build_toolbox`."""


def clip_to_frame(box: Box, medium: Medium, op: str) -> Box:
    """The part of a box inside the frame.

    Raises:
        ToolError: none of it is.
    """
    shown = box.clip(width=medium.width, height=medium.height)
    if shown.is_empty:
        raise ToolError("out_of_frame", f"{op}: the box {box} misses the {medium.width}x{medium.height} frame")
    return shown
