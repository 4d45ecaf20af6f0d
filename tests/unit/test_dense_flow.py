"""Dense flow on pictures of any shape: it lives, and finds a shift."""

from __future__ import annotations

import subprocess
import sys

import cv2
import numpy as np
import pytest

from pixelis.tools.engines.dense_flow import DenseFlow

THIN = """
import numpy as np
from pixelis.tools.engines.dense_flow import DenseFlow
rng, flow = np.random.default_rng(0), DenseFlow()
for height, width in ((16, 240), (31, 240), (16, 100), (24, 24), (16, 16), (240, 16)):
    for _ in range(60):
        one, two = rng.integers(0, 256, (2, height, width)).astype(np.uint8)
        assert flow.between(one, two).shape == (height, width, 2)
"""


def test_thin_pictures_do_not_end_the_process():
    # In a process of its own: OpenCV alone dies of a segmentation fault on several of these.
    done = subprocess.run([sys.executable, "-c", THIN], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-400:]


@pytest.mark.parametrize(("height", "width"), [(20, 120), (64, 96), (96, 20)])
def test_a_shift_is_found(height, width):
    noise = np.random.default_rng(1).integers(0, 256, (height + 20, width + 20)).astype(np.uint8)
    ground = cv2.GaussianBlur(noise, (0, 0), 2.5)
    one, two = ground[8 : 8 + height, 8 : 8 + width], ground[8 : 8 + height, 6 : 6 + width]  # what was at x is now at x + 2
    flow = DenseFlow().between(one, two)
    inner = flow[4:-4, 6:-6]
    assert np.median(inner[..., 0]) == pytest.approx(2, abs=0.5) and np.median(inner[..., 1]) == pytest.approx(0, abs=0.5)


def test_large_pictures_are_taken_as_they_are():
    one, two = np.random.default_rng(2).integers(0, 256, (2, 48, 64)).astype(np.uint8)
    plain = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST).calc(one, two, None)
    assert np.array_equal(DenseFlow().between(one, two), plain)
