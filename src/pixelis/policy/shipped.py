"""Checkpoints that come with the package, each a folder named after its policy; wherever a checkpoint is named, its name will do."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parents[1] / "weights"
ADAPTED = {"nano-ttrl": ("nano-rft", 0.75)}
"""Policies of phase 3 that learnt how bright to look and nothing else: the weights that they share with another, and their lift."""


def located(checkpoint: str | Path) -> str:
    """The folder of a shipped checkpoint by its name; everything else, folders and hub names, as it is."""
    name = str(checkpoint)
    is_shipped = "/" not in name and name != "" and (WEIGHTS / name).is_dir() and not Path(name).is_dir()
    return str(WEIGHTS / name) if is_shipped else name
