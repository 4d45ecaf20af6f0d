"""TRL's side of `benchmarks/rft.py`: GRPOTrainer, with PixelWorld and the six tools as its environment."""

from __future__ import annotations

import io
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from benchmarks.parts.rft_facts import Gate, Interval, Options, Update, covered_s, idle_before
from PIL import Image

from pixelis.agent import make_executor
from pixelis.core.grammar import render_response
from pixelis.core.media import open_medium
from pixelis.core.ops import CallError, Result, ZoomOutput
from pixelis.core.wire import result_to_wire
from pixelis.data.world.items import FAMILIES, make_item, render
from pixelis.data.world.score import score_answer
from pixelis.policy.base import Task
from pixelis.policy.buffer import END, ChatFormat, inner
from pixelis.policy.prompt import ImagePart, question_parts
from pixelis.policy.vlm_load import Checkpoint, load_checkpoint, patch_matmul
from pixelis.rewards.penalty import penalty
from pixelis.rollout.run import MAX_IDLE_TURNS, _read
from pixelis.tools.execute import Execution
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import resolved

WITHOUT_SCHEMAS = "{%- set tools = none -%}"
"""Before a template: TRL hands it the tools, and a checkpoint that knows them without schemas was never shown any."""


class Desk:
    """What the rollouts of an update share: media, each opened and shown once, the tools, and their clock."""

    def __init__(self, options: Options, checkpoint: Checkpoint) -> None:
        self.options, self.prompting = options, checkpoint.prompting
        self.chat = ChatFormat(checkpoint.tokenizer, template=checkpoint.template)
        self.executor = make_executor(resolved(ToolSettings()))
        self.tools: list[Interval] = []
        self.media_s = 0.0
        self._open, self._stack = {}, ExitStack()

    def clear(self) -> None:
        self._stack.close()
        self._open.clear()
        self.tools.clear()
        self.media_s = 0.0

    def take(self, number: int) -> tuple[Any, Any, list[dict]]:
        """The item of a number, its medium, and the content of its first message."""
        if number not in self._open:
            start = time.perf_counter()
            names = self.options.families or tuple(FAMILIES)
            item = make_item("train", number, seed=self.options.world_seed, family=names[number % len(names)])
            medium = self._stack.enter_context(open_medium(render(item), name=item.medium_name))
            parts = question_parts(Task(question=item.prompt, medium=medium, id=item.id), self.prompting)
            self._open[number] = item, medium, [self._block(part) for part in parts]
            self.media_s += time.perf_counter() - start
        return self._open[number]

    def _block(self, part: str | ImagePart) -> dict:
        if isinstance(part, ImagePart):
            return {"type": "image", "image": Image.fromarray(part.image_HWC)}
        return {"type": "text", "text": self.chat.plain(part)}

    def picture(self, png: bytes) -> dict:
        crop = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
        return {"type": "image", "image": Image.fromarray(self.prompting.show(crop))}


class World:
    """One rollout's environment. TRL calls `act` with every turn that is no answer: as in ours, a broken call gets its error to read."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def reset(self, number: int, **_: Any) -> list[dict]:
        self._history: list[Result] = []
        self._item, self._medium, content = self._desk.take(number)
        return content

    def act(self, text: str) -> list:
        """
        Run the call of a turn.

        Args:
            text: The turn, as the policy wrote it.

        Returns:
            A short text, and a picture where the tool shows one.
        """
        turn, error = _read(text)
        if turn.call is None:
            error = error or CallError(kind="bad_call", message="no call and no answer: write one <tool_call> or an <answer>")
            return self._show(Execution(result=Result(op="", status="error", engine="none", version="", error=error)))
        start = time.perf_counter()
        done = self._desk.executor.run(turn.call, self._medium, self._history)
        self._desk.tools.append((start, time.perf_counter()))
        return self._show(done)

    def _show(self, done: Execution) -> list[dict]:
        self._history.append(done.result)
        text = inner(render_response(result_to_wire(done.result, step=len(self._history), info=self._medium.info)))
        shown = [{"type": "text", "text": self._desk.chat.plain(text)}]
        output = done.result.output
        return [*shown, self._desk.picture(done.blobs[output.image])] if isinstance(output, ZoomOutput) else shown

    def _reward(self, last: str) -> float:
        """What GRPOTrainer can know: the answer and the penalty. Curiosity and coherence need hidden states, which it does not give."""
        answer = _read(last)[0].answer or ""
        return score_answer(self._item, answer) - penalty(sum(not r.is_ok for r in self._history), len(self._history))


def reader(chat: ChatFormat) -> Callable[..., dict]:
    """Reads a turn for TRL, as our runner does: all but an answer, and but the last of several turns that do nothing, goes to `act`."""

    def parse(ids: list[int], *, prefix: list[int], **_: Any) -> dict:
        text = chat.decode(ids).removesuffix(END)
        turn, _error = _read(text)
        message = {"role": "assistant", "content": text}
        gave_up = turn.call is None and idle_before(chat.decode(prefix)) + 1 >= MAX_IDLE_TURNS
        if turn.answer is None and not gave_up:
            message["tool_calls"] = [{"type": "function", "function": {"name": "act", "arguments": {"text": text}}}]
        return message

    return parse


def rewards(completions: list[list[dict]], environments: list[World], **_: Any) -> list[float]:
    return [world._reward(str(turns[-1].get("content") or "")) for world, turns in zip(environments, completions, strict=True)]


# ---------------------------------------------------------------- the trainer


def make_processor(checkpoint: Checkpoint, chat: ChatFormat) -> Any:
    """Qwen3-VL's processor without its video part, which needs torchvision; the frames of a video are images with time stamps."""
    import torch
    from transformers import Qwen3VLProcessor
    from trl.chat_template_utils import qwen3_template

    class Processor(Qwen3VLProcessor):
        attributes = ["image_processor", "tokenizer"]

        @classmethod
        def get_attributes(cls) -> list[str]:
            return cls.attributes

        def __init__(self, image_processor: Any = None, tokenizer: Any = None, chat_template: str | None = None, **_: Any) -> None:
            super().__init__(image_processor, tokenizer, None, chat_template=chat_template)

        def apply_chat_template(self, *args: Any, **kwargs: Any) -> Any:
            """With tensors of the images, which TRL expects and processors without torchvision give only on request."""
            found = super().apply_chat_template(*args, **kwargs)
            for name in ("pixel_values", "image_grid_thw"):
                if isinstance(found, Mapping) and name in found:
                    found[name] = torch.as_tensor(np.asarray(found[name]))
            return found

    tokenizer, template = checkpoint.tokenizer, WITHOUT_SCHEMAS + checkpoint.template
    tokenizer.padding_side, tokenizer.chat_template = "left", template
    tokenizer.response_template, tokenizer.parse_response = qwen3_template, reader(chat)
    return Processor(checkpoint.images, tokenizer, chat_template=template)


def make_trainer(options: Options, checkpoint: Checkpoint, desk: Desk, folder: str, callback: Any) -> Any:
    import torch
    from datasets import Dataset
    from datasets.table import InMemoryTable
    from transformers import PrinterCallback
    from trl import GRPOConfig, GRPOTrainer

    rows, batch = options.trl_rows or options.size, options.groups * options.size
    config = GRPOConfig(
        output_dir=folder,
        max_steps=options.updates,
        per_device_train_batch_size=rows,
        gradient_accumulation_steps=batch // rows,
        num_generations=options.size,
        max_completion_length=checkpoint.base.config.text_config.max_position_embeddings,  # the conversation; a turn's cap is below
        max_tool_calling_iterations=options.max_steps,
        temperature=1.0,
        top_p=1.0,
        top_k=0,
        generation_kwargs={"max_new_tokens": options.max_new_tokens, "suppress_tokens": list(desk.chat.banned_ids)},
        beta=options.beta,
        learning_rate=options.rate,
        lr_scheduler_type="constant",
        shuffle_dataset=False,
        use_cpu=not torch.cuda.is_available(),
        bf16=False,
        gradient_checkpointing=False,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        seed=options.seed,
    )
    # a conversation of one empty message, which the environment fills; from_list would hash it, which some versions of pyarrow do not bear
    numbers = list(range(options.updates * options.groups))
    table = InMemoryTable.from_pydict({"prompt": [[{"role": "user", "content": ""}]] * len(numbers), "number": numbers})
    trainer = GRPOTrainer(
        model=checkpoint.base,
        args=config,
        reward_funcs=rewards,
        train_dataset=Dataset(table, fingerprint="rft"),
        processing_class=make_processor(checkpoint, desk.chat),
        environment_factory=lambda: World(desk),
        callbacks=[callback],
    )
    trainer.remove_callback(PrinterCallback)
    patch_matmul(trainer.ref_model.model.visual)  # as the policy's own tower: Conv3d is slow on a CPU, and that is not the question
    return trainer


@dataclass
class Stopwatch:
    """Seconds of methods of the trainer, and what its rollouts came to."""

    seconds: dict[str, float] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def watch(self, trainer: Any, name: str) -> None:
        method = getattr(trainer, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            found = method(*args, **kwargs)
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - start
            if name == "_generate":
                self.facts = _rollout_facts(*found[:4])
            return found

        setattr(trainer, name, timed)


def _rollout_facts(prompt_ids: list, _: list, tool_mask: list, completions: list) -> dict[str, Any]:
    sampled = sum(map(sum, tool_mask))
    return {
        "num_rollouts": len(completions),
        "num_answered": sum("</answer>" in str(turns[-1].get("content")) for turns in completions),
        "num_turns": sum(turn["role"] == "assistant" for turns in completions for turn in turns),
        "sampled_tokens": sampled,
        "learnt_tokens": sampled,
        "prompts": tuple(sorted({zlib.crc32(str(list(ids)).encode()) for ids in prompt_ids})),
    }


def trl(options: Options, gate: Gate) -> None:
    """All updates of TRL's side; what a trainer does before its first step is not counted."""
    import torch
    from transformers import TrainerCallback

    torch.set_num_threads(options.threads)
    warnings.filterwarnings("ignore")
    checkpoint = load_checkpoint(options.checkpoint, dtype="float32")
    checkpoint.base.model.visual.requires_grad_(False)
    desk, watch = Desk(options, checkpoint), Stopwatch()

    class Turns(TrainerCallback):
        begun = 0.0

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            gate.wait()
            desk.clear()
            watch.seconds.clear()
            self.begun = time.perf_counter()

        def on_step_end(self, *_: Any, **__: Any) -> None:
            gate.done(_update(watch, desk, time.perf_counter() - self.begun))

    with tempfile.TemporaryDirectory() as folder:
        trainer = make_trainer(options, checkpoint, desk, folder, Turns())
        for name in ("_generate", "_generate_and_score_completions"):
            watch.watch(trainer, name)
        trainer.train()
    desk.clear()


def _update(watch: Stopwatch, desk: Desk, seconds: float) -> Update:
    """TRL does one thing after another: while a tool runs, the model waits."""
    rollout_s, tool_s = watch.seconds["_generate"], covered_s(desk.tools)
    before_training = watch.seconds["_generate_and_score_completions"]
    return Update(
        seconds=seconds,
        rollout_s=rollout_s,
        idle_s=tool_s,
        tool_s=tool_s,
        score_s=before_training - rollout_s - desk.media_s,
        train_s=seconds - before_training,
        num_calls=len(desk.tools),
        **watch.facts,
    )
