"""Image families with a table or a bar chart: look a value up, find the largest, take a difference."""

from __future__ import annotations

from pixelis.core.geometry import Box
from pixelis.data.world.colours import Rgb, draw_rgb
from pixelis.data.world.fonts import text_cover
from pixelis.data.world.layouts import Crowded
from pixelis.data.world.raster import plate_cover
from pixelis.data.world.scene import Layer, Look, Thing
from pixelis.data.world.stills import OCR_ONLY
from pixelis.data.world.studio import Draft, Studio
from pixelis.data.world.words import draw_words, numbers_of

_INK: Rgb = (20, 20, 24)
_PAPER: Rgb = (246, 246, 242)
_RULE: Rgb = (206, 206, 202)


def table(studio: Studio) -> Draft:
    """One cell of a small table, or the row that has the most of something."""
    rng = studio.rng
    num_rows, num_cols = rng.integer(3, 6), rng.integer(2, 3)
    words = draw_words(rng, studio.split, num_rows + num_cols, max_letters=7)
    rows, cols = words[:num_rows], words[num_rows:]
    values = [[rng.choice(numbers_of(studio.split, 10, 999)) for _ in cols] for _ in rows]
    cap = studio.cap_px(8, 12)
    texts = [["", *cols]] + [[row, *map(str, line)] for row, line in zip(rows, values, strict=True)]
    placed, box = _draw_table(studio, texts, cap, studio.style.table)
    studio.add_distractors(rng.integer(0, 3), 24, 44)
    chain, hardness = (studio.ocr(box),), 0.5 + num_rows * num_cols / 36
    j = rng.integer(0, num_cols - 1)
    if rng.chance(0.3):
        column = sorted((line[j] for line in values), reverse=True)
        if column[0] - column[1] < 3:
            raise Crowded
        best = next(i for i, line in enumerate(values) if line[j] == column[0])
        question = studio.wording(
            f"Which row has the highest value of {cols[j].lower()}?",
            f"In the table, who has the most {cols[j].lower()}?",
            f"Which row leads in the column {cols[j].lower()}?",
        )
        cells = [placed[(i + 1, j + 1)] for i in range(num_rows)] + [placed[(best + 1, 0)]]
        answer, kind, wrong = rows[best].lower(), "text", tuple(r.lower() for i, r in enumerate(rows) if i != best)
    else:
        i = rng.integer(0, num_rows - 1)
        row, col = rows[i].lower(), cols[j].lower()
        question = studio.wording(
            f"What is the value of {col} for {row}?",
            f"In the table, what is the {col} of {row}?",
            f"Look up {row} in the table: what is in the column {col}?",
            f"Which number stands in row {row}, column {col}?",
        )
        cells = [placed[(i + 1, j + 1)], placed[(i + 1, 0)], placed[(0, j + 1)]]
        others = dict.fromkeys(str(v) for line in values for v in line)
        answer, kind = str(values[i][j]), "number"
        wrong = tuple(v for v in rng.shuffled(list(others)) if v != answer)
    return Draft(question, answer, kind, wrong, chain, OCR_ONLY, tuple((0, studio.box(c)) for c in cells), hardness=hardness)


def _draw_table(studio: Studio, texts: list[list[str]], cap: int, style: str) -> tuple[dict[tuple[int, int], int], Box]:
    """Draw a table; numbers of its text things by (row, column), and the card's box."""
    rng = studio.rng
    widths = [
        max(text_cover(row[j], studio.font, cap).shape[1] if row[j] else 0 for row in texts) + 2 * rng.integer(8, 14)
        for j in range(len(texts[0]))
    ]
    tall = cap + 2 * rng.integer(6, 10)
    width, height = sum(widths) + 8, tall * len(texts) + 8
    ink, paper = (_PAPER, (40, 42, 54)) if style == "night" else (_INK, _PAPER)
    soft = tuple((a + 3 * b) // 4 for a, b in zip(ink, paper, strict=True))
    lefts = [4 + sum(widths[:j]) for j in range(len(widths) + 1)]
    level = [Layer(plate_cover(width - 8, 1), ink, 4, 4 + i * tall) for i in range(len(texts) + 1)]
    upright = [Layer(plate_cover(1, height - 8), ink, x, 4) for x in lefts]
    head = Layer(plate_cover(width - 8, tall), soft, 4, 4)
    lines = {
        "lines": (*level, *upright),
        "zebra": tuple(Layer(plate_cover(width - 8, tall), soft, 4, 4 + i * tall) for i in range(1, len(texts), 2)),
        "plain": (level[1],),
        "header": (head, level[0], level[-1]),
        "rules": tuple(level),
        "boxed": (head, level[0], level[1], level[-1], upright[0], upright[1], upright[-1]),
        "night": (level[1], upright[1]),
    }[style]
    x, y = studio.placer.place(width, height)
    studio.scene.add(
        Thing("panel", [(0, Look((Layer(plate_cover(width, height), paper), *lines), "white" if paper == _PAPER else "black"))], [(x, y)])
    )
    placed = {}
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            if text:
                cover = text_cover(text, studio.font, cap)
                dx = 8 if j == 0 else widths[j] - cover.shape[1] - 8
                placed[(i, j)] = studio.add_text(text, cap, x + lefts[j] + dx, y + 4 + i * tall + (tall - cover.shape[0] + 1) // 2, ink)
    return placed, Box(x, y, x + width, y + height)


def chart(studio: Studio) -> Draft:
    """A bar's value, the label of the highest or lowest bar, or the difference of two bars."""
    rng = studio.rng
    num = rng.integer(4, 6)
    labels = draw_words(rng, studio.split, num, max_letters=6)
    values = rng.sample(numbers_of(studio.split, 10, 250), num)
    ordered = sorted(values)
    if ordered[-1] - ordered[-2] < 4 or ordered[1] - ordered[0] < 4:
        raise Crowded
    texts, bars, box = _draw_chart(studio, labels, values, studio.cap_px(8, 12), studio.style.chart)
    studio.add_distractors(rng.integer(0, 2), 24, 40)
    chain = (studio.ocr(box),)
    way = rng.choice(("value", "value", "best", "difference"))
    i, j = rng.sample(range(num), 2)
    if way == "value":
        name = labels[i].lower()
        question = studio.wording(
            f"What is the value of the bar {name}?",
            f"In the chart, how much is {name}?",
            f"Which value does the chart give for {name}?",
            f"Read the bar labelled {name}. What is its value?",
        )
        answer, kind, seen = str(values[i]), "number", (i,)
        wrong = tuple(str(v) for v in rng.shuffled(values) if v != values[i])
    elif way == "best":
        is_high = rng.chance(0.6)
        i = values.index(ordered[-1] if is_high else ordered[0])
        word = ("highest", "longest", "largest") if is_high else ("lowest", "shortest", "smallest")
        question = studio.wording(
            f"Which bar has the {word[0]} value?", f"Which label belongs to the {word[1]} bar?", f"What is the {word[2]} bar called?"
        )
        answer, kind, seen = labels[i].lower(), "text", (i,)
        wrong = tuple(label.lower() for label in rng.shuffled(labels) if label != labels[i])
    else:
        i, j = (i, j) if values[i] > values[j] else (j, i)
        question = studio.wording(
            f"How much more is {labels[i].lower()} than {labels[j].lower()} in the chart?",
            f"What is the difference between the bars {labels[i].lower()} and {labels[j].lower()}?",
        )
        gap = values[i] - values[j]
        answer, kind, seen = str(gap), "number", (i, j)
        wrong = tuple(str(v) for v in dict.fromkeys((gap + 10, gap + 2, gap + 5, values[i], values[j])) if v != gap)
    boxes = tuple((0, studio.box(n)) for k in seen for n in (*texts[k], bars[k]))
    return Draft(question, answer, kind, wrong, chain, OCR_ONLY, boxes, hardness=0.4 + num / 12 + (0.2 if way == "difference" else 0))


def _draw_chart(studio: Studio, labels: list[str], values: list[int], cap: int, style: str) -> tuple[list[tuple[int, int]], list[int], Box]:
    """Draw a bar chart; per bar the numbers of its label and value, the bars' numbers, and the card's box."""
    rng = studio.rng
    kind, _, manner = style.partition("-")
    covers = [(text_cover(a, studio.font, cap), text_cover(str(v), studio.font, cap)) for a, v in zip(labels, values, strict=True)]
    widest = max(c.shape[1] for pair in covers for c in pair)
    reach = rng.integer(110, 180)
    lengths = [max(3, v * reach // max(values)) for v in values]
    step = (widest + rng.integer(10, 16)) if kind == "upright" else cap + rng.integer(14, 20)
    thick = step * rng.integer(45, 65) // 100
    if kind == "upright":
        width, height = step * len(values) + 20, reach + 2 * cap + 44
    else:
        width, height = reach + 2 * widest + 44, step * len(values) + 20
    x, y = studio.placer.place(width, height)
    border = (Layer(plate_cover(width, height, 0, 1), _INK),) if manner == "framed" else ()
    if manner == "ruled":  # faint lines at quarters of the longest bar; such charts lie
        border = tuple(Layer(plate_cover(1, height - 12), _RULE, widest + 16 + q * reach // 4, 6) for q in range(1, 5))
    axis = (
        Layer(plate_cover(width - 16, 1), _INK, 8, 14 + cap + reach + 6)
        if kind == "upright"
        else Layer(plate_cover(1, height - 12), _INK, widest + 15, 6)
    )
    studio.scene.add(Thing("panel", [(0, Look((Layer(plate_cover(width, height), _PAPER), axis, *border), "white"))], [(x, y)]))
    names = [rng.choice(("blue", "green", "purple", "orange", "red"))] * len(values) if manner == "mono" else None
    texts, bars = [], []
    for k, ((label, value), length) in enumerate(zip(covers, lengths, strict=True)):
        colour = names[k] if names else rng.choice(("blue", "green", "purple", "orange", "red", "cyan", "pink"))
        if kind == "upright":
            mid, base = x + 10 + step * k + step // 2, y + 14 + cap + reach + 6
            bar, bar_x, bar_y = plate_cover(thick, length), mid - thick // 2, base - length
            at_label, at_value = (mid - label.shape[1] // 2, base + 7), (mid - value.shape[1] // 2, bar_y - value.shape[0] - 3)
        else:
            mid, base = y + 10 + step * k + step // 2, x + widest + 16
            bar, bar_x, bar_y = plate_cover(length, thick), base, mid - thick // 2
            at_label, at_value = (base - 7 - label.shape[1], mid - label.shape[0] // 2), (base + length + 5, mid - value.shape[0] // 2)
        look = Look((Layer(bar, draw_rgb(rng, colour)),), colour, "bar", labels[k].lower())
        bars.append(studio.scene.add(Thing("bar", [(0, look)], [(bar_x, bar_y)])))
        texts.append((studio.add_text(labels[k], cap, *at_label, _INK), studio.add_text(str(values[k]), cap, *at_value, _INK)))
    return texts, bars, Box(x, y, x + width, y + height)
