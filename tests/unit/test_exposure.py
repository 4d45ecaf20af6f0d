"""Exposure: what is shown and under which name, and how it is learnt, by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pixelis.policy.exposure import at_exposure, expose, exposure_of, shown
from pixelis.ttrl.exposure import MOST_EXPOSURE, PRIOR, WIDTH, Light, after_query, curve, light_of, offsets, plain_light

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


def answered(light, queries, seen, *, noise=0.0, start=0, spread=0.5):
    """After so many queries of eight rollouts, whose VisFid is `seen` of their exposure, and chance."""
    rng = np.random.default_rng(start)
    for number in range(start, start + queries):
        stops = [light.exposure + offset for offset in offsets(8, spread, (1, number))]
        hard = rng.random()
        light = after_query(light, [(one, hard + seen(one) + noise * rng.standard_normal()) for one in stops])
    return light


def test_one_query_by_hand():
    """Two rollouts, one bump apart: ridge regression of their difference on the difference of the bumps."""
    light = after_query(Light(), [(0.0, 0.0), (0.25, 1.0)])
    bumps = np.exp(-0.5 * ((np.array([[0.0], [0.25]]) - np.arange(-2, 2.1, WIDTH)) / WIDTH) ** 2)
    centred = bumps - bumps.mean(axis=0)
    assert light.products_KK == pytest.approx(centred.T @ centred) and light.gains_K == pytest.approx(centred.T @ [-0.5, 0.5])
    assert (light.square, light.num) == (0.5, 1)  # a variance of 0.5
    step = bumps[1] - bumps[0]
    reach = step @ step * PRIOR**2  # the prior's variance of the difference, in units of the noise's; the data's is that of two rollouts
    gain, error = (float(part[0]) for part in curve(replace(light, exposure=0.0), np.array([0.25])))
    assert gain == pytest.approx(reach / (reach + 2)) and error == pytest.approx(np.sqrt(0.5 * 2 * reach / (reach + 2)))
    assert light.exposure == 0.0  # one query is too little


def test_alike_rollouts_teach_nothing():
    assert after_query(Light(0.3), [(0.3, 0.7)] * 8).exposure == 0.3
    assert after_query(Light(0.3), [(0.0, 0.7), (0.6, 0.7)]).exposure == 0.3
    assert answered(Light(), 50, lambda stops: 0.0).exposure == 0.0


@pytest.mark.parametrize("best", [0.6, -0.5])
def test_the_exposure_goes_where_evidence_holds(best):
    """VisFid falls off by the square of the distance from the best; rollouts differ by chance, and queries are hard or easy."""
    light = answered(Light(), 120, lambda stops: -0.3 * (stops - best) ** 2, noise=0.1)
    assert light.exposure == pytest.approx(best, abs=0.25)


def test_it_crosses_a_dip_and_stays_where_nothing_is_better():
    """As nano in the dark: worst where it stands, better on both sides, best at half a stop."""
    light = answered(Light(), 150, lambda stops: -0.1 * np.exp(-(stops**2) / 0.02) + 0.12 * np.exp(-((stops - 0.5) ** 2) / 0.2), noise=0.3)
    assert 0.2 <= light.exposure <= 0.9
    at_rest = [answered(Light(), 150, lambda stops: -0.5 * stops**2, noise=0.3, start=1000 * k).exposure for k in range(5)]
    assert np.abs(at_rest).max() <= 0.3


def test_what_was_learnt_in_another_light_is_forgotten():
    light = answered(Light(), 150, lambda stops: -0.3 * (stops - 0.6) ** 2, noise=0.1)
    again = answered(light, 400, lambda stops: -0.3 * (stops + 0.2) ** 2, noise=0.1, start=500)
    assert light.exposure > 0.3 and again.exposure < 0.1


def test_chance_alone_does_not_move_it():
    """Twelve runs in which VisFid has nothing to do with the light: most stay, and none is led by a direction."""
    ends = np.array([answered(Light(), 100, lambda stops: 0.0, noise=0.3, start=1000 * k).exposure for k in range(12)])
    assert np.median(np.abs(ends)) == 0.0 and (ends == 0).mean() >= 0.6


def test_light_goes_to_the_disk_and_back():
    light = answered(Light(), 20, lambda stops: stops, noise=0.1)
    back = light_of(json.loads(json.dumps(plain_light(light))))
    assert np.array_equal(back.products_KK, light.products_KK) and np.array_equal(back.gains_K, light.gains_K)
    assert (back.exposure, back.square, back.num) == (light.exposure, light.square, light.num) and 0 < back.exposure <= MOST_EXPOSURE
