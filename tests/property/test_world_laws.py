"""Laws of PixelWorld's pieces: the PNG writer loses nothing, chance stays in its bounds, the lossy block transform is exact arithmetic."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pixelis.data.world.encode import png_bytes
from pixelis.data.world.fonts import FONTS, text_cover
from pixelis.data.world.layouts import Crowded, Placer
from pixelis.data.world.raster import SHAPES, shape_cover
from pixelis.data.world.rng import Rng
from pixelis.data.world.score import fold
from pixelis.data.world.shifts import SHIFTS, Shift, apply


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(1, 700), st.integers(0, 10**9), st.sampled_from(["noise", "flat", "runs", "rare"]))
def test_png_writer_loses_nothing(height, width, seed, kind):
    rng = Rng("png", seed)
    image = rng.bytes_array((height, width, 3))
    if kind == "flat":
        image[:] = seed % 256
    elif kind == "runs":
        image[:] = np.repeat(rng.bytes_array((height, -(-width // 97), 1)), 97, axis=1)[:, :width]
    elif kind == "rare":  # a few values very rare, so that long codes occur
        image = np.where(image < 250, 7, image).astype(np.uint8)
    with Image.open(io.BytesIO(png_bytes(image))) as read:
        assert np.array_equal(np.asarray(read), image)


def test_code_lengths_stay_within_deflates_limit():
    # Counts that grow like Fibonacci's numbers ask for codes longer than 15 bits.
    sizes, a, b = [], 1, 1
    while sum(sizes) + a < 1_200_000:
        sizes.append(a)
        a, b = b, a + b
    assert len(sizes) > 25
    values = np.repeat(np.arange(len(sizes), dtype=np.uint8), sizes)
    image = np.resize(Rng("fibonacci").shuffled(values.tolist()), (600, 640, 3)).astype(np.uint8)
    image = np.cumsum(image, axis=0, dtype=np.uint8)  # undo the writer's filter, so that its counts are these
    with Image.open(io.BytesIO(png_bytes(image))) as read:
        assert np.array_equal(np.asarray(read), image)


@given(st.integers(), st.integers(-(10**6), 10**6), st.integers(0, 10**6))
def test_integers_stay_in_bounds(seed, low, span):
    rng = Rng("bounds", seed)
    assert all(low <= rng.integer(low, low + span) <= low + span for _ in range(20))
    assert all(0.0 <= rng.uniform() < 1.0 for _ in range(20))


def test_chance_is_even():
    rng = Rng("even")
    counts = np.bincount([rng.integer(0, 4) for _ in range(20_000)], minlength=5)
    assert abs(counts - 4_000).max() < 250  # four standard deviations are 226
    noise = Rng("noise").bell((200, 200))
    assert abs(noise.mean()) < 3 and noise.std() == pytest.approx(147.8, rel=0.02)


@pytest.mark.parametrize("shape", SHAPES)
def test_shapes_have_the_size_asked_for(shape):
    for size in (16, 23, 40, 60):
        height, width = shape_cover(shape, size).shape
        assert size * 0.68 <= min(height, width) and max(height, width) <= size + 2
        if shape not in ("triangle", "star", "pentagon"):
            cover = shape_cover(shape, size)
            assert np.array_equal(cover, cover[:, ::-1]) and np.array_equal(cover, cover[::-1])


@pytest.mark.parametrize("font", FONTS)
def test_letters_differ_and_keep_their_height(font):
    covers = {char: text_cover(char, font, 24).tobytes() for char in "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"}
    assert len(set(covers.values())) == 36
    assert all(22 <= text_cover(char, font, 24).shape[0] - 2 <= 31 for char in "AEHTX17")


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.lists(st.tuples(st.integers(10, 90), st.integers(10, 90)), min_size=1, max_size=12))
def test_placed_things_never_touch(seed, sizes):
    placer = Placer(Rng("placer", seed), "scatter", 640, 480, margin_px=14)
    boxes = []
    for width, height in sizes:
        try:
            x, y = placer.place(width, height, gap_px=5)
        except Crowded:
            continue
        assert 14 <= x <= 640 - 14 - width and 14 <= y <= 480 - 14 - height
        boxes.append(placer.taken[-1])
    assert all(a.grow(4).intersect(b).is_empty for i, a in enumerate(boxes) for b in boxes[i + 1 :])


@pytest.mark.parametrize("kind", SHIFTS)
def test_shifts_keep_size_and_are_repeatable(kind):
    image = Rng("shift").bytes_array((50, 70, 3))
    once, again = (next(apply(Shift(kind, 4), iter([image]), is_video=False, rng=Rng("s"))) for _ in range(2))
    assert once.shape == image.shape and once.dtype == np.uint8 and np.array_equal(once, again)


@given(st.text(max_size=60))
def test_folding_twice_is_folding_once(text):
    assert fold(fold(text)) == fold(text)
