"""Pixelis: a vision-language agent that reasons in pixels.

>>> from pixelis import ask
>>> answer = ask("page.png", "What does the sign say?")  # doctest: +SKIP
>>> print(answer, len(answer.trajectory.steps))  # doctest: +SKIP
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pixelis.agent import Answer, ask
    from pixelis.config import Recipe, load_recipe

__version__ = "0.1.0"
__all__ = ["Answer", "Recipe", "__version__", "ask", "load_recipe"]

_HOMES = {"ask": "pixelis.agent", "Answer": "pixelis.agent", "Recipe": "pixelis.config", "load_recipe": "pixelis.config"}


def __getattr__(name: str) -> Any:
    """Import on first use, so that `import pixelis` stays quick."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pixelis' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_HOMES[name]), name)
