"""The knobs of the tools: which engine serves each op, and what changes a result. Recorded with every trajectory."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


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
