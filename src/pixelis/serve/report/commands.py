"""The command lines that made a run: as they were given, or as its facts lead to them, with what these leave out. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from pixelis.core.ops import OPS
from pixelis.eval.selective_run import BINS_FILE, CURVE_FILE
from pixelis.policy.shipped import ADAPTED, WEIGHTS
from pixelis.rollout.run import Limits
from pixelis.serve.report.benches import BenchRun
from pixelis.serve.report.journals import Journal
from pixelis.serve.report.sources import Evaluation, Probe

NOT_RECORDED = "not recorded"
PLACES = {"CHECKPOINT": "where its checkpoint lies", "RECIPE": "its recipe", "FOLDER": "where the published files lie", "RUN": "its folder"}
"""What stands in a command for what a run does not say."""

Source = Evaluation | Probe | BenchRun | Journal


def made_by(source: Source) -> str:
    """The command lines that made a run, as they were given; where none was noted, one that its facts lead to, and what these leave out."""
    words = dict.fromkeys(command.words for command in source.commands)
    if words and not _is_curve(source):
        return " && ".join(map(shlex.join, words))
    if isinstance(source, Evaluation):
        return eval_command(source.report.about, source.path)
    if isinstance(source, Probe):
        return probe_command(source.found.about, source.path)
    return bench_command(source.about, source.path) if isinstance(source, BenchRun) else journal_command(source)


def _is_curve(source: object) -> bool:
    """Curves that `pixelis eval selective` or `revote` drew from a run's records, which other commands made."""
    return isinstance(source, Journal) and (source.file in (CURVE_FILE, BINS_FILE) or any("risk" in row for row in source.rows[:1]))


# ---------------------------------------------------------------- derived from facts


def eval_command(info: Mapping[str, Any], path: str) -> str:
    """The command that evaluates the same policy on the same items, from a run's facts.

    Args:
        path: of the run's folder.

    Returns:
        The command, and behind it as a comment what is not recorded. Words instead where no command makes such a policy.
    """
    policy, recipe = _policy(info.get("policy", {}))
    if not policy:
        return f"pixelis.eval.pixelworld.evaluate in Python, with the policy {info.get('policy', {}).get('name')!r}"
    items = info.get("items", {})
    words = [*policy, "--split", items.get("split"), "--items", items.get("count"), "--seed", items.get("seed")]
    words += ["--first", items["first"]] if items.get("first") else []
    words += ["--shift", items["shift"]] if items.get("shift") else []
    words += [word for family in items.get("families") or () for word in ("--family", family)]
    off, more = _tools_off(info)
    return _derived("eval", "pixelworld", *words, *off, "--run", path, recipe=[*recipe, *more, *_limits(info)])


def probe_command(info: Mapping[str, Any], path: str) -> str:
    """The command that makes a grid of shifts, takes the tools away, or votes, again; see `eval_command`."""
    policy, recipe = _policy(info.get("policy", {}))
    kind, items = info.get("evaluation"), info.get("items", {})
    if not policy:
        return f"pixelis.eval.{kind}_run in Python, with the policy {info.get('policy', {}).get('name')!r}"
    words = [*policy, "--split", items.get("split"), "--items", items.get("count"), "--seed", items.get("seed")]
    words += [word for family in items.get("families") or () for word in ("--family", family)]
    shifted = [cell.rpartition("-") for cell in info.get("conditions", ()) if kind == "robustness" and "-" in cell]
    if shifted:
        words += ["--shifts", ",".join(dict.fromkeys(kind for kind, _, _ in shifted))]
        words += ["--severities", ",".join(sorted({severity for _, _, severity in shifted}))]
    if kind == "consistency":
        names = info.get("conditions", ())
        words += ["--rollouts", sum(part.startswith("on-") for part in names)]
        temperature = (info["policy"].get("sampling") or {}).get("temperature")
        words += ["--temperature", temperature] if temperature is not None else []
        words += ["--fusion"] if any(part.startswith("off-") for part in names) else []
        words += ["--calibration", info["calibration"]["run"]] if info.get("calibration") else []
        recipe = [one for one in recipe if not one.startswith("policy.temperature")]
    return _derived("eval", kind, *words, "--out", path, recipe=[*recipe, *_limits(info)])


def bench_command(info: Mapping[str, Any], path: str) -> str:
    """The command that asks the same policy the same benchmark; see `eval_command`. Which tasks were wanted its trajectories alone show."""
    policy, recipe = _policy(info.get("policy", {}))
    if not policy:
        return f"pixelis.eval.bench.run in Python, with the policy {info.get('policy', {}).get('name')!r}"
    off, more = _tools_off(info)
    words = (info.get("benchmark"), "FOLDER", *policy, "--seed", info.get("seed"), *off, "--run", path)
    return _derived("eval", "bench", *words, recipe=[*recipe, *more, *_limits(info)])


def journal_command(journal: Journal) -> str:
    """The command that leaves such a journal; a recipe's values are among the facts of a run, its path is not."""
    path = journal.path or "RUN"
    if _is_curve(journal):
        verb = ("revote", path, "--curves", "FOLDER") if journal.file not in (CURVE_FILE, BINS_FILE) else ("selective", path)
        return _derived("eval", *verb)
    if journal.is_stream:
        return _derived("adapt", "RECIPE", "--out", path)
    stem = journal.file.partition(".")[0]
    phase = stem if stem in ("sight", "primer", "sft", "rft") else "rft" if journal.counter == "update" else "sft"
    return _derived("train", phase, "RECIPE", "--out", path)


def _policy(policy: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """How the command line names a policy, and what only a recipe can say of it; nothing for one that it cannot name."""
    name, sampling = str(policy.get("name", "")), policy.get("sampling") or {}
    if name == "planner":
        return ["--policy", name], []
    if name == "endpoint":
        return ["--policy", name, "--model", str(policy.get("version", ""))], ["policy.url"]
    kind, _, checkpoint = name.partition(":")
    if kind != "vlm":
        return [], []
    shipped = _shipped(checkpoint, (sampling.get("prompting") or {}).get("lift") or 0.0)
    usual = {"temperature": 0.0 if shipped else 0.7, "max_new_tokens": 512}
    recipe = [f"policy.{key.replace('max_new', 'max')} = {sampling[key]}" for key in usual if sampling.get(key, usual[key]) != usual[key]]
    if shipped:
        return ["--policy", shipped], recipe
    return ["--policy", "vlm", "--model", checkpoint if "/" in checkpoint else "CHECKPOINT"], recipe  # a folder leaves its last part only


def _shipped(checkpoint: str, lift: float) -> str | None:
    """The name of the package's policy of that checkpoint and lift; None where there is none."""
    adapted = next((name for name, known in ADAPTED.items() if known == (checkpoint, lift)), None)
    is_shipped = "/" not in checkpoint and checkpoint != "" and not lift and (WEIGHTS / checkpoint).is_dir()
    return adapted or (checkpoint if is_shipped else None)


def _tools_off(info: Mapping[str, Any]) -> tuple[list[str], list[str]]:
    """Which tools were off, as words of a command, and as what only a recipe can say."""
    disabled = list(info.get("tool_settings", {}).get("disabled") or ())
    if set(disabled) == set(OPS):
        return ["--no-tools"], []
    return [], [f"tools.disabled = {disabled}"] if disabled else []


def _limits(info: Mapping[str, Any]) -> list[str]:
    usual = asdict(Limits())
    return [f"limits.{key} = {value}" for key, value in (info.get("limits") or {}).items() if usual.get(key) != value]


def _derived(*words: Any, recipe: Sequence[str] = ()) -> str:
    """A command that nobody noted, and what stands in it for what is not known."""
    told = [str(word) for word in ("pixelis", *words, *(["--recipe", "RECIPE"] if recipe else []))]
    missing = [f"{word} ({PLACES[word]}{', which says ' + ', '.join(recipe) if recipe and word == 'RECIPE' else ''})"
               for word in PLACES if word in told]  # fmt: skip
    return f"{shlex.join(told)}  # {NOT_RECORDED}: {', '.join(['the command as given', *missing])}"
