"""Writes the page: one HTML file that holds its data, pictures, style and script, and loads nothing.

Texts of a run come from models and from media, so none of them is trusted: they travel as JSON with `<` escaped, become
text nodes only, and a Content-Security-Policy lets nothing run but the page's own script, named by its hash.
"""

from __future__ import annotations

import html
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from string import Template

from pixelis.core.errors import DataError
from pixelis.core.ops import ZoomOutput
from pixelis.core.store import Run, open_run
from pixelis.core.trajectory import Trajectory
from pixelis.serve.markup import by_hash, in_ascii, read_resource, write_page_file
from pixelis.serve.viewer import describe, embed

PICTURE_BYTES = 64 << 20
"""All pictures of a page together; past this a medium is left out, and its place says so."""

SCRIPTS = ("dom.js", "mask.js", "evidence.js", "stage.js", "page.js")
SCORES_FILE = "scores.jsonl"
SCORE_FORM = '{"id": ..., "steps": [{"is_valid": true, false or null}]}'


def write_page(
    run_folder: str | os.PathLike, output_path: str | os.PathLike, *, limit: int | None = None, picture_bytes: int = PICTURE_BYTES
) -> Path:
    """Write a run folder as one HTML file that needs nothing beside it.

    Args:
        limit: how many trajectories, from the first; None for all.
        picture_bytes: budget of all pictures together.
    Returns:
        Where the page is.
    Raises:
        DataError: it is no run folder, a record or score line is damaged, or the page cannot be written.
    """
    run, output_path = open_run(run_folder), Path(output_path)
    records = run.trajectories()
    trajectories = list(islice(records, limit))
    has_more = next(records, None) is not None
    text = _page(run, trajectories, has_more=has_more, budget=embed.Budget(picture_bytes))
    write_page_file(output_path, text.encode("ascii"))
    return output_path


def _page(run: Run, trajectories: list[Trajectory], *, has_more: bool, budget: embed.Budget) -> str:
    style = _resource("page.css")
    script = '"use strict";(() => {\n' + "\n".join(map(_resource, SCRIPTS)) + "})();\n"
    name = run.folder.resolve().name
    entries = dict(_entries(run, trajectories, budget))
    index = {
        "run": {"name": name, "info": describe.one_line(run.info), "has_more": has_more, "notice": _notice(run, budget)},
        "trajectories": [describe.entry(t) for t in trajectories],
    }
    blocks = [f'<script type="application/json" id="{html.escape(key)}">{text}</script>' for key, text in entries.items()]
    blocks.append(f'<script type="application/json" id="index">{describe.embeddable(index)}</script>')
    return Template(_resource("page.html")).substitute(
        csp=_policy(script, style), title=in_ascii(html.escape(f"{name} – Pixelis")), style=style, script=script, data="\n".join(blocks)
    )


def _entries(run: Run, trajectories: list[Trajectory], budget: embed.Budget) -> Iterator[tuple[str, str]]:
    """Every data block of the page by its id: `m-` media, `b-` crops, `t-` trajectories."""
    timings, scores = run.timings(), read_scores(run.folder / SCORES_FILE)
    wanted: dict[str, set[int]] = defaultdict(set)
    for trajectory in trajectories:
        for result in trajectory.results:
            if result.output is not None:
                wanted[trajectory.medium.sha256] |= describe.frames_of(result.output)
    clocks, crops = {}, set()
    for number, trajectory in enumerate(trajectories):
        medium = trajectory.medium.sha256
        if medium not in clocks:
            entry, clocks[medium] = embed.medium_entry(run, trajectory.medium, wanted[medium], budget)
            yield f"m-{medium}", describe.embeddable(entry)
        for name in _crops(trajectory):
            if name not in crops:
                crops.add(name)
                yield f"b-{name}", describe.embeddable(embed.crop_entry(run, name, budget))
        whole = describe.whole(trajectory, timing=timings.get(trajectory.id), validity=scores.get(trajectory.id), clock=clocks[medium])
        yield f"t-{number}", describe.embeddable(whole)


def _crops(trajectory: Trajectory) -> list[str]:
    return [result.output.image for result in trajectory.results if isinstance(result.output, ZoomOutput)]


def _notice(run: Run, budget: embed.Budget) -> str:
    notices = []
    if run.num_cut_bytes:
        notices.append(f"The last record of this run was cut off while it was written ({run.num_cut_bytes} bytes); it is not shown.")
    if budget.refused:
        left_out = " and ".join(f"{count} {kind}" for kind, count in sorted(budget.refused.items(), reverse=True))
        notices.append(f"Left out, since the page has no room for more pictures: {left_out}. Write it for fewer trajectories.")
    return " ".join(notices)


def read_scores(path: Path) -> dict[str, list[bool | None]]:
    """Validity of each step by trajectory id; empty when the run has not been scored.

    Raises:
        DataError: a line is no score record; names file and line.
    """
    scores: dict[str, list[bool | None]] = {}
    if not path.exists():
        return scores
    for number, line in enumerate(path.read_bytes().splitlines(), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
            validity = [step.get("is_valid") for step in record["steps"]]
            if not all(v is None or isinstance(v, bool) for v in validity):
                raise TypeError("is_valid")
            scores[record["id"]] = validity
        except (ValueError, TypeError, KeyError, AttributeError):
            raise DataError(
                f'{path}:{number}: no score record: a line is {{"id": ..., "steps": [{{"is_valid": true, false or null}}]}}'
            ) from None
    return scores


# ---------------------------------------------------------------- the file


def _resource(name: str) -> str:
    return read_resource(__package__, name)


def _policy(script: str, style: str) -> str:
    return (
        f"default-src 'none'; script-src {by_hash(script)}; style-src {by_hash(style)}; img-src data:; "
        "base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )
