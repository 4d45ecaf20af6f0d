"""Files whose bytes depend on the pixels alone: a PNG writer of our own, and H.264 with everything fixed.

Compressors differ between builds of zlib, so the PNG's deflate stream is written here: one filter (each pixel against the one above),
bytes and runs of bytes, one Huffman code per image. Any PNG reader reads it. The MP4 is H.264 4:2:0 at a constant quantiser, one thread,
no rate control, no psychovisual step: all-integer paths of x264, so its bytes are the same wherever PyAV brings the same x264; the
frames that go in are the same everywhere.
"""

from __future__ import annotations

import heapq
import io
import struct
import zlib
from collections.abc import Iterable

import numpy as np

_MAX_BITS = 15
_PIECE = 1 << 15
_CODE_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
QP = 12  # near lossless: about 48 dB


def png_bytes(image_HWC: np.ndarray) -> bytes:
    """An 8-bit RGB image [H, W, 3] as a PNG file, the same bytes on any machine."""
    height, width, _ = image_HWC.shape
    rows = np.empty((height, 1 + 3 * width), np.uint8)
    rows[:, 0] = 2  # the filter "up"; the first row's "above" is 0
    flat = image_HWC.reshape(height, -1)
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    data = rows.reshape(-1)
    stream = b"\x78\x01" + _deflate(data) + struct.pack(">I", zlib.adler32(data))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", stream) + _chunk(b"IEND", b"")


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(data, zlib.crc32(kind)))


def _deflate(data_N: np.ndarray) -> bytes:
    """One final block under a Huffman code fitted to the data (RFC 1951, block type 2): literals, and runs as matches at distance 1."""
    starts = _starts(data_N)
    if starts.size * 4 > data_N.size:  # too few runs to be worth it
        symbols, extra, extra_bits = data_N, None, None
    else:
        symbols, extra, extra_bits = _run_tokens(data_N[starts], np.diff(starts, append=data_N.size).astype(np.int32))
    counts = np.bincount(symbols, minlength=286)
    counts[256] = 1
    lengths = _code_lengths(counts.tolist())
    codes = _canonical(lengths)
    head = _pack(*(np.array(column) for column in zip(*_header(lengths), strict=True)), 0, 0)
    end = np.array([codes[256]]), np.array([lengths[256]])
    if extra is None:
        body = _literal_codes(data_N, codes, lengths)
    else:
        size = np.array(lengths, np.uint8)[symbols]
        code = np.array(codes, np.uint32)[symbols] | extra.astype(np.uint32) << size
        body = iter([(code, size + extra_bits)])
    done, word, used = head
    for code, size in (*body, end):
        more, word, used = _pack(code, size, word, used)
        done += more
    return done + struct.pack("<Q", word)[: (used + 7) // 8]


def _starts(values: np.ndarray) -> np.ndarray:
    """Where runs of equal values begin."""
    is_new = np.empty(values.size, bool)
    is_new[0] = True
    np.not_equal(values[1:], values[:-1], out=is_new[1:])
    return np.flatnonzero(is_new)


def _literal_codes(data_N: np.ndarray, codes: list[int], lengths: list[int]) -> Iterable[tuple[np.ndarray, np.ndarray]]:
    """Codes and sizes of the data, two bytes at a time through one table, in pieces that stay in the cache."""
    values, bits = np.array(codes[:256], np.uint64), np.array(lengths[:256], np.uint8)
    pair_code = (values[None, :] << bits[:, None].astype(np.uint64) | values[:, None]).astype(np.uint32).reshape(-1)
    pair_bits = (bits[:, None] + bits[None, :]).reshape(-1)  # index: first * 256 + second
    even = data_N.size // 2 * 2
    pairs = np.ascontiguousarray(data_N[:even]).view(">u2")
    for at in range(0, pairs.size, _PIECE):
        piece = pairs[at : at + _PIECE].astype(np.intp)
        yield pair_code[piece], pair_bits[piece]
    if even < data_N.size:
        yield values[data_N[even:]], bits[data_N[even:]]


def _run_tokens(value_R: np.ndarray, length_R: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Runs as deflate symbols: the byte, then matches of 3-258 repetitions (distance 1: one more bit, 0), short rests as bytes.

    Returns:
        symbols, extra bits after the symbol (value), and their number with the distance's bit.
    """
    rest = length_R - 1
    full = rest // 258
    rest -= full * 258
    per_run = 1 + full + np.where(rest >= 3, 1, rest)
    last = np.cumsum(per_run, dtype=np.int32) - 1
    symbols = np.repeat(value_R.astype(np.int16), per_run)
    extra, bits = np.zeros(symbols.size, np.int32), np.zeros(symbols.size, np.uint8)
    short = np.flatnonzero(rest >= 3)
    for at, length in ((last[short], rest[short]), (_inner(last - per_run + 2, full), np.array([258]))):
        symbols[at], extra[at], bits[at] = _MATCH_SYMBOL[length], _MATCH_EXTRA[length], _MATCH_BITS[length] + 1
    return symbols, extra, bits


def _inner(first_R: np.ndarray, count_R: np.ndarray) -> np.ndarray:
    """`first, first + 1, ...`, `count` of them, for every run that has any."""
    has = np.flatnonzero(count_R)
    first, count = first_R[has], count_R[has]
    return np.repeat(first, count) + np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)


def _match_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Symbol, extra bits and their number for match lengths 0-258 (RFC 1951, 3.2.5)."""
    symbol, extra, bits = (np.zeros(259, np.int64) for _ in range(3))
    length = 3
    for code in range(257, 285):
        more = 0 if code < 265 else (code - 261) // 4
        for value in range(1 << more):
            if length + value < 258:
                symbol[length + value], extra[length + value], bits[length + value] = code, value, more
        length += 1 << more
    symbol[258], extra[258], bits[258] = 285, 0, 0
    return symbol, extra, bits


_MATCH_SYMBOL, _MATCH_EXTRA, _MATCH_BITS = _match_tables()


def _pack(code_N: np.ndarray, size_N: np.ndarray, word: int, used: int) -> tuple[bytes, int, int]:
    """Append codes of at most 32 bits, least significant bit first, to a word of which `used` bits are taken.

    Returns:
        the words that are full, the one that is not, and how many of its bits are taken.
    """
    end = np.cumsum(size_N, dtype=np.int64) + used
    start = end - size_N
    at, shift = start >> 6, (start & 63).astype(np.uint64)
    code = code_N.astype(np.uint64)
    first = _starts(at)
    out = np.zeros(int(end[-1]) // 64 + 1, np.uint64)
    out[at[first]] = np.add.reduceat(code << shift, first)  # bits never overlap, so adding is or-ing
    out[0] |= np.uint64(word)
    last = np.append(first[1:], at.size) - 1  # only a word's last code can run over
    last = last[(start[last] & 63) + size_N[last] > 64]
    out[at[last] + 1] |= code[last] >> (np.uint64(64) - shift[last])
    return out[:-1].astype("<u8").tobytes(), int(out[-1]), int(end[-1]) % 64


def _code_lengths(counts: list[int]) -> list[int]:
    """Huffman code lengths of at most 15 bits; 0 for symbols that do not occur. Counts are flattened until the code fits."""
    while True:
        heap = [(count, symbol, (symbol,)) for symbol, count in enumerate(counts) if count]
        if len(heap) == 1:
            heap.append((0, 257, ()))
        heapq.heapify(heap)
        lengths = [0] * len(counts)
        serial = 258
        while len(heap) > 1:
            a, b = heapq.heappop(heap), heapq.heappop(heap)
            for symbol in a[2] + b[2]:
                lengths[symbol] += 1
            heapq.heappush(heap, (a[0] + b[0], serial, a[2] + b[2]))
            serial += 1
        if max(lengths) <= _MAX_BITS:
            return lengths
        counts = [(count + 1) // 2 for count in counts]


def _canonical(lengths: list[int]) -> list[int]:
    """Canonical codes with their bits reversed, as deflate sends them."""
    codes, code = [0] * len(lengths), 0
    for size in range(1, _MAX_BITS + 1):
        code <<= 1
        for symbol, length in enumerate(lengths):
            if length == size:
                codes[symbol] = int(f"{code:0{size}b}"[::-1], 2)
                code += 1
    return codes


def _header(lengths: list[int]) -> list[tuple[int, int]]:
    """Block header: the code lengths themselves, each sent with 5 bits (a flat code for lengths 0-15), as (value, bits) pairs."""
    out = [(1, 1), (2, 2), (286 - 257, 5), (0, 5), (len(_CODE_ORDER) - 4, 4)]
    flat = [4 if symbol <= 15 else 0 for symbol in range(19)]
    out += [(flat[symbol], 3) for symbol in _CODE_ORDER]
    codes = _canonical(flat)
    return out + [(codes[length], 4) for length in (*lengths, 1)]  # one distance code, of one bit: distance 1


def mp4_bytes(frames: Iterable[np.ndarray], *, fps: int, width: int, height: int, qp: int = QP) -> bytes:
    """RGB frames uint8 [H, W, 3] of even sides as an H.264 MP4 file."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.color_range = 1
        stream.codec_context.colorspace = 1  # BT.709, limited range
        stream.codec_context.color_primaries = 1
        stream.codec_context.color_trc = 1
        stream.options = {
            "preset": "ultrafast", "qp": str(qp), "flags": "+bitexact",
            "x264-params": "threads=1:lookahead-threads=1:sliced-threads=0:aq-mode=0:mbtree=0:psy=0:keyint=24:scenecut=0",
        }  # fmt: skip
        for rgb in frames:
            frame = av.VideoFrame.from_ndarray(_to_yuv420(rgb), format="yuv420p")
            frame.color_range = 1
            frame.colorspace = 1
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _to_yuv420(rgb_HWC: np.ndarray) -> np.ndarray:
    """BT.709 limited range in integers, chroma as the mean of 2 x 2; planes stacked as PyAV takes them, uint8 [H * 3 / 2, W]."""
    height, width, _ = rgb_HWC.shape
    r, g, b = (rgb_HWC[..., c].astype(np.int32) for c in range(3))
    luma = (11966 * r + 40254 * g + 4064 * b + 32768 >> 16) + 16
    r, g, b = (v[0::2, 0::2] + v[1::2, 0::2] + v[0::2, 1::2] + v[1::2, 1::2] for v in (r, g, b))
    blue = (-6596 * r - 22189 * g + 28785 * b + 131072 >> 18) + 128
    red = (28785 * r - 26145 * g - 2640 * b + 131072 >> 18) + 128
    return np.concatenate([p.astype(np.uint8).reshape(-1) for p in (luma, blue, red)]).reshape(height * 3 // 2, width)
