"""`pixelis train ...`: from recipes to checkpoints."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from pixelis.cli_progress import Progress
from pixelis.config_train import ClearRecipe, PrimerRecipe, RftRecipe, SftRecipe, SightRecipe, load_recipe_as
from pixelis.core.errors import ConfigError

train = typer.Typer(help="Train policies; every run is one recipe.", no_args_is_help=True)


@train.command()
def sight(
    recipe: Annotated[Path, typer.Argument(help="A recipe with a \\[sight] table, such as recipes/nano/sight.toml.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to; the recipe says unless given. A run that was cut short goes on there.")
    ] = None,
) -> None:
    """A newborn model learns to see: dense training of its vision tower on glances."""
    from pixelis.train.newborn import make_newborn
    from pixelis.train.sight_run import SightSettings, train_sight
    from pixelis.train.views import make_views, read_views

    wanted = load_recipe_as(SightRecipe, recipe)
    progress = Progress("views")
    views = read_views(make_views(wanted.views.folder, wanted.views.count, wanted.prompting.build(), seed=wanted.seed, progress=progress))
    newborn = make_newborn(Path(out or wanted.out).with_name("newborn"), wanted.model, seed=wanted.seed)
    num_dev = wanted.views.num_dev
    train_sight(
        newborn, views[num_dev:], views[:num_dev], out or wanted.out, SightSettings(**wanted.sight.model_dump(), seed=wanted.seed), log=_log
    )


@train.command()
def clear(
    recipe: Annotated[Path, typer.Argument(help="A recipe with a \\[clear] table, such as recipes/nano/clear.toml.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to; the recipe says unless given. A run that was cut short goes on there.")
    ] = None,
) -> None:
    """A tower that sees learns to see the same over clutter; what reads it stays as it is."""
    from pixelis.policy.prompt import Prompting
    from pixelis.train.clear import ClearSettings, train_clear
    from pixelis.train.views import make_views, read_views

    wanted = load_recipe_as(ClearRecipe, recipe)
    prompting, count = Prompting.of(wanted.checkpoint), wanted.views.count
    plain = read_views(make_views(wanted.views.folder, count, prompting, seed=wanted.seed, progress=Progress("views")))
    progress = Progress("views over clutter")
    cluttered = read_views(make_views(wanted.cluttered, count, prompting, seed=wanted.seed, is_cluttered=True, progress=progress))
    settings = ClearSettings(**wanted.clear.model_dump(), seed=wanted.seed)
    train_clear(wanted.checkpoint, plain, cluttered, out or wanted.out, settings, num_dev=wanted.views.num_dev, log=_log)


@train.command()
def primer(
    recipe: Annotated[Path, typer.Argument(help="A recipe with a \\[primer] table, such as recipes/nano/primer.toml.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to; the recipe says unless given. A run that was cut short goes on there.")
    ] = None,
) -> None:
    """A model that sees learns to point and to think in small steps."""
    from pixelis.train.primer_run import PrimerSettings, run_primer
    from pixelis.train.views import read_views

    wanted = load_recipe_as(PrimerRecipe, recipe)
    views, num_dev = read_views(wanted.views.folder), wanted.views.num_dev
    settings = PrimerSettings(**wanted.primer.model_dump(), seed=wanted.seed)
    run_primer(wanted.checkpoint, views[num_dev:], views[:num_dev], out or wanted.out, wanted.prompting.build(), settings, log=_log)


@train.command()
def sft(
    recipe: Annotated[Path, typer.Argument(help="A recipe with an \\[sft] table, such as recipes/nano/sft.toml.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to; the recipe says unless given. A run that was cut short goes on there.")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Where to start from; the recipe says unless given.")] = None,
    workers: Annotated[int, typer.Option(help="Processes that make the media again.")] = 2,
) -> None:
    """Phase 1: imitate tool traces."""
    from pixelis.train.ranks import Ranks
    from pixelis.train.rehearsal import RehearsalSettings
    from pixelis.train.sft import run_sft
    from pixelis.train.sft_state import SftSettings
    from pixelis.train.start import load_learner

    wanted = load_recipe_as(SftRecipe, recipe)
    ranks = Ranks.found()
    started = load_learner(
        checkpoint or wanted.checkpoint,
        wanted.lora,
        prompting=wanted.prompting.build() if wanted.prompting else None,
        dtype=wanted.dtype,
        device=ranks.device,
        gradient_checkpointing=wanted.gradient_checkpointing,
    )
    settings = SftSettings(**wanted.sft.model_dump(), seed=wanted.seed)
    run_sft(
        started,
        wanted.traces,
        wanted.dev_traces,
        out or wanted.out,
        settings,
        num_workers=workers,
        log=_log,
        on_media=Progress("media"),
        rehearsal=RehearsalSettings(**wanted.rehearsal.model_dump()) if wanted.rehearsal else None,
        ranks=ranks,
    )


@train.command()
def rft(
    recipe: Annotated[Path, typer.Argument(help="A recipe with an \\[rft] table, such as recipes/nano/rft.toml.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to; the recipe says unless given. A run that was cut short goes on there.")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Where to start from; the recipe says unless given.")] = None,
    adapter: Annotated[str | None, typer.Option(help="The trained adapter that learns on; the recipe says unless given.")] = None,
    workers: Annotated[int | None, typer.Option(help="Processes that roll out; the recipe says unless given.")] = None,
) -> None:
    """Phase 2: reinforcement with curiosity and coherence under a KL corridor."""
    from pixelis.agent import make_executor
    from pixelis.rewards.groups import RewardWeights
    from pixelis.tools.toolbox import resolved
    from pixelis.train.corridor import CorridorSettings
    from pixelis.train.rft import run_rft
    from pixelis.train.rft_state import RftSettings
    from pixelis.train.start import make_sampler

    wanted = load_recipe_as(RftRecipe, recipe)
    values = wanted.rft.model_dump() | ({} if workers is None else {"workers": workers})
    weights = RewardWeights(values.pop("curiosity_weight"), values.pop("structure_weight"))
    settings = RftSettings(**values, weights=weights, corridor=CorridorSettings(**wanted.corridor.model_dump()), seed=wanted.seed)
    tools = resolved(wanted.tools)
    make = partial(
        make_sampler,
        checkpoint or wanted.checkpoint,
        lora=wanted.lora,
        adapter=adapter or wanted.adapter,
        dtype=wanted.dtype,
        max_new_tokens=wanted.max_new_tokens,
    )
    policy = make(gradient_checkpointing=wanted.gradient_checkpointing, num_slots=wanted.rft.num_parallel)
    copy = partial(make, device="cpu", num_slots=wanted.rft.group)
    try:
        run_rft(policy, make_executor(tools), tools, out or wanted.out, settings, make_copy=copy, log=_log)
    finally:
        policy.close()


@train.command()
def ship(
    checkpoint: Annotated[Path, typer.Argument(help="A trained checkpoint, such as runs/nano/sft.")],
    name: Annotated[str, typer.Argument(help="What the policy will be called: pixelis ask --policy NAME.")],
    out: Annotated[Path | None, typer.Option(help="Where to; among the policies that come with the package unless given.")] = None,
) -> None:
    """Put a trained checkpoint, in half precision, among the policies that are known by name."""
    from pixelis.agent import POLICIES
    from pixelis.policy.shipped import WEIGHTS
    from pixelis.train.ship import ship as write

    if name in POLICIES and not (WEIGHTS / name).is_dir():
        raise ConfigError(f"{name!r} is a policy of another kind; choose another name")
    folder = out or WEIGHTS / name
    print(f"{folder}: {write(checkpoint, folder) / 1e6:.1f} MB")


@train.command()
def average(
    before: Annotated[str, typer.Argument(help="A checkpoint.")],
    after: Annotated[str, typer.Argument(help="The same model after a further lesson.")],
    out: Annotated[Path, typer.Option(help="Where to.")],
    share: Annotated[float, typer.Option(help="Of the later one, in [0, 1].")] = 0.5,
) -> None:
    """The mean of two checkpoints of one model, weight by weight: a narrow lesson without what it made the model forget."""
    from pixelis.train.average import average as write

    print(write(before, after, out, share=share))


def _log(facts: dict[str, Any]) -> None:
    print(json.dumps(facts), flush=True)
