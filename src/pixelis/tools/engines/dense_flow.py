"""Dense optical flow (DIS; Kroeger et al., 2016) of OpenCV, kept from reading past its own memory."""

from __future__ import annotations

import cv2
import numpy as np

LEAST_SIDE = 32
"""OpenCV's fast preset ends at a quarter of the picture and takes patches of 8 pixels there. It chooses its levels by the width alone: a
picture of 100 x 16 pixels ends the process (OpenCV 5.0)."""


class DenseFlow:
    """Of one series of pictures, because OpenCV's object keeps buffers."""

    def __init__(self) -> None:
        self._engine = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_FAST)

    def between(self, one_HW: np.ndarray, two_HW: np.ndarray) -> np.ndarray:
        """Where each pixel of the first picture is found in the second: offsets [H, W, 2] in pixels, x before y.

        Smaller pictures than `LEAST_SIDE` are continued by their edges below and to the right; larger ones are taken as they are.

        Args:
            one_HW, two_HW: uint8 greys of one size.
        """
        height, width = one_HW.shape
        below, beside = max(0, LEAST_SIDE - height), max(0, LEAST_SIDE - width)
        if below or beside:
            one_HW, two_HW = (cv2.copyMakeBorder(grey, 0, below, 0, beside, cv2.BORDER_REPLICATE) for grey in (one_HW, two_HW))
        flow = self._engine.calc(np.ascontiguousarray(one_HW), np.ascontiguousarray(two_HW), None)
        return np.ascontiguousarray(flow[:height, :width])
