"""What a run is told of the command line that makes it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from pixelis.config import recipe_tables, recipe_text
from pixelis.core.command import Command, seen_from_here
from pixelis.core.errors import ConfigError

NAMING = ("--checkpoint", "--model", "--policy")
"""Options that name what is asked or trained, the most exact first."""


def command_line(words: Sequence[str]) -> Command:
    """The command of these words, which begin behind `pixelis`, and the recipes among them, but for those that cannot be read."""
    recipes, tables = {}, {}
    for word in words:
        path = Path(word.partition("=")[2] if word.startswith("--") else word)
        if path.suffix == ".toml" and path.is_file():
            try:
                tables |= recipe_tables(path)
                recipes[seen_from_here(str(path))] = hashlib.sha256(recipe_text(path).encode()).hexdigest()
            except ConfigError:
                continue
    checkpoint = _named(words) or _named_in(tables)
    return Command(
        words=("pixelis", *map(seen_from_here, words)), recipes=recipes, checkpoint=seen_from_here(checkpoint) if checkpoint else None
    )


def _named(words: Sequence[str]) -> str | None:
    """What the options name; of one that is given twice the last counts."""
    pairs = [*pairwise(words), *(tuple(word.split("=", 1)) for word in words if "=" in word)]
    given = {option: value for option, value in pairs if option in NAMING}
    return next((given[option] for option in NAMING if option in given), None)


def _named_in(tables: dict[str, Any]) -> str | None:
    """What a recipe names."""
    policy = tables.get("policy")
    policy = policy if isinstance(policy, dict) else {}
    found = tables.get("checkpoint") or policy.get("model") or policy.get("name")
    return found if isinstance(found, str) else None
