"""Recipes: one TOML file describes one whole run. An unknown key is an error that names the file and the key."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from pixelis.core.errors import ConfigError
from pixelis.tools.settings import ToolSettings


class PolicySettings(BaseModel):
    """Which policy writes the turns."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = "planner"
    """planner, endpoint or vlm"""
    model: str = ""
    """endpoint: the server's name of the model; vlm: a checkpoint folder or hub name"""
    url: str = ""
    """endpoint: the server, such as http://localhost:8000/v1"""
    adapter: str = ""
    """vlm: a folder with LoRA weights"""
    native_tools: bool = False
    temperature: float = Field(default=0.7, ge=0, le=5)
    max_tokens: int = Field(default=512, ge=1)
    """per turn"""
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


def load_recipe(path: str | os.PathLike) -> Recipe:
    """Read a recipe.

    Raises:
        ConfigError: it cannot be read, is no TOML, or has an unknown key or a wrong value.
    """
    path = Path(path)
    try:
        return Recipe.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(str(part) for part in first["loc"])
        known = _known_keys(first["loc"][:-1]) if first["type"] == "extra_forbidden" else ""
        raise ConfigError(f"{path}: {key}: {first['msg'].lower()}{known}") from None


def _known_keys(table: tuple) -> str:
    model: type[BaseModel] = Recipe
    for part in table:
        model = model.model_fields[str(part)].annotation  # type: ignore[assignment]
    return f"; the keys here are {', '.join(model.model_fields)}"
