"""Sessions of ONNX models: threads change the time, not the bytes, and follow the process's share of the machine."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from pixelis.rollout.workers import workers
from pixelis.tools.engines.ocr_models import DETECTOR, RECOGNISER, model_path
from pixelis.tools.engines.onnx_session import MOST_THREADS, onnx_session
from pixelis.tools.engines.seg_saliency import packaged_weights

SIDES = [(32, 32), (96, 640), (352, 256), (608, 480)]


NETWORKS = {
    "detector": (lambda: model_path(DETECTOR), SIDES),
    "recogniser": (lambda: model_path(RECOGNISER), [(48, 96), (48, 344)]),
    "saliency": (packaged_weights, [(320, 320)]),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_threads_change_no_byte(name):
    path_of, shapes = NETWORKS[name]
    if (path := path_of()) is None:
        pytest.skip("the saliency network's package cannot be installed on this Python")
    rng = np.random.default_rng(0)
    alone, *others = (onnx_session(path, threads=count, keeps_memory=False) for count in (1, 2, MOST_THREADS))
    for height, width in shapes:
        given = {alone.get_inputs()[0].name: rng.uniform(-1, 1, (1, 3, height, width)).astype(np.float32)}
        one = alone.run(None, given)[0]
        assert all(np.array_equal(one, session.run(None, given)[0]) for session in others)
        assert one.std() > 0  # a network that answers the same everywhere would pass


def threads_of_new_session(_: int) -> int:
    return onnx_session(model_path(DETECTOR)).get_session_options().intra_op_num_threads


def test_a_process_has_its_own_threads_and_a_worker_has_one():
    assert threads_of_new_session(0) == min(cv2.getNumThreads(), MOST_THREADS)
    with workers(1) as pool:
        assert pool.submit(threads_of_new_session, 0).result(timeout=120) == 1
