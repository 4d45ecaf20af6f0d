"""From what a harness shows a model to an open medium: pictures in memory, paths of images and of videos."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from pixelis.core.errors import ConfigError, DataError
from pixelis.core.media import MAX_PIXELS, Medium, open_medium, png_bytes
from pixelis.core.media_rgb import over_white

if TYPE_CHECKING:
    from collections.abc import Sequence

DAMAGE = (OSError, SyntaxError, Image.DecompressionBombError)
"""What Pillow raises on a cut or damaged picture, also while a harness converts one."""


def open_only(visuals: Sequence[object], *, name: str) -> tuple[Medium, bytes | None]:
    """Open the one medium of a question; its bytes too, where no file holds them.

    Args:
        visuals: pictures of Pillow, and paths.
        name: of the document, for messages.

    Raises:
        ConfigError: there is none, there are several, or it is something that the agent cannot look at.
        DataError: it is missing or damaged.
    """
    if len(visuals) != 1:
        raise ConfigError(
            f"{name}: {_what(visuals)} in one question, and the agent looks at one image or one video: choose tasks with one a question"
        )
    visual = visuals[0]
    try:
        if isinstance(visual, Image.Image):
            data = picture_png(visual)
            return open_medium(data, name=name), data
        if isinstance(visual, (str, os.PathLike)):
            return open_medium(os.fspath(visual)), None
    except DataError as error:
        raise DataError(f"{name}: {error}") from None
    except DAMAGE as error:
        raise damaged(name, error) from error
    raise ConfigError(f"{name}: it shows a {type(visual).__name__}, and the agent looks at a picture or the path of an image or a video")


def damaged(name: str, error: BaseException) -> DataError:
    """The message for an image or video that the harness could not read, or Pillow not decode."""
    said = f"{type(error).__name__}: {error}"[:200]
    return DataError(f"{name}: its image or video cannot be read ({said}): download the data set's files again")


def picture_png(picture: Image.Image) -> bytes:
    """A picture as every other model of the harness sees it, on white where it is transparent; the same bytes on any machine.

    An orientation in its EXIF data is not obeyed: the harness hands over pixels, and its other models take them as they are.

    Raises:
        DataError: it is empty, too large, or of a kind that is not read.
        OSError, SyntaxError: its bytes are damaged.
    """
    width, height = picture.size
    if not 0 < width * height <= MAX_PIXELS:
        raise DataError(f"the image has {width}x{height} pixels; it must have some, and at most {MAX_PIXELS}")
    picture.load()
    if picture.mode in ("I", "F") or picture.mode.startswith("I;16"):
        return png_bytes(_deep(picture))
    if picture.has_transparency_data:
        return png_bytes(over_white(np.asarray(picture.convert("RGBA"))))
    return png_bytes(np.asarray(picture.convert("RGB")))


def _deep(picture: Image.Image) -> np.ndarray:
    """Greys of more than 8 bits, scaled as they are in a file; Pillow's own conversion would cut them at 255."""
    file = io.BytesIO()
    picture.save(file, "TIFF")
    with open_medium(file.getvalue()) as medium:
        return medium.frame(0)


def _what(visuals: Sequence[object]) -> str:
    if not visuals:
        return "neither image nor video"
    shown = ", ".join(Path(v).name if isinstance(v, (str, os.PathLike)) else type(v).__name__ for v in visuals[:3])
    return f"{len(visuals)} images or videos ({shown}{', ...' if len(visuals) > 3 else ''})"
