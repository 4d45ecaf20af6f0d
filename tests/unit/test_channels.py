"""Sums and maxima over channels are numpy's own, to the byte."""

from __future__ import annotations

import numpy as np
import pytest

from pixelis.tools.engines.channels import added, largest


@pytest.mark.parametrize("num", [2, 3])
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_added_is_the_sum(num: int, kind: type) -> None:
    values = (np.random.default_rng(num).standard_normal((37, 53, num)) * 1e3).astype(kind)
    assert added(values).dtype == kind
    assert np.array_equal(added(values), values.sum(-1))


def test_largest_is_the_maximum() -> None:
    values = np.random.default_rng(0).integers(0, 256, (37, 53, 3)).astype(np.uint8)
    assert largest(values).dtype == np.uint8
    assert np.array_equal(largest(values), values.max(-1))
