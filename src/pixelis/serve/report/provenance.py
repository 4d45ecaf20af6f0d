"""Where the numbers come from: a line for every run, with what made it and with what. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pixelis.core.command import Command
from pixelis.serve.report.commands import NOT_RECORDED, Source, made_by
from pixelis.serve.report.journals import Journal
from pixelis.serve.report.sources import Evaluation, Probe, Sources
from pixelis.serve.report.table import Table, cells


def provenance(sources: Sources) -> Table:
    """A line for every run and journal."""
    lines = [_line(e, e.name, e.report.about, f"{len(e.report.scores)} trajectories", _cut(e, "record")) for e in sources.evaluations]
    lines += [_line(p, f"{p.name} ({p.file})", p.found.about, _conditions(p)) for p in sources.probes]
    lines += [_line(b, b.name, b.about, f"{b.scores.num_asked} items") for b in sources.benches]
    lines += [_line(j, f"{j.name} ({j.file})", j.info, f"{len(j.rows)} rows", _cut(j, "row")) for j in sources.journals]
    return Table(
        key="provenance",
        title="Provenance",
        head=("run", "made by", "recipe", "seed", "policy or start", "versions", "commit", "data"),
        rows=tuple(cells(*line) for line in lines),
        note=f"This page: {sources.command}. Paths are seen from the folder in which a command was given; PATH stands for one that lies "
        "apart from it, other words in capitals for what a run does not say. Recipes: SHA-256 of what they said, their bases included.",
        source="run.json",
    )


def _line(source: Source, name: str, info: Mapping[str, Any], *data: str) -> list[str]:
    """Of one run; what its facts do not say, the notes on its commands may."""
    commands, noted = source.commands, [command.versions for command in source.commands]
    told = info.get("versions") if isinstance(info.get("versions"), Mapping) else {}
    versions = told or (noted[-1] if noted else {name: info[name] for name in ("pixelis",) if name in info})
    commits = dict.fromkeys([info.get("commit"), versions.get("commit"), *(each.get("commit") for each in noted)])
    return [
        name,
        made_by(source),
        ", ".join(_recipes(commands)) or ("none" if commands else NOT_RECORDED),
        str(_seed(info)),
        _policy_text(info, commands),
        ", ".join(f"{key} {value}" for key, value in versions.items() if key != "commit") or NOT_RECORDED,
        ", ".join(str(commit) for commit in commits if commit) or NOT_RECORDED,
        ", ".join([*filter(None, data), f"SHA-256 {source.digest[:12]}"]),
    ]


def _recipes(commands: Sequence[Command]) -> Iterable[str]:
    return dict.fromkeys(f"{path}, SHA-256 {digest[:12]}" for command in commands for path, digest in command.recipes.items())


def _seed(info: Mapping[str, Any]) -> object:
    tables = [info.get("items"), info.get("settings"), info]
    return next((table["seed"] for table in tables if isinstance(table, Mapping) and "seed" in table), NOT_RECORDED)


def _policy_text(info: Mapping[str, Any], commands: Sequence[Command]) -> str:
    """Who answered, or what learnt from there on, and the name by which a command found it."""
    policy = info.get("policy")
    known = f"{policy.get('name')} {policy.get('version')}" if isinstance(policy, Mapping) else info.get("start") or info.get("checkpoint")
    named = dict.fromkeys(command.checkpoint for command in commands if command.checkpoint)
    return ": ".join(filter(None, [", ".join(named), str(known or "")])) or NOT_RECORDED


def _conditions(probe: Probe) -> str:
    return f"{len(probe.found.about.get('conditions', ()))} conditions"


def _cut(source: Evaluation | Journal, what: str) -> str:
    return f"{source.num_cut_bytes} bytes of an unfinished last {what} passed over" if source.num_cut_bytes else ""
