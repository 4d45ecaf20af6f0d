"""A table of a report as data, and as HTML and GitHub Markdown from the same data. Pure."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass

NUM_LEVELS = 11
"""Colours of a share from 0 to 1; `style.css` has one for each."""
MARKS = ((0.01, "**"), (0.05, "*"))


@dataclass(frozen=True)
class Cell:
    text: str
    level: int | None = None
    """Its colour, from 0 to `NUM_LEVELS` - 1; None for none."""


@dataclass(frozen=True, kw_only=True)
class Table:
    key: str
    """Its place on the page."""
    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""
    source: str
    """What it was made from."""
    of: tuple[str, ...] = ()
    """Names of the runs it is about; empty for all evaluations."""
    is_heat: bool = False
    """Its cells are coloured like a map."""


def cells(*texts: str) -> tuple[Cell, ...]:
    return tuple(map(Cell, texts))


def level(share: float) -> int:
    return max(0, min(NUM_LEVELS - 1, round(share * (NUM_LEVELS - 1))))


def stars(q: float) -> str:
    return next((mark for limit, mark in MARKS if q < limit), "")


def marked(rate: str, mark: str) -> str:
    """A rate's text with its mark behind the value, before the interval."""
    value, blank, between = rate.partition(" ")
    return f"{value}{mark}{blank}{between}"


# ---------------------------------------------------------------- HTML and Markdown


def visible(text: str) -> str:
    """A text as it may be shown: what hides or reorders its neighbours, and what is no character, becomes a mark."""
    return "".join(char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in text)


def in_html(text: str) -> str:
    return html.escape(visible(text))


def table_html(table: Table) -> str:
    """The table without its frame."""
    head = "".join(f'<th scope="col">{in_html(name)}</th>' for name in table.head)
    body = "\n".join(f"<tr>{''.join(_cell_html(cell, is_first=k == 0) for k, cell in enumerate(row))}</tr>" for row in table.rows)
    return f"<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>"


def _cell_html(cell: Cell, *, is_first: bool) -> str:
    text = re.sub(r"(\[[-\d., ]+\])", r'<span class="between">\1</span>', in_html(cell.text))
    if is_first:
        return f'<th scope="row">{text}</th>'
    colour = "" if cell.level is None else f' class="v{cell.level}"'
    return f"<td{colour}>{text}</td>"


def table_markdown(table: Table) -> str:
    """The table with title and note, for GitHub."""
    lines = ["| " + " | ".join(map(in_markdown, table.head)) + " |", "|" + "---|" * len(table.head)]
    lines += ["| " + " | ".join(in_markdown(cell.text) for cell in row) + " |" for row in table.rows]
    return f"## {table.title}\n\n" + "\n".join(lines) + (f"\n\n{in_markdown(table.note)}" if table.note else "") + "\n"


def in_markdown(text: str) -> str:
    """Text that Markdown shows as it is, on one line."""
    flat = " ".join(visible(text).split())
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", flat).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
