"""Run the training of sight: seeded batches of views, the schedule, what is measured, and the checkpoint with settled tokens."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from pixelis.core.command import note_command
from pixelis.core.store import alone
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.train.journal import reopened
from pixelis.train.kept import Kept, part
from pixelis.train.optim import make_optimizer, set_rate, share_done
from pixelis.train.settling import name_what_is_seen, settle
from pixelis.train.sight import SightHeads, fold_time, sight_loss, sight_scores, start_placed, start_smooth, targets_of, tokens_of
from pixelis.train.start import save_whole
from pixelis.train.views import PATCH, View, digest_of


@dataclass(frozen=True)
class SightSettings:
    """How long and how fast; see `recipes/nano/sight.toml`."""

    steps: int = 2000
    batch_patches: int = 9000
    rate: float = 3e-3
    matrix_rate: float = 0.02
    seed: int = 0
    minutes: float = 60.0
    """The schedule ends at the step or at the minute that comes first; the rate falls with whichever is nearer."""


def train_sight(
    checkpoint: str | Path,
    views: Sequence[View],
    dev: Sequence[View],
    out: str | Path,
    settings: SightSettings = SightSettings(),
    *,
    log: Callable[[dict], None] = print,
) -> Path:
    """Train a checkpoint's vision tower and write the checkpoint anew.

    Args:
        checkpoint: a folder of the Qwen3-VL family.
        out: the folder to write; metrics go into `sight.jsonl` there. A run that was cut short goes on there.

    Raises:
        ConfigError: another run was cut short in `out`.
        DataError: another process is at work there, or the state of a run cannot be read.
    """
    torch.manual_seed(settings.seed)
    loaded = load_checkpoint(checkpoint)
    visual = loaded.base.model.visual
    start_smooth(visual)
    start_placed(visual)
    undo = fold_time(visual)
    heads = SightHeads(visual.config.out_hidden_size)
    visual.train().requires_grad_(True)
    optimizer = make_optimizer([("visual", visual), ("heads", heads)], rate=settings.rate, matrix_rate=settings.matrix_rate)
    parts = {"visual": part(visual), "heads": part(heads), "optimizer": part(optimizer)}
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        kept = Kept(out, settings, [loaded.version, digest_of(views), digest_of(dev)], parts)
        note_command(out)
        with reopened(out / "sight.jsonl", lambda row: row["step"] < kept.step) as lines:
            for step, batch in enumerate(islice(_batches(views, settings), kept.step, None), start=kept.step):
                share = share_done(step, settings.steps, kept.seconds, settings.minutes)
                if share >= 1:
                    break
                set_rate(optimizer, share)
                outputs = heads(tokens_of(visual, [view.pixels_HWC for view in batch]))
                loss, scores = sight_loss(outputs, targets_of(batch))
                optimizer.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_([*visual.parameters(), *heads.parameters()], 1.0)
                optimizer.step()
                if step % 50 == 0:
                    facts = {"step": step, "seconds": round(kept.seconds), "loss": round(float(loss.detach()), 4)} | _rounded(scores)
                    _write(lines, facts | (_examined(visual, heads, dev) if step % 200 == 0 else {}), log)
                kept.keep(step + 1)
            _write(lines, {"step": step, "seconds": round(kept.seconds)} | _examined(visual, heads, dev), log)
        settle(visual.eval(), heads, dev)
        name_what_is_seen(loaded.base.get_input_embeddings(), loaded.tokenizer)
        undo()
        save_whole(loaded, out)
        kept.done()
    return out


def _write(lines: IO[str], facts: dict, log: Callable[[dict], None]) -> None:
    lines.write(json.dumps(facts) + "\n")
    lines.flush()
    log(facts)


def _examined(visual: Any, heads: SightHeads, dev: Sequence[View]) -> dict[str, float]:
    return {f"dev_{key}": value for key, value in _rounded(evaluate(visual, heads, dev)).items()}


@torch.no_grad()
def evaluate(visual: Any, heads: SightHeads, views: Sequence[View]) -> dict[str, float]:
    """Mean scores over views."""
    visual.eval()
    rows = []
    for k in range(0, len(views), 32):
        batch = views[k : k + 32]
        rows.append(sight_scores(heads(tokens_of(visual, [v.pixels_HWC for v in batch])), targets_of(batch)))
    visual.train()
    return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}


def _rounded(values: dict[str, float]) -> dict[str, float]:
    return {key: round(value, 4) for key, value in values.items()}


def _batches(views: Sequence[View], settings: SightSettings) -> Iterator[list[View]]:
    """Endless seeded batches of about as many patches; half of the views mirrored left to right."""
    rng = np.random.default_rng(settings.seed)
    while True:
        batch, count = [], 0
        for k in rng.permutation(len(views)):
            view = mirrored(views[k]) if rng.random() < 0.5 else views[k]
            batch.append(view)
            count += view.pixels_HWC.shape[0] * view.pixels_HWC.shape[1] // PATCH**2
            if count >= settings.batch_patches:
                yield batch
                batch, count = [], 0


def mirrored(view: View) -> View:
    """Left and right exchanged, things too."""
    things = [type(t)((1 - t.box[2], t.box[1], 1 - t.box[0], t.box[3]), t.colour, t.kind) for t in view.things]
    return View(np.ascontiguousarray(view.pixels_HWC[:, ::-1]), tuple(sorted(things, key=lambda t: (t.box[0] + t.box[2], t.box[1]))))
