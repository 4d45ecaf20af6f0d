"""SFT end to end on a tiny model: it learns, it resumes to the same bytes, it survives what is not finite, it leaves what it promises."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("peft")

from pixelis.config_train import LoraTable
from pixelis.core.errors import ConfigError, DataError
from pixelis.data.world.glances import Sight
from pixelis.policy.prompt import Prompting
from pixelis.policy.vlm_load import load_checkpoint
from pixelis.policy.vlm_make import make_checkpoint
from pixelis.policy.vlm_vision import Vision
from pixelis.rollout.collect import Plan, Share, collect
from pixelis.rollout.pack import ACT
from pixelis.train import sft as loop
from pixelis.train import traces as reading
from pixelis.train.bank import FeatureBank
from pixelis.train.normalisers import read_normalisers
from pixelis.train.rehearsal import RehearsalSettings
from pixelis.train.sft import ClassRoom, run_sft
from pixelis.train.sft_state import SftSettings
from pixelis.train.start import load_learner
from pixelis.train.traces import read_lessons
from pixelis.train.views import View
from pixelis.train.vocabulary import make_vocabulary

PROMPTING = Prompting(guide="", has_schemas=False, max_pixels=128 * 96, max_frame_pixels=96 * 64, max_frames=2)
SIZES = {"hidden": 48, "num_layers": 2, "num_heads": 3, "num_kv_heads": 3, "vision_hidden": 32, "vision_layers": 1, "num_deepstack": 1}
SETTINGS = SftSettings(
    epochs=3,
    rounds=2,
    batch_tokens=500,
    rate=4e-3,
    matrix_rate=0.03,
    dev_every=4,
    dev_traces=22,
    window=1,
    save_every_s=0.0,
    max_tokens=500,
)


@pytest.fixture(scope="module")
def traces(tmp_path_factory):
    plan = Plan("train", 1, {"read_sign": Share(10), "no_tool": Share(6), "attribute": Share(6)})
    return collect(tmp_path_factory.mktemp("traces") / "train", plan, num_workers=1)


@pytest.fixture(scope="module")
def born(tmp_path_factory):
    folder = make_checkpoint(tmp_path_factory.mktemp("born"), make_vocabulary(), **SIZES, max_pixels=128 * 96)
    PROMPTING.save(folder)
    return folder


def weights_of(folder):
    from safetensors.torch import load_file

    return load_file(str(folder / "model.safetensors"))


def run(born, traces, out, settings=SETTINGS, log=lambda facts: None, **more):
    return run_sft(load_learner(born), [traces], [traces], out, settings, num_workers=1, log=log, **more)


@pytest.fixture(scope="module")
def trained(born, traces, tmp_path_factory):
    return run(born, traces, tmp_path_factory.mktemp("sft") / "run")


def test_it_learns(trained):
    rows = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    losses = [row["token_loss"] for row in rows if "token_loss" in row]
    assert np.mean(losses[-3:]) < 0.8 * losses[0]
    dev = [row["dev"]["all"] for row in rows if "dev" in row]
    assert dev[-1] < dev[0] and {"read_sign", "no_tool", "attribute"} <= set(rows[-1]["dev"])


def test_it_leaves_what_later_phases_need(trained):
    loaded = load_checkpoint(trained)
    assert loaded.prompting == PROMPTING
    found = read_normalisers(trained)
    assert found["token_logp_nats"]["mean"] < 0 < found["token_entropy_nats"]["mean"]
    assert found["tools"]["OCR"]["calls"] >= 10 and 0 < found["tools"]["OCR"]["confidence"]["mean"] <= 1
    assert (trained / "auxiliary_heads.safetensors").is_file() and not (trained / "state").exists()
    with pytest.raises(DataError, match="not made by SFT"):
        read_normalisers(trained.parent)


def test_the_tower_stays_as_it_was(born, trained):
    before, after = weights_of(born), weights_of(trained)
    assert all(torch.equal(before[k], after[k]) for k in before if "visual" in k)
    assert any(not torch.equal(before[k], after[k]) for k in before if "language_model" in k)


@pytest.mark.parametrize("stop_at", [1, 5, 14, 16, 18, 20])
def test_a_killed_run_goes_on_to_the_same_bytes(born, traces, trained, tmp_path, stop_at):
    class Killed(BaseException):
        pass

    seen = []

    def log(facts):
        seen.append(facts)

    original, count = loop.Journal.step, [0]

    def step(self, progress, facts, num_updates, skipped):
        original(self, progress, facts, num_updates, skipped)
        count[0] += 1
        if count[0] == stop_at + 1:
            raise Killed

    loop.Journal.step = step
    try:
        with pytest.raises(Killed):
            run(born, traces, tmp_path / "run", log=log)
    finally:
        loop.Journal.step = original
    run(born, traces, tmp_path / "run", log=log)
    one, two = weights_of(trained), weights_of(tmp_path / "run")
    assert all(torch.equal(one[k], two[k]) for k in one)
    assert (trained / "metrics.jsonl").read_text() == (tmp_path / "run" / "metrics.jsonl").read_text()


def test_what_is_not_finite_leaves_the_weights(born, traces, tmp_path):
    checkpoint = load_learner(born)
    bank = loop._bank(checkpoint)
    lessons = read_lessons([traces], bank, PROMPTING, num_workers=1)
    room = ClassRoom(checkpoint, bank, SETTINGS)
    lessons, _ = room.fitting(lessons)
    learner = loop.Learner(checkpoint.model, bank.features)
    dose = room.dose(np.arange(4), lessons, np.random.default_rng(0))
    broken = replace(dose, weights=tuple(w * np.float32(math.inf) for w in dose.weights))
    before = {name: p.detach().clone() for name, p in checkpoint.model.named_parameters()}
    assert learner.step([broken]).is_skipped
    assert all(torch.equal(before[name], p) for name, p in checkpoint.model.named_parameters())
    assert not learner.step([dose]).is_skipped


def test_deliberate_mistakes_are_read_and_not_learnt(born, traces):
    checkpoint = load_learner(born)
    bank = loop._bank(checkpoint)
    room = ClassRoom(checkpoint, bank, replace(SETTINGS, early_dropout=0.0, feedback_dropout=0.0))
    lessons = [x for x in read_lessons([traces], bank, PROMPTING, num_workers=1) if x.trajectory.steps]
    lesson = replace(lessons[0], trace=replace(lessons[0].trace, planned_errors=(0,)))
    (weight_T,) = room.dose(np.array([0]), [lesson], np.random.default_rng(0)).weights
    example = room.pack(lesson)
    first, last = example.turns[0], example.turns[-1]
    assert not weight_T[first.start : first.end].any() and weight_T[last.start : last.end].all()
    assert set(np.unique(weight_T[example.role_T == ACT])) <= {0.0, 2.0}


def test_an_empty_split_and_another_recipe_are_refused(born, traces, trained, tmp_path):
    with pytest.raises(DataError, match="split"):
        read_lessons([traces], loop._bank(load_learner(born)), PROMPTING, split="dev")
    with pytest.raises(ConfigError, match=r"sees at lift 0\.8: set lift to 0"):
        read_lessons([traces], loop._bank(load_learner(born)), replace(PROMPTING, lift=0.8))
    with pytest.raises(ConfigError, match="settings"):
        run(born, traces, trained, replace(SETTINGS, rate=1.0))
    with pytest.raises(DataError, match="more than 5 tokens"):
        run(born, traces, tmp_path / "short", replace(SETTINGS, max_tokens=5))


def test_media_are_made_once(born, traces, tmp_path, monkeypatch):
    checkpoint, cache, made = load_learner(born), tmp_path / "shown.json", []
    original = reading.show
    monkeypatch.setattr(reading, "show", lambda job: made.append(job[0]) or original(job))
    bank = loop._bank(checkpoint)
    first = read_lessons([traces], bank, PROMPTING, num_workers=1, cache=cache)
    num_media = len({lesson.trajectory.medium.sha256 for lesson in first})
    assert len(made) == num_media
    assert read_lessons([traces], bank, PROMPTING, num_workers=1, cache=cache) == first
    assert len(made) == num_media
    read_lessons([traces], loop._bank(checkpoint), PROMPTING, num_workers=1, cache=cache)  # what is shown is known, its features are not
    assert len(made) == 2 * num_media
    read_lessons([traces], bank, replace(PROMPTING, max_frames=1), num_workers=1, cache=cache)  # shown otherwise
    assert len(made) == 3 * num_media
    cache.write_text('{"media": ')
    with pytest.raises(DataError, match="delete it"):
        read_lessons([traces], bank, PROMPTING, num_workers=1, cache=cache)


def test_a_small_bank_makes_images_again(born, traces):
    checkpoint = load_learner(born)
    vision = Vision(checkpoint.base, checkpoint.images, PROMPTING, cache_bytes=0)
    large, small = FeatureBank(vision), FeatureBank(vision, max_bytes=1)
    lessons = read_lessons([traces], large, PROMPTING, num_workers=1)
    small.add([("first", np.zeros((96, 128, 3), np.uint8))])  # and it is full
    assert read_lessons([traces], small, PROMPTING, num_workers=1) == lessons
    assert small.num_encoded == 1 and large.grids.items() <= small.grids.items()
    small.pixels = reading.pixels_again([traces], lessons, PROMPTING)
    names = sorted(large.grids)
    for name in names:
        assert torch.allclose(small.features([name])[0].tokens_ND, large.features([name])[0].tokens_ND, atol=2e-3)
    both = small.features(names[:2])  # more than it holds
    assert torch.allclose(both[0].tokens_ND, large.features(names[:1])[0].tokens_ND, atol=2e-3)


def test_gradient_checkpointing_computes_layers_twice_and_changes_nothing(born, traces, tmp_path):
    """The same gradients to the last bit, from what enters each layer alone."""
    settings, passes, learnt = replace(SETTINGS, epochs=1, dev_every=1000, mixed=False), [], []
    for is_checkpointed in (False, True):
        learner, count = load_learner(born, LoraTable(rank=2), gradient_checkpointing=is_checkpointed), [0]
        layer = learner.base.model.language_model.layers[0]
        layer.mlp.register_forward_pre_hook(lambda *_, layer=layer, count=count: count.__setitem__(0, count[0] + layer.training))
        run_sft(learner, [traces], [traces], tmp_path / str(is_checkpointed), settings, num_workers=1, log=lambda facts: None)
        passes.append(count[0])
        learnt.append({key: value for key, value in learner.model.state_dict().items() if ".lora_" in key})
    assert passes[1] == 2 * passes[0] > 0
    assert all(torch.equal(learnt[0][key], learnt[1][key]) for key in learnt[0])


def test_adapters_learn_and_the_base_does_not(born, traces, tmp_path):
    checkpoint = load_learner(born, LoraTable(rank=4))
    before = {n: p.detach().clone() for n, p in checkpoint.model.named_parameters() if ".lora_" not in n}
    run_sft(
        checkpoint, [traces], [traces], tmp_path / "lora", replace(SETTINGS, epochs=1, use_muon=False), num_workers=1, log=lambda _: None
    )
    after = dict(checkpoint.model.named_parameters())
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert any(p.abs().sum() > 0 for n, p in after.items() if "lora_B.policy" in n)
    assert (tmp_path / "lora" / "policy" / "adapter_config.json").is_file()


def test_dialogues_are_learnt_beside_traces(born, traces, tmp_path, monkeypatch):
    views = [View(np.full((96, 128, 3), 40 * k, np.uint8), (Sight((0.1 * k, 0.1, 0.1 * k + 0.1, 0.3), k, k),)) for k in range(5)]
    monkeypatch.setattr("pixelis.train.rehearsal.read_views", lambda folder: views)
    out = run(born, traces, tmp_path / "run", replace(SETTINGS, epochs=1), rehearsal=RehearsalSettings("views", num_dev=1, dialogues=2))
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [row["token_loss"] for row in rows if "token_loss" in row]
    plain = run(born, traces, tmp_path / "plain", replace(SETTINGS, epochs=1))
    assert any(not torch.equal(a, b) for a, b in zip(weights_of(out).values(), weights_of(plain).values(), strict=True))
    with pytest.raises(ConfigError, match="rehearsal"):
        run(born, traces, tmp_path / "run", replace(SETTINGS, epochs=1))
