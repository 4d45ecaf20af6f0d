"""`pixelis adapt`: a policy that learns while it serves a stream, without labels."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from pixelis.core.errors import ConfigError

if TYPE_CHECKING:
    from pixelis.config_ttrl import AdaptRecipe
    from pixelis.ttrl.excluded import Excluded

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

ROW_EVERY = 10
"""Queries between lines of the live table, but for streams of hardly more: there every query has its line."""


def adapt(
    recipe: Annotated[Path, typer.Argument(help="A recipe with \\[stream] and \\[adapt] tables, such as recipes/nano/ttrl.toml.")],
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where to; the recipe says unless given. A run that was cut short goes on there.")
    ] = None,
    checkpoint: Annotated[str | None, typer.Option(help="Where to start from; the recipe says unless given.")] = None,
    calibration: Annotated[
        str | None, typer.Option(help="A fitted run or its calibration.json; the recipe says unless given. A run also gives canaries.")
    ] = None,
    fit: Annotated[bool, typer.Option("--fit", help="Then fit calibration and conformal quantile on the run's labels.")] = False,
    calibrator: Annotated[str, typer.Option(help="What --fit fits: temperature, platt, vector, matrix or isotonic.")] = "temperature",
    alpha: Annotated[float, typer.Option(help="Share of queries whose true answer the conformal set of --fit may miss.")] = 0.1,
    check: Annotated[
        bool, typer.Option("--check", help="Only make every decision of the run again from its recorded facts, and audit its memory anew.")
    ] = False,
    audit: Annotated[bool, typer.Option("--audit/--no-audit", help="Compare with the truth, for the table only.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line per query.")] = False,
) -> None:
    """Phase 3: serve a stream of queries, and learn from it by voting over whole trajectories."""
    from pixelis.config import load_recipe_as
    from pixelis.config_ttrl import AdaptRecipe

    wanted = load_recipe_as(AdaptRecipe, recipe)
    wanted = wanted.model_copy(update={"calibration": calibration or wanted.calibration})
    folder = folder or Path(wanted.out)
    if check:
        raise typer.Exit(0 if _is_sound(folder, wanted) else 1)
    if fit:
        from pixelis.ttrl.calibrate import CALIBRATORS

        if calibrator not in CALIBRATORS or not 0 < alpha < 1:
            raise ConfigError(f"--fit takes one of {', '.join(CALIBRATORS)} and an alpha in (0, 1); got {calibrator!r} and {alpha:g}")
    _serve(wanted, folder, checkpoint or wanted.checkpoint, log=_log_json if as_json else LiveTable(folder), has_audit=audit)
    if fit:
        from pixelis.ttrl.fit import fit as fit_on
        from pixelis.ttrl.fit import held_out_text

        found = fit_on(folder, calibrator=calibrator, alpha=alpha)
        print(json.dumps(found, indent=1))
        err.print(f"on queries that they were not fitted on:\n{held_out_text(found)}")


def _is_sound(folder: Path, wanted: AdaptRecipe) -> bool:
    """Whether every decision comes out again, and the memory holds nothing that the recipe or the run itself excludes."""
    from pixelis.retrieval.audit import report_text
    from pixelis.retrieval.memory import read_memory
    from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder
    from pixelis.ttrl.adapt import MEMORY_FOLDER
    from pixelis.ttrl.excluded import audited, blocklist_of, excluded_by
    from pixelis.ttrl.fit import check_decisions

    num, different = check_decisions(folder)
    out.print(f"{num} decisions made again: {len(different)} differ {' '.join(different[:5])}".rstrip())
    with read_memory(folder / MEMORY_FOLDER) as memory:
        embed = EfficientNetEncoder().embed if memory.spec.omega > 0 else None
        blocklist = blocklist_of(list(dict.fromkeys([*excluded_by(folder), *_excluded(wanted)])), embed)
        if blocklist is None:
            return not different
        report = audited(memory, blocklist, folder)
    out.print(report_text(report))
    return not different and not report.hits


def _excluded(wanted: AdaptRecipe) -> list[Excluded]:
    from pixelis.ttrl.excluded import Excluded

    return [Excluded(**one.model_dump()) for one in wanted.excluded]


def _serve(wanted: AdaptRecipe, folder: Path, checkpoint: str, *, log: Any, has_audit: bool) -> None:
    from pixelis.agent import make_executor
    from pixelis.core.command import note_command
    from pixelis.policy.shipped import located
    from pixelis.policy.vlm import VlmPolicy
    from pixelis.retrieval.index import IndexSettings
    from pixelis.retrieval.keys import KeySpec
    from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder
    from pixelis.tools.toolbox import resolved
    from pixelis.train.corridor import CorridorSettings
    from pixelis.train.start import load_learner
    from pixelis.ttrl.adapt import run_adapt
    from pixelis.ttrl.decide import DecisionSettings
    from pixelis.ttrl.excluded import blocklist_of
    from pixelis.ttrl.fit import canaries, read_calibration
    from pixelis.ttrl.insight import Insight
    from pixelis.ttrl.methods import as_method
    from pixelis.ttrl.serving import Adapter
    from pixelis.ttrl.state import AdaptSettings
    from pixelis.ttrl.stream import WorldStream, parse_segments
    from pixelis.ttrl.stress import Stress
    from pixelis.ttrl.vote import Weighing

    where = located(checkpoint)
    tools = resolved(wanted.tools)
    fitted = read_calibration(wanted.calibration) if wanted.calibration else DecisionSettings()
    vote = wanted.vote
    decision = DecisionSettings(
        vote=vote.vote,
        weighing=Weighing(power=vote.power, scale_nats=vote.entropy_scale),
        reliability=vote.reliability,
        calibrator=fitted.calibrator,
        delta=vote.delta,
        quantile=fitted.quantile if vote.use_conformal else None,
        counts_neighbours=vote.counts_neighbours,
        baseline=vote.baseline,
        negative=vote.negative,
    )
    corridor = CorridorSettings(**wanted.corridor.model_dump())
    tables = wanted.adapt.model_dump() | wanted.serve.model_dump()
    stress = Stress(**wanted.stress.model_dump())
    settings = as_method(AdaptSettings(**tables, seed=wanted.seed, decision=decision, corridor=corridor, stress=stress))
    table = wanted.stream
    stream = WorldStream(parse_segments(table.segments), table.split, table.seed, table.first, table.order_seed, table.families)
    loaded = load_learner(
        where, wanted.lora, adapter=wanted.adapter, dtype=wanted.dtype, gradient_checkpointing=wanted.gradient_checkpointing
    )
    policy = VlmPolicy(loaded, max_new_tokens=wanted.max_new_tokens, num_slots=settings.num_parallel)
    hidden = loaded.base.config.text_config.hidden_size
    about = {
        "stream": json.loads(table.model_dump_json()),
        "start": policy.info.version,
        "tools": json.loads(tools.model_dump_json()),
        "adapter": wanted.adapter,
    }
    sets, insight = _excluded(wanted), Insight.of(wanted.adapter or where, hidden)
    watched = wanted.calibration if wanted.calibration and wanted.num_canaries and Path(wanted.calibration).is_dir() else None
    for line in _missing(wanted, has_insight=insight is not None, has_canaries=watched is not None):
        err.print(f"note: {line}", markup=False)
    if sets:
        about["excluded"] = [asdict(one) for one in sets]
    kept = wanted.memory

    def serving(memory: Any) -> Adapter:
        note_command(folder)  # by now the folder is known to be this run's
        return Adapter(
            policy,
            make_executor(tools),
            tools,
            settings,
            memory=memory,
            insight=insight,
            canary=(lambda bank: canaries(watched, policy, bank, count=wanted.num_canaries)) if watched else None,
        )

    spec = KeySpec(text_dim=hidden, pixel_dim=EfficientNetEncoder.dim, omega=settings.omega)
    try:
        run_adapt(
            serving,
            stream,
            folder,
            about,
            settings,
            spec=spec,
            blocklist=blocklist_of(sets, EfficientNetEncoder().embed if settings.omega > 0 else None),
            index=IndexSettings(kind=kept.kind, exact_below=kept.exact_below),
            max_items=kept.max_items,
            audit=stream if has_audit else None,
            log=log,
        )
    finally:
        policy.close()


def _missing(wanted: AdaptRecipe, *, has_insight: bool, has_canaries: bool) -> list[str]:
    """What a run that moves weights goes without, and how to get it."""
    if not (wanted.adapt.learns and wanted.adapt.rate > 0):
        return []
    lines = []
    if not wanted.calibration:
        lines.append("no calibration: confidences count as they are, no conformal set holds an answer back; run --fit on labelled queries")
    if wanted.num_canaries and not has_canaries:
        lines.append("no canaries: no update is taken back for harm on labelled items; name a calibration run's folder, not its file")
    if not wanted.excluded and wanted.adapt.neighbours:
        lines.append("nothing is excluded: the memory takes in every medium; name what the policy is examined on under [[excluded]]")
    if not has_insight:
        lines.append("no step heads beside the checkpoint: curiosity, coherence and the value of a query take no part; phase 2 leaves them")
    return lines


def _log_json(row: dict[str, Any]) -> None:
    print(json.dumps(row), flush=True)


class LiveTable:
    """A line every few queries: how it goes so far.

    Evidence: by how many standard errors another lift is better than the present one. At two the lift moves, and it is counted from there.

    Args:
        folder: the run's; what it had answered before it was cut short counts.
    """

    HEAD = ("query", "right so far", "coverage", "right if sure", "KL", "beta", "lift", "evidence", "learnt from", "taken back", "s/query")

    def __init__(self, folder: Path) -> None:
        self._right = _known(folder)
        self._rows = 0

    def __call__(self, row: dict[str, Any]) -> None:
        if row["right"] is not None:
            self._right[row["query"]] = row["right"], row["abstained"]
        number = row["query"] + 1
        if number % ROW_EVERY and number != row["of"] and row["of"] > 2 * ROW_EVERY:
            return
        sure = [right for right, abstained in self._right.values() if not abstained]
        cells = (
            f"{number}/{row['of']}",
            _share([right for right, _ in self._right.values()]),
            f"{row['coverage']:.3f}",
            _share(sure),
            "-" if row["kl"] is None else f"{row['kl']:.3f}",
            f"{row['beta']:.3f}",
            "-" if row["lift"] is None else f"{row['lift']:+.2f}",
            "-" if row["lift_evidence"] is None else f"{row['lift_evidence']:+.1f}",
            str(row["accepted"]),
            str(row["num_rolled_back"]),
            f"{row['seconds']['total']:.1f}",
        )
        table = Table(*self.HEAD, box=None, pad_edge=False, show_header=self._rows % 20 == 0)
        for column, head in zip(table.columns, self.HEAD, strict=True):
            column.min_width = max(len(head), 9)
        table.add_row(*cells)
        out.print(table)
        self._rows += 1


def _known(folder: Path) -> dict[int, tuple[bool, bool]]:
    """Of the queries that a run which now goes on had answered: right or not, and whether it abstained. A torn last line is passed over."""
    from pixelis.ttrl.state import AUDIT_FILE, METRICS_FILE

    paths = [folder / name for name in (METRICS_FILE, AUDIT_FILE)]
    rows, audits = ([json.loads(line) for line in path.read_bytes().split(b"\n")[:-1]] if path.is_file() else [] for path in paths)
    return {
        row["query"]: (audit["right"], row["abstained"]) for row, audit in zip(rows, audits, strict=False) if audit["right"] is not None
    }


def _share(values: list[bool]) -> str:
    return f"{sum(values) / len(values):.3f}" if values else "-"
