"""Run the primer: a language model learns to point and to think in small steps, over the features of a tower that already sees."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelis.core.command import note_command
from pixelis.core.store import alone
from pixelis.policy.buffer import ChatFormat
from pixelis.policy.prompt import Prompting
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.policy.vlm_vision import Vision
from pixelis.rollout.teacher.hand import GRID
from pixelis.train.bank import FeatureBank
from pixelis.train.forward import collate, hidden_states, learnt_logits
from pixelis.train.journal import reopened
from pixelis.train.kept import Kept
from pixelis.train.learner import Dose, Learner
from pixelis.train.optim import set_rate, share_done
from pixelis.train.primer import Lessons
from pixelis.train.rehearsal import encode_views
from pixelis.train.start import save_whole
from pixelis.train.views import View, digest_of
from pixelis.train.vocabulary import MAX_COORDINATE

DEV_SEED = 10_000
FEATURES = "features.npz"


@dataclass(frozen=True)
class PrimerSettings:
    """How long and how fast; see `recipes/nano/primer.toml`."""

    steps: int = 1500
    batch: int = 32
    rate: float = 2e-3
    matrix_rate: float = 0.02
    text_share: float | None = None
    """See `Lessons`."""
    mixed: bool = False
    """Matrix products in bfloat16; see `Learner`."""
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
    """Train a checkpoint's language model on dialogues about views and write the checkpoint anew; metrics go into `primer.jsonl`.

    Args:
        out: a run that was cut short goes on there.

    Raises:
        ConfigError: another run was cut short in `out`.
        DataError: another process is at work there, or the state of a run cannot be read.
    """
    torch.manual_seed(settings.seed)
    loaded = load_checkpoint(checkpoint)
    chat = ChatFormat(loaded.tokenizer, template=loaded.template, merge=2, schemas=prompting.schemas, guide=prompting.guide)
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    with alone(out):
        bank = FeatureBank(Vision(loaded.base, loaded.images, prompting, cache_bytes=1 << 20))
        refs = encode_views(bank, loaded.base, [*views, *dev], out / FEATURES)
        learner = Learner(
            loaded.model, bank.features, lambda_aux=0.0, smoothing=0.0, rate=settings.rate, matrix_rate=settings.matrix_rate,
            mixed=settings.mixed, seed=settings.seed,
        )  # fmt: skip
        start = [loaded.version, digest_of(views), asdict(prompting)]
        kept = Kept(out, settings, start, {"learner": (learner.state, learner.load_state)})
        note_command(out)
        lessons = Lessons(views, refs[: len(views)], chat, settings.seed, settings.text_share)
        dev_lessons = Lessons(dev, refs[len(views) :], chat, DEV_SEED)
        dev_dose = Dose.plain([dev_lessons.example(k) for k in range(64)])
        recent = kept.recent
        with reopened(out / "primer.jsonl", lambda row: row["step"] < kept.step) as lines:
            for step in range(kept.step, settings.steps + 1):
                share = share_done(step, settings.steps, kept.seconds, settings.minutes)
                set_rate(learner.optimizer, min(1.0, share))
                if share >= 1 or step % 100 == 0:
                    facts = {
                        "step": step,
                        "seconds": round(kept.seconds),
                        "dev_loss": round(float(np.mean(learner.losses(dev_dose))), 4),
                        **pointing(learner, bank, dev_dose, loaded.tokenizer),
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
                examples = [lessons.example(k, share=step / settings.steps) for k in numbers]
                recent.append(learner.step([Dose.plain(examples)]).token_loss)
                kept.keep(step + 1, recent)
        save_whole(loaded, out, prompting=prompting)
        kept.done()
    return out


@torch.no_grad()
def pointing(learner: Learner, bank: FeatureBank, dose: Dose, tokenizer: Any) -> dict[str, float]:
    """How well coordinates are said, those before them given: the mean error in thousandths of the picture, and the share at most one step
    of the teacher's grid off. Coordinates below ten are left out: their tokens are digits too."""
    values = torch.arange(10, MAX_COORDINATE + 1)
    ids = torch.tensor(tokenizer.convert_tokens_to_ids([str(int(value)) for value in values]))
    batch = collate(dose.examples, dose.weights)
    learner.model.eval()
    logits, target_N, _ = learnt_logits(learner.base, batch, hidden_states(learner.base, batch, bank.features))
    is_coordinate = torch.isin(target_N, ids)
    order = torch.argsort(ids)
    true = values[order[torch.searchsorted(ids[order], target_N[is_coordinate])]]
    off = (values[logits[is_coordinate][:, ids].argmax(-1)] - true).abs().float()
    return {"dev_off": round(float(off.mean()), 1), "dev_near": round(float((off <= GRID).float().mean()), 4)}
