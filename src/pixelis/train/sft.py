"""Phase 1, supervised fine-tuning on tool traces: the loop, in order.

Read the traces, encode what they show, and imitate: a warm-up epoch on everything, then rounds of medium and hard traces, moving on when
the dev loss stands still. Each trace is seen with some of its results hidden and some early calls untaught. The checkpoint carries what
later phases need: token normalisers, per-tool scalers, auxiliary heads. Source: paper §3.2.1.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from pathlib import Path

import numpy as np

from pixelis.core.command import note_command
from pixelis.core.errors import DataError
from pixelis.core.store import alone
from pixelis.policy.buffer import ChatFormat
from pixelis.policy.vlm_load import Checkpoint
from pixelis.policy.vlm_vision import Vision
from pixelis.rollout.pack import Example, early_action_dropout, feedback_dropout, pack_trajectory, weights
from pixelis.train import curriculum
from pixelis.train.auxiliary import AuxTarget, aux_targets
from pixelis.train.bank import FeatureBank, tower_name
from pixelis.train.journal import Journal
from pixelis.train.learner import Dose, Learner
from pixelis.train.normalisers import tool_scalers, write_normalisers
from pixelis.train.optim import set_rate
from pixelis.train.ranks import Ranks
from pixelis.train.rehearsal import Rehearsal, RehearsalSettings
from pixelis.train.sft_state import Hardness, Progress, SftSettings, claim, resume, save
from pixelis.train.traces import Lesson, pixels_again, read_lessons


def run_sft(
    checkpoint: Checkpoint,
    traces: Sequence[str | Path],
    dev_traces: Sequence[str | Path],
    out: str | Path,
    settings: SftSettings = SftSettings(),
    *,
    num_workers: int = 2,
    log: Callable[[dict], None] = print,
    on_media: Callable[[int, int], None] | None = None,
    rehearsal: RehearsalSettings | None = None,
    ranks: Ranks = Ranks(),
) -> Path:
    """Train a checkpoint on traces and write it to a folder that `load_checkpoint` reads.

    Args:
        checkpoint: loaded, with or without LoRA adapters; what requires a gradient learns.
        traces, dev_traces: trace sets.
        out: new, or the folder of a run of the same settings that was cut short, which then goes on to the same bytes.
        rehearsal: dialogues that are learnt beside the traces; for models that have just learnt to point.
        ranks: the processes that train together, each with all of the traces; the first writes.

    Raises:
        DataError: damaged or empty traces, or another process is at work in `out`.
        ConfigError: `out` holds a run of other settings.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if ranks.is_first:
        claim(out, settings, traces, dev_traces, checkpoint, rehearsal)
        note_command(out)
    bank, tower = _bank(checkpoint), tower_name(checkpoint.base)
    bank.load(ranks.own(out / "features.npz"), tower=tower)
    read = {"bank": bank, "prompting": checkpoint.prompting, "num_workers": num_workers, "progress": on_media}
    lessons = read_lessons(traces, cache=ranks.own(out / "shown.json"), **read)
    dev = read_lessons(dev_traces, cache=ranks.own(out / "shown_dev.json"), **read)[: settings.dev_traces]
    if bank.num_encoded:
        bank.save(ranks.own(out / "features.npz"), tower=tower)
    bank.pixels = pixels_again([*traces, *dev_traces], [*lessons, *dev], checkpoint.prompting)
    class_room = ClassRoom(checkpoint, bank, settings)
    if rehearsal is not None:
        cache = ranks.own(out / "views.npz")
        class_room.rehearsal = Rehearsal(rehearsal, bank, checkpoint.base, class_room.chat, cache, seed=settings.seed)
    dev, _ = class_room.fitting(dev)
    lessons, num_long = class_room.fitting(lessons)  # last: it is their lengths that batches are made by
    learner = Learner(
        checkpoint.model, bank.features, lambda_aux=settings.lambda_aux, smoothing=settings.smoothing, rate=settings.rate,
        matrix_rate=settings.matrix_rate, use_muon=settings.use_muon, mixed=settings.mixed, seed=settings.seed,
        ranks=ranks,
    )  # fmt: skip
    progress, hardness = resume(out, learner, len(lessons))
    log = log if ranks.is_first else lambda _: None
    log({"traces": len(lessons), "dev": len(dev), "left_out_as_too_long": num_long, "learning_parameters": learner.num_learning}
        | estimate(learner, class_room.lengths, settings))  # fmt: skip
    journal_path = out / "metrics.jsonl" if ranks.is_first else None
    with alone(out) if ranks.is_first else nullcontext(), Journal(journal_path, progress.step, log) as journal:
        _train(learner, class_room, lessons, dev, progress, hardness, settings, out, journal)
        _finish(learner, class_room, lessons, dev, checkpoint, out, journal, progress)
    return out


def _train(
    learner: Learner, room: ClassRoom, lessons: list[Lesson], dev: list[Lesson], progress: Progress, hardness: Hardness,
    settings: SftSettings, out: Path, journal: Journal,
) -> None:  # fmt: skip
    """Epochs of rounds of batches."""
    ranks = learner.ranks
    num_updates = _num_updates(room, settings, ranks.count)
    saved = time.monotonic()
    while progress.epoch < settings.epochs:
        if not progress.done_batches:
            hardness.deal(progress.phase)
        for group in _groups(room, progress, hardness, settings, ranks.count)[progress.done_batches :]:
            set_rate(learner.optimizer, progress.step / num_updates)
            mine, doses = [], []
            for k, batch, counts in ranks.deal(group):
                dose = room.dose(batch, lessons, np.random.default_rng([settings.seed, 7, progress.step, k]))
                doses.append(dose if counts else dose.silent())
                mine += [int(index) if counts else -1 for index in batch]
            facts = learner.step([*doses, *room.rehearse(progress.step * ranks.count + ranks.rank)])
            for index, ce in ranks.gather(list(zip(mine, facts.ce, strict=False))):  # behind the traces' stand the dialogues'
                if index >= 0:
                    hardness.now_N[index] = np.nan_to_num(ce, nan=0.0)
            progress.step, progress.done_batches = progress.step + 1, progress.done_batches + 1
            progress.num_skipped += facts.is_skipped
            journal.step(progress, facts, num_updates, [lessons[k].trajectory.id for k in group[0]] if facts.is_skipped else [])
            if progress.step % settings.dev_every == 0:
                _examine(learner, room, dev, progress, settings, journal)
            if ranks.total([ranks.is_first and time.monotonic() - saved > settings.save_every_s])[0]:
                save(out, learner, progress, hardness)
                saved = time.monotonic()
        progress.done_batches, progress.round = 0, progress.round + 1
        if progress.epoch == 0 or progress.round == settings.rounds:
            progress.epoch, progress.round = progress.epoch + 1, 0
            if progress.phase == curriculum.WARM_UP:
                progress.phase, progress.dev_losses = progress.phase + 1, []
        save(out, learner, progress, hardness)


def _groups(room: ClassRoom, progress: Progress, hardness: Hardness, settings: SftSettings, num_ranks: int) -> list[list[np.ndarray]]:
    """The batches of the round, `accumulate` of them to an update of each process."""
    part = progress.epoch * settings.rounds + progress.round
    indices = curriculum.order(part, hardness.dealt_phase, hardness.dealt_N, settings.seed)
    if progress.epoch > 0:
        indices = indices[: -(-len(indices) // settings.rounds)]
    found = curriculum.batches(room.lengths, indices, max_tokens_per_batch=settings.batch_tokens, seed=settings.seed + part)
    size = settings.accumulate * num_ranks
    return [found[k : k + size] for k in range(0, len(found), size)]


def _num_updates(room: ClassRoom, settings: SftSettings, num_ranks: int) -> int:
    """Updates of the whole run, as far as it can be known before: rounds draw differently."""
    everything = np.arange(len(room.lengths))
    per_epoch = len(curriculum.batches(room.lengths, everything, max_tokens_per_batch=settings.batch_tokens, seed=0))
    return max(1, settings.epochs * -(-per_epoch // (settings.accumulate * num_ranks)))


def _examine(learner: Learner, room: ClassRoom, dev: list[Lesson], progress: Progress, settings: SftSettings, journal: Journal) -> None:
    """Dev loss; and the curriculum's next phase when it stands still."""
    losses = dev_loss(learner, room, dev)
    progress.dev_losses.append(losses["all"])
    journal.dev(progress, losses)
    if 0 < progress.phase < curriculum.LAST_PHASE and curriculum.advance(
        progress.dev_losses, decay=settings.ema_decay, window=settings.window
    ):
        progress.phase, progress.dev_losses = progress.phase + 1, []


def dev_loss(learner: Learner, room: ClassRoom, dev: list[Lesson]) -> dict[str, float]:
    """Mean cross-entropy per trace in nats, over all and per family; nothing is hidden."""
    by_family: dict[str, list[float]] = {}
    for batch in room.plain_batches(dev):
        for lesson, loss in zip(batch, learner.losses(room.plain_dose(batch)), strict=True):
            by_family.setdefault(lesson.trace.family, []).append(loss)
    every = [loss for losses in by_family.values() for loss in losses]
    return {"all": float(np.mean(every))} | {name: float(np.mean(losses)) for name, losses in sorted(by_family.items())}


def _finish(
    learner: Learner, room: ClassRoom, lessons: list[Lesson], dev: list[Lesson], checkpoint: Checkpoint, out: Path, journal: Journal,
    progress: Progress,
) -> None:  # fmt: skip
    journal.dev(progress, dev_loss(learner, room, dev))
    facts = [learner.token_facts(room.plain_dose(batch)) for batch in room.plain_batches(dev)]
    logp, entropy = (np.concatenate([pair[i] for pair in facts]) for i in (0, 1))
    learner.save(out)
    if learner.ranks.is_first:
        write_normalisers(out, logp, entropy, tool_scalers(lesson.trajectory for lesson in lessons))
        checkpoint.tokenizer.save_pretrained(out)
        checkpoint.images.save_pretrained(out)
        checkpoint.prompting.save(out)
        shutil.rmtree(out / "state", ignore_errors=True)
    learner.ranks.wait()


# ---------------------------------------------------------------- what is learnt in one step


class ClassRoom:
    """Turns lessons into doses: packed, weighted, with something hidden."""

    def __init__(self, checkpoint: Checkpoint, bank: FeatureBank, settings: SftSettings) -> None:
        prompting = checkpoint.prompting
        merge = checkpoint.base.config.vision_config.spatial_merge_size
        self.chat = ChatFormat(
            checkpoint.tokenizer, template=checkpoint.template, merge=merge, schemas=prompting.schemas, guide=prompting.guide
        )
        self.bank, self.settings = bank, settings
        self.rehearsal: Rehearsal | None = None
        self.lengths = np.zeros(0, np.int64)

    def fitting(self, lessons: list[Lesson]) -> tuple[list[Lesson], int]:
        """The lessons that are short enough, and how many are not; notes their lengths.

        Raises:
            DataError: none is.
        """
        lengths = np.array([len(self.pack(lesson)) for lesson in lessons], np.int64)
        fits = lengths <= self.settings.max_tokens
        if not fits.any():
            raise DataError(f"all {len(lessons)} traces have more than {self.settings.max_tokens} tokens (the shortest {lengths.min()})")
        self.lengths = lengths[fits]
        return [lesson for lesson, fit in zip(lessons, fits, strict=True) if fit], int((~fits).sum())

    def pack(self, lesson: Lesson, responses: Sequence[str] | None = None) -> Example:
        return pack_trajectory(
            lesson.trajectory, self.chat, lesson.prompt(self.bank), crop_grid=self.bank.grids.__getitem__, responses=responses
        )

    def dose(self, indices: np.ndarray, lessons: list[Lesson], rng: np.random.Generator) -> Dose:
        """A batch as it is learnt: results hidden, early calls untaught, deliberate mistakes read and not learnt."""
        settings, examples, taught, targets = self.settings, [], [], []
        for k in indices:
            lesson = lessons[int(k)]
            quoted = frozenset(i for i, is_decisive in enumerate(lesson.decisive) if is_decisive)
            example = self.pack(lesson, feedback_dropout(lesson.trajectory, rng, settings.feedback_dropout, keep=quoted))
            weight_T = weights(example, w_act=settings.w_act, untaught=frozenset(lesson.trace.planned_errors))
            examples.append(example)
            taught.append(early_action_dropout(example, weight_T, rng, settings.early_dropout))
            targets.append(_targets(lesson, example))
        return Dose(tuple(examples), tuple(taught), tuple(targets))

    def rehearse(self, step: int) -> list[Dose]:
        return [] if self.rehearsal is None else [self.rehearsal.dose(step)]

    def plain_batches(self, lessons: list[Lesson]) -> list[list[Lesson]]:
        size = max(1, self.settings.batch_tokens // self.settings.max_tokens)
        return [lessons[k : k + size] for k in range(0, len(lessons), size)]

    def plain_dose(self, lessons: Sequence[Lesson]) -> Dose:
        """A batch as it is, for measuring."""
        examples = [self.pack(lesson) for lesson in lessons]
        untaught = [frozenset(lesson.trace.planned_errors) for lesson in lessons]
        return Dose(tuple(examples), tuple(weights(e, w_act=1.0, untaught=u) for e, u in zip(examples, untaught, strict=True)))


def _targets(lesson: Lesson, example: Example) -> tuple[tuple[int, int, AuxTarget], ...]:
    """What each decisive call found, with the tokens that asked for it."""
    found = aux_targets(lesson.trajectory, lesson.decisive)
    spans = {turn.step: turn for turn in example.turns if turn.step >= 0 and turn.act_start < turn.act_end}
    return tuple((spans[k].act_start, spans[k].act_end, target) for k, target in enumerate(found) if target is not None and k in spans)


# ---------------------------------------------------------------- before it starts


def estimate(learner: Learner, lengths: np.ndarray, settings: SftSettings) -> dict[str, float]:
    """What a run will need, in GB and GFLOP: weights, gradients and optimiser states, activations of the largest batch, and arithmetic.

    Activations are taken as 20 numbers per token, layer and hidden unit, plus the logits of half of the tokens; a pass costs six
    operations per token and parameter of the language model (two of them fall away where only adapters learn). With gradient
    checkpointing every layer keeps one number per token and hidden unit, one layer at a time keeps all 20, and a pass costs two more.
    """
    config = learner.base.config.text_config
    number = next(learner.base.parameters()).element_size()
    all_parameters = sum(p.numel() for p in learner.base.parameters())
    tokens = settings.batch_tokens
    is_checkpointed = getattr(learner.base.model.language_model.layers[0], "gradient_checkpointing", False)
    numbers = config.num_hidden_layers + 20 if is_checkpointed else 20 * config.num_hidden_layers
    activations = tokens * numbers * config.hidden_size * number + tokens * config.vocab_size * 4
    language = sum(p.numel() for p in learner.base.model.language_model.parameters())
    passes = (4 if learner.num_learning < language / 2 else 6) + 2 * is_checkpointed
    return {
        "estimated_gb": round((all_parameters * number + learner.num_learning * 12 + activations) / 1e9, 2),
        "estimated_gflop_per_epoch": round(passes * language * float(lengths.sum()) / 1e9, 1),
    }


def _bank(checkpoint: Checkpoint) -> FeatureBank:
    return FeatureBank(Vision(checkpoint.base, checkpoint.images, checkpoint.prompting, cache_bytes=1 << 20))
