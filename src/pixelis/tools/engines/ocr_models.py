"""Where the text reader's weights lie, and one ONNX session for each: found in an installed wheel, never fetched.

The `rapidocr` wheel carries PP-OCRv6's small detector and recogniser (Apache-2.0). Only its files are used: importing the
package would set up its own logging and would fetch a missing model by itself.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import importlib.util
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from pixelis.core.errors import NotInstalled
from pixelis.tools.engines.onnx_session import onnx_session
from pixelis.tools.engines.onnx_weights import without_subnormals

if TYPE_CHECKING:
    import onnxruntime

PIP_COMMAND = "pip install rapidocr==3.10.0 onnxruntime"
DETECTOR = "PP-OCRv6_det_small.onnx"
RECOGNISER = "PP-OCRv6_rec_small.onnx"

_lock = threading.Lock()


def model_path(file_name: str, *, package: str = "rapidocr") -> Path:
    """The file of one model inside the installed wheel.

    Raises:
        NotInstalled: the wheel is absent, or holds no such file (another release of it).
    """
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise NotInstalled(f"the text reader ({package})", PIP_COMMAND)
    path = Path(spec.origin).parent / "models" / file_name
    if not path.is_file():
        raise NotInstalled(f"the text reader's weights {file_name}", PIP_COMMAND)
    return path


def open_session(file_name: str) -> onnxruntime.InferenceSession:
    """A CPU session for one model, shared by everybody in the process (running one is thread-safe)."""
    with _lock:  # two threads that ask at once must not load the weights twice
        return _session(file_name)


@functools.cache
def _session(file_name: str) -> onnxruntime.InferenceSession:
    # Lines are read side by side, each in one thread; the detector has the machine to itself. Inputs differ in size from call to call.
    model = without_subnormals(model_path(file_name).read_bytes())
    return onnx_session(model, threads=1 if file_name == RECOGNISER else None, keeps_memory=False)


@functools.cache
def models_version() -> str:
    """Releases of the libraries and the first 8 hex digits of each weight file's SHA-256."""
    digests = [hashlib.sha256(model_path(name).read_bytes()).hexdigest()[:8] for name in (DETECTOR, RECOGNISER)]
    try:
        runtime = importlib.metadata.version("onnxruntime")
    except importlib.metadata.PackageNotFoundError as error:
        raise NotInstalled("onnxruntime", PIP_COMMAND) from error
    return f"rapidocr-{importlib.metadata.version('rapidocr')}+ort-{runtime}+det-{digests[0]}+rec-{digests[1]}"
