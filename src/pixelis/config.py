"""Recipes: one TOML file describes one whole run. An unknown key is an error that names the file and the key."""

from __future__ import annotations

import json
import os
import tomllib
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pixelis.core.errors import ConfigError
from pixelis.core.ops import OPS
from pixelis.tools.settings import ToolSettings


class PolicySettings(BaseModel):
    """Which policy writes the turns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "auto"
    """planner, endpoint, vlm, or a checkpoint that comes with the package; "auto" is nano-rft where torch is installed, else planner"""
    model: str = ""
    """endpoint: the server's name of the model; vlm: a checkpoint folder or hub name"""
    url: str = ""
    """endpoint: the server, such as http://localhost:8000/v1"""
    adapter: str = ""
    """vlm: a folder with LoRA weights"""
    native_tools: bool = False
    temperature: float | None = Field(default=None, ge=0, le=5)
    """of sampling; when left out, 0 (the likeliest token) for a checkpoint of the package and 0.7 for others"""
    max_tokens: int = Field(default=512, ge=1)
    """per turn"""
    logit_bias: dict[str, float] = Field(default_factory=dict)
    """endpoint: what is added to the logits of tokens, by their ids in the server's vocabulary, such as those of <tool_call>"""
    timeout_s: float = Field(default=60.0, gt=0)


class LimitSettings(BaseModel):
    """When a trajectory is stopped."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_steps: int = Field(default=16, ge=1)
    max_seconds: float = Field(default=120.0, gt=0)


class Recipe(BaseModel):
    """Everything that decides how a question is answered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    policy: PolicySettings = PolicySettings()
    tools: ToolSettings = ToolSettings()
    limits: LimitSettings = LimitSettings()
    seed: int = 0


R = TypeVar("R", bound=BaseModel)


def load_recipe(path: str | os.PathLike) -> Recipe:
    """Read a recipe of `pixelis ask`; see `load_recipe_as`."""
    return load_recipe_as(Recipe, path)


def recipe_with(path: str | os.PathLike | None, *, seed: int | None = None, no_tools: bool = False, **policy: str | None) -> Recipe:
    """The recipe, or the usual one, with what a command says instead.

    Args:
        path: None for the usual one.
        seed, policy: None leaves what the recipe says; the policy's by the names of `PolicySettings`.
        no_tools: switch every tool off.

    Raises:
        ConfigError: see `load_recipe_as`.
    """
    known = load_recipe(path) if path else Recipe()
    named = {key: value for key, value in policy.items() if value is not None}
    return known.model_copy(
        update={
            "policy": known.policy.model_copy(update=named),
            "tools": known.tools.model_copy(update={"disabled": OPS}) if no_tools else known.tools,
            "seed": known.seed if seed is None else seed,
        }
    )


def load_recipe_as(kind: type[R], path: str | os.PathLike) -> R:
    """Read a recipe of some kind.

    Raises:
        ConfigError: it cannot be read, is no TOML, stands on itself, or has an unknown key or a wrong value.
    """
    path = Path(path)
    try:
        return kind.model_validate(recipe_tables(path))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        known = _known_keys(kind, first["loc"][:-1]) if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{path}: {key}: {first['msg'].lower()}{known}") from None


def recipe_tables(path: Path, trail: tuple[Path, ...] = ()) -> dict[str, Any]:
    """What a recipe says, over what the recipe says that it names as its `base` (a path from its own folder)."""
    if path.resolve() in trail:
        raise ConfigError(f"{path}: its base stands on it: {' -> '.join(str(one) for one in [*trail, path.resolve()])}")
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    base = tables.pop("base", None)
    if base is None:
        return tables
    if not isinstance(base, str):
        raise ConfigError(f"{path}: base: expected the path of a recipe, got {base!r}")
    return _over(recipe_tables(path.parent / base, (*trail, path.resolve())), tables)


def recipe_text(path: Path) -> str:
    """What a recipe says, its bases included, as one text: the same for recipes that say the same."""
    return json.dumps(recipe_tables(path), sort_keys=True, default=str)


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Tables merge; anything else, lists too, is replaced."""
    merged = dict(below)
    for key, value in above.items():
        merged[key] = _over(below[key], value) if isinstance(value, dict) and isinstance(below.get(key), dict) else value
    return merged


def _known_keys(model: type[BaseModel], table: tuple) -> str:
    for part in table:
        field = model.model_fields.get(str(part))
        kinds = [field.annotation, *get_args(field.annotation)] if field is not None else []
        model = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)  # type: ignore[assignment]
        if model is None:
            return ""
    return f"; the keys here are {', '.join(model.model_fields)}"
