"""Still images and animations through Pillow, whatever their colours: always RGB uint8, upright, over white."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from itertools import count
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.media_rgb import to_rgb

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

log = logging.getLogger(__name__)

FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""The only decoders that untrusted bytes reach: some of Pillow's others start programs (EPS) or accept anything (TGA)."""

ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")  # of MPO and TIFF, whose pages are no motion, the first page counts

MAX_ANIMATION_PIXELS = 500_000_000
"""Frames times canvas: a small file can promise days of decoding, and this much takes seconds. As much as 1,600 frames of 640x480."""

MIN_FRAME_PIXELS = 4096
"""What a frame of any size counts for: the smallest ones take their time too."""

DELAY_S = 0.1
"""For frames with a delay under 20 ms, which no browser obeys either."""

EXIF_ORIENTATION = 0x0112


class StillReader:
    """One picture, decoded on opening and again if the cache has dropped it."""

    kind = "image"

    def __init__(self, open_file: Callable[[], BinaryIO], name: str, formats: tuple[str, ...], picture: Picture) -> None:
        self._open_file, self._name, self._formats = open_file, name, formats
        self.first: np.ndarray | None = _decoded(picture, name)
        self.height, self.width = self.first.shape[:2]
        self.times_s, self.duration_s = np.zeros(1), 0.0

    def restart(self, index: int) -> int:
        return 0

    def walk(self, start: int) -> Iterator[tuple[int, Picture]]:
        with self._open_file() as file:
            yield 0, _opened(file, self._formats)

    def to_rgb(self, raw: Picture) -> np.ndarray:
        return _decoded(raw, self._name)

    def close(self) -> None:
        pass


class AnimationReader:
    """A GIF, APNG, WebP or AVIF with several frames: a video that can only be decoded from its start.

    Opening decodes all of it once, to learn the times and how far it is intact.
    """

    kind = "video"

    def __init__(self, open_file: Callable[[], BinaryIO], name: str, max_pixels: int) -> None:
        self._open_file, self._name, self._max_pixels = open_file, name, max_pixels
        self.first: np.ndarray | None = None
        self.times_s, self.duration_s = np.zeros(1), 0.0
        delays_s = []
        for index, picture in self._pictures():
            if self.first is None:
                self.first = to_rgb(picture)
            delay_s = float(picture.info.get("duration") or 0) / 1000
            delays_s.append(delay_s if delay_s >= 0.02 else DELAY_S)
            if (index + 1) * max(picture.width * picture.height, MIN_FRAME_PIXELS) > MAX_ANIMATION_PIXELS:
                raise DataError(
                    f"{name}: an animation of more than {index} frames of {picture.width}x{picture.height} takes too long to open: "
                    f"at most {MAX_ANIMATION_PIXELS} pixels in all. Cut or shrink it, or make it a video file."
                )
        if self.first is None:
            raise DataError(f"{name}: not one frame of this animation can be decoded. Get a fresh copy.")
        ends_s = np.cumsum(delays_s)
        self.height, self.width = self.first.shape[:2]
        self.times_s, self.duration_s = np.concatenate([[0.0], ends_s[:-1]]), float(ends_s[-1])

    def restart(self, index: int) -> int:
        return 0

    def walk(self, start: int) -> Iterator[tuple[int, Picture]]:
        yield from self._pictures()

    def to_rgb(self, raw: Picture) -> np.ndarray:
        try:
            array = to_rgb(raw)[: self.height, : self.width]  # a frame may reach past the canvas, which Pillow then widens
        except Exception as error:
            raise DataError(f"{self._name}: a frame's colours cannot be read ({_short(error)}). Get a fresh copy.") from error
        if array.shape != (self.height, self.width, 3):
            raise DataError(
                f"{self._name}: a damaged frame is {array.shape[1]}x{array.shape[0]}, not {self.width}x{self.height}. Get a fresh copy."
            )
        return np.ascontiguousarray(array)

    def close(self) -> None:
        pass

    def _pictures(self) -> Iterator[tuple[int, Picture]]:
        """Every frame up to the first damage."""
        with self._open_file() as file:
            picture = _opened(file, ANIMATED)
            hidden = int(bool(getattr(picture, "default_image", False)))  # an APNG's stand-in for viewers without animation
            for index in count():
                try:
                    with warnings.catch_warnings():
                        warnings.simplefilter("ignore")
                        picture.seek(index + hidden)
                        if picture.width * picture.height > self._max_pixels:
                            raise ValueError(f"a frame widens the picture to {picture.width}x{picture.height}")
                        picture.load()
                except EOFError:
                    return
                except Exception as error:  # noqa: BLE001 Pillow raises nearly any class on damaged bytes
                    if index:
                        log.warning("%s: damaged after %d frames, which remain usable (%s)", self._name, index, _short(error))
                    return
                yield index, picture


def open_image(
    open_file: Callable[[], BinaryIO], name: str, max_pixels: int, formats: tuple[str, ...] = FORMATS
) -> StillReader | AnimationReader | None:
    """Open a still image or an animation.

    Args:
        open_file: gives a new binary reader at byte 0.
        name: for error texts.
        max_pixels: the largest width times height, checked before anything is decoded.
        formats: Pillow's names of what to accept.
    Returns:
        Its reader; None when the bytes are no image of these formats.
    Raises:
        DataError: it is an image, but a damaged or too large one.
    """
    from PIL import Image

    with open_file() as file:
        try:
            picture = _opened(file, formats)
        except Image.UnidentifiedImageError:
            return None
        except Image.DecompressionBombError as error:
            count = re.search(r"\d+", str(error))  # Pillow's text goes on with a limit of its own
            shown = f"{count[0]} pixels are" if count else "its pixels are"
            raise DataError(f"{name}: {shown} more than the {max_pixels} allowed. Shrink it first.") from error
        except Exception as error:
            raise DataError(f"{name}: the image's header is damaged ({_short(error)}). Get a fresh copy.") from error
        width, height = picture.size
        if width * height > max_pixels:
            raise DataError(f"{name}: {width}x{height} is {width * height} pixels, more than the {max_pixels} allowed. Shrink it first.")
        if not width * height:
            raise DataError(f"{name}: the image is {width}x{height} pixels, so there is nothing in it.")
        if picture.format in ANIMATED and _is_animated(picture):
            reader = AnimationReader(open_file, name, max_pixels)
            if len(reader.times_s) > 1:
                return reader
        picture.seek(0)
        return StillReader(open_file, name, formats, picture)


def _opened(file: BinaryIO, formats: tuple[str, ...]) -> Picture:
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on size, which is checked here, and on odd metadata, which is not used
        Image.init()  # else only the commonest formats are known
        return Image.open(file, formats=[f for f in formats if f in Image.OPEN])  # a build may lack AVIF


def _is_animated(picture: Picture) -> bool:
    try:
        return bool(getattr(picture, "is_animated", False))
    except Exception:  # noqa: BLE001 counting the frames of a damaged file; the first may be intact
        return False


def _decoded(picture: Picture, name: str) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            picture.load()
        return to_rgb(_upright(picture))
    except Exception as error:
        size = f"{picture.width}x{picture.height} {picture.format or 'image'}"
        if "truncated" in str(error):
            raise DataError(f"{name}: the {size} is cut off before its picture ends ({_short(error)}). Get the whole file.") from error
        raise DataError(f"{name}: the {size} cannot be decoded ({_short(error)}). Get a fresh copy or convert it to PNG.") from error


def _upright(picture: Picture) -> Picture:
    """The picture turned as its EXIF orientation asks; unreadable EXIF asks for nothing."""
    from PIL.Image import Transpose

    turns = {
        2: Transpose.FLIP_LEFT_RIGHT,
        3: Transpose.ROTATE_180,
        4: Transpose.FLIP_TOP_BOTTOM,
        5: Transpose.TRANSPOSE,
        6: Transpose.ROTATE_270,
        7: Transpose.TRANSVERSE,
        8: Transpose.ROTATE_90,
    }
    try:
        # After load(), which for a TIFF turns the picture itself and drops the tag.
        turn = turns.get(picture.getexif().get(EXIF_ORIENTATION))
    except Exception:  # noqa: BLE001 broken metadata must not cost the picture
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _short(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text if len(text) <= 100 else text[:97] + "..."


def through_jpeg(image_HWC: np.ndarray, quality: int) -> np.ndarray:
    """A picture as it comes back from a JPEG file.

    Args:
        image_HWC: uint8 RGB.
        quality: from 1 to 100.

    Raises:
        DataError: JPEG cannot hold a picture of this size.
    """
    import cv2

    written, data = cv2.imencode(".jpg", image_HWC[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not written:
        raise DataError(f"a frame of {image_HWC.shape[1]}x{image_HWC.shape[0]} pixels cannot be written as JPEG")
    return np.ascontiguousarray(cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1])
