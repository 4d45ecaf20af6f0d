"""The one mask maker: a trajectory as tokens with the role of each, and the weight with which each is learnt.

A trajectory that our own sampler wrote keeps the very ids it sampled; any other is tokenised turn by turn, just as the sampler
would have left it, and from there on both are the same. Letters: T tokens. Source: paper §3.2.1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from pixelis.core.errors import DataError
from pixelis.core.grammar import CALL_CLOSE, CALL_OPEN, render_response
from pixelis.core.ops import ZoomOutput
from pixelis.core.trajectory import Step, TokenRun, Trajectory
from pixelis.policy.buffer import ChatFormat, Grid, ImageRef, PlacedImage, TokenBuffer

PROMPT, TOOL, TEXT, ACT = 0, 1, 2, 3
"""What a token is: of the first message; of a tool's result or of the template behind a turn; of a thought or an answer,
the end token that the policy writes included; of a call, from <tool_call> to </tool_call>, both included."""

ANSWER = -1
"""`TurnSpan.step` of a turn behind the last step."""


@dataclass(frozen=True)
class TurnSpan:
    """The tokens [start, end) that the policy wrote in one turn, and [act_start, act_end) those of its call."""

    start: int
    end: int
    step: int
    """Index of the step, or `ANSWER`."""
    act_start: int
    act_end: int
    """Equal to `act_start`, both at `end`, in a turn without a call."""


@dataclass(frozen=True, eq=False)
class Example:
    """One trajectory as a model sees it."""

    ids_T: np.ndarray
    """int32."""
    role_T: np.ndarray
    """int8: PROMPT, TOOL, TEXT or ACT."""
    positions_3T: np.ndarray
    """int32: rotary positions in time, height and width."""
    images: tuple[PlacedImage, ...]
    turns: tuple[TurnSpan, ...]
    trajectory_id: str

    def __len__(self) -> int:
        return len(self.ids_T)


# ---------------------------------------------------------------- a trajectory as tokens


def pack_trajectory(
    trajectory: Trajectory,
    chat: ChatFormat,
    prompt_parts: Sequence[str | ImageRef],
    *,
    crop_grid: Callable[[str], Grid],
    responses: Sequence[str] | None = None,
    max_tokens: int | None = None,
) -> Example:
    """Tokens, roles, positions and images of a trajectory.

    Args:
        prompt_parts: the first message; its images' grids are needed even where the trajectory brings its own tokens.
        crop_grid: patch grid of a zoom's crop by its hash.
        responses: what the tools' results say instead, one per step. Where the text differs from the recorded one, a zoom's crop
            is left out with it: a hidden result is not to be seen.
        max_tokens: of the whole example.

    Raises:
        DataError: longer than `max_tokens`; an image missing; a text that spells a token which no policy may write; recorded
            tokens that are not those of the recorded texts.
    """
    shown = [step.response for step in trajectory.steps] if responses is None else list(responses)
    if len(shown) != len(trajectory.steps):
        raise ValueError(f"{len(shown)} responses for the {len(trajectory.steps)} steps of trajectory {trajectory.id}")
    grids = {part.sha256: part.grid for part in prompt_parts if isinstance(part, ImageRef)}

    def grid_of(sha256: str) -> Grid:
        return grids[sha256] if sha256 in grids else crop_grid(sha256)

    try:
        runs = _recorded(trajectory, chat, shown) if trajectory.tokens else _written(trajectory, chat, prompt_parts, shown, grid_of)
        buffer = TokenBuffer.load(runs, grid_of, image_id=chat.image_id, merge=chat.merge)
    except DataError as error:
        raise DataError(f"trajectory {trajectory.id}: {error}") from None
    if max_tokens is not None and len(buffer) > max_tokens:
        raise DataError(f"trajectory {trajectory.id} has {len(buffer)} tokens, at most {max_tokens} fit: leave it out, or raise max_tokens")
    turns = _turns(trajectory, chat, runs)
    return Example(
        ids_T=np.array(buffer.ids, np.int32),
        role_T=_roles(runs, turns),
        positions_3T=buffer.positions().astype(np.int32),
        images=tuple(buffer.images),
        turns=turns,
        trajectory_id=trajectory.id,
    )


def _written(
    trajectory: Trajectory,
    chat: ChatFormat,
    prompt_parts: Sequence[str | ImageRef],
    shown: Sequence[str],
    grid_of: Callable[[str], Grid],
) -> list[TokenRun]:
    """The runs that a sampler would have left behind which wrote these texts and ended every turn itself."""
    names = tuple(part.sha256 for part in prompt_parts if isinstance(part, ImageRef))
    runs = [TokenRun(role="prompt", ids=tuple(chat.prompt(prompt_parts)), images=names)]
    for number, (step, response) in enumerate(zip(trajectory.steps, shown, strict=True), 1):
        runs.append(_policy_run(chat, step.text, f"step {number}"))
        crop, image = _crop(step, response), None
        if crop is not None:
            try:
                image = ImageRef(crop, tuple(grid_of(crop)))
            except KeyError:
                raise DataError(f"the crop {crop:.16} of step {number} is missing") from None
        runs.append(TokenRun(role="tool", ids=tuple(chat.response(response, image)), images=(crop,) if crop else ()))
    if trajectory.final_text:
        runs.append(_policy_run(chat, trajectory.final_text, "the last turn"))
    return runs


def _policy_run(chat: ChatFormat, text: str, where: str) -> TokenRun:
    ids = chat.tokenizer.encode(text, add_special_tokens=False)
    wrong = {chat.end_id, *chat.banned_ids} & set(ids)
    if wrong:
        raise DataError(f"{where} spells {chat.decode([min(wrong)])}, which no policy may write: leave the trajectory out")
    return TokenRun(role="policy", ids=(*ids, chat.end_id), logp=(float("nan"),) * (len(ids) + 1))


def _crop(step: Step, response: str) -> str | None:
    """The crop that stands beside a response, where the response is the recorded one."""
    output = step.result.output
    return output.image if isinstance(output, ZoomOutput) and response == step.response else None


def _recorded(trajectory: Trajectory, chat: ChatFormat, shown: Sequence[str]) -> list[TokenRun]:
    """The sampler's own runs; results that are to say something else are written anew, all other ids stay as they are."""
    runs, num_turns = [], 0
    for index, run in enumerate(trajectory.tokens):
        due = "prompt" if index == 0 else ("tool", "policy")[index % 2]
        if run.role != due:
            raise DataError(f"run {index + 1} of the token sequence is of role {run.role}, not {due}: turns and results take turns")
        num_turns += run.role == "policy"
        if run.role == "tool" and num_turns <= len(trajectory.steps):
            step, response = trajectory.steps[num_turns - 1], shown[num_turns - 1]
            glue = run.ids[:1] if run.ids[:1] == (chat.end_id,) else ()  # the template's end of a turn that did not end itself
            if response != step.response and len(run.ids) > len(glue):
                run = TokenRun(role="tool", ids=(*glue, *chat.response(response)))
        runs.append(run)
    least = len(trajectory.steps) + bool(trajectory.final_text)
    if not least <= num_turns <= len(trajectory.steps) + 1:
        raise DataError(f"its token sequence has {num_turns} turns for {len(trajectory.steps)} steps: one of them is incomplete")
    return runs


# ---------------------------------------------------------------- who wrote what


def _turns(trajectory: Trajectory, chat: ChatFormat, runs: Sequence[TokenRun]) -> tuple[TurnSpan, ...]:
    texts = [step.text for step in trajectory.steps]
    turns, at = [], 0
    for run in runs:
        if run.role == "policy":
            number = len(turns)
            ids = run.ids[:-1] if run.ids[-1] == chat.end_id else run.ids
            text = chat.decode(ids)
            if trajectory.tokens:
                _check_text(trajectory, number, text)
            first, last = _call_stretch(chat, ids, text) or (len(run.ids), len(run.ids))
            turns.append(TurnSpan(at, at + len(run.ids), number if number < len(texts) else ANSWER, at + first, at + last))
        at += len(run.ids)
    return tuple(turns)


def _check_text(trajectory: Trajectory, number: int, text: str) -> None:
    """Raises: DataError: recorded ids spell another text than the recorded one; a turn cut off at the end has none."""
    texts = [*(step.text for step in trajectory.steps), trajectory.final_text or text]
    if text != texts[number]:
        raise DataError(
            f"trajectory {trajectory.id}: the tokens of turn {number + 1} spell {text[:40]!r}, its text is {texts[number][:40]!r}: "
            "they are of another tokenizer; clear `tokens` to have the texts tokenised anew"
        )


def _call_stretch(chat: ChatFormat, ids: Sequence[int], text: str) -> tuple[int, int] | None:
    """Tokens from <tool_call> to </tool_call>; None without a call. The tags may be spelt in pieces, so characters are counted."""
    opened = text.find(CALL_OPEN)
    closed = text.find(CALL_CLOSE, opened + len(CALL_OPEN)) if opened >= 0 else -1
    if closed < 0:
        return None
    start = _smallest(len(ids), lambda n: len(chat.decode(ids[:n])) > opened) - 1
    end = _smallest(len(ids), lambda n: len(chat.decode(ids[:n])) >= closed + len(CALL_CLOSE))
    return start, end


def _smallest(limit: int, is_enough: Callable[[int], bool]) -> int:
    """The smallest n in [0, limit] that is enough; `limit` is."""
    low, high = 0, limit
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle + 1, high)
    return low


def _roles(runs: Sequence[TokenRun], turns: Sequence[TurnSpan]) -> np.ndarray:
    code = {"prompt": PROMPT, "tool": TOOL, "policy": TEXT}
    role_T = np.repeat(np.array([code[run.role] for run in runs], np.int8), [len(run.ids) for run in runs])
    for turn in turns:
        role_T[turn.act_start : turn.act_end] = ACT
    return role_T


# ---------------------------------------------------------------- what is learnt, and from what


def weights(example: Example, *, w_act: float = 2.0, untaught: frozenset[int] = frozenset()) -> np.ndarray:
    """Weight of predicting each token, float32 [T]: 0 on prompt and results, 1 on thoughts and answers, `w_act` on calls.

    Args:
        untaught: steps (indices, or `ANSWER`) whose turns are read but not learnt, such as a teacher's deliberate mistake.

    Source: paper §3.2.1.
    """
    weight_T = np.array([0.0, 0.0, 1.0, w_act], np.float32)[example.role_T]
    for turn in example.turns:
        if turn.step in untaught:
            weight_T[turn.start : turn.end] = 0.0
    return weight_T


def feedback_dropout(trajectory: Trajectory, rng: np.random.Generator, p: float = 0.10, *, keep: frozenset[int] = frozenset()) -> list[str]:
    """Responses of all steps, some of them replaced by a neutral placeholder: the policy learns to live with a broken history.

    Each result is hidden with probability `p`, independently, except the last, which the answer rests on, and typed errors,
    without which a correction would have no cause. A later `ref` to a hidden step still works: the tools resolve it, not the text.

    Args:
        keep: indices of steps that stay as they are, such as those whose values the answer quotes.
    Returns:
        One text per step, for `pack_trajectory(..., responses=...)`. The generator advances by one draw a step, whatever is hidden.
    Source: paper §3.2.1.
    """
    drawn_S = rng.random(len(trajectory.steps))
    responses = []
    for index, step in enumerate(trajectory.steps):
        is_hidden = drawn_S[index] < p and index < len(trajectory.steps) - 1 and step.result.is_ok and index not in keep
        hidden = {"step": index + 1, "op": step.result.op, "hidden": True}
        responses.append(render_response(hidden) if is_hidden else step.response)
    return responses


def early_action_dropout(example: Example, weight_T: np.ndarray, rng: np.random.Generator, p: float = 0.02) -> np.ndarray:
    """The weights, with the call of each of the first two steps at 0 with probability `p`, independently; a copy.

    Source: paper §3.2.1, "2% dropout on early actions".
    """
    dropped = np.flatnonzero(rng.random(2) < p)
    weight_T = weight_T.copy()
    for turn in example.turns:
        if turn.step in dropped:
            weight_T[turn.act_start : turn.act_end] = 0.0
    return weight_T
