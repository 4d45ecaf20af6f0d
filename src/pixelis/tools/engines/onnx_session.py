"""How a model in an ONNX file is opened, for every engine that runs one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import cv2

from pixelis.core.errors import NotInstalled

if TYPE_CHECKING:
    import onnxruntime

MOST_THREADS = 4
"""Inside one run; the networks here are too small for more."""


def onnx_session(model: Path | bytes, *, threads: int | None = None, keeps_memory: bool = True) -> onnxruntime.InferenceSession:
    """A session on the CPU; running one is safe from several threads. Equal inputs give equal bytes, however many threads it has.

    Args:
        model: its file, or what stands in it.
        threads: inside one run; None takes as many as OpenCV has in this process, which a worker that owns one core sets to 1.
        keeps_memory: whether the largest buffers of a run stay for the next, which suits inputs of one size.

    Raises:
        NotInstalled: onnxruntime is missing.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise NotInstalled("onnxruntime", "pip install onnxruntime") from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or max(1, min(cv2.getNumThreads(), MOST_THREADS))
    options.inter_op_num_threads = 1
    # Threads that spin while they wait are slow company: on a busy machine they take the cores that the others need.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.enable_cpu_mem_arena = keeps_memory
    options.log_severity_level = 3  # some graphs carry unused initialisers; the warnings say nothing to a user
    return onnxruntime.InferenceSession(model if isinstance(model, bytes) else str(model), options, providers=["CPUExecutionProvider"])
