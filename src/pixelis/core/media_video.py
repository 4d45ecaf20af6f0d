"""Videos through PyAV: an index of all packets made without decoding, then any frame from the key frame before it.

A frame is known by its presentation timestamp (pts). Streams whose timestamps cannot be trusted are decoded once on
opening, to count their frames, and are then always read from their start.
"""

from __future__ import annotations

import logging
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator
from fractions import Fraction
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.media_index import Index, index_packets, open_container, refuse_too_many
from pixelis.core.media_rgb import over_white

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

log = logging.getLogger(__name__)

SWS_FLAGS = 0x2 | 0x40000 | 0x80000  # FFmpeg's BILINEAR, ACCURATE_RND, BITEXACT: every processor gives the same bytes
LATE_FRAMES = 2.5  # a container that promises more than this past its last packet was probably cut
SEEK_BACK_S = (0.0, 2.0, 10.0)  # some formats seek by guessing and land behind the target: ask for an earlier place


class VideoReader:
    """One video stream.

    Args:
        open_file: gives a new binary reader at byte 0.
        name: for error texts.
        max_pixels: the largest width times height.
        container: the source, just opened.
    Raises:
        DataError: no video stream, too large, too long, or not one frame that decodes.
    """

    kind = "video"

    def __init__(self, open_file: Callable[[], BinaryIO], name: str, max_pixels: int, container: InputContainer) -> None:
        self._open_file, self._name, self._max_pixels = open_file, name, max_pixels
        self._idle, self._is_closed = [container], False
        self._turn: tuple[bool, bool, bool] | None = None  # transpose, then mirror x, then mirror y
        self.width = self.height = 0
        stream = self._stream(container)
        self._check_size(stream.codec_context.width, stream.codec_context.height)
        self._rate = float(stream.average_rate or stream.guessed_rate or 25)
        self._time_base = stream.time_base or Fraction(1, 1000)
        promised_s = float(container.duration or 0) / 1e6
        self._index: Index | None = index_packets(container, stream, name)
        first = None
        if self._index is not None:
            self._set_times(self._index.pts, self._index.end)
            first = self._first()
        if first is None:
            self._index = None
            self._count_frames()
            first = self._first()
        if first is None:
            raise self._undecodable()
        self.first: np.ndarray | None = first
        self.height, self.width = first.shape[:2]
        if self._index is not None and (self._index.was_cut or self.duration_s + LATE_FRAMES / self._rate < promised_s):
            self._drop_lost_tail()

    def restart(self, index: int) -> int:
        if self._index is None:
            return 0
        return self._index.keys[bisect_right(self._index.keys, index) - 1]

    def walk(self, start: int) -> Iterator[tuple[int, VideoFrame | None]]:
        """Every frame from key frame `start` on.

        Where the decoder, without complaint, gives nothing for a packet, the frame before is held: that is what is on
        the screen then. Where it complained, the frame is lost and None.
        """
        container = self._idle.pop() if self._idle else self._open()
        try:
            if self._index is None:
                container.close()
                container = self._open()
                for index, (_, frame, _) in zip(range(len(self.times_s)), self._decoded(container, None)):  # noqa: B905 ends with either
                    yield index, frame
                return
            number = bisect_right(self._index.keys, start) - 1
            for key in (number, number - 1, None):  # None: from the file's start, without seeking
                if key is None:
                    container.close()
                    container = self._open()
                elif key < 0:
                    continue
                run = self._decoded(container, key)
                head = next(run, None)
                begin = self._index.keys[key or 0]
                if (head is not None and head[0] == self._index.pts[begin]) or key is None:
                    break  # else the place was not found, or this "key" frame cannot be decoded on its own
            for index, frame in self._numbered(begin, head, run):
                if index >= start:
                    yield index, frame
        finally:
            if not self._idle and not self._is_closed:
                self._idle.append(container)
            else:
                container.close()

    def to_rgb(self, raw: VideoFrame) -> np.ndarray:
        """RGB uint8, upright, of the first frame's size even where the stream changes its own."""
        import av

        if self._turn is None:
            self._turn = _turn_of(raw)
            self._coded_size = raw.width, raw.height
            self._check_size(raw.width, raw.height)
        has_alpha = any(component.is_alpha for component in raw.format.components)
        width, height = self._coded_size
        try:
            array = raw.to_ndarray(
                width=width,
                height=height,
                format="rgba" if has_alpha else "rgb24",
                interpolation=SWS_FLAGS,
            )
        except (av.FFmpegError, ValueError) as error:
            raise DataError(f"{self._name}: the pixel format {raw.format.name} cannot be shown ({error}). Re-encode it.") from error
        array = over_white(array) if has_alpha else array
        transpose, mirror_x, mirror_y = self._turn
        array = array.transpose(1, 0, 2) if transpose else array
        array = array[:, ::-1] if mirror_x else array
        array = array[::-1] if mirror_y else array
        return np.ascontiguousarray(array)

    def close(self) -> None:
        self._is_closed = True  # a walk that is under way closes its own
        while self._idle:
            self._idle.pop().close()

    def _open(self) -> InputContainer:
        container = open_container(self._open_file)
        if container is None:
            raise DataError(f"{self._name}: could be opened once but not again. Has the file changed? Open it anew.")
        return container

    def _stream(self, container: InputContainer) -> VideoStream:
        """The first video stream that is no cover picture, set up for decoding."""
        from av.stream import Discard, Disposition

        streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
        if not streams:
            kinds = sorted({s.type for s in container.streams}) or ["nothing"]
            raise DataError(f"{self._name}: has no video stream, only {', '.join(kinds)}. Give a file with pictures.")
        stream = streams[0]
        if stream.codec_context is None:
            raise DataError(f"{self._name}: its video codec is unknown. Re-encode it as H.264.")
        for other in container.streams:
            if other.index != stream.index:
                other.discard = Discard.all
        return stream

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self._max_pixels:
            raise DataError(
                f"{self._name}: frames of {width}x{height} are {width * height} pixels, more than the {self._max_pixels} allowed. "
                "Shrink the video first."
            )

    def _undecodable(self) -> DataError:
        return DataError(f"{self._name}: not one frame of this video can be decoded. Get a fresh copy or re-encode it as H.264.")

    def _set_times(self, pts: array, end: int) -> None:
        stamps = np.frombuffer(pts, np.int64)
        times_s = (stamps - stamps[0]) * float(self._time_base)
        length_s = float((end - pts[-1]) * self._time_base)
        if not length_s > 0:
            length_s = float(np.median(np.diff(times_s))) if len(times_s) > 1 else 1 / self._rate
        self.times_s, self.duration_s = times_s, float(times_s[-1]) + length_s

    def _first(self) -> np.ndarray | None:
        walk = self.walk(0)
        try:
            _, raw = next(walk, (0, None))
            return None if raw is None else self.to_rgb(raw)
        finally:
            walk.close()

    def _count_frames(self) -> None:
        """Learn the frames by decoding them all, for streams that an index of packets cannot describe."""
        stamps: list[int | None] = []
        container = self._open()
        try:
            for pts, frame, _ in self._decoded(container, None):
                self._check_size(frame.width, frame.height)
                stamps.append(pts)
                refuse_too_many(len(stamps), self._name)
        finally:
            container.close()
        if not stamps:
            raise self._undecodable()
        if None not in stamps and all(a < b for a, b in pairwise(stamps)) and stamps[-1] - stamps[0] < 2**53:
            self._set_times(array("q", stamps), stamps[-1])
        else:
            self.times_s, self.duration_s = np.arange(len(stamps)) / self._rate, len(stamps) / self._rate

    def _drop_lost_tail(self) -> None:
        """Shorten the index of a cut file to the last frame that decodes; what is lost before it stays lost one by one."""
        index, promised = self._index, len(self._index.pts)
        end = promised
        while end > 0:
            start, held, last = self.restart(end - 1), None, -1
            for number, frame in self.walk(start):
                if frame is not None and frame is not held:
                    last = number
                held = frame
                if number >= end - 1:
                    break
            if last >= 0:
                end = last + 1
                break
            end = start
        if end == promised:
            return
        log.warning("%s: the file is cut or damaged: %d of %d frames remain usable", self._name, max(end, 1), promised)
        end = max(end, 1)
        stop = index.pts[end]
        index.pts, index.keys = index.pts[:end], [k for k in index.keys if k < end]
        self._set_times(index.pts, stop)

    def _decoded(self, container: InputContainer, key: int | None) -> Iterator[tuple[int | None, VideoFrame, bool]]:
        """Frames as the decoder gives them, each with its pts and whether the decoder has complained so far.

        Args:
            container: freshly opened when `key` is None.
            key: number of the key frame to seek to.
        """
        import av

        stream = self._stream(container)
        context = stream.codec_context
        if not context.is_open:
            context.thread_count = 1  # more gain little, and conceal damage differently from run to run
        closed = self._index.closed if self._index is not None else set()
        has_failed = False
        try:
            for packet in container.demux(stream) if key is None else self._packets_from(container, stream, key):
                if not packet.size:
                    continue  # an empty packet would tell the decoder that the stream has ended
                if packet.is_keyframe and packet.pts in closed:
                    # Start afresh, as after a seek: how damage is concealed must not depend on what was read before.
                    for frame in _drained(context):
                        yield frame.pts, frame, has_failed
                    context.flush_buffers()
                    has_failed = False
                try:
                    frames = packet.decode()
                except av.FFmpegError:
                    has_failed = True
                    continue
                for frame in frames:
                    yield frame.pts, frame, has_failed
        except av.FFmpegError:  # reading, not decoding: there is nothing more to read
            has_failed = True
        for frame in _drained(context):
            yield frame.pts, frame, has_failed

    def _packets_from(self, container: InputContainer, stream: VideoStream, key: int) -> Iterator[Packet]:
        """Packets from a key frame's own on; none when it is not found."""
        import av

        pts, dts = self._index.pts[self._index.keys[key]], self._index.key_dts[key]
        for back_s in SEEK_BACK_S:
            try:
                container.seek(min(pts, dts) - int(back_s / self._time_base), stream=stream, backward=True)
            except av.FFmpegError:
                return
            packets = container.demux(stream)
            for packet in packets:
                if packet.size and packet.pts == pts and packet.is_keyframe:
                    yield packet
                    yield from packets
                    return
                if packet.dts is not None and packet.dts > dts:
                    break

    def _numbered(
        self, begin: int, head: tuple | None, run: Iterator[tuple[int | None, VideoFrame, bool]]
    ) -> Iterator[tuple[int, VideoFrame | None]]:
        """Decoded frames under their frame numbers, from `begin` to the last without a gap."""
        pts, number, held, has_failed = self._index.pts, begin, None, False
        total = len(pts)

        def run_all() -> Iterator[tuple[int | None, VideoFrame, bool]]:
            if head is not None:
                yield head
            yield from run

        for stamp, frame, has_failed in run_all():
            if stamp is None:
                continue
            while number < total and pts[number] < stamp:
                yield number, None if has_failed else held
                number += 1
            if number < total and pts[number] == stamp:
                held = frame
                yield number, frame
                number += 1
        while number < total:
            yield number, None if has_failed else held
            number += 1


def open_video(open_file: Callable[[], BinaryIO], name: str, max_pixels: int) -> VideoReader | None:
    """Open a video.

    Args:
        open_file: gives a new binary reader at byte 0.
        name: for error texts.
        max_pixels: the largest width times height, checked before anything is decoded.
    Returns:
        Its reader; None when the bytes are in no known container.
    Raises:
        DataError: it is a container, but without usable video.
    """
    container = open_container(open_file)
    return None if container is None else VideoReader(open_file, name, max_pixels, container)


def _drained(context: VideoCodecContext) -> list[VideoFrame]:
    """The frames that a decoder still holds back."""
    import av

    try:
        return context.decode(None)
    except av.FFmpegError:
        return []


def _turn_of(frame: VideoFrame) -> tuple[bool, bool, bool]:
    """How the display matrix turns the picture, to the nearest right angle: transpose, then mirror x, then mirror y.

    Source: ISO/IEC 14496-12 matrix {a, b, u, c, d, v, ...}: x' = a x + c y, y' = b x + d y.
    """
    found = frame.side_data.get("DISPLAYMATRIX")
    data = bytes(found) if found is not None else b""
    if len(data) < 36:
        return False, False, False
    a, b, _, c, d, *_ = np.frombuffer(data[:36], np.int32).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        return True, c < 0, b < 0
    return False, a < 0, d < 0
