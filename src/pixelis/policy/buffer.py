"""The append-only token buffer of one conversation: what was prompted, sampled and returned, as the very ids the model saw.

Nothing is rendered twice. What the chat template puts between a turn and a tool's result is found once, by rendering a dummy
conversation and cutting it at its markers; afterwards a message is its own text between two special tokens, where no merge of
the tokenizer can reach across. Letters: T tokens, N images.
"""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np

from pixelis.core.errors import ConfigError, DataError
from pixelis.core.grammar import RESPONSE_CLOSE, RESPONSE_OPEN
from pixelis.core.trajectory import TokenRun

Role = Literal["prompt", "policy", "tool"]
Grid = tuple[int, int, int]
"""Temporal, vertical and horizontal number of patches of an image, before merging."""

END, IMAGE_PAD = "<|im_end|>", "<|image_pad|>"
KEPT = ("<tool_call>", "</tool_call>", "<think>", "</think>")
"""Added tokens that are part of what a policy writes; all others are the template's alone."""


@dataclass(frozen=True)
class ImageRef:
    """One image in a conversation: its name and the patch grid it was cut into."""

    sha256: str
    grid: Grid


@dataclass(frozen=True)
class PlacedImage:
    """An image and the stretch of the buffer where its features stand."""

    image: ImageRef
    start: int
    end: int


class ChatFormat:
    """How one checkpoint writes a conversation as tokens.

    Args:
        tokenizer: a transformers tokenizer with Qwen's ChatML tokens.
        template: a Jinja chat template with a `tool` role; the tokenizer's own when left out.
        merge: patches per side that make one visual token.
        schemas: tools rendered into the system turn, as OpenAI function schemas.
        guide: the system message; none when empty.

    Raises:
        ConfigError: no template, no ChatML tokens, or a template that does not render tool results.
    """

    def __init__(
        self, tokenizer: Any, *, template: str | None = None, merge: int = 2, schemas: Sequence[dict] = (), guide: str = ""
    ) -> None:
        self.tokenizer, self.merge = tokenizer, merge
        self._template = template or tokenizer.chat_template
        self._schemas, self._guide = list(schemas), guide
        if not self._template:
            raise ConfigError("the checkpoint has no chat template: add chat_template.jinja to its folder")
        added = {str(token): id_ for id_, token in tokenizer.added_tokens_decoder.items()}
        if END not in added or IMAGE_PAD not in added:
            raise ConfigError(f"the tokenizer lacks {END} or {IMAGE_PAD}: it is not of the Qwen-VL family")
        self.end_id, self.image_id = added[END], added[IMAGE_PAD]
        self._reserved = tuple(sorted(added, key=len, reverse=True))
        self.banned_ids = tuple(sorted(id_ for token, id_ in added.items() if token not in (END, *KEPT)))
        """What a policy must never write: vision tokens, turn starts, result tags, padding."""
        self._before, self._after = self._glue()

    # ------------------------------------------------------------ messages

    def prompt(self, parts: Sequence[str | ImageRef]) -> list[int]:
        """The ids of the first message, tools and system turn included, up to where the policy begins to write."""
        content = [{"type": "image"} if isinstance(p, ImageRef) else {"type": "text", "text": self.plain(p)} for p in parts]
        text = self.render([*self._system(), {"role": "user", "content": content}])
        return self.encode(text, [p for p in parts if isinstance(p, ImageRef)])

    def response(self, response: str, image: ImageRef | None = None) -> list[int]:
        """The ids of a tool's result, from behind the policy's end token to where the policy begins to write again.

        Args:
            response: the result as the policy reads it, tags included.
            image: shown behind the text, inside the tags.
        """
        text = self._before + self.plain(inner(response))
        text += self._vision if image else ""
        return self.encode(text + self._after, [image] if image else [])

    def tool_message(self, response: str, *, has_image: bool = False) -> dict:
        """The same result as a message for `render`."""
        parts = [{"type": "text", "text": self.plain(inner(response))}, *([{"type": "image"}] if has_image else [])]
        return {"role": "tool", "content": parts}

    def render(self, messages: Sequence[dict], *, to_continue: bool = True) -> str:
        """The template's text of a whole conversation, with one placeholder per image."""
        return self.tokenizer.apply_chat_template(
            list(messages),
            chat_template=self._template,
            tools=self._schemas or None,
            tokenize=False,
            add_generation_prompt=to_continue,
        )

    def encode(self, text: str, images: Sequence[ImageRef]) -> list[int]:
        """Ids of rendered text, each placeholder repeated once per visual token of its image.

        Raises:
            ValueError: not as many placeholders as images.
        """
        pieces = text.split(IMAGE_PAD)
        if len(pieces) != len(images) + 1:
            raise ValueError(f"{len(pieces) - 1} image placeholders for {len(images)} images")
        filled = pieces[0] + "".join(
            IMAGE_PAD * self.num_tokens(image.grid) + piece for image, piece in zip(images, pieces[1:], strict=True)
        )
        return self.tokenizer.encode(filled, add_special_tokens=False)

    def decode(self, ids: Sequence[int]) -> str:
        return self.tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)

    def plain(self, text: str) -> str:
        """Text in which no reserved token is spelt out, so that nobody's question or result can open a turn or claim an image."""
        for token in self._reserved:
            if token in text:
                text = text.replace(token, token[0] + " " + token[1:])
        return text

    def num_tokens(self, grid: Grid) -> int:
        return grid[0] * grid[1] * grid[2] // self.merge**2

    # ------------------------------------------------------------ the template's own text

    def _system(self) -> list[dict]:
        return [{"role": "system", "content": self._guide}] if self._guide else []

    def system_ids(self) -> list[int]:
        """What every prompt of this format begins with, whatever the question."""
        first, second = (self.prompt([text]) for text in ("0", "x"))
        shared = next(i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
        return first[:shared]

    def _glue(self) -> tuple[str, str]:
        """Text from behind the end token to a result, and from a result to the next turn; by difference, once."""
        call, result = "MARKED CALL", "MARKED RESULT"
        start = [*self._system(), {"role": "user", "content": "?"}, {"role": "assistant", "content": call}]
        text = self.render([*start, {"role": "tool", "content": [{"type": "text", "text": result}]}])
        seen = self.render([*start, {"role": "tool", "content": [{"type": "text", "text": result}, {"type": "image"}]}])
        before, found, after = text.rpartition(call)[2].partition(result)
        if not found or not before.startswith(END) or RESPONSE_OPEN not in before or RESPONSE_CLOSE not in after:
            raise ConfigError(f"the chat template does not write a tool's result in a turn of its own within {RESPONSE_OPEN}")
        self._vision = seen.rpartition(result)[2].removesuffix(after)
        if self._vision.count(IMAGE_PAD) != 1:
            raise ConfigError("the chat template does not show an image that stands in a tool's result")
        return before.removeprefix(END), after


def inner(response: str) -> str:
    """A result without its tags, which the template writes itself."""
    return response.removeprefix(RESPONSE_OPEN).removesuffix(RESPONSE_CLOSE).removeprefix("\n").removesuffix("\n")


@dataclass(frozen=True)
class _Run:
    role: Role
    ids: tuple[int, ...]
    logp: tuple[float, ...]
    images: tuple[ImageRef, ...]


class TokenBuffer:
    """Ids, roles, log-probabilities and images of one conversation, in order; it only ever grows.

    Args:
        image_id: the id that stands where an image's features go.
        merge: patches per side that make one visual token.
    """

    def __init__(self, *, image_id: int, merge: int = 2) -> None:
        self._image_id, self._merge = image_id, merge
        self._runs: list[_Run] = []
        self.ids: list[int] = []
        self.images: list[PlacedImage] = []
        self._starts: list[int] = []
        self._positions: list[np.ndarray] = []
        self.next_position = 0
        """Rotary position of the token that comes next: behind an image it lags behind the count of tokens."""

    def __len__(self) -> int:
        return len(self.ids)

    def append(self, role: Role, ids: Sequence[int], *, logp: Sequence[float] = (), images: Sequence[ImageRef] = ()) -> None:
        """Add a stretch, whole or not at all.

        Args:
            logp: the sampler's, in nats, one per id of a `policy` stretch; empty for the others.
            images: one for each row of image tokens in `ids`, in order.

        Raises:
            ValueError: image tokens and images, or ids and log-probabilities, do not match.
        """
        if len(logp) != (len(ids) if role == "policy" else 0):
            raise ValueError(f"{len(logp)} log-probabilities for {len(ids)} ids of role {role}")
        if not ids:
            return
        placed = self._place(ids, images)
        positions = self._positions_of(len(ids), placed)
        self._runs.append(_Run(role, tuple(ids), tuple(logp), tuple(images)))
        self._starts.append(len(self.ids))
        self._positions.append(positions)
        self.next_position = int(positions.max()) + 1
        self.ids.extend(ids)
        self.images.extend(placed)

    def _place(self, ids: Sequence[int], images: Sequence[ImageRef]) -> list[PlacedImage]:
        rows, at = [], len(self.ids)
        for is_image, row in groupby(ids, key=lambda id_: id_ == self._image_id):
            length = sum(1 for _ in row)
            if is_image:
                rows.append((at, at + length))
            at += length
        wanted = [image.grid[0] * image.grid[1] * image.grid[2] // self._merge**2 for image in images]
        if [end - start for start, end in rows] != wanted:
            raise ValueError(f"rows of image tokens {[end - start for start, end in rows]} for images of {wanted} visual tokens")
        return [PlacedImage(image, start, end) for image, (start, end) in zip(images, rows, strict=True)]

    def _positions_of(self, length: int, placed: Sequence[PlacedImage]) -> np.ndarray:
        """Rotary positions [3, T]: text counts on in all three; an image spans a grid and moves on by its longer side."""
        begin, at, position, pieces = len(self.ids), len(self.ids), self.next_position, []
        for image in placed:
            pieces.append(np.broadcast_to(np.arange(image.start - at) + position, (3, image.start - at)))
            position += image.start - at
            t, h, w = image.image.grid[0], image.image.grid[1] // self._merge, image.image.grid[2] // self._merge
            pieces.append(np.stack(np.meshgrid(np.arange(t), np.arange(h), np.arange(w), indexing="ij")).reshape(3, -1) + position)
            position += max(h, w)
            at = image.end
        rest = begin + length - at
        pieces.append(np.broadcast_to(np.arange(rest) + position, (3, rest)))
        return np.concatenate(pieces, axis=1).astype(np.int64)

    def positions(self, start: int = 0, end: int | None = None) -> np.ndarray:
        """Rotary positions [3, T] (time, height, width) of a stretch."""
        end = len(self.ids) if end is None else end
        if start >= end:
            return np.empty((3, 0), np.int64)
        first = bisect.bisect_right(self._starts, start) - 1
        return np.concatenate(self._positions[first:], axis=1)[:, start - self._starts[first] : end - self._starts[first]]

    def mask(self, role: Role) -> np.ndarray:
        """Bool [T]: where the ids of one role stand."""
        return np.array([run.role == role for run in self._runs for _ in run.ids], dtype=bool)

    def export(self) -> tuple[TokenRun, ...]:
        """The buffer as facts for a trajectory; neighbours of one role become one run."""
        runs = []
        for role, group in groupby(self._runs, key=lambda run: run.role):
            members = list(group)
            runs.append(
                TokenRun(
                    role=role,
                    ids=tuple(id_ for run in members for id_ in run.ids),
                    logp=tuple(value for run in members for value in run.logp),
                    images=tuple(image.sha256 for run in members for image in run.images),
                )
            )
        return tuple(runs)

    @classmethod
    def load(
        cls, runs: Sequence[TokenRun], grid_of: Mapping[str, Grid] | Callable[[str], Grid], *, image_id: int, merge: int = 2
    ) -> TokenBuffer:
        """The buffer that `export` wrote.

        Args:
            grid_of: an image's patch grid by its hash; it follows from the image and the checkpoint, so it is not stored.

        Raises:
            DataError: an image is missing or does not fit the stretch it stands in.
        """
        buffer = cls(image_id=image_id, merge=merge)
        look_up = grid_of if callable(grid_of) else grid_of.__getitem__
        for run in runs:
            try:
                images = [ImageRef(sha256, tuple(look_up(sha256))) for sha256 in run.images]
                buffer.append(run.role, run.ids, logp=run.logp, images=images)
            except KeyError as error:
                raise DataError(f"image {error.args[0]!s:.16} of the token sequence is missing") from None
            except ValueError as error:
                raise DataError(f"a {run.role} stretch of the token sequence is broken: {error}") from None
        return buffer
