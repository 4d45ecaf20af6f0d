"""The command line of evaluations that ask one policy the same items again and again, or look at stored runs from one side: shift grids,
tools taken away, votes over rollouts, failures by mode, what abstaining was worth. They stand under `pixelis eval`. Thin, as `cli.py`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pixelis.cli_eval import (
    FamilyOption,
    JsonFlag,
    ModelOption,
    ParallelOption,
    PolicyOption,
    RecipeOption,
    SeedOption,
    SplitOption,
    app,
    out,
    progress_line,
    recipe_of,
)
from pixelis.core.errors import ConfigError

if TYPE_CHECKING:
    from pixelis.config import Recipe
    from pixelis.eval.sweep import Sweep

SweepFolder = Annotated[Path, typer.Option("--out", help="Where runs and numbers are left; what is done there is not done again.")]


@app.command(
    epilog="Example:  pixelis eval robustness --policy planner --items 100 --shifts noise,lighting --severities 1,3,5 --out runs/grid"
)
def robustness(
    folder: SweepFolder,
    policy: PolicyOption = None,
    model: ModelOption = None,
    recipe: RecipeOption = None,
    split: SplitOption = "test",
    items: Annotated[int, typer.Option(min=1, help="How many items, the same in every cell.")] = 200,
    seed: SeedOption = None,
    shifts: Annotated[str, typer.Option(help="Kinds, with commas; all five when left out.")] = "",
    severities: Annotated[str, typer.Option(help="From 1 to 5, with commas.")] = "1,2,3,4,5",
    family: FamilyOption = None,
    plans: Annotated[int, typer.Option(min=0, help="So many clean plans are made again on each shift's media, for PRC.")] = 50,
    parallel: ParallelOption = 8,
    as_json: JsonFlag = False,
) -> None:
    """The same items clean and under every shift at every severity: what breaks, and how soon."""
    from pixelis.agent import make_executor
    from pixelis.eval.robustness import grid_shifts, grid_text
    from pixelis.eval.robustness_run import ROBUSTNESS, robustness_json, run_robustness

    wanted = recipe_of(recipe, policy, model, seed)
    chosen = grid_shifts(*_kinds_and_severities(shifts, severities))
    with _sweep(ROBUSTNESS, wanted, folder, split, items, family, parallel) as sweep, progress_line("grid") as progress:
        found = run_robustness(sweep, make_executor(wanted.tools), chosen, num_plans=plans, progress=progress)
    _print(robustness_json(found), lambda: f"{grid_text(found.grid)}\n\nin {folder}; draw it: pixelis report {folder}", as_json)


@app.command(epilog="Example:  pixelis eval grids runs/main/rft runs/main/sft")
def grids(
    one: Annotated[Path, typer.Argument(help="What pixelis eval robustness left of one policy.")],
    two: Annotated[Path, typer.Argument(help="And of another, on the same items.")],
    as_json: JsonFlag = False,
) -> None:
    """One policy against another in every cell of two grids, and over all cells item by item."""
    from pixelis.eval.grid_pair import grid_pair_json, grid_pair_text, pair_grids, read_cells

    pair = pair_grids(read_cells(one), read_cells(two))
    _print(grid_pair_json(pair), lambda: grid_pair_text(pair), as_json)


@app.command(epilog="Example:  pixelis eval necessity --policy nano-sft --items 400 --out runs/necessity")
def necessity(
    folder: SweepFolder,
    policy: PolicyOption = None,
    model: ModelOption = None,
    recipe: RecipeOption = None,
    split: SplitOption = "test",
    items: Annotated[int, typer.Option(min=1, help="How many items, the same under every condition.")] = 200,
    seed: SeedOption = None,
    family: FamilyOption = None,
    degraded: Annotated[bool, typer.Option("--degraded/--no-degraded", help="Also make each tool see badly, in turn.")] = True,
    strength: Annotated[float, typer.Option(min=0, max=1, help="How badly: the share of its sides by which a box is moved.")] = 0.25,
    subsets: Annotated[Path | None, typer.Option(help="subsets.json that an earlier run froze: its items as a group of their own.")] = None,
    parallel: ParallelOption = 8,
    as_json: JsonFlag = False,
) -> None:
    """The same items with each tool off, and degraded: which tool matters where; freezes which items turned on which tool."""
    from pixelis.eval.degrade import Blur
    from pixelis.eval.necessity import OFF, WAYS, necessity_text
    from pixelis.eval.necessity_run import NECESSITY, necessities_json, run_necessity
    from pixelis.tools.toolbox import build_toolbox

    wanted = recipe_of(recipe, policy, model, seed)
    if wanted.tools.disabled:
        raise ConfigError(f"{recipe}: tools.disabled is {list(wanted.tools.disabled)}; the comparison is with all tools on: leave it out")
    with _sweep(NECESSITY, wanted, folder, split, items, family, parallel) as sweep, progress_line("conditions") as progress:
        blur = Blur(strength=strength, seed=wanted.seed)
        ways = WAYS if degraded else (OFF,)
        found = run_necessity(sweep, build_toolbox(wanted.tools), ways=ways, blur=blur, subsets=subsets, progress=progress)
    _print(necessities_json(found), lambda: f"{necessity_text(found.found)}\n\nin {folder}; draw it: pixelis report {folder}", as_json)


@app.command(
    epilog="Examples:  pixelis eval consistency --policy nano-sft --split dev-cal --items 200 --fusion --out runs/cal   |   "
    "pixelis eval consistency --policy nano-sft --items 400 --fusion --calibration runs/cal --out runs/votes"
)
def consistency(
    folder: SweepFolder,
    policy: PolicyOption = None,
    model: ModelOption = None,
    recipe: RecipeOption = None,
    split: SplitOption = "test",
    items: Annotated[int, typer.Option(min=1, help="How many items.")] = 200,
    seed: SeedOption = None,
    rollouts: Annotated[int, typer.Option(min=2, help="So many of every item, each with a seed of its own.")] = 8,
    temperature: Annotated[float, typer.Option(min=0.01, help="Of sampling; one more rollout is made at 0.")] = 0.7,
    fusion: Annotated[bool, typer.Option("--fusion/--no-fusion", help="Also roll out with all tools off, for late fusion.")] = False,
    calibration: Annotated[Path | None, typer.Option(help="What this command left of another, labelled split.")] = None,
    family: FamilyOption = None,
    parallel: ParallelOption = 8,
    as_json: JsonFlag = False,
) -> None:
    """Several rollouts of the same items, and what votes, re-ranking and late fusion make of them, at what budget."""
    from pixelis.agent import make_policy
    from pixelis.eval.consistency_run import CONSISTENCY, consistencies_json, run_consistency
    from pixelis.eval.consistency_table import consistency_text
    from pixelis.tools.toolbox import build_toolbox

    wanted = recipe_of(recipe, policy, model, seed)
    hot, cold = (wanted.policy.model_copy(update={"temperature": degree}) for degree in (temperature, 0.0))
    wanted = wanted.model_copy(update={"policy": hot})
    with _sweep(CONSISTENCY, wanted, folder, split, items, family, parallel) as sweep, progress_line("rollouts") as progress:
        found = run_consistency(
            sweep,
            build_toolbox(wanted.tools),
            num_rollouts=rollouts,
            greedy=lambda: make_policy(cold),
            is_fused=fusion,
            calibration=calibration,
            progress=progress,
        )
    _print(consistencies_json(found), lambda: f"{consistency_text(found.found)}\n\nin {folder}; draw it: pixelis report {folder}", as_json)


@app.command(epilog="Example:  pixelis eval failures runs/test")
def failures(
    run: Annotated[Path, typer.Argument(help="The folder of a PixelWorld evaluation.")],
    examples: Annotated[int, typer.Option(min=0, help="So many of the worst failures of each mode are named.")] = 6,
    as_json: JsonFlag = False,
) -> None:
    """Sort failures by what is hard about their items; leaves failures.json in the run, and the report then shows a gallery."""
    from pixelis.eval.failures import audit_text
    from pixelis.eval.failures_run import FAILURES_FILE, audit_run

    modes = audit_run(run, num_worst=examples)
    _print(
        json.loads((run / FAILURES_FILE).read_bytes()),
        lambda: f"{audit_text(modes)}\n\nthe worst are named in {run / FAILURES_FILE}",
        as_json,
    )


@app.command(epilog="Example:  pixelis eval selective runs/nano/ablations-ttrl/full-0 runs/nano/ablations-ttrl/hard-majority-0")
def selective(
    runs: Annotated[list[Path], typer.Argument(help="Folders of pixelis adapt that were audited.")],
    as_json: JsonFlag = False,
) -> None:
    """What abstaining was worth: coverage, Err@Sel, AURC, ECE, acceptance and KL, and under each shift of the stream; leaves both curves in
    each run."""
    from pixelis.eval.selective_run import least_accepted, read_selective, selective_json, selective_text, write_curves

    found = [read_selective(run) for run in runs]
    curves = [path for run, one in zip(runs, found, strict=True) for path in write_curves(run, one)]
    is_comparable = len(found) > 1 and all(one.is_finished for one in found) and any(one.num_accepted for one in found)
    least = least_accepted(found) if is_comparable else None
    match = "" if least is None else f"\nto match them: max_accepted = {least} under [adapt]"
    drawn = f"\n\ncurves: pixelis report {' '.join(map(str, curves))}"
    _print({"runs": selective_json(found), "max_accepted": least}, lambda: f"{selective_text(found)}{drawn}{match}", as_json)


@app.command(epilog="Examples:  pixelis eval revote runs/nano/ttrl   |   pixelis eval revote runs/nano/ttrl --again --curves runs/curves")
def revote(
    run: Annotated[Path, typer.Argument(help="A folder of pixelis adapt that was audited.")],
    again: Annotated[bool, typer.Option("--again", help="Also ask its memory again: K, omega, near misses, pictures pressed.")] = False,
    curves: Annotated[Path | None, typer.Option(help="Also leave risk against coverage in this folder, a journal a vote.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of flips, near misses and the bootstrap; the run's own when left out.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """What other votes would have decided on the very facts that a run recorded, over fewer rollouts and with other neighbours, and beside
    each what hard majority errs in at the same coverage."""
    from pixelis.eval.revote import hold_again, hold_all, revote_json, revote_text, write_curves

    found, agreement = hold_all(run, seed=seed), None
    if again:
        with progress_line("pictures") as progress:
            agreement, more = hold_again(run, seed=seed, progress=progress)
        found += more
    written = [] if curves is None else write_curves(run, found, curves)
    drawn = f"\n\ncurves: pixelis report {' '.join(map(str, written))} --curves {curves}" if written else ""
    _print(revote_json(found, agreement), lambda: f"{revote_text(found, agreement)}{drawn}", as_json)


def _kinds_and_severities(shifts: str, severities: str) -> tuple[tuple[str, ...], tuple[int, ...]]:
    """What `--shifts a,b` and `--severities 1,3` ask for."""
    from pixelis.data.world.shifts import SHIFTS

    words = [word.strip() for word in severities.split(",") if word.strip()]
    if not all(word.isdecimal() for word in words):
        raise ConfigError(f"--severities {severities!r}: write numbers from 1 to 5 with commas between them, as 1,3,5")
    return tuple(word.strip() for word in shifts.split(",") if word.strip()) or SHIFTS, tuple(map(int, words))


@contextmanager
def _sweep(kind: str, recipe: Recipe, folder: Path, split: str, items: int, family: list[str] | None, parallel: int) -> Iterator[Sweep]:
    """A policy that answers the same items again and again, closed at the end."""
    from pixelis.agent import make_policy
    from pixelis.eval.pixelworld import ItemSet
    from pixelis.eval.sweep import Sweep
    from pixelis.rollout.run import Limits

    wanted = ItemSet(split=split, seed=recipe.seed, families=tuple(family or ()))
    limits = Limits(max_steps=recipe.limits.max_steps, max_seconds=recipe.limits.max_seconds)
    policy = make_policy(recipe.policy)
    try:
        yield Sweep(
            kind=kind,
            policy=policy,
            items=wanted,
            first=0,
            num_items=items,
            folder=folder,
            settings=recipe.tools,
            limits=limits,
            num_parallel=parallel,
        )
    finally:
        policy.close()


def _print(values: dict[str, Any], text: Callable[[], str], as_json: bool) -> None:
    if as_json:
        print(json.dumps(values, indent=1))
    else:
        out.print(text())
