"""Trajectories per second: our rollouts beside TRL's, on one checkpoint, with one tool, the same prompts and limits, in turns.

A small Qwen3-VL checkpoint is first taught one habit: call the tool twice, then answer. So both sides do the same work: an image
question, two calls whose results hold a text and an image, three turns in all. Then both sample groups at temperature 1, alternating.

What is timed: from prompts (messages with images) to finished conversations as ids. TRL: `GRPOTrainer._generate`, the rollout part of a
training step (its transformers backend; vLLM needs a GPU). Ours: `VlmPolicy` sessions in one asyncio loop; ids come with the sampler's
log-probabilities, which TRL's backend does not give. Prompt ids are checked to be equal on both sides. Before every round all caches of
our side are dropped, as a training step between two rollouts would do. Our turns end behind `</tool_call>` or `</answer>` without
sampling the end token; TRL's end with it.

    python benchmarks/rollout.py --threads 1
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import random
import statistics
import tempfile
import time
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from pixelis.core.media import open_medium
from pixelis.policy.base import Observation, Task
from pixelis.policy.buffer import TokenBuffer
from pixelis.policy.prompt import GUIDE
from pixelis.policy.vlm import VlmPolicy
from pixelis.policy.vlm_load import Checkpoint, load_checkpoint
from pixelis.testing.tiny_vlm import make_checkpoint

TURNS = (
    'The sign is small, I look closer.\n<tool_call>\n{"name": "look", "arguments": {"x": 120, "y": 340}}\n</tool_call>',
    'It goes on to the right.\n<tool_call>\n{"name": "look", "arguments": {"x": 620, "y": 340}}\n</tool_call>',
    "Both parts are seen.\n<answer>seven</answer>",
)
SIZE = 128


def look(x: int, y: int) -> list:
    """
    Look at a place enlarged.

    Args:
        x: Horizontal place, 0 to 1000.
        y: Vertical place, 0 to 1000.

    Returns:
        What is there, and a picture of it.
    """
    crop = np.random.default_rng([x, y]).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    return [{"type": "text", "text": json.dumps({"x": x, "y": y, "seen": (x + y) % 10})}, {"type": "image", "image": Image.fromarray(crop)}]


def png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


def make_tasks(count: int) -> list[tuple[Task, Image.Image]]:
    made = []
    for number in range(count):
        image = Image.fromarray(np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
        made.append((Task(question=f"What does sign {number} say?", medium=open_medium(png(image)), id=str(number)), image))
    return made


class Clock:
    """Wall and CPU seconds of a `with` block; the second is what the work costs, also on a busy machine."""

    def __enter__(self) -> Clock:
        self._start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s, self.cpu_s = time.perf_counter() - self._start[0], time.process_time() - self._start[1]


# ---------------------------------------------------------------- one habit for both sides


def lesson(policy: VlmPolicy, task: Task) -> tuple[TokenBuffer, list[str]]:
    """The conversation that the model is to imitate; turns end with the end token, which TRL waits for."""
    session = policy.open(task, seed=0)
    buffer, chat = session._talk.buffer, policy.format
    for turn, text in enumerate(TURNS):
        ids = [*chat.encode(text, []), chat.end_id]
        buffer.append("policy", ids, logp=[0.0] * len(ids))
        if turn < len(TURNS) - 1:
            call = json.loads(text.split("<tool_call>")[1].split("</tool_call>")[0])
            (said, seen) = look(**call["arguments"])
            image = policy.vision.take(f"crop{call['arguments']}", np.asarray(seen["image"]))
            buffer.append("tool", chat.response(f"<tool_response>\n{said['text']}\n</tool_response>", image), images=[image])
    return buffer, [placed.image.sha256 for placed in buffer.images]


def teach(policy: VlmPolicy, tasks: list[Task], *, steps: int) -> float:
    """A few dozen steps of imitation on the policy's own tokens; returns the last loss in nats per token."""
    base = policy.checkpoint.base
    optimiser = torch.optim.AdamW(base.model.language_model.parameters(), lr=2e-3)
    lessons = [lesson(policy, task) for task in tasks]
    schedule = torch.optim.lr_scheduler.LinearLR(optimiser, 1.0, 0.02, total_iters=steps)
    loss = torch.tensor(float("nan"))
    with policy.paused():
        for step in range(steps):
            buffer, names = lessons[step % len(lessons)]
            ids = torch.tensor([buffer.ids])
            patches = [policy.vision._patches[name] for name in names]
            logits = base(
                input_ids=ids,
                position_ids=torch.from_numpy(buffer.positions())[:, None],
                pixel_values=torch.cat([p for _, p in patches]),
                image_grid_thw=torch.tensor([ref.grid for ref, _ in patches]),
            ).logits[0, :-1]
            mask = torch.from_numpy(buffer.mask("policy"))[1:]
            loss = torch.nn.functional.cross_entropy(logits[mask], ids[0, 1:][mask])
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(base.parameters(), 1.0)
            optimiser.step()
            schedule.step()
    return float(loss)


# ---------------------------------------------------------------- ours


async def converse(policy: VlmPolicy, task: Task, seed: int) -> tuple[int, bool, int]:
    """One trajectory; how many calls it made, whether it answered, and how many ids were sampled."""
    session, num_calls = policy.open(task, seed=seed), 0
    text = await session.act()
    while "</tool_call>" in text and num_calls < len(TURNS) - 1:
        try:
            arguments = json.loads(text.split("<tool_call>")[1].split("</tool_call>")[0])["arguments"]
            (said, seen) = await asyncio.to_thread(look, **arguments)
        except (ValueError, KeyError, IndexError, TypeError):
            break
        num_calls += 1
        session.observe(Observation(response=f"<tool_response>\n{said['text']}\n</tool_response>", image_png=png(seen["image"])))
        text = await session.act()
    runs = session.tokens()
    session.close()
    return num_calls, "</answer>" in text, sum(len(r.ids) for r in runs if r.role == "policy")


def ours(policy: VlmPolicy, jobs: list[tuple[Task, int]]) -> tuple[Clock, list[tuple[int, bool, int]]]:
    with policy.paused() as model, torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.0)  # as far as the policy can tell, new weights
        policy._prompts.clear()

    async def everything():
        return await asyncio.gather(*(converse(policy, task, seed) for task, seed in jobs))

    with Clock() as clock:
        outcomes = asyncio.run(everything())
    return clock, outcomes


# ---------------------------------------------------------------- TRL


def make_trainer(checkpoint: Checkpoint, model: Any, *, batch: int, group: int, max_tokens: int, folder: Path) -> Any:
    from datasets import Dataset
    from transformers import Qwen3VLProcessor
    from trl import GRPOConfig, GRPOTrainer

    class Processor(Qwen3VLProcessor):
        """Without the video processor, which needs torchvision."""

        attributes = ["image_processor", "tokenizer"]

        @classmethod
        def get_attributes(cls) -> list[str]:
            return cls.attributes

        def __init__(self, image_processor=None, tokenizer=None, chat_template=None, **_):
            super().__init__(image_processor, tokenizer, None, chat_template=chat_template)

    processor = Processor(checkpoint.images, checkpoint.tokenizer, chat_template=checkpoint.template)
    config = GRPOConfig(
        output_dir=str(folder / "trl"),
        per_device_train_batch_size=batch,
        num_generations=group,
        max_completion_length=max_tokens,
        max_tool_calling_iterations=len(TURNS) - 1,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        max_steps=1,
    )
    trainer = GRPOTrainer(
        model=model,
        processing_class=processor,
        args=config,
        reward_funcs=lambda completions, **_: [0.0] * len(completions),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "?"}]}]),
        tools=[look],
    )
    trainer.model.train()
    trainer._sync_tool_dicts = [{"look": look} for _ in range(batch)]
    trainer._async_tool_dicts = [{} for _ in range(batch)]
    return trainer


def messages(question: str, image: Image.Image) -> list[dict]:
    return [
        {"role": "system", "content": [{"type": "text", "text": GUIDE}]},
        {"role": "user", "content": [{"type": "image", "image": image}, {"type": "text", "text": question}]},
    ]


def theirs(trainer: Any, prompts: list[list[dict]], seed: int) -> tuple[Clock, list[tuple[int, bool, int]], list]:
    torch.manual_seed(seed)
    with Clock() as clock:
        prompt_ids, _, tool_mask, completions, *_ = trainer._generate(prompts)
    outcomes = []
    for mask, turns in zip(tool_mask, completions, strict=True):
        num_calls = sum(turn["role"] == "tool" for turn in turns)
        outcomes.append((num_calls, "</answer>" in str(turns[-1].get("content")), sum(mask)))
    return clock, outcomes, prompt_ids


# ---------------------------------------------------------------- side by side


def summarise(name: str, clock: Clock, outcomes: list[tuple[int, bool, int]]) -> float:
    done = sum(answered and calls == len(TURNS) - 1 for calls, answered, _ in outcomes)
    rate = len(outcomes) / clock.wall_s
    tokens = sum(n for *_, n in outcomes)
    print(
        f"  {name:5} {clock.wall_s:7.2f} s ({clock.cpu_s:.2f} s of CPU)  {rate:6.2f} trajectories/s  "
        f"{tokens / clock.wall_s:6.0f} sampled tokens/s  {done}/{len(outcomes)} complete"
    )
    return rate


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--prompts", type=int, default=4)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--slots", type=int, default=32)
    parser.add_argument("--steps", type=int, default=300, help="of teaching")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--max-tokens", type=int, default=1024, help="TRL: of a whole completion, results included; ours: of a turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--checkpoint", type=Path, help="where a taught checkpoint is kept between runs")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.set_num_threads(options.threads)
    random.seed(0)
    from transformers.utils import get_json_schema
    from trl.chat_template_utils import qwen3_vl_chat_template

    folder = options.checkpoint or Path(tempfile.mkdtemp())
    is_taught = (folder / "taught").exists()
    if not is_taught:
        make_checkpoint(folder, vocab_size=1024, hidden=options.hidden, num_layers=options.layers, max_pixels=SIZE * SIZE)
    checkpoint = replace(load_checkpoint(folder), template=qwen3_vl_chat_template)
    checkpoint.tokenizer.chat_template = qwen3_vl_chat_template
    checkpoint.tokenizer.padding_side = "left"
    policy = VlmPolicy(checkpoint, max_new_tokens=options.max_tokens, num_slots=options.slots, schemas=[get_json_schema(look)])
    made = make_tasks(options.prompts)
    if not is_taught:
        print(f"taught to {teach(policy, [task for task, _ in made], steps=options.steps):.4f} nats per token")
        checkpoint.base.save_pretrained(folder)
        (folder / "taught").touch()
    twin = load_checkpoint(folder).model  # the same weights; TRL switches its model to training mode
    batch = options.prompts * options.group
    trainer = make_trainer(checkpoint, twin, batch=batch, group=options.group, max_tokens=options.max_tokens, folder=folder)
    prompts = [messages(task.question, image) for task, image in made for _ in range(options.group)]
    jobs = [(task, seed) for task, _ in made for seed in range(options.group)]
    params = sum(p.numel() for p in checkpoint.base.parameters())
    print(f"{params / 1e6:.1f} M parameters, {options.prompts} prompts x {options.group}, {options.slots} slots, {options.threads} threads")
    ratios, cpu = [], []
    for number in range(options.rounds + 1):
        print("warm-up" if number == 0 else f"round {number}")
        their_clock, outcomes, prompt_ids = theirs(trainer, prompts, number)
        their_rate = summarise("TRL", their_clock, outcomes)
        our_clock, outcomes = ours(policy, [(task, seed + 1000 * number) for task, seed in jobs])
        our_rate = summarise("ours", our_clock, outcomes)
        if number == 0:
            for (task, _), ids in zip(jobs, prompt_ids, strict=True):
                assert list(ids) == list(policy.open(task, seed=0).tokens()[0].ids), "the two sides read different prompts"
            print(f"  prompts equal on both sides: {len(prompt_ids[0])} tokens each")
        else:
            ratios.append(our_rate / their_rate)
            cpu.append(their_clock.cpu_s / our_clock.cpu_s)
    print(f"ratio ours / TRL: median {statistics.median(ratios):.2f}, rounds {', '.join(f'{r:.2f}' for r in ratios)}")
    print(f"CPU seconds TRL / ours: median {statistics.median(cpu):.2f}, rounds {', '.join(f'{r:.2f}' for r in cpu)}")
    policy.close()


if __name__ == "__main__":
    main()
