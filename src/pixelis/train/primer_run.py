"""Run the primer: a language model learns to point and to think in small steps, over the features of a tower that already sees."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from pixelis.policy.buffer import ChatFormat, ImageRef
from pixelis.policy.prompt import Prompting
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.policy.vlm_vision import Vision
from pixelis.rollout.pack import weights
from pixelis.train.bank import FeatureBank, tower_name
from pixelis.train.learner import Dose, Learner
from pixelis.train.optim import set_rate
from pixelis.train.primer import primer_example
from pixelis.train.views import View, grid_of

DEV_SEED = 10_000


@dataclass(frozen=True)
class PrimerSettings:
    """How long and how fast; see `recipes/nano/primer.toml`."""

    steps: int = 1500
    batch: int = 32
    rate: float = 2e-3
    matrix_rate: float = 0.02
    seed: int = 0
    minutes: float = 60.0
    """The schedule ends at the step or at the minute that comes first."""


def run_primer(
    checkpoint: str | Path,
    views: Sequence[View],
    dev: Sequence[View],
    out: str | Path,
    prompting: Prompting,
    settings: PrimerSettings = PrimerSettings(),
    *,
    log: Callable[[dict], None] = print,
) -> Path:
    """Train a checkpoint's language model on dialogues about views and write the checkpoint anew; metrics go into `primer.jsonl`."""
    torch.manual_seed(settings.seed)
    loaded = load_checkpoint(checkpoint)
    chat = ChatFormat(loaded.tokenizer, template=loaded.template, merge=2, schemas=prompting.schemas, guide=prompting.guide)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    bank = FeatureBank(Vision(loaded.base, loaded.images, prompting, cache_bytes=1 << 20))
    refs = _encode(bank, loaded.base, [*views, *dev], out / "features.npz")
    learner = Learner(
        loaded.model, bank.features, lambda_aux=0.0, smoothing=0.0, rate=settings.rate, matrix_rate=settings.matrix_rate,
        seed=settings.seed,
    )  # fmt: skip
    dev_dose = _dose([primer_example(dev, refs[len(views) :], k, chat, DEV_SEED) for k in range(64)])
    started, recent = time.monotonic(), []
    with (out / "primer.jsonl").open("a") as lines:
        for step in range(settings.steps + 1):
            share = max(step / settings.steps, (time.monotonic() - started) / 60 / settings.minutes)
            set_rate(learner.optimizer, min(1.0, share))
            if share >= 1 or step % 100 == 0:
                facts = {
                    "step": step,
                    "seconds": round(time.monotonic() - started),
                    "dev_loss": round(float(np.mean(learner.losses(dev_dose))), 4),
                }
                if recent:
                    facts["loss"] = round(float(np.mean(recent)), 4)
                lines.write(json.dumps(facts) + "\n")
                lines.flush()
                log(facts)
                recent = []
            if share >= 1:
                break
            numbers = range(step * settings.batch, (step + 1) * settings.batch)
            examples = [primer_example(views, refs, k, chat, settings.seed) for k in numbers]
            recent.append(learner.step([_dose(examples)]).token_loss)
    loaded.base.save_pretrained(out)
    loaded.tokenizer.save_pretrained(out)
    loaded.images.save_pretrained(out)
    prompting.save(out)
    return out


def _dose(examples: list) -> Dose:
    return Dose(tuple(examples), tuple(weights(example) for example in examples))


def _encode(bank: FeatureBank, base, views: Sequence[View], cache: Path) -> list[ImageRef]:
    """Features of all views; their names are their places."""
    tower = tower_name(base)
    if not bank.load(cache, tower=tower):
        for start in range(0, len(views), 64):
            bank.add([(f"view-{k}", views[k].pixels_HWC) for k in range(start, min(start + 64, len(views)))])
        bank.save(cache, tower=tower)
    return [ImageRef(f"view-{k}", grid_of(view.pixels_HWC)) for k, view in enumerate(views)]
