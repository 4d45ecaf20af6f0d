"""Metrics of answers, boxes, tracks and processes against values worked out by hand, and what must not earn anything."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pixelis.core.geometry import Box, Mask, TimeSpan
from pixelis.data.world.verify import hota
from pixelis.eval.metrics.answers import accuracy, mean_anls, mean_of_relative_accuracy, mean_relative_accuracy, official_anls
from pixelis.eval.metrics.boxes import boundary_f1, box_iou, character_errors, fits, mask_iou, outline, recall_at, temporal_iou
from pixelis.eval.metrics.process import (
    action_entropy,
    chain_stability,
    mean_visual_fidelity,
    rate_of_composite_reasoning,
    rate_of_pixel_reasoning,
    run_to_run_similarity,
    visual_fidelity,
)
from pixelis.eval.metrics.selective import reliability, risk_coverage, selective_error
from pixelis.eval.metrics.tracks import track_scores
from pixelis.rewards.chains import Chain, adjacent_z, composite_chains, composite_share, entropy_nats
from pixelis.rewards.running import Running

NAN = math.nan


# ---------------------------------------------------------------- answers


def test_answers_by_hand():
    rate = accuracy(["Red.", None, "blue", "x"], [["red"], ["red"], ["red", "BLUE"], []])
    # right, unanswered, right; the last has no known truth
    assert (rate.value, rate.count, rate.num_unscored) == (pytest.approx(2 / 3), 3, 1)
    rate = mean_anls(["hallo", "xyz"], [["hello", "h"], ["hello"]])
    assert (rate.value, rate.count) == (pytest.approx(0.4), 2)  # 4 of 5 letters, and nothing
    assert math.isnan(accuracy([], []).value)
    with pytest.raises(ValueError):
        accuracy(["a"], [])


def test_official_anls_forgives_case_and_blanks_only():
    assert official_anls("  New   York ", ["new york"]) == 1.0
    # one edit; the longer text is 'paris.' with 6 characters
    assert official_anls("Paris.", ["paris"]) == pytest.approx(1 - 1 / 6)
    # 3 edits of 6 is just the floor; 4 are below it
    assert official_anls("abcxyz", ["abcdef"]) == 0.5 and official_anls("abwxyz", ["abcdef"]) == 0.0
    # the length is that of the text as it came, blanks included: 'a  b' has 4
    assert official_anls("a  b", ["a c"]) == pytest.approx(1 - 1 / 4)
    assert official_anls("x", []) == 0.0


def test_mean_relative_accuracy_by_hand():
    assert mean_relative_accuracy(100, 100) == 1.0
    assert mean_relative_accuracy(92, 100) == pytest.approx(0.9)  # off by .08: within 1 - t for t up to .90
    assert mean_relative_accuracy(50, 100) == pytest.approx(0.1)  # off by .5: only just within 1 - .50
    assert mean_relative_accuracy(-92, -100) == pytest.approx(0.9)
    assert mean_relative_accuracy(0, 100) == mean_relative_accuracy(None, 1) == mean_relative_accuracy(1, 0) == 0.0
    assert mean_relative_accuracy(0, 0) == 1.0
    rate = mean_of_relative_accuracy([100, None, 3], [100, 5, None])
    assert (rate.value, rate.count, rate.num_unscored) == (0.5, 2, 1)


# ---------------------------------------------------------------- boxes, outlines, texts


def square(x: int, y: int, side: int, size: int = 100) -> Mask:
    ink = np.zeros((size, size), bool)
    ink[y : y + side, x : x + side] = True
    return Mask.from_array(ink)


def test_overlaps_by_hand():
    # 10x10 boxes shifted by 5: 50 of 150; one missed; one without a truth
    rate = box_iou([Box(0, 0, 10, 10), None, Box(0, 0, 1, 1)], [Box(5, 0, 15, 10), Box(0, 0, 1, 1), None])
    assert (rate.value, rate.count, rate.num_unscored) == (pytest.approx(1 / 6), 2, 1)
    assert mask_iou([square(10, 10, 10)], [square(15, 10, 10)]).value == pytest.approx(1 / 3)
    assert temporal_iou([TimeSpan(0, 2)], [TimeSpan(1, 4)]).value == pytest.approx(1 / 4)
    recall = recall_at(fits([TimeSpan(0, 2), TimeSpan(0, 3), None], [TimeSpan(1, 4), TimeSpan(0, 4), TimeSpan(0, 1)], TimeSpan.tiou))
    assert {least: rate.value for least, rate in recall.items()} == {
        0.3: pytest.approx(1 / 3),
        0.5: pytest.approx(1 / 3),
        0.7: pytest.approx(1 / 3),
    }
    assert recall_at([None])[0.5].num_unscored == 1


def test_outline_of_a_square_by_hand():
    # Pixels that differ to the right, below or across: for a square of side s, a ring of 4 s + 1: the row above and the column to the
    # left (s each, and their corner), and the square's own last row and column (2 s - 1, with 1 more at each outer corner).
    ink = np.zeros((9, 9), bool)
    ink[3:6, 3:6] = True
    expected = np.zeros((9, 9), bool)
    expected[2, 2:6] = expected[2:6, 2] = expected[5, 2:6] = expected[2:6, 5] = True
    assert (outline(ink) == expected).all()
    assert not outline(np.ones((4, 4), bool)).any()


def test_boundary_f1_by_hand():
    # 100x100: the diagonal is 141.4, 0.8 % of it 1.13, so 2 pixels.
    assert boundary_f1(square(30, 30, 20), square(30, 30, 20)) == 1.0
    assert boundary_f1(square(32, 30, 20), square(30, 30, 20)) == 1.0
    # Shifted by 10, reach 2. The outline of a square of side 20 is a ring of 21 x 21 pixels: 80 pixels, rows 29 and 49, columns 29 and 49;
    # the other has columns 39 and 59. Of the first ring: its two rows have 21 pixels each at x = 29 ... 49, those from x = 37 on are near
    # the other's rows (39 - 2): 13 each, 26 in all. Its left column is far. Its right column (x = 49) has 19 pixels besides the rows' ends;
    # those within 2 of the other's rows: y = 30, 31 and 47, 48: 4. So 30 of 80, and the same the other way round by symmetry.
    assert boundary_f1(square(40, 30, 20), square(30, 30, 20)) == pytest.approx(30 / 80)
    empty = square(0, 0, 0)
    assert boundary_f1(empty, empty) == 1.0 and boundary_f1(empty, square(30, 30, 20)) == 0.0
    with pytest.raises(ValueError, match="cannot be compared"):
        boundary_f1(square(3, 3, 2, size=10), square(3, 3, 2))


def test_character_errors_by_hand():
    # 'kitten' to 'sitting' is 3 edits over 7 characters; nothing read of 'ab' is 2 over 2; 'x' where nothing stands is 1 over 0.
    found = character_errors(["kitten", None, "x", "?"], ["sitting", "ab", "", None])
    assert (found.num_edits, found.num_characters, found.count, found.num_unscored) == (6, 9, 3, 1)
    assert found.rate == pytest.approx(6 / 9)
    assert character_errors(["ａ  b"], ["a b"]).rate == 0.0  # full width, two blanks
    assert math.isnan(character_errors(["x"], [""]).rate) and math.isnan(character_errors([], []).rate)


# ---------------------------------------------------------------- tracks


def moving(x: float, frames: int = 4) -> list[Box]:
    return [Box(x + 2 * f, 0, x + 2 * f + 10, 10) for f in range(frames)]


def frames_of(**tracks: list[Box]) -> list[dict[str, Box]]:
    return [{name: boxes[f] for name, boxes in tracks.items()} for f in range(len(next(iter(tracks.values()))))]


def test_tracks_perfect_and_swapped():
    pytest.importorskip("trackeval")
    a, b = moving(0), moving(100)
    true = frames_of(a=a, b=b)
    perfect = track_scores([(true, frames_of(one=a, two=b))])
    assert (perfect.hota, perfect.detection, perfect.association, perfect.localisation) == pytest.approx((1, 1, 1, 1))
    assert (perfect.mota, perfect.motp, perfect.num_switches, perfect.num_true, perfect.num_found) == (1, 1, 0, 8, 8)
    # The two names change places half-way. Every box is found: DetA 1. Each of the 4 (true, found) pairs shares 2 of the 4 + 4 - 2 frames,
    # so AssA is 1/3 and HOTA its root; both objects change their track once: MOTA 1 - 2/8.
    swapped = track_scores([(true, frames_of(one=a[:2] + b[2:], two=b[:2] + a[2:]))])
    assert (swapped.detection, swapped.association, swapped.hota) == pytest.approx((1, 1 / 3, math.sqrt(1 / 3)))
    assert (swapped.num_switches, swapped.mota) == (2, pytest.approx(0.75))


def test_one_track_agrees_with_the_verifier():
    pytest.importorskip("trackeval")
    generator = np.random.default_rng(0)
    true = {f: Box(3.0 * f, 0, 3.0 * f + 20, 20) for f in range(12) if f != 4}
    found = {f: Box(3.0 * f + dx, dx, 3.0 * f + 20 + dx, 20) for f, dx in enumerate(generator.uniform(0, 9, 12)) if f not in (2, 7)}
    rows = [({"a": true[f]} if f in true else {}, {"x": found[f]} if f in found else {}) for f in range(12)]
    scores = track_scores([([t for t, _ in rows], [x for _, x in rows])])
    assert scores.hota == pytest.approx(hota(true, found))
    assert scores.num_true == 11 and scores.num_found == 10


def test_tracks_that_cannot_be_scored():
    pytest.importorskip("trackeval")
    nothing = [{}, {}]
    scores = track_scores([(nothing, nothing)])
    assert math.isnan(scores.hota) and math.isnan(scores.mota) and (scores.count, scores.num_unscored) == (0, 1)
    invented = track_scores([(nothing, frames_of(x=moving(0, 2)))])
    assert math.isnan(invented.hota) and (invented.num_false, invented.count) == (2, 1)
    missed = track_scores([(frames_of(a=moving(0, 2)), nothing)])
    assert (missed.hota, missed.mota, missed.num_missed) == (0, 0, 2)
    with pytest.raises(ValueError):
        track_scores([(nothing, [{}])])


# ---------------------------------------------------------------- RaPR, RaCPR


def test_a_policy_that_only_talks_gets_no_rate_of_pixel_reasoning():
    talk = rate_of_pixel_reasoning([[], [False, False], []])
    assert (talk.value, talk.count, talk.num_unscored) == (0.0, 3, 0)
    mixed = rate_of_pixel_reasoning([[True, False], [True], [], None])
    assert (mixed.value, mixed.count, mixed.num_unscored) == (0.5, 3, 1)  # 1/2, 1 and 0
    assert math.isnan(rate_of_pixel_reasoning([]).value)


def test_composite_chains_by_hand():
    yes = [True] * 7
    # steps 0-1-2 hold together, 2-3 does not, 3-4 does but is only two steps long, 5 has no pixels
    z = [0.30, 0.5, 0.29, 2.0, NAN, NAN]
    assert composite_chains(yes, z) == (Chain(0, 2, pytest.approx(0.4)),)
    assert composite_chains(yes, z, least_length=2) == (Chain(0, 2, pytest.approx(0.4)), Chain(3, 4, 2.0))
    # an invalid step ends a run, however alike it looks
    assert composite_chains([True, True, False, True, True, True], [1.0] * 5) == (Chain(3, 5, 1.0),)
    assert composite_chains([True] * 4, [1.0, 2.0, 3.0]) == (Chain(0, 3, 2.0),)
    assert composite_chains([], []) == composite_chains([True], []) == ()
    assert composite_share(7, composite_chains(yes, z)) == pytest.approx(3 / 7) and composite_share(0, ()) == 0.0
    with pytest.raises(ValueError, match="2 pairs"):
        composite_chains([True] * 3, [1.0])


def test_composite_reasoning_by_hand():
    found = rate_of_composite_reasoning([([True] * 4, [1, 2, 3]), ([True] * 6, [1, 1, -1, 1, NAN]), ([], []), None])
    # all 4 of 4; the first 3 of 6; none; unknown
    assert (found.rate.value, found.rate.count, found.rate.num_unscored) == (pytest.approx(0.5), 3, 1)
    assert (found.chain_z.value, found.chain_z.count) == (pytest.approx(1.5), 2)
    assert found.chain_length.value == pytest.approx(3.5)
    assert math.isnan(rate_of_composite_reasoning([([True], [])]).chain_z.value)


def test_z_of_fixed_statistics():
    statistics = Running().add([0.2, 0.6])  # mean 0.4, deviation 0.2
    assert adjacent_z([0.6, 0.4, NAN], statistics) == pytest.approx([1.0, 0.0, NAN], nan_ok=True)
    for nothing in (Running(), Running().add([0.5]), Running().add([0.5, 0.5])):
        assert np.isnan(adjacent_z([0.6], nothing)).all()  # unknown, and not 0


# ---------------------------------------------------------------- VisFid, RCS, AE


def test_visual_fidelity_by_hand():
    assert visual_fidelity([0.9, 0.1, 0.7, None], [True, False, True, True]) == pytest.approx(0.8)
    assert math.isnan(visual_fidelity([0.9], [False])) and math.isnan(visual_fidelity([], []))
    rate = mean_visual_fidelity([([0.5], [True]), ([1.0], [True]), ([0.9], [False])])
    assert (rate.value, rate.count, rate.num_unscored) == (0.75, 2, 1)


def test_run_to_run_similarity_by_hand():
    def closeness(one: float, two: float) -> float:
        return 1 - abs(one - two)

    # pairs: 0-0.2, 0-1, 0.2-1: 0.8, 0, 0.2
    assert run_to_run_similarity([0.0, 0.2, 1.0], closeness) == pytest.approx(1 / 3)
    assert run_to_run_similarity([0.1] * 4, closeness) == 1.0
    # sabotage: told the wrong way round, rollouts that resemble each other look unstable
    assert run_to_run_similarity([0.1] * 4, lambda a, b: 1 - closeness(a, b)) == 0.0
    assert math.isnan(run_to_run_similarity([0.1], closeness)) and math.isnan(run_to_run_similarity([], closeness))
    rate = chain_stability([[0.0, 0.2], [0.5], [1.0, 1.0]], closeness)
    assert (rate.value, rate.count, rate.num_unscored) == (pytest.approx(0.9), 2, 1)
    # a similarity that is not the same both ways is taken both ways
    assert run_to_run_similarity([1, 2], lambda a, b: float(a > b)) == 0.5


def test_action_entropy_by_hand():
    assert entropy_nats(["SEG", "OCR"]) == pytest.approx(math.log(2))
    assert entropy_nats(["SEG"] * 3) == 0.0 and math.isnan(entropy_nats([])) and math.isnan(entropy_nats([None]))
    found = action_entropy([["SEG", "OCR", None], ["SEG", "SEG"], []])
    assert found.per_trajectory.value == pytest.approx(math.log(2) / 2)
    assert (found.per_trajectory.count, found.per_trajectory.num_unscored, found.num_calls) == (2, 1, 4)
    # pooled: SEG 3/4, OCR 1/4
    assert found.pooled == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))


# ---------------------------------------------------------------- selective prediction


def test_risk_coverage_by_hand():
    found = risk_coverage([0.9, 0.8, 0.7, 0.6, NAN], [0, 1, 0, 1, 1])
    assert [(p.threshold, p.coverage, p.risk) for p in found.points] == [
        (0.9, 0.25, 0.0),
        (0.8, 0.5, 0.5),
        (0.7, 0.75, pytest.approx(1 / 3)),
        (0.6, 1.0, 0.5),
    ]
    # (0 + 1/2 + 1/3 + 1/2) / 4; the best order has its errors last: (0 + 0 + 1/3 + 1/2) / 4
    assert found.aurc == pytest.approx(4 / 12) and found.excess == pytest.approx(1 / 8)
    assert (found.count, found.num_unscored) == (4, 1)
    assert found.at_coverage(0.6).risk == pytest.approx(1 / 3)
    assert risk_coverage([], []).at_coverage(0.5) is None and math.isnan(risk_coverage([], []).aurc)


def test_equal_confidence_is_never_told_apart():
    # One of two equals is wrong: after one item half an error is expected, after two one: (1/2 + 1/2) / 2.
    found = risk_coverage([0.5, 0.5], [1, 0])
    assert len(found.points) == 1 and found.aurc == pytest.approx(0.5)
    assert risk_coverage([0.5, 0.5], [0, 1]) == found


def test_selective_error_by_hand():
    found = selective_error([0, 1, 0, 1, NAN], [False, False, False, True, False])
    # answered: 0 1 0 and one unknown; withheld: 1
    assert (found.error.value, found.error.count, found.error.num_unscored) == (pytest.approx(1 / 3), 3, 1)
    assert (found.coverage.value, found.coverage.count) == (0.8, 5)
    assert found.full_error.value == 0.5
    assert math.isnan(selective_error([1, 0], [True, True]).error.value)
    with pytest.raises(ValueError, match="0, 1"):
        selective_error([0.5], [False])


def test_calibration_by_hand():
    confidence, right = [0.1, 0.2, 0.7, 0.9], [0, 1, 1, 1]
    found = reliability(confidence, right, num_bins=2)
    # (0, .5]: said .15, true .5; (.5, 1]: said .8, true 1
    assert [(b.low, b.high, b.accuracy.count) for b in found.bins] == [(0.0, 0.5, 2), (0.5, 1.0, 2)]
    assert found.ece == pytest.approx((0.35 + 0.2) / 2) and found.worst == pytest.approx(0.35)
    # equal widths put .7 and .9 apart from nothing; equal masses make four bins of one
    each = reliability(confidence, right, num_bins=4, is_equal_mass=True)
    assert [b.confidence for b in each.bins] == confidence
    assert each.ece == pytest.approx((0.1 + 0.8 + 0.3 + 0.1) / 4)
    # the right end belongs to a bin: .7 of ten bins is in (.6, .7]
    tens = reliability([0.7, 0.0, 1.0], [1, 0, 1], num_bins=10)
    assert [k for k, b in enumerate(tens.bins) if b.accuracy.count] == [0, 6, 9]
    assert len(tens.bins) == 10 and math.isnan(tens.bins[1].confidence)
    equals = reliability([0.5] * 6, [1, 0] * 3, num_bins=3, is_equal_mass=True)
    assert [b.accuracy.count for b in equals.bins] == [6] and equals.ece == 0.0
    assert math.isnan(reliability([NAN], [1]).ece) and reliability([NAN], [1]).num_unscored == 1
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        reliability([1.2], [1])
