"""Exposure: what is shown and under which name, and how it is learnt, by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pixelis.policy.exposure import at_exposure, expose, exposure_of, shown
from pixelis.ttrl.exposure import MOST_EXPOSURE, exposure_gradient, moved, offsets

GREY = np.array([[[0, 50, 100], [150, 200, 255]]], np.uint8)


def test_a_stop_more_is_twice_as_bright_and_white_stays_white():
    assert expose(GREY, 1.0).tolist() == [[[0, 100, 200], [255, 255, 255]]]
    assert expose(GREY, -1.0).tolist() == [[[0, 25, 50], [75, 100, 128]]]  # 127.5 rounds to the even one
    assert expose(GREY, 0.0) is GREY and expose(GREY, 0.0004) is GREY  # less than a name can say


def test_a_name_says_how_an_image_is_shown():
    assert at_exposure("ab:3", 0.25) == "ab:3@+0.250" and exposure_of("ab:3@+0.250") == ("ab:3", 0.25)
    assert at_exposure("ab", -1.5) == "ab@-1.500" and exposure_of("ab@-1.500") == ("ab", -1.5)
    for nothing in (0.0, -0.0, 0.0004, -0.0004):
        assert at_exposure("ab", nothing) == "ab"
    assert exposure_of("ab") == ("ab", 0.0)


def test_an_image_is_found_as_it_is_shown_or_made_from_what_it_is():
    bright = expose(GREY, 1.0)
    assert shown({"ab": GREY, "ab@+1.000": GREY}, "ab@+1.000") is GREY
    assert np.array_equal(shown({"ab": GREY}, "ab@+1.000"), bright)
    with pytest.raises(KeyError):
        shown({"ab@+1.000": bright}, "ab")


def test_offsets_cancel_out_and_come_again():
    found = offsets(8, 0.25, (0, 3))
    assert found == offsets(8, 0.25, (0, 3)) != offsets(8, 0.25, (0, 4))
    assert all(a == -b != 0 for a, b in zip(found[::2], found[1::2], strict=True))
    assert offsets(3, 0.25, (0, 3))[2] == 0.0
    many = np.array([offsets(8, 0.25, (1, k)) for k in range(500)])
    assert many.std() == pytest.approx(0.25, rel=0.05)


def test_the_gradient_by_hand():
    """Returns 1 and 0 at +0.2 and -0.2 stops: (0.5 * 0.2 + -0.5 * -0.2) / 2 / 0.04 = 2.5, which is 1 per 0.4 stops."""
    assert exposure_gradient([(0.2, 1.0), (-0.2, 0.0)], 0.2) == pytest.approx(2.5)
    assert exposure_gradient([(0.2, 0.7), (-0.2, 0.7), (0.1, 0.7), (-0.1, 0.7)], 0.2) == 0.0
    assert moved(0.1, [(0.2, 1.0), (-0.2, 0.0)], spread=0.2, rate=0.04) == pytest.approx(0.2)
    assert moved(1.9, [(0.2, 1.0), (-0.2, 0.0)], spread=0.2, rate=4.0) == MOST_EXPOSURE
    assert moved(-1.9, [(0.2, 0.0), (-0.2, 1.0)], spread=0.2, rate=4.0) == -MOST_EXPOSURE


@pytest.mark.parametrize("best", [0.6, 0.0, -0.4])
def test_the_exposure_goes_where_answers_agree_more_often(best):
    """400 queries of 8 rollouts, whose chance to agree with the vote falls from 0.9 with the square of the distance from the best."""
    rng, exposure = np.random.default_rng(0), 0.0
    for number in range(400):
        tried = offsets(8, 0.25, (0, number))
        chance = [max(0.1, 0.9 - 0.8 * (exposure + offset - best) ** 2) for offset in tried]
        exposure = moved(exposure, list(zip(tried, (rng.random(8) < chance).astype(float), strict=True)), spread=0.25, rate=0.05)
    assert exposure == pytest.approx(best, abs=0.2)


def test_returns_that_have_nothing_to_do_with_the_light_lead_nowhere():
    """A random walk of 400 steps of 0.05 * 0.5 / (0.25 * sqrt(8)): 0.7 stops would be far out, and the mean of many is 0."""
    ends = []
    for seed in range(20):
        rng, exposure = np.random.default_rng(seed), 0.0
        for number in range(100):
            tried = offsets(8, 0.25, (seed, number))
            exposure = moved(exposure, list(zip(tried, (rng.random(8) < 0.5).astype(float), strict=True)), spread=0.25, rate=0.05)
        ends.append(exposure)
    assert abs(np.mean(ends)) < 3 * np.std(ends) / np.sqrt(20)
