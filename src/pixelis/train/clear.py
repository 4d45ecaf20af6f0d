"""Clear sight: over clutter a tower learns to give the tokens that it gives for the same scene over a plain background.

Its own plain sight is the teacher, so the tokens keep their meaning and whatever reads them, a language model trained on them for hours,
can stay as it is. Letters: V visual tokens, D their size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pixelis.core.command import note_command
from pixelis.core.errors import DataError
from pixelis.core.store import alone
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.train.journal import reopened
from pixelis.train.kept import Kept, part
from pixelis.train.optim import make_optimizer, set_rate, share_done
from pixelis.train.sight import fold_time, tokens_of
from pixelis.train.start import save_whole
from pixelis.train.views import TOKEN_PX, View, digest_of

CLUTTER_SHARE = 0.65
"""Of what is shown; the rest is shown plain, so that plain sight is kept."""
THING_WEIGHT = 5.0
"""Of a token with something in it; all others weigh 1."""


@dataclass(frozen=True)
class ClearSettings:
    """How long and how fast; see `recipes/nano/clear.toml`."""

    steps: int = 1500
    batch: int = 12
    rate: float = 1e-3
    matrix_rate: float = 0.006
    seed: int = 0
    minutes: float = 60.0
    """The schedule ends at the step or at the minute that comes first."""


def train_clear(
    checkpoint: str | Path,
    plain: Sequence[View],
    cluttered: Sequence[View],
    out: str | Path,
    settings: ClearSettings = ClearSettings(),
    *,
    num_dev: int = 400,
    log: Callable[[dict], None] = print,
) -> Path:
    """Train a checkpoint's vision tower and write the checkpoint anew; metrics go into `sight.jsonl` there.

    Args:
        plain, cluttered: the same scenes in the same order; the first `num_dev` are kept for measuring.
        out: a run that was cut short goes on there.

    Raises:
        ConfigError: another run was cut short in `out`.
        DataError: they are not the same scenes, or too few; another process is at work in `out`, or the state of a run cannot be read.
    """
    _check(plain, cluttered, num_dev)
    torch.manual_seed(settings.seed)
    loaded = load_checkpoint(checkpoint)
    visual = loaded.base.model.visual
    undo = fold_time(visual)
    targets_VD, is_thing_V = _tokens(visual, plain), [torch.from_numpy(holds_things(view)) for view in plain]  # before its weights move
    visual.requires_grad_(True)
    optimizer = make_optimizer([("visual", visual)], rate=settings.rate, matrix_rate=settings.matrix_rate)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        start = [loaded.version, digest_of(plain), digest_of(cluttered), num_dev]
        kept = Kept(out, settings, start, {"visual": part(visual), "optimizer": part(optimizer)})
        note_command(out)
        with reopened(out / "sight.jsonl", lambda row: row["step"] < kept.step) as lines:
            for step, chosen in enumerate(islice(_batches(len(plain), num_dev, settings), kept.step, None), start=kept.step):
                share = share_done(step, settings.steps, kept.seconds, settings.minutes)
                if share >= 1 or step % 150 == 0:
                    facts = {"step": step, "seconds": round(kept.seconds)}
                    for name, views in (("plain", plain), ("clutter", cluttered)):
                        found_VD = torch.cat(_tokens(visual, views[:num_dev]))
                        facts |= _errors(name, found_VD, torch.cat(targets_VD[:num_dev]), torch.cat(is_thing_V[:num_dev]))
                    lines.write(json.dumps(facts) + "\n")
                    lines.flush()
                    log(facts)
                if share >= 1:
                    break
                set_rate(optimizer, share)
                visual.train()
                shown = [(cluttered if is_cluttered else plain)[k].pixels_HWC for k, is_cluttered in chosen]
                target_VD, weight_V = (torch.cat([of[k] for k, _ in chosen]) for of in (targets_VD, is_thing_V))
                weight_V = 1 + (THING_WEIGHT - 1) * weight_V.float()
                error_V = F.smooth_l1_loss(tokens_of(visual, shown), target_VD, reduction="none").mean(-1)
                loss = (error_V * weight_V).sum() / weight_V.sum()
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(visual.parameters(), 1.0)
                optimizer.step()
                kept.keep(step + 1)
        undo()
        save_whole(loaded, out, prompting=loaded.prompting)
        kept.done()
    return out


def _batches(num_views: int, num_dev: int, settings: ClearSettings) -> Iterator[list[tuple[int, bool]]]:
    """Endless seeded batches: which view, and whether it is shown over clutter."""
    rng, order = np.random.default_rng(settings.seed), []
    while True:
        if len(order) < settings.batch:
            order = [num_dev + int(k) for k in rng.permutation(num_views - num_dev)]
        chosen, order = order[: settings.batch], order[settings.batch :]
        yield [(k, rng.random() < CLUTTER_SHARE) for k in chosen]


def holds_things(view: View) -> np.ndarray:
    """bool [V]: the visual tokens that something lies in, row by row."""
    rows, cols = view.pixels_HWC.shape[0] // TOKEN_PX, view.pixels_HWC.shape[1] // TOKEN_PX
    held = np.zeros((rows, cols), bool)
    for thing in view.things:
        x0, y0, x1, y1 = thing.box
        held[int(y0 * rows) : min(rows - 1, int(y1 * rows)) + 1, int(x0 * cols) : min(cols - 1, int(x1 * cols)) + 1] = True
    return held.ravel()


@torch.no_grad()
def _tokens(visual: Any, views: Sequence[View]) -> list[torch.Tensor]:
    """[V, D] of each view."""
    visual.eval()
    found = []
    for k in range(0, len(views), 32):
        batch = [view.pixels_HWC for view in views[k : k + 32]]
        found += tokens_of(visual, batch).split([pixels.shape[0] * pixels.shape[1] // TOKEN_PX**2 for pixels in batch])
    return found


def _errors(name: str, found_VD: torch.Tensor, target_VD: torch.Tensor, is_thing_V: torch.Tensor) -> dict[str, float]:
    """Mean squared error of tokens with and without a thing."""
    error_V = (found_VD - target_VD).square().mean(-1)
    parts = (("things", error_V[is_thing_V]), ("ground", error_V[~is_thing_V]))
    return {f"dev_{name}_{part}": round(float(values.mean()), 4) for part, values in parts if len(values)}


def _check(plain: Sequence[View], cluttered: Sequence[View], num_dev: int) -> None:
    if len(plain) <= num_dev:
        raise DataError(f"{len(plain)} views, of which {num_dev} are kept for measuring: make more views")
    if len(plain) != len(cluttered) or any(a.things != b.things for a, b in zip(plain, cluttered, strict=True)):
        differ = next((k for k, (a, b) in enumerate(zip(plain, cluttered, strict=False)) if a.things != b.things), "none of those in both")
        raise DataError(
            f"{len(plain)} plain views and {len(cluttered)} over clutter are not of the same scenes (first that differs: {differ}); one "
            "folder is of another seed or an older version: delete both, and they are drawn again"
        )
