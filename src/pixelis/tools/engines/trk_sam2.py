"""SAM 2.1 on videos through transformers, frame by frame, with our own preprocessing: its processor wants torchvision.

Source: Ravi et al., "SAM 2: Segment Anything in Images and Videos" (arXiv 2408.00714).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np

from pixelis.tools.engines import sam2
from pixelis.tools.engines.trk_base import BoxTuple, SteadySize, TrackedBox, as_rgb

ALGORITHM = 1
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

    def __init__(self, checkpoint: str | Path = sam2.DEFAULT_CHECKPOINT, *, device: str = "cpu") -> None:
        self._checkpoint, self._device = str(checkpoint), device
        self._model = sam2.load_model("Sam2VideoModel", self._checkpoint, device)
        self._input_hw = sam2.input_hw(self._model.config.image_size)

    @cached_property
    def version(self) -> str:
        return f"{self.name} {ALGORITHM}; {sam2.runtime_version(self._checkpoint, self._device)}"

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
                out = self._model(inference_session=session, frame=sam2.pixels(image, self._input_hw, self._device), frame_idx=index)
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


def _read(out, width: int, height: int) -> tuple[BoxTuple | None, float]:
    """Box of the mask at frame size, and the network's belief that the object is there, in [0, 1]."""
    belief = float(out.object_score_logits.reshape(-1)[0].sigmoid())
    logit_hw = out.pred_masks.reshape(-1, *out.pred_masks.shape[-2:])[0].float().cpu().numpy()
    solid = cv2.resize(logit_hw, (width, height), interpolation=cv2.INTER_LINEAR) > 0
    if belief < 0.5 or not solid.any():
        return None, min(belief, 0.5)
    columns, rows = np.flatnonzero(solid.any(0)), np.flatnonzero(solid.any(1))
    return (float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)), belief
