"""The loss of phase 3 by hand, and the loop in miniature: a newborn policy, the real tools, kills, labels and roll-backs."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import pytest

torch = pytest.importorskip("torch")

from pixelis.agent import make_executor
from pixelis.core.errors import ConfigError, DataError
from pixelis.policy.prompt import Prompting
from pixelis.policy.vlm import VlmPolicy
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.policy.vlm_make import make_checkpoint
from pixelis.retrieval.keys import KeySpec
from pixelis.retrieval.memory import read_memory
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import resolved
from pixelis.train.grpo import kl_of
from pixelis.train.start import load_learner
from pixelis.train.vocabulary import make_vocabulary
from pixelis.ttrl import learn as update
from pixelis.ttrl.adapt import Adapter, run_adapt
from pixelis.ttrl.decide import Decision, DecisionSettings
from pixelis.ttrl.fit import check_decisions, fit, read_calibration, read_records
from pixelis.ttrl.losses import token_shares, ttrl_loss
from pixelis.ttrl.state import METRICS_FILE, QUERIES_FILE, STATE_FILE, AdaptSettings
from pixelis.ttrl.stream import Segment, WorldStream, parse_segments

# ---------------------------------------------------------------- the loss


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_loss_and_gradient_by_hand():
    """Two rollouts of two tokens and one, advantages 1 and -2: shares 1 / (2 * 2) and -2 / (2 * 1)."""
    assert token_shares([2, 1], [1.0, -2.0]) == [0.25, -1.0]
    logp = tensor(-0.5, -0.7, -0.2).requires_grad_()
    anchor = logp.detach() + math.log(2)  # k3: 2 - log 2 - 1 each; its gradient 1 - 2 = -1 each
    loss = ttrl_loss(logp, anchor, tensor(0.25, 0.25, -1.0), is_masked=False, beta=0.3, num_tokens=3)
    assert float(loss.detach()) == pytest.approx(-(0.25 * -1.2 - 1.0 * -0.2) + 0.3 * (1 - math.log(2)))
    loss.backward()
    assert logp.grad.tolist() == pytest.approx([-0.25 - 0.1, -0.25 - 0.1, 1.0 - 0.1])


def test_an_abstaining_query_moves_nothing_but_the_kl():
    logp = tensor(-0.5, -0.7).requires_grad_()
    ttrl_loss(logp, logp.detach(), tensor(3.0, -5.0), is_masked=True, beta=0.3, num_tokens=2).backward()
    assert logp.grad.tolist() == [0.0, 0.0]  # exactly: at the anchor the KL is flat, too
    logp.grad = None
    ttrl_loss(logp, logp.detach() + math.log(2), tensor(3.0, -5.0), is_masked=True, beta=0.4, num_tokens=2).backward()
    assert logp.grad.tolist() == pytest.approx([-0.2, -0.2])


def test_parts_of_a_query_add_up():
    logp, anchor, share = tensor(-0.5, -0.7, -0.2), tensor(-0.4, -0.9, -0.2), tensor(0.25, 0.25, -1.0)
    whole = ttrl_loss(logp, anchor, share, is_masked=False, beta=0.3, num_tokens=3)
    parts = [ttrl_loss(logp[s], anchor[s], share[s], is_masked=False, beta=0.3, num_tokens=3) for s in (slice(0, 2), slice(2, 3))]
    assert float(sum(parts)) == pytest.approx(float(whole))
    assert kl_of([tensor(-0.5)], [tensor(-0.5 + math.log(2))]) == pytest.approx(1 - math.log(2))


# ---------------------------------------------------------------- streams


def test_segments_are_read_and_shuffled_within_themselves():
    segments = parse_segments(["3 clean", "3 noise:2", "3 clean"])
    stream = WorldStream(segments, seed=4, families=("no_tool",), order_seed=1)
    numbers = [stream.item(k).index for k in range(len(stream))]
    assert sorted(numbers[:3]) == [0, 1, 2] and sorted(numbers[3:6]) == [3, 4, 5] and numbers != list(range(9))
    assert [str(stream.item(k).shift) for k in (2, 3, 6)] == ["None", "noise:2", "None"]
    for wrong in ("clean", "0 clean", "10 fog:3", "ten clean"):
        with pytest.raises((ConfigError, DataError)):
            parse_segments([wrong])
    with pytest.raises(ConfigError, match="nonsense"):
        WorldStream(segments, families=("nonsense",))


# ---------------------------------------------------------------- the loop

SIZES = {"hidden": 48, "num_layers": 3, "num_heads": 3, "num_kv_heads": 3, "vision_hidden": 32, "vision_layers": 1, "num_deepstack": 0}
PROMPTING = Prompting(guide="", has_schemas=False, max_pixels=128 * 96, max_frames=2, image_size=(128, 96), frame_size=(128, 96))
# A newborn policy gives no answers, so every vote would abstain. `Hearing` makes answers of what it says.
SETTINGS = AdaptSettings(
    rollouts=3, neighbours=2, omega=0.0, rate=1e-3, max_steps=2, num_parallel=3, decision=DecisionSettings(delta=0.0), max_mismatch=1.0
)
STREAM = WorldStream((Segment(3),), split="dev", families=("no_tool",))


class Hearing(Adapter):
    """Takes a rollout's words for an answer, whatever they are."""

    def facts(self, query, rolled, number):
        facts, *keys = super().facts(query, rolled, number)
        texts = {one.trajectory.id: "".join(step.text for step in one.trajectory.steps) + one.trajectory.final_text for one in rolled}
        heard = [replace(one, answer=word, label=word) for one in facts.rollouts for word in [["no", "yes"][len(texts[one.id]) % 2]]]
        return replace(facts, rollouts=tuple(heard)), *keys


@pytest.fixture(scope="module")
def born(tmp_path_factory):
    folder = make_checkpoint(tmp_path_factory.mktemp("born"), make_vocabulary(), **SIZES, max_pixels=128 * 96)
    PROMPTING.save(folder)
    return folder


class Killed(Exception):
    pass


def run(born, out, settings=SETTINGS, *, audit=STREAM, kill_at=None, stream=STREAM, canary=None):
    tools = resolved(ToolSettings())
    policy = VlmPolicy(load_learner(born), max_new_tokens=10)

    def log(row):
        if row["query"] == kill_at:
            raise Killed

    def serving(memory):
        return Hearing(policy, make_executor(tools), tools, settings, memory=memory, canary=canary)

    try:
        spec = KeySpec(text_dim=SIZES["hidden"], pixel_dim=8, omega=settings.omega)
        return run_adapt(serving, stream, out, {"stream": "test"}, settings, spec=spec, audit=audit, log=log)
    finally:
        policy.close()


def lines(folder, name=METRICS_FILE):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def weights_of(folder):
    return dict(load_checkpoint(folder).model.named_parameters())


def is_equal(one, two):
    a, b = weights_of(one / "policy"), weights_of(two / "policy")
    return all(torch.equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(born, tmp_path_factory):
    return run(born, tmp_path_factory.mktemp("ttrl") / "whole")


def test_the_journal_and_the_decisions(born, whole):
    rows = lines(whole)
    assert [row["query"] for row in rows] == [0, 1, 2]
    assert [row["neighbours"] for row in rows] == [0, 1, 2]  # each query is remembered before the next
    assert all(row["kl"] is not None and not row["rolled_back"] for row in rows)
    assert rows[-1]["accepted"] == sum(not row["masked"] for row in rows) > 0
    num, different = check_decisions(whole)
    assert (num, different) == (3, [])
    moved = {name for name, value in weights_of(born).items() if not torch.equal(value, weights_of(whole / "policy")[name])}
    assert moved and not any("visual" in name for name in moved)
    with read_memory(whole / "memory") as memory:
        assert [entry.id for entry in memory.entries()] == [line["facts"]["id"] for line in lines(whole, QUERIES_FILE)]


def test_a_killed_run_goes_on_to_the_same_decisions_and_bytes(born, whole, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run(born, out, kill_at=1)
    run(born, out)
    assert is_equal(out, whole)
    assert (out / QUERIES_FILE).read_bytes() == (whole / QUERIES_FILE).read_bytes()


def test_a_kill_between_state_and_memory_loses_nothing(born, whole, tmp_path, monkeypatch):
    """As the state says what the memory takes in next, the memory gets it on resuming."""
    out = tmp_path / "run"
    with pytest.raises(Killed):
        run(born, out, kill_at=0)
    kept = (out / "memory").rename(tmp_path / "memory-with-one")
    assert kept.is_dir()  # as if the kill had come before the memory was asked
    run(born, out)
    assert is_equal(out, whole)


def test_labels_never_reach_learning(born, whole, tmp_path):
    class Wrong:
        def is_right(self, number, answer):
            return bool(number % 2)

    assert is_equal(run(born, tmp_path / "absent", audit=None), whole)
    assert is_equal(run(born, tmp_path / "shuffled", audit=Wrong()), whole)
    assert lines(tmp_path / "absent", "audit.jsonl")[0]["right"] is None


def test_without_learning_nothing_moves_and_labels_calibrate(born, tmp_path):
    stream = WorldStream((Segment(2),), split="dev-cal", families=("no_tool",))
    out = run(born, tmp_path / "cal", replace(SETTINGS, learns=False, neighbours=0), audit=stream, stream=stream)
    before, after = weights_of(born), weights_of(out / "policy")
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(DataError, match="2 queries; at least 30"):
        fit(out)
    with pytest.raises(DataError, match="pixelis adapt --fit"):
        read_calibration(out)
    assert all(isinstance(record.decision, Decision) and len(record.each) == 3 for record in read_records(out))


def test_a_harmful_update_is_taken_back(born, tmp_path, monkeypatch):
    monkeypatch.setattr(update.learn, "__kwdefaults__", {**update.learn.__kwdefaults__, "most_kl": -1.0})
    out = run(born, tmp_path / "back")
    rows = lines(out)
    assert all("token-KL" in row["rolled_back"] for row in rows) and rows[-1]["num_rolled_back"] == 3
    before, after = weights_of(born), weights_of(out / "policy")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_other_settings_and_damage_are_refused(born, whole, tmp_path):
    with pytest.raises(ConfigError, match="its settings differ"):
        run(born, whole, replace(SETTINGS, rate=0.5))
    with pytest.raises(Killed):
        run(born, tmp_path / "half", kill_at=1)
    (tmp_path / "half" / STATE_FILE).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"state\.pt: cannot be read"):
        run(born, tmp_path / "half")
