"""`pixelis study`: one recipe, several arms that differ from it in a few values, each trained and examined alike, and one table.

Every arm is a recipe of its own that names the common one as its base, so each can also be run by hand. The first arm is what the others
are compared with, on the same items.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pixelis.config import recipe_tables
from pixelis.core.errors import ConfigError, DataError
from pixelis.eval.compare import OVERALL
from pixelis.eval.metrics.process import action_entropy
from pixelis.eval.report import number_text, rate_text
from pixelis.eval.scores import ItemScore, read_scores
from pixelis.eval.stats import Rate, benjamini_hochberg, known, mean_rate, paired_p
from pixelis.rewards.chains import entropy_nats
from pixelis.stages import StageTable, run_stages

Scalar = bool | int | float | str | list[str] | list[int] | list[float]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class ArmTable(_Table):
    """One variant."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    set: dict[str, Scalar] = {}
    """Dotted keys of the recipe, and their values in this arm."""
    paper: str = ""
    """What the paper says of it; stands beside what was seen."""


class ExamTable(_Table):
    """How every arm is examined."""

    recipe: str
    items: int = Field(ge=1)
    split: str = "test"
    seed: int = 0
    shift: str = ""
    """Such as `lighting:3`; empty for none."""
    dev: str = ""
    """An evaluation on the dev split, which fixes RaCPR's scale; without one RaCPR stays unknown."""
    minutes: float = Field(gt=0)


class StudyRecipe(_Table):
    phase: Literal["rft", "ttrl"]
    recipe: str
    """What the arms have in common."""
    out: str
    seeds: tuple[int, ...] = Field(default=(0,), min_length=1)
    minutes: float = Field(gt=0)
    """Of training one arm, on two cores: alone in phase 2, beside another arm in phase 3; only the time left is told from it."""
    shared: dict[str, Scalar] = {}
    """Dotted keys that differ from the recipe in every arm, such as the budget."""
    exam: ExamTable | None = None
    last_updates: int | None = Field(default=None, ge=1)
    """Instead of an exam, of phase 2: so many updates at the end of `rft.updates`, which `shared` sets, whose rollouts are compared. Every
    arm is given the same prompts there, and has not learnt from them yet."""
    arm: tuple[ArmTable, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _compares_something(self) -> StudyRecipe:
        if (self.exam is None) == (self.last_updates is None):
            raise ValueError("name either an exam or last_updates")
        if self.last_updates is not None and self.phase != "rft":
            raise ValueError("last_updates compares rollouts of phase 2; phase 3 needs an exam")
        if self.last_updates is not None and self.last_updates > self.updates:
            raise ValueError(f"last_updates = {self.last_updates} of {self.updates}: set rft.updates under [shared], to more")
        return self

    @property
    def updates(self) -> int:
        """Of every arm; 0 where `shared` does not say."""
        return int(self.shared.get("rft.updates", 0))


@dataclass(frozen=True, kw_only=True)
class ArmRow:
    """One arm over all seeds. Means over seeds of what was measured over items; q is over the arms."""

    name: str
    paper: str
    metrics: dict[str, Rate]
    """accuracy, steps, RaPR, AE; of an exam also valid (share of calls), and RaCPR only where a dev run is named."""
    differences: dict[str, tuple[Rate, float]]
    """To the first arm, of what is known item by item, with p of the paired permutation test; pairs of all seeds. Empty for the first."""
    q: float
    """Of the accuracy's p, after Benjamini-Hochberg over the arms; NaN for the first."""
    kl: tuple[float, float, float, int]
    """Median and 95th percentile of the token-KL in the second half of training, share of it inside the corridor, and updates counted."""


def study_stages(recipe: StudyRecipe) -> tuple[StageTable, ...]:
    """Training and, where there is one, the exam of every arm and seed. Writes the arms' recipes.

    Raises:
        ConfigError: two arms of one name, or a key that no table of the recipe could hold.
    """
    names = [arm.name for arm in recipe.arm]
    if len(set(names)) < len(names):
        raise ConfigError(f"two arms have one name: {', '.join(sorted({name for name in names if names.count(name) > 1}))}")
    stages = []
    for seed in recipe.seeds:
        for arm in recipe.arm:
            folder = arm_folder(recipe, arm.name, seed)
            written = _write_recipe(recipe, arm, seed, folder)
            model = folder / "policy" if recipe.phase == "ttrl" else folder
            train = ("train", "rft", str(written)) if recipe.phase == "rft" else ("adapt", str(written))
            made = str(model / "model.safetensors")
            width = 1 if recipe.phase == "ttrl" else None
            stages.append(StageTable(name=folder.name, command=train, makes=made, minutes=recipe.minutes, threads=width, needs=()))
            exam = recipe.exam
            if exam is None:
                continue
            shift = ("--shift", exam.shift) if exam.shift else ()
            command = (
                "eval", "pixelworld", "--recipe", exam.recipe, "--model", str(model), "--split", exam.split, "--seed", str(exam.seed),
                "--items", str(exam.items), *shift, "--run", str(folder / "exam"), "--no-media",
            )  # fmt: skip
            table = {"name": f"{folder.name}-exam", "makes": str(folder / "exam" / "scores.jsonl"), "needs": (folder.name,)}
            stages.append(StageTable(**table, command=command, minutes=exam.minutes, threads=width))
    return tuple(stages)


def run_study(recipe: StudyRecipe, *, only: Sequence[str] = (), say: Callable[[str], None] = print) -> Path:
    """Train and examine what is not done yet; a killed study goes on. Returns the record of stages.

    Args:
        only: names of arms; all when empty.

    Raises:
        ConfigError: no such arm.
        DataError: a stage failed.
    """
    stages = study_stages(recipe)
    unknown = sorted(set(only) - {arm.name for arm in recipe.arm})
    if unknown:
        raise ConfigError(f"no arm {', '.join(unknown)}: there are {', '.join(arm.name for arm in recipe.arm)}")
    ends = ("", "-exam") if recipe.exam else ("",)
    wanted = {f"{name}-{seed}{end}" for name in only for seed in recipe.seeds for end in ends}
    return run_stages(stages, Path(recipe.out), only=sorted(wanted), say=say)


def arm_folder(recipe: StudyRecipe, name: str, seed: int) -> Path:
    return Path(recipe.out) / f"{name}-{seed}"


def _write_recipe(recipe: StudyRecipe, arm: ArmTable, seed: int, folder: Path) -> Path:
    """The arm's recipe, which stands on the common one. It lies beside the arm's folder, which belongs to the run."""
    base = Path(recipe.recipe).resolve()
    tables = recipe_tables(base)
    values = {**recipe.shared, **arm.set}
    for key in values:
        table, dot, _ = key.rpartition(".")
        if dot and not isinstance(tables.get(table, {}), dict):
            raise ConfigError(f"arm {arm.name}: {key}: {table} is no table in {recipe.recipe}")
    lines = [f"base = {json.dumps(str(base))}", f"seed = {seed}", f"out = {json.dumps(str(folder))}"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in values.items()]
    path = folder.with_name(f"{folder.name}.toml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


# ---------------------------------------------------------------- the table


def study_rows(recipe: StudyRecipe, *, racpr: Callable[[Path], float] | None = None) -> tuple[ArmRow, ...]:
    """One row an arm that is finished for every seed; the first arm must be.

    Args:
        racpr: RaCPR of an exam's folder; unknown without.

    Raises:
        DataError: the first arm is not finished.
    """
    first = recipe.arm[0]
    reference = _seen(recipe, first.name, racpr)
    if reference is None:
        raise DataError(f"{recipe.out}: arm {first.name} is not finished, and the others are compared with it; run the study")
    rows = []
    for arm in recipe.arm:
        seen = _seen(recipe, arm.name, racpr)
        if seen is None:
            continue
        differences = {} if arm is first else _differences(seen.items, reference.items)
        kl = _kl([arm_folder(recipe, arm.name, seed) / "metrics.jsonl" for seed in recipe.seeds], recipe)
        rows.append(ArmRow(name=arm.name, paper=arm.paper, metrics=seen.metrics, differences=differences, q=math.nan, kl=kl))
    adjusted = iter(benjamini_hochberg([row.differences["accuracy"][1] for row in rows[1:]]))
    return (rows[0], *(replace(row, q=float(next(adjusted))) for row in rows[1:]))


@dataclass(frozen=True)
class _Seen:
    """What one arm did, over all seeds."""

    metrics: dict[str, Rate]
    items: dict[str, dict[str, float]]
    """By metric, its value of every seed's every item, or prompt; NaN where it has none."""


def _seen(recipe: StudyRecipe, name: str, racpr: Callable[[Path], float] | None) -> _Seen | None:
    """None where a seed is not finished yet."""
    folders = [arm_folder(recipe, name, seed) for seed in recipe.seeds]
    return _rolled_out(recipe, folders) if recipe.exam is None else _examined(folders, racpr)


def _examined(folders: Sequence[Path], racpr: Callable[[Path], float] | None) -> _Seen | None:
    if not all((folder / "exam" / "scores.jsonl").is_file() for folder in folders):
        return None
    scores = {f"{k}:{score.id}": score for k, folder in enumerate(folders) for score in read_scores(folder / "exam")}
    metrics = _metrics(tuple(scores.values()))
    if racpr is not None:
        values = [racpr(folder / "exam") for folder in folders]
        metrics["RaCPR"] = Rate(float(np.mean(values)), math.nan, math.nan, len(values), "mean over seeds")
    by_item = {**OVERALL, "AE": lambda score: entropy_nats(score.ops)}
    return _Seen(metrics, {metric: {id_: value(score) for id_, score in scores.items()} for metric, value in by_item.items()})


def _rolled_out(recipe: StudyRecipe, folders: Sequence[Path]) -> _Seen | None:
    """From the journals: the means over each prompt's rollouts in the last updates."""
    items: dict[str, dict[str, float]] = {}
    for k, folder in enumerate(folders):
        path = folder / "metrics.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
        if len(rows) < recipe.updates:
            return None
        for row in rows[recipe.updates - (recipe.last_updates or 0) : recipe.updates]:
            for id_, means in row["prompts"].items():
                for metric, value in means.items():
                    items.setdefault(metric, {})[f"{k}:{id_}"] = value
    return _Seen({metric: mean_rate(list(of.values()), is_share=metric not in ("steps", "AE")) for metric, of in items.items()}, items)


def _differences(ones: dict[str, dict[str, float]], twos: dict[str, dict[str, float]]) -> dict[str, tuple[Rate, float]]:
    """Pairs are of one seed and one item; the seeds' pairs are tested together."""
    found = {}
    for metric, one in ones.items():
        two = twos[metric]
        pairs = np.array([(one[id_], two[id_]) for id_ in sorted(one.keys() & two.keys())], float).reshape(-1, 2)
        pairs = pairs[np.isfinite(pairs).all(axis=1)]
        found[metric] = (mean_rate(pairs[:, 0] - pairs[:, 1], is_share=False), paired_p(pairs[:, 0], pairs[:, 1]))
    return found


def _metrics(scores: Sequence[ItemScore]) -> dict[str, Rate]:
    return {
        "accuracy": mean_rate([score.right for score in scores]),
        "steps": mean_rate([score.steps for score in scores], is_share=False),
        "valid": mean_rate([float(valid) for score in scores for valid in score.valid]),
        "RaPR": mean_rate([score.valid_share for score in scores]),
        "AE": action_entropy([score.ops for score in scores]).per_trajectory,
    }


def _kl(journals: Iterable[Path], recipe: StudyRecipe) -> tuple[float, float, float, int]:
    kls: list[float] = []
    for path in journals:
        if not path.is_file():
            continue
        found = [row["kl"] for row in map(json.loads, path.read_text(encoding="utf-8").splitlines()) if row.get("kl") is not None]
        kls += found[len(found) // 2 :]
    if not kls:
        return math.nan, math.nan, math.nan, 0
    corridor = recipe_tables(Path(recipe.recipe)).get("corridor", {})
    low, high = corridor.get("low", 0.10), corridor.get("high", 0.20)
    inside = np.mean([low <= kl <= high for kl in kls])
    return float(np.median(kls)), float(np.percentile(kls, 95)), float(inside), len(kls)


def study_markdown(recipe: StudyRecipe, rows: Sequence[ArmRow], command: str) -> str:
    """A table for `docs/results`, what the paper says beside what was seen."""
    exam = recipe.exam
    where = (
        f"examined on {exam.items} items of {exam.split}, seed {exam.seed}{f', {exam.shift}' if exam.shift else ''}"
        if exam
        else f"compared by the rollouts of the last {recipe.last_updates} updates, each before it is learnt from, prompt by prompt"
    )
    others = [name for name in ("steps", "RaPR", "RaCPR", "AE") if any(name in row.differences for row in rows)]
    names = list(dict.fromkeys(name for row in rows for name in row.metrics))
    against = "".join(f" {name} difference (p) |" for name in others)
    lines = [
        f"Made by `{command}`. Phase {recipe.phase}, {recipe.recipe}; training seeds {', '.join(map(str, recipe.seeds))};",
        f"{', '.join(f'{key} = {value}' for key, value in recipe.shared.items()) or 'nothing else changed'}; {where}.",
        f"Differences are to `{recipe.arm[0].name}`: paired permutation p, q over the arms. KL: second half of training, nats a token.",
        "",
        f"| arm | {' | '.join(names)} | accuracy difference | p | q |{against} KL P50 / P95 | inside corridor | the paper |",
        f"|---|{'---:|' * (len(names) + len(others))}---:|---:|---:|---:|---:|---|",
    ]
    for row in rows:
        cells = [rate_text(row.metrics[name]) if name in row.metrics else "" for name in names]
        if row.differences:
            accuracy, p = row.differences["accuracy"]
            cells += [rate_text(accuracy), number_text(p, 4), number_text(row.q, 4)]
            cells += [f"{rate_text(row.differences[name][0])} ({number_text(row.differences[name][1], 4)})" for name in others]
        else:
            cells += [""] * (3 + len(others))
        median, high, inside, count = row.kl
        cells += [f"{number_text(median, 3)} / {number_text(high, 3)}", f"{number_text(inside, 2)} of {count}", row.paper]
        lines.append(f"| {row.name} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def study_json(rows: Sequence[ArmRow]) -> list[dict[str, Any]]:
    return [
        {
            "arm": row.name,
            "metrics": {name: rate.to_json() for name, rate in row.metrics.items()},
            "differences": {name: {**rate.to_json(), "p": known(p)} for name, (rate, p) in row.differences.items()},
            "q": known(row.q),
            "kl": {"p50": known(row.kl[0]), "p95": known(row.kl[1]), "inside": known(row.kl[2]), "updates": row.kl[3]},
        }
        for row in rows
    ]
