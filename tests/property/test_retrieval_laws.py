"""Laws of keys, search and the files of a memory."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from pixelis.core.errors import DataError
from pixelis.retrieval.entry import Entry, Item, entry_line, entry_of
from pixelis.retrieval.files import Names, line_ends, unseal
from pixelis.retrieval.index import Scan, best_of
from pixelis.retrieval.keys import KeySpec, make_keys
from pixelis.retrieval.memory import open_memory, read_memory

parts = hnp.arrays(np.float64, (2, 4), elements=st.floats(-1e3, 1e3)).filter(lambda rows: (np.abs(rows).max(1) > 1e-3).all())
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
entries = st.builds(
    Entry,
    id=st.text(min_size=1, max_size=12),
    medium=st.text("0123456789abcdef", min_size=64, max_size=64),
    trajectory=st.text(max_size=12),
    answer=st.none() | st.text(max_size=12),
    value=st.none() | st.floats(allow_nan=False, allow_infinity=False),
    facts=st.dictionaries(st.text(max_size=4), plain, max_size=3),
    frame_hashes=st.none() | st.lists(st.integers(0, 2**64 - 1), max_size=3).map(tuple),
)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


@given(st.sampled_from([0.0, 1.0]) | st.floats(0.01, 0.99), st.floats(0, 1), parts, parts)
@settings(deadline=None)
def test_the_inner_product_is_the_hybrid_similarity_at_any_weight(omega, asked, text_2D, pixel_2D):
    spec = KeySpec(4, 4, omega)
    asked = omega if omega in (0, 1) else asked
    stored = make_keys(spec, text_2D[:1], pixel_2D[:1])[0].astype(float)
    query = make_keys(spec, text_2D[1:], pixel_2D[1:], omega=asked)[0].astype(float)
    expected = asked * cosine(pixel_2D[0], pixel_2D[1]) + (1 - asked) * cosine(text_2D[0], text_2D[1])
    assert query @ stored == pytest.approx(expected, abs=1e-6)
    assert np.linalg.norm(stored) == pytest.approx(1, abs=1e-6)


@given(parts, parts, st.floats(1e-2, 1e2))
@settings(deadline=None)
def test_the_length_of_a_part_does_not_count(text_2D, pixel_2D, factor):
    spec = KeySpec(4, 4)
    assert make_keys(spec, text_2D * factor, pixel_2D) == pytest.approx(make_keys(spec, text_2D, pixel_2D), abs=1e-6)


rows = hnp.arrays(np.float16, st.tuples(st.integers(1, 300), st.just(3)), elements=st.sampled_from([-0.5, 0.0, 0.25, 0.5]))


@given(rows, st.integers(1, 12), st.integers(0, 600))
@settings(max_examples=50, deadline=None)
def test_the_scan_is_a_sort_whatever_blocks_it_keeps(rows_NK, num, kept):
    """Coarse values make many ties: the earlier position wins."""
    query_K = np.array([0.5, 0.25, -0.5], np.float32)
    found, _ = best_of(rows_NK, query_K, Scan(kept).candidates(rows_NK, query_K[None], num)[0], num)
    similarity_N = rows_NK.astype(float) @ query_K
    assert found.tolist() == sorted(range(len(rows_NK)), key=lambda n: (-similarity_N[n], n))[:num]


@given(entries)
@settings(deadline=None)
def test_an_entry_survives_its_line(entry):
    line = entry_line(entry, "k" * 32)
    assert line.count(b"\n") == 1 and line.endswith(b"\n")
    assert entry_of(unseal(line, where="here")) == entry


@given(entries, st.data())
@settings(deadline=None)
def test_a_line_with_any_byte_changed_is_refused(entry, data):
    line = bytearray(entry_line(entry, "k" * 32))
    line[data.draw(st.integers(0, len(line) - 1))] ^= data.draw(st.integers(1, 255))
    with pytest.raises(DataError):
        unseal(bytes(line), where="here")


@given(st.lists(st.text(max_size=3), max_size=40))
@settings(deadline=None)
def test_names_are_found_where_they_stand(names):
    found = Names()
    for position, name in enumerate(names):
        found.add(name, position)
        if position % 7 == 0:
            found._merge()
    for name in names:
        assert found.candidates(name) == [position for position, other in enumerate(names) if other == name]


@given(st.binary(max_size=60).map(lambda data: data.replace(b"\x00", b"\n")), st.integers(0, 60))
@settings(deadline=None)
def test_line_ends_found_in_two_goes_are_those_found_in_one(data, cut):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lines"
        path.write_bytes(data[:cut])
        first = line_ends(path)
        path.write_bytes(data)
        assert list(line_ends(path, first)) == [at + 1 for at, byte in enumerate(data) if byte == 10]


@given(st.lists(st.lists(st.integers(0, 8), min_size=1, max_size=4), max_size=4))
@settings(max_examples=25, deadline=None)
def test_a_memory_is_the_list_of_first_additions(batches):
    """Whatever is added in whatever batches, also repeated: each id once, where it first came."""
    spec = KeySpec(2, 3)
    with tempfile.TemporaryDirectory() as folder, open_memory(folder, spec, sync=lambda file: None) as memory:
        order: list[int] = []
        for batch in batches:
            items = [Item(Entry(id=str(n), medium="m", trajectory="r"), np.array([n + 1.0, 1]), np.array([1.0, n, 2])) for n in batch]
            done = memory.add_many(items)
            order += [n for at, n in enumerate(batch) if n not in order and n not in batch[:at]]
            assert [one.position for one in done] == [order.index(n) for n in batch]
        for opened in (memory, read_memory(folder)):
            assert [entry.id for entry in opened.entries()] == [str(n) for n in order]
            opened.verify()
