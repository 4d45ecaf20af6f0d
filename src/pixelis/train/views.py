"""Views: pictures as a small model is shown them, kept as small files, so that learning to see does not draw them again and again.

A view is what `Vision.prepare` makes of a picture before it is cut into patches: scaled to the pixel budget, then to whole visual tokens.
Shape letters: H height, W width, C channels, P patches, N views.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Callable, Sequence
from concurrent.futures import as_completed
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pixelis.core.errors import DataError
from pixelis.core.geometry import Box
from pixelis.data.world.glances import Glances, Sight
from pixelis.policy.prompt import Prompting
from pixelis.rollout.teacher.hand import CARD_MARGIN, MARGIN, SIGN_MARGIN, grid_box
from pixelis.rollout.workers import workers

PATCH, MERGE = 16, 2
TOKEN_PX = PATCH * MERGE
SHARD = 400


def view_of(image_HWC: np.ndarray, prompting: Prompting, *, is_frame: bool = False) -> np.ndarray:
    """uint8 [H, W, 3], sides whole multiples of a visual token's, as the image processor resizes it."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

    shown = prompting.show(np.ascontiguousarray(image_HWC), is_frame=is_frame)
    height, width = smart_resize(*shown.shape[:2], factor=TOKEN_PX, min_pixels=TOKEN_PX**2, max_pixels=prompting.max_pixels)
    return np.asarray(Image.fromarray(shown).resize((width, height), Image.Resampling.BICUBIC))


def patches_of(view_HWC: np.ndarray) -> np.ndarray:
    """float32 [P, 3 * 16 * 16] in [-1, 1], in the processor's order: the four patches of a visual token stand together."""
    height, width = view_HWC.shape[0] // TOKEN_PX, view_HWC.shape[1] // TOKEN_PX
    cut = view_HWC.reshape(height, MERGE, PATCH, width, MERGE, PATCH, 3).transpose(0, 3, 1, 4, 6, 2, 5)
    return cut.reshape(height * width * MERGE * MERGE, -1).astype(np.float32) / 127.5 - 1.0


def grid_of(view_HWC: np.ndarray) -> tuple[int, int, int]:
    return 1, view_HWC.shape[0] // PATCH, view_HWC.shape[1] // PATCH


@dataclass(frozen=True)
class View:
    """A view with what can be seen in it."""

    pixels_HWC: np.ndarray
    things: tuple[Sight, ...]


def digest_of(views: Sequence[View]) -> str:
    """Tells views from others: 16 hexadecimal digits over their pixels and things."""
    seen = hashlib.sha256()
    for view in views:
        seen.update(view.pixels_HWC.tobytes())
        seen.update(repr(view.things).encode())
    return seen.hexdigest()[:16]


def make_views(
    folder: str | Path,
    num_views: int,
    prompting: Prompting,
    *,
    seed: int = 0,
    split: str = "train",
    is_cluttered: bool = False,
    num_workers: int = 2,
    per_shard: int = SHARD,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Draw glances and keep their views, in shards; shards that are there already are kept.

    Args:
        num_views: rounded up to whole shards.
        is_cluttered: the same scenes over clutter; see `Glances`.
        per_shard: views in one file; the same for all that is ever put into a folder.
        progress: called with (views there, views wanted).
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    count = -(-num_views // per_shard)
    missing = [k for k in range(count) if not _shard(folder, k).exists()]
    there = count - len(missing)
    with workers(num_workers) as pool:
        running = [
            pool.submit(_write_shard, range(k * per_shard, (k + 1) * per_shard), _shard(folder, k), seed, split, is_cluttered, prompting)
            for k in missing
        ]
        for done, future in enumerate(as_completed(running), 1):
            future.result()
            if progress:
                progress((there + done) * per_shard, count * per_shard)
    return folder


def read_views(folder: str | Path, *, shards: Sequence[int] | None = None) -> list[View]:
    """All views of a folder, or of some of its shards, in order.

    Raises:
        DataError: there are none, or a shard is damaged.
    """
    paths = sorted(Path(folder).glob("views-*.npz"))
    if not paths:
        raise DataError(f"{folder}: holds no views; make them first")
    found: list[View] = []
    for path in paths if shards is None else [paths[k] for k in shards]:
        try:
            with np.load(path) as data:
                pixels, sizes, rows, counts = (data[name] for name in ("pixels", "sizes", "things", "counts"))
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise DataError(f"{path}: cannot be read ({error}); delete it and make the views again") from None
        starts, places = np.cumsum([0, *(sizes.prod(axis=1) * 3)]), np.cumsum([0, *counts])
        for k, (height, width) in enumerate(sizes):
            things = tuple(Sight(tuple(map(float, row[:4])), int(row[4]), int(row[5])) for row in rows[places[k] : places[k + 1]])
            found.append(View(pixels[starts[k] : starts[k + 1]].reshape(height, width, 3), things))
    return found


def _shard(folder: Path, number: int) -> Path:
    return folder / f"views-{number:04d}.npz"


def _write_shard(numbers: range, path: Path, seed: int, split: str, is_cluttered: bool, prompting: Prompting) -> None:
    glances = Glances(seed, split=split, is_cluttered=is_cluttered)
    pixels, sizes, rows, counts = [], [], [], []
    for k in numbers:
        glance = glances.make(k)
        view = view_of(glance.image_HWC, prompting, is_frame=glance.is_frame)
        pixels.append(view.ravel())
        sizes.append(view.shape[:2])
        rows += [(*thing.box, thing.colour, thing.kind) for thing in glance.things]
        counts.append(len(glance.things))
    data = io.BytesIO()
    np.savez(
        data,
        pixels=np.concatenate(pixels),
        sizes=np.array(sizes, np.int64),
        things=np.array(rows, np.float32).reshape(-1, 6),
        counts=np.array(counts, np.int64),
    )
    part = path.with_suffix(".part")
    part.write_bytes(data.getvalue())
    os.replace(part, path)


def pointing_box(thing: Sight, view: View) -> list[int]:
    """How a trace points at a thing: with some room around it, on the teacher's grid."""
    height, width = view.pixels_HWC.shape[:2]
    x0, y0, x1, y1 = thing.box
    tall, wide = (y1 - y0) * height, (x1 - x0) * width
    kind = thing.name.split()[1]
    short = {"sign": SIGN_MARGIN, "panel": CARD_MARGIN}.get(kind)
    reach = MARGIN * max(tall, wide) if short is None else short * min(tall, wide)
    grown = Box(x0 * width, y0 * height, x1 * width, y1 * height).grow(reach)
    return grid_box(grown, width=width, height=height)
