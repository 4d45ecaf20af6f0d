"""The command line of the evaluation: `pixelis eval pixelworld` and `pixelis score`. Thin, as `cli.py`, with its exit codes."""

from __future__ import annotations

import json
from collections.abc import Iterator
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

    wanted = recipe_of(recipe, policy, model, seed, no_tools=no_tools)
    other = tuple(read_scores(compare)) if compare else ()  # before the work: a wrong folder costs no hour
    with progress_line(f"{split} items") as progress:
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


@app.command(epilog="Example:  pixelis eval join runs/whole runs/part-0 runs/part-1")
def join(
    folder: Annotated[Path, typer.Argument(help="Where to leave the whole; a new folder.")],
    parts: Annotated[list[Path], typer.Argument(help="Runs of one PixelWorld evaluation, made with --first and --items.")],
    compare: Annotated[Path | None, typer.Option(help="Another run on the same items: paired permutation tests against it.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Join the parts of an evaluation that several processes or machines made, and score the whole."""
    from pixelis.eval.join import join as join_runs
    from pixelis.eval.scores import read_scores

    other = tuple(read_scores(compare)) if compare else ()
    _print_report(join_runs(parts, folder), other, compare, as_json=as_json)


@app.command(epilog="Example:  pixelis eval process runs/test --dev runs/dev --plans 50")
def process(
    run: Annotated[Path, typer.Argument(help="The folder of a PixelWorld evaluation.")],
    dev: Annotated[Path, typer.Option(help="An evaluation on the dev split, which fixes RaCPR's scale.")],
    plans: Annotated[int, typer.Option(min=0, help="So many plans are re-executed on changed media, for PRC.")] = 0,
    compare: Annotated[Path | None, typer.Option(help="Another run on the same items: paired tests of every metric.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """How answers were obtained: RaPR, RaCPR, VisFid, action entropy, PRC, and how they go with being right and foretell it; leaves
    process.json in the run."""
    from pixelis.agent import make_executor
    from pixelis.eval.process_pair import compare_processes, processes_json, processes_text
    from pixelis.eval.process_run import process_json, process_report, process_text, write_process
    from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder
    from pixelis.tools.settings import ToolSettings
    from pixelis.tools.toolbox import resolved

    executor, encoder = make_executor(resolved(ToolSettings())) if plans else None, EfficientNetEncoder()
    with progress_line("cosines") as progress:
        report = process_report(run, dev, encoder, executor=executor, num_plans=plans, progress=progress)
        paired = None if compare is None else compare_processes(report, process_report(compare, dev, encoder, progress=progress))
    path = write_process(run, report)
    if as_json:
        print(json.dumps(process_json(report) | ({} if paired is None else {"compared": processes_json(paired)}), indent=1))
    else:
        beside = "" if paired is None else f"\n\n{processes_text(paired)}"
        out.print(f"{process_text(report)}{beside}\n\nin {path}")


def _score_bench(run: Path, compare: Path | None, *, as_json: bool) -> None:
    from pixelis.eval.bench.report import report_json, report_text, score_bench_run

    if compare is not None:
        raise ConfigError("--compare pairs PixelWorld items; a public benchmark's run is scored alone: leave it out")
    found = score_bench_run(run)
    if as_json:
        print(json.dumps(report_json(found), indent=1))
    else:
        out.print(report_text(found))


@app.command(
    epilog="Examples:  pixelis eval bench vstar ~/data/vstar_bench --policy vlm --model FOLDER --run runs/vstar   |   "
    "pixelis eval bench vsibench hub: --policy endpoint --run runs/vsi"
)
def bench(
    name: Annotated[str, typer.Argument(help="vstar, mmbench, mvbench, infographicvqa, videommmu or vsibench.")],
    folder: Annotated[
        str, typer.Argument(help="Where its published files lie; which are missing is said. Fetched by hub: or hub:OWNER/NAME@REVISION.")
    ],
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
    from pixelis.eval.bench.hub import local_folder
    from pixelis.eval.bench.report import report_json, report_text
    from pixelis.eval.bench.run import evaluate_bench
    from pixelis.rollout.run import Limits

    wanted = recipe_of(recipe, policy, model, seed, no_tools=no_tools)
    files = local_folder(name, folder)
    limits = Limits(max_steps=wanted.limits.max_steps, max_seconds=wanted.limits.max_seconds)
    answering = make_policy(wanted.policy)
    try:
        with progress_line(f"{name} items") as progress:
            found = evaluate_bench(
                name,
                files,
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


def report(
    runs: Annotated[list[Path], typer.Argument(help="Folders of evaluations and of training, or .jsonl journals.")],
    page: Annotated[Path, typer.Option("--out", help="The page to write.")] = Path("report.html"),
    markdown: Annotated[Path | None, typer.Option(help="Also write the tables there, in GitHub Markdown.")] = None,
    curves: Annotated[Path | None, typer.Option(help="Also write the curves into this folder, each an SVG file.")] = None,
    journals: Annotated[
        Path | None, typer.Option(help="Also write the journals into this folder, each with what is known of its run in its first line.")
    ] = None,
    examples: Annotated[int, typer.Option(min=0, help="Of how many families to show the first right and the first wrong item.")] = 6,
) -> None:
    """Write one self-contained HTML page over evaluations and training runs: tables, curves, examples, and where each comes from."""
    from pixelis.serve.report import write_report

    with progress_line("runs") as progress:
        written = write_report(runs, page, markdown=markdown, curves=curves, journals=journals, examples=examples, progress=progress)
    out.print(f"wrote {written} ({written.stat().st_size / 1e6:.1f} MB); open it in a browser")
    if markdown is not None:
        out.print(f"wrote {markdown}")
    if curves is not None:
        out.print(f"wrote curves into {curves}")
    if journals is not None:
        out.print(f"wrote journals into {journals}")


def recipe_of(path: Path | None, policy: str | None, model: str | None, seed: int | None, *, no_tools: bool = False) -> Recipe:
    """The recipe with what the command line says instead, and the engines that `auto` means here."""
    from pixelis.config import recipe_with
    from pixelis.tools.toolbox import resolved

    known = recipe_with(path, seed=seed, no_tools=no_tools, name=policy, model=model)
    return known.model_copy(update={"tools": resolved(known.tools)})


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
def progress_line(name: str) -> Iterator[Any]:
    """A line on standard error: how many, how fast, how long still."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeElapsedColumn(), TextColumn("left"))
    with Progress(*columns, TimeRemainingColumn(), console=err) as progress:
        bar = progress.add_task(name, total=None)
        yield lambda done, total: progress.update(bar, completed=done, total=total)
