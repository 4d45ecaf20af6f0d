"""Phase 2, CC-RFT: the loop, in order.

Draw prompts, let the policy answer each of them several times with the real tools, run the model over what it wrote, reward every rollout,
compare within groups, take one step within the KL corridor, and record it all. Source: paper §3.2.2, §6.1.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pixelis.core.errors import ConfigError, DataError
from pixelis.core.media import open_medium
from pixelis.core.store import alone
from pixelis.data.world.item import Item
from pixelis.data.world.items import FAMILIES, make_item, render
from pixelis.policy.base import Task
from pixelis.policy.vlm import VlmPolicy
from pixelis.rewards.groups import Advantages, advantages, call_advantages, turn_advantages
from pixelis.rollout.run import UNHURRIED_S, Limits, Rollout, Runner
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.train.bank import FeatureBank
from pixelis.train.clock import Clock
from pixelis.train.corridor import regulate
from pixelis.train.crew import Crew, Equipment, Prompt, crew
from pixelis.train.grpo import kl_of
from pixelis.train.optim import set_rate, share_done
from pixelis.train.packing import in_brackets, pack_rollouts
from pixelis.train.policy_learner import Measured, PolicyLearner, UpdateFacts, sampler_mismatch
from pixelis.train.rft_record import journal, short_row, update_row
from pixelis.train.rft_reward import Judge, Parts, Seen
from pixelis.train.rft_state import Progress, RftSettings, claim, finish, resume, save
from pixelis.train.step_heads import step_inputs

LEAST_SIGHT = 1e-3
"""Mean change of log p, in nats, when all pixels are taken away; below it the policy is blind."""
BANK_BYTES = 512 << 20
CALL_WORTH = 0.5
"""What a true call counts for its coordinates, in units of the reward, where credit is by call."""
CLIP_TIMES = 3.0
"""A gradient may be so many times as large as the usual one. In four of six runs one or two steps had one that was 50 to 4,000 times as
large, and Adam remembers it for dozens of steps."""


def run_rft(
    policy: VlmPolicy,
    executor: Executor,
    tool_settings: ToolSettings,
    out: str | Path,
    settings: RftSettings = RftSettings(),
    *,
    judge: Judge | None = None,
    make_copy: Callable[[], VlmPolicy] | None = None,
    log: Callable[[dict], None] = print,
) -> Path:
    """Train a policy by reinforcement and write its checkpoint.

    Args:
        policy: samples at temperature 1 without top-p, as it is learnt from; its model is trained in place.
        executor: the tools, made from `tool_settings`.
        out: new, or the folder of a run of the same settings that was cut short, which then goes on.
        judge: gives the rewards instead of the one that the settings describe.
        make_copy: builds the policy once more, as it is at the start, for workers; needed where `settings.workers` is not 0.

    Raises:
        ConfigError: the policy does not sample from its whole distribution, `out` holds a run of other settings, or workers have no copy.
        DataError: training and sampler see different things three updates in a row, the policy is blind, or another process is at work in
            `out`.
    """
    if policy.sampling.temperature != 1.0 or policy.sampling.top_p != 1.0:
        raise ConfigError("reinforcement learns from what the policy itself would say: set temperature = 1 and top_p = 1")
    if settings.workers and make_copy is None:
        raise ConfigError(f"{settings.workers} workers need copies of the policy: give make_copy, or workers = 0")
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    claim(out, policy, settings, tool_settings)
    bank = FeatureBank(policy.vision, max_bytes=BANK_BYTES)
    learner = PolicyLearner(
        policy, bank, rate=settings.rate, batch_tokens=settings.batch_tokens, clip_times=CLIP_TIMES, from_top=settings.from_top
    )
    hidden = policy.checkpoint.base.config.text_config.hidden_size
    judge = judge or Judge(
        hidden, settings.curiosity, settings.structure, settings.weights, answer=settings.answer, use_gate=settings.use_gate,
        num_passes=settings.num_passes, invalid=settings.invalid,
        invalid_call=settings.invalid_call, free_steps=settings.free_steps, extra_step=settings.extra_step, seed=settings.seed,
    )  # fmt: skip
    progress = resume(out, learner, judge, settings)
    limits = Limits(max_steps=settings.max_steps, max_seconds=UNHURRIED_S)
    saved = time.monotonic()
    with alone(out), journal(out / "metrics.jsonl", progress.update) as write, ExitStack() as stack:
        sampler: Runner | Crew = Runner(policy, executor, settings=tool_settings, limits=limits, num_parallel=settings.num_parallel)
        if settings.workers:
            sampler = stack.enter_context(crew(settings.workers, Equipment(make_copy, tool_settings, limits)))
        while _share_done(progress, settings) < 1:
            begun = time.monotonic()
            row = one_update(policy, sampler, bank, learner, judge, progress, settings)
            progress.update += 1
            progress.seconds += time.monotonic() - begun
            write(row)
            log(short_row(row, settings))
            if time.monotonic() - saved > settings.save_every_s:
                save(out, learner, judge, progress)
                saved = time.monotonic()
    finish(out, policy, judge, settings)
    return out


def one_update(
    policy: VlmPolicy,
    sampler: Runner | Crew,
    bank: FeatureBank,
    learner: PolicyLearner,
    judge: Judge,
    progress: Progress,
    settings: RftSettings,
) -> dict[str, Any]:
    """One turn of the loop; returns the row of the journal."""
    clock = Clock()
    items = [_item(progress.update * settings.prompts + k, settings) for k in range(settings.prompts)]
    with ExitStack() as media:
        tasks, rollouts = _sample(policy, sampler, items, settings, media, clock)
        seen, num_lost = _seen(policy, bank, items, tasks, rollouts, settings.group)
    with policy.paused():
        measured = learner.measure([one.example for one in seen])
        seen = [
            replace(one, inputs=step_inputs(one.trajectory, one.example, m.middle_TD, m.last_TD, merge=policy.merge))
            for one, m in zip(seen, measured, strict=True)
        ]
        sight = _sight(learner, seen, measured) if progress.update % settings.probe_every == 0 else None  # before the weights move
        if sight is not None and sight < LEAST_SIGHT:
            raise DataError(f"without pixels the policy says the same (log p moves by {sight:.5f} nats): it is blind; look at the features")
        seed = settings.seed + 1000 * progress.update
        parts = judge.judge(seen, seed=seed)
        composite_N = [judge.composite_share(one) for one in seen]
        groups, gain = _compare(seen, parts, settings)
        clock.lap("score")
        mismatch = sampler_mismatch([one.trajectory for one in seen], measured)
        is_held = mismatch > settings.max_mismatch
        progress.num_blocked = progress.num_blocked + 1 if is_held else 0
        if progress.num_blocked >= 3:
            raise DataError(f"training and sampler disagree by {mismatch:.4f} nats per token, three updates in a row: nothing was learnt")
        set_rate(learner.optimizer, _share_done(progress, settings))
        beta = progress.corridor.beta if settings.use_corridor else settings.beta
        credit = gain.tolist() if settings.credit == "rollout" else _by_turn(seen, parts, gain, judge, settings)
        if settings.credit == "call":
            credit = _by_call(seen, parts, credit, judge, settings, policy.format.decode)
        facts = [] if is_held else _learn(learner, seen, measured, credit, beta, settings, seed)
        dynamics = judge.learn(seen, seed=seed)
        kl = kl_of([m.logp_N for m in measured], [m.anchor_logp_N for m in measured])  # before the step
        if any(not fact.is_skipped for fact in facts):
            progress.corridor = regulate(progress.corridor, kl, settings.corridor)
        clock.lap("train")
    gates = {"kl": kl, "beta": beta, "mismatch": mismatch, "is_held": is_held, "sight": sight}
    others = {"dynamics_loss": dynamics, "num_lost": num_lost, "seconds": clock.laps}
    return update_row(seen, parts, composite_N, groups, facts, _entropy(measured), progress) | gates | others


def _share_done(progress: Progress, settings: RftSettings) -> float:
    return share_done(progress.update, settings.updates, progress.seconds, settings.minutes or math.inf)


# ---------------------------------------------------------------- sampling


def _item(number: int, settings: RftSettings) -> Item:
    names = settings.families or tuple(FAMILIES)
    return make_item("train", number, seed=settings.world_seed, family=names[number % len(names)])


def _sample(
    policy: VlmPolicy, sampler: Runner | Crew, items: Sequence[Item], settings: RftSettings, media: ExitStack, clock: Clock
) -> tuple[list[Task], list[Rollout]]:
    """The prompts, their media open as long as `media` is, and the rollouts of each, one prompt's after another's."""
    seeds = tuple(settings.seed + 1 + g for g in range(settings.group))
    if isinstance(sampler, Crew):
        answered = sampler.answer(policy, [Prompt(item, seeds) for item in items])
        clock.lap("rollouts")
        tasks = _tasks(items, [one.medium for one in answered], media)
        clock.lap("media")
        return tasks, [rollout for one in answered for rollout in one.rollouts]
    tasks = _tasks(items, [render(item) for item in items], media)
    clock.lap("media")
    rollouts = sampler.run([(task, seed) for task in tasks for seed in seeds])
    clock.lap("rollouts")
    return tasks, rollouts


def _tasks(items: Sequence[Item], data: Sequence[bytes], media: ExitStack) -> list[Task]:
    opened = [media.enter_context(open_medium(one, name=item.medium_name)) for item, one in zip(items, data, strict=True)]
    return [Task(question=item.prompt, medium=medium, id=item.id) for item, medium in zip(items, opened, strict=True)]


def _seen(
    policy: VlmPolicy, bank: FeatureBank, items: Sequence[Item], tasks: Sequence[Task], rollouts: Sequence[Rollout], group: int
) -> tuple[list[Seen], int]:
    """Packed rollouts with their images in the bank, and how many the policy itself failed on, which teach nothing."""
    seen = []
    for number, (item, task) in enumerate(zip(items, tasks, strict=True)):
        packed = pack_rollouts(policy, bank, task, rollouts[number * group : (number + 1) * group])
        seen += [Seen(number, item, trajectory, example) for trajectory, example in packed]
    if not seen:
        raise DataError(f"all {len(rollouts)} rollouts failed; the first: {rollouts[0].trajectory.stop_detail}")
    return seen, len(rollouts) - len(seen)


# ---------------------------------------------------------------- learning


def _compare(seen: Sequence[Seen], parts: Parts, settings: RftSettings) -> tuple[list[Advantages], np.ndarray]:
    """Advantages within groups, and of all rollouts [N] (NaN for those that are not learnt from)."""
    owner = np.array([one.group for one in seen])
    scale = _scale(parts, settings)
    gain, groups = np.full(len(seen), np.nan), []
    for group in np.unique(owner):
        rows = np.flatnonzero(owner == group)
        if len(rows) < 2:
            continue
        spared = np.array([settings.spares_cut and seen[k].is_cut for k in rows])
        found = advantages(parts.total_N[rows], spared, scale=scale, top=settings.top, negative=settings.negative)
        groups.append(found)
        gain[rows[found.is_used_G]] = found.advantage_G[found.is_used_G]
    return groups, gain


def _scale(parts: Parts, settings: RftSettings) -> float | None:
    """What advantages are divided by; None for the deviation of each group."""
    return {"group": None, "batch": float(parts.total_N.std()), "none": 1.0}[settings.scale]


def _by_turn(seen: Sequence[Seen], parts: Parts, gain: np.ndarray, judge: Judge, settings: RftSettings) -> list[float | np.ndarray]:
    """Advantages [tokens] of every rollout that has one, each turn's over its own tokens; NaN for the others."""
    owner, credit = np.array([one.group for one in seen]), list(gain)
    for group in np.unique(owner[np.isfinite(gain)]):
        rows = np.flatnonzero(owner == group)
        reward = parts.total_N[rows] + parts.penalty_N[rows]
        turns = turn_advantages(reward, [judge.fines(seen[k]) for k in rows], scale=_scale(parts, settings), negative=settings.negative)
        for k, each in zip(rows, turns, strict=True):
            if np.isfinite(gain[k]):
                lengths = [len(run.ids) for run in seen[k].trajectory.tokens if run.role == "policy"]
                credit[k] = _spared(np.repeat(each[: len(lengths)], lengths), seen[k], settings)
    return credit


def _spared(advantage_N: np.ndarray, one: Seen, settings: RftSettings) -> np.ndarray:
    """Without what is negative where a rollout that was cut off is spared."""
    return np.maximum(advantage_N, 0.0) if settings.spares_cut and one.is_cut else advantage_N


def _by_call(
    seen: Sequence[Seen],
    parts: Parts,
    credit: Sequence[float | np.ndarray],
    judge: Judge,
    settings: RftSettings,
    decode: Callable[[Sequence[int]], str],
) -> list[float | np.ndarray]:
    """`credit`, with the advantages of coordinates replaced: each is judged by the result of the call that its turn makes."""
    owner, found = np.array([one.group for one in seen]), list(credit)
    text_of = functools.cache(lambda id_: decode([id_]))  # few kinds of tokens, thousands of each
    for group in np.unique(owner):
        rows = np.flatnonzero(owner == group)
        calls = call_advantages([judge.valid(seen[k]) for k in rows], worth=CALL_WORTH, scale=_scale(parts, settings) or 1.0)
        for k, each in zip(rows, calls, strict=True):
            if not np.isfinite(credit[k]).all():
                continue
            runs = [run.ids for run in seen[k].trajectory.tokens if run.role == "policy"]
            values = np.split(np.array(credit[k], np.float64), np.cumsum([len(ids) for ids in runs])[:-1])
            for ids, own, value in zip(runs, each, values, strict=False):  # the turn that answers makes no call
                value[in_brackets(ids, text_of)] = own if own > 0 else settings.negative * own
            found[k] = _spared(np.concatenate(values), seen[k], settings)
    return found


def _learn(
    learner: PolicyLearner,
    seen: Sequence[Seen],
    measured: Sequence[Measured],
    credit: Sequence[float | np.ndarray],
    beta: float,
    settings: RftSettings,
    seed: int,
) -> list[UpdateFacts]:
    """One step, or several over parts of the rollouts in random order."""
    rows = np.array([k for k, each in enumerate(credit) if np.isfinite(each).all()], int)
    if not len(rows):
        return []
    order = np.random.default_rng(seed).permutation(rows)
    facts = []
    for part in np.array_split(order, min(settings.minibatches, len(order))):
        facts.append(
            learner.step(
                [seen[k].example for k in part],
                [measured[k].logp_N for k in part],
                [measured[k].anchor_logp_N for k in part],
                [credit[k] for k in part],
                beta=beta,
                most_pull=settings.most_pull,
            )
        )
    return facts


def _entropy(measured: Sequence[Measured]) -> float:
    """Mean -log p of what was sampled: an unbiased estimate of the policy's entropy, nats per token."""
    return float(-torch.cat([m.logp_N for m in measured]).mean())


def _sight(learner: PolicyLearner, seen: Sequence[Seen], measured: Sequence[Measured]) -> float:
    """Mean |change of log p| when all pixels are taken away, over the first rollouts."""
    few = range(min(8, len(seen)))
    with learner.blind():
        without = learner.measure([seen[k].example for k in few])
    return float(torch.cat([(without[k].logp_N - measured[k].logp_N).abs() for k in few]).mean())
