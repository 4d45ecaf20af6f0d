"""Pictures of every mode, converted piece by piece: the same bytes as all at once, and little memory."""

from __future__ import annotations

import io
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from pixelis.core import media_rgb
from pixelis.core.media import open_medium
from pixelis.core.media_rgb import over_white, to_rgb

RNG = np.random.default_rng(0)
H, W = 23, 37
COLOURS = RNG.integers(0, 256, (H, W, 4), np.uint8)


def in_mode(mode: str) -> Image.Image:
    return Image.fromarray(COLOURS).convert(mode) if mode in ("RGBA", "LA") else Image.fromarray(COLOURS[..., :3].copy()).convert(mode)


def with_key(mode: str, key: object) -> Image.Image:
    picture = in_mode(mode)
    picture.info["transparency"] = key
    return picture


PICTURES = {
    **{mode: in_mode(mode) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "HSV")},
    "keyed colour": with_key("RGB", tuple(COLOURS[0, 0, :3].tolist())),
    "keyed palette": with_key("P", 7),
    "palette with alpha": with_key("P", bytes(range(256))),
    "16 bits": Image.fromarray(RNG.integers(0, 65536, (H, W), np.uint16)),
    "32 bits": Image.fromarray(RNG.integers(-(2**31), 2**31, (H, W)).astype(np.int32)),
    "few integers": Image.fromarray(RNG.integers(0, 200, (H, W)).astype(np.int32)),
    "floats": Image.fromarray(RNG.random((H, W), np.float32)),
    "wide floats": Image.fromarray(np.where(RNG.random((H, W)) < 0.2, np.nan, RNG.normal(size=(H, W)) * 1e30).astype(np.float32)),
    "no number": Image.fromarray(np.full((H, W), np.inf, np.float32)),
}


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize("tile", [100, 10])  # rows, and parts of rows
def test_the_pieces_are_the_whole(name, tile, monkeypatch):
    whole = to_rgb(PICTURES[name])
    monkeypatch.setattr(media_rgb, "TILE_PIXELS", tile)
    assert np.array_equal(to_rgb(PICTURES[name]), whole)


def test_every_value_over_every_alpha():
    values, alphas = np.meshgrid(np.arange(256), np.arange(256))
    shown = over_white(np.stack([values] * 3 + [alphas], -1).astype(np.uint8))
    assert np.array_equal(shown[..., 0], (values * alphas + 255 * (255 - alphas) + 127) // 255)


def test_greys_are_stretched_by_the_whole_picture_not_by_its_pieces(monkeypatch):
    monkeypatch.setattr(media_rgb, "TILE_PIXELS", 4)
    slope = Image.fromarray((np.arange(16, dtype=np.int32) * 1_000_000).reshape(4, 4))
    assert to_rgb(slope)[..., 0].ravel().tolist() == [17 * i for i in range(16)]  # 255 / 15
    assert to_rgb(Image.fromarray(np.arange(16, dtype=np.float32).reshape(4, 4)))[..., 0].ravel().tolist() == [17 * i for i in range(16)]


@pytest.mark.parametrize(("mode", "kind"), [("RGBA", "PNG"), ("I", "TIFF"), ("F", "TIFF")])
def test_a_large_picture_takes_little_beside_its_result(mode, kind):
    side = 1600
    slope = np.arange(side)[:, None] + np.arange(side)
    array = {"RGBA": np.stack([slope % 256] * 4, -1).astype(np.uint8), "I": slope.astype(np.int32), "F": slope.astype(np.float32)}[mode]
    file = io.BytesIO()
    Image.fromarray(array).save(file, kind)
    tracemalloc.start()
    try:
        open_medium(file.getvalue()).close()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # the file (10 MB uncompressed), the result (7.7 MB), and a few bytes for each of the 262,144 pixels of a piece
    assert peak - len(file.getvalue()) < 3 * side**2 + 16e6
