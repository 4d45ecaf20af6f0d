"""Tokens per second of phase 1: our step beside TRL's SFTTrainer, on one checkpoint and the same examples, in turns.

Both sides imitate the same dialogues about pictures: the same ids, the same learnt tokens, plain cross-entropy, AdamW, the same batches.
TRL sees them as its vision path does: pixel values with every batch, its fused head, its own training loop. Ours encodes each picture once
and looks its features up afterwards, which is what a frozen tower allows; how long that took is counted in. TRL's tower is frozen too.
`--no-images` leaves the pictures out on both sides. Ratios are of median tokens per second over the rounds.

    python benchmarks/sft.py --checkpoint runs/nano/primer --views runs/nano/views
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelis.policy.buffer import ChatFormat, ImageRef
from pixelis.policy.vlm_load import Checkpoint, load_checkpoint
from pixelis.policy.vlm_vision import Vision
from pixelis.rollout.pack import Example, weights
from pixelis.train.bank import FeatureBank
from pixelis.train.drills import without_picture
from pixelis.train.learner import Dose, Learner
from pixelis.train.primer import about_view, pack_dialogue
from pixelis.train.rehearsal import encode_views
from pixelis.train.views import View, grid_of, patches_of, read_views


def make_examples(chat: ChatFormat, views: Sequence[View], count: int) -> list[Example]:
    """Dialogues about views, or without pictures when there are no views."""
    made = []
    for number in range(count):
        rng = np.random.default_rng(number)
        if views:
            view = views[number % len(views)]
            image = ImageRef(f"view-{number % len(views)}", grid_of(view.pixels_HWC))
            made.append(pack_dialogue(about_view(view, rng), chat, image))
        else:
            made.append(pack_dialogue(without_picture(rng), chat))
    return made


def ours(checkpoint: Checkpoint, views: Sequence[View], batches: Sequence[Sequence[Example]]) -> tuple[float, list[float]]:
    """Seconds for all batches with encoding, and the loss of each."""
    start = time.perf_counter()
    bank = FeatureBank(Vision(checkpoint.base, checkpoint.images, checkpoint.prompting, cache_bytes=1 << 20))
    encode_views(bank, checkpoint.base, views)
    learner = Learner(checkpoint.model, bank.features, lambda_aux=0.0, smoothing=0.0, rate=1e-4, use_muon=False)
    losses = [learner.step([Dose.plain(batch)]).token_loss for batch in batches]
    return time.perf_counter() - start, losses


def theirs(checkpoint: Checkpoint, views: Sequence[View], batches: Sequence[Sequence[Example]]) -> tuple[float, list[float]]:
    """The same through `SFTTrainer.train`; what a trainer does before its first step is not counted."""
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from transformers import TrainerCallback
    from trl import SFTConfig, SFTTrainer

    examples = [example for batch in batches for example in batch]
    checkpoint.base.requires_grad_(True)
    checkpoint.base.model.visual.requires_grad_(False)

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        chosen = [examples[row["number"]] for row in rows]
        longest = max(len(example) for example in chosen)
        ids, mask = np.zeros((len(chosen), longest), np.int64), np.zeros((len(chosen), longest), np.int64)
        labels = np.full((len(chosen), longest), -100, np.int64)
        for row, example in enumerate(chosen):
            ids[row, : len(example)], mask[row, : len(example)] = example.ids_T, 1
            learnt = weights(example) > 0
            labels[row, : len(example)][learnt] = example.ids_T[learnt]
        batch = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask), "labels": torch.from_numpy(labels)}
        shown = [placed.image for example in chosen for placed in example.images]
        if shown:
            once = [patches_of(views[int(image.sha256.removeprefix("view-"))].pixels_HWC) for image in shown]
            twice = np.concatenate([np.repeat(p.reshape(len(p), 3, 1, 16, 16), 2, axis=2).reshape(len(p), -1) for p in once])
            batch |= {"pixel_values": torch.from_numpy(twice), "image_grid_thw": torch.tensor([image.grid for image in shown])}
            batch["mm_token_type_ids"] = (batch["input_ids"] == checkpoint.base.config.image_token_id).long()
        return batch

    class Clock(TrainerCallback):
        start = 0.0
        losses: list[float] = []

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.start, self.losses = time.perf_counter(), []

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
            if logs and "loss" in logs:
                self.losses.append(logs["loss"])

    clock = Clock()
    table = InMemoryTable.from_pydict({"number": list(range(len(examples))), "input_ids": [[0]] * len(examples)})
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = SFTConfig(
            output_dir=folder,
            per_device_train_batch_size=len(batches[0]),
            max_steps=len(batches),
            learning_rate=1e-4,
            lr_scheduler_type="constant",
            adam_beta2=0.98,
            weight_decay=0.01,
            logging_steps=1,
            save_strategy="no",
            report_to=[],
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            max_length=None,
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            disable_tqdm=True,
            train_sampling_strategy="sequential",
        )
        trainer = SFTTrainer(
            model=checkpoint.base,
            args=config,
            train_dataset=Dataset(table, fingerprint="sft"),  # from_dict would hash it, which some versions of pyarrow do not bear
            processing_class=checkpoint.tokenizer,
            data_collator=collate,
            callbacks=[clock],
        )
        trainer.train()
    return time.perf_counter() - clock.start, clock.losses


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--views", type=Path, help="a folder of views; see `pixelis train sight`")
    parser.add_argument("--no-images", action="store_true")
    parser.add_argument("--batches", type=int, default=12)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    views = [] if args.no_images else read_views(args.views, shards=[0])[: args.batch * args.batches]
    speeds: dict[str, list[float]] = {"ours": [], "TRL": []}
    for number in range(args.rounds):
        for name, side in (("ours", ours), ("TRL", theirs))[:: 1 if number % 2 else -1]:
            checkpoint = load_checkpoint(args.checkpoint)
            chat = ChatFormat(checkpoint.tokenizer, template=checkpoint.template, merge=2, schemas=(), guide="")
            examples = make_examples(chat, views, args.batch * args.batches)
            batches = [examples[k : k + args.batch] for k in range(0, len(examples), args.batch)]
            seconds, losses = side(checkpoint, views, batches)
            speeds[name].append(sum(map(len, examples)) / seconds)
            print(f"round {number} {name}: {speeds[name][-1]:.0f} tokens/s, loss {losses[0]:.3f} to {losses[-1]:.3f}", flush=True)
    ratio = statistics.median(speeds["ours"]) / statistics.median(speeds["TRL"])
    print(f"{'without pictures' if args.no_images else 'with pictures'}: {ratio:.2f} times TRL's tokens/s")


if __name__ == "__main__":
    main()
