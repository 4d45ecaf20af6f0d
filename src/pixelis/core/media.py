"""Images and videos as one thing: numbered RGB frames with times, identified by the SHA-256 of their source bytes.

Images and animations come through Pillow (`media_image`), videos through PyAV (`media_video`). Transparency is laid over
white, colour profiles and pixel aspect ratios are ignored. A cut or damaged video keeps the frames that decode.
Whatever is wrong with a source ends in one `DataError`; a time or frame number that misses it in one `ToolError`.
"""

from __future__ import annotations

import io
import math
import operator
import os
import struct
import threading
import zlib
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from pixelis.core.errors import DataError, ToolError
from pixelis.core.media_source import Source, open_source, what_it_is

MAX_PIXELS = 100_000_000
"""Per frame; 300 MB as RGB."""

CACHE_BYTES = 256 << 20
"""Decoded frames kept per medium; the newest frame is kept whatever its size."""

WIRE_SLACK_S = 0.05
"""Times travel with one decimal, so an honest time may be off by this much."""


@dataclass(frozen=True)
class MediumInfo:
    """Facts about a medium, all JSON-able."""

    kind: Literal["image", "video"]
    sha256: str
    width: int
    """As shown, after EXIF or display-matrix rotation; so is `height`."""
    height: int
    num_frames: int
    fps: float | None
    """Mean frames per second; None for an image."""
    duration_s: float
    """From the first frame's appearance to the last one's end; 0.0 for an image."""
    name: str


class FrameReader(Protocol):
    """What Medium needs from a decoder of stills, animations or videos."""

    kind: Literal["image", "video"]
    width: int
    height: int
    times_s: np.ndarray
    duration_s: float
    first: np.ndarray | None
    """Frame 0, decoded while opening; Medium takes it over."""

    def restart(self, index: int) -> int:
        """The frame from which decoding must start to reach `index`."""

    def walk(self, start: int) -> Iterator[tuple[int, Any]]:
        """Every frame from `start` (a `restart` frame) on, in order; None for one that damage took."""

    def to_rgb(self, raw: Any) -> np.ndarray:
        """What `walk` gave, as uint8 [height, width, 3]; valid only until the walk goes on."""

    def close(self) -> None: ...


class Medium:
    """An open image or video; safe to share between threads, closed by `close`, `with`, or being forgotten.

    Args:
        info: what it is.
        path: where it came from; None when it came as bytes.
        reader: its decoder.
        source: its bytes.
        cache_bytes: how much of decoded frames to keep.
    """

    def __init__(self, info: MediumInfo, path: Path | None, reader: FrameReader, source: Source, cache_bytes: int = CACHE_BYTES) -> None:
        self.info, self.path = info, path
        self._reader, self._source = reader, source
        self._lock = threading.RLock()
        self._cache: OrderedDict[int, np.ndarray] = OrderedDict()
        self._cached_bytes, self._cache_limit = 0, cache_bytes
        self._walk: Iterator | None = None
        self._walk_at = -1
        self._closed = False
        self.times_s = reader.times_s
        self.times_s.flags.writeable = False
        if reader.first is not None:
            self._keep(0, reader.first)
            reader.first = None

    @property
    def sha256(self) -> str:
        return self.info.sha256

    @property
    def kind(self) -> str:
        return self.info.kind

    @property
    def width(self) -> int:
        return self.info.width

    @property
    def height(self) -> int:
        return self.info.height

    @property
    def num_frames(self) -> int:
        return self.info.num_frames

    @property
    def duration_s(self) -> float:
        return self.info.duration_s

    @property
    def fps(self) -> float | None:
        return self.info.fps

    def frame(self, index: int) -> np.ndarray:
        """One frame, the same bytes whichever frames were read before.

        Args:
            index: 0 to num_frames - 1.
        Returns:
            RGB uint8 [height, width, 3], read-only.
        Raises:
            ToolError: there is no such frame.
            DataError: damage took this frame.
        """
        index = self._checked(index)
        with self._lock:
            self._refuse_closed()
            if index in self._cache:
                self._cache.move_to_end(index)
                return self._cache[index]
            start = self._reader.restart(index)
            if self._walk is None or not max(start - 1, 0) <= self._walk_at < index:  # behind, or another key frame is nearer
                self._end_walk()
                self._walk = self._reader.walk(start)
            array = self._advance(index)
            self._keep(index, array)
            return array

    def frames(self, start: int, stop: int, step: int = 1) -> Iterator[np.ndarray]:
        """Frames `range(start, stop, step)` in one pass over the source, past the cache; `stop` may exceed the end.

        Raises:
            ToolError: `start` is no frame.
            DataError: damage took a wanted frame.
        """
        if operator.index(step) < 1:
            raise ValueError(f"step must be at least 1, got {step}")
        stop = min(operator.index(stop), self.num_frames)
        if operator.index(start) < stop:
            return self._stream(self._checked(start), stop, step)
        return iter(())

    def frame_at(self, time_s: float) -> int:
        """The frame nearest to a time.

        Args:
            time_s: seconds from the first frame; may miss the medium by half a frame or the wire's rounding.
        Raises:
            ToolError: the time is NaN or misses the medium.
        """
        if isinstance(time_s, bool) or not isinstance(time_s, (int, float, np.floating, np.integer)):
            raise ToolError("bad_arguments", f"a time must be a number of seconds, got {type(time_s).__name__}")
        slack_s = max(0.5 / self.fps if self.fps else 0.0, WIRE_SLACK_S)
        if not -slack_s <= time_s <= self.duration_s + slack_s:
            shown = f"{time_s:g}" if isinstance(time_s, float) and math.isfinite(time_s) else str(time_s)[:20]
            place = "an image: its only time is 0.0 s" if self.kind == "image" else f"{self.duration_s:.1f} s long"
            raise ToolError("out_of_time", f"time {shown} s is outside: the medium is {place}")
        after = int(np.searchsorted(self.times_s, time_s))
        near = [i for i in (after - 1, after) if 0 <= i < self.num_frames]
        return min(near, key=lambda i: abs(self.times_s[i] - time_s))

    def sample(self, max_frames: int) -> list[int]:
        """At most `max_frames` frame numbers, evenly spread, first and last included; the middle one when only one is wanted."""
        if max_frames < 1:
            raise ValueError(f"max_frames must be at least 1, got {max_frames}")
        last = self.num_frames - 1
        if self.num_frames <= max_frames:
            return list(range(self.num_frames))
        if max_frames == 1:
            return [last // 2]
        gaps = max_frames - 1
        return [(2 * i * last + gaps) // (2 * gaps) for i in range(max_frames)]

    def close(self) -> None:
        """Free the decoder, the file and the cache; frames already handed out stay valid."""
        with self._lock:
            self._closed = True
            self._end_walk()
            self._cache.clear()
            self._cached_bytes = 0
            self._reader.close()
            self._source.close()

    def __enter__(self) -> Medium:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        i = self.info
        return f"Medium({i.name!r}, {i.kind}, {i.width}x{i.height}, {i.num_frames} frames, {i.duration_s:.1f} s, sha256={i.sha256[:8]})"

    def _checked(self, index: int) -> int:
        index = operator.index(index)
        if not 0 <= index < self.num_frames:
            raise ToolError("out_of_time", f"frame {index} does not exist: the medium has frames 0 to {self.num_frames - 1}")
        return index

    def _refuse_closed(self) -> None:
        if self._closed:
            raise ValueError(f"{self.info.name} is closed")

    def _advance(self, index: int) -> np.ndarray:
        try:
            raw = self._reach(self._walk, index)
            self._walk_at = index
        except BaseException:
            self._end_walk()  # a generator that ended is spent
            raise
        return self._finished(index, raw)

    def _stream(self, start: int, stop: int, step: int) -> Iterator[np.ndarray]:
        walk, at = None, -1
        try:
            for wanted in range(start, stop, step):
                with self._lock:  # only while decoding: the caller may take its time between frames
                    self._refuse_closed()
                    begin = self._reader.restart(wanted)
                    if walk is None or begin > at + 1:  # a long step: skip whole groups of pictures
                        if walk is not None:
                            walk.close()
                        walk = self._reader.walk(begin)
                    array = self._finished(wanted, self._reach(walk, wanted))
                    at = wanted
                yield array
        finally:
            if walk is not None:
                with self._lock:
                    walk.close()

    def _reach(self, walk: Iterator, index: int) -> Any:
        for at, raw in walk:
            if at == index:
                return raw
        raise self._lost(index)

    def _finished(self, index: int, raw: Any) -> np.ndarray:
        if raw is None:
            raise self._lost(index)
        array = self._reader.to_rgb(raw)
        array.flags.writeable = False
        return array

    def _lost(self, index: int) -> DataError:
        return DataError(
            f"{self.info.name}: frame {index} of {self.num_frames} (at {self.times_s[index]:.2f} s) cannot be decoded: the file is "
            "damaged there. Use other frames or a fresh copy."
        )

    def _keep(self, index: int, array: np.ndarray) -> None:
        array.flags.writeable = False
        self._cache[index] = array
        self._cached_bytes += array.nbytes
        while self._cached_bytes > self._cache_limit and len(self._cache) > 1:
            self._cached_bytes -= self._cache.popitem(last=False)[1].nbytes

    def _end_walk(self) -> None:
        if self._walk is not None:
            self._walk.close()
        self._walk, self._walk_at = None, -1


def open_medium(
    source: str | os.PathLike | bytes, *, max_pixels: int = MAX_PIXELS, name: str | None = None, cache_bytes: int = CACHE_BYTES
) -> Medium:
    """Open an image or a video.

    Args:
        source: a file's path, its bytes, or a `data:...;base64,` string.
        max_pixels: the largest frame to accept, width times height.
        name: what to call it in `info` and in error texts; the file's name unless given.
        cache_bytes: how much of decoded frames to keep.
    Raises:
        DataError: there is nothing usable; the text says what is wrong and what to do.
    """
    from pixelis.core.media_image import open_image
    from pixelis.core.media_video import open_video

    origin, path = open_source(source, name)
    try:
        reader = open_image(origin.open, origin.name, max_pixels) or open_video(origin.open, origin.name, max_pixels)
        if reader is None:
            raise DataError(
                f"{origin.name}: {what_it_is(origin)}. Give an image (PNG, JPEG, WebP, GIF, TIFF, ...) or a video (MP4, WebM, ...)."
            )
        video = reader.kind == "video"
        info = MediumInfo(
            kind=reader.kind,
            sha256=origin.sha256(),
            width=reader.width,
            height=reader.height,
            num_frames=len(reader.times_s),
            fps=len(reader.times_s) / reader.duration_s if video else None,
            duration_s=reader.duration_s,
            name=origin.name,
        )
        return Medium(info, path, reader, origin, cache_bytes)
    except OSError as error:
        origin.close()
        raise DataError(f"{origin.name}: reading failed: {error.strerror or error}. Check the disk, or copy the file again.") from error
    except BaseException:
        origin.close()
        raise


def png_bytes(image_HWC: np.ndarray) -> bytes:
    """A picture as an uncompressed PNG, the same bytes on any machine.

    Crops are named by the hash of their file and compared on replay, and what a compressor makes of a picture differs between
    builds of zlib. Stored blocks do not; and they are written in a tenth of the time.

    Args:
        image_HWC: uint8 RGB [height, width, 3] or grey [height, width].
    """
    if image_HWC.dtype != np.uint8 or not (image_HWC.ndim == 2 or (image_HWC.ndim == 3 and image_HWC.shape[2] == 3)) or not image_HWC.size:
        raise ValueError(f"png_bytes needs a non-empty uint8 [H, W, 3] or [H, W] array, got {image_HWC.dtype} {image_HWC.shape}")
    height, width = image_HWC.shape[:2]
    rows = np.zeros((height, 1 + image_HWC[0].size), np.uint8)  # each row behind its filter byte: 0, none
    rows[:, 1:] = image_HWC.reshape(height, -1)
    data = memoryview(rows.reshape(-1))
    blocks = []
    for start in range(0, len(data), 0xFFFF):
        part = data[start : start + 0xFFFF]
        is_last = start + len(part) == len(data)
        blocks += [struct.pack("<BHH", is_last, len(part), len(part) ^ 0xFFFF), part]
    stream = b"".join([b"\x78\x01", *blocks, struct.pack(">I", zlib.adler32(data))])
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if image_HWC.ndim == 2 else 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _png_chunk(b"IHDR", header) + _png_chunk(b"IDAT", stream) + _png_chunk(b"IEND", b"")


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def decode_png(data: bytes) -> np.ndarray:
    """The picture in a PNG as read-only RGB uint8 [height, width, 3].

    Raises:
        DataError: it is no PNG, or a damaged one.
    """
    from pixelis.core.media_image import open_image

    reader = open_image(lambda: io.BytesIO(data), "PNG blob", MAX_PIXELS, formats=("PNG",))
    if reader is None:
        raise DataError(f"PNG blob: {len(data)} bytes that are no PNG. The blob is damaged: make it again.")
    array = reader.first
    array.flags.writeable = False
    return array
