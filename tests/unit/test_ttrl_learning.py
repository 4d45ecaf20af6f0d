"""The loss of phase 3 by hand, and the loop in miniature: a newborn policy, the real tools, kills, labels and roll-backs."""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections import defaultdict
from contextlib import closing
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import load_file

from pixelis.agent import make_executor
from pixelis.config_train import LoraTable
from pixelis.core.errors import ConfigError, DataError
from pixelis.core.store import open_run
from pixelis.data.dedup import WORLD
from pixelis.policy.exposure import exposure_of, headroom
from pixelis.policy.prompt import Prompting
from pixelis.policy.vlm import VlmPolicy
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.policy.vlm_make import make_checkpoint
from pixelis.retrieval.audit import AUDIT_FILE
from pixelis.retrieval.index import IndexSettings
from pixelis.retrieval.keys import KeySpec
from pixelis.retrieval.memory import Memory, open_memory, read_memory
from pixelis.retrieval.whitelist import Blocked, Blocklist
from pixelis.rollout.run import Limits, Runner
from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import resolved
from pixelis.train.bank import FeatureBank
from pixelis.train.corridor import CorridorState, regulate
from pixelis.train.grpo import kl_of
from pixelis.train.learner import learning_of
from pixelis.train.losses import token_entropies
from pixelis.train.optim import Optimizer
from pixelis.train.packing import pack_rollouts
from pixelis.train.policy_learner import PolicyLearner
from pixelis.train.start import load_learner
from pixelis.train.vocabulary import make_vocabulary
from pixelis.ttrl import learn as update
from pixelis.ttrl.adapt import run_adapt
from pixelis.ttrl.decide import Decision, DecisionSettings, credit
from pixelis.ttrl.excluded import Excluded, assert_clean, audited, blocklist_of, fingerprint_of
from pixelis.ttrl.fit import canaries, check_decisions, fit, read_calibration, read_records
from pixelis.ttrl.lift import LEAST_HEADROOM, Light, after_query, lifts
from pixelis.ttrl.losses import entropy_loss, token_shares, ttrl_loss
from pixelis.ttrl.methods import as_method
from pixelis.ttrl.serving import Adapter
from pixelis.ttrl.state import METHODS, METRICS_FILE, QUERIES_FILE, STATE_FILE, AdaptSettings, Progress
from pixelis.ttrl.stream import Segment, WorldStream, parse_segments
from pixelis.ttrl.stress import Stress
from pixelis.ttrl.value import ValueState
from pixelis.ttrl.worker import Inline, Twin, UpdateFailed, Worker, without_dropout

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


def test_entropies_by_hand_and_by_finite_differences():
    """Two tokens over four words, one of which cannot be drawn: its share is 0, and so is its gradient."""
    logits = torch.tensor([[1.0, 1.0, -math.inf, 1.0], [0.3, -1.2, -math.inf, 2.0]], dtype=torch.float64)
    entropy = lambda values: token_entropies(values.log_softmax(-1))  # noqa: E731
    assert float(entropy(logits)[0]) == pytest.approx(math.log(3))
    moved = logits.clone().requires_grad_()
    entropy(moved)[1].backward()
    assert moved.grad[0].tolist() == [0.0] * 4 and moved.grad[1, 2] == 0.0
    for word in (0, 1, 3):
        step = torch.zeros_like(logits)
        step[1, word] = 1e-5
        slope = float((entropy(logits + step) - entropy(logits - step))[1]) / 2e-5
        assert float(moved.grad[1, word]) == pytest.approx(slope, abs=1e-8) and slope != 0.0


def test_entropy_loss_by_hand():
    """Mean entropy (0.6 + 0.2 + 0.1) / 3, and the KL of `test_loss_and_gradient_by_hand`."""
    entropy, logp = tensor(0.6, 0.2, 0.1).requires_grad_(), tensor(-0.5, -0.7, -0.2).requires_grad_()
    loss = entropy_loss(entropy, logp, logp.detach() + math.log(2), beta=0.3, num_tokens=3)
    assert float(loss.detach()) == pytest.approx(0.3 + 0.3 * (1 - math.log(2)))
    loss.backward()
    assert entropy.grad.tolist() == pytest.approx([1 / 3] * 3) and logp.grad.tolist() == pytest.approx([-0.1] * 3)


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

    def facts(self, query, rolled, number, clock):
        facts, *keys = super().facts(query, rolled, number, clock)
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


def run(
    born,
    out,
    settings=SETTINGS,
    *,
    audit=STREAM,
    kill_at=None,
    stream=STREAM,
    canary=None,
    kind=Hearing,
    updates=None,
    lora=None,
    max_context=8192,
    **kept,
):
    tools = resolved(ToolSettings())
    policy = VlmPolicy(load_learner(born, lora), max_new_tokens=10, max_context=max_context)

    def log(row):
        if row["query"] == kill_at:
            raise Killed

    def serving(memory):
        return kind(policy, make_executor(tools), tools, settings, memory=memory, canary=canary, updates=updates)

    try:
        spec = KeySpec(text_dim=SIZES["hidden"], pixel_dim=EfficientNetEncoder.dim, omega=settings.omega)
        return run_adapt(serving, stream, out, {"stream": "test"}, settings, spec=spec, audit=audit, log=log, **kept)
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


@pytest.mark.parametrize("lag", [0, 1])
def test_a_query_on_which_every_rollout_fails_is_told_and_passed_over(born, tmp_path, caplog, lag):
    """The second query's prompt, two frames of a video, is longer than the context; the others are one picture each."""
    stream = WorldStream((Segment(3),), split="dev", families=("no_tool", "when_appears"))
    settings = replace(SETTINGS, lag=lag)
    out = run(born, tmp_path / "run", settings, stream=stream, audit=stream, max_context=50)
    assert "when_appears: all 3 rollouts failed (token_limit" in caplog.text
    first, failed, last = lines(out)
    assert failed["abstained"] and failed["masked"] and failed["loss"] is None and failed["kept"] == 3
    assert (first["neighbours"], failed["neighbours"], last["neighbours"]) == (0, 0, 1) and last["coverage"] == pytest.approx(2 / 3)
    assert check_decisions(out) == (3, [])
    assert [line["right"] for line in lines(out, "audit.jsonl")][1] is False
    with read_memory(out / "memory") as memory:
        assert [entry.id.partition(":")[0] for entry in memory.entries()] == ["0", "2"]
    with pytest.raises(Killed):
        run(born, tmp_path / "again", settings, stream=stream, audit=stream, max_context=50, kill_at=1)
    run(born, tmp_path / "again", settings, stream=stream, audit=stream, max_context=50)
    assert is_equal(tmp_path / "again", out) and (tmp_path / "again" / QUERIES_FILE).read_bytes() == (out / QUERIES_FILE).read_bytes()


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


def test_canaries_are_the_first_right_rollouts(born, tmp_path):
    class Knowing:
        def is_right(self, number, answer):
            return number != 1

    run(born, tmp_path / "cal", audit=Knowing())
    policy = VlmPolicy(load_learner(born), max_new_tokens=10)
    try:
        bank = FeatureBank(policy.vision)
        found = canaries(tmp_path / "cal", policy, bank, count=2)
        records = list(read_records(tmp_path / "cal"))
        assert [one.trajectory_id for one in found.examples] == [records[0].facts.rollouts[0].id, records[2].facts.rollouts[0].id]
        with policy.paused():
            assert np.isfinite(found.score(PolicyLearner(policy, bank, rate=0.0)))
        audit = tmp_path / "cal" / "audit.jsonl"
        audit.write_text(audit.read_text().replace("true", "false"))
        with pytest.raises(DataError, match="no canary set"):
            canaries(tmp_path / "cal", policy, bank)
    finally:
        policy.close()


def test_a_harmful_update_is_taken_back(born, tmp_path, monkeypatch):
    monkeypatch.setattr(update.learn, "__kwdefaults__", {**update.learn.__kwdefaults__, "most_kl": -1.0})
    out = run(born, tmp_path / "back")
    rows = lines(out)
    assert all("token-KL" in row["rolled_back"] for row in rows) and rows[-1]["num_rolled_back"] == 3
    before, after = weights_of(born), weights_of(out / "policy")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_beta_is_steered_by_where_an_update_led_also_where_it_was_taken_back(born, tmp_path):
    """So long a step goes far over 0.40; the weights that serve stay at their anchor, whose KL of 0 would let beta fall further."""
    rows = lines(run(born, tmp_path / "far", replace(SETTINGS, rate=0.5)))
    taken = [row for row in rows if not row["masked"]]
    assert taken and all(row["rolled_back"] and row["kl"] == pytest.approx(0, abs=1e-6) and 0.4 < row["reached_kl"] <= 0.8 for row in taken)
    assert rows[0]["beta"] > SETTINGS.beta and not rows[0]["masked"]


def test_an_update_is_taken_back_where_the_canaries_fall_or_nothing_is_finite(born, tmp_path, monkeypatch):
    class Falling:
        start = 0.0

        def score(self, learner):
            return -0.5

    rows = lines(run(born, tmp_path / "canary", canary=lambda bank: Falling()))
    assert all("the canary set fell from 0.000 to -0.500" in row["rolled_back"] for row in rows) and rows[-1]["canary"] == -0.5
    monkeypatch.setattr(update, "ttrl_loss", lambda logp_N, *args, **kwargs: logp_N.sum() * math.nan)
    rows = lines(run(born, tmp_path / "nan"))
    assert all("not finite" in row["rolled_back"] for row in rows) and rows[-1]["num_rolled_back"] == 3
    before = weights_of(born)
    for name in ("canary", "nan"):
        after = weights_of(tmp_path / name / "policy")
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_an_abstaining_query_moves_no_weight_along_earlier_ones(born):
    policy = VlmPolicy(load_learner(born), max_new_tokens=10)
    with closing(policy):
        bank = FeatureBank(policy.vision)
        learner = PolicyLearner(policy, bank, rate=1e-3)
        with STREAM.open(0) as query:
            tools = resolved(ToolSettings())
            (rollout,) = Runner(policy, make_executor(tools), settings=tools, limits=Limits(max_steps=2)).run([(query.task, 1)])
            ((_, example),) = pack_rollouts(policy, bank, query.task, [rollout])
        with policy.paused():
            for is_masked in (False, True):
                (logp,) = learner.logp([example])  # the anchor is where the policy is: its pull is nothing
                before = {name: value.clone() for name, value in learning_of(learner.model).items()}
                lesson = update.Lesson(example, logp, logp, advantage=1.0)
                update.learn(learner, [lesson], is_masked=is_masked, beta=0.3, canary=None)
                moved = [name for name, value in learning_of(learner.model).items() if not torch.equal(value, before[name])]
                assert bool(moved) is not is_masked
            lesson = update.Lesson(example, logp, logp, advantage=0.0)
            update.learn(learner, [lesson], is_masked=False, beta=0.3, canary=None)  # nor is what was learnt forgotten
            assert any(not torch.equal(value, before[name]) for name, value in learning_of(learner.model).items())


def test_a_first_step_by_its_gradient_alone_leaves_nothing_to_go_on_along():
    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = Optimizer(None, torch.optim.AdamW([weight], lr=0.1, weight_decay=0.0))
    weight.grad = torch.ones(3)
    with optimizer.by_gradient_alone():
        optimizer.step()
    assert (weight < 1).all()
    before = weight.detach().clone()
    weight.grad = torch.zeros(3)
    optimizer.step()
    assert torch.equal(weight, before)


def test_adapters_learn_and_the_base_stays(born, tmp_path):
    pytest.importorskip("peft")
    out = run(born, tmp_path / "lora", lora=LoraTable(rank=2))
    assert any(not row["masked"] for row in lines(out)) and all(row["kl"] is not None for row in lines(out))
    adapter = load_file(out / "policy" / "policy" / "adapter_model.safetensors")
    assert any(value.abs().max() > 0 for name, value in adapter.items() if "lora_B" in name)  # born as zeros


def test_the_last_layers_alone_may_learn(born, tmp_path):
    out = run(born, tmp_path / "last", replace(SETTINGS, last_layers=1))
    before, after = weights_of(born), weights_of(out / "policy")
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved and all("language_model.layers.2." in name for name in moved)
    with pytest.raises(ConfigError, match="last_layers = 4: the model has 3"):
        run(born, tmp_path / "more", replace(SETTINGS, last_layers=4))
    assert "last_layers" not in SETTINGS.to_json()


def test_evaluation_media_never_reach_the_memory(born, whole, tmp_path, monkeypatch):
    # Families in turn: another item than the stream's.
    blocked = blocklist_of([Excluded("dev", 1, first=0)], embed=lambda images: np.ones((len(images), EfficientNetEncoder.dim)))
    out = run(born, tmp_path / "other", blocklist=blocked)
    found = json.loads((out / AUDIT_FILE).read_text())
    assert found["num_probes_with_key"] == 0  # keys of this memory are words alone
    shown = blocklist_of([Excluded("dev", 1)], EfficientNetEncoder().embed)
    seen = run(born, tmp_path / "pixels", replace(SETTINGS, omega=0.5), blocklist=shown)
    found = json.loads((seen / AUDIT_FILE).read_text())
    assert (found["num_probes_with_key"], found["hits"]) == (1, [])
    assert (found["num_items"], found["num_blocked"], found["num_probes"], found["hits"]) == (3, 1, 1, []) and 0.9 < found["high"] < 1
    assert is_equal(out, whole)
    with STREAM.open(1) as query:
        blocked = Blocklist([Blocked("exam", query.task.medium.sha256, fingerprint_of(query.task.medium))], WORLD)
    with pytest.raises(Killed):
        run(born, tmp_path / "own", blocklist=blocked, kill_at=2)
    out = run(born, tmp_path / "own", blocklist=blocked)  # the item that the state kept is offered again, with what it looks like
    with read_memory(out / "memory") as memory:
        assert [entry.id.split(":")[0] for entry in memory.entries()] == ["0", "2"]
    assert json.loads((out / AUDIT_FILE).read_text())["hits"] == []
    planted = run(born, tmp_path / "planted")
    with read_memory(planted / "memory") as memory:
        report = audited(memory, blocked, planted)
    assert [hit.position for hit in report.hits] == [1]
    assert json.loads((planted / AUDIT_FILE).read_text())["hits"][0]["blocked_id"] == "exam"
    monkeypatch.setattr("pixelis.ttrl.excluded.audited", lambda memory, blocklist, folder: report)
    with pytest.raises(DataError, match="1 remembered media are or resemble evaluation media"):
        run(born, tmp_path / "late", blocklist=blocked)


def test_an_index_is_trained_once_there_is_enough_to_train_it_on(born, whole, tmp_path, monkeypatch):
    trained = []
    monkeypatch.setattr(Memory, "train_index", lambda self, audit: trained.append((len(self), audit)) or setattr(self, "_index", True))
    monkeypatch.setattr(Memory, "kind", property(lambda self: "ivfpq" if trained else "exact"))
    with pytest.raises(AttributeError):  # the stand-in is no index: the next question fails on it, after it was trained
        run(born, tmp_path / "run", index=IndexSettings(exact_below=2))
    assert [num for num, _ in trained] == [2] and trained[0][1] is None  # nothing is blocked, so there is nothing to audit


def test_an_index_is_audited_before_it_serves(born, tmp_path, monkeypatch):
    """As training an index on three keys is refused, what is asked of the audit is asked here: it writes its report, and passes."""

    def train_index(self, audit):
        audit(self)
        raise Killed

    monkeypatch.setattr(Memory, "train_index", train_index)
    blocked = blocklist_of([Excluded("dev", 1)])
    with pytest.raises(Killed):
        run(born, tmp_path / "run", index=IndexSettings(exact_below=2), blocklist=blocked)
    assert json.loads((tmp_path / "run" / AUDIT_FILE).read_text())["num_items"] == 2
    with STREAM.open(0) as query:
        own = Blocklist([Blocked("exam", query.task.medium.sha256, fingerprint_of(query.task.medium))], WORLD)
    with read_memory(tmp_path / "run" / "memory") as memory, pytest.raises(DataError, match="1 remembered media are or resemble"):
        assert_clean(memory, own, tmp_path / "run")


def test_a_full_memory_goes_on_serving(born, tmp_path, caplog):
    out = run(born, tmp_path / "full", max_items=1)
    assert [row["neighbours"] for row in lines(out)] == [0, 1, 1] and caplog.text.count("the memory is full with 1 items") == 1
    with pytest.raises(Killed):
        run(born, tmp_path / "again", max_items=1, kill_at=1)
    run(born, tmp_path / "again", max_items=1)
    assert is_equal(tmp_path / "again", out)


def test_other_settings_and_damage_are_refused(born, whole, tmp_path):
    with pytest.raises(ConfigError, match="its settings differ"):
        run(born, whole, replace(SETTINGS, rate=0.5))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "adapt.json").write_bytes(b"")
    with pytest.raises(DataError, match=r"adapt\.json: is damaged"):
        run(born, tmp_path / "torn")
    with pytest.raises(Killed):
        run(born, tmp_path / "half", kill_at=1)
    (tmp_path / "half" / STATE_FILE).write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"state\.pt: cannot be read"):
        run(born, tmp_path / "half")


def test_between_answers_the_paper_s_steps_are_taken_one_after_another(born, whole, tmp_path):
    """Lag 0 against a loop written down step by step."""
    tools, decided = resolved(ToolSettings()), []
    policy = VlmPolicy(load_learner(born), max_new_tokens=10)
    with closing(policy), open_memory(tmp_path / "memory", KeySpec(text_dim=SIZES["hidden"], pixel_dim=8, omega=0.0)) as memory:
        adapter = Hearing(policy, make_executor(tools), tools, SETTINGS, memory=memory)
        value, corridor = ValueState(), CorridorState.start(SETTINGS.beta)
        for number in range(3):
            with STREAM.open(number) as query:
                served = adapter.serve(query, number)
                decided.append(served.decision)
                earned, value = credit(served.facts, served.decision, value, SETTINGS.decision)
                with policy.paused():
                    parts = zip(served.rolled, earned.is_kept, earned.advantages, strict=True)
                    lessons = [
                        update.Lesson(r.example, r.measured.logp_N, r.measured.anchor_logp_N, a) for r, is_kept, a in parts if is_kept
                    ]
                    outcome = update.learn(adapter.learner, lessons, is_masked=earned.is_masked, beta=corridor.beta, canary=None)
                    adapter.learner.follow(SETTINGS.ema)
                corridor = regulate(corridor, outcome.reached_kl, SETTINGS.corridor)
                memory.add(adapter.item(served, query))
        assert [record.decision for record in read_records(whole)] == decided
        assert lines(whole)[-1]["beta"] == corridor.beta
        after = weights_of(whole / "policy")
        assert all(torch.equal(value, after[name]) for name, value in policy.checkpoint.model.named_parameters())


# ---------------------------------------------------------------- lift

BRIGHT = replace(SETTINGS, rollouts=8, num_parallel=8, lift_spread=0.75)


DARK = WorldStream(parse_segments(["3 lighting:5", "1 clean"]), split="dev", first=4, families=("no_tool",))


class Confirmed(Hearing):
    """What a rollout saw that is brighter than the medium is confirmed, and nothing else."""

    def serve(self, query, number, writer=None):
        served = super().serve(query, number, writer)
        told = [replace(one, fidelity=float(s > 0)) for one, s in zip(served.decision.rollouts, shown_at(served), strict=True)]
        return replace(served, decision=replace(served.decision, rollouts=tuple(told)))


def shown_at(served):
    return [exposure_of(one.trajectory.tokens[0].images[0])[1] for one in served.rolled]


def run_dark(born, out, settings=BRIGHT, **others):
    return run(born, out, settings, stream=DARK, kind=Confirmed, **{"audit": DARK, **others})


def test_rollouts_see_differently_and_the_lift_follows_what_is_confirmed(born, tmp_path):
    """In the dark; where there is no headroom to try, all see alike and nothing is learnt."""
    out, light = run_dark(born, tmp_path / "whole"), Light()
    shown = [exposure_of(one.tokens[0].images[0])[1] for one in open_run(out / "rollouts").trajectories()]
    rows = lines(out)
    for number, row in enumerate(rows[:3]):
        with DARK.open(number) as query:
            room = headroom([query.task.medium.frame(0)])
        assert row["headroom"] == round(room, 3) > 0.5
        tried = [round(room * lift, 3) for lift in lifts(light.lift, 8, 0.75, (0, number))]
        assert shown[8 * number : 8 * number + 8] == tried
        light = after_query(light, [(stops / room, float(stops > 0)) for stops in tried])
        assert row["lift"] == pytest.approx(light.lift)
    assert rows[3]["headroom"] < LEAST_HEADROOM and rows[3]["lift"] == rows[2]["lift"]
    assert len(set(shown[24:])) == 1
    assert Prompting.of(out / "policy").lift == light.lift > 0


def test_a_lift_alone_leaves_the_weights_and_resumes_to_the_same(born, tmp_path):
    still = replace(BRIGHT, rate=0.0, lag=1)
    whole = run_dark(born, tmp_path / "whole", still)
    before, after = weights_of(born), weights_of(whole / "policy")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(row["kl"] is None for row in lines(whole)) and lines(whole)[-1]["lift"]
    for audit in (None, Silly()):  # labels never reach the lift
        out = run_dark(born, tmp_path / type(audit).__name__, still, audit=audit)
        assert [row["lift"] for row in lines(out)] == [row["lift"] for row in lines(whole)]
    for kill_at in (0, 1):
        out = tmp_path / str(kill_at)
        with pytest.raises(Killed):
            run_dark(born, out, still, kill_at=kill_at)
        run_dark(born, out, still)
        assert (out / QUERIES_FILE).read_bytes() == (whole / QUERIES_FILE).read_bytes()
        assert [row["lift"] for row in lines(out)] == [row["lift"] for row in lines(whole)]
        assert Prompting.of(out / "policy") == Prompting.of(whole / "policy")


def test_lifts_need_company():
    with pytest.raises(ConfigError, match="give 2 or more, not 1"):
        replace(BRIGHT, rollouts=1)


# ---------------------------------------------------------------- other methods, one budget, stress


class Silly:
    """An audit whose word must not matter."""

    def is_right(self, number, answer):
        return bool(number % 2)


@pytest.fixture(scope="module")
def others(born, tmp_path_factory):
    """The two baselines on the stream."""
    folder = tmp_path_factory.mktemp("methods")
    return {name: run(born, folder / name, as_method(replace(SETTINGS, method=name))) for name in METHODS[1:]}


def test_entropy_is_minimised_without_a_vote_and_without_abstaining(born, others):
    rows = lines(others["entropy"])
    assert [row["accepted"] for row in rows] == [1, 2, 3] and [row["kept"] for row in rows] == [3, 3, 3]
    assert not any(row["masked"] for row in rows)
    assert all(row["kl"] is not None and not row["rolled_back"] for row in rows)
    for record in read_records(others["entropy"]):
        assert record.decision.label == sorted(record.facts.rollouts, key=lambda one: one.id)[0].label and not record.decision.is_abstaining
    assert check_decisions(others["entropy"]) == (3, [])


def test_an_update_of_entropy_makes_the_policy_surer(born, tmp_path):
    tools, settings = resolved(ToolSettings()), as_method(replace(SETTINGS, method="entropy"))
    policy = VlmPolicy(load_learner(born), max_new_tokens=10)
    with closing(policy), open_memory(tmp_path / "memory", KeySpec(text_dim=SIZES["hidden"], pixel_dim=8, omega=0.0)) as memory:
        adapter = Adapter(policy, make_executor(tools), tools, settings, memory=memory)  # nothing is answered, all is learnt
        with STREAM.open(0) as query:
            served = adapter.serve(query, 0)
            job, _ = adapter.lesson(served, Progress(), 0.0)
            entropy = lambda: torch.cat([m.entropy_N for m in adapter.learner.measure([one.example for one in job.lessons])])  # noqa: E731
            with policy.paused():
                before, logp = entropy(), torch.cat([one.logp_N for one in job.lessons])
                outcome = update.learn(adapter.learner, job.lessons, is_masked=True, beta=0.3, canary=None, minimises_entropy=True)
                after = entropy()
    assert served.decision.answer is None and not job.is_masked and len(job.lessons) == 3
    assert outcome.loss == pytest.approx(float(before.mean()), rel=1e-5)  # at the anchor the KL is 0
    assert float(after.mean()) < float(before.mean()) and outcome.kl > 0 and len(logp) == len(before)


def test_retrieval_answers_by_neighbours_and_learns_nothing(born, others):
    out = others["retrieval"]
    before, after = weights_of(born), weights_of(out / "policy")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert [row["accepted"] for row in lines(out)] == [0, 0, 0] and check_decisions(out) == (3, [])
    for record in read_records(out):
        said = {one.label for one in record.facts.rollouts}
        near = [one for one in record.facts.neighbours if one.answer in said]
        assert len(record.facts.neighbours) == min(2, int(record.facts.id[0])) and record.decision.label in said
        loud = {label: sum(one.similarity for one in near if one.answer == label) for label in said}
        assert loud[record.decision.label] == max(loud.values())


@pytest.mark.parametrize("name", METHODS[1:])
def test_labels_never_reach_other_methods(born, others, tmp_path, name):
    settings = as_method(replace(SETTINGS, method=name))
    for audit in (None, Silly()):
        out = run(born, tmp_path / type(audit).__name__, settings, audit=audit)
        assert is_equal(out, others[name]) and (out / QUERIES_FILE).read_bytes() == (others[name] / QUERIES_FILE).read_bytes()


def test_a_budget_of_updates_ends_learning_and_not_answering(born, whole, tmp_path):
    spent = run(born, tmp_path / "spent", replace(SETTINGS, max_accepted=1))
    rows = lines(spent)
    assert [row["accepted"] for row in rows] == [1, 1, 1] and lines(whole)[-1]["accepted"] == 3
    assert [row["kl"] is None for row in rows] == [False, True, True] and len(lines(spent, QUERIES_FILE)) == 3
    assert is_equal(spent, run(born, tmp_path / "short", stream=WorldStream((Segment(1),), split="dev", families=("no_tool",))))
    late = run(born, tmp_path / "late", replace(SETTINGS, max_accepted=1, lag=1))
    assert [row["accepted"] for row in lines(late)] == [1, 1, 1]


class Hard(Hearing):
    """Flips must have another answer to go to."""

    def _neighbours(self, text_D, asked_D, labels, number):
        return super()._neighbours(text_D, asked_D, ["no", "yes"], number)


def test_stress_is_recorded_decided_again_and_not_remembered(born, tmp_path):
    decision = DecisionSettings(delta=0.0, vote="majority", counts_neighbours=True)
    settings = replace(SETTINGS, learns=False, decision=decision)
    clean = run(born, tmp_path / "clean", settings, kind=Hard)
    hit = run(born, tmp_path / "hit", replace(settings, stress=Stress(flip=1.0)), kind=Hard)
    assert check_decisions(hit) == (3, [])
    answers = {record.facts.id: record.decision.label for record in read_records(hit)}
    for record in read_records(hit):
        for one in record.facts.neighbours:
            assert one.stress == "flip" and {one.answer, answers[one.id]} == {"no", "yes"}  # the memory says what was decided
    assert not any(one.stress for record in read_records(clean) for one in record.facts.neighbours)
    with pytest.raises(ConfigError, match="its settings differ"):
        run(born, hit, settings)


def test_stressed_keys_ask_and_are_not_stored(born, tmp_path):
    settings = replace(SETTINGS, learns=False, omega=0.5)
    clean, hit = (
        run(born, tmp_path / str(k), replace(settings, stress=some)) for k, some in enumerate((Stress(), Stress(jpeg=20, rescale=0.5)))
    )
    likes = [[one.similarity for record in read_records(out) for one in record.facts.neighbours] for out in (clean, hit)]
    assert len(likes[0]) == len(likes[1]) == 3 and all(a != b for a, b in zip(*likes, strict=True))
    with read_memory(clean / "memory") as one, read_memory(hit / "memory") as two:
        assert np.array_equal(one.rows(), two.rows())


def test_settings_that_would_do_nothing_are_refused_and_defaults_are_not_told():
    for wrong, says in (
        ({"method": "tent"}, "ttrl, entropy, retrieval"),
        ({"method": "retrieval", "neighbours": 0}, "neighbours = 0"),
        ({"stress": Stress(flip=0.3), "neighbours": 0}, "neighbours = 0"),
        ({"stress": Stress(jpeg=20)}, "omega = 0"),
    ):
        with pytest.raises(ConfigError, match=says):
            replace(SETTINGS, **wrong)
    told = SETTINGS.to_json()
    assert not {"method", "max_accepted", "stress"} & told.keys() and "counts_neighbours" not in told["decision"]
    stressed = replace(SETTINGS, max_accepted=4, stress=Stress(flip=0.3)).to_json()
    assert stressed["max_accepted"] == 4 and stressed["stress"]["flip"] == 0.3
    assert as_method(SETTINGS) == SETTINGS and as_method(replace(SETTINGS, method="retrieval")).learns is False


# ---------------------------------------------------------------- a worker beside serving

LATE = replace(SETTINGS, lag=1)
LONGER = WorldStream((Segment(4),), split="dev", families=("no_tool",))


def digest(values):
    return hashlib.sha256(b"".join(values[name].numpy().tobytes() for name in sorted(values))).hexdigest()


class Noted:
    """A student that notes the weights after every update, and says when it has taken one."""

    def __init__(self, student, fails_at=None):
        self._student, self._fails_at = student, fails_at
        self.after, self.taken = {}, defaultdict(threading.Event)
        self.start = digest(learning_of(student.learner.model))

    def take(self, job):
        if job.number == self._fails_at:
            raise ZeroDivisionError("in the update")
        done = self._student.take(job)
        self.after[job.number] = digest(done.weights.learner["model"])
        self.taken[job.number].set()
        return done

    def restore(self, weights, corridor):
        self._student.restore(weights, corridor)


class Watched(Hearing):
    """Notes the weights that answer; no answer ends before the update beside it has."""

    def serve(self, query, number, writer=None):
        before = digest(learning_of(self.policy.checkpoint.model))
        served = super().serve(query, number, writer)
        if number:
            assert self.updates.student.taken[number - 1].wait(60)
        assert digest(learning_of(self.policy.checkpoint.model)) == before  # nothing was swapped while it answered
        self.answered = [*getattr(self, "answered", []), before]
        return served


def rows_of(folder):
    return [{key: value for key, value in row.items() if key != "seconds"} for row in lines(folder)]


def is_same_run(one, two):
    return (
        is_equal(one, two)
        and (one / QUERIES_FILE).read_bytes() == (two / QUERIES_FILE).read_bytes()
        and (one / "audit.jsonl").read_bytes() == (two / "audit.jsonl").read_bytes()
        and rows_of(one) == rows_of(two)
    )


@pytest.fixture(scope="module")
def beside(born, tmp_path_factory):
    """A run with a worker, and what was noted of its weights."""
    seen = {}

    class Kept(Watched):
        def close(self):
            super().close()
            seen.update(answered=self.answered, start=self.updates.student.start, after=self.updates.student.after)

    out = tmp_path_factory.mktemp("ttrl") / "beside"
    worker = lambda student: Worker(Noted(student), deadline_s=60)  # noqa: E731
    return run(born, out, LATE, audit=LONGER, stream=LONGER, kind=Kept, updates=worker), seen


def test_the_lag_alone_says_which_weights_answer(beside):
    out, seen = beside
    assert seen["answered"] == [seen["start"], seen["start"], seen["after"][0], seen["after"][1]]
    assert len({seen["start"], *seen["after"].values()}) == 5  # every update moved something
    assert [row["query"] for row in lines(out)] == [0, 1, 2, 3]


def test_a_worker_gives_the_bytes_of_updates_one_after_another(born, beside, tmp_path):
    assert is_same_run(run(born, tmp_path / "inline", LATE, audit=LONGER, stream=LONGER, updates=Inline), beside[0])
    assert is_same_run(run(born, tmp_path / "again", LATE, audit=LONGER, stream=LONGER), beside[0])


def test_a_worker_s_run_that_was_killed_goes_on_to_the_same_bytes(born, beside, tmp_path):
    class Dying(Hearing):
        def serve(self, query, number, writer=None):
            served = super().serve(query, number, writer)
            if number == 2:
                raise Killed  # sampled and written, not yet decided on the disk; an update is under way
            return served

    with pytest.raises(Killed):
        run(born, tmp_path / "run", LATE, audit=LONGER, stream=LONGER, kind=Dying)
    assert len(lines(tmp_path / "run")) == 1  # the line of the last answer waits for its update
    assert is_same_run(run(born, tmp_path / "run", LATE, audit=LONGER, stream=LONGER), beside[0])


def test_a_worker_s_run_that_was_killed_at_its_last_line_goes_on(born, beside, tmp_path):
    with pytest.raises(Killed):
        run(born, tmp_path / "run", LATE, audit=LONGER, stream=LONGER, kill_at=3)
    assert is_same_run(run(born, tmp_path / "run", LATE, audit=LONGER, stream=LONGER), beside[0])


def test_a_harmful_update_of_a_worker_is_taken_back_and_serving_goes_on(born, tmp_path, monkeypatch):
    monkeypatch.setattr(update.learn, "__kwdefaults__", {**update.learn.__kwdefaults__, "most_kl": -1.0})
    out = run(born, tmp_path / "back", LATE)
    assert [bool(row["rolled_back"]) for row in lines(out)] == [True] * 3 and lines(out)[-1]["num_rolled_back"] == 3
    before, after = weights_of(born), weights_of(out / "policy")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_worker_s_mistake_is_raised_with_its_query(born, tmp_path):
    worker = lambda student: Worker(Noted(student, fails_at=1), deadline_s=60)  # noqa: E731
    with pytest.raises(UpdateFailed, match=r"the update of query 1:.* ZeroDivisionError: in the update"):
        run(born, tmp_path / "run", LATE, audit=LONGER, stream=LONGER, updates=worker)
    assert [row["query"] for row in lines(tmp_path / "run")] == [0]
    run(born, tmp_path / "run", LATE, audit=LONGER, stream=LONGER)  # what was answered is kept, and goes on
    assert len(lines(tmp_path / "run")) == 4


def test_a_twin_shares_what_never_moves(born):
    policy = VlmPolicy(load_learner(born), max_new_tokens=10)
    with closing(policy):
        policy.checkpoint.base.model.visual.requires_grad_(False)
        twin = Twin.of(policy)
        own, copies = dict(policy.checkpoint.model.named_parameters()), dict(twin.checkpoint.model.named_parameters())
        shared = {name for name in own if own[name] is copies[name]}
        assert shared == {name for name in own if "visual" in name} and all(torch.equal(own[name], copies[name]) for name in own)
        base = twin.checkpoint.base
        assert base.lm_head.weight is base.model.language_model.embed_tokens.weight  # tied as the original


def test_a_twin_of_adapters_shares_the_base(born):
    pytest.importorskip("peft")
    policy = VlmPolicy(load_learner(born, LoraTable(rank=2, dropout=0.5)), max_new_tokens=10)
    with closing(policy):
        twin = Twin.of(policy)
        own, copies = dict(policy.checkpoint.model.named_parameters()), dict(twin.checkpoint.model.named_parameters())
        assert {name for name in own if own[name] is not copies[name]} == {name for name in own if ".lora_" in name}
        without_dropout(twin.checkpoint.model)
        kinds = [m.p for m in twin.checkpoint.model.modules() if isinstance(m, torch.nn.Dropout)]
        assert kinds and set(kinds) == {0.0}
