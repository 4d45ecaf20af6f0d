"""Opening a video container, and where its frames are, from packet headers alone."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from pixelis.core.errors import DataError

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.packet import Packet
    from av.video.stream import VideoStream

MAX_FRAMES = 1_000_000
"""Nine hours at 30 frames per second."""

CONTAINERS = "mov,matroska,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,h264,hevc,ivf,m4v,mxf,nut,dv,rm,yuv4mpegpipe,mp3,wav,flac,aac"
"""FFmpeg's other readers open files and addresses that a source merely names (playlists), or take any text for a picture."""


@dataclass
class Index:
    """Where the frames are, from packet headers alone."""

    pts: array  # of every frame, in presentation order
    keys: list[int]  # frame numbers of the key frames
    key_dts: list[int]  # their decoding timestamps, where to seek
    closed: set[int]  # pts of the key frames that nothing shown before them is decoded after
    end: int  # pts at which the last frame ends; that of its start when unknown
    was_cut: bool


def open_container(open_file: Callable[[], BinaryIO]) -> InputContainer | None:
    """Open without following any name or address that the bytes hold; None when they are in no known container."""
    import av

    options = {"format_whitelist": CONTAINERS, "protocol_whitelist": ""}
    try:
        return av.open(open_file(), options=options, metadata_errors="replace", buffer_size=1 << 16)
    except av.FFmpegError:
        return None


def index_packets(container: InputContainer, stream: VideoStream, name: str) -> Index | None:
    """Read every packet's header; None when the timestamps do not say which frame comes when."""
    import av

    codec = stream.codec_context
    if "avi" in container.format.name.split(",") and codec.has_b_frames and codec.name in ("h264", "hevc"):
        return None  # AVI stores decoding order only, and for these codecs the pts are made up from it
    pts, key_pts, key_dts = array("q"), array("q"), array("q")
    closed: set[int] = set()
    last = end = before = None
    was_cut = False
    try:
        for packet in container.demux(stream):
            if not packet.size or packet.is_discard or _is_hidden(packet, codec.name):
                continue
            if packet.pts is None or (before is not None and packet.dts is not None and packet.dts < before):
                return None
            before = packet.dts if packet.dts is not None else before
            was_cut = was_cut or packet.is_corrupt
            if packet.is_keyframe:
                key_pts.append(packet.pts)
                key_dts.append(packet.dts if packet.dts is not None else packet.pts)
                closed.add(packet.pts)
            elif key_pts and packet.pts < key_pts[-1]:
                closed.discard(key_pts[-1])
            if not key_pts or packet.pts < key_pts[0]:
                continue  # a recording that begins in the middle: nothing before the first key frame can be decoded
            pts.append(packet.pts)
            if last is None or packet.pts > last:
                last, end = packet.pts, packet.pts + (packet.duration or 0)
            refuse_too_many(len(pts), name)
    except av.FFmpegError:
        was_cut = True
    if not key_pts or np.any(np.diff(np.frombuffer(key_pts, np.int64)) <= 0) or last - min(pts) > 2**53:
        return None
    stamps = np.sort(np.frombuffer(pts, np.int64))
    if np.any(np.diff(stamps) == 0):
        return None
    keys = np.searchsorted(stamps, np.frombuffer(key_pts, np.int64)).tolist()
    return Index(array("q", stamps.tobytes()), keys, key_dts.tolist(), closed, end, was_cut)


def _is_hidden(packet: Packet, codec: str) -> bool:
    """VP8 keeps pictures that are only referred to, never shown, in packets of their own: bit 4 of the first byte is 0."""
    return codec == "vp8" and not bytes(packet)[0] & 16


def refuse_too_many(count: int, name: str) -> None:
    """Raise DataError past MAX_FRAMES."""
    if count > MAX_FRAMES:
        raise DataError(f"{name}: more than {MAX_FRAMES} frames. Cut it into shorter videos.")
