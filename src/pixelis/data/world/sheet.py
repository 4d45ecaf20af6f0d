"""The contact sheet: thumbnails with the truth drawn on, the question and the answer under each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pixelis.core.errors import DataError
from pixelis.data.world.item import Item
from pixelis.data.world.items import frames
from pixelis.data.world.splits import read_items

_THUMB = (400, 300)
_TEXT_PX = 128
_GAP = 10


def contact_sheet(source: str | Path | Iterable[Item], path: str | Path, *, num_items: int = 24, columns: int = 4) -> Path:
    """Write a PNG that shows items as a person would check them.

    Green: evidence. White: other things of the truth. Of a video the frame of its first evidence, and tracks as dotted lines.

    Args:
        source: a split's folder, or items.

    Raises:
        DataError: there is nothing to show, or the split is damaged.
    """
    items = list(itertools.islice(read_items(source) if isinstance(source, (str, Path)) else source, num_items))
    if not items:
        raise DataError(f"{source}: no item to show")
    columns = min(columns, len(items))
    cell_w, cell_h = _THUMB[0] + _GAP, _THUMB[1] + _TEXT_PX
    sheet = Image.new("RGB", (columns * cell_w + _GAP, -(-len(items) // columns) * cell_h + _GAP), (250, 250, 250))
    for place, item in enumerate(items):
        x, y = _GAP + place % columns * cell_w, _GAP + place // columns * cell_h
        sheet.paste(_thumbnail(item), (x, y))
        _caption(ImageDraw.Draw(sheet), item, x, y + _THUMB[1] + 4)
    path = Path(path)
    sheet.save(path, "PNG")
    return path


def _thumbnail(item: Item) -> Image.Image:
    frame = item.evidence.boxes[0][0] if item.evidence.boxes else item.num_frames // 2
    picture = Image.fromarray(next(itertools.islice(frames(item), frame, None)))
    scale = min(_THUMB[0] / item.width, _THUMB[1] / item.height)
    picture = picture.resize((round(item.width * scale), round(item.height * scale)), Image.Resampling.BOX)
    draw = ImageDraw.Draw(picture)

    def outline(box, colour) -> None:
        draw.rectangle([box.x0 * scale - 2, box.y0 * scale - 2, box.x1 * scale + 1, box.y1 * scale + 1], outline=colour)

    for thing in item.truth.objects:
        box = thing.track[frame] if thing.track else thing.box
        if box is not None and thing.kind != "text":
            outline(box, (255, 255, 255))
        seen = [b.centre for b in thing.track if b is not None]
        if len(set(seen)) > 1:
            draw.point([(cx * scale + i, cy * scale + j) for cx, cy in seen for i, j in np.ndindex(2, 2)], fill=(255, 255, 0))
    for _, box in item.evidence.boxes:
        outline(box, (0, 230, 60))
    out = Image.new("RGB", _THUMB, (225, 225, 225))
    out.paste(picture, ((_THUMB[0] - picture.width) // 2, (_THUMB[1] - picture.height) // 2))
    return out


def _caption(draw: ImageDraw.ImageDraw, item: Item, x: int, y: int) -> None:
    font = ImageFont.load_default(13)
    size = f"{item.width}x{item.height}" + (f", {item.num_frames / item.fps:.1f} s at {item.fps}/s" if item.fps else "")
    options = "  ".join(f"{letter} {choice}" for letter, choice in zip("ABCDEFGH", item.choices, strict=False))
    chain = " ".join(call.op for call in item.chain) or "no tool"
    facts = f"{chain}; needs {', '.join(sorted(item.needs)) or 'nothing'}; {size}"
    lines = [*_wrap(item.question, font), *_wrap(options, font)][:4]
    lines += [
        f"= {item.answer}   [{item.family}, {item.difficulty:g}]",
        facts,
        f"{item.style.fonts[0]}, {item.style.background}, {item.style.layout}",
    ]
    for number, line in enumerate(lines):
        draw.text((x, y + 17 * number), line, fill=(0, 110, 0) if line.startswith("= ") else (20, 20, 20), font=font)


def _wrap(text: str, font: ImageFont.FreeTypeFont) -> list[str]:
    lines, line = [], ""
    for word in text.split():
        if line and font.getlength(f"{line} {word}") > _THUMB[0]:
            lines.append(line)
            line = word
        else:
            line = f"{line} {word}".strip()
    return [*lines, line] if line else lines
