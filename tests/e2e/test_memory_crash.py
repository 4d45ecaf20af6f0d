"""A crash at every byte that a memory writes, and real kills: nothing acknowledged is lost, nothing is half visible."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pixelis.retrieval.entry import Entry, Item
from pixelis.retrieval.keys import KeySpec
from pixelis.retrieval.memory import open_memory, read_memory
from pixelis.retrieval.store import ENTRIES_FILE, KEYS_FILE

SPEC = KeySpec(text_dim=3, pixel_dim=5)
ROW_BYTES = 16
BATCHES = ((0,), (1, 2), (3,))
NUM = 4
REPOSITORY = Path(__file__).parents[2]


def item(number: int) -> Item:
    rng = np.random.default_rng(number)
    entry = Entry(id=f"t{number}", medium=f"{number:064x}", trajectory="run", answer="x" * number, value=float(number))
    return Item(entry, rng.standard_normal(3), rng.standard_normal(5))


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("written") / "m"
    with open_memory(folder, SPEC) as memory:
        for batch in BATCHES:
            memory.add_many([item(number) for number in batch])
    return folder


def crash_points(keys: bytes, lines: bytes) -> list[tuple[int, int, int]]:
    """After every byte in the order of writing: bytes of keys, bytes of lines, items that were acknowledged by then."""
    ends = [0, *(match.end() for match in re.finditer(b"\n", lines))]
    points, num = [], 0
    for batch in BATCHES:
        after = num + len(batch)
        points += [(size, ends[num], num) for size in range(num * ROW_BYTES, after * ROW_BYTES)]
        points += [(after * ROW_BYTES, size, num) for size in range(ends[num], ends[after])]
        num = after
    assert num * ROW_BYTES == len(keys) and ends[num] == len(lines)
    return [*points, (len(keys), len(lines), num)]


def test_a_crash_at_every_byte(written, tmp_path):
    keys, lines = (written / KEYS_FILE).read_bytes(), (written / ENTRIES_FILE).read_bytes()
    points = crash_points(keys, lines)
    assert len(points) > 1000
    expected = [item(number).entry for number in range(NUM)]
    folder = tmp_path / "m"
    folder.mkdir()
    (folder / "memory.json").write_bytes((written / "memory.json").read_bytes())
    for num_key_bytes, num_line_bytes, num_acknowledged in points:
        (folder / KEYS_FILE).write_bytes(keys[:num_key_bytes])
        (folder / ENTRIES_FILE).write_bytes(lines[:num_line_bytes])
        num_whole = lines[:num_line_bytes].count(b"\n")
        assert num_whole >= num_acknowledged
        reader = read_memory(folder)
        assert list(reader.entries()) == expected[:num_whole]
        with open_memory(folder, sync=lambda file: None) as memory:
            assert list(memory.entries()) == expected[:num_whole] and len(memory.rows()) == num_whole
            is_torn = num_key_bytes > num_whole * ROW_BYTES or not lines[:num_line_bytes].endswith(b"\n" if num_line_bytes else b"")
            assert bool(memory.notes) == is_torn
            if num_whole < NUM:  # and life goes on: the call that died is made again
                memory.add_many([item(number) for number in range(NUM)])
        assert (folder / KEYS_FILE).read_bytes() == keys
        assert (folder / ENTRIES_FILE).read_bytes() == lines


def test_zeros_behind_the_last_line_are_cut(written, tmp_path):
    """Some file systems make a file longer before its content is there."""
    folder = tmp_path / "m"
    folder.mkdir()
    for path in written.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for name in (KEYS_FILE, ENTRIES_FILE):
        os.truncate(folder / name, (folder / name).stat().st_size + 4096)
    assert len(read_memory(folder)) == NUM
    with open_memory(folder) as memory:
        assert len(memory) == NUM and len(memory.notes) == 2
        memory.verify()
        assert memory.add(item(NUM)).position == NUM
    assert len(read_memory(folder)) == NUM + 1


@pytest.mark.parametrize("kills", [16])
def test_real_kills(tmp_path, kills):
    """`benchmarks/parts/memory_crash.py --kills 1000` makes more of them."""
    pytest.importorskip("faiss")
    command = [sys.executable, "benchmarks/parts/memory_crash.py", "--kills", str(kills), "--folder", str(tmp_path / "crash")]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count(f"kills={kills // 2}") == 2
    assert "nothing lost, nothing half visible, index and store agree" in done.stdout
    assert all(int(number) > 0 for number in re.findall(r"acknowledged=(\d+)", done.stdout))
