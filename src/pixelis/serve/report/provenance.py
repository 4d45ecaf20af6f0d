"""Where the numbers come from: the command that made each run, as far as the run recorded it, and what it was made with. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import Any

from pixelis.core.ops import OPS
from pixelis.rollout.run import Limits
from pixelis.serve.report.sources import Evaluation, Journal, Probe, Sources
from pixelis.serve.report.tables import Table, cells

NOT_RECORDED = "not recorded"


def eval_command(info: Mapping[str, Any], name: str) -> str:
    """The command that evaluates the same policy on the same items, from a run's facts.

    Args:
        name: of the run's folder.

    Returns:
        The command; what it takes from a recipe stands behind it as a comment. Words instead where no command makes such a policy.
    """
    policy, recipe = _policy(info.get("policy", {}))
    if not policy:
        return f"pixelis.eval.pixelworld.evaluate in Python, with the policy {info.get('policy', {}).get('name')!r}"
    items, tools = info.get("items", {}), info.get("tool_settings", {})
    words = [*policy, "--split", items.get("split"), "--items", items.get("count"), "--seed", items.get("seed")]
    words += ["--first", items["first"]] if items.get("first") else []
    words += ["--shift", items["shift"]] if items.get("shift") else []
    words += [word for family in items.get("families") or () for word in ("--family", family)]
    disabled = list(tools.get("disabled") or ())
    if set(disabled) == set(OPS):
        words.append("--no-tools")
    elif disabled:
        recipe = [*recipe, f"tools.disabled = {disabled}"]
    usual = asdict(Limits())
    recipe = [*recipe, *(f"limits.{k} = {v}" for k, v in (info.get("limits") or {}).items() if usual.get(k) != v)]
    return _command("pixelis", "eval", "pixelworld", *words, *(["--recipe", "RECIPE"] if recipe else []), "--run", name) + _comment(recipe)


def _policy(policy: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """How the command line names a policy, and what only a recipe can say of it; nothing for one that it cannot name."""
    name = str(policy.get("name", ""))
    if name == "planner":
        return ["--policy", name], []
    if name == "endpoint":
        return ["--policy", name, "--model", str(policy.get("version", ""))], ["policy.url"]
    kind, _, checkpoint = name.partition(":")
    if kind != "vlm":
        return [], []
    temperature = (policy.get("sampling") or {}).get("temperature")
    is_shipped = checkpoint.isidentifier() or checkpoint.replace("-", "_").isidentifier()
    is_shipped = is_shipped and resources.files("pixelis").joinpath("weights", checkpoint).is_dir()
    usual = 0.0 if is_shipped else 0.7
    recipe = [] if temperature in (None, usual) else [f"policy.temperature = {temperature}"]
    return (["--policy", checkpoint] if is_shipped else ["--policy", "vlm", "--model", checkpoint]), recipe


def train_command(journal: Journal) -> str:
    """The command that trains such a run; the recipe's own path is not recorded, its values are in run.json."""
    stem = journal.file.partition(".")[0]
    known = {"sight": "sight", "primer": "primer", "sft": "sft", "rft": "rft"}
    if journal.counter == "query":
        return _command("pixelis", "adapt", "RECIPE", "--out", journal.name)
    phase = known.get(stem, "rft" if journal.counter == "update" else "sft")
    return _command("pixelis", "train", phase, "RECIPE", "--out", journal.name)


def report_command(sources: Sources) -> str:
    """The command that makes this page."""
    return _command("pixelis", "report", *sources.names)


def probe_command(info: Mapping[str, Any], name: str) -> str:
    """The command that makes a grid of shifts, or takes the tools away, again; see `eval_command`."""
    policy, recipe = _policy(info.get("policy", {}))
    kind, items = info.get("evaluation"), info.get("items", {})
    if not policy:
        return f"pixelis.eval.{kind}_run in Python, with the policy {info.get('policy', {}).get('name')!r}"
    words = [*policy, "--split", items.get("split"), "--items", items.get("count"), "--seed", items.get("seed")]
    words += [word for family in items.get("families") or () for word in ("--family", family)]
    cells = [cell.rpartition("-") for cell in info.get("conditions", ()) if kind == "robustness" and "-" in cell]
    if cells:
        words += ["--shifts", ",".join(dict.fromkeys(kind for kind, _, _ in cells))]
        words += ["--severities", ",".join(sorted({severity for _, _, severity in cells}))]
    if kind == "consistency":
        names = info.get("conditions", ())
        words += ["--rollouts", sum(part.startswith("on-") for part in names)]
        temperature = (info["policy"].get("sampling") or {}).get("temperature")
        words += ["--temperature", temperature] if temperature is not None else []
        words += ["--fusion"] if any(part.startswith("off-") for part in names) else []
        words += ["--calibration", info["calibration"]["run"]] if info.get("calibration") else []
        recipe = [one for one in recipe if not one.startswith("policy.temperature")]
    return _command("pixelis", "eval", kind, *words, *(["--recipe", "RECIPE"] if recipe else []), "--out", name) + _comment(recipe)


def _command(*words: Any) -> str:
    return " ".join(shlex.quote(str(word)) for word in words)


def _comment(recipe: Sequence[str]) -> str:
    return f"  # RECIPE with {', '.join(recipe)}" if recipe else ""


def provenance(sources: Sources) -> Table:
    """A line for every run and journal."""
    rows = [*map(_of_evaluation, sources.evaluations), *map(_of_probe, sources.probes), *map(_of_journal, sources.journals)]
    return Table(
        key="provenance",
        title="Provenance",
        head=("run", "made by", "seed", "policy or start", "versions", "commit", "data"),
        rows=tuple(cells(*row) for row in rows),
        note=f"This page: {report_command(sources)}. RECIPE stands for a recipe's path, which a run does not record.",
        source="run.json",
    )


def _of_evaluation(evaluation: Evaluation) -> list[str]:
    info = evaluation.report.about
    policy = info.get("policy", {})
    cut = f", {evaluation.num_cut_bytes} bytes of an unfinished last record passed over" if evaluation.num_cut_bytes else ""
    return [
        evaluation.name,
        eval_command(info, evaluation.name),
        str(info.get("items", {}).get("seed", NOT_RECORDED)),
        f"{policy.get('name')} {policy.get('version')}",
        ", ".join(_pairs(info.get("versions", {}))) or NOT_RECORDED,
        _commit(info),
        f"{len(evaluation.report.scores)} trajectories, SHA-256 {evaluation.digest[:12]}{cut}",
    ]


def _of_probe(probe: Probe) -> list[str]:
    info = probe.found.about
    policy = info.get("policy", {})
    return [
        f"{probe.name} ({probe.file})",
        probe_command(info, probe.name),
        str(info.get("items", {}).get("seed", NOT_RECORDED)),
        f"{policy.get('name')} {policy.get('version')}",
        ", ".join(_pairs(info.get("versions", {}))) or NOT_RECORDED,
        _commit(info),
        f"{len(info.get('conditions', ()))} conditions, SHA-256 {probe.digest[:12]}",
    ]


def _of_journal(journal: Journal) -> list[str]:
    info = journal.info
    settings = info.get("settings")
    settings = settings if isinstance(settings, dict) else {}
    cut = f", {journal.num_cut_bytes} bytes of an unfinished last row passed over" if journal.num_cut_bytes else ""
    return [
        f"{journal.name} ({journal.file})",
        train_command(journal),
        str(settings.get("seed", NOT_RECORDED)),
        str(info.get("start") or info.get("checkpoint") or NOT_RECORDED),
        ", ".join(_pairs(info.get("versions") or {name: info[name] for name in ("pixelis",) if name in info})) or NOT_RECORDED,
        _commit(info),
        f"{len(journal.rows)} rows, SHA-256 {journal.digest[:12]}{cut}",
    ]


def _pairs(values: object) -> Iterable[str]:
    return (f"{name} {value}" for name, value in values.items() if name != "commit") if isinstance(values, dict) else ()


def _commit(info: Mapping[str, Any]) -> str:
    versions = info.get("versions")
    return str(info.get("commit") or (versions.get("commit") if isinstance(versions, dict) else None) or NOT_RECORDED)
