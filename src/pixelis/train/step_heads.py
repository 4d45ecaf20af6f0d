"""Step embedding and dynamics head: what a step looked at, thought and got, as one unit vector; and what the next one should see.

No gradient reaches the language model; only these heads train. Letters: S steps, T tokens, D hidden size, E embedding, h w token grid.
Source: paper §3.2.2, §6.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pixelis.core.media import MediumInfo
from pixelis.core.ops import OPS, Call, Footprint, ZoomOutput
from pixelis.core.trajectory import Trajectory
from pixelis.policy.buffer import PlacedImage
from pixelis.policy.prompt import shown_frame
from pixelis.rollout.pack import Example
from pixelis.train.auxiliary import certainty_of

NUM_THOUGHT = 32
"""Last tokens of a thought that are pooled."""
LEAST_TOKENS = 4
"""A footprint on fewer visual tokens is dilated by one."""
NUM_ARGUMENTS = 8
NO_OP = len(OPS)
"""Index that stands for a turn whose text held no call."""
FROM_TOP = 3
"""Which block's output stands for what was seen, counted from the last."""
NUM_PASSES = 4
"""With dropout, over which the uncertainty of what is foreseen is taken."""


@dataclass(frozen=True, eq=False)
class StepInputs:
    """What the heads see of one trajectory; float32, without gradient."""

    visual_SD: Tensor
    """States of the visual tokens that a step touched; 0 where it touched none."""
    is_visual_S: Tensor
    thought_SD: Tensor
    result_SD: Tensor
    confidence_S: Tensor
    op_S: Tensor
    """Index among `OPS`, or `NO_OP`."""
    arguments_SA: Tensor
    is_valid_S: Tensor
    """1 for a call that succeeded."""


def step_inputs(trajectory: Trajectory, example: Example, middle_TD: Tensor, last_TD: Tensor, *, merge: int = 2) -> StepInputs:
    """Pool a forward pass over a packed trajectory, step by step.

    Args:
        middle_TD: states behind the block that stands for what was seen (`FROM_TOP`), on the CPU, where the heads are.
        last_TD: states behind the last one.
    """
    turns = {turn.step: turn for turn in example.turns if turn.step >= 0}
    ends = [turn.start for turn in example.turns[1:]] + [len(example)]
    is_image_T = np.zeros(len(example), bool)
    for placed in example.images:
        is_image_T[placed.start : placed.end] = True
    rows: dict[str, list] = {name: [] for name in ("visual", "is_visual", "thought", "result", "confidence", "op", "arguments", "valid")}
    for number, step in enumerate(trajectory.steps):
        turn, end = turns[number], ends[[t.step for t in example.turns].index(number)]
        visual = _looked_at(step.result.output, trajectory.medium, example.images, middle_TD, (turn.end, end), merge)
        rows["visual"].append(middle_TD.new_zeros(middle_TD.shape[1]) if visual is None else visual)
        rows["is_visual"].append(visual is not None)
        thought = last_TD[max(turn.start, turn.act_start - NUM_THOUGHT) : turn.act_start]
        rows["thought"].append(thought.mean(0) if len(thought) else last_TD[turn.start])
        words = [t for t in range(turn.end, end) if not is_image_T[t]]
        rows["result"].append(last_TD[words].mean(0) if words else last_TD[turn.end - 1])
        rows["confidence"].append(certainty_of(step.result.output))
        rows["op"].append(OPS.index(step.call.op) if step.call is not None and step.call.op in OPS else NO_OP)
        rows["arguments"].append(arguments_of(step.call, trajectory.medium))
        rows["valid"].append(float(step.result.is_ok))
    width = last_TD.shape[1]

    def stacked(name: str) -> Tensor:
        return torch.stack(rows[name]).float().detach() if rows[name] else torch.zeros(0, width)

    return StepInputs(
        visual_SD=stacked("visual"),
        is_visual_S=torch.tensor(rows["is_visual"], dtype=torch.bool),
        thought_SD=stacked("thought"),
        result_SD=stacked("result"),
        confidence_S=torch.tensor(rows["confidence"], dtype=torch.float32),
        op_S=torch.tensor(rows["op"], dtype=torch.long),
        arguments_SA=torch.tensor(np.array(rows["arguments"]).reshape(-1, NUM_ARGUMENTS), dtype=torch.float32),
        is_valid_S=torch.tensor(rows["valid"], dtype=torch.float32),
    )


def arguments_of(call: Call | None, medium: MediumInfo) -> list[float]:
    """A call's arguments as numbers: box (a point twice) in [0, 1], whether there is one, whether it refers to an earlier step, and its
    stretch of time as shares of the duration. What is not there, or cannot be read, is 0."""
    if call is None:
        return [0.0] * NUM_ARGUMENTS
    wire = call.arguments
    box, point, window = (value if isinstance(value := wire.get(name), list) else [] for name in ("bbox_2d", "point", "window"))
    box = box or point * 2
    box = [float(v) / 1000 for v in box] if len(box) == 4 and all(isinstance(v, (int, float)) for v in box) else []
    window = window or [wire.get("from_s", wire.get("frame", 0.0)), wire.get("to_s", wire.get("frame", 0.0))]
    length = medium.duration_s or 1.0
    times = [float(v) / length if isinstance(v, (int, float)) else 0.0 for v in window][:2]
    numbers = [*(box or [0.0] * 4), float(bool(box)), float("ref" in wire), *times]
    return [float(np.clip(v, -1, 2)) if np.isfinite(v) else 0.0 for v in numbers] + [0.0] * (NUM_ARGUMENTS - len(numbers))


def _looked_at(
    output: object, medium: MediumInfo, images: Sequence[PlacedImage], middle_TD: Tensor, answer: tuple[int, int], merge: int
) -> Tensor | None:
    """Mean state of the visual tokens under a step's footprint: of its own crop if it brought one, else of what the prompt shows."""
    if output is None:
        return None
    if isinstance(output, ZoomOutput):
        for placed in images:
            if answer[0] <= placed.start < answer[1]:
                return middle_TD[placed.start : placed.end].mean(0)
    shown = [placed for placed in images if shown_frame(placed.image.sha256)[0] == medium.sha256]
    pooled = []
    for placed, box in _per_frame(output.footprint, medium, shown):
        mask_hw = tokens_under(box, medium, (placed.image.grid[1] // merge, placed.image.grid[2] // merge))
        pooled.append(middle_TD[placed.start : placed.end][torch.from_numpy(mask_hw.reshape(-1)).to(middle_TD.device)].mean(0))
    return torch.stack(pooled).mean(0) if pooled else None


def _per_frame(footprint: Footprint, medium: MediumInfo, shown: Sequence[PlacedImage]) -> list[tuple[PlacedImage, object]]:
    """Where the model saw what a step touched, as pairs of a shown image and a box (None: all of it).

    - Known frames: each box on the shown frame nearest to its own.
    - A stretch of time: the shown frames inside it, or the one nearest to its middle, in the region that was asked about.
    - A region alone: that region.
    """
    if not shown:
        return []
    frames = [shown_frame(placed.image.sha256)[1] for placed in shown]

    def nearest(frame: float) -> PlacedImage:
        return shown[int(np.argmin([abs(f - frame) for f in frames]))]

    if footprint.span is not None and not footprint.frames:
        start, end = footprint.span.start_s * (medium.fps or 1.0), footprint.span.end_s * (medium.fps or 1.0)
        inside = [frame for frame in frames if start <= frame <= end] or [(start + end) / 2]
        region = footprint.boxes[0][1] if footprint.boxes else None
        return [(nearest(frame), region) for frame in inside]
    if footprint.boxes:
        return [(nearest(frame), box) for frame, box in footprint.boxes]
    return [(nearest(frame), None) for frame in footprint.frames]


def tokens_under(box: object, medium: MediumInfo, grid: tuple[int, int]) -> np.ndarray:
    """bool [h, w]: tokens whose cell a box in pixels of the original touches, dilated by one where fewer than four; all for None."""
    height, width = grid
    if box is None:
        return np.ones(grid, bool)
    mask = np.zeros(grid, bool)
    left, right = box.x0 / medium.width * width, box.x1 / medium.width * width
    top, bottom = box.y0 / medium.height * height, box.y1 / medium.height * height
    x0, x1 = int(np.clip(np.floor(left), 0, width - 1)), int(np.clip(np.ceil(right), 1, width))
    y0, y1 = int(np.clip(np.floor(top), 0, height - 1)), int(np.clip(np.ceil(bottom), 1, height))
    x1, y1 = max(x1, x0 + 1), max(y1, y0 + 1)
    if (x1 - x0) * (y1 - y0) < LEAST_TOKENS:
        x0, x1, y0, y1 = max(0, x0 - 1), min(width, x1 + 1), max(0, y0 - 1), min(height, y1 + 1)
    mask[y0:y1, x0:x1] = True
    return mask


# ---------------------------------------------------------------- heads


class StepEmbedding(nn.Module):
    """E_t = norm(W_o MLP([v_t; u_t; a_{t-1}])): unit vectors [S, E].

    Time t is the moment behind a step: the step's own call is the action a_{t-1} that led there, and a_t is the call that comes next.

    Args:
        hidden: size D of the states.
        size: E.
        width: of the two hidden layers.
    """

    def __init__(self, hidden: int, *, size: int = 64, width: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        self.null_visual = nn.Parameter(torch.zeros(hidden))
        self.text = nn.Linear(2 * hidden + 1, hidden)
        self.ops = nn.Embedding(len(OPS) + 1, 16)
        self.arguments = nn.Linear(NUM_ARGUMENTS, 16)
        self.body = nn.Sequential(
            nn.LayerNorm(2 * hidden + 32), nn.Linear(2 * hidden + 32, width), nn.GELU(), nn.Dropout(dropout),
            nn.Linear(width, width), nn.GELU(), nn.LayerNorm(width), nn.Dropout(dropout),
        )  # fmt: skip
        self.out = nn.Linear(width, size)

    def action(self, op_S: Tensor, arguments_SA: Tensor) -> Tensor:
        """[S, 32]."""
        return torch.cat([self.ops(op_S), self.arguments(arguments_SA)], dim=-1)

    def visual(self, inputs: StepInputs) -> Tensor:
        """v_t [S, D], with the learnt null where a step touched no pixels."""
        return torch.where(inputs.is_visual_S[:, None], inputs.visual_SD, self.null_visual)

    def forward(self, inputs: StepInputs) -> Tensor:
        if not len(inputs.op_S):
            return inputs.visual_SD.new_zeros(0, self.out.out_features)
        text = self.text(torch.cat([inputs.thought_SD, inputs.result_SD, inputs.confidence_S[:, None]], dim=-1))
        joined = torch.cat([self.visual(inputs), text, self.action(inputs.op_S, inputs.arguments_SA)], dim=-1)
        return F.normalize(self.out(self.body(joined)), dim=-1)


class Dynamics(nn.Module):
    """f(E_t, a_t) -> what the next step will see, and the logit that its call succeeds."""

    def __init__(self, hidden: int, *, size: int = 64, width: int = 128, dropout: float = 0.1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(size + 32, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, width), nn.GELU(), nn.Dropout(dropout)
        )
        self.visual, self.valid = nn.Linear(width, hidden), nn.Linear(width, 1)

    def forward(self, embedding_SE: Tensor, action_SA: Tensor) -> tuple[Tensor, Tensor]:
        """v̂ [S, D] and logits [S]."""
        x = self.body(torch.cat([embedding_SE, action_SA], dim=-1))
        return self.visual(x), self.valid(x)[:, 0]


@dataclass(frozen=True, eq=False)
class Foresight:
    """What was expected of each step but the first; S - 1 entries."""

    predicted_SD: np.ndarray
    p_valid_S: np.ndarray
    variance_S: np.ndarray
    """Mean over features of the variance over passes with dropout."""


class StepHeads(nn.Module):
    """Both heads, trained together on what trajectories saw."""

    def __init__(self, hidden: int, *, size: int = 64, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.embedding, self.dynamics = StepEmbedding(hidden, size=size), Dynamics(hidden, size=size)

    def loss(self, inputs: StepInputs) -> Tensor:
        """L_dyn = |v̂ - v|² + 0.5 BCE(validity), mean over the steps that follow another; 0 (with a gradient) where there is none.

        Both vectors are of unit length, so that the error does not grow with D. A step that touched no pixels has none: there was nothing
        to foresee.
        """
        if len(inputs.op_S) < 2:
            return sum(p.sum() for p in self.parameters()) * 0.0
        predicted, logit = self._next(inputs)
        target = F.normalize(self.embedding.visual(inputs).detach()[1:], dim=-1)
        each = ((F.normalize(predicted, dim=-1) - target) ** 2).sum(-1)
        error = (each * inputs.is_visual_S[1:]).sum() / len(each)
        return error + 0.5 * F.binary_cross_entropy_with_logits(logit, inputs.is_valid_S[1:])

    def _next(self, inputs: StepInputs) -> tuple[Tensor, Tensor]:
        """What each step lets expect of the one behind it: its own embedding, and the call that comes next."""
        embedding = self.embedding(inputs)
        return self.dynamics(embedding[:-1], self.embedding.action(inputs.op_S, inputs.arguments_SA)[1:])

    @torch.no_grad()
    def embed(self, inputs: StepInputs) -> np.ndarray:
        """Unit vectors [S, E], without dropout."""
        self.eval()
        return self.embedding(inputs).cpu().numpy()

    @torch.no_grad()
    def foresee(self, inputs: StepInputs, *, num_passes: int = NUM_PASSES, seed: int = 0) -> Foresight:
        """Mean and variance over passes with dropout; the same seed gives the same."""
        if len(inputs.op_S) < 2:
            return Foresight(np.zeros((0, inputs.visual_SD.shape[1])), np.zeros(0), np.zeros(0))
        self.train()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            passes = [self._next(inputs) for _ in range(num_passes)]
        self.eval()
        predicted = torch.stack([F.normalize(p, dim=-1) for p, _ in passes])
        return Foresight(
            predicted.mean(0).cpu().numpy(),
            torch.stack([logit.sigmoid() for _, logit in passes]).mean(0).cpu().numpy(),
            predicted.var(0, unbiased=False).mean(-1).cpu().numpy(),
        )

    @torch.no_grad()
    def seen(self, inputs: StepInputs) -> np.ndarray:
        """What each step but the first saw [S - 1, D]; a step that touched no pixels saw the null."""
        return self.embedding.visual(inputs)[1:].cpu().numpy()
