"""Runs a policy with each tool off and with each tool degraded, and freezes which items turned on which tool.

The folder holds a run per condition, `necessity.json` with every number, and `subsets.json`, which is written once: it says which items
later runs are measured on, so a file that has changed, or that another run would overwrite, is refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixelis.core.errors import DataError
from pixelis.core.ops import OPS
from pixelis.core.store import TRAJECTORIES_FILE, sha256
from pixelis.data.world.splits import VERSION
from pixelis.eval.degrade import Blur, degrade_toolbox
from pixelis.eval.necessity import (
    ALL,
    DEGRADED,
    OFF,
    WAYS,
    Necessity,
    condition_name,
    counterfactual,
    make_necessity,
    necessity_from_json,
    necessity_json,
)
from pixelis.eval.pixelworld import Progress
from pixelis.eval.scores import ItemScore
from pixelis.eval.sweep import Condition, Sweep, read_facts, read_result, run_sweep, write_result
from pixelis.tools.base import Toolbox
from pixelis.tools.cache import cache_for
from pixelis.tools.execute import Executor

NECESSITY = "necessity"
"""The kind of evaluation, as run.json names it."""
NECESSITY_FILE, SUBSETS_FILE = "necessity.json", "subsets.json"


@dataclass(frozen=True, kw_only=True)
class Necessities:
    about: dict[str, Any]
    """Facts of the sweep."""
    found: Necessity


def run_necessity(
    sweep: Sweep,
    tools: Toolbox,
    *,
    ops: Sequence[str] = OPS,
    ways: Sequence[str] = WAYS,
    blur: Blur = Blur(),
    subsets: str | os.PathLike | None = None,
    progress: Progress | None = None,
) -> Necessities:
    """All tools, then each op off, then each op degraded, on the same items; what the folder holds already is not run again.

    Args:
        sweep: of kind `NECESSITY`, its settings with no op off.
        tools: made from the sweep's settings.
        ways: `OFF`, `DEGRADED`, or both.
        blur: of degraded tools; part of what the folder is about.
        subsets: frozen by an earlier run; its items are then a group of their own.
        progress: called with (items done, items wanted) over all conditions.

    Raises:
        DataError: the folder holds another sweep or other frozen subsets, or a file of subsets has changed.
    """
    chosen = read_subsets(subsets)["counterfactual"] if subsets is not None else None
    frozen = sweep.folder / SUBSETS_FILE
    if frozen.exists():  # before the work
        read_subsets(frozen)
    sweep = replace(sweep, options=(*sweep.options, ("blur", str(blur))))
    scores = run_sweep(sweep, _conditions(sweep, tools, ops, ways, blur), progress=progress)
    needs = {score.id: sweep.items.item(score.index).needs for score in scores[ALL]}
    freeze_subsets(frozen, _subsets(sweep, scores, needs))
    of_earlier = {op: frozenset(ids) for op, ids in chosen.items()} if chosen is not None else None
    made = make_necessity(scores, needs, chosen=of_earlier, seed=sweep.items.seed)
    found = Necessities(about=read_facts(sweep.folder), found=made)
    write_result(sweep.folder, NECESSITY_FILE, necessities_json(found))
    return found


def _conditions(sweep: Sweep, tools: Toolbox, ops: Sequence[str], ways: Sequence[str], blur: Blur) -> list[Condition]:
    cache = cache_for(sweep.settings)  # one for all: a tool that is on computes the same under every condition
    settings = sweep.settings
    conditions = [Condition(name=ALL, executor=Executor(tools, cache=cache), settings=settings)]
    for op in ops if OFF in ways else ():
        without = settings.model_copy(update={"disabled": (op,)})
        conditions.append(Condition(name=condition_name(OFF, op), executor=Executor(tools, disabled=(op,), cache=cache), settings=without))
    for op in ops if DEGRADED in ways else ():
        executor = Executor(degrade_toolbox(tools, op, blur), cache=cache)
        conditions.append(Condition(name=condition_name(DEGRADED, op), executor=executor, settings=settings))
    return conditions


def necessities_json(found: Necessities) -> dict[str, Any]:
    """Plain JSON values."""
    return {**found.about, **necessity_json(found.found)}


def read_necessity(folder: Path) -> Necessities:
    """What `run_necessity` left in a folder.

    Raises:
        DataError: it left nothing there yet, or the file is damaged.
    """

    def make(values: dict[str, Any]) -> Necessities:
        made = necessity_from_json(values)
        return Necessities(about={k: v for k, v in values.items() if k not in necessity_json(made)}, found=made)

    return read_result(folder, NECESSITY_FILE, NECESSITY, make)


# ---------------------------------------------------------------- frozen subsets


def _subsets(sweep: Sweep, scores: Mapping[str, Sequence[ItemScore]], needs: Mapping[str, frozenset[str]]) -> dict[str, Any]:
    about = sweep.about([])
    kept = {key: about[key] for key in ("world", "items", "policy", "tool_settings", "limits")}
    return {
        **kept,
        "run": sweep.folder.resolve().name,
        "seed": sweep.items.seed,
        "trajectories": sha256((sweep.folder / ALL / TRAJECTORIES_FILE).read_bytes()),
        "counterfactual": {op: list(ids) for op, ids in counterfactual(scores).items()},
        "by_truth": {op: sorted(name for name, ops in needs.items() if op in ops) for op in OPS},
    }


def content_hash(values: Mapping[str, Any]) -> str:
    """SHA-256 of everything but the hash itself, in one canonical form."""
    content = {key: value for key, value in values.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def freeze_subsets(path: Path, content: Mapping[str, Any]) -> None:
    """Write subsets once. What is frozen stays: the same content is left as it is.

    Raises:
        DataError: the file holds other subsets, has changed, or cannot be written.
    """
    if path.exists():
        there = read_subsets(path)
        if there["sha256"] != content_hash(content):
            counts = ", ".join(f"{op} {len(ids)}" for op, ids in there["counterfactual"].items())
            raise DataError(
                f"{path} was frozen by another run ({there['items']['count']} items; {counts}) than this one, which found other subsets: "
                "choose a new folder"
            )
        return
    write_result(path.parent, path.name, {**content, "sha256": content_hash(content)})


def read_subsets(path: str | os.PathLike) -> dict[str, Any]:
    """Frozen subsets; `counterfactual` and `by_truth` give item ids by op.

    Raises:
        DataError: there are none, they are of another version of PixelWorld, or have changed since they were frozen.
    """
    try:
        values = json.loads(Path(path).read_bytes())
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; freeze subsets with pixelis eval necessity") from None
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}") from None
    if not isinstance(values, dict) or values.get("sha256") != content_hash(values):
        raise DataError(f"{path} has changed since it was frozen: its content no longer has the hash it names; take the first copy of it")
    if values.get("world") != VERSION:
        raise DataError(f"{path} is about version {values.get('world')} of PixelWorld, not {VERSION}: freeze new subsets")
    return values
