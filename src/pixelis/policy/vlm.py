"""The `vlm` policy: a local Qwen3-VL checkpoint of any size, token in and token out, many conversations at once.

What the model saw and wrote is kept as ids with the sampler's log-probabilities, so that training needs no second rendering.
"""

from __future__ import annotations

import asyncio
import hashlib
import threading
import weakref
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelis.core.errors import ConfigError, DataError, ToolError
from pixelis.core.grammar import ANSWER_CLOSE, CALL_CLOSE
from pixelis.core.media import Medium
from pixelis.core.trajectory import PolicyInfo, TokenRun
from pixelis.policy.base import Observation, PolicyError, Task, TokenLimit
from pixelis.policy.buffer import ChatFormat, ImageRef, TokenBuffer
from pixelis.policy.exposure import at_exposure, expose, rounded
from pixelis.policy.prompt import ImagePart, Prompting, headroom_of, question_parts
from pixelis.policy.vlm_decode import Decoder
from pixelis.policy.vlm_engine import Conversation, Engine
from pixelis.policy.vlm_load import Checkpoint, load_checkpoint
from pixelis.policy.vlm_sampling import Sampling
from pixelis.policy.vlm_score import pixels_of, score
from pixelis.policy.vlm_vision import Vision

TAIL = 16
"""Tokens in which a closing tag is looked for; even letter by letter none is longer."""

KEPT_PROMPTS = 64
"""Of the latest, and as many headrooms of media."""


class VlmPolicy:
    """A Qwen3-VL model as a policy.

    A turn ends with the end token, behind a closed call or answer, or at its length limit. Vision tokens, turn starts and result
    tags cannot be sampled. The same task and seed give the same turns, as far as the arithmetic of different batches agrees.

    Args:
        checkpoint: a folder, a hub name, or a model that is already loaded (which training may share).
        adapter: a LoRA adapter's folder.
        dtype: torch dtype or its name; "auto" is float32 on a CPU and the checkpoint's own elsewhere.
        device: "auto" takes a GPU when there is one.
        max_new_tokens: of one turn.
        max_context: of one conversation, images included; the model's own limit if that is lower.
        temperature: 0 takes the likeliest token every time.
        top_p: share of the probability mass that is drawn from; see `Sampling` before learning from less than 1.
        prompting: guide, schemas and how large images are shown; what the checkpoint says, or its family's defaults, when None.
        schemas: other tools than Pixelis' own, as OpenAI function schemas.
        num_slots: conversations that write at once; more may be open. The memory they need grows with the longest of them:
            2 x layers x key-value heads x head size x num_slots numbers per token.
        cache_bytes: keys and values of shared prompts, and image features, kept for later sessions; each.

    Raises:
        ConfigError: the checkpoint is of another family, or incomplete.
        NotInstalled: torch or transformers is missing.
    """

    def __init__(
        self,
        checkpoint: str | Path | Checkpoint,
        *,
        adapter: str | Path | None = None,
        dtype: str | torch.dtype = "auto",
        device: str = "auto",
        max_new_tokens: int = 256,
        max_context: int = 16_384,
        temperature: float = 1.0,
        top_p: float = 1.0,
        num_slots: int = 16,
        prompting: Prompting | None = None,
        schemas: Sequence[dict] | None = None,
        cache_bytes: int = 1 << 29,
    ) -> None:
        _check_settings(max_new_tokens=max_new_tokens, num_slots=num_slots, temperature=temperature, top_p=top_p)
        if not isinstance(checkpoint, Checkpoint):
            checkpoint = load_checkpoint(checkpoint, adapter=adapter, dtype=dtype, device=device)
        elif adapter is not None:
            raise ConfigError("a loaded checkpoint brings its own adapters: leave `adapter` out")
        self.checkpoint = checkpoint
        config = checkpoint.base.config
        self.max_context = min(max_context, config.text_config.max_position_embeddings)
        self.prompting = prompting = prompting or checkpoint.prompting
        self.merge = config.vision_config.spatial_merge_size
        self.format = ChatFormat(
            checkpoint.tokenizer,
            template=checkpoint.template,
            merge=self.merge,
            schemas=prompting.schemas if schemas is None else schemas,
            guide=prompting.guide,
        )
        beyond = range(len(checkpoint.tokenizer), config.text_config.vocab_size)  # padding of the embedding, no token
        self.sampling = Sampling(temperature, top_p, (*self.format.banned_ids, *beyond))
        self.vision = Vision(checkpoint.base, checkpoint.images, prompting, cache_bytes=cache_bytes)
        self.info = PolicyInfo(
            name=f"vlm:{checkpoint.name}",
            version=checkpoint.version,
            sampling={
                "temperature": temperature,
                "top_p": top_p,
                "max_new_tokens": max_new_tokens,
                "max_context": self.max_context,
                "prompting": prompting.facts(),
                "dtype": str(checkpoint.base.dtype).removeprefix("torch."),
            },
        )
        self._system = tuple(self.format.system_ids())
        self._closers = {id_ for token, id_ in checkpoint.tokenizer.get_vocab().items() if ">" in token}
        self._prompts: OrderedDict[tuple[str, str], tuple[list[int], list[ImageRef]]] = OrderedDict()
        self._headrooms: OrderedDict[str, float] = OrderedDict()
        self._lock = threading.Lock()
        self._weights = _Fingerprint(checkpoint)
        self.engine = Engine(
            Decoder(checkpoint.model, num_lanes=num_slots, image_id=self.format.image_id),
            self.vision,
            self.sampling,
            ends_turn=_TurnEnd(self.format, self._closers),
            max_new_tokens=max_new_tokens,
            max_context=self.max_context,
            cache_bytes=cache_bytes,
            fingerprint=self._weights,
        )
        self._finalizer = weakref.finalize(self, self.engine.close)

    def open(self, task: Task, *, seed: int, lift: float | None = None) -> VlmSession:
        """Start a conversation.

        Args:
            lift: share of the medium's headroom by which it sees brighter; that of the policy when None.

        Raises:
            PolicyError: the medium cannot be shown to the model.
        """
        exposure = self._exposure(task, self.prompting.lift if lift is None else lift)
        ids, images = self._prompt(task, exposure)
        buffer = TokenBuffer(image_id=self.format.image_id, merge=self.merge)
        buffer.append("prompt", ids, images=images)
        numbers = (seed % 2**64, zlib.crc32(task.question.encode("utf-8", "replace")))
        whole = (tuple(ids), tuple(image.sha256 for image in images))
        is_shared = whole[0][: len(self._system)] == self._system
        talk = Conversation(buffer, numbers, (whole, (self._system, ())) if is_shared else (whole,))
        return VlmSession(self, talk, exposure)

    def look(self, lift: float) -> None:
        """Show media at this lift to all conversations that are opened from now on."""
        self.prompting = replace(self.prompting, lift=lift)
        self.info = replace(self.info, sampling={**self.info.sampling, "prompting": self.prompting.facts()})

    def headroom(self, medium: Medium) -> float:
        """Of a medium as it is shown, in stops.

        Raises:
            DataError: damage took what would be shown.
        """
        with self._lock:
            known = self._headrooms.get(medium.sha256)
        if known is not None:
            return known
        found = headroom_of(medium, self.prompting)
        with self._lock:
            _keep(self._headrooms, medium.sha256, found)
        return found

    def _exposure(self, task: Task, lift: float) -> float:
        """In stops."""
        if not lift:
            return 0.0
        try:
            return rounded(lift * self.headroom(task.medium))
        except (DataError, ToolError) as error:
            raise _cannot_show(error) from error

    def _prompt(self, task: Task, exposure: float) -> tuple[list[int], list[ImageRef]]:
        """Ids and images of the first message; the images are held for the caller."""
        key = (at_exposure(task.medium.sha256, exposure), task.question)
        with self._lock:
            known = self._prompts.get(key)
        if known is not None and self.vision.hold([image.sha256 for image in known[1]]):
            return known
        taken: list[ImageRef] = []
        try:
            parts: list[str | ImageRef] = []
            for part in question_parts(task, self.prompting, exposure):
                if isinstance(part, ImagePart):
                    taken.append(self.vision.take(part.sha256, part.image_HWC))
                    part = taken[-1]
                parts.append(part)
            prompt = (self.format.prompt(parts), taken)
        except Exception as error:
            self.vision.release([image.sha256 for image in taken])
            if isinstance(error, (DataError, ToolError, ValueError)):
                raise _cannot_show(error) from error
            raise
        with self._lock:
            _keep(self._prompts, key, prompt)
        return prompt

    def prompt_images(self, task: Task, *, exposure: float | None = None) -> dict[str, np.ndarray]:
        """The images of a task's first message by the name under which token runs refer to them; crops are among the blobs.

        Args:
            exposure: at which they were shown, in stops; what the policy's lift makes of the medium when None.
        """
        stops = self._exposure(task, self.prompting.lift) if exposure is None else exposure
        return {part.sha256: part.image_HWC for part in question_parts(task, self.prompting, stops) if isinstance(part, ImagePart)}

    @contextmanager
    def paused(self) -> Iterator[Any]:
        """The model, while nothing is sampled from it: change weights or the active adapter in here.

        Turns under way go on afterwards with the new weights and read their whole conversation again.
        """
        with self.engine.paused():
            try:
                yield self.checkpoint.model
            finally:
                self._weights.refresh()

    def close(self) -> None:
        """End the worker; sessions that are writing fail with `PolicyError`. Safe to call twice."""
        self._finalizer()


def _keep(kept: OrderedDict, key: Any, value: Any) -> None:
    """The latest `KEPT_PROMPTS`."""
    kept[key] = value
    while len(kept) > KEPT_PROMPTS:
        kept.popitem(last=False)


def _cannot_show(error: Exception) -> PolicyError:
    return PolicyError(f"the medium cannot be shown to the model: {error}")


def logp_of(policy: VlmPolicy, token_runs: Sequence[TokenRun], images: Mapping[str, np.ndarray | bytes]) -> list[tuple[float, ...]]:
    """What a full forward pass of transformers gives the tokens that were sampled: one tuple per `policy` run, in nats.

    Args:
        images: each image of the runs by its name, or by that of what it shows as it is: RGB uint8 [height, width, 3] or an encoded file.

    Raises:
        DataError: an image is missing or does not fit its place.
    """
    with policy.paused() as model, torch.inference_mode():
        scores = score(
            model, policy.vision, token_runs, images, sampling=policy.sampling, image_id=policy.format.image_id, merge=policy.merge
        )
    return [tuple(part.tolist()) for part in scores]


class VlmSession:
    """One conversation with the model."""

    def __init__(self, policy: VlmPolicy, talk: Conversation, exposure: float = 0.0) -> None:
        self._policy, self._talk, self._format, self._exposure = policy, talk, policy.format, exposure
        self._is_writing = self._is_full = self._is_closed = False
        self._is_due = True

    async def act(self) -> str:
        """The next turn.

        Raises:
            TokenLimit: the conversation does not fit into the context, or the turn was cut where the context ends.
            PolicyError: the model failed, or session or policy was closed.
        """
        buffer, limit = self._talk.buffer, self._policy.max_context
        if self._is_closed:
            raise PolicyError("the session was closed")
        if self._is_writing or not self._is_due:
            raise RuntimeError("a turn is under way, or the result of the last one has not been observed")
        if self._is_full or len(buffer) >= limit:
            raise TokenLimit(f"the conversation has {len(buffer)} of {limit} tokens, and what comes next does not fit")
        self._is_writing = True
        future = self._policy.engine.write(self._talk)
        try:
            ids, logp = await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            self._talk.num_read = min(self._talk.num_read, len(buffer))  # a turn that nobody received did not happen
            raise
        finally:
            self._is_writing = False
        return self._take_in(ids, logp)

    def _take_in(self, ids: list[int], logp: list[float]) -> str:
        buffer, end_id = self._talk.buffer, self._format.end_id
        buffer.append("policy", ids, logp=logp)
        self._is_due = False
        is_cut = len(buffer) >= self._policy.max_context
        if ids[-1] == end_id:
            return self._format.decode(ids[:-1])
        text = self._format.decode(ids)
        if is_cut and not text.endswith((CALL_CLOSE, ANSWER_CLOSE)):
            raise TokenLimit(f"the turn was cut at {self._policy.max_context} tokens, where the context ends")
        buffer.append("tool", [end_id])
        return text

    def observe(self, observation: Observation) -> None:
        """Add a result, its text and its image or neither.

        A result that the context has no room for is left out, and the next `act` raises `TokenLimit`.

        Raises:
            PolicyError: the image cannot be read.
        """
        if self._is_writing or self._is_due:
            raise RuntimeError("there is no turn that waits for a result")
        vision, buffer, image = self._policy.vision, self._talk.buffer, None
        if observation.image_png is not None:
            name = observation.image_sha256 or hashlib.sha256(observation.image_png).hexdigest()
            try:
                crop = expose(pixels_of(observation.image_png), self._exposure)
                image = vision.take(at_exposure(name, self._exposure), crop)
            except (OSError, ValueError) as error:
                raise PolicyError(f"the image of a result cannot be shown to the model: {error}") from error
        held = [image.sha256] if image else []
        try:
            ids = self._format.response(observation.response, image)
            self._is_full = len(buffer) + len(ids) >= self._policy.max_context
            if not self._is_full:
                buffer.append("tool", ids, images=[image] if image else [])
                held = []
        finally:
            vision.release(held)
        self._is_due = True

    def tokens(self) -> tuple[TokenRun, ...]:
        return self._talk.buffer.export()

    def close(self) -> None:
        """Free what the session holds; a turn under way fails. Safe to call twice."""
        if not self._is_closed:
            self._is_closed = True
            self._policy.engine.drop(self._talk)


class _TurnEnd:
    """Whether a turn is complete: its last token ends it or closes a call or an answer."""

    def __init__(self, chat: ChatFormat, closers: set[int]) -> None:
        self._chat, self._closers = chat, closers

    def __call__(self, ids: Sequence[int]) -> bool:
        if ids[-1] == self._chat.end_id:
            return True
        if ids[-1] not in self._closers:
            return False
        tail = self._chat.decode(ids[-TAIL:])
        return CALL_CLOSE in tail or ANSWER_CLOSE in tail


class _Fingerprint:
    """Two values that change with the weights: of the vision tower, of the language model and its active adapters."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint, self._count = checkpoint, 0
        self.refresh()

    def refresh(self) -> None:
        base = self._checkpoint.base
        self._vision = list(base.model.visual.parameters())
        self._text = [*base.model.language_model.parameters(), base.lm_head.weight]
        self._tuners = [m for m in base.model.language_model.modules() if hasattr(m, "lora_A")][:1]

    def __call__(self) -> tuple:
        adapters = tuple((tuple(m.active_adapters), m.disable_adapters) for m in self._tuners)
        return sum(p._version for p in self._vision), (sum(p._version for p in self._text), len(self._text), adapters)


def _check_settings(*, max_new_tokens: int, num_slots: int, temperature: float, top_p: float) -> None:
    if max_new_tokens < 1 or num_slots < 1:
        raise ConfigError(f"max_new_tokens and num_slots must be at least 1; got {max_new_tokens} and {num_slots}")
    if not temperature >= 0 or not 0 < top_p <= 1:
        raise ConfigError(f"temperature must be 0 or more and top_p in (0, 1]; got {temperature} and {top_p}")
