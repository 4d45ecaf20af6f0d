"""Ask: a question about one image or video in, an answer with its trajectory out."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from pixelis import __version__
from pixelis.config import PolicySettings, Recipe
from pixelis.core.errors import ConfigError
from pixelis.core.media import Medium, open_medium
from pixelis.core.store import RunWriter
from pixelis.core.trajectory import Trajectory
from pixelis.policy.base import Policy, Task
from pixelis.policy.shipped import ADAPTED, WEIGHTS
from pixelis.rollout.run import Limits, OnStep, Runner
from pixelis.tools.cache import ResultCache, cache_for
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import build_toolbox, resolved

MAX_KEPT_MEDIUM_BYTES = 512 << 20
"""A medium up to this size is copied into the run folder, which then replays by itself."""


@dataclass(frozen=True)
class Answer:
    """What came of one question."""

    trajectory: Trajectory
    run_folder: Path | None

    @property
    def text(self) -> str | None:
        """The answer; None when the agent gave none (`trajectory.stop` says why)."""
        return self.trajectory.answer

    def __str__(self) -> str:
        return self.text if self.text is not None else f"(no answer: {self.trajectory.stop})"


def _planner(settings: PolicySettings) -> Policy:
    from pixelis.policy.planner import PlannerPolicy

    return PlannerPolicy()


def _endpoint(settings: PolicySettings) -> Policy:
    from pixelis.policy.endpoint import EndpointPolicy

    return EndpointPolicy(
        settings.model,
        base_url=settings.url or None,
        native_tools=settings.native_tools,
        temperature=_temperature(settings),
        max_tokens=settings.max_tokens,
        logit_bias=settings.logit_bias,
        timeout_s=settings.timeout_s,
    )


def _vlm(settings: PolicySettings) -> Policy:
    from pixelis.policy.vlm import VlmPolicy

    if not settings.model:
        raise ConfigError("the vlm policy needs a checkpoint: --model FOLDER or a hub name")
    return VlmPolicy(
        settings.model, adapter=settings.adapter or None, temperature=_temperature(settings), max_new_tokens=settings.max_tokens
    )


def _shipped(settings: PolicySettings) -> Policy:
    from pixelis.policy.vlm import VlmPolicy
    from pixelis.policy.vlm_load import load_checkpoint

    name, lift = ADAPTED.get(settings.name, (settings.name, None))
    checkpoint = load_checkpoint(WEIGHTS / name, lift=lift)
    return VlmPolicy(checkpoint, temperature=settings.temperature or 0.0, max_new_tokens=settings.max_tokens)


def _temperature(settings: PolicySettings) -> float:
    return 0.7 if settings.temperature is None else settings.temperature


POLICIES: dict[str, Callable[[PolicySettings], Policy]] = {
    "planner": _planner,
    "endpoint": _endpoint,
    "vlm": _vlm,
    **{folder.name: _shipped for folder in sorted(WEIGHTS.glob("*")) if folder.is_dir()},
    **dict.fromkeys(ADAPTED, _shipped),
}


def default_policy() -> str:
    """What "auto" stands for: the trained policy of the package, or the planner where torch is missing."""
    return "nano-rft" if all(find_spec(module) for module in ("torch", "transformers")) else "planner"


def make_policy(settings: PolicySettings) -> Policy:
    """The policy that the settings name.

    Raises:
        ConfigError: no policy of that name, or its settings are incomplete.
        NotInstalled: it needs a package that is missing.
    """
    if settings.name == "auto":
        settings = settings.model_copy(update={"name": default_policy()})
    if settings.name not in POLICIES:
        raise ConfigError(f"there is no policy {settings.name!r}: {', '.join(POLICIES)}")
    return POLICIES[settings.name](settings)


def make_executor(settings: ToolSettings, *, cache: ResultCache | None = None) -> Executor:
    """An executor over the tools that the settings name, with the cache that they ask for unless one is given."""
    return Executor(build_toolbox(settings), disabled=settings.disabled, cache=cache or cache_for(settings))


def ask(
    media: str | os.PathLike | bytes | Medium,
    question: str,
    *,
    recipe: Recipe = Recipe(),
    run_folder: str | os.PathLike | None = None,
    on_step: OnStep | None = None,
) -> Answer:
    """Answer a question about an image or a video.

    Args:
        media: a file, its bytes, or an open medium.
        recipe: policy, tools, limits and seed.
        run_folder: where to leave the trajectory, with all that replay needs; None keeps it in memory only.
        on_step: called after every step.

    Returns:
        The answer with its trajectory. An agent that fails still returns one: `trajectory.stop` says how it ended.

    Raises:
        DataError: the medium cannot be opened, or the run folder cannot be written.
        ConfigError, NotInstalled: the recipe asks for what there is not.
    """
    if not question.strip():
        raise ConfigError("the question is empty")
    medium = media if isinstance(media, Medium) else open_medium(media)
    settings = resolved(recipe.tools)
    policy = make_policy(recipe.policy)
    writer = None
    try:
        if run_folder is not None:
            info = {"pixelis": __version__, "policy": policy.info.name, "recipe": recipe.model_dump(mode="json")}
            writer = RunWriter(run_folder, info)
            _keep_medium(writer, medium, media)
        limits = Limits(max_steps=recipe.limits.max_steps, max_seconds=recipe.limits.max_seconds)
        runner = Runner(policy, make_executor(settings), settings=settings, limits=limits, on_step=on_step)
        (rollout,) = runner.run([(Task(question=question, medium=medium), recipe.seed)], writer)
        return Answer(rollout.trajectory, Path(run_folder) if run_folder is not None else None)
    finally:
        if writer is not None:
            writer.close()
        policy.close()
        if medium is not media:
            medium.close()


def _keep_medium(writer: RunWriter, medium: Medium, media: object) -> None:
    """Copy the medium's bytes into the run, unless they are very large; replay then asks for the file."""
    if isinstance(media, bytes):
        writer.put_blob(media)
    elif medium.path is not None and medium.path.stat().st_size <= MAX_KEPT_MEDIUM_BYTES:
        writer.put_blob(medium.path.read_bytes())
