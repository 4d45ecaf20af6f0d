"""Figures of a journal, as SVG. The same rows give the same bytes."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pixelis.core.errors import NotInstalled
from pixelis.core.ops import OPS
from pixelis.serve.report.journals import Journal
from pixelis.serve.report.panels import FIGURES, MAX_OTHERS, Panel, chosen_of, others, unknown
from pixelis.serve.report.series import Series, all_series, columns, smooth, window

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#000000", "#56b4e9", "#e69f00", "#8c510a")
"""Told apart by the colour-blind too (Okabe and Ito); yellow, which is faint on white, is left out."""
PANEL_IN = (3.62, 2.95)
"""Width and height of a panel in inches; a figure has up to three side by side, which is 1,043 pixels."""
FEW_POINTS = 200
"""Up to so many, single values are dots; a line above."""
STYLE = {
    "svg.hashsalt": "pixelis", "svg.fonttype": "path", "text.parse_math": False, "font.size": 9.0,
    "axes.titlesize": 9.5, "axes.titleweight": "bold", "axes.titlelocation": "left", "axes.labelsize": 8.5,
    "xtick.labelsize": 8.0, "ytick.labelsize": 8.0, "legend.fontsize": 8.0, "axes.formatter.useoffset": False,
    "axes.grid": True, "grid.color": "#e3e6ec", "grid.linewidth": 0.7, "axes.axisbelow": True,
    "axes.spines.top": False, "axes.spines.right": False, "axes.edgecolor": "#7d8594", "xtick.color": "#4a5160", "ytick.color": "#4a5160",
    "figure.constrained_layout.use": True, "figure.constrained_layout.h_pad": 0.06, "figure.constrained_layout.w_pad": 0.06,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Figure:
    title: str
    svg: str
    words: str
    """What is drawn, for those who do not see it."""
    note: str
    """What was done to the values."""
    width_px: int
    height_px: int


def figures(journal: Journal) -> list[Figure]:
    """All figures of a journal; none when it holds no number.

    Raises:
        NotInstalled: matplotlib is missing.
    """
    series = all_series(journal.rows, journal.counter)
    drawn = []
    for title, panels in {**FIGURES, "Other": others(series)}.items():
        present = [(panel, chosen_of(panel, series)) for panel in panels if chosen_of(panel, series)]
        if present:
            drawn.append(_figure(title, present, series, journal.counter))
    return drawn


def num_left_out(journal: Journal) -> int:
    """Numbers of a journal that are on no figure, since there are too many of them."""
    return max(0, len(unknown(all_series(journal.rows, journal.counter))) - MAX_OTHERS)


# ---------------------------------------------------------------- drawing


def _figure(title: str, present: Sequence[tuple[Panel, dict[str, Series]]], series: dict[str, Series], counter: str) -> Figure:
    try:
        import matplotlib
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure as Canvas
    except ImportError:
        raise NotInstalled("matplotlib", "pip install 'pixelis[report]'") from None
    is_tall = any(panel.kind == "families" for panel, _ in present)
    num_columns = len(present) if is_tall else min(3, len(present))
    num_rows = -(-len(present) // num_columns)
    size = PANEL_IN[0] * (3 if is_tall else num_columns), PANEL_IN[1] * (1.35 if is_tall else num_rows)
    notes: dict[str, list[str]] = {}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(STYLE)
        canvas = Canvas(figsize=size)
        FigureCanvasSVG(canvas)
        places = list(canvas.subplots(num_rows, num_columns, squeeze=False).flat)
        for axes in places[len(present) :]:
            axes.set_visible(False)
        for axes, (panel, chosen) in zip(places, present, strict=False):
            axes.set_title(_label(panel.title))
            for note in dict.fromkeys(_DRAW[panel.kind](axes, panel, chosen, series, counter)):
                notes.setdefault(note, []).append(panel.title)
        text = io.StringIO()
        canvas.savefig(text, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    svg = text.getvalue()
    words = "; ".join(f"{panel.title}: {', '.join(chosen)}" for panel, chosen in present)
    note = "; ".join(note if len(notes) == 1 else f"{', '.join(panels)}: {note}" for note, panels in notes.items())
    return Figure(
        title=title, svg=svg[svg.index("<svg") :], words=words, note=note, width_px=round(size[0] * 96), height_px=round(size[1] * 96)
    )


def _lines(axes: Any, panel: Panel, chosen: dict[str, Series], series: dict[str, Series], counter: str) -> Iterator[str]:
    if panel.is_log:
        axes.set_yscale("log")
        values = np.concatenate([one.y_R[one.y_R > 0] for one in chosen.values()])
        if values.size and values.min() == values.max():
            axes.set_ylim(values[0] / 2, values[0] * 2)  # a logarithmic axis finds no range of its own around one value
    if panel.band:
        axes.axhspan(*panel.band, color="#d9ead3", label=f"corridor {panel.band[0]:.2f} to {panel.band[1]:.2f}", zorder=0)
    if panel.is_diagram:
        axes.plot([0, 1], [0, 1], ":", color="#7d8594", linewidth=1.0, label="as sure as right")
    over = series.get(panel.over)
    for number, (key, one) in enumerate(_together(chosen)):
        one = _above_zero(one) if panel.is_log else one
        x_R = one.x_R if over is None else np.interp(one.x_R, over.x_R, over.y_R)
        colour, dash = PALETTE[number % len(PALETTE)], "-" if number < len(PALETTE) else "--"
        few = len(one.y_R) <= FEW_POINTS
        axes.plot(
            x_R, one.y_R, linestyle="none" if few else "-", marker="." if few else "", markersize=3, linewidth=0.5, color=colour, alpha=0.35
        )
        num = window(len(one.y_R))
        axes.plot(x_R, smooth(one.y_R, num), dash, linewidth=1.7, color=colour, label=_label(key))
        single = "single rows as dots" if few else "single rows thin"
        yield f"{single}, mean of {num} rows around each thick" if num > 1 else "single rows, not smoothed"
    _dress(axes, panel, counter)


def _together(chosen: dict[str, Series]) -> list[tuple[str, Series]]:
    """Series by label; those that are the same stand under one, for the last would hide the others."""
    found: dict[tuple[bytes, bytes], tuple[list[str], Series]] = {}
    for key, one in chosen.items():
        found.setdefault((one.x_R.tobytes(), np.round(one.y_R, 9).tobytes()), ([], one))[0].append(key)
    return [(", ".join(keys), one) for keys, one in found.values()]


def _above_zero(one: Series) -> Series:
    """For a logarithmic axis, which has no place for 0."""
    return replace(one, y_R=np.where(one.y_R > 0, one.y_R, math.nan))


def _shares(axes: Any, panel: Panel, chosen: dict[str, Series], series: dict[str, Series], counter: str) -> Iterator[str]:
    names = [op for op in OPS if op in chosen] + [name for name in chosen if name not in OPS]
    x_R = chosen[names[0]].x_R
    num = window(len(x_R))
    stack = [smooth(np.interp(x_R, chosen[n].x_R, chosen[n].y_R), num) for n in names]
    axes.stackplot(
        x_R, stack, labels=[_label(name) for name in names], colors=[PALETTE[k % len(PALETTE)] for k in range(len(names))], linewidth=0
    )
    _dress(axes, panel, counter)
    yield f"mean of {num} rows around each" if num > 1 else "single rows, not smoothed"


def _families(axes: Any, panel: Panel, chosen: dict[str, Series], series: dict[str, Series], counter: str) -> Iterator[str]:
    starts, picture, each = columns(dict(sorted(chosen.items())))
    image = axes.imshow(picture, aspect="auto", interpolation="none", cmap="cividis")
    axes.figure.colorbar(image, ax=axes, label=panel.unit, pad=0.02)
    axes.set_yticks(range(len(chosen)), [_label(name) for name in sorted(chosen)])
    shown = range(0, len(starts), max(1, len(starts) // 8))
    axes.set_xticks(shown, [f"{starts[k]:g}" for k in shown])
    axes.set_xlabel(counter if each == 1 else f"{counter} at which a column begins")
    axes.grid(False)
    axes.tick_params(length=0)
    yield f"{f'a column is the mean of {each} rows' if each > 1 else 'a column is a row'}, white where nothing is known"


_DRAW = {"lines": _lines, "shares": _shares, "families": _families}


def _dress(axes: Any, panel: Panel, counter: str) -> None:
    """Axes and legend; the legend stands below, where it covers nothing."""
    axes.set_xlabel({"spent": "rollouts spent", "": counter}.get(panel.over, panel.over))
    axes.set_ylabel(panel.unit)
    if panel.over in ("", "spent"):
        axes.locator_params(axis="x", integer=True)
    if panel.is_log:
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
        low, high = axes.get_ylim()
        between = "123456789" if high < 4 * low else "25" if high < 40 * low else ""  # a narrow axis may hold no power of ten
        axes.yaxis.set_minor_formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in between else "")
    if panel.is_share:
        axes.set_ylim(-0.02, 1.02)
    if panel.is_diagram:
        axes.set_xlim(-0.02, 1.02)
    handles, labels = axes.get_legend_handles_labels()
    if len(labels) > 1:
        rows = min(4, len(labels)) if max(map(len, labels)) < 12 else 2
        axes.legend(
            handles, labels, loc="upper center", bbox_to_anchor=(0.45, -0.2), ncols=rows, frameon=False, handlelength=1.2, columnspacing=1.0
        )


def _label(text: str) -> str:
    """A name from a file for a figure: short, in letters that the figures' own font has, and never one that matplotlib hides."""
    plain = "".join(char if " " <= char <= "~" else "?" for char in text[:40])
    return f" {plain}" if plain.startswith("_") else plain
