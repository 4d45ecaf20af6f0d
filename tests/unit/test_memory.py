"""The memory: what is added is found again, by this process and others, once; what is damaged is named."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from pixelis.core.errors import ConfigError, DataError
from pixelis.retrieval.entry import Entry, Item
from pixelis.retrieval.index import IndexSettings
from pixelis.retrieval.keys import KeySpec
from pixelis.retrieval.memory import open_memory, read_memory

SPEC = KeySpec(text_dim=6, pixel_dim=10)
TINY = IndexSettings(exact_below=300, code_bytes=4, rotations=1, iterations=3, num_lists=4, nprobe=4, rerank=64)


def item(number: int, **facts) -> Item:
    rng = np.random.default_rng(number)
    entry = Entry(**{"id": f"t{number}", "medium": f"{number:064x}", "trajectory": f"run/t{number}", "answer": str(number), **facts})
    return Item(entry, rng.standard_normal(6), rng.standard_normal(10))


def ask(memory, number: int, **options) -> list[str]:
    asked = item(number)
    return [found.entry.id for found in memory.neighbours(asked.text_D, asked.pixel_D, **options)]


def test_what_was_added_is_found_again_after_reopening(tmp_path):
    with open_memory(tmp_path / "m", SPEC) as memory:
        assert memory.add(item(0, value=1.5, facts={"steps": 3})).position == 0
        assert [done.position for done in memory.add_many([item(1), item(2)])] == [1, 2]
    memory = open_memory(tmp_path / "m")
    assert memory.spec == SPEC and len(memory) == 3 and memory.kind == "exact" and memory.notes == ()
    found = memory.neighbours(item(0).text_D, item(0).pixel_D)
    assert found[0].entry == item(0, value=1.5, facts={"steps": 3}).entry
    assert found[0].similarity == pytest.approx(1, abs=1e-3)
    assert len(found) == 3
    memory.verify()


def test_a_medium_can_be_passed_over(tmp_path):
    memory = open_memory(tmp_path / "m", SPEC)
    memory.add_many([item(n) for n in range(5)])
    assert ask(memory, 3, num=1) == ["t3"]
    assert "t3" not in ask(memory, 3, without_media={item(3).entry.medium})
    assert len(ask(memory, 3, num=2, without_media={item(3).entry.medium})) == 2


def test_adding_again_changes_nothing_and_other_content_is_refused(tmp_path):
    memory = open_memory(tmp_path / "m", SPEC)
    memory.add_many([item(0), item(1)])
    again = memory.add_many([item(1), item(2), item(2)])
    assert [(done.position, done.is_new) for done in again] == [(1, False), (2, True), (2, False)]
    assert len(memory) == 3
    with pytest.raises(DataError, match="t1 is there with other content"):
        memory.add_many([item(3), item(1, answer="other")])
    assert len(memory) == 3  # nor was item 3 added


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        (Item(item(1).entry, np.full(6, np.nan), np.ones(10)), "NaN"),
        (Item(item(1).entry, np.ones(7), np.ones(10)), r"\[N, 6\]"),
        (Item(item(1).entry, np.zeros(6), np.ones(10)), "no direction"),
        (Item(item(1).entry, np.ones(6), None), "no pixel part"),
        (item(1, facts={"x": {1, 2}}), "not JSON"),
        (item(1, facts={"x": float("nan")}), "not JSON"),
        (item(1, facts={"x": "y" * 70_000}), "at most 65536"),
        (item(1, id=""), "needs the trajectory's id"),
    ],
)
def test_a_bad_item_leaves_the_files_as_they_were(tmp_path, bad, words):
    memory = open_memory(tmp_path / "m", SPEC)
    memory.add(item(0))
    before = {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    with pytest.raises(DataError, match=words):
        memory.add_many([item(2), bad])
    assert {path.name: path.read_bytes() for path in (tmp_path / "m").iterdir()} == before
    assert memory.add(item(1)).is_new


def test_an_hour_of_video_is_remembered_with_a_hash_of_every_second(tmp_path):
    memory = open_memory(tmp_path / "m", SPEC)
    assert memory.add(item(0, frame_hashes=tuple(range(3600)))).is_new
    assert next(iter(memory.entries())).frame_hashes == tuple(range(3600))


def test_unknown_value_is_none_and_never_zero(tmp_path):
    memory = open_memory(tmp_path / "m", SPEC)
    memory.add_many([item(0, value=float("nan")), item(1, value=0.0), item(2)])
    assert [entry.value for entry in memory.entries()] == [None, 0.0, None]


def test_a_full_memory_says_so(tmp_path):
    memory = open_memory(tmp_path / "m", SPEC, max_items=2)
    memory.add(item(0))
    with pytest.raises(DataError, match="1 of at most 2 items; 2 more do not fit"):
        memory.add_many([item(1), item(2)])
    assert memory.add(item(1)).position == 1


def test_one_writer_any_number_of_readers(tmp_path):
    memory = open_memory(tmp_path / "m", SPEC)
    memory.add(item(0))
    with pytest.raises(DataError, match="another process adds"):
        open_memory(tmp_path / "m")
    reader = read_memory(tmp_path / "m")
    with pytest.raises(DataError, match="open for reading only"):
        reader.add(item(1))
    memory.add_many([item(1), item(2)])
    assert len(reader) == 1 and ask(reader, 2) == ["t0"]
    assert reader.refresh() == 2 and ask(reader, 2, num=1) == ["t2"]
    memory.close()
    with pytest.raises(DataError, match="closed"):
        memory.add(item(3))
    assert open_memory(tmp_path / "m").add(item(3)).position == 3


def test_a_memory_for_other_keys_or_none_at_all_is_named(tmp_path):
    with pytest.raises(DataError, match="is no memory"):
        read_memory(tmp_path / "none")
    with pytest.raises(DataError, match="holds no memory: say what its keys are"):
        open_memory(tmp_path / "none")
    open_memory(tmp_path / "m", SPEC).close()
    with pytest.raises(DataError, match="was made for keys"):
        open_memory(tmp_path / "m", KeySpec(text_dim=7, pixel_dim=10))
    (tmp_path / "m" / "memory.json").write_text("{}")
    with pytest.raises(DataError, match="does not describe a memory"):
        read_memory(tmp_path / "m")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot hold a memory"):
        open_memory(tmp_path / "file", SPEC)


@pytest.mark.parametrize(
    ("name", "words"), [("entries.jsonl", "entries.jsonl:2: the item has changed"), ("keys.f16", "key 1 is not the one")]
)
def test_damage_is_named(tmp_path, name, words):
    with open_memory(tmp_path / "m", SPEC) as memory:
        memory.add_many([item(n) for n in range(3)])
    path = tmp_path / "m" / name
    data = bytearray(path.read_bytes())
    at = data.index(b'"answer":"1"') + 10 if name == "entries.jsonl" else 16 * 2 + 5
    data[at] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=words):
        read_memory(tmp_path / "m")


def test_keys_that_are_missing_are_named(tmp_path):
    with open_memory(tmp_path / "m", SPEC) as memory:
        memory.add_many([item(n) for n in range(3)])
    os.truncate(tmp_path / "m" / "keys.f16", 2 * 16 * 2)
    with pytest.raises(DataError, match="ends after 2 of 3 keys"):
        read_memory(tmp_path / "m")


def test_rows_reach_the_disk_before_lines_and_lines_before_the_answer(tmp_path):
    """What a power cut leaves: of each file at least what was synced. A recording of file sizes at each sync stands for the disk."""
    folder = tmp_path / "m"
    synced = {"keys.f16": 0, "entries.jsonl": 0}

    def sync(file: int) -> None:
        name = os.path.basename(os.readlink(f"/proc/self/fd/{file}"))
        num_lines = (folder / "entries.jsonl").read_bytes().count(b"\n")
        assert synced["keys.f16"] >= num_lines * 32  # 16 halves a row: no line is even written before its row is on the disk
        synced[name] = (folder / name).stat().st_size

    memory = open_memory(folder, SPEC, sync=sync)
    for number in range(3):
        memory.add_many([item(2 * number), item(2 * number + 1)])
        assert synced["keys.f16"] == 32 * len(memory)
        assert (folder / "entries.jsonl").read_bytes()[: synced["entries.jsonl"]].count(b"\n") == len(memory)


def test_a_disk_that_fails_closes_the_memory_and_loses_nothing_acknowledged(tmp_path):
    def fail(file: int) -> None:
        if is_full:
            raise OSError(28, "No space left on device")

    is_full = False
    memory = open_memory(tmp_path / "m", SPEC, sync=fail)
    memory.add(item(0))
    is_full = True
    with pytest.raises(DataError, match="No space left on device"):
        memory.add(item(1))
    with pytest.raises(DataError, match="closed"):
        memory.add(item(1))
    again = open_memory(tmp_path / "m")
    assert ask(again, 0, num=1) == ["t0"]
    assert again.add(item(1)).position == 1


def test_threads_see_whole_prefixes_while_one_adds(tmp_path):
    memory = open_memory(tmp_path / "m", SPEC, sync=lambda file: None)
    problems, is_done = [], threading.Event()

    def watch() -> None:
        while not is_done.is_set():
            num = len(memory)
            found = memory.neighbours(item(0).text_D, item(0).pixel_D, num=10_000)
            if len(found) < num or any(one.entry.id != f"t{one.position}" for one in found):
                problems.append((num, len(found)))

    watchers = [threading.Thread(target=watch) for _ in range(2)]
    for watcher in watchers:
        watcher.start()
    for number in range(60):
        memory.add(item(number))
    is_done.set()
    for watcher in watchers:
        watcher.join()
    assert problems == []


# ---------------------------------------------------------------- with a trained index


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with 320 items, of which the saved index holds 310."""
    pytest.importorskip("faiss")
    folder = tmp_path_factory.mktemp("trained") / "m"
    with open_memory(folder, SPEC, settings=TINY, sync=lambda file: None) as memory:
        memory.add_many([item(n) for n in range(310)])
        memory.train_index()
        memory.add_many([item(n) for n in range(310, 320)])
    return folder


@pytest.fixture
def copied(trained, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for path in trained.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def test_an_index_that_is_behind_is_caught_up(copied):
    for opened in (read_memory(copied, settings=TINY), open_memory(copied, settings=TINY)):
        assert opened.kind == "ivfpq" and opened.notes == ("the index was 10 items behind and was caught up",)
        opened.verify()
        assert ask(opened, 315, num=1) == ["t315"] and ask(opened, 5, num=1) == ["t5"]
    opened.add(item(400))
    assert ask(opened, 400, num=1) == ["t400"]
    opened.checkpoint()
    opened.close()
    assert len(list(copied.glob("index-*.faiss"))) == 1
    assert read_memory(copied, settings=TINY).notes == ()


def test_a_reader_takes_new_items_into_its_index(copied):
    reader = read_memory(copied, settings=TINY)
    with open_memory(copied, settings=TINY) as writer:
        writer.add(item(400))
    assert reader.refresh() == 1
    assert ask(reader, 400, num=1) == ["t400"]
    reader.verify()


def test_an_index_of_other_keys_is_filled_afresh(copied):
    lines = (copied / "entries.jsonl").read_bytes().splitlines(keepends=True)
    (copied / "entries.jsonl").write_bytes(b"".join(lines[:305]))  # an older copy was restored
    memory = open_memory(copied, settings=TINY)
    assert any("310 keys that are not those of the memory: all 305" in note for note in memory.notes)
    memory.verify()
    assert ask(memory, 304, num=1) == ["t304"] and "t309" not in ask(memory, 309)


@pytest.mark.parametrize("harm", ["cut", "flip", "gone", "pointer", "kind"])
def test_an_index_that_cannot_be_used_leaves_the_exact_scan(copied, harm):
    (path,) = copied.glob("index-*.faiss")
    data = path.read_bytes()
    settings = TINY
    if harm == "cut":
        path.write_bytes(data[:-1])
    elif harm == "flip":
        path.write_bytes(data[:100] + bytes([data[100] ^ 1]) + data[101:])
    elif harm == "gone":
        path.unlink()
    elif harm == "pointer":
        (copied / "index.json").write_text("{")
    else:
        settings = IndexSettings(**{**TINY.__dict__, "kind": "hnsw"})
    memory = open_memory(copied, settings=settings)
    assert memory.kind == "exact" and "the exact scan is used" in memory.notes[0]
    assert ask(memory, 315, num=1) == ["t315"]


def test_a_checkpoint_that_died_half_way_changes_nothing(copied):
    (copied / ".index-000000000320.faiss.99.part").write_bytes(b"half")
    (copied / "index-000000000320-aaaaaaaaaaaa.faiss").write_bytes(b"whole, but not yet named")
    memory = open_memory(copied, settings=TINY)
    assert memory.kind == "ivfpq" and not list(copied.glob(".*.part"))
    memory.verify()
    memory.checkpoint()
    assert [path.name for path in copied.glob("index-*.faiss")] == [json.loads((copied / "index.json").read_text())["file"]]


def test_an_index_is_trained_once_and_not_on_too_few(copied, tmp_path):
    memory = open_memory(copied, settings=TINY)
    with pytest.raises(DataError, match="has a trained index, which only grows"):
        memory.train_index()
    few = open_memory(tmp_path / "few", SPEC, settings=TINY)
    few.add(item(0))
    with pytest.raises(DataError, match="holds 1 items: an index needs 300"):
        few.train_index()
    with pytest.raises(DataError, match="open for reading only"):
        read_memory(copied, settings=TINY).train_index(again=True)


def test_an_audit_that_fails_stops_the_build(tmp_path):
    pytest.importorskip("faiss")
    memory = open_memory(tmp_path / "m", SPEC, settings=TINY, sync=lambda file: None)
    memory.add_many([item(n) for n in range(300)])

    def fail(built) -> None:
        assert built.kind == "ivfpq" and ask(built, 7, num=1) == ["t7"]
        raise DataError("a hit")

    with pytest.raises(DataError, match="a hit"):
        memory.train_index(audit=fail)
    assert memory.kind == "exact" and not list((tmp_path / "m").glob("*index*"))


def test_text_only_hnsw(tmp_path):
    pytest.importorskip("faiss")
    settings = IndexSettings(**{**TINY.__dict__, "kind": "hnsw"})
    memory = open_memory(tmp_path / "m", KeySpec(6, 10, omega=0), settings=settings, sync=lambda file: None)
    memory.add_many([item(n) for n in range(320)])
    memory.train_index()
    found = memory.neighbours(item(9).text_D, None, num=1)
    assert memory.kind == "hnsw" and found[0].entry.id == "t9"
    with pytest.raises(ConfigError, match="stores no pixel part"):
        memory.neighbours(item(9).text_D, item(9).pixel_D, omega=0.5)


def test_a_reader_in_another_process_follows_a_writer(tmp_path):
    code = """
import sys
from pixelis.retrieval.memory import read_memory
memory = read_memory(sys.argv[1])
print(len(memory), flush=True)
for _ in sys.stdin:
    memory.refresh()
    memory.verify()
    print(len(memory), flush=True)
"""
    with open_memory(tmp_path / "m", SPEC) as memory:
        memory.add(item(0))
        child = subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path / "m")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert child.stdout.readline() == "1\n"
        for number in (1, 2):
            memory.add(item(number))
            child.stdin.write("\n")
            child.stdin.flush()
            assert child.stdout.readline() == f"{number + 1}\n"
        child.stdin.close()
        assert child.wait() == 0
