"""Keys and search: similarities worked out by hand, the scan against a plain comparison of everything, and what is refused."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from pixelis.core.errors import ConfigError, DataError
from pixelis.retrieval.files import map_rows, widened
from pixelis.retrieval.index import IndexSettings, Scan, best_of, train
from pixelis.retrieval.keys import KeySpec, make_keys, pool_pixels, pool_text

SMALL = KeySpec(text_dim=2, pixel_dim=2)


def one(spec: KeySpec, text, pixel, **options) -> np.ndarray:
    as_row = lambda part: None if part is None else np.array([part], float)  # noqa: E731
    return make_keys(spec, as_row(text), as_row(pixel), **options)[0]


# ---------------------------------------------------------------- keys


@pytest.mark.parametrize(
    ("omega", "expected"),
    [
        (0.5, 0.5 * 0.6 + 0.5 * 0.8),  # cos_pixel = 0.6, cos_text = 0.8
        (0.25, 0.25 * 0.6 + 0.75 * 0.8),
        (0.0, 0.8),
        (1.0, 0.6),
    ],
)
def test_the_inner_product_is_the_weighted_sum_of_the_cosines(omega, expected):
    spec = KeySpec(text_dim=2, pixel_dim=2, omega=omega)
    a = one(spec, [3, 0], [0, 2])  # lengths do not count
    b = one(spec, [0.8, 0.6], [4, 3])
    assert a @ b == pytest.approx(expected, abs=1e-6)
    assert a @ a == pytest.approx(1, abs=1e-6)


def test_a_question_may_weigh_otherwise_than_the_stored_keys():
    stored = one(SMALL, [3, 0], [0, 2])
    assert one(SMALL, [0.8, 0.6], [4, 3], omega=0.25) @ stored == pytest.approx(0.25 * 0.6 + 0.75 * 0.8, abs=1e-6)
    assert one(SMALL, [0.8, 0.6], None, omega=0.0) @ stored == pytest.approx(0.8, abs=1e-6)
    assert one(SMALL, None, [4, 3], omega=1.0) @ stored == pytest.approx(0.6, abs=1e-6)


def test_a_part_without_weight_is_not_stored():
    assert one(KeySpec(3, 5, omega=0), [1, 0, 0], None).shape == (3,)
    assert one(KeySpec(3, 5, omega=1), None, [1, 0, 0, 0, 0]).shape == (5,)
    with pytest.raises(ConfigError, match="stores no pixel part"):
        one(KeySpec(3, 5, omega=0), [1, 0, 0], [1, 0, 0, 0, 0], omega=0.5)


@pytest.mark.parametrize(
    ("text", "pixel", "words"),
    [
        ([np.nan, 1], [1, 0], "1 of 1 text parts hold NaN"),
        ([1, 0], [np.inf, 0], "1 of 1 pixel parts hold NaN or infinity"),
        ([0, 0], [1, 0], "1 of 1 text parts are all zero"),
        ([1, 0, 0], [1, 0], r"text part has shape \(1, 3\); this memory takes \[N, 2\]"),
        ([1, 0], None, "no pixel part"),
    ],
)
def test_a_part_without_a_direction_is_refused(text, pixel, words):
    with pytest.raises(DataError, match=words):
        one(SMALL, text, pixel)


def test_lengths_that_squaring_would_lose_still_have_a_direction():
    assert one(SMALL, [1e-200, 0], [1e200, 0]) @ one(SMALL, [1, 0], [1, 0]) == pytest.approx(1)


def test_parts_of_different_numbers_are_refused():
    with pytest.raises(DataError, match="2 pixel parts and 1 text parts"):
        make_keys(SMALL, np.ones((1, 2)), np.ones((2, 2)))


@pytest.mark.parametrize("options", [{"omega": -0.1}, {"omega": 1.5}, {"omega": 0.001}, {"omega": float("nan")}, {"text_dim": 0}])
def test_a_spec_out_of_range_is_refused(options):
    with pytest.raises(ConfigError):
        KeySpec(**options)


def test_text_is_pooled_over_the_prompt_and_the_last_32_thought_tokens():
    thoughts = np.arange(40, dtype=float)[:, None]  # the last 32 are 8 to 39, their sum 752
    assert pool_text(np.array([[10.0], [20.0]]), thoughts)[0] == pytest.approx((10 + 20 + 752) / 34)
    with pytest.raises(DataError, match="at least one token"):
        pool_text(np.zeros((0, 2)), np.zeros((0, 2)))


def test_pixels_are_pooled_within_each_footprint_then_over_them():
    features = np.array([[[0.0], [4.0]]])  # two cells, 0 and 4
    # all of cell 2 and half of cell 1: (0 * .5 + 4 * 1) / 1.5 = 8/3; cell 1 alone: 0; the third covers nothing
    pooled = pool_pixels([features] * 3, [np.array([[0.5, 1.0]]), np.array([[1.0, 0.0]]), np.zeros((1, 2))])
    assert pooled[0] == pytest.approx((8 / 3 + 0) / 2)
    with pytest.raises(DataError, match="none of 1 footprints"):
        pool_pixels([features], [np.zeros((1, 2))])


# ---------------------------------------------------------------- search


def clustered(num: int, dim: int, seed: int = 0, *, spread: float = 0.35) -> np.ndarray:
    """Unit rows around a few centres, as float16."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((max(2, num // 50), dim))
    rows = centres[rng.integers(0, len(centres), num)] + spread * rng.standard_normal((num, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float16)


def test_widening_is_exact_for_every_finite_number():
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    every = every[np.isfinite(every)]
    assert (widened(every) == every.astype(np.float32)).all()


def test_the_scan_finds_what_comparing_everything_finds():
    rows = clustered(1500, 24)
    scan = Scan(600)  # some blocks kept, some not, the last not full
    for _ in range(2):  # before and after blocks are kept
        for query in clustered(30, 24, seed=1).astype(np.float32):
            similarity = rows.astype(np.float64) @ query.astype(np.float64)
            expected = np.lexsort((np.arange(len(rows)), -similarity))[:8]
            found, values = best_of(rows, query, scan.candidates(rows, query[None], 8)[0], 8)
            assert found.tolist() == expected.tolist()
            assert values == pytest.approx(similarity[expected], abs=1e-12)


def test_of_equal_keys_the_earlier_comes_first():
    rows = np.repeat(clustered(3, 8), 200, axis=0)
    found, _ = best_of(rows, rows[250].astype(np.float32), Scan(10**6).candidates(rows, rows[250:251].astype(np.float32), 5)[0], 5)
    assert found.tolist() == [200, 201, 202, 203, 204]


def test_a_scan_of_fewer_keys_than_asked_for_gives_all():
    rows = clustered(3, 8)
    assert Scan(0).candidates(rows, rows[:1].astype(np.float32), 8)[0].tolist() == [0, 1, 2]
    assert len(Scan(0).candidates(rows[:0], rows[:1].astype(np.float32), 8)[0]) == 0


@pytest.mark.parametrize(("num", "expected"), [(20_000, 512), (1_250_000, 4096), (300, 4)])
def test_the_number_of_lists_grows_with_the_root_of_the_keys(num, expected):
    # 4 sqrt(20,000) = 566, nearest power of two 512 = 39 keys each; 4 sqrt(1.25 M) = 4,472 -> 4,096; 300 / 39 = 7.7 -> 4
    assert IndexSettings().lists_for(num) == expected


TINY = IndexSettings(exact_below=300, code_bytes=4, rotations=2, iterations=4, num_lists=8, nprobe=4, rerank=64)


@pytest.mark.parametrize("kind", ["ivfpq", "hnsw"])
def test_candidates_and_exact_comparison_find_nearly_all_neighbours(kind):
    pytest.importorskip("faiss")
    rows, queries = clustered(1200, 16), clustered(40, 16, seed=2).astype(np.float32)
    queries = rows[::30].astype(np.float32) + 0.05 * queries
    index = train(rows, IndexSettings(**{**TINY.__dict__, "kind": kind}))
    assert len(index) == 0
    index.add(rows[:500])
    index.add(rows[500:])
    assert len(index) == 1200
    num_found = 0
    for query in queries:
        best = best_of(rows, query, index.candidates(query[None], 64)[0], 8)[0]
        num_found += len(set(best) & set(np.argsort(-(rows.astype(np.float64) @ query))[:8]))
    assert num_found / (8 * len(queries)) > 0.95


def test_the_same_seed_trains_the_same_index(tmp_path):
    pytest.importorskip("faiss")
    rows = clustered(600, 16)
    for name in ("a", "b"):
        index = train(rows, TINY)
        index.add(rows)
        index.save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_keys_too_few_or_too_narrow_to_train_on_are_named():
    pytest.importorskip("faiss")
    with pytest.raises(ConfigError, match="200 keys of width 16 cannot train 8 lists"):
        train(clustered(200, 16), TINY)
    with pytest.raises(ConfigError, match="600 keys of width 3"):
        train(clustered(600, 3), TINY)


@pytest.mark.parametrize("options", [{"kind": "flat"}, {"nprobe": 0}, {"rerank": 0}])
def test_index_settings_out_of_range_are_refused(options):
    with pytest.raises(ConfigError):
        IndexSettings(**options)


def test_a_file_of_rows_that_was_cut_is_named(tmp_path):
    (tmp_path / "keys").write_bytes(bytes(2 * 4 * 3 + 1))
    assert map_rows(tmp_path / "keys", 3, 4).shape == (3, 4)
    with pytest.raises(DataError, match="ends after 3 of 4 keys"):
        map_rows(tmp_path / "keys", 4, 4)


def test_small_memories_need_no_faiss_and_large_ones_say_how_to_get_it():
    code = """
import sys
sys.modules["faiss"] = None  # as if it were not installed
import numpy as np
from pixelis.core.errors import NotInstalled
from pixelis.retrieval.index import IndexSettings, Scan, train
rows = np.eye(4, dtype=np.float16)
print(Scan(9).candidates(rows, rows[:1].astype(np.float32), 4)[0].tolist())
try:
    train(rows, IndexSettings())
except NotInstalled as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "[0, 1, 2, 3]" in done.stdout
    assert "pip install 'pixelis[retrieval]'" in done.stdout
