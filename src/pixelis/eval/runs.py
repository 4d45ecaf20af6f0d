"""The run folder of an evaluation: what stands in its run.json, and whether a run may go on in a folder that holds one."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from pixelis.core.command import note_command
from pixelis.core.errors import DataError
from pixelis.core.store import RUN_FILE, RunWriter, open_run
from pixelis.core.trajectory import PolicyInfo
from pixelis.core.versions import versions
from pixelis.policy.base import Policy
from pixelis.rollout.run import Limits
from pixelis.tools.settings import ToolSettings


def run_facts(policy: Policy, settings: ToolSettings, *, limits: Limits, **own: Any) -> dict[str, Any]:
    """Facts of a whole run, as plain JSON values: its own, and who answered with what."""
    about = {
        **own,
        "policy": TypeAdapter(PolicyInfo).dump_python(policy.info, mode="json"),
        "tool_settings": settings.model_dump(mode="json"),
        "limits": asdict(limits),
        "versions": versions(),
    }
    return json.loads(json.dumps(about))


def open_writer(folder: Path, about: Mapping[str, Any], *, may_differ: Collection[str] = ()) -> RunWriter:
    """Open a folder for a run: new, or begun by the same one.

    Raises:
        DataError: see `check_same`.
    """
    is_new = not (folder / RUN_FILE).exists()
    if not is_new:
        check_same(folder, open_run(folder).info, about, may_differ=may_differ)
    writer = RunWriter(folder, about, resume=not is_new)
    try:
        note_command(folder)
    except DataError:
        writer.close()
        raise
    return writer


def check_same(folder: Path, there: Mapping[str, Any], here: Mapping[str, Any], *, may_differ: Collection[str] = ()) -> None:
    """Whether a run may go on in a folder.

    Args:
        there, here: facts of the run that the folder holds, and of the one that wants it. Versions may always differ.
        may_differ: further keys; dotted ones name a key of a table.

    Raises:
        DataError: they are two runs; says in what they differ.
    """
    known, wanted = _flat(there), _flat(here)
    keys = [key for key in {**wanted, **known} if known.get(key) != wanted.get(key) and key not in may_differ]
    if keys:
        differences = "; ".join(f"{key} {known.get(key)!s:.80} instead of {wanted.get(key)!s:.80}" for key in keys)
        raise DataError(f"{folder} holds another run ({differences}): choose a new folder")


def _flat(about: Mapping[str, Any]) -> dict[str, Any]:
    """By dotted key."""
    flat: dict[str, Any] = {}
    for key, value in about.items():
        if key != "versions":
            flat.update({f"{key}.{name}": part for name, part in value.items()} if isinstance(value, dict) else {key: value})
    return flat
