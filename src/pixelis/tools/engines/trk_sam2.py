"""SAM 2.1 on videos through transformers, frame by frame, with our own preprocessing: its processor wants torchvision.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos" (arXiv 2408.00714).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from pixelis.core.errors import NotInstalled
from pixelis.tools.engines.seg_common import file_tag
from pixelis.tools.engines.trk_base import BoxTuple, SteadySize, TrackedBox, as_rgb

if TYPE_CHECKING:
    import torch

ALGORITHM = 1
DEFAULT_CHECKPOINT = "facebook/sam2.1-hiera-large"
MEAN_C = np.array([0.485, 0.456, 0.406], np.float32)
STD_C = np.array([0.229, 0.224, 0.225], np.float32)
WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
BOX_CORNERS = (2, 3)
"""Labels by which SAM 2 knows a box's corners among point prompts."""


class Sam2VideoTrk:
    """One object through a video with SAM 2.1's memory.

    Args:
        checkpoint: a local folder in transformers' layout, or a hub id whose files were fetched before.
        device: where torch runs it, for example "cpu" or "cuda".
    Raises:
        NotInstalled: torch or transformers is missing, or the checkpoint cannot be had.
    """

    name = "sam2-video"

    def __init__(self, checkpoint: str | Path = DEFAULT_CHECKPOINT, *, device: str = "cpu") -> None:
        try:
            import torch
            from transformers import Sam2VideoModel
        except ImportError as error:
            raise NotInstalled("SAM 2.1's runtime (torch and transformers with Sam2VideoModel)", "pip install 'pixelis[vlm]'") from error
        self._checkpoint, self._device = str(checkpoint), device
        try:
            # Only what is on disk: a gigabyte fetched, or a minute of retries offline, has no place inside a call.
            self._model = Sam2VideoModel.from_pretrained(self._checkpoint, dtype=torch.float32, local_files_only=True)
        except (OSError, ValueError) as error:
            raise NotInstalled(f"the SAM 2.1 checkpoint {self._checkpoint}", _how_to_get(self._checkpoint)) from error
        self._model = self._model.to(device).eval()
        size = self._model.config.image_size
        self._input_hw = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))

    @cached_property
    def version(self) -> str:
        import torch
        import transformers
        from transformers.utils import cached_file

        tag = "unknown"
        for name in WEIGHT_FILES:
            path = cached_file(self._checkpoint, name, local_files_only=True, _raise_exceptions_for_missing_entries=False)
            if path is not None:
                tag = file_tag(Path(path))
                break
        return f"{self.name} {ALGORITHM}; weights {tag}; torch {torch.__version__}; transformers {transformers.__version__}; {self._device}"

    def track(self, frames: Iterable[np.ndarray], box: BoxTuple, *, should_stop: Callable[[], None] | None = None) -> list[TrackedBox]:
        """Follow what the box of the first frame shows.

        Args:
            frames: RGB uint8 [height, width, 3], consumed one by one.
            box: in the first frame's pixels, x1 and y1 exclusive, clipped and not empty.
            should_stop: called before every frame; what it raises passes through.
        Returns:
            One TrackedBox per frame; the first is the given box with score 1.
        """
        import torch

        found: list[TrackedBox] = []
        steady, session = SteadySize(), None
        for index, frame in enumerate(frames):
            if should_stop is not None:
                should_stop()
            image = steady.enter(as_rgb(frame))
            with torch.inference_mode():
                if session is None:
                    session = self._start(image, box)
                out = self._model(inference_session=session, frame=self._pixels(image), frame_idx=index)
            self._forget(session, index)
            if index == 0:
                found.append(TrackedBox(tuple(float(v) for v in box), 1.0))
                continue
            at, score = _read(out, image.shape[1], image.shape[0])
            found.append(TrackedBox(steady.leave(at, frame), score))
        return found

    def _start(self, image: np.ndarray, box: BoxTuple):
        """A session in which object 1 is prompted by the box on frame 0."""
        import torch
        from transformers.models.sam2_video.modeling_sam2_video import Sam2VideoInferenceSession

        height, width = image.shape[:2]
        session = Sam2VideoInferenceSession(
            video_height=height,
            video_width=width,
            inference_device=self._device,
            inference_state_device=self._device,
            video_storage_device=self._device,
            dtype=torch.float32,
        )
        scale = torch.tensor([self._input_hw[1] / width, self._input_hw[0] / height], dtype=torch.float32)
        corners = torch.tensor([[box[0], box[1]], [box[2], box[3]]], dtype=torch.float32) * scale
        prompt = {"point_coords": corners.view(1, 1, 2, 2), "point_labels": torch.tensor(BOX_CORNERS, dtype=torch.int32).view(1, 1, 2)}
        session.add_point_inputs(session.obj_id_to_idx(1), 0, prompt)
        session.obj_with_new_inputs = [1]
        return session

    def _forget(self, session, index: int) -> None:
        """Drop what no later frame reads: the session alone would keep every frame and every full-size mask."""
        session.processed_frames[index] = session.processed_frames[index].new_empty(0)
        config = self._model.config
        old = index - max(config.num_maskmem, config.max_object_pointers_in_encoder) - 1
        session.output_dict_per_obj[0]["non_cond_frame_outputs"].pop(old, None)

    def _pixels(self, image: np.ndarray) -> torch.Tensor:
        """The network's input [1, 3, side, side]: squashed to its square, normalised."""
        import torch

        height, width = self._input_hw
        interpolation = cv2.INTER_AREA if max(image.shape[:2]) > max(height, width) else cv2.INTER_LINEAR
        small_HWC = cv2.resize(image, (width, height), interpolation=interpolation).astype(np.float32) / 255
        return torch.from_numpy(((small_HWC - MEAN_C) / STD_C).transpose(2, 0, 1)[None].copy()).to(self._device)


def _read(out, width: int, height: int) -> tuple[BoxTuple | None, float]:
    """Box of the mask at frame size, and the network's belief that the object is there, in [0, 1]."""
    belief = float(out.object_score_logits.reshape(-1)[0].sigmoid())
    logit_hw = out.pred_masks.reshape(-1, *out.pred_masks.shape[-2:])[0].float().cpu().numpy()
    solid = cv2.resize(logit_hw, (width, height), interpolation=cv2.INTER_LINEAR) > 0
    if belief < 0.5 or not solid.any():
        return None, min(belief, 0.5)
    columns, rows = np.flatnonzero(solid.any(0)), np.flatnonzero(solid.any(1))
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)), belief


def _how_to_get(checkpoint: str) -> str:
    if Path(checkpoint).exists() or checkpoint.startswith((".", "/", "~")):
        return f"put a transformers SAM 2.1 checkpoint (config.json and model.safetensors) into {checkpoint}, or name a fetched hub id"
    return f"hf download {checkpoint}"
