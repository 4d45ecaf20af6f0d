"""A picture of one result on its frame: masks, boxes, paths, texts and times drawn over what the tool looked at."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw

from pixelis.core.errors import DataError
from pixelis.core.geometry import Box
from pixelis.core.media import Medium
from pixelis.core.ops import OcrOutput, Output, PropOutput, SegOutput, TempOutput, TrackPoint, TrkOutput, ZoomOutput
from pixelis.serve.sheet import GAP_PX, GROUND, HALO, INK, PAD_PX, SOFT, TEXT_PX, Sheet, cut, fit, font, paste, text_pill

COLOURS = {
    "SEG": (47, 212, 182),
    "ZOOM": (255, 194, 51),
    "TRK": (213, 139, 255),
    "OCR": (95, 176, 255),
    "TEMP": (255, 138, 104),
    "PROP": (164, 224, 95),
}
NUM_STRIP_FRAMES = 6
MIN_SIDE_PX = 320
"""A smaller picture is drawn at this size and shrunk: strips, bars and labels need room."""


def picture(medium: Medium, output: Output | None, *, frame: int | None = None, max_side: int = 1280) -> np.ndarray:
    """Draw what a step found.

    Args:
        output: the result; None draws the frame alone.
        frame: which frame to show; None shows the one with the evidence.
        max_side: no side of the picture is longer, in pixels; at least 64.
    Returns:
        RGB uint8 [height, width, 3]; a track and a time segment have a strip of frames below, dense text a list beside.
    Raises:
        ToolError: there is no such frame.
        DataError: the frame cannot be decoded.
    """
    if max_side < 64:
        raise ValueError(f"max_side must be at least 64, got {max_side}")
    shown = home_frame(medium, output) if frame is None else frame
    if output is None:
        return Sheet(medium, shown, max_side, max_side).image
    drawn = _DRAW[output.op](medium, output, shown, max(max_side, MIN_SIDE_PX))
    height, width = drawn.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return drawn
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return cv2.resize(drawn, size, interpolation=cv2.INTER_AREA)


def home_frame(medium: Medium, output: Output | None) -> int:
    """The frame on which a result is best seen."""
    match output:
        case None:
            return 0
        case TrkOutput():
            seen = output.visible or output.points
            return seen[0].frame if seen else 0
        case TempOutput():
            if not output.segments:
                return output.first_frame
            best = output.segments[0].span
            return int(np.abs(medium.times_s - (best.start_s + best.end_s) / 2).argmin())
        case _:
            return output.frame


# ---------------------------------------------------------------- one op each


def _is_elsewhere(medium: Medium, output: SegOutput | ZoomOutput | OcrOutput | PropOutput, shown: int, max_side: int) -> np.ndarray | None:
    """The frame with a word about where the evidence is, when that is another frame."""
    if shown == output.frame:
        return None
    sheet = Sheet(medium, shown, max_side, max_side)
    sheet.label(Box(0, 0, 1, 1), f"{output.op} looked at frame {output.frame}, not {shown}", COLOURS[output.op])
    return sheet.image


def _draw_seg(medium: Medium, output: SegOutput, shown: int, max_side: int) -> np.ndarray:
    if (elsewhere := _is_elsewhere(medium, output, shown, max_side)) is not None:
        return elsewhere
    sheet = Sheet(medium, shown, max_side, max_side)
    sheet.mask(output.mask.to_array(), COLOURS["SEG"])
    sheet.box(output.box, COLOURS["SEG"])
    sheet.label(output.box, f"SEG {output.score:.2f}", COLOURS["SEG"])
    return sheet.image


def _draw_zoom(medium: Medium, output: ZoomOutput, shown: int, max_side: int) -> np.ndarray:
    if (elsewhere := _is_elsewhere(medium, output, shown, max_side)) is not None:
        return elsewhere
    sheet = Sheet(medium, shown, max_side, max_side)
    x0, y0, x1, y1 = output.box.pixels(width=medium.width, height=medium.height)
    crop = medium.frame(shown)[y0:y1, x0:x1]
    if not crop.size:
        raise DataError(f"the ZOOM box {output.box} misses the {medium.width}x{medium.height} frame")
    at = sheet.on_sheet(output.box)
    inset, place = _inset(sheet, crop, at)
    if inset is None:  # the box leaves no corner free: show the crop beside the frame
        return _zoom_beside(medium, output, crop, shown, max_side)
    left, top, right, bottom = (round(v) for v in at.as_tuple())
    bright = sheet.image[top:bottom, left:right].copy()
    sheet.image = (sheet.image * 0.62).astype(np.uint8)
    for a, b in (((at.x0, at.y1), (place.x0, place.y1)), ((at.x1, at.y0), (place.x1, place.y0))):
        sheet.path([(x / sheet.scale_x, y / sheet.scale_y) for x, y in (a, b)], COLOURS["ZOOM"])
    paste(sheet.image, bright, left, top)  # the lines end at the box's edge
    paste(sheet.image, inset, round(place.x0), round(place.y0))
    sheet.box(output.box, COLOURS["ZOOM"])
    sheet.label(output.box, f"ZOOM {output.width} x {output.height}", COLOURS["ZOOM"])
    return sheet.image


def _inset(sheet: Sheet, crop: np.ndarray, at: Box) -> tuple[np.ndarray | None, Box]:
    """The crop enlarged, framed, and the corner where it hides least; None when it would hide the box."""
    scale = min(0.46 * sheet.width / crop.shape[1], 0.46 * sheet.height / crop.shape[0])
    image = _framed(fit(crop, max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale))), COLOURS["ZOOM"])
    height, width = image.shape[:2]
    gap = 10
    lefts, tops = (gap, sheet.width - width - gap), (gap, sheet.height - height - gap)
    places = [Box(x, y, x + width, y + height) for x in lefts for y in tops]
    best = min(places, key=lambda p: (p.intersect(at.grow(4)).area, -abs(p.centre[0] - at.centre[0]) - abs(p.centre[1] - at.centre[1])))
    is_hidden = best.intersect(at.grow(4)).area > 0 or best.x0 < 0 or best.y0 < 0
    return (None if is_hidden else image), best


def _zoom_beside(medium: Medium, output: ZoomOutput, crop: np.ndarray, shown: int, max_side: int) -> np.ndarray:
    sheet = Sheet(medium, shown, (max_side - GAP_PX) / 2, max_side)
    sheet.box(output.box, COLOURS["ZOOM"])
    sheet.label(output.box, f"ZOOM {output.width} x {output.height}", COLOURS["ZOOM"])
    scale = min((max_side - GAP_PX) / 2 / crop.shape[1], sheet.height / crop.shape[0])
    image = fit(crop, max(1, round(crop.shape[1] * scale)), max(1, round(crop.shape[0] * scale)))
    page = np.full((max(sheet.height, image.shape[0]), sheet.width + GAP_PX + image.shape[1], 3), GROUND, np.uint8)
    paste(page, sheet.image, 0, 0)
    paste(page, image, sheet.width + GAP_PX, (page.shape[0] - image.shape[0]) // 2)
    return page


def _framed(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    inner = cv2.copyMakeBorder(image, 2, 2, 2, 2, cv2.BORDER_CONSTANT, value=colour)
    return cv2.copyMakeBorder(inner, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=HALO)


def _draw_ocr(medium: Medium, output: OcrOutput, shown: int, max_side: int) -> np.ndarray:
    if (elsewhere := _is_elsewhere(medium, output, shown, max_side)) is not None:
        return elsewhere
    sheet = Sheet(medium, shown, max_side, max_side)
    sheet.box(output.box, SOFT, line_px=1)
    for span in output.spans:
        sheet.box(span.box, COLOURS["OCR"], line_px=2)
        sheet.taken.append(sheet.on_sheet(span.box))  # a label may not hide another text
    if not output.spans:
        sheet.label(output.box, "OCR: no text", COLOURS["OCR"])
    if all(sheet.label(span.box, span.text, COLOURS["OCR"], must=False) for span in output.spans):
        return sheet.image
    return _ocr_list(medium, output, shown, max_side)


def _ocr_list(medium: Medium, output: OcrOutput, shown: int, max_side: int) -> np.ndarray:
    """Numbered boxes, and the texts in a list beside the frame: for a page with more text than room between it."""
    width = min(420, max_side // 3)
    sheet = Sheet(medium, shown, max_side - width, max_side)
    for number, span in enumerate(output.spans, 1):
        sheet.box(span.box, COLOURS["OCR"], line_px=1)
        at = sheet.on_sheet(span.box)
        tag = text_pill(str(number), COLOURS["OCR"], max_width=sheet.width)[4:-3, 5:-4]
        paste(sheet.image, tag, round(max(0, at.x0 - tag.shape[1])), round(at.y0))
    row_px = TEXT_PX + 8
    height = max(sheet.height, min(max_side, row_px * len(output.spans) + 2 * PAD_PX))
    page = Image.new("RGB", (sheet.width + width, height), GROUND)
    page.paste(Image.fromarray(sheet.image), (0, 0))
    draw = ImageDraw.Draw(page)
    num_rows = max(1, (height - 2 * PAD_PX) // row_px)
    num_shown = len(output.spans) if len(output.spans) <= num_rows else num_rows - 1
    rows = [(str(i), span.text) for i, span in enumerate(output.spans[:num_shown], 1)]
    if num_shown < len(output.spans):
        rows.append(("", f"and {len(output.spans) - num_shown} more"))
    for row, (number, text) in enumerate(rows):
        y = PAD_PX + row * row_px + row_px / 2
        draw.text((sheet.width + 34, y), number, fill=COLOURS["OCR"], font=font(TEXT_PX), anchor="rm")
        draw.text((sheet.width + 44, y), cut(text, width - 44 - PAD_PX), fill=INK, font=font(TEXT_PX), anchor="lm")
    return np.asarray(page)


def _draw_prop(medium: Medium, output: PropOutput, shown: int, max_side: int) -> np.ndarray:
    if (elsewhere := _is_elsewhere(medium, output, shown, max_side)) is not None:
        return elsewhere
    sheet = Sheet(medium, shown, max_side, max_side)
    sheet.box(output.box, COLOURS["PROP"])
    at = sheet.on_sheet(output.box)
    texts = []
    for attribute in output.attributes:
        value = f"{attribute.value:.4g}" if isinstance(attribute.value, float) else str(attribute.value)
        texts.append(f"{attribute.name}: {value}{f' {attribute.unit}' if attribute.unit else ''}  ({attribute.confidence:.2f})")
    if not texts:
        return sheet.image
    pills = [text_pill(text, COLOURS["PROP"], max_width=sheet.width) for text in texts]
    block = _stacked(pills)
    height, width = block.shape[:2]
    left = min(max(0.0, at.x0), max(0.0, sheet.width - width))
    places = [(left, at.y0 - height - 4), (left, at.y1 + 4), (at.x1 + 4, at.y0), (at.x0 - width - 4, at.y0)]
    inside = [(x, y) for x, y in places if x >= 0 and y >= 0 and x + width <= sheet.width and y + height <= sheet.height]
    x, y = inside[0] if inside else (left, max(0.0, sheet.height - height))
    paste(sheet.image, block, round(x), round(y))
    return sheet.image


def _stacked(pills: Sequence[np.ndarray]) -> np.ndarray:
    width = max(pill.shape[1] for pill in pills)
    block = np.full((sum(pill.shape[0] for pill in pills), width, 3), GROUND, np.uint8)
    y = 0
    for pill in pills:
        paste(block, pill, 0, y)
        y += pill.shape[0]
    return block


# ---------------------------------------------------------------- what lies in time


def _draw_trk(medium: Medium, output: TrkOutput, shown: int, max_side: int) -> np.ndarray:
    colour = COLOURS["TRK"]
    strip = _spread(output.visible, NUM_STRIP_FRAMES)
    sheet = Sheet(medium, shown, max_side, _height_above_strip(medium, len(strip), max_side))
    seen = output.visible
    for run in _runs(output.points):
        if len(run) > 1:
            sheet.path([p.box.centre for p in run if p.box is not None], colour)
    for point in {p.frame: p for p in (*seen[:1], *seen[-1:])}.values():
        sheet.box(point.box, colour, line_px=max(1, sheet.line_px - 1))
    here = next((p for p in seen if p.frame == shown), None)
    if here is not None:
        sheet.box(here.box, colour)
        sheet.label(here.box, f"TRK #{output.track_id}  {here.score:.2f}", colour)
    if len(seen) > 1 and seen[-1].frame != shown:
        sheet.label(seen[-1].box, f"{seen[-1].time_s:.1f} s", colour, must=False)
    if not seen:
        sheet.label(Box(0, 0, 1, 1), f"TRK #{output.track_id}: never visible", colour)
    return _above(sheet.image, _film(medium, [(p.frame, p.box) for p in strip], sheet.width, colour)) if strip else sheet.image


def _draw_temp(medium: Medium, output: TempOutput, shown: int, max_side: int) -> np.ndarray:
    colour = COLOURS["TEMP"]
    frames = medium.sample(NUM_STRIP_FRAMES)
    bar_px = 3 * TEXT_PX + 10
    sheet = Sheet(medium, shown, max_side, _height_above_strip(medium, len(frames), max_side) - bar_px)
    if output.box is not None:
        sheet.box(output.box, colour)
    text = f"TEMP {output.event}"
    text += f": {output.segments[0].start_s:.1f} - {output.segments[0].end_s:.1f} s" if output.segments else ": nowhere"
    sheet.label(output.box or Box(0, 0, 1, 1), text, colour)
    film = _film(medium, [(index, None) for index in frames], sheet.width, colour)
    return _above(_above(sheet.image, film), _time_bar(medium, output, shown, sheet.width, bar_px))


def _time_bar(medium: Medium, output: TempOutput, shown: int, width: int, height: int) -> np.ndarray:
    """The whole medium from left to right: the window looked at, the segments (best brightest), the frame shown."""
    image = Image.new("RGB", (width, height), GROUND)
    draw = ImageDraw.Draw(image)
    end_s = max(medium.duration_s, 1e-9)
    times = medium.times_s

    def x_at(time_s: float) -> float:
        return PAD_PX + min(max(time_s / end_s, 0.0), 1.0) * (width - 2 * PAD_PX)

    top, bottom = 6, 6 + TEXT_PX
    draw.rounded_rectangle((PAD_PX, top, width - PAD_PX, bottom), 4, fill=(38, 43, 54))
    window = [x_at(float(times[min(max(i, 0), len(times) - 1)])) for i in (output.first_frame, output.last_frame)]
    draw.rounded_rectangle((window[0], top, max(window[1], window[0] + 1), bottom), 4, fill=(72, 80, 97))
    for rank, segment in reversed(list(enumerate(output.segments))):
        fill = COLOURS["TEMP"] if rank == 0 else tuple(round(0.55 * c) for c in COLOURS["TEMP"])
        left = x_at(segment.start_s)
        draw.rounded_rectangle((left, top, max(x_at(segment.end_s), left + 3), bottom), 3, fill=fill)
    now = x_at(float(times[shown]))
    draw.rectangle((now - 1, top - 4, now + 1, bottom + 4), fill=INK)
    y = bottom + 4 + TEXT_PX
    draw.text((PAD_PX, y), "0.0 s", fill=SOFT, font=font(TEXT_PX), anchor="lm")
    draw.text((width - PAD_PX, y), f"{medium.duration_s:.1f} s", fill=SOFT, font=font(TEXT_PX), anchor="rm")
    draw.text((width / 2, y), cut(f"shown: {times[shown]:.1f} s", width - 120), fill=INK, font=font(TEXT_PX), anchor="mm")
    return np.asarray(image)


def _film(medium: Medium, frames: Sequence[tuple[int, Box | None]], width: int, colour: tuple[int, int, int]) -> np.ndarray:
    """Small frames side by side, each with its box and time."""
    each = (width - GAP_PX * (len(frames) - 1)) / len(frames)
    tiles = []
    for index, box in frames:
        scale = each / medium.width
        tile = fit(medium.frame(index), max(1, int(each)), max(1, round(medium.height * scale)))
        if box is not None:
            corners = [(round(box.x0 * scale), round(box.y0 * scale)), (round(box.x1 * scale) - 1, round(box.y1 * scale) - 1)]
            cv2.rectangle(tile, *corners, HALO, 4, cv2.LINE_AA)
            cv2.rectangle(tile, *corners, colour, 2, cv2.LINE_AA)
        tiles.append((tile, f"{medium.times_s[index]:.1f} s"))
    height = tiles[0][0].shape[0]
    image = Image.new("RGB", (width, GAP_PX + height + TEXT_PX + 8), GROUND)
    draw = ImageDraw.Draw(image)
    for number, (tile, time) in enumerate(tiles):
        x = round(number * (each + GAP_PX))
        image.paste(Image.fromarray(tile), (x, GAP_PX))
        draw.text((x + each / 2, GAP_PX + height + TEXT_PX / 2 + 4), time, fill=SOFT, font=font(TEXT_PX), anchor="mm")
    return np.asarray(image)


def _height_above_strip(medium: Medium, num_tiles: int, max_side: int) -> float:
    """How high the frame may be so that frame and strip together are no higher than `max_side`."""
    if not num_tiles:
        return max_side
    return max(16.0, (max_side - GAP_PX - TEXT_PX - 8) * num_tiles / (num_tiles + 1))


def _above(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
    return np.concatenate([top, bottom])


def _spread(points: Sequence[TrackPoint], count: int) -> list[TrackPoint]:
    if len(points) <= count:
        return list(points)
    return [points[round(i * (len(points) - 1) / (count - 1))] for i in range(count)]


def _runs(points: Sequence[TrackPoint]) -> list[list[TrackPoint]]:
    """The stretches in which a track is visible."""
    runs: list[list[TrackPoint]] = [[]]
    for point in points:
        if point.box is not None:
            runs[-1].append(point)
        elif runs[-1]:
            runs.append([])
    return runs


_DRAW = {
    "SEG": _draw_seg,
    "ZOOM": _draw_zoom,
    "TRK": _draw_trk,
    "OCR": _draw_ocr,
    "TEMP": _draw_temp,
    "PROP": _draw_prop,
}
