"""`pixelis data ...`: splits of PixelWorld, trace sets, and what two sets have in common."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from pixelis.cli_progress import Progress
from pixelis.config_train import CotaRecipe, load_recipe_as
from pixelis.core.errors import ConfigError

data = typer.Typer(help="PixelWorld: make splits of procedural images and videos with exact truth, and look at them.", no_args_is_help=True)
out = Console(highlight=False, soft_wrap=True)


@data.command(epilog="Example:  pixelis data make test out/test --items 100 --shift lighting:3")
def make(
    split: Annotated[str, typer.Argument(help="train, dev, dev-cal or test.")],
    folder: Annotated[Path, typer.Argument(help="A new folder, or one in which this split was begun: it goes on there.")],
    items: Annotated[int, typer.Option(min=1, help="How many items.")] = 100,
    seed: Annotated[int, typer.Option(help="Any seed gives a fresh set of the same distribution.")] = 0,
    shift: Annotated[str | None, typer.Option(help="lighting, motion, noise, occlusion or compression, and a severity: noise:3.")] = None,
    family: Annotated[list[str] | None, typer.Option(help="Only this question family; may be given several times.")] = None,
) -> None:
    """Write a split: items.jsonl and media/. A killed run resumes to the same bytes."""
    from pixelis.data.world.shifts import parse_shift
    from pixelis.data.world.splits import make_split, read_items

    wanted = parse_shift(shift) if shift else None
    make_split(folder, split, items, seed=seed, shift=wanted, families=tuple(family or ()), progress=Progress("items"))
    made = list(read_items(folder))
    counts: dict[str, list] = {}
    for item in made:
        counts.setdefault(item.family, []).append(item)
    table = Table("family", "items", "video", "multiple choice", "difficulty", "needs", box=None, pad_edge=False)
    for name, group in sorted(counts.items()):
        num, needs = len(group), sorted({op for item in group for op in item.needs})
        choice, hard = sum(bool(i.choices) for i in group), sum(i.difficulty for i in group) / num
        table.add_row(name, str(num), "yes" if group[0].kind == "video" else "", f"{choice / num:.2f}", f"{hard:.2f}", " ".join(needs))
    out.print(table)
    out.print(f"{len(made)} items in {folder}; look: pixelis data show {folder} --out sheet.png")


@data.command(epilog="Example:  pixelis data show out/test --out sheet.png")
def show(
    folder: Annotated[Path, typer.Argument(help="A split's folder.")],
    picture: Annotated[Path, typer.Option("--out", help="The PNG to write.")] = Path("sheet.png"),
    items: Annotated[int, typer.Option(min=1, max=200, help="How many items to show.")] = 24,
) -> None:
    """Write a contact sheet: items with questions, answers and evidence."""
    from pixelis.data.world.sheet import contact_sheet

    out.print(f"wrote {contact_sheet(folder, picture, num_items=items)}")


@data.command(epilog="Example:  pixelis data cota recipes/nano/cota.toml --share 0.01 --out out/traces")
def cota(
    recipe: Annotated[Path, typer.Argument(help="A recipe with a \\[cota] table, such as recipes/nano/cota.toml.")],
    out: Annotated[Path | None, typer.Option(help="Where to; the recipe says unless given.")] = None,
    split: Annotated[str | None, typer.Option(help="train, dev, dev-cal or test; the recipe says unless given.")] = None,
    share: Annotated[float, typer.Option(help="Part of the media to collect, in (0, 1].")] = 1.0,
    workers: Annotated[int, typer.Option(help="Worker processes.")] = 2,
) -> None:
    """Collect CoTA traces: a teacher answers PixelWorld items with the real tools. A killed collection goes on where it stopped."""
    from pixelis.agent import make_policy
    from pixelis.data.stats import table, trace_stats
    from pixelis.rollout.collect import Plan, Share, collect, programmatic_teacher, trace_facts
    from pixelis.rollout.teacher.policy import VERSION

    wanted = load_recipe_as(CotaRecipe, recipe)
    if not 0 < share <= 1:
        raise ConfigError(f"--share must be in (0, 1]; got {share}")
    shares = {f: Share(max(1, round(s.media * share)), s.questions) for f, s in wanted.cota.shares.items()}
    policy, habits = wanted.cota.teacher, {name: value for name in ("lost", "terse", "careful") if (value := getattr(wanted.cota, name))}
    name = f"{policy.name} {policy.model}" if policy else " ".join((f"teacher {VERSION}", *(f"{k} {v}" for k, v in habits.items())))
    plan = Plan(split or wanted.cota.split, wanted.seed, shares, wanted.cota.shard_media, name.strip())
    folder = out or Path(wanted.cota.out)
    progress = Progress("shards")
    collect(
        folder,
        plan,
        settings=wanted.tools,
        make_teacher=partial(make_policy, policy) if policy else partial(programmatic_teacher, **habits),
        num_workers=workers,
        progress=lambda done, of, traces: progress(done, of, f"{traces} traces"),
    )
    print(table(trace_stats(trace_facts(folder))))


@data.command(epilog="Example:  pixelis data check out/traces")
def check(folder: Annotated[Path, typer.Argument(help="A trace set or run folder with scores.")]) -> None:
    """Read every trace of a set, and list what is wrong with file and line."""
    from pixelis.data.cota.load import check_traces

    report = check_traces(folder)
    print(f"{report.num_traces} traces, {report.num_accepted} accepted, {report.num_steps} steps; splits {report.num_by_split}")
    for problem in report.problems:
        print(problem)
    raise typer.Exit(0 if report.is_ok else 1)


@data.command(epilog="Example:  pixelis data dedup out/test/media --world --blocklist copies.txt")
def dedup(
    folder: Annotated[Path, typer.Argument(help="Images and videos, in the order of their names; a PixelWorld split's media/ too.")],
    world: Annotated[bool, typer.Option("--world", help="Procedural scenes: every candidate is compared tile by tile.")] = False,
    encoder: Annotated[bool, typer.Option("--encoder", help="Also compare by the frozen encoder (needs torch).")] = False,
    blocklist: Annotated[Path | None, typer.Option(help="Write the names of the later copies there, one a line.")] = None,
) -> None:
    """Find near-duplicates of media; the earliest stays, later ones go to the blocklist."""
    from pixelis.core.media import open_medium
    from pixelis.data.dedup import WORLD, DedupSettings, MediaRecord, deduplicate, default_encoder, fingerprint, frames_of, report_text

    paths = sorted(path for path in folder.iterdir() if path.is_file()) if folder.is_dir() else []
    if not paths:
        raise ConfigError(f"{folder}: no folder with media in it")
    encode, progress, prints = default_encoder() if encoder else None, Progress("media"), []
    for number, path in enumerate(paths):
        with open_medium(path) as medium:
            prints.append(fingerprint(MediaRecord(path.name, number, frames_of(medium)), encode))
        progress(number + 1, len(paths))
    report = deduplicate(prints, WORLD if world else DedupSettings())
    print(report_text(report))
    if blocklist is not None:
        blocklist.write_text("".join(f"{name}\n" for name in report.blocklist), encoding="utf-8")
