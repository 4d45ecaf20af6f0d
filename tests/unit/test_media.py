"""Media: every kind of good and bad source, frames known by what is painted in them."""

from __future__ import annotations

import base64
import hashlib
import io
import itertools
import json
import math
import os
import random
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import asdict
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelis.core.errors import DataError, ToolError
from pixelis.core.media import Medium, decode_png, open_medium, png_bytes
from pixelis.core.media_image import MAX_ANIMATION_PIXELS, MIN_FRAME_PIXELS

MEDIA = Path(os.environ.get("PIXELIS_MEDIA", Path(__file__).parents[3] / "shared" / "media"))
W, H = 96, 64


def painted(number: int, width: int = W, height: int = H) -> np.ndarray:
    """A frame with its number in binary: ten upright bars, white for 1, over dark grey."""
    bars = np.array([230 if number >> bit & 1 else 20 for bit in range(10)], np.uint8)
    row = bars[np.minimum(np.arange(width) * 10 // width, 9)]
    return np.repeat(np.repeat(row[None, :, None], height, 0), 3, 2)


def number_in(frame: np.ndarray) -> int:
    grey = frame.mean(axis=(0, 2))
    centres = [(2 * bit + 1) * frame.shape[1] // 20 for bit in range(10)]
    return sum(int(grey[c] > 125) << bit for bit, c in enumerate(centres))


def video_bytes(
    fmt: str = "mp4",
    codec: str = "libx264",
    n: int = 48,
    pts: list[int] | None = None,
    pix_fmt: str = "yuv420p",
    turn: int = 0,
    rate: int = 24,
    size: tuple[int, int] = (W, H),
    noise: int = 0,
    movflags: str = "",
    file: Path | None = None,
    **options: str,
) -> bytes:
    out = io.BytesIO()
    rng = np.random.default_rng(0)
    reorder = {} if codec in ("mjpeg", "ffv1") else {"g": "12", "bf": "2"}
    with av.open(str(file) if file else out, "w", format=fmt, container_options={"movflags": movflags} if movflags else {}) as container:
        stream = container.add_stream(codec, rate=rate, options={**reorder, **options})
        stream.width, stream.height, stream.pix_fmt = *size, pix_fmt
        stream.codec_context.time_base = Fraction(1, rate)
        if turn:
            stream.set_display_rotation(turn)
        for i in range(n):
            picture = painted(i, *size) + rng.integers(0, noise + 1, (size[1], size[0], 1), np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=pix_fmt)
            frame.pts, frame.time_base = (pts[i] if pts else i), Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return out.getvalue()


def image_bytes(image: Image.Image, fmt: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format=fmt, **options)
    return out.getvalue()


def animation_bytes(fmt: str, n: int = 5, durations: list[int] | int = 200, **options: object) -> bytes:
    pictures = [Image.fromarray(painted(i + 1)) for i in range(n)]
    return image_bytes(pictures[0], fmt, save_all=True, append_images=pictures[1:], duration=durations, loop=0, **options)


def refused(source: object, *words: str, **options: object) -> str:
    with pytest.raises(DataError) as caught:
        open_medium(source, **options)
    text = str(caught.value)
    for word in words:
        assert word in text, text
    assert len(text) < 600
    text.encode("utf-8")  # a lone surrogate would fail in every log
    return text


@pytest.fixture(scope="module")
def mp4() -> bytes:
    return video_bytes()


# ---- identity, names, sources ----


def test_an_image_is_known_by_its_bytes(tmp_path):
    data = image_bytes(Image.fromarray(painted(5)))
    path = tmp_path / "five.png"
    path.write_bytes(data)
    with (
        open_medium(path) as medium,
        open_medium(data, name="five") as same,
        open_medium("data:image/png;base64," + base64.b64encode(data).decode()) as url,
    ):
        assert medium.sha256 == same.sha256 == url.sha256 == hashlib.sha256(data).hexdigest()
        assert (medium.kind, medium.width, medium.height, medium.num_frames, medium.fps, medium.duration_s) == ("image", W, H, 1, None, 0.0)
        assert medium.info.name == "five.png" and medium.path == path and same.path is None and same.info.name == "five"
        assert medium.times_s.tolist() == [0.0]
        assert np.array_equal(medium.frame(0), painted(5)) and np.array_equal(url.frame(0), painted(5))
        assert json.loads(json.dumps(asdict(medium.info))) == asdict(medium.info)


def test_frames_are_read_only_and_outlive_the_medium(mp4):
    medium = open_medium(mp4)
    frame = medium.frame(3)
    with pytest.raises(ValueError):
        frame[0, 0] = 0
    medium.close()
    assert number_in(frame) == 3
    with pytest.raises(ValueError, match="closed"):
        medium.frame(3)


def test_sources_that_are_no_files(tmp_path):
    refused("", "empty")
    refused(b"", "0 bytes")
    refused(17, "int")
    refused("https://example.org/a.png", "Download")
    refused("file:///etc/hostname", "address")
    refused("data:image/png,abc", "base64")
    refused("data:image/png;base64,@@@@", "base64 is broken")
    refused("data:image/png;base64,", "0 bytes")
    refused(tmp_path, "folder")
    refused(tmp_path / "none.png", "none.png", "No such file")
    refused("a" * 5000, "too long")
    refused("a\0b.png", "null")
    refused("\ud800.png")
    refused("/dev/zero", "device")
    (tmp_path / "empty.mp4").touch()
    refused(tmp_path / "empty.mp4", "empty.mp4", "0 bytes")


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "pipe")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_forbidden_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"x")
    path.chmod(0)
    refused(path, "Permission denied")


def test_links_and_odd_names_work(tmp_path):
    path = tmp_path / "bild \n–\x07.png"
    path.write_bytes(image_bytes(Image.fromarray(painted(1))))
    (tmp_path / "link").symlink_to(path)
    assert open_medium(tmp_path / "link").width == W
    assert open_medium(str(path)).info.name == "bild \\n–\\x07.png"


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"hello, this is text\n" * 30, "text"),
        (b"\x7fELF\x02\x01\x01" + bytes(200), "program"),
        (b"PK\x03\x04" + bytes(100), "zip"),
        (b"%PDF-1.7\n%\xe2\xe3", "PDF"),
        (bytes(5000), "zeros"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00heicmif1" + bytes(64), "HEIC"),
        (b"\x00\x00\x00\x18ftypisom\x00\x00\x02\x00isomiso2" + bytes(64), "moov"),
        (b"#EXTM3U\n#EXT-X-VERSION:3\n#EXTINF:1,\nfile:///etc/passwd\n", "playlist"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "playlist"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "text"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "text"),
        (random.Random(0).randbytes(4000), "neither"),
        (b"\x89PNG\r\n\x1a\n", "PNG"),
        (b"II*\0" + bytes(60), "a TIFF image"),
        (b"MM\0*" + bytes(60), "a TIFF image"),
        (b"BM\x40\0\0\0\0\0\0\0\x36", "a BMP image"),
        (b"\xff", "1 bytes"),
    ],
)
def test_what_is_neither_image_nor_video(data, word):
    refused(data, word)


# ---- images ----


def test_deep_greys_are_scaled_not_cut(tmp_path):
    deep = np.array([[0, 257, 32896, 65535]], np.uint16)
    for fmt in ("PNG", "TIFF"):
        assert open_medium(image_bytes(Image.fromarray(deep), fmt)).frame(0)[0, :, 0].tolist() == [0, 1, 128, 255]
    floats = Image.fromarray(np.array([[0.0, 0.5, 1.0, math.nan]], np.float32))
    assert open_medium(image_bytes(floats, "TIFF")).frame(0)[0, :, 1].tolist() == [0, 128, 255, 0]
    stretched = Image.fromarray(np.array([[-1e38, 0.0, 1e38, math.inf]], np.float32))
    assert open_medium(image_bytes(stretched, "TIFF")).frame(0)[0, :, 1].tolist() == [0, 128, 255, 0]
    wide = Image.fromarray(np.array([[-100, 0, 100]], np.int32))
    assert open_medium(image_bytes(wide, "TIFF")).frame(0)[0, :, 2].tolist() == [0, 128, 255]


def test_transparency_is_laid_over_white():
    clear = np.array([[[10, 20, 30, 0], [10, 20, 30, 255], [0, 0, 0, 128]]], np.uint8)
    expected = [[255, 255, 255], [10, 20, 30], [127, 127, 127]]
    assert open_medium(image_bytes(Image.fromarray(clear))).frame(0)[0].tolist() == expected
    assert open_medium(image_bytes(Image.fromarray(clear), "WEBP", lossless=True, exact=True)).frame(0)[0].tolist() == expected
    grey = (
        Image.fromarray(clear[..., 2:].copy(), "LA") if False else Image.merge("LA", [Image.new("L", (2, 1), 0), Image.new("L", (2, 1), 0)])
    )
    assert open_medium(image_bytes(grey)).frame(0).tolist() == [[[255] * 3] * 2]
    palette = Image.new("P", (2, 1))
    palette.putpalette([200, 0, 0, 0, 200, 0])
    palette.putpixel((1, 0), 1)
    assert open_medium(image_bytes(palette, transparency=0)).frame(0)[0].tolist() == [[255, 255, 255], [0, 200, 0]]
    assert open_medium(image_bytes(palette, transparency=b"\x80\xff")).frame(0)[0].tolist() == [[227, 127, 127], [0, 200, 0]]
    keyed = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    assert open_medium(image_bytes(keyed, transparency=(1, 2, 3))).frame(0)[0].tolist() == [[255, 255, 255], [4, 5, 6]]


def test_modes_and_pages():
    ones = Image.fromarray(np.array([[True, False]]))
    assert open_medium(image_bytes(ones)).frame(0)[0, :, 0].tolist() == [255, 0]
    cmyk = Image.new("CMYK", (16, 16), (255, 0, 0, 0))  # all cyan: Adobe JPEGs store it inverted
    red, green, blue = open_medium(image_bytes(cmyk, "JPEG", quality=95)).frame(0)[8, 8].tolist()
    assert red < 20 and green > 150 and blue > 200
    pages = [Image.fromarray(painted(i)) for i in (7, 8)]
    medium = open_medium(image_bytes(pages[0], "TIFF", save_all=True, append_images=pages[1:]))
    assert medium.kind == "image" and number_in(medium.frame(0)) == 7
    mpo = open_medium(image_bytes(pages[0], "MPO", save_all=True, append_images=pages[1:]))
    assert mpo.kind == "image" and number_in(mpo.frame(0)) == 7


@pytest.mark.parametrize("fmt", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize(
    ("orientation", "corner"), [(1, "TL"), (2, "TR"), (3, "BR"), (4, "BL"), (5, "TL"), (6, "TR"), (7, "BR"), (8, "BL")]
)
def test_exif_orientation_is_applied(fmt, orientation, corner):
    array = np.zeros((32, 64, 3), np.uint8)
    array[:12, :24] = 255  # a white patch in the stored picture's upper left
    exif = Image.Exif()
    exif[0x0112] = orientation
    medium = open_medium(image_bytes(Image.fromarray(array), fmt, exif=exif))
    assert (medium.width, medium.height) == ((64, 32) if orientation < 5 else (32, 64))
    y = slice(0, 8) if corner[0] == "T" else slice(-8, None)
    x = slice(0, 8) if corner[1] == "L" else slice(-8, None)
    assert medium.frame(0)[y, x].min() > 200
    assert medium.frame(0).mean() < 80


@pytest.mark.parametrize("fmt", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "JPEG2000", "GIF"])
def test_a_cut_image_is_one_clear_error(fmt):
    noise = np.random.default_rng(0).integers(0, 255, (80, 80, 3), np.uint8)
    data = image_bytes(Image.fromarray(noise), fmt)
    for keep in (0.02, 0.3, 0.7, 0.95):
        refused(data[: int(len(data) * keep)], "bytes>", f"{int(len(data) * keep)}" if keep < 0.03 else "")


def test_ten_to_the_nine_pixels_are_refused_by_the_header():
    started = time.perf_counter()
    header = b"P6\n100000 10000\n255\n"
    text = refused(header + bytes(100), "1000000000 pixels", "100000000 allowed")
    assert "178956970" not in text and "decompression" not in text  # Pillow's own limit, which is not the one here
    small = image_bytes(Image.fromarray(painted(0)))
    refused(small, "96x64", "6144", "6000", max_pixels=6000)
    assert open_medium(small, max_pixels=6144).width == W
    assert time.perf_counter() - started < 1
    refused(b"P6\n0 5\n255\n")


def test_an_image_is_decoded_again_after_the_cache_dropped_it():
    medium = open_medium(image_bytes(Image.fromarray(painted(9))))
    medium._cache.clear()
    assert np.array_equal(medium.frame(0), painted(9))


# ---- animations ----


@pytest.mark.parametrize(("fmt", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("PNG", {"default_image": True})])
def test_an_animation_is_a_video(fmt, options):
    durations = [100, 300, 200, 100, 500]
    data = animation_bytes(fmt, 6 if options.get("default_image") else 5, durations, **options)
    medium = open_medium(data)
    shift = 2 if options.get("default_image") else 1
    assert (medium.kind, medium.num_frames, medium.width, medium.height) == ("video", 5, W, H)
    assert medium.times_s == pytest.approx([0, 0.1, 0.4, 0.6, 0.7]) and medium.duration_s == pytest.approx(1.2)
    assert [number_in(medium.frame(i)) for i in (4, 0, 3, 2, 1)] == [i + shift for i in (4, 0, 3, 2, 1)]
    assert [number_in(f) for f in medium.frames(1, 99, 2)] == [1 + shift, 3 + shift]


def test_one_frame_is_an_image_and_no_delay_is_a_tenth():
    assert open_medium(animation_bytes("GIF", 1)).kind == "image"
    assert open_medium(animation_bytes("GIF", 3, 0)).duration_s == pytest.approx(0.3)


def test_a_cut_gif_keeps_its_whole_frames():
    data = animation_bytes("GIF", 8)
    medium = open_medium(data[: len(data) * 6 // 10])
    assert 2 <= medium.num_frames < 8
    assert [number_in(f) for f in medium.frames(0, 99)] == list(range(1, medium.num_frames + 1))


def test_a_frame_past_the_canvas_is_cropped():
    data = bytearray(animation_bytes("GIF", 3))
    descriptor = data.rindex(b"!\xf9") + 8  # of the last frame, right after its control block
    assert data[descriptor] == 0x2C
    data[descriptor + 1 : descriptor + 3] = W.to_bytes(2, "little")  # moved out to the right
    medium = open_medium(bytes(data))
    assert [f.shape for f in medium.frames(0, 9)] == [(H, W, 3)] * 3
    assert open_medium(bytes(data), max_pixels=W * H).num_frames == 2


def test_an_endless_gif_is_refused(monkeypatch):
    monkeypatch.setattr("pixelis.core.media_image.MAX_ANIMATION_PIXELS", 4 * W * H)
    refused(animation_bytes("GIF", 8), "96x64")
    assert open_medium(animation_bytes("GIF", 4)).num_frames == 4


def test_a_small_file_cannot_ask_for_minutes(monkeypatch):
    assert MAX_ANIMATION_PIXELS <= 500_000_000  # 20 frames of 5000x5000: a 20 KB file, and seconds
    monkeypatch.setattr("pixelis.core.media_image.MAX_ANIMATION_PIXELS", 4 * MIN_FRAME_PIXELS)
    dots = [Image.fromarray(np.full((1, 1, 3), 30 * i, np.uint8)) for i in range(8)]
    refused(image_bytes(dots[0], "GIF", save_all=True, append_images=dots[1:]), "more than 4 frames of 1x1", "too long to open")


def test_floats_in_a_tiff_that_are_not_read_are_called_a_tiff():
    import cv2

    written, data = cv2.imencode(".tiff", np.zeros((8, 8), np.float64))
    assert written
    refused(data.tobytes(), "a TIFF image", "of a kind that is not read", "8 or 16 bits")


# ---- videos ----

STREAMS = [
    ("mp4", "libx264", {}),
    ("mp4", "libx264", {"x264-params": "open-gop=1:keyint=12:bframes=3"}),
    ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    ("mp4", "mpeg4", {}),
    ("mp4", "libx265", {"x265-params": "log-level=none:keyint=12:bframes=3:open-gop=1"}),
    ("matroska", "libx264", {}),
    ("webm", "libvpx", {"auto-alt-ref": "1", "lag-in-frames": "12", "deadline": "realtime"}),
    ("webm", "libvpx-vp9", {"auto-alt-ref": "1", "lag-in-frames": "12", "deadline": "realtime"}),
    ("mpegts", "libx264", {}),
    ("mpegts", "mpeg2video", {"flags": "+ildct+ilme"}),
    ("avi", "mpeg4", {}),
    ("avi", "libx264", {}),
    ("avi", "mjpeg", {"pix_fmt": "yuvj420p"}),
    ("h264", "libx264", {}),
    ("flv", "libx264", {}),
    ("nut", "ffv1", {"pix_fmt": "yuv420p10le"}),
    ("mp4", "libx264", {"pix_fmt": "yuv420p10le"}),
    ("mp4", "libx264", {"pix_fmt": "gray"}),
    ("matroska", "ffv1", {"pix_fmt": "yuva420p"}),
]


@pytest.mark.parametrize(("fmt", "codec", "options"), STREAMS, ids=lambda v: str(v)[:40])
def test_every_frame_by_number_in_any_order(fmt, codec, options):
    data = video_bytes(fmt, codec, **options)
    with open_medium(data) as medium:
        assert (medium.kind, medium.num_frames, medium.width, medium.height) == ("video", 48, W, H)
        assert medium.duration_s == pytest.approx(2.0, abs=0.06) or fmt == "h264"
        assert np.all(np.diff(medium.times_s) > 0) and medium.times_s[0] == 0.0
        in_order = list(medium.frames(0, 48))
        assert [number_in(f) for f in in_order] == list(range(48))
        order = random.Random(1).sample(range(48), 48)
        for i in order:
            assert np.array_equal(medium.frame(i), in_order[i]), i
    with open_medium(data, cache_bytes=1) as medium:
        for i in (47, 0, 46, 12, 11, 13, 30, 31, 35, 29):
            assert np.array_equal(medium.frame(i), in_order[i]), i
        assert [number_in(f) for f in medium.frames(5, 46, 7)] == [5, 12, 19, 26, 33, 40]
        assert [number_in(f) for f in medium.frames(3, 999, 40)] == [3, 43]
        assert list(medium.frames(9, 9)) == []


def test_times_of_a_variable_frame_rate_come_from_its_stamps():
    stamps = [0, 1, 2, 10, 30, 31]
    medium = open_medium(video_bytes(n=6, pts=stamps))
    assert medium.times_s == pytest.approx(np.array(stamps) / 24)
    assert [medium.frame_at(t) for t in (0.0, 0.02, 0.03, 0.4, 0.8, 0.9, 1.25, 1.3)] == [0, 0, 1, 3, 3, 4, 4, 5]
    assert number_in(medium.frame(medium.frame_at(10 / 24))) == 3


def test_the_first_frame_is_at_zero_whatever_its_stamp():
    medium = open_medium(video_bytes("matroska", n=6, pts=[100 + i for i in range(6)]))
    assert medium.times_s[0] == 0.0 and medium.duration_s == pytest.approx(0.25, abs=0.01)


@pytest.mark.parametrize(("turn", "corner"), [(0, "TL"), (90, "BL"), (180, "BR"), (-90, "TR")])
def test_a_turned_video_is_shown_upright(turn, corner):
    out = io.BytesIO()
    array = np.zeros((H, W, 3), np.uint8)
    array[:24, :32] = 255
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = W, H, "yuv420p"
        if turn:
            stream.set_display_rotation(turn)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="rgb24")))
        container.mux(stream.encode())
    medium = open_medium(out.getvalue())
    assert (medium.width, medium.height) == ((H, W) if turn in (90, -90) else (W, H))
    frame = medium.frame(0)
    y = slice(0, 16) if corner[0] == "T" else slice(-16, None)
    x = slice(0, 16) if corner[1] == "L" else slice(-16, None)
    assert frame[y, x].min() > 200 and frame.mean() < 80


def test_alpha_in_a_video_is_laid_over_white():
    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as container:
        stream = container.add_stream("ffv1", rate=24)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "bgra"
        array = np.zeros((32, 32, 4), np.uint8)
        array[:, 16:, 3] = 255
        container.mux(stream.encode(av.VideoFrame.from_ndarray(array, format="bgra")))
        container.mux(stream.encode())
    frame = open_medium(out.getvalue()).frame(0)
    assert frame[:, :16].min() == 255 and frame[:, 16:].max() == 0


def test_a_stream_that_changes_its_size_keeps_the_first():
    data = video_bytes("h264", n=12) + video_bytes("h264", n=12, size=(192, 128))
    medium = open_medium(data)
    assert medium.num_frames == 24
    assert {f.shape for f in medium.frames(0, 24)} == {(H, W, 3)}


def test_two_recordings_in_one_file_play_one_after_the_other():
    data = video_bytes("mpegts", n=24) + video_bytes("mpegts", n=24)  # the stamps start again in the middle
    medium = open_medium(data)
    assert medium.num_frames == 48
    assert [number_in(f) for f in medium.frames(0, 48)] == [*range(24), *range(24)]


def audio_bytes(fmt: str, codec: str) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=fmt) as container:
        stream = container.add_stream(codec, rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4410 * 2), np.int16), format="s16", layout="stereo")
        frame.rate = 44100
        for resampled in av.AudioResampler(stream.format, stream.layout, 44100, 1024).resample(frame):
            container.mux(stream.encode(resampled))
        container.mux(stream.encode())
    return out.getvalue()


@pytest.mark.parametrize(("fmt", "codec"), [("mp4", "aac"), ("wav", "pcm_s16le"), ("matroska", "aac")])
def test_sound_alone_has_no_pictures(fmt, codec):
    refused(audio_bytes(fmt, codec), "no video stream", "audio")


def test_sound_beside_the_pictures_changes_nothing():
    out = io.BytesIO()
    with (
        av.open(out, "w", format="mp4") as container,
        av.open(io.BytesIO(audio_bytes("mp4", "aac"))) as sound,
        av.open(io.BytesIO(video_bytes())) as pictures,
    ):
        streams = {source: container.add_stream_from_template(source.streams[0]) for source in (sound, pictures)}
        for source, stream in streams.items():
            for packet in source.demux():
                if packet.dts is not None:
                    packet.stream = stream
                    container.mux(packet)
    medium = open_medium(out.getvalue())
    assert medium.num_frames == 48 and [number_in(medium.frame(i)) for i in (47, 0, 20)] == [47, 0, 20]


def test_a_video_larger_than_allowed(mp4):
    refused(mp4, "96x64", "6144", "6000", max_pixels=6000)


def test_too_many_frames(mp4, monkeypatch):
    monkeypatch.setattr("pixelis.core.media_index.MAX_FRAMES", 47)
    refused(mp4, "more than 47 frames")
    refused(video_bytes("h264"), "more than 47 frames")


@pytest.mark.parametrize("fmt", ["matroska", "mpegts", "avi", "fragments"])
@pytest.mark.parametrize("share", [0.35, 0.6, 0.83])
def test_a_cut_video_keeps_the_frames_before_the_cut(fmt, share):
    flags = "frag_keyframe+empty_moov" if fmt == "fragments" else ""
    how = {"codec": "mjpeg", "pix_fmt": "yuvj420p"} if fmt == "avi" else {"crf": "12"}
    data = video_bytes("mp4" if flags else fmt, noise=20, movflags=flags, **how)
    medium = open_medium(data[: int(len(data) * share)])
    assert 48 * share - 13 < medium.num_frames < 48 * share + 3  # a cut fragment is lost whole
    numbers = [number_in(f) for f in medium.frames(0, 99)]
    assert numbers[:-3] == list(range(medium.num_frames - 3))  # the last may be half concealed
    assert medium.duration_s == pytest.approx(medium.num_frames / 24, abs=0.08)


def test_a_cut_mp4_with_its_index_in_front(tmp_path):
    path = tmp_path / "front.mp4"
    video_bytes(file=path, movflags="faststart", noise=20, crf="12")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    medium = open_medium(path)
    assert 28 < medium.num_frames < 38
    assert number_in(medium.frame(medium.num_frames - 3)) == medium.num_frames - 3
    refused(video_bytes()[:1500], "moov")  # index at the end, and gone


def test_damage_looks_the_same_whatever_was_read_before():
    data = bytearray(video_bytes(n=48, size=(320, 192)))
    begin = bytes(data).index(b"mdat")
    for seed in range(5):
        rng = random.Random(seed)
        bad = bytearray(data)
        for _ in range(12):
            bad[rng.randrange(begin + 900, begin + len(data) // 2)] = rng.randrange(256)

        def read(medium: Medium, i: int) -> bytes | None:
            try:
                return medium.frame(i).tobytes()
            except DataError:
                return None

        try:
            one, two = open_medium(bytes(bad)), open_medium(bytes(bad), cache_bytes=1)
        except DataError:
            continue
        in_order = [read(one, i) for i in range(one.num_frames)]
        for i in rng.sample(range(one.num_frames), 16):
            assert read(two, i) == in_order[i]


def test_nine_threads_on_one_medium(mp4):
    medium = open_medium(mp4, cache_bytes=W * H * 3 * 4)
    wrong: list = []

    def work(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(25):
            i = rng.randrange(48)
            if number_in(medium.frame(i)) != i:
                wrong.append(i)
        wrong.extend(n for n, f in zip(range(seed, 48, 5), medium.frames(seed, 48, 5), strict=True) if number_in(f) != n)

    threads = [threading.Thread(target=work, args=(s,)) for s in range(9)]
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert not wrong and not any(t.is_alive() for t in threads)


def test_the_cache_keeps_to_its_limit(mp4):
    medium = open_medium(mp4, cache_bytes=W * H * 3 * 5)
    for i in range(48):
        medium.frame(i)
        assert sum(a.nbytes for a in medium._cache.values()) <= W * H * 3 * 5
    assert list(medium._cache) == [43, 44, 45, 46, 47]
    assert medium.frame(44) is medium.frame(44)


# ---- times and numbers ----


def test_times_outside_are_the_agents_mistake(mp4):
    medium = open_medium(mp4)  # 48 frames at 24 per second
    assert [medium.frame_at(t) for t in (0, 0.02, 0.03, 1.0, 1.96, 2.0, 2.04, -0.04)] == [0, 0, 1, 24, 47, 47, 47, 0]
    for bad in (math.nan, math.inf, -math.inf, -0.1, 2.2, 10**400):
        with pytest.raises(ToolError, match=r"2\.0 s long") as caught:
            medium.frame_at(bad)
        assert caught.value.kind == "out_of_time"
    for bad in ("1", None, True):
        with pytest.raises(ToolError) as caught:
            medium.frame_at(bad)
        assert caught.value.kind == "bad_arguments"
    for bad in (-1, 48, 10**30):
        with pytest.raises(ToolError, match=r"0 to 47"):
            medium.frame(bad)
    image = open_medium(png_bytes(painted(0)))
    assert image.frame_at(0.0) == 0
    with pytest.raises(ToolError, match="image"):
        image.frame_at(1.0)


def test_sample_is_even():
    medium = open_medium(video_bytes(n=11))
    assert medium.sample(3) == [0, 5, 10] and medium.sample(1) == [5] and medium.sample(11) == medium.sample(99) == list(range(11))
    assert medium.sample(4) == [0, 3, 7, 10]
    for k in range(2, 11):
        gaps = np.diff(medium.sample(k))
        assert len(gaps) == k - 1 and gaps.max() - gaps.min() <= 1
    with pytest.raises(ValueError):
        medium.sample(0)


# ---- PNG ----


@given(st.integers(1, 9), st.integers(1, 9), st.integers(0, 2**32 - 1))
def test_png_there_and_back(height, width, seed):
    array = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    data = png_bytes(array)
    assert np.array_equal(decode_png(data), array) and data == png_bytes(array[::-1][::-1])


def test_png_refuses_what_it_cannot_hold():
    assert decode_png(png_bytes(np.full((2, 3), 7, np.uint8))).tolist() == [[[7] * 3] * 3] * 2
    for bad in (np.zeros((2, 2, 4), np.uint8), np.zeros((2, 2, 3)), np.zeros((0, 2, 3), np.uint8)):
        with pytest.raises(ValueError):
            png_bytes(bad)
    for bad in (b"", b"x", png_bytes(painted(3))[:60], image_bytes(Image.fromarray(painted(3)), "JPEG")):
        with pytest.raises(DataError):
            decode_png(bad)


# ---- hostile bytes ----


def originals() -> dict[str, bytes]:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 40, 3), np.uint8))
    return {
        "png": image_bytes(picture),
        "jpeg": image_bytes(picture, "JPEG"),
        "tiff": image_bytes(picture, "TIFF", compression="tiff_lzw"),
        "gif": animation_bytes("GIF"),
        "apng": animation_bytes("PNG"),
        "webp": animation_bytes("WEBP"),
        "mp4": video_bytes(n=20),
        "mkv": video_bytes("matroska", "mpeg4", n=20),
        "ts": video_bytes("mpegts", "mpeg2video", n=20),
        "avi": video_bytes("avi", "mpeg4", n=20),
        "vp9": video_bytes("webm", "libvpx-vp9", n=20, deadline="realtime"),
    }


ORIGINALS = originals()


@pytest.mark.parametrize("kind", sorted(ORIGINALS))
@settings(max_examples=25, deadline=20_000, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_bytes_open_or_end_in_one_error(kind, data):
    bad = bytearray(ORIGINALS[kind])
    for _ in range(data.draw(st.integers(1, 6))):
        place = data.draw(st.integers(0, len(bad) - 1))
        edge = data.draw(st.sampled_from(["any", "head", "tail"]))  # headers and indices live at the edges
        place = {"any": place, "head": place % 200, "tail": len(bad) - 1 - place % 900 % len(bad)}[edge] % len(bad)
        bad[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del bad[data.draw(st.integers(1, len(bad))) :]
    try:
        medium = open_medium(bytes(bad), max_pixels=1_000_000)
    except DataError:
        return
    assert medium.num_frames >= 1 and math.isfinite(medium.duration_s)
    for i in range(min(medium.num_frames, 40)):
        try:
            assert medium.frame(i).shape == (medium.height, medium.width, 3)
        except DataError as error:
            assert "frame" in str(error) or "decoded" in str(error) or "cut" in str(error)
    medium.close()


# ---- size ----


def test_forty_minutes_fit_in_little_memory(tmp_path):
    path = tmp_path / "long.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25, options={"g": "250"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        frames = [av.VideoFrame.from_ndarray(painted(i, 64, 48), format="rgb24").reformat(format="yuv420p") for i in range(16)]
        for i in range(40 * 60 * 25):
            frame = frames[i // 25 % 16]
            frame.pts, frame.time_base = i, Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    script = f"""
        import re, time
        from pixelis.core.media import open_medium
        started = time.perf_counter()
        medium = open_medium({str(path)!r})
        opened_s = time.perf_counter() - started
        grey = [float(medium.frame(medium.frame_at(t)).mean()) for t in (0.5, 2399.5, 1200.5, 60.5)]
        # getrusage would count what the parent held when it forked; this is the new program's own peak
        peak_mb = int(re.search("VmHWM:\\\\s*(\\\\d+)", open("/proc/self/status").read())[1]) / 1024
        print(medium.num_frames, medium.duration_s, opened_s, peak_mb)
    """
    run = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=100, check=True)
    frames_read, duration_s, opened_s, peak_mb = map(float, run.stdout.split())
    assert frames_read == 60_000 and duration_s == pytest.approx(2400.0)
    assert opened_s < 20 and peak_mb < 400, run.stdout


# ---- real files ----

needs_media = pytest.mark.skipif(not MEDIA.is_dir(), reason="no shared media folder (set PIXELIS_MEDIA)")


@needs_media
def test_real_images_open():
    paths = sorted(itertools.islice((MEDIA / "coco").rglob("*.jpg"), 10)) + sorted((MEDIA / "ocr").glob("*.jpeg"))
    assert paths
    for path in paths:
        with open_medium(path) as medium:
            assert medium.frame(0).shape == (medium.height, medium.width, 3)


@needs_media
def test_a_real_video_reads_the_same_both_ways():
    for path in sorted((MEDIA / "video").glob("*.mp4")):
        with open_medium(path) as medium:
            wanted = range(0, medium.num_frames, 17)
            in_order = list(medium.frames(0, medium.num_frames, 17))
            for i in reversed(wanted):
                assert np.array_equal(medium.frame(i), in_order[i // 17])
