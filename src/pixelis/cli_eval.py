"""The command line of the evaluation: `pixelis eval pixelworld` and `pixelis score`. Thin, as `cli.py`, with its exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from pixelis.core.errors import ConfigError

if TYPE_CHECKING:
    from pixelis.config import Recipe
    from pixelis.eval.report import Report
    from pixelis.eval.scores import ItemScore
    from pixelis.eval.sweep import Sweep

app = typer.Typer(help="Examine a policy: answers, and how they were obtained, with 95 % intervals.", no_args_is_help=True)
out = Console(highlight=False, soft_wrap=True, markup=False)
err = Console(stderr=True, highlight=False, soft_wrap=True)

PolicyOption = Annotated[str | None, typer.Option(help="Which policy answers, as in pixelis ask.")]
ModelOption = Annotated[str | None, typer.Option(help="endpoint: the model's name; vlm: a checkpoint folder.")]
RecipeOption = Annotated[Path | None, typer.Option(help="A TOML recipe: policy, tools, limits, seed.")]
SplitOption = Annotated[str, typer.Option(help="train, dev, dev-cal or test.")]
SeedOption = Annotated[int | None, typer.Option(help="Of items, policy and statistics.")]
FamilyOption = Annotated[list[str] | None, typer.Option(help="Only this question family; may be given several times.")]
ParallelOption = Annotated[int, typer.Option(min=1, help="Trajectories under way at once; fewer on a busy machine.")]
SweepFolder = Annotated[Path, typer.Option("--out", help="Where runs and numbers are left; what is done there is not done again.")]
JsonFlag = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]


@app.command(
    epilog="Examples:  pixelis eval pixelworld --policy planner --items 200   |   "
    "pixelis eval pixelworld --policy vlm --model FOLDER --shift lighting:3 --run runs/dark --compare runs/plain"
)
def pixelworld(
    policy: PolicyOption = None,
    model: ModelOption = None,
    recipe: RecipeOption = None,
    split: SplitOption = "test",
    seed: Annotated[int | None, typer.Option(help="Any seed gives a fresh set of the same distribution.")] = None,
    items: Annotated[int, typer.Option(min=1, help="How many items.")] = 1000,
    first: Annotated[int, typer.Option(min=0, help="Number of the first item.")] = 0,
    shift: Annotated[str | None, typer.Option(help="lighting, motion, noise, occlusion or compression, and a severity: noise:3.")] = None,
    family: FamilyOption = None,
    no_tools: Annotated[bool, typer.Option("--no-tools", help="All six tools answer with a typed empty result.")] = False,
    run: Annotated[Path | None, typer.Option(help="Where to leave trajectories and scores; a run begun there goes on.")] = None,
    parallel: ParallelOption = 8,
    media: Annotated[bool, typer.Option("--media/--no-media", help="Keep the media in the run, for view and replay.")] = True,
    compare: Annotated[Path | None, typer.Option(help="Another run on the same items: paired permutation tests against it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Let a policy answer items of PixelWorld, and say how well and how it did."""
    from pixelis.data.world.shifts import parse_shift
    from pixelis.eval.scores import read_scores

    wanted = _recipe(recipe, policy, model, seed, no_tools)
    other = tuple(read_scores(compare)) if compare else ()  # before the work: a wrong folder costs no hour
    with _progress_line(f"{split} items") as progress:
        report = _evaluate(
            wanted,
            split=split,
            num_items=items,
            first=first,
            shift=parse_shift(shift) if shift else None,
            families=tuple(family or ()),
            num_parallel=parallel,
            out_folder=run,
            keep_media=media,
            progress=progress,
        )
    _print_report(report, other, compare, as_json=as_json)
    if run is not None and not as_json:
        out.print(f"\nin {run}; score it again: pixelis score {run}{f'; look: pixelis view {run} --limit 20' if media else ''}")


def score(
    run: Annotated[Path, typer.Argument(help="The folder of an evaluation.")],
    compare: Annotated[Path | None, typer.Option(help="Another run on the same items: paired permutation tests against it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Score a stored evaluation again from its trajectories: no policy, no tools, no media."""
    from pixelis.core.store import open_run
    from pixelis.eval.pixelworld import rescore
    from pixelis.eval.scores import read_scores

    if open_run(run).info.get("evaluation") == "bench":
        _score_bench(run, compare, as_json=as_json)
        return
    other = tuple(read_scores(compare)) if compare else ()
    _print_report(rescore(run), other, compare, as_json=as_json)


@app.command(epilog="Example:  pixelis eval process runs/test --dev runs/dev --plans 50")
def process(
    run: Annotated[Path, typer.Argument(help="The folder of a PixelWorld evaluation.")],
    dev: Annotated[Path, typer.Option(help="An evaluation on the dev split, which fixes RaCPR's scale.")],
    plans: Annotated[int, typer.Option(min=0, help="So many plans are re-executed on changed media, for PRC.")] = 0,
    as_json: JsonFlag = False,
) -> None:
    """How answers were obtained: RaPR, RaCPR, VisFid, action entropy, PRC, and their correlation with being right."""
    from pixelis.agent import make_executor
    from pixelis.eval.process_run import process_json, process_report, process_text
    from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder
    from pixelis.tools.settings import ToolSettings
    from pixelis.tools.toolbox import resolved

    executor = make_executor(resolved(ToolSettings())) if plans else None
    with _progress_line("cosines") as progress:
        report = process_report(run, dev, EfficientNetEncoder(), executor=executor, num_plans=plans, progress=progress)
    if as_json:
        print(json.dumps(process_json(report), indent=1))
    else:
        out.print(process_text(report))


def _score_bench(run: Path, compare: Path | None, *, as_json: bool) -> None:
    from pixelis.eval.bench.report import report_json, report_text, score_bench_run

    if compare is not None:
        raise ConfigError("--compare pairs PixelWorld items; a public benchmark's run is scored alone: leave it out")
    found = score_bench_run(run)
    if as_json:
        print(json.dumps(report_json(found), indent=1))
    else:
        out.print(report_text(found))


@app.command(epilog="Example:  pixelis eval bench vstar ~/data/vstar_bench --policy vlm --model FOLDER --run runs/vstar")
def bench(
    name: Annotated[str, typer.Argument(help="vstar, mmbench, mvbench, infographicvqa, videommmu or vsibench.")],
    folder: Annotated[Path, typer.Argument(help="Where its published files lie; when some are missing, which ones is said.")],
    run: Annotated[Path, typer.Option(help="Where to leave trajectories and scores; a run begun there goes on.")],
    policy: PolicyOption = None,
    model: ModelOption = None,
    recipe: RecipeOption = None,
    task: Annotated[list[str] | None, typer.Option(help="Only this task; may be given several times.")] = None,
    per_task: Annotated[int | None, typer.Option(min=1, help="So many items of each task.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the policy, and of shuffled options.")] = None,
    no_tools: Annotated[bool, typer.Option("--no-tools", help="All six tools answer with a typed empty result.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Let a policy answer a public benchmark, and score it by the official rules."""
    from pixelis.agent import make_executor, make_policy
    from pixelis.eval.bench.report import report_json, report_text
    from pixelis.eval.bench.run import evaluate_bench
    from pixelis.rollout.run import Limits

    wanted = _recipe(recipe, policy, model, seed, no_tools)
    limits = Limits(max_steps=wanted.limits.max_steps, max_seconds=wanted.limits.max_seconds)
    answering = make_policy(wanted.policy)
    try:
        with _progress_line(f"{name} items") as progress:
            found = evaluate_bench(
                name,
                folder,
                answering,
                make_executor(wanted.tools),
                wanted.tools,
                run_folder=run,
                seed=wanted.seed,
                tasks=tuple(task or ()),
                num_per_task=per_task,
                limits=limits,
                progress=progress,
            )
    finally:
        answering.close()
    if as_json:
        print(json.dumps(report_json(found), indent=1))
    else:
        out.print(report_text(found))
        out.print(f"\nin {run}; score it again: pixelis score {run}")


@app.command(epilog="Example:  pixelis eval hacks runs/rft-test")
def hacks(run: Annotated[Path, typer.Argument(help="The folder of a PixelWorld evaluation.")], as_json: JsonFlag = False) -> None:
    """Count the ways to look good without doing the work; fails when one is seen too often."""
    from pixelis.eval.hacks import find_hacks, hacks_text
    from pixelis.eval.pixelworld import open_evaluation

    stored, items = open_evaluation(run)
    found = find_hacks((items.item_of(trajectory), trajectory) for trajectory in stored.trajectories())
    if as_json:
        print(json.dumps([hack.to_json() for hack in found], indent=1))
    else:
        out.print(hacks_text(found))
    raise typer.Exit(0 if all(hack.passes for hack in found) else 1)


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

    wanted = _recipe(recipe, policy, model, seed, no_tools=False)
    chosen = grid_shifts(*_kinds_and_severities(shifts, severities))
    with _sweep(ROBUSTNESS, wanted, folder, split, items, family, parallel) as sweep, _progress_line("grid") as progress:
        found = run_robustness(sweep, make_executor(wanted.tools), chosen, num_plans=plans, progress=progress)
    _print(robustness_json(found), lambda: f"{grid_text(found.grid)}\n\nin {folder}; draw it: pixelis report {folder}", as_json)


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

    wanted = _recipe(recipe, policy, model, seed, no_tools=False)
    if wanted.tools.disabled:
        raise ConfigError(f"{recipe}: tools.disabled is {list(wanted.tools.disabled)}; the comparison is with all tools on: leave it out")
    with _sweep(NECESSITY, wanted, folder, split, items, family, parallel) as sweep, _progress_line("conditions") as progress:
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

    wanted = _recipe(recipe, policy, model, seed, no_tools=False)
    hot, cold = (wanted.policy.model_copy(update={"temperature": degree}) for degree in (temperature, 0.0))
    wanted = wanted.model_copy(update={"policy": hot})
    with _sweep(CONSISTENCY, wanted, folder, split, items, family, parallel) as sweep, _progress_line("rollouts") as progress:
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
    """What abstaining was worth: coverage, Err@Sel, AURC, ECE, acceptance and KL; leaves risk_coverage.jsonl in each run."""
    from pixelis.eval.selective_run import least_accepted, read_selective, selective_json, selective_text, write_curve

    found = [read_selective(run) for run in runs]
    curves = [write_curve(run, one) for run, one in zip(runs, found, strict=True)]
    is_comparable = len(found) > 1 and all(one.is_finished for one in found) and any(one.num_accepted for one in found)
    least = least_accepted(found) if is_comparable else None
    match = "" if least is None else f"\nto match them: max_accepted = {least} under [adapt]"
    drawn = f"\n\ncurves: pixelis report {' '.join(map(str, curves))}"
    _print({"runs": selective_json(found), "max_accepted": least}, lambda: f"{selective_text(found)}{drawn}{match}", as_json)


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


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of evaluations and of training, or .jsonl journals.")],
    page: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
    markdown: Annotated[Path | None, typer.Option(help="Also write the tables there, in GitHub Markdown.")] = None,
    examples: Annotated[int, typer.Option(min=0, help="Of how many families to show the first right and the first wrong item.")] = 6,
) -> None:
    """Write one self-contained HTML page over evaluations and training runs: tables, curves, examples, and where each comes from."""
    from pixelis.serve.report import write_report

    with _progress_line("runs") as progress:
        written = write_report(runs, page, markdown=markdown, examples=examples, progress=progress)
    out.print(f"wrote {written} ({written.stat().st_size / 1e6:.1f} MB); open it in a browser")
    if markdown is not None:
        out.print(f"wrote {markdown}")


def _recipe(path: Path | None, policy: str | None, model: str | None, seed: int | None, no_tools: bool) -> Recipe:
    """The recipe with what the command line says instead."""
    from pixelis.config import Recipe, load_recipe
    from pixelis.core.ops import OPS
    from pixelis.tools.toolbox import resolved

    known = load_recipe(path) if path else Recipe()
    named = {key: value for key, value in {"name": policy, "model": model}.items() if value is not None}
    tools = resolved(known.tools)
    return known.model_copy(
        update={
            "policy": known.policy.model_copy(update=named),
            "tools": tools.model_copy(update={"disabled": OPS}) if no_tools else tools,
            "seed": known.seed if seed is None else seed,
        }
    )


def _evaluate(recipe: Recipe, **options: Any) -> Report:
    from pixelis.agent import make_executor, make_policy
    from pixelis.eval.pixelworld import evaluate
    from pixelis.rollout.run import Limits

    policy = make_policy(recipe.policy)
    limits = Limits(max_steps=recipe.limits.max_steps, max_seconds=recipe.limits.max_seconds)
    try:
        return evaluate(policy, make_executor(recipe.tools), recipe.tools, seed=recipe.seed, limits=limits, **options)
    finally:
        policy.close()


def _print_report(report: Report, other: tuple[ItemScore, ...], folder: Path | None, *, as_json: bool) -> None:
    from pixelis.eval.compare import compare, comparison_json, comparison_text
    from pixelis.eval.report import report_json, report_text

    found = compare(report.scores, other) if folder else None
    if as_json:
        print(
            json.dumps({**report_json(report), **({"compare": {"with": str(folder), **comparison_json(found)}} if found else {})}, indent=1)
        )
        return
    out.print(report_text(report))
    if found:
        out.print(f"\nagainst {folder}:\n{comparison_text(found)}")


class _Rate(ProgressColumn):
    """Items a second, over the last minute or so."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:.2f}/s" if speed else "-/s", style="progress.data.speed")


@contextmanager
def _progress_line(name: str) -> Iterator[Any]:
    """A line on standard error: how many, how fast, how long still."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(), TextColumn("left"))
    with Progress(*columns, TimeRemainingColumn(), console=err) as progress:
        bar = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
