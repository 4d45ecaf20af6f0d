"""Quick medians, quantiles and means of squares: to the bit what NumPy and OpenCV give slowly."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from pixelis.tools.engines.prop_colour import name_pixels, names_lit
from pixelis.tools.engines.ranks import counts_of, median, middle_two, quantile
from pixelis.tools.engines.region import resized


@settings(deadline=None)
@given(
    st.sampled_from([np.float32, np.float64]).flatmap(
        lambda kind: arrays(kind, st.integers(1, 40), elements=st.floats(-1e3, 1e3, width=32))
    )
)
def test_the_median_of_floats(values_N):
    found = median(values_N)
    assert found.dtype == values_N.dtype and found == np.median(values_N)


def test_the_median_by_hand():
    assert median(np.array([3.0, 1.0, 2.0])) == 2.0 and median(np.array([4.0, 1.0, 2.0, 8.0])) == 3.0


@settings(deadline=None)
@given(arrays(np.uint8, st.integers(1, 60)), st.floats(0, 1))
def test_ranks_of_bytes(bytes_N, share):
    counts = counts_of(bytes_N)
    assert sum(middle_two(counts)) / 2 == np.median(bytes_N)
    assert quantile(counts, share) == np.quantile(bytes_N, share)


@settings(max_examples=30, deadline=None)
@given(arrays(np.uint8, st.tuples(st.just(3), st.integers(1, 30))), st.floats(1, 2))
def test_names_in_more_light(channels_3N, gain):
    lit_256 = np.clip(np.arange(256, dtype=np.float32) * gain, 0, 255).astype(np.uint8)
    assert np.array_equal(names_lit(channels_3N, lit_256), name_pixels(lit_256[channels_3N].T))


@pytest.mark.parametrize("step", [3, 5])
def test_means_of_squares_with_every_sum(step):
    num_sums = 255 * step * step + 1
    rows = np.minimum(np.maximum(np.arange(num_sums)[:, None] - 255 * np.arange(step * step), 0), 255).astype(np.uint8)  # one square a row
    wide = -(-num_sums // 60)
    squares = np.zeros((60 * wide, step * step), np.uint8)
    squares[:num_sums] = rows
    grey = squares.reshape(60, wide, step, step).transpose(0, 2, 1, 3).reshape(60 * step, wide * step)
    image = np.repeat(grey[..., None], 3, axis=2)
    assert np.array_equal(resized(image, 1 / step), cv2.resize(image, (wide, 60), interpolation=cv2.INTER_AREA))
