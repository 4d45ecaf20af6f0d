"""Sessions of ONNX models: threads change the time, not the bytes, and follow the process's share of the machine."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pixelis.rollout.workers import workers
from pixelis.tools.engines.ocr_models import DETECTOR, RECOGNISER, model_path
from pixelis.tools.engines.onnx_session import MOST_THREADS, onnx_session

SIDES = [(32, 32), (96, 640), (352, 256), (608, 480)]


@pytest.mark.parametrize(("name", "shapes"), [(DETECTOR, SIDES), (RECOGNISER, [(48, 96), (48, 344)])])
def test_threads_change_no_byte(name, shapes):
    rng = np.random.default_rng(0)
    alone, beside = (onnx_session(model_path(name), threads=count, keeps_memory=False) for count in (1, 2))
    for height, width in shapes:
        given = {"x": rng.uniform(-1, 1, (1, 3, height, width)).astype(np.float32)}
        one, two = (session.run(None, given)[0] for session in (alone, beside))
        assert np.array_equal(one, two)
        assert one.std() > 0  # a network that answers the same everywhere would pass


def threads_of_new_session(_: int) -> int:
    return onnx_session(model_path(DETECTOR)).get_session_options().intra_op_num_threads


def test_a_process_has_its_own_threads_and_a_worker_has_one():
    assert threads_of_new_session(0) == min(cv2.getNumThreads(), MOST_THREADS)
    with workers(1) as pool:
        assert pool.submit(threads_of_new_session, 0).result(timeout=120) == 1
