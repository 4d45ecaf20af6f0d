"""The command line: thin. Every verb is a function elsewhere; here are its options, its printing and its exit code.

Exit codes: 0 done; 1 done, and the answer is no (a tool's typed error, a replay that differs, a doctor who found a problem);
2 the request itself is wrong (a bad option, a medium that cannot be opened, something that is not installed); 130 interrupted.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pixelis import cli_adapt, cli_data, cli_eval, cli_probe, cli_train
from pixelis.core.errors import ConfigError, PixelisError

app = typer.Typer(
    help="Ask about images and videos; the agent answers by acting in pixels, and leaves a trajectory that replays.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]


@app.command(
    epilog="Examples:  pixelis tool OCR page.png --bbox 0,0,500,200   |   pixelis tool TEMP clip.mp4 --event appears --json   |   "
    'echo \'{"op": "SEG", "media": "photo.jpg", "arguments": {"point": [500, 400]}}\' | pixelis tool -'
)
def tool(
    op: Annotated[str, typer.Argument(help="SEG, ZOOM, TRK, OCR, TEMP or PROP; - reads calls as JSON lines from standard input.")],
    media: Annotated[str | None, typer.Argument(help="An image or a video.")] = None,
    bbox: Annotated[str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="The region, 0-1000 relative to the medium.")] = None,
    point: Annotated[str | None, typer.Option(metavar="X,Y", help="A point, 0-1000 relative to the medium.")] = None,
    frame: Annotated[float | None, typer.Option(help="Which moment of a video, in seconds.")] = None,
    from_s: Annotated[float | None, typer.Option("--from", help="Start, in seconds.")] = None,
    to_s: Annotated[float | None, typer.Option("--to", help="End, in seconds.")] = None,
    event: Annotated[str | None, typer.Option(help="TEMP: appears, disappears, changes, moves, cut, or free text.")] = None,
    what: Annotated[str | None, typer.Option(help="PROP: colour, size, shape, position, orientation, count, motion, relation.")] = None,
    args: Annotated[str | None, typer.Option(help="More arguments as a JSON object, as the policy writes them.")] = None,
    px: Annotated[bool, typer.Option("--px", help="Coordinates are pixels, not 0-1000.")] = False,
    engine: Annotated[str | None, typer.Option(help="The engine to use; see pixelis doctor.")] = None,
    save: Annotated[Path | None, typer.Option(help="Write a picture of the result there.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run one tool by hand."""
    from pixelis.core.grammar import canonical_op
    from pixelis.core.media import open_medium
    from pixelis.tools.byhand import execute, execute_lines

    if op == "-":
        if engine is not None:
            raise ConfigError("--engine needs one op; with - write a recipe's [tools] table or leave it out")
        failed = 0
        for facts in execute_lines(_executor({}), sys.stdin, default_media=media, is_px=px):
            print(json.dumps(facts), flush=True)
            failed += facts["status"] != "ok"
        raise typer.Exit(1 if failed else 0)
    if media is None:
        raise ConfigError("give the medium: pixelis tool OP MEDIA")
    arguments = _arguments(bbox, point, args, {"frame": frame, "from_s": from_s, "to_s": to_s, "event": event, "what": what})
    op = canonical_op(op)
    settings = {op.lower(): engine} if engine else {}
    if engine and op == "ZOOM":
        raise ConfigError("ZOOM has one engine: leave --engine out")
    with open_medium(media) as medium:
        facts, execution = execute(_executor(settings, (op,)), medium, op, arguments, is_px=px, history=[])
        if save is not None and execution.result.output is not None:
            from PIL import Image

            from pixelis.serve.draw import picture

            _save(Image.fromarray(picture(medium, execution.result.output)), save)
    if as_json:
        print(json.dumps(facts, indent=1))
    else:
        _print_result(facts, save if execution.result.output is not None else None)
    if execution.traceback:
        err.print(escape(execution.traceback))
    raise typer.Exit(0 if facts["status"] == "ok" else 1)


@app.command(
    epilog='Examples:  pixelis ask page.png "What does the sign say?"   |   pixelis ask clip.mp4 "Which way does the red ball move?" --json'
)
def ask(
    media: Annotated[str, typer.Argument(help="An image or a video.")],
    question: Annotated[str, typer.Argument(help="What you want to know.")],
    policy: Annotated[str | None, typer.Option(help="nano-rft (the default with torch), planner, endpoint or vlm.")] = None,
    model: Annotated[str | None, typer.Option(help="endpoint: the model's name; vlm: a checkpoint folder.")] = None,
    url: Annotated[str | None, typer.Option(help="endpoint: the server, such as http://localhost:8000/v1.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="A TOML recipe: policy, tools, limits, seed.")] = None,
    run: Annotated[Path | None, typer.Option(help="Where to leave the trajectory; runs/ask-N unless given.")] = None,
    seed: Annotated[int | None, typer.Option(help="Sampling seed.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Ask a question about an image or a video, and watch the agent answer it step by step."""
    from pixelis.agent import ask as ask_agent
    from pixelis.config import recipe_with
    from pixelis.core.media import open_medium

    wanted = recipe_with(recipe, seed=seed, name=policy, model=model, url=url)
    with open_medium(media) as medium:  # before the folder is made: a wrong path leaves nothing behind
        folder = run or _free_folder(Path("runs"), "ask")
        answer = ask_agent(medium, question, recipe=wanted, run_folder=folder, on_step=None if as_json else print_step)
    trajectory = answer.trajectory
    if as_json:
        facts = {"answer": answer.text, "stop": trajectory.stop, "stop_detail": trajectory.stop_detail, "run": str(folder)}
        steps = [
            {"thought": s.thought, "call": s.call and {"op": s.call.op, "arguments": s.call.arguments}, "response": s.response}
            for s in trajectory.steps
        ]
        print(json.dumps({**facts, "policy": trajectory.policy.name, "steps": steps}, indent=1))
    else:
        why = f" ({trajectory.stop}{': ' + trajectory.stop_detail if trajectory.stop_detail else ''})" if answer.text is None else ""
        out.print(f"[bold green]answer:[/] {_plain(answer.text or 'none')}{escape(why)}")
        out.print(f"[dim]{len(trajectory.steps)} steps, in {folder}; look: pixelis view {folder}; check: pixelis replay {folder}[/]")
    raise typer.Exit(0 if answer.text is not None else 1)


@app.command(epilog="Example:  pixelis view runs/ask-1 --out page.html")
def view(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    page: Annotated[Path | None, typer.Option("--out", help="The page to write; RUN/view.html unless given.")] = None,
    limit: Annotated[int | None, typer.Option(help="At most so many trajectories.")] = None,
) -> None:
    """Write one self-contained HTML page that shows every step of a run on its medium."""
    from pixelis.serve.viewer.page import write_page

    written = write_page(run, page or run / "view.html", limit=limit)
    out.print(f"wrote {written} ({written.stat().st_size / 1e6:.1f} MB); open it in a browser")


@app.command(epilog="Example:  pixelis replay runs/demo")
def replay(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    media: Annotated[
        list[Path] | None, typer.Option(help="A medium that the run does not hold itself; may be given several times.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Execute every call of a run again and compare each result with what was recorded."""
    from pixelis.core.media import open_medium
    from pixelis.core.store import open_run
    from pixelis.tools.replay import replay_run

    known = {}
    for path in media or []:
        with open_medium(str(path)) as medium:
            known[medium.sha256] = path
    stored = open_run(run)
    report = replay_run(stored, media=known)
    if as_json:
        differences = [d.__dict__ for d in report.differences]
        facts = {k: getattr(report, k) for k in ("num_trajectories", "num_steps", "num_not_replayed", "is_equal")}
        print(json.dumps({**facts, "num_cut_bytes": stored.num_cut_bytes, "differences": differences}, indent=1))
    else:
        for difference in report.differences:
            out.print(escape(str(difference)))
        if stored.num_cut_bytes:
            out.print(f"note: {stored.num_cut_bytes} bytes of an unfinished last record were passed over")
        if report.num_not_replayed:
            out.print(
                f"note: {report.num_not_replayed} steps failed for reasons of the machine (deadline, missing engine) and were not replayed"
            )
        verdict = "[green]equal[/]" if report.is_equal else f"[red]{len(report.differences)} differences[/]"
        out.print(f"{report.num_trajectories} trajectories, {report.num_steps} steps: {verdict}")
    raise typer.Exit(0 if report.is_equal else 1)


app.add_typer(cli_data.data, name="data")
app.add_typer(cli_train.train, name="train")
app.add_typer(cli_probe.app, name="eval")  # the app of cli_eval, with the commands of both
app.command("score")(cli_eval.score)
app.command("report", epilog="Example:  pixelis report runs/plain runs/off runs/rft --out report.html --markdown report.md")(
    cli_eval.report
)
app.command("adapt", epilog="Example:  pixelis adapt recipes/nano/ttrl.toml")(cli_adapt.adapt)


@app.command("reproduce", epilog="Example:  pixelis reproduce --quick")
def reproduce_all(
    recipe: Annotated[Path, typer.Argument(help="A recipe with stages.")] = Path("recipes/nano/reproduce.toml"),
    quick: Annotated[bool, typer.Option("--quick", help="The same stages in miniature, in minutes: recipes/quick/reproduce.toml.")] = False,
    only: Annotated[list[str] | None, typer.Option(help="Only this stage; may be given several times.")] = None,
) -> None:
    """Make everything from nothing, stage by stage; a killed run goes on where it was."""
    from pixelis.config import load_recipe_as
    from pixelis.reproduce import ReproduceRecipe, reproduce

    wanted = load_recipe_as(ReproduceRecipe, Path("recipes/quick/reproduce.toml") if quick else recipe)
    record = reproduce(wanted, only=tuple(only or ()), say=lambda line: out.print(escape(line)))
    out.print(f"all done; times in {record}")


@app.command("study", epilog="Example:  pixelis study recipes/nano/ablations_rft.toml --markdown ablations.md")
def study(
    recipe: Annotated[Path, typer.Argument(help="A recipe with arms, such as recipes/nano/ablations_rft.toml.")],
    only: Annotated[list[str] | None, typer.Option(help="Train only this arm; may be given several times.")] = None,
    seed: Annotated[list[int] | None, typer.Option(help="This training seed instead of the recipe's; may be given several times.")] = None,
    table: Annotated[bool, typer.Option("--table", help="Train nothing; only tell what is finished.")] = False,
    markdown: Annotated[Path | None, typer.Option(help="Write the table here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Train and examine variants of one recipe at the same budget, and compare them; a killed study goes on where it was."""
    from pixelis.config import load_recipe_as
    from pixelis.eval.process_run import process_report
    from pixelis.study import StudyRecipe, run_study, study_json, study_markdown, study_rows
    from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder

    wanted = load_recipe_as(StudyRecipe, recipe)
    wanted = wanted.model_copy(update={"seeds": tuple(seed)}) if seed else wanted
    if not table:
        run_study(wanted, only=tuple(only or ()), say=lambda line: err.print(escape(line)))
    dev = wanted.exam.dev if wanted.exam else ""
    encoder = EfficientNetEncoder() if dev else None
    rows = study_rows(wanted, racpr=encoder and (lambda folder: process_report(folder, dev, encoder).racpr.rate.value))
    text = study_markdown(wanted, rows, " ".join(["pixelis study", str(recipe), *(f"--seed {one}" for one in seed or ())]))
    if markdown is not None:
        markdown.write_text(text, encoding="utf-8")
    out.print_json(json.dumps(study_json(rows))) if as_json else out.print(escape(text))


@app.command()
def doctor(as_json: JsonFlag = False) -> None:
    """Say what is installed, which engine each op will use, and how to get the better one."""
    from pixelis.tools.doctor import examine

    facts = examine()
    problems = [f"{op}: {entry['problem']}" for op, entry in facts["ops"].items() if entry["problem"]]
    if as_json:
        print(json.dumps(facts, indent=1))
        raise typer.Exit(1 if problems else 0)
    out.print(f"Python {facts['python']}, {facts['num_cores']} cores, {facts['platform']}")
    table = Table("package", "version", "for", box=None, pad_edge=False)
    for name, entry in facts["packages"].items():
        table.add_row(name, entry["version"] or "[yellow]not installed[/]", entry["for"])
    out.print(table)
    table = Table("op", "engine", "also", box=None, pad_edge=False)
    for op, entry in facts["ops"].items():
        also = "\n".join(f"{o['name']}{' (ready)' if o['is_ready'] else ''}: {o['note']}. {o['how_to_get']}" for o in entry["others"])
        table.add_row(op, "[red]none[/]" if entry["problem"] else f"[green]{entry['engine']}[/]", escape(also))
    out.print(table)
    for problem in problems:
        err.print(f"[red]problem:[/] {escape(problem)}")
    raise typer.Exit(1 if problems else 0)


def _free_folder(parent: Path, stem: str) -> Path:
    """The first of stem-1, stem-2, ... that is not there yet."""
    number = 1
    while (parent / f"{stem}-{number}").exists():
        number += 1
    return parent / f"{stem}-{number}"


def print_step(task: Any, number: int, step: Any) -> None:
    """One step as it happens: thought, call, result."""
    from pixelis.core import jsontext

    if step.thought:
        out.print(f"[dim]{number}.[/] {_plain(step.thought[:300])}")
    if step.call is not None:
        out.print(f"   [cyan]{step.call.op}[/] {_plain(jsontext.dumps(step.call.arguments)[:300])}")
    body = step.response.removeprefix("<tool_response>\n").removesuffix("\n</tool_response>")
    colour = "green" if step.result.is_ok else "yellow"
    out.print(f"   [{colour}]→[/] {_plain(body[:200])}{'…' if len(body) > 200 else ''}")


def _plain(text: str) -> str:
    """A text that a model or an image wrote, for the terminal: no markup, no control characters."""
    return escape("".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text))


def _executor(settings: dict[str, str], ops: tuple[str, ...] | None = None):
    from pixelis.core.ops import OPS
    from pixelis.tools.execute import Executor
    from pixelis.tools.settings import ToolSettings
    from pixelis.tools.toolbox import build_toolbox

    return Executor(build_toolbox(ToolSettings(**settings), ops=ops or OPS))


def _arguments(bbox: str | None, point: str | None, args: str | None, named: dict[str, Any]) -> dict[str, Any]:
    from pixelis.core import jsontext
    from pixelis.tools.byhand import parse_numbers

    arguments: dict[str, Any] = {}
    if args is not None:
        try:
            value = jsontext.loads(args)
        except ValueError as error:
            raise ConfigError(f"--args is not JSON ({error})") from None
        if not isinstance(value, dict):
            raise ConfigError('--args takes a JSON object, such as \'{"what": "colour"}\'')
        arguments = value
    if bbox is not None:
        arguments["bbox_2d"] = parse_numbers(bbox, 4, "--bbox")
    if point is not None:
        arguments["point"] = parse_numbers(point, 2, "--point")
    return {**arguments, **{name: value for name, value in named.items() if value is not None}}


def _print_result(facts: dict[str, Any], saved: Path | None) -> None:
    from pixelis.core import jsontext

    if facts["status"] == "ok":
        out.print(f"[bold]{facts['op']}[/] {_plain(jsontext.dumps(facts['result']))}")
    elif "error" in facts:
        err.print(f"[red]{facts['op']}: {facts['error']['kind']}:[/] {escape(facts['error']['message'])}")
    out.print(f"[dim]{facts['engine']}, {facts['seconds']:.2f} s{f', picture in {saved}' if saved else ''}[/]")


def _save(image: Any, path: Path) -> None:
    try:
        image.save(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write the picture {path}: {error}; name a .png or .jpg file in a folder that exists") from None


def main() -> None:
    """Entry point: a user's error is one line on standard error, never a traceback."""
    try:
        code = app(standalone_mode=False)
    except (KeyboardInterrupt, typer.Abort):
        err.print("interrupted")
        sys.exit(130)
    except PixelisError as error:  # an unknown op on the command line is the user's mistake, and reads the same
        err.print(f"[red]error:[/] {escape(str(error))}")
        sys.exit(2)
    except BrokenPipeError:
        sys.exit(0)
    except Exception as error:
        # typer's own usage errors (an unknown option, a missing argument) know how to show themselves
        if hasattr(error, "show") and hasattr(error, "exit_code"):
            error.show()
            sys.exit(error.exit_code)
        raise
    sys.exit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
