"""The same numbers as published implementations of the same algorithms, on the same data."""

from __future__ import annotations

import numpy as np
import pytest

from pixelis.ttrl.abstain import conformal_quantile
from pixelis.ttrl.reliability import Cast, Smoothing, full, one_coin
from pixelis.ttrl.similarity import soft_dtw

NONE = Smoothing(right=0.0, wrong=0.0)


def crowd(seed: int, *, num_tasks: int = 60, labels: str = "ABC") -> list[Cast]:
    """Three good workers, one that guesses and one that likes A, on tasks that share their labels."""
    rng = np.random.default_rng(seed)
    votes = []
    for task in range(num_tasks):
        truth = rng.integers(len(labels))
        for worker, skill in (("u", 0.9), ("v", 0.8), ("w", 0.7), ("guesses", 1 / 3), ("likes A", 0.5)):
            wrong = 0 if worker == "likes A" else rng.integers(len(labels))
            if rng.random() < 0.9:  # nobody does everything
                votes.append(Cast(task=str(task), worker=worker, label=labels[truth if rng.random() < skill else wrong]))
    return votes


@pytest.mark.parametrize(("name", "iterations"), [("one_coin", 1), ("one_coin", 12), ("full", 1), ("full", 12)])
def test_dawid_skene_as_in_crowd_kit(name, iterations):
    peers = pytest.importorskip("crowdkit.aggregation", reason="crowd-kit is not installed: pip install crowd-kit")
    pandas = pytest.importorskip("pandas")
    votes = crowd(iterations)
    table = pandas.DataFrame({"task": [v.task for v in votes], "worker": [v.worker for v in votes], "label": [v.label for v in votes]})
    # A tolerance below 0 never stops it; ours neither.
    kind = peers.OneCoinDawidSkene if name == "one_coin" else peers.DawidSkene
    peer = kind(n_iter=iterations, tol=-1e9).fit(table)
    more = {"smoothing": NONE, "max_iterations": iterations, "least_gain": -1.0}
    ours = one_coin(votes, shares_labels=True, **more) if name == "one_coin" else full(votes, **more)
    for task, shares in ours.posterior.items():
        assert shares == pytest.approx({label: peer.probas_.loc[task, label] for label in shares}, abs=1e-7)
    if name == "one_coin":
        assert ours.of_worker == pytest.approx(dict(peer.skills_), abs=1e-7)
    else:
        right = {
            w: sum(peer.priors_[k] * peer.errors_.loc[(w, k), k] for k in "ABC" if (w, k) in peer.errors_.index) for w in ours.of_worker
        }
        assert ours.of_worker == pytest.approx(right, abs=1e-7)


@pytest.mark.parametrize(("num", "alpha"), [(5, 0.1), (9, 0.1), (50, 0.1), (101, 0.05), (200, 0.25)])
def test_conformal_sets_as_in_crepes(num, alpha):
    crepes = pytest.importorskip("crepes", reason="crepes is not installed: pip install crepes")
    rng = np.random.default_rng(num)
    calibration = np.round(rng.random(num), 2)  # with ties
    new_NK = np.round(rng.random((300, 4)), 2)
    p_NK = crepes.ConformalClassifier().fit(calibration).predict_p(new_NK, smoothing=False)
    # A p-value of exactly alpha is rare, and outside by our rank: coverage 1 - alpha is reached without it.
    ours_NK = new_NK <= conformal_quantile(calibration, alpha)
    assert np.array_equal(ours_NK, p_NK > alpha + 1e-9)


@pytest.mark.parametrize("shape", [(1, 3), (4, 4), (6, 3)])
def test_soft_dtw_as_in_tslearn(shape):
    # Loading it can take a while: it brings numba and every array library that it finds.
    metrics = pytest.importorskip("tslearn.metrics", reason="tslearn is not installed: pip install tslearn")
    rng = np.random.default_rng(0)
    one, two = (rng.random((length, 2)) for length in shape)
    cost = ((one[:, None] - two[None]) ** 2).sum(-1)
    value, alignment = soft_dtw(cost, 0.2)
    peer_alignment, peer_value = metrics.soft_dtw_alignment(one, two, gamma=0.2)
    assert value == pytest.approx(float(peer_value)) and alignment == pytest.approx(np.asarray(peer_alignment))
    assert value == pytest.approx(float(metrics.soft_dtw(one, two, gamma=0.2)))
