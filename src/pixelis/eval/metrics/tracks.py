"""Tracks against true tracks: HOTA and CLEAR-MOT, reckoned by TrackEval in memory.

The verifier of one TRK call needs one true track only, for which HOTA has a closed form: `data.world.verify.hota`. This module is for
many objects at once and for the numbers that are reported. TrackEval is a frozen scorer, never a tool. Letters: F frames.
Source: paper §4.1; Luiten et al., HOTA (2021); Bernardin and Stiefelhagen, CLEAR-MOT (2008).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pixelis.core.errors import NotInstalled
from pixelis.core.geometry import Box

Boxes = Mapping[Hashable, Box]
"""Object or track to where it is on one frame."""


@dataclass(frozen=True, kw_only=True)
class TrackScores:
    """Of all sequences together.

    Attributes:
        hota, detection, association, localisation: means over the thresholds 0.05, 0.10, ... 0.95 (HOTA, DetA, AssA, LocA), in [0, 1].
        mota: 1 - (missed + false + switches) / true boxes, at most 1, below 0 where there are more errors than boxes.
        motp: mean IoU of matched boxes; 0 where none was matched.
        num_switches, num_missed, num_false: what MOTA counts, at IoU 0.5.
        num_true, num_found: boxes.
        count: sequences with a true box or a found one.
        num_unscored: sequences with neither.
    """

    hota: float
    detection: float
    association: float
    localisation: float
    mota: float
    motp: float
    num_switches: int
    num_missed: int
    num_false: int
    num_true: int
    num_found: int
    count: int
    num_unscored: int


def track_scores(sequences: Sequence[tuple[Sequence[Boxes], Sequence[Boxes]]]) -> TrackScores:
    """HOTA and CLEAR-MOT of sequences, pooled as TrackEval pools them.

    Args:
        sequences: (true, found) pairs; each side has the boxes of every frame, and both the same number of frames.

    Returns:
        The scores; NaN where no sequence has a true box, never 0.

    Raises:
        NotInstalled: TrackEval is missing.
        ValueError: the two sides differ in their number of frames.
    """
    metrics = _metrics()
    rows = [_sequence(true_F, found_F) for true_F, found_F in sequences]
    scored = [row for row in rows if row["num_gt_dets"] or row["num_tracker_dets"]]
    num_true, num_found = (sum(row[key] for row in scored) for key in ("num_gt_dets", "num_tracker_dets"))
    counts = {"num_true": num_true, "num_found": num_found, "count": len(scored), "num_unscored": len(rows) - len(scored)}
    if not num_true:
        unknown = dict.fromkeys(("hota", "detection", "association", "localisation", "mota", "motp"), math.nan)
        return TrackScores(**unknown, num_switches=0, num_missed=0, num_false=num_found, **counts)
    hota, clear = (_pooled(metric, scored) for metric in metrics)
    return TrackScores(
        hota=float(np.mean(hota["HOTA"])),
        detection=float(np.mean(hota["DetA"])),
        association=float(np.mean(hota["AssA"])),
        localisation=float(np.mean(hota["LocA"])),
        mota=float(clear["MOTA"]),
        motp=float(clear["MOTP"]),
        num_switches=int(clear["IDSW"]),
        num_missed=int(clear["CLR_FN"]),
        num_false=int(clear["CLR_FP"]),
        **counts,
    )


def _metrics() -> tuple[Any, Any]:
    try:
        import trackeval
    except ImportError:
        raise NotInstalled("TrackEval, which reckons HOTA and CLEAR-MOT,", "pip install trackeval==1.3.0") from None
    return trackeval.metrics.HOTA(), trackeval.metrics.CLEAR({"PRINT_CONFIG": False})


def _pooled(metric: Any, rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return metric.combine_sequences({str(number): metric.eval_sequence(row) for number, row in enumerate(rows)})


def _sequence(true_F: Sequence[Boxes], found_F: Sequence[Boxes]) -> dict[str, Any]:
    """One sequence as TrackEval takes it: ids from 0, and the IoU of every pair on each frame."""
    pairs = list(zip(true_F, found_F, strict=True))
    true_ids, found_ids = _numbers(true_F), _numbers(found_F)
    return {
        "gt_ids": [np.array([true_ids[name] for name in true], int) for true, _ in pairs],
        "tracker_ids": [np.array([found_ids[name] for name in found], int) for _, found in pairs],
        "similarity_scores": [
            np.array([[a.iou(b) for b in found.values()] for a in true.values()], float).reshape(len(true), len(found))
            for true, found in pairs
        ],
        "num_gt_dets": sum(map(len, true_F)),
        "num_tracker_dets": sum(map(len, found_F)),
        "num_gt_ids": len(true_ids),
        "num_tracker_ids": len(found_ids),
        "num_timesteps": len(pairs),
    }


def _numbers(frames: Sequence[Boxes]) -> dict[Hashable, int]:
    """Names in the order in which they come."""
    names: dict[Hashable, int] = {}
    for boxes in frames:
        for name in boxes:
            names.setdefault(name, len(names))
    return names
