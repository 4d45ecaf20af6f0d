"""Laws of Pixel TTRL's decisions: order, scale, copies and names change nothing that they should not; ranges and coverage hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pixelis.core.geometry import Box, View
from pixelis.core.ops import Attribute, OcrOutput, PropOutput, Segment, TempOutput, TextSpan, TrackPoint, TrkOutput, ZoomOutput
from pixelis.ttrl.abstain import abstain, conformal_quantile, conformal_set, nonconformity
from pixelis.ttrl.calibrate import CALIBRATORS, calibrated, confidence_logits, expected_calibration_error, fit_calibrator
from pixelis.ttrl.decide import DecisionSettings, credit, decide
from pixelis.ttrl.evidence import Evidence, likeness, paired_iou
from pixelis.ttrl.facts import NeighbourFacts, QueryFacts, RolloutFacts, dump_facts, load_facts
from pixelis.ttrl.reliability import Cast, full, one_coin
from pixelis.ttrl.returns import kept
from pixelis.ttrl.similarity import aligned_mean, aligned_means, op_similarity, similarities, similarity, soft_dtw, soft_dtws
from pixelis.ttrl.value import ValueState
from pixelis.ttrl.vote import Voter, borda, count, weighted

UNIT = st.floats(0, 1)
LABELS = ("3", "4", "7", "red")

# ---------------------------------------------------------------- what may happen

corner = st.integers(0, 8).map(float)
boxes = st.builds(lambda x, y, w, h: Box(x, y, x + w + 1, y + h + 1), corner, corner, corner, corner)
loose_boxes = st.builds(Box, *[st.floats(-5, 20)] * 4)
"""Empty and inverted ones among them."""
words = st.sampled_from(["exit", "exist", "platform 9", "9", ""])
segments = st.builds(lambda start, length: Segment(start_s=start, end_s=start + length, score=0.5), st.floats(0, 5), st.floats(0.1, 3))
attributes = st.builds(
    lambda name, value: Attribute(name=name, value=value, confidence=0.5),
    st.sampled_from(["colour", "size"]),
    st.sampled_from(["red", 3, 3.5]),
)
outputs = st.one_of(
    st.none(),
    boxes.map(lambda box: ZoomOutput(frame=0, box=box, view=View(box.x0, box.y0, 1, 1), width=9, height=9, image="0" * 64)),
    st.builds(lambda box, text: OcrOutput(frame=0, box=box, spans=(TextSpan(text=text, box=box, confidence=1.0),)), boxes, words),
    st.lists(st.none() | boxes, max_size=4).map(
        lambda seen: TrkOutput(
            track_id=1, points=tuple(TrackPoint(frame=k, time_s=k / 10, box=box, score=1.0) for k, box in enumerate(seen)), score=1.0
        )
    ),
    st.lists(segments, max_size=3).map(lambda s: TempOutput(event="moves", box=None, first_frame=0, last_frame=9, segments=tuple(s))),
    st.builds(
        lambda box, found: PropOutput(what="colour", frame=0, box=box, attributes=tuple(found)),
        boxes,
        st.lists(attributes, max_size=3, unique_by=lambda one: one.name),
    ),
)
steps = st.builds(
    lambda output, is_decisive, time_s: Evidence(op=output.op if output else "SEG", output=output, is_decisive=is_decisive, time_s=time_s),
    outputs,
    st.booleans(),
    st.sampled_from([0.0, 0.4, 2.0]),
)
chains = st.lists(steps, max_size=3).map(tuple)


@st.composite
def rollouts(draw, name="r"):
    label = draw(st.none() | st.sampled_from(LABELS))
    maybe = st.none() | UNIT
    return RolloutFacts(
        id=name,
        answer=label,
        label=label,
        confidence=draw(maybe),
        entropy_nats=draw(maybe),
        curiosity=draw(maybe),
        coherence=draw(maybe),
        evidence=draw(chains),
    )


@st.composite
def queries(draw):
    num, num_near = draw(st.integers(1, 6)), draw(st.integers(0, 3))
    near = [
        NeighbourFacts(
            id=f"n{k}",
            similarity=draw(UNIT),
            medium=draw(st.sampled_from(["m", "other"])),
            votes=tuple(
                Cast(task="t", worker=worker, label=label)
                for worker, label in draw(st.lists(st.tuples(st.sampled_from(["ZOOM", "OCR", ""]), st.sampled_from(LABELS)), max_size=4))
            ),
            evidence=draw(chains),
            intrinsic=draw(st.none() | UNIT),
            answer=draw(st.none() | st.sampled_from(LABELS)),
        )
        for k in range(num_near)
    ]
    return QueryFacts(id="q", medium="m", rollouts=tuple(draw(rollouts(f"r{k}")) for k in range(num)), neighbours=tuple(near))


kinds = st.builds(
    lambda vote, reliability, quantile, voices: DecisionSettings(
        vote=vote, reliability=reliability, quantile=quantile, counts_neighbours=voices
    ),
    st.sampled_from(["weighted", "majority", "confidence", "borda"]),
    st.sampled_from(["one_coin", "full"]),
    st.sampled_from([None, 0.4, 0.9, float("inf")]),
    st.booleans(),
)
few = settings(max_examples=30, deadline=None)
unhurried = settings(deadline=None)

# ---------------------------------------------------------------- decisions


@few
@given(queries(), kinds, st.randoms(use_true_random=False))
def test_the_order_in_which_rollouts_and_neighbours_arrive_changes_nothing(facts, how, random):
    mixed = replace(
        facts,
        rollouts=tuple(random.sample(facts.rollouts, len(facts.rollouts))),
        neighbours=tuple(random.sample(facts.neighbours, len(facts.neighbours))),
    )
    assert decide(mixed, how) == decide(facts, how)
    assert credit(mixed, decide(mixed, how), ValueState(), how) == credit(facts, decide(facts, how), ValueState(), how)


@few
@given(queries(), kinds)
def test_decisions_are_made_again_from_stored_facts(facts, how):
    again = load_facts(dump_facts(facts), where="x")
    assert again == facts and decide(again, how) == decide(facts, how)


@few
@given(queries(), kinds)
def test_other_names_for_the_answers_change_only_the_names(facts, how):
    other = dict(zip(LABELS, ("red", "x", "3", "b"), strict=True))
    renamed = replace(
        facts,
        rollouts=tuple(replace(r, label=None if r.label is None else other[r.label]) for r in facts.rollouts),
        neighbours=tuple(
            replace(n, answer=n.answer and other[n.answer], votes=tuple(replace(v, label=other[v.label]) for v in n.votes))
            for n in facts.neighbours
        ),
    )
    one, two = decide(facts, how), decide(renamed, how)
    assert [(other[label], score) for label, score in one.ballot.scores] == list(two.ballot.scores)
    assert (one.ballot.margin, one.abstention.reasons, one.exemplar) == (two.ballot.margin, two.abstention.reasons, two.exemplar)
    assert [replace(r, label=None) for r in one.rollouts] == [replace(r, label=None) for r in two.rollouts]


@few
@given(queries(), st.lists(UNIT, min_size=2, max_size=2))
def test_whoever_abstains_abstains_at_every_larger_margin(facts, deltas):
    low, high = sorted(deltas)
    if decide(facts, DecisionSettings(delta=low)).is_abstaining:
        assert decide(facts, DecisionSettings(delta=high)).is_abstaining


@few
@given(queries(), kinds)
def test_everything_stays_in_its_range(facts, how):
    found = decide(facts, how)
    voices = sum(one.answer is not None for one in facts.neighbours) if how.counts_neighbours else 0
    share = sum(one.weight for one in found.rollouts)
    assert share == pytest.approx(1) if not voices else 0 < share <= 1 + 1e-9
    assert sum(score for _, score in found.ballot.scores) + found.ballot.silent == pytest.approx(1)
    for one in found.rollouts:
        assert all(value is None or 0 <= value <= 1 for value in (one.fidelity, one.reliability, one.similarity, one.confidence))
    assert 0 <= found.ballot.margin <= 1 + 1e-12
    earned, _ = credit(facts, found, ValueState(), how)
    assert 0.5 <= earned.weight <= 1.5 and all(value <= 1 for value in earned.returns)


@few
@given(queries())
def test_copies_of_rollouts_that_nobody_checked_change_no_decision(facts):
    # Without evidence there is one worker class, and no VisFid: what is left is the vote of confidence and entropy.
    plain = replace(facts, rollouts=tuple(replace(r, evidence=()) for r in facts.rollouts), neighbours=())
    copied = replace(plain, rollouts=(*plain.rollouts, *(replace(r, id=r.id + "x") for r in plain.rollouts)))
    one, two = decide(plain), decide(copied)
    assert one.label == two.label and one.ballot.margin == pytest.approx(two.ballot.margin)


# ---------------------------------------------------------------- votes

ballots = st.lists(st.tuples(st.none() | st.sampled_from(LABELS), st.floats(0.01, 1)), min_size=1, max_size=10)


@unhurried
@given(ballots, st.floats(1e-3, 1e3))
def test_the_scale_of_the_weights_and_copies_of_all_rollouts_change_nothing(rows, scale):
    labels, weights = [label for label, _ in rows], np.array([weight for _, weight in rows])
    one = count(labels, weights)
    for two in (count(labels, weights * scale), count(labels * 2, np.tile(weights, 2)), count(labels, weights * 0.5)):
        assert dict(two.scores) == pytest.approx(dict(one.scores)) and two.margin == pytest.approx(one.margin, abs=1e-9)
        assert one.margin < 1e-9 or two.winner == one.winner


@unhurried
@given(ballots, st.integers(-8, 8), UNIT)
def test_whoever_abstains_abstains_at_every_scale_of_the_weights(rows, power, quantile):
    labels, weights = [label for label, _ in rows], np.array([weight for _, weight in rows])
    one = count(labels, weights)
    for two in (count(labels, weights * 2.0**power), count(labels * 2, np.tile(weights, 2))):  # no rounding in either
        assert abstain(two, quantile=quantile) == abstain(one, quantile=quantile)


@unhurried
@given(ballots)
def test_ranked_voting_of_single_answers_is_counting(rows):
    labels, weights = [label for label, _ in rows], np.array([weight for _, weight in rows])
    one, two = count(labels, weights), borda([() if label is None else (label,) for label in labels], weights)
    assert dict(one.scores) == pytest.approx(dict(two.scores)) and one.silent == pytest.approx(two.silent)


@unhurried
@given(st.lists(st.tuples(st.floats(0.05, 1), st.floats(0, 3), UNIT, st.floats(0.05, 1)), min_size=2, max_size=8), st.integers(0, 3))
def test_a_better_rollout_weighs_more(rows, which):
    voters = [Voter("A", *row) for row in rows]
    better = list(rows[0])
    better[which] = better[which] / 2 if which == 1 else (1 + better[which]) / 2
    changed = [Voter("A", *better), *voters[1:]]
    assert weighted(changed)[0] >= weighted(voters)[0] - 1e-12


# ---------------------------------------------------------------- abstention


def test_conformal_coverage_over_a_thousand_splits():
    # Distinct scores: the truth of a new query lies in the set with probability exactly ceil(31 * 0.9) / 31 = 28/31 >= 0.9.
    rng = np.random.default_rng(7)
    covered = sum(int(rng.random() <= conformal_quantile(rng.random(30), 0.1)) for _ in range(1000))
    low, high = stats.binom.interval(0.999, 1000, 28 / 31)
    assert low <= covered <= high and high / 1000 < 0.94


def test_conformal_sets_of_ballots_hold_the_truth_over_a_thousand_splits():
    rng = np.random.default_rng(8)

    def query():
        """A vote over four answers, and a truth that is the more often an answer the more it weighs."""
        ballot = count(list(rng.permutation(LABELS)), rng.dirichlet([0.5] * 4) + 1e-3)
        labels, shares = zip(*ballot.scores, strict=True)
        return ballot, labels[rng.choice(4, p=np.array(shares) / sum(shares))]

    covered, sizes = 0, []
    for _ in range(1000):
        *calibration, (ballot, truth) = [query() for _ in range(31)]
        quantile = conformal_quantile([nonconformity(one, label) for one, label in calibration], 0.1)
        inside = conformal_set(ballot, quantile)
        covered, sizes = covered + (truth in inside), [*sizes, len(inside)]
    low, high = stats.binom.interval(0.95, 1000, 28 / 31)
    assert low <= covered <= high and 1.5 < np.mean(sizes) < 3  # neither everything nor the winner alone


@unhurried
@given(st.lists(UNIT, min_size=1, max_size=60), st.floats(0.02, 0.9))
def test_the_quantile_covers_its_share_of_the_calibration_split(scores, alpha):
    quantile = conformal_quantile(scores, alpha)
    assert (np.array(scores) <= quantile).mean() >= 1 - alpha - 1e-9
    assert conformal_quantile(scores, alpha / 2) >= quantile


@unhurried
@given(ballots, UNIT)
def test_not_abstaining_means_a_set_of_the_winner_alone(rows, quantile):
    found = count([label for label, _ in rows], np.array([weight for _, weight in rows]))
    verdict = abstain(found, quantile=quantile)
    if not verdict.is_abstaining:
        assert verdict.conformal == (found.winner,) and found.margin >= 0.15 - 1e-6


# ---------------------------------------------------------------- likeness and Sim


@unhurried
@given(steps, steps)
def test_likeness_is_symmetric_in_range_and_one_with_itself(a, b):
    assert likeness(a, a) == 1.0
    assert 0 <= likeness(a, b) <= 1 and likeness(a, b) == pytest.approx(likeness(b, a))


@few
@given(chains, chains)
def test_sim_is_symmetric_in_range_and_one_with_itself(a, b):
    assert similarity(a, a) == 1.0
    assert 0 <= similarity(a, b) <= 1 and similarity(a, b) == pytest.approx(similarity(b, a))
    assert 0 <= op_similarity(a, b) <= 1


@unhurried
@given(st.integers(1, 6), st.integers(1, 6), st.integers(0, 10**6), st.floats(0.02, 3))
def test_soft_alignments_are_probabilities_of_passing(rows, cols, seed, temperature):
    cost = np.random.default_rng(seed).random((rows, cols))
    value, alignment = soft_dtw(cost, temperature)
    assert (alignment >= -1e-12).all() and (alignment <= 1 + 1e-9).all()
    assert alignment[0, 0] == pytest.approx(1) and alignment[-1, -1] == pytest.approx(1)
    assert (alignment.sum(0) >= 1 - 1e-9).all() and (alignment.sum(1) >= 1 - 1e-9).all()  # every step is aligned with some
    assert max(rows, cols) - 1e-9 <= alignment.sum() <= rows + cols - 1 + 1e-9
    assert value <= soft_dtw(cost + 0.1, temperature)[0] and 0 <= aligned_mean(cost, temperature) <= 1


@few
@given(st.lists(chains, min_size=1, max_size=5))
def test_what_is_kept_repeats_nothing_and_what_is_not_repeats_something(several):
    labels = ["3"] * len(several)
    is_kept = kept(several, labels)
    assert is_kept.any() and kept([s for s, keep in zip(several, is_kept, strict=True) if keep], labels[: is_kept.sum()]).all()
    doubled = kept([*several, *several], labels * 2)
    assert doubled[: len(several)].tolist() == is_kept.tolist()
    assert [k for k in range(len(several)) if doubled[len(several) + k]] == [k for k, chain in enumerate(several) if not chain]


# ---------------------------------------------------------------- reliability

votes = st.lists(
    st.builds(
        lambda t, w, y: Cast(task=t, worker=w, label=y), st.sampled_from("stuv"), st.sampled_from("abc"), st.sampled_from(LABELS)
    ),
    min_size=1,
    max_size=24,
)  # fmt: skip


@few
@given(votes)
def test_em_never_goes_down_and_gives_probabilities(rows):
    for found in (one_coin(rows, least_gain=0.0), one_coin(rows, shares_labels=True, least_gain=0.0), full(rows, least_gain=0.0)):
        gains = np.diff(found.objective)
        assert (gains >= -1e-7 * np.maximum(1, np.abs(found.objective[:-1]))).all()
        assert all(0 <= skill <= 1 for skill in found.of_worker.values())
        assert all(sum(shares.values()) <= 1 + 1e-9 for shares in found.posterior.values())


@few
@given(votes)
def test_one_coin_does_not_mind_other_names_in_single_tasks(rows):
    renamed = [replace(vote, label=f"{vote.task} {LABELS.index(vote.label)}") for vote in rows]
    assert one_coin(renamed).of_worker == one_coin(rows).of_worker


# ---------------------------------------------------------------- calibration

examples = st.lists(st.tuples(st.floats(0.01, 0.99), st.booleans()), min_size=2, max_size=30)


@few
@given(examples, st.sampled_from(["temperature", "isotonic", "platt"]))
def test_calibrated_confidences_are_probabilities_and_two_of_three_maps_keep_their_order(rows, name):
    confidence, right = np.array([p for p, _ in rows]), np.array([int(hit) for _, hit in rows])
    after = calibrated(fit_calibrator(name, confidence_logits(confidence), right), grid := np.linspace(0.01, 0.99, 25))
    assert len(after) == len(grid) and ((after >= 0) & (after <= 1)).all()
    if name != "platt":  # whose slope may be negative where the surer answers are the wrong ones
        assert (np.diff(after) >= -1e-9).all()


@few
@given(examples, st.sampled_from(sorted(CALIBRATORS)), st.randoms(use_true_random=False))
def test_the_order_of_the_dev_split_does_not_matter(rows, name, random):
    def fitted(some):
        found = fit_calibrator(name, confidence_logits([p for p, _ in some]), np.array([int(hit) for _, hit in some]))
        return calibrated(found, [0.2, 0.5, 0.9])

    assert fitted(random.sample(rows, len(rows))) == pytest.approx(fitted(rows), abs=2e-3)


@unhurried
@given(examples, st.integers(1, 20))
def test_ece_is_in_range_and_blind_to_copies(rows, num_bins):
    confidence, right = np.array([p for p, _ in rows]), np.array([hit for _, hit in rows])
    value = expected_calibration_error(confidence, right, num_bins=num_bins)
    assert 0 <= value <= 1
    assert expected_calibration_error(np.tile(confidence, 2), np.tile(right, 2), num_bins=num_bins) == pytest.approx(value)


# ---------------------------------------------------------------- many at once


def one_by_one(cost_AB, temperature):
    """Soft-DTW cell by cell, one pair at a time: how it reads in the paper."""
    num_a, num_b = cost_AB.shape
    total = np.full((num_a + 2, num_b + 2), np.inf)
    total[0, 0] = 0.0
    for i in range(1, num_a + 1):
        for j in range(1, num_b + 1):
            before = np.array([total[i - 1, j - 1], total[i - 1, j], total[i, j - 1]])
            least = before.min()
            total[i, j] = cost_AB[i - 1, j - 1] + least - temperature * np.log(np.exp((least - before) / temperature).sum())
    passes = np.zeros((num_a + 2, num_b + 2))
    passes[num_a, num_b] = 1.0
    for i in range(num_a, 0, -1):
        for j in range(num_b, 0, -1):
            for k, m in ((i + 1, j + 1), (i + 1, j), (i, j + 1)):
                if k <= num_a and m <= num_b:
                    passes[i, j] += passes[k, m] * np.exp((total[k, m] - cost_AB[k - 1, m - 1] - total[i, j]) / temperature)
    return float(total[num_a, num_b]), passes[1:-1, 1:-1]


matrices = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 999)).map(
    lambda parts: np.random.default_rng(parts[2]).random(parts[:2])
)


@few
@given(st.lists(matrices, min_size=1, max_size=4), st.sampled_from([0.01, 0.2, 3.0]))
def test_pairs_aligned_together_are_aligned_as_alone_to_the_last_bit(costs, temperature):
    values, alignments = soft_dtws(costs, temperature)
    for cost_AB, value, alignment_AB in zip(costs, values, alignments, strict=True):
        alone, passes_AB = one_by_one(cost_AB, temperature)
        assert value == alone and np.array_equal(alignment_AB, passes_AB)
    assert aligned_means(costs, temperature) == [aligned_mean(cost_AB, temperature) for cost_AB in costs]


@few
@given(st.lists(chains, max_size=4), chains)
def test_similarities_to_one_are_those_of_each_pair(several, one):
    assert similarities(several, one) == [similarity(each, one) for each in several]


@few
@given(st.lists(st.tuples(loose_boxes, loose_boxes), min_size=1, max_size=6))
def test_boxes_in_pairs_overlap_as_one_by_one_to_the_last_bit(pairs):
    a_N4, b_N4 = (np.array([box.as_tuple() for box in side]) for side in zip(*pairs, strict=True))
    assert paired_iou(a_N4, b_N4).tolist() == [a.iou(b) for a, b in pairs]
