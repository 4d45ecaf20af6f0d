"""Writes the report: one HTML file that holds its tables, figures, pictures and style, runs no script and loads nothing.

Texts of runs come from models, media and file names, so none is trusted: all are escaped, and a Content-Security-Policy lets nothing in
but the page's own style and the pictures it holds. A figure is an image of its own, where no name or style of it can meet the page's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from string import Template
from urllib.parse import quote

from pixelis.core.errors import DataError
from pixelis.core.store import TRAJECTORIES_FILE
from pixelis.serve.markup import by_hash, in_ascii, read_resource, write_page_file
from pixelis.serve.report.benches import bench_tables
from pixelis.serve.report.commands import made_by
from pixelis.serve.report.curves import Figure, figures, num_left_out
from pixelis.serve.report.examples import Media, cards_html, examples_html
from pixelis.serve.report.journals import Journal, kept_journal
from pixelis.serve.report.latency import latency_tables
from pixelis.serve.report.leakage import leakage_tables
from pixelis.serve.report.probes import audit_tables, probe_tables, side_by_side
from pixelis.serve.report.processes import process_tables
from pixelis.serve.report.provenance import provenance
from pixelis.serve.report.sources import NUM_EXAMPLES, Evaluation, Progress, Sources, read_sources
from pixelis.serve.report.table import Table, in_html, table_html, table_markdown
from pixelis.serve.report.tables import tables
from pixelis.serve.viewer.embed import Budget

PICTURE_BYTES = 12 << 20
"""All pictures of examples together; figures are not counted."""


def write_report(
    runs: Sequence[str | os.PathLike],
    page: str | os.PathLike,
    *,
    markdown: str | os.PathLike | None = None,
    curves: str | os.PathLike | None = None,
    journals: str | os.PathLike | None = None,
    examples: int = NUM_EXAMPLES,
    picture_bytes: int = PICTURE_BYTES,
    progress: Progress = lambda done, of: None,
) -> Path:
    """Write a page over evaluations and journals. The runs are read only; the same runs, named alike, give the same bytes.

    Args:
        runs: run folders, or `.jsonl` journals; the first evaluation is what the others are compared with.
        page: the HTML file.
        markdown: a file for the tables in GitHub Markdown; None writes none.
        curves: a folder for the journals' figures, each an SVG file of its own; None writes none.
        journals: a folder for the journals themselves, each with what is known of its run in its first line; None writes none.
        examples: families of which examples are shown; 0 for none.
        picture_bytes: budget of the examples' pictures.
        progress: called with (runs read, runs in all).

    Returns:
        Where the page is.

    Raises:
        DataError: a path holds nothing to report on, a record or row is damaged, or a file cannot be written.
        NotInstalled: there are curves to draw, and matplotlib is missing.
    """
    if examples < 0:
        raise DataError(f"examples: {examples} families; wanted are 0 or more")
    sources = read_sources([Path(run) for run in runs], examples=examples, progress=progress)
    made = _tables(sources)
    drawn = [figures(journal) for journal in sources.journals]
    text = _page(sources, made, drawn, Budget(picture_bytes))
    write_page_file(Path(page), text.encode("ascii"))
    if markdown is not None:
        write_page_file(Path(markdown), ("# Pixelis: report\n\n" + "\n".join(map(table_markdown, made))).encode("utf-8"))
    if curves is not None:
        _write_curves(sources.journals, drawn, _folder(curves))
    if journals is not None:
        for journal in sources.journals:
            write_page_file(_folder(journals) / f"{_file_name(_journal_name(journal, sources))}.jsonl", kept_journal(journal))
    return Path(page)


def _tables(sources: Sources) -> list[Table]:
    """Every table in the order of the page; the last says where all of them come from."""
    made = tables(sources.evaluations)
    return [
        *made[:1],
        *side_by_side(sources.probes),
        *made[1:],
        *process_tables(sources.evaluations),
        *latency_tables(sources.evaluations, sources.journals),
        *leakage_tables(sources.journals),
        *bench_tables(sources.benches),
        *probe_tables(sources.probes),
        *audit_tables(sources.evaluations),
        provenance(sources),
    ]


def _write_curves(journals: Sequence[Journal], drawn: Sequence[Sequence[Figure]], folder: Path) -> None:
    for journal, of_journal in zip(journals, drawn, strict=True):
        for figure in of_journal:
            write_page_file(folder / f"{_file_name(f'{journal.name} {figure.title}')}.svg", figure.svg.encode("utf-8"))


def _folder(path: str | os.PathLike) -> Path:
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise DataError(f"{path}: no folder can be made there ({error.strerror}): choose another place") from None
    return Path(path)


def _file_name(words: str) -> str:
    """In small letters, and with a dash for whatever else a file's name may not hold everywhere."""
    return re.sub(r"[^a-z0-9_]+", "-", words.replace(".jsonl", "").lower()).strip("-")


def _page(sources: Sources, made: Sequence[Table], drawn: Sequence[Sequence[Figure]], budget: Budget) -> str:
    style = read_resource(__package__, "style.css")
    sections = [*(_table(table, sources) for table in made[:-1])]
    sections += [_journal(number, journal, drawn[number], sources) for number, journal in enumerate(sources.journals)]
    sections += _examples(sources, budget)
    sections.append(_table(made[-1], sources))
    policy = f"default-src 'none'; style-src {by_hash(style)}; img-src data:; base-uri 'none'; form-action 'none'"
    whole = Template(read_resource(__package__, "page.html")).substitute(
        csp=policy,
        title=in_html(f"{', '.join(sources.names)} – Pixelis report"),
        style=style,
        contents="\n".join(f'<li><a href="#{key}">{in_html(title)}</a></li>' for key, title in _contents(sources, made)),
        body="\n".join(sections),
    )
    return in_ascii(whole)


def _contents(sources: Sources, made: Sequence[Table]) -> list[tuple[str, str]]:
    contents = [(table.key, table.title) for table in made[:-1]]
    contents += [(f"journal-{number}", f"Curves: {_journal_name(journal, sources)}") for number, journal in enumerate(sources.journals)]
    contents += [("examples", "Examples")] if any(e.examples for e in sources.evaluations) else []
    contents += [("gallery", "Failures")] if any(any(e.gallery.values()) for e in sources.evaluations) else []
    return [*contents, (made[-1].key, made[-1].title)]


def _journal_name(journal: Journal, sources: Sources) -> str:
    """With its file where its run has several."""
    is_alone = sum(other.name == journal.name for other in sources.journals) == 1
    return f"{journal.name}{'' if is_alone else f' ({journal.file})'}"


def _made_by(what: str, sources: Sources) -> str:
    """The line under every table and figure: from which files, by which command."""
    command = f"<code>{in_html(sources.command)}</code>"
    return f'{in_html(what)} Made by {command}; the runs\' own commands: <a href="#provenance">provenance</a>.'


def _table(table: Table, sources: Sources) -> str:
    names = table.of or tuple(source.name for source in sources.evaluations)
    origin = f"From {table.source} of {', '.join(names)}{', scored again' if table.source == TRAJECTORIES_FILE else ''}."
    if table.key == "provenance":
        origin = f"From {table.source} and the files themselves."
    note = f'<p class="note">{in_html(table.note)}</p>' if table.note else ""
    frame = "wide heat" if table.is_heat else "wide"
    return (
        f'<section id="{table.key}">\n<h2>{in_html(table.title)}</h2>\n<div class="{frame}">{table_html(table)}</div>\n{note}\n'
        f'<p class="provenance">{_made_by(origin, sources)}</p>\n</section>'
    )


def _journal(number: int, journal: Journal, drawn: Sequence[Figure], sources: Sources) -> str:
    words = [f"{len(journal.rows)} rows of {journal.file}."]
    if not drawn:
        words.append("It holds no number to draw.")
    if left := num_left_out(journal):
        words.append(f"{left} more numbers are left out: there are too many.")
    if journal.num_cut_bytes:
        words.append(f"The last row was cut off while it was written ({journal.num_cut_bytes} bytes) and is not shown.")
    alarms = [f"{journal.counter} {row[journal.counter]}: {row['alarm']}" for row in journal.rows if row.get("alarm")]
    if alarms:
        words.append(f"{len(alarms)} alarms, the first at {alarms[0]}.")
    body = "\n".join(_figure(figure, journal, sources) for figure in drawn)
    return (
        f'<section id="journal-{number}">\n<h2>{in_html(f"Curves: {_journal_name(journal, sources)}")}</h2>\n'
        f'<p class="note">{in_html(" ".join(words))}</p>\n'
        f'<div class="figures">\n{body}\n</div>\n</section>'
    )


def _figure(figure: Figure, journal: Journal, sources: Sources) -> str:
    source = f"data:image/svg+xml,{quote(figure.svg, safe=' /:=;,()!*')}"
    origin = f"From {journal.name} ({journal.file}): {figure.note}. The run: {made_by(journal)}."
    return (
        f'<figure>\n<h3>{in_html(figure.title)}</h3>\n<img src="{source}" width="{figure.width_px}" height="{figure.height_px}" '
        f'alt="{in_html(figure.words)}">\n<figcaption class="provenance">{_made_by(origin, sources)}</figcaption>\n</figure>'
    )


def _examples(sources: Sources, budget: Budget) -> list[str]:
    """Two sections over all evaluations, each saying at its head what was left out: some items of each family, and the worst failures."""
    media = Media()
    some = "Of some families, evenly spread over those that there are: the first right item and the first wrong one, in order."
    worst = "Failures of each mode with the smallest share of valid steps, then the longest, first. An item may have several traits."
    sections = (
        ("examples", "Examples", some, lambda one: examples_html(one, media, budget)),
        ("gallery", "Failures", worst, lambda one: cards_html(one.gallery, media, budget)),
    )
    made = []
    for key, title, note, draw in sections:
        before = sum(budget.refused.values())
        drawn = [(one, draw(one)) for one in sources.evaluations]
        parts = [_of_evaluation(one, cards, sources, is_open=not k) for k, (one, cards) in enumerate(drawn) if cards]
        left = sum(budget.refused.values()) - before
        note += f" {left} pictures are left out: the page has no room for more." if left else ""
        head = f'<section id="{key}">\n<h2>{title}</h2>\n<p class="note">{note}</p>\n'
        made += [head + "\n".join(parts) + "\n</section>"] if parts else []
    return made


def _of_evaluation(evaluation: Evaluation, cards: str, sources: Sources, *, is_open: bool) -> str:
    origin = f"From trajectories.jsonl of {evaluation.name}. The run: {made_by(evaluation)}."
    return (
        f"<details{' open' if is_open else ''}>\n<summary>{in_html(evaluation.name)}</summary>\n"
        f"{cards}\n"
        f'<p class="provenance">{_made_by(origin, sources)}</p>\n</details>'
    )
