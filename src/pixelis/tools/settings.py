"""The knobs of the tools: which engine serves each op, and what changes a result. Recorded with every trajectory."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, ValidationError, model_serializer

from pixelis.core.errors import ConfigError

OF_THE_MACHINE = ("mobile_sam_folder", "sam2_checkpoint", "detector", "device")
"""Knobs that say where things are on one machine: a replay on another may name its own."""


class ToolSettings(BaseModel):
    """Engines by name; `auto` takes the best one that is installed, and the resolved name is what gets recorded."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seg: str = "auto"
    """auto, u2netp-fusion, classical, mobile-sam, sam2"""
    trk: str = "auto"
    """auto, silhouette, botsort, sam2-video"""
    ocr: str = "auto"
    """auto, rapidocr"""
    temp: str = "auto"
    """auto, frame-difference"""
    prop: str = "auto"
    """auto, measure"""
    zoom_min_pixels: int = Field(default=512 * 512, ge=1024, le=4096 * 4096)
    zoom_max_side_px: int = Field(default=2048, ge=64, le=8192)
    sam2_checkpoint: str = "facebook/sam2.1-hiera-large"
    """A folder or a hub name, for sam2 and sam2-video."""
    mobile_sam_folder: str = ""
    """Folder with MobileSAM-type encoder.onnx and decoder; empty looks at the environment variable PIXELIS_MOBILE_SAM."""
    detector: str = ""
    """ONNX detector (YOLOX layout) for botsort's proposals; empty uses detector-free proposals."""
    disabled: tuple[str, ...] = ()
    """Ops that answer with a typed empty result."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """Where sam2 and sam2-video run; auto is cuda where there is one. Recorded only when it is not cpu."""
    cache_folder: str = Field(default="", exclude=True)
    """Where results are kept across runs; empty keeps them in memory only. Changes no result, so it is not recorded."""
    cache_max_bytes: int = Field(default=2 << 30, ge=1 << 20, exclude=True)
    """Bound of that folder."""

    @model_serializer(mode="wrap")
    def _record(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """A run on the processor is recorded as runs were before there was a choice: equal settings, equal bytes."""
        facts = write(self)
        return {key: value for key, value in facts.items() if key != "device" or value not in ("auto", "cpu")}


def settings_with(settings: ToolSettings, changes: Iterable[str]) -> ToolSettings:
    """Settings with what a command line says instead.

    Args:
        changes: texts KEY=VALUE; a knob that holds several values takes them separated by commas.
    Raises:
        ConfigError: no such knob, one named twice, or a wrong value.
    """
    named: dict[str, Any] = {}
    for change in changes:
        key, is_pair, value = change.partition("=")
        if not is_pair or key not in ToolSettings.model_fields:
            raise ConfigError(f"--set takes KEY=VALUE, got {change!r}; the keys are {', '.join(ToolSettings.model_fields)}")
        if key in named:
            raise ConfigError(f"--set names {key} twice")
        named[key] = tuple(filter(None, value.split(","))) if key == "disabled" else value
    try:
        return ToolSettings.model_validate({**dict(settings), **named})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise ConfigError(f"--set {first['loc'][0]}: {first['msg'].lower()}; got {str(first['input'])!r:.60}") from None
