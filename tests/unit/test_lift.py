"""Exposure and lift: what is shown and under which name, and how bright to look is learnt, by hand."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from pixelis.core.errors import ConfigError
from pixelis.policy.exposure import MOST_HEADROOM, MOST_LIFT, at_exposure, expose, exposure_of, headroom, shown
from pixelis.policy.prompt import Prompting
from pixelis.ttrl.lift import CAUTION, PRIOR, WIDTH, Light, after_query, curve, evidence, lifts, light_of, plain_light

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


def grey(level, num=10_000):
    return np.full((num // 100, 100, 3), level, np.uint8)


def test_headroom_is_what_the_brightest_spot_lacks_to_white():
    assert headroom([grey(255)]) == 0.0 and headroom([grey(51)]) == pytest.approx(np.log2(5))
    assert headroom([grey(51), grey(102)]) == pytest.approx(np.log2(2.5))  # frames are brightened together
    assert headroom([grey(0)]) == headroom([grey(1)]) == MOST_HEADROOM
    red = grey(51)
    red[..., 0] = 204
    assert headroom([red]) == pytest.approx(np.log2(1.25))  # no channel may go beyond white


def test_a_speck_is_no_light():
    image = grey(51)
    image[0, 0] = 255
    assert headroom([image]) == pytest.approx(np.log2(5))
    image[0, 1] = 255
    assert headroom([image]) == 0.0  # two pixels of 10,000


def test_lifts_lie_about_the_own_and_come_again():
    found = lifts(0.5, 8, 0.1, (0, 3))
    assert found == lifts(0.5, 8, 0.1, (0, 3)) != lifts(0.5, 8, 0.1, (0, 4))
    assert all(a + b == pytest.approx(1) and a != b for a, b in zip(found[::2], found[1::2], strict=True))
    assert lifts(0.5, 3, 0.1, (0, 3))[2] == 0.5
    many = np.array([lifts(0.5, 8, 0.1, (1, k)) for k in range(500)])
    assert many.std() == pytest.approx(0.1, rel=0.05)


@pytest.mark.parametrize("end", [0.0, 1.0])
def test_at_an_end_half_of_them_stay_there(end):
    assert lifts(end, 8, 0.75, (0, 3)).count(end) >= 4 and all(0 <= one <= 1 for one in lifts(end, 8, 0.75, (0, 3)))


def answered(light, queries, seen, *, noise=0.0, start=0, spread=0.75):
    """After so many queries of eight rollouts, whose VisFid is `seen` of their lift, and chance."""
    rng = np.random.default_rng(start)
    for number in range(start, start + queries):
        hard = rng.random()
        tried = lifts(light.lift, 8, spread, (1, number))
        light = after_query(light, [(one, hard + seen(one) + noise * rng.standard_normal()) for one in tried])
    return light


def test_one_query_by_hand():
    """Two rollouts, one bump apart: ridge regression of their difference on the difference of the bumps."""
    light = after_query(Light(), [(0.0, 0.0), (0.5, 1.0)])
    bumps = np.exp(-0.5 * ((np.array([[0.0], [0.5]]) - np.array([-0.5, 0.0, 0.5, 1.0, 1.5])) / WIDTH) ** 2)
    centred = bumps - bumps.mean(axis=0)
    assert light.products_KK == pytest.approx(centred.T @ centred) and light.gains_K == pytest.approx(centred.T @ [-0.5, 0.5])
    assert (light.square, light.num) == (0.5, 1)  # a variance of 0.5
    step = bumps[1] - bumps[0]
    reach = step @ step * PRIOR**2  # the prior's variance of the difference, in units of the noise's; the data's is that of two rollouts
    gain, error = (float(part[0]) for part in curve(replace(light, lift=0.0), np.array([0.5])))
    assert gain == pytest.approx(reach / (reach + 2)) and error == pytest.approx(np.sqrt(0.5 * 2 * reach / (reach + 2)))
    assert light.lift == 0.0  # one query is too little


def test_alike_rollouts_teach_nothing():
    assert after_query(Light(0.3), [(0.3, 0.7)] * 8).lift == 0.3
    assert after_query(Light(0.3), [(0.0, 0.7), (0.6, 0.7)]).lift == 0.3
    assert answered(Light(), 50, lambda lift: 0.0).lift == 0.0


@pytest.mark.parametrize("best", [0.4, 1.0])
def test_the_lift_goes_where_evidence_holds(best):
    """VisFid falls off by the square of the distance from the best; rollouts differ by chance, and queries are hard or easy."""
    light = answered(Light(), 200, lambda lift: -0.3 * (lift - best) ** 2, noise=0.1)
    assert light.lift == pytest.approx(best, abs=0.2)


def test_it_crosses_a_dip_and_stays_where_nothing_is_better():
    """As nano in the dark: worst where it stands, best with all of the headroom."""
    light = answered(Light(), 150, lambda lift: -0.1 * np.exp(-(lift**2) / 0.05) + 0.12 * np.exp(-((lift - 1) ** 2) / 0.5), noise=0.3)
    assert light.lift >= 0.6
    at_rest = [answered(Light(), 150, lambda lift: -0.3 * lift, noise=0.3, start=1000 * k).lift for k in range(5)]
    assert at_rest == [0.0] * 5


def test_evidence_is_over_two_errors_as_soon_as_the_lift_moves():
    light, rng = Light(), np.random.default_rng(0)
    assert evidence(light) is None
    told = [0.0]
    for _ in range(200):
        before = light
        tried = lifts(light.lift, 8, 0.75, (0, len(told)))
        light = after_query(light, [(lift, 0.3 * lift + 0.3 * rng.standard_normal()) for lift in tried])
        told.append(evidence(replace(light, lift=before.lift)))
        if light.lift != 0:
            break
    assert all(value <= CAUTION for value in told[:-1]) and told[-1] > CAUTION and len(told) > 2
    assert evidence(light) < told[-1]  # what is left is for lifts beyond the new one


def test_what_was_learnt_in_another_light_is_forgotten():
    light = answered(Light(), 150, lambda lift: 0.3 * lift, noise=0.1)
    again = answered(light, 400, lambda lift: -0.3 * lift, noise=0.1, start=500)
    assert light.lift >= 0.8 and again.lift <= 0.2


def test_chance_alone_does_not_move_it():
    """Twenty runs in which VisFid has nothing to do with the light: nearly all stay."""
    ends = [answered(Light(), 100, lambda lift: 0.0, noise=0.3, start=1000 * k).lift for k in range(20)]
    assert sum(end == 0 for end in ends) >= 16


def test_light_goes_to_the_disk_and_back():
    light = answered(Light(), 20, lambda lift: lift, noise=0.1)
    back = light_of(json.loads(json.dumps(plain_light(light))))
    assert np.array_equal(back.products_KK, light.products_KK) and np.array_equal(back.gains_K, light.gains_K)
    assert (back.lift, back.square, back.num) == (light.lift, light.square, light.num) and 0 < back.lift <= MOST_LIFT


def test_a_lift_out_of_its_range_is_refused_where_it_is_written(tmp_path):
    Prompting(lift=1.0).save(tmp_path)
    assert Prompting.of(tmp_path).lift == 1.0
    path = tmp_path / "pixelis.json"
    path.write_text(path.read_text().replace('"lift": 1.0', '"lift": 1.5'))
    with pytest.raises(ConfigError, match=r"pixelis\.json: .*lift = 1\.5: give a share of the headroom, from 0 to 1"):
        Prompting.of(tmp_path)
