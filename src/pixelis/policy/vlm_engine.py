"""One thread that writes the turns of many conversations at once: every step advances all that are in the middle of one.

A conversation keeps its keys and values between its turns, so a tool's result costs only its own tokens. Conversations with
the same first message share it, and all share the system turn. A conversation that waits for its tool gives up its lane when
another one needs it, and gets its keys and values back as they were.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pixelis.policy.base import PolicyError
from pixelis.policy.buffer import TokenBuffer
from pixelis.policy.vlm_decode import Decoder, Piece
from pixelis.policy.vlm_sampling import Sampling
from pixelis.policy.vlm_vision import Vision

log = logging.getLogger(__name__)

READ_BUDGET = 8192
"""Tokens that are read in one pass before the turns under way get their next step; one long message may exceed it."""


BeginningKey = tuple[tuple[int, ...], tuple[str, ...]]
"""Ids and image names of a first stretch of tokens."""


@dataclass(eq=False)
class Conversation:
    """What the worker knows of one session."""

    buffer: TokenBuffer
    seed: tuple[int, ...]
    beginnings: tuple[BeginningKey, ...] = ()
    """Names of the beginnings that other conversations may have too, longest first: the first message, the system turn."""
    num_read: int = 0
    """How many tokens of the buffer, and of the turn under way, the keys and values cover."""
    lane: int | None = None
    parked: torch.Tensor | None = None
    epoch: int = -1
    """Which weights the keys and values belong to."""
    last_used: int = 0


@dataclass(eq=False)
class Turn:
    """A turn under way."""

    talk: Conversation
    future: Future
    rng: np.random.Generator
    """Of this turn alone, so that a turn that is begun again is drawn again as it was."""
    ids: list[int] = field(default_factory=list)
    logp: list[float] = field(default_factory=list)

    @property
    def length(self) -> int:
        return len(self.talk.buffer) + len(self.ids)

    def tail(self, start: int) -> list[int]:
        """Tokens from `start` on, the turn's own included."""
        own = start - len(self.talk.buffer)
        return self.talk.buffer.ids[start:] + self.ids if own < 0 else self.ids[own:]


@dataclass(frozen=True)
class Beginning:
    """Keys and values of a first stretch of tokens, and the logits behind it."""

    saved: torch.Tensor
    logits_V: torch.Tensor | None


class Engine:
    """Runs turns until it is closed.

    Args:
        decoder: lanes and forward passes; only the worker touches it.
        ends_turn: whether a turn is complete, from its ids so far.
        max_new_tokens: of one turn.
        max_context: of one conversation.
        cache_bytes: shared beginnings kept.
        fingerprint: changes whenever the weights do.
    """

    def __init__(
        self,
        decoder: Decoder,
        vision: Vision,
        sampling: Sampling,
        *,
        ends_turn: Callable[[Sequence[int]], bool],
        max_new_tokens: int,
        max_context: int,
        cache_bytes: int,
        fingerprint: Callable[[], tuple],
    ) -> None:
        self._decoder, self._vision, self._sampling = decoder, vision, sampling
        self._ends_turn, self._max_new, self._max_context = ends_turn, max_new_tokens, max_context
        self._fingerprint, self._seen, self._epoch, self._clock = fingerprint, fingerprint(), 0, 0
        self._cache_bytes = cache_bytes
        self._beginnings: OrderedDict[tuple, Beginning] = OrderedDict()
        self._free = list(range(decoder.num_lanes))[::-1]
        self._held: dict[int, Conversation] = {}
        self._waiting: deque[Turn] = deque()
        self._writing: list[Turn] = []
        self._inbox: deque[Turn | Conversation] = deque()
        self._wake = threading.Condition()
        self._busy = threading.Lock()
        self._num_pauses = 0
        self._is_closing = False
        self.num_read = self.num_steps = self.num_stepped = 0
        """Tokens read in bulk, steps taken, and tokens written by them: what the work has cost so far."""
        self._thread = threading.Thread(target=self._run, name="pixelis-vlm", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------ called from any thread

    def write(self, talk: Conversation) -> Future:
        """Ask for a turn; the future gives `(ids, logp)`. Cancelling it drops the turn and leaves the conversation as it was."""
        turn = Turn(talk, Future(), np.random.default_rng((*talk.seed, len(talk.buffer))))
        self._post(turn)
        return turn.future

    def drop(self, talk: Conversation) -> None:
        """Free what a conversation holds."""
        self._post(talk, is_needed=False)

    def _post(self, item: Turn | Conversation, *, is_needed: bool = True) -> None:
        with self._wake:
            if self._is_closing:
                if is_needed:
                    raise PolicyError("the policy is closed")
                return
            self._inbox.append(item)
            self._wake.notify()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing runs inside; turns under way go on afterwards, with whatever weights there are then."""
        with self._wake:
            self._num_pauses += 1
        try:
            with self._busy:
                yield
        finally:
            with self._wake:
                self._num_pauses -= 1
                self._wake.notify()

    def close(self) -> None:
        """End the worker; turns under way fail with `PolicyError`. Safe to call twice."""
        with self._wake:
            self._is_closing = True
            self._wake.notify()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=60)

    # ------------------------------------------------------------ the worker

    def _run(self) -> None:
        while True:
            with self._wake:
                while not self._is_closing and (self._num_pauses or not (self._inbox or self._waiting or self._writing)):
                    self._wake.wait()
                if self._is_closing:
                    break
                posted, self._inbox = self._inbox, deque()
            with self._busy, torch.inference_mode():
                try:
                    self._round(posted)
                except Exception as error:  # our own mistake: say so, fail what is under way, keep serving
                    log.exception("the sampling worker failed")
                    for turn in [*self._waiting, *self._writing, *(p for p in posted if isinstance(p, Turn))]:
                        self._fail(turn, error)
        for turn in [*self._waiting, *self._writing, *(p for p in self._inbox if isinstance(p, Turn))]:
            self._settle(turn, PolicyError("the policy was closed"))

    def _round(self, posted: deque[Turn | Conversation]) -> None:
        """Take in what is new, read what must be read, and write one token of every turn."""
        self._check_weights()
        for item in posted:
            self._waiting.append(item) if isinstance(item, Turn) else self._release(item)
        for turn in [t for t in (*self._waiting, *self._writing) if t.future.cancelled()]:
            self._forget_turn(turn)
        self._admit()
        unread = [t for t in self._writing if t.talk.num_read < t.length - 1 or not t.ids]
        if unread:
            self._read(unread)
        ready = [t for t in self._writing if t.talk.num_read == t.length - 1 and t.ids]
        if ready:
            self._step(sorted(ready, key=lambda t: t.talk.lane))

    def _check_weights(self) -> None:
        seen = self._fingerprint()
        if seen == self._seen:
            return
        if seen[0] != self._seen[0]:
            self._vision.forget()
        self._seen, self._epoch = seen, self._epoch + 1
        self._beginnings.clear()
        self._decoder.refresh()
        for turn in self._writing:
            self._renew(turn.talk)

    def _renew(self, talk: Conversation) -> None:
        """Keys and values of other weights are worth nothing."""
        if talk.epoch != self._epoch:
            talk.num_read, talk.parked, talk.epoch = 0, None, self._epoch

    # ------------------------------------------------------------ lanes

    def _admit(self) -> None:
        """Give lanes to waiting turns, first come first served."""
        while self._waiting:
            lane = self._lane_for(self._waiting[0].talk)
            if lane is None:
                return
            turn = self._waiting.popleft()
            talk = turn.talk
            if talk.lane is None:
                talk.lane, self._held[lane] = lane, talk
            self._renew(talk)
            if talk.parked is not None:
                self._decoder.restore(lane, talk.parked)
                talk.parked = None
            talk.num_read = min(talk.num_read, len(talk.buffer) - 1)  # logits come from a token that is read now
            self._clock += 1
            talk.last_used = self._clock
            self._writing.append(turn)

    def _lane_for(self, talk: Conversation) -> int | None:
        """A lane: its own, a free one, or that of the conversation that has rested longest."""
        if talk.lane is not None:
            return talk.lane
        if self._free:
            return self._free.pop()
        active = {id(t.talk) for t in self._writing}
        resting = [other for other in self._held.values() if id(other) not in active]
        if not resting:
            return None
        other = min(resting, key=lambda talk: talk.last_used)
        if other.num_read:
            other.parked = self._decoder.save(other.lane, other.num_read)
        lane, other.lane = other.lane, None
        return lane

    def _release(self, talk: Conversation) -> None:
        for turn in [t for t in (*self._waiting, *self._writing) if t.talk is talk]:
            self._settle(turn, PolicyError("the session was closed"))
            self._forget_turn(turn)
        if talk.lane is not None:
            del self._held[talk.lane]
            self._free.append(talk.lane)
            self._free.sort(reverse=True)  # low lanes first: a step spans all lanes up to the highest in use
        talk.lane = talk.parked = None
        self._vision.release([placed.image.sha256 for placed in talk.buffer.images])

    def _forget_turn(self, turn: Turn) -> None:
        """Drop a turn; its tokens go, and the keys and values behind the buffer with them."""
        if turn in self._waiting:
            self._waiting.remove(turn)
        if turn in self._writing:
            self._writing.remove(turn)
        turn.talk.num_read = min(turn.talk.num_read, len(turn.talk.buffer))

    # ------------------------------------------------------------ reading

    def _read(self, turns: Sequence[Turn]) -> None:
        """Read what turns have not read yet, and write the first token of those that are then at the end."""
        begun: list[tuple[Turn, torch.Tensor]] = []
        unread: list[Turn] = []
        coming: set[BeginningKey] = set()
        budget = READ_BUDGET
        for turn in turns:
            logits = self._recall(turn) if turn.talk.num_read == 0 else None
            if logits is not None:
                begun.append((turn, logits))
                continue
            start, num = turn.talk.num_read, turn.length - turn.talk.num_read
            keys = {key for key in turn.talk.beginnings if len(key[0]) > start and key not in self._beginnings}
            if keys & coming or (unread and num > budget):
                continue  # another turn is about to read the same beginning; or the pass is full
            coming |= keys
            budget -= num
            unread.append(turn)
        for turn, result in self._each(unread, self._read_together):
            turn.talk.num_read = turn.length
            self._remember(turn, result)
            begun.append((turn, result))
        if begun:
            self._write([turn for turn, _ in begun], torch.stack([logits for _, logits in begun]))

    def _read_together(self, turns: Sequence[Turn]) -> torch.Tensor:
        pieces = [self._piece(turn) for turn in turns]
        logits = self._decoder.read(pieces)
        self.num_read += sum(len(p.ids) for p in pieces)
        return logits

    def _piece(self, turn: Turn) -> Piece:
        talk, start = turn.talk, turn.talk.num_read
        buffer = talk.buffer
        own = buffer.next_position + np.arange(len(turn.ids))
        positions = np.concatenate([buffer.positions(start), np.broadcast_to(own, (3, len(own)))[:, max(0, start - len(buffer)) :]], axis=1)
        placed = [p for p in buffer.images if p.start >= start]
        features = self._vision.features([p.image.sha256 for p in placed])
        images = [(p.start - start, p.end - start, f) for p, f in zip(placed, features, strict=True)]
        return Piece(talk.lane, start, turn.tail(start), torch.from_numpy(positions), images)

    def _each(self, turns: Sequence[Turn], run: Callable[[Sequence[Turn]], Any]) -> Iterator[tuple[Turn, Any]]:
        """Run turns together; when that fails, one by one, so that a failure costs only the turn that causes it."""
        if not turns:
            return
        try:
            yield from zip(turns, run(turns), strict=True)
            return
        except Exception as error:  # noqa: BLE001 - one session's model failure, whatever it is, becomes its PolicyError
            if len(turns) == 1:
                self._fail(turns[0], error)
                return
        for turn in turns:
            try:
                result = run([turn])[0]
            except Exception as error:  # noqa: BLE001 - as above
                self._fail(turn, error)
            else:
                yield turn, result

    # ------------------------------------------------------------ shared beginnings

    def _recall(self, turn: Turn) -> torch.Tensor | None:
        """Copy the longest known beginning into the lane; its logits when nothing is left to read."""
        for key in turn.talk.beginnings:
            known = self._beginnings.get(key)
            is_all = len(key[0]) == turn.length
            if known is None or (is_all and known.logits_V is None):
                continue
            self._beginnings.move_to_end(key)
            self._decoder.restore(turn.talk.lane, known.saved)
            turn.talk.num_read = len(key[0])
            return known.logits_V if is_all else None
        return None

    def _remember(self, turn: Turn, logits_V: torch.Tensor) -> None:
        missing = [key for key in turn.talk.beginnings if key not in self._beginnings]
        if not missing:
            return
        for key in missing:
            is_all = len(key[0]) == turn.length
            self._beginnings[key] = Beginning(self._decoder.save(turn.talk.lane, len(key[0])), logits_V.clone() if is_all else None)
        total = sum(b.saved.numel() * b.saved.element_size() for b in self._beginnings.values())
        while total > self._cache_bytes and self._beginnings:
            _, oldest = self._beginnings.popitem(last=False)
            total -= oldest.saved.numel() * oldest.saved.element_size()

    # ------------------------------------------------------------ writing

    def _step(self, turns: Sequence[Turn]) -> None:
        results = list(self._each(turns, self._step_together))
        if not results:
            return
        for turn, _ in results:
            turn.talk.num_read += 1
        self._write([turn for turn, _ in results], torch.stack([logits for _, logits in results]))

    def _step_together(self, turns: Sequence[Turn]) -> torch.Tensor:
        self.num_steps += 1
        self.num_stepped += len(turns)
        return self._decoder.step(
            [t.talk.lane for t in turns],
            [t.ids[-1] for t in turns],
            [t.length - 1 for t in turns],
            [t.talk.buffer.next_position + len(t.ids) - 1 for t in turns],
        )

    def _write(self, turns: Sequence[Turn], logits_NV: torch.Tensor) -> None:
        """Draw each turn's next token, and finish the turns that end with it."""
        ids, logp = self._sampling.draw(logits_NV, [turn.rng.random() for turn in turns])
        for turn, id_, value in zip(turns, ids, logp, strict=True):
            if not np.isfinite(value):
                self._fail(turn, RuntimeError(f"the model gave log-probability {value} to token {id_}"))
                continue
            turn.ids.append(id_)
            turn.logp.append(value)
            if self._ends_turn(turn.ids) or len(turn.ids) >= self._max_new or turn.length >= self._max_context:
                self._settle(turn, (turn.ids, turn.logp))

    def _fail(self, turn: Turn, error: BaseException) -> None:
        error = error if isinstance(error, PolicyError) else PolicyError(f"the model failed: {type(error).__name__}: {error}")
        self._settle(turn, error)
        turn.talk.num_read = 0  # whatever its lane holds is not to be trusted

    def _settle(self, turn: Turn, outcome: tuple[list[int], list[float]] | PolicyError) -> None:
        """End a turn. The session takes the tokens in; what it drops again is read anew."""
        if turn in self._writing:
            self._writing.remove(turn)
        if turn in self._waiting:
            self._waiting.remove(turn)
        if not turn.future.set_running_or_notify_cancel():
            self._forget_turn(turn)
        elif isinstance(outcome, PolicyError):
            turn.talk.num_read = min(turn.talk.num_read, len(turn.talk.buffer))
            turn.future.set_exception(outcome)
        else:
            turn.future.set_result(outcome)
