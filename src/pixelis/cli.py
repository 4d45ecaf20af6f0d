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

from pixelis import cli_adapt, cli_data, cli_eval, cli_probe, cli_tools, cli_train
from pixelis.cli_command import command_line
from pixelis.cli_tools import JsonFlag, plain
from pixelis.core.command import under_way
from pixelis.core.errors import PixelisError

app = typer.Typer(
    help="Ask about images and videos; the agent answers by acting in pixels, and leaves a trajectory that replays.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)
out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


app.command("tool", epilog=cli_tools.TOOL_EPILOG)(cli_tools.tool)


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
        out.print(f"[bold green]answer:[/] {plain(answer.text or 'none')}{escape(why)}")
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


app.command("replay", epilog="Example:  pixelis replay runs/demo")(cli_tools.replay)
app.add_typer(cli_data.data, name="data")
app.add_typer(cli_train.train, name="train")
app.command("sft", hidden=True)(cli_train.sft)
app.command("rft", hidden=True)(cli_train.rft)
app.add_typer(cli_probe.app, name="eval")  # the app of cli_eval, with the commands of both
app.command("score")(cli_eval.score)
app.command("report", epilog="Example:  pixelis report runs/plain runs/off runs/rft --out report.html --markdown report.md")(
    cli_eval.report
)
app.command("adapt", epilog="Example:  pixelis adapt recipes/nano/ttrl.toml")(cli_adapt.adapt)


@app.command("reproduce", epilog="Example:  pixelis reproduce --quick")
def reproduce_all(
    recipe: Annotated[Path, typer.Argument(help="A recipe with stages.")] = Path("recipes/nano/reproduce.toml"),
    quick: Annotated[bool, typer.Option("--quick", help="A stage of each kind in miniature: recipes/quick/reproduce.toml.")] = False,
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


app.command("doctor")(cli_tools.doctor)


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
        out.print(f"[dim]{number}.[/] {plain(step.thought[:300])}")
    if step.call is not None:
        out.print(f"   [cyan]{step.call.op}[/] {plain(jsontext.dumps(step.call.arguments)[:300])}")
    body = step.response.removeprefix("<tool_response>\n").removesuffix("\n</tool_response>")
    colour = "green" if step.result.is_ok else "yellow"
    out.print(f"   [{colour}]→[/] {plain(body[:200])}{'…' if len(body) > 200 else ''}")


def main() -> None:
    """Entry point: a user's error is one line on standard error, never a traceback."""
    try:
        with under_way(command_line(sys.argv[1:])):
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
