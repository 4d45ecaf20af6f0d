"""`pixelis tool`, `replay` and `doctor`: the tools by hand, again, and what they stand on. Thin, as `cli.py`."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pixelis.core.errors import ConfigError

if TYPE_CHECKING:
    from pixelis.tools.settings import ToolSettings

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

JsonFlag = Annotated[bool, typer.Option("--json", help="Print machine-readable JSON.")]

TOOL_EPILOG = (
    "Examples:  pixelis tool OCR page.png --bbox 0,0,500,200   |   pixelis tool TEMP clip.mp4 --event appears --json   |   "
    'echo \'{"op": "SEG", "media": "photo.jpg", "arguments": {"point": [500, 400]}}\' | pixelis tool -'
)
OPTIONS = {"bbox_2d": "--bbox", "from_s": "--from", "to_s": "--to"} | {name: f"--{name}" for name in ("point", "frame", "event", "what")}
"""Which option writes which argument."""


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
    recipe: Annotated[Path | None, typer.Option(help="A TOML recipe, of which the \\[tools] table counts.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="A key of \\[tools], such as sam2_checkpoint=FOLDER; repeatable.")
    ] = None,
    save: Annotated[Path | None, typer.Option(help="Write a picture of the result there.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Run one tool by hand."""
    settings = _settings(recipe, changes or ())
    named = {"bbox_2d": bbox, "point": point, "frame": frame, "from_s": from_s, "to_s": to_s, "event": event, "what": what}
    if op == "-":
        given = {OPTIONS[name]: value for name, value in named.items()} | {"--args": args, "--engine": engine, "--save": save}
        _run_lines(settings, media, px, [option for option, value in given.items() if value is not None])
    if media is None:
        raise ConfigError("give the medium: pixelis tool OP MEDIA")
    _run_one(op, media, _arguments(args, named), settings, engine, px=px, save=save, as_json=as_json)


def _run_lines(settings: ToolSettings, media: str | None, px: bool, unused: list[str]) -> None:
    from pixelis.tools.byhand import execute_lines

    if unused:
        raise ConfigError(f"{', '.join(unused)}: belongs to a single call; with - every line says it in JSON (engine too)")
    failed = 0
    for facts in execute_lines(getattr(sys.stdin, "buffer", sys.stdin), settings=settings, default_media=media, is_px=px):
        print(json.dumps(facts), flush=True)
        failed += facts["status"] != "ok"
    raise typer.Exit(1 if failed else 0)


def _run_one(
    op: str,
    media: str,
    arguments: dict[str, Any],
    settings: ToolSettings,
    engine: str | None,
    *,
    px: bool,
    save: Path | None,
    as_json: bool,
) -> None:
    from pixelis.core.grammar import canonical_op
    from pixelis.core.media import open_medium
    from pixelis.tools.byhand import execute, executor_of
    from pixelis.tools.cache import cache_for
    from pixelis.tools.toolbox import with_engine

    op = canonical_op(op)
    settings = with_engine(settings, op, engine) if engine is not None else settings
    with open_medium(media) as medium:
        facts, execution = execute(executor_of(op, settings, cache_for(settings)), medium, op, arguments, is_px=px, history=[])
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


def replay(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    media: Annotated[
        list[Path] | None, typer.Option(help="A medium that the run does not hold itself; may be given several times.")
    ] = None,
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Where an engine is on this machine: mobile_sam_folder (also by PIXELIS_MOBILE_SAM), sam2_checkpoint, detector, device.",
        ),
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
    report = replay_run(stored, media=known, changes=changes or ())
    if as_json:
        lists = {name: [one.__dict__ for one in getattr(report, name)] for name in ("differences", "not_executed")}
        facts = {k: getattr(report, k) for k in ("num_trajectories", "num_steps", "num_not_replayed", "is_equal", "verdict")}
        print(json.dumps({**facts, "num_cut_bytes": stored.num_cut_bytes, **lists}, indent=1))
    else:
        for one in [*report.differences, *report.not_executed]:
            out.print(escape(str(one)))
        if stored.num_cut_bytes:
            out.print(f"note: {stored.num_cut_bytes} bytes of an unfinished last record were passed over")
        if report.num_not_replayed:
            out.print(
                f"note: {report.num_not_replayed} steps failed for reasons of the machine (deadline, missing engine) and were not replayed"
            )
        colour = "green" if report.is_equal else "red"
        out.print(f"{report.num_trajectories} trajectories, {report.num_steps} steps: [{colour}]{report.verdict}[/]")
    raise typer.Exit(0 if report.is_equal else 1)


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
    for op, entry in facts["ops"].items():
        for other in entry["others"]:
            if other["why_not"]:
                err.print(f"[yellow]note:[/] {op} passes {other['name']} over: {escape(other['why_not'])}")
    for problem in problems:
        err.print(f"[red]problem:[/] {escape(problem)}")
    raise typer.Exit(1 if problems else 0)


def plain(text: str) -> str:
    """A text that a model or an image wrote, for the terminal: no markup, no control characters."""
    return escape("".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text))


def _settings(recipe: Path | None, changes: Sequence[str]) -> ToolSettings:
    from pixelis.config import load_recipe
    from pixelis.tools.settings import ToolSettings, settings_with

    return settings_with(load_recipe(recipe).tools if recipe else ToolSettings(), changes)


def _arguments(args: str | None, named: dict[str, Any]) -> dict[str, Any]:
    """What --args and the options say together; `named` holds the options by the arguments that they write."""
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
    for name, value in named.items():
        if value is None:
            continue
        if name in arguments:
            raise ConfigError(f"{name} is given twice, by {OPTIONS[name]} and in --args: leave one of them out")
        count = {"bbox_2d": 4, "point": 2}.get(name)
        arguments[name] = value if count is None else parse_numbers(value, count, OPTIONS[name])
    return arguments


def _print_result(facts: dict[str, Any], saved: Path | None) -> None:
    from pixelis.core import jsontext

    if facts["status"] == "ok":
        out.print(f"[bold]{facts['op']}[/] {plain(jsontext.dumps(facts['result']))}")
    elif "error" in facts:
        err.print(f"[red]{facts['op']}: {facts['error']['kind']}:[/] {escape(facts['error']['message'])}")
    out.print(f"[dim]{facts['engine']}, {facts['seconds']:.2f} s{f', picture in {saved}' if saved else ''}[/]")


def _save(image: Any, path: Path) -> None:
    try:
        image.save(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot write the picture {path}: {error}; name a .png or .jpg file in a folder that exists") from None
