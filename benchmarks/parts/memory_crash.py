"""Real kills of a process that adds to a memory: nothing acknowledged is lost, nothing is half visible, index and store agree.

A child adds items in batches of one to three, some of them again, saves its index now and then, and says what was acknowledged; the
parent sends SIGKILL at a random moment (also while the child opens the memory), reads what is there, and compares it with what must
be. Every 25 kills a new memory begins.

    python benchmarks/parts/memory_crash.py --kills 1000 --folder FOLDER
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")  # a forked child has no threads of its parent's

import argparse
import random
import shutil
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pixelis.retrieval.entry import Entry, Item
from pixelis.retrieval.index import IndexSettings
from pixelis.retrieval.keys import KeySpec, make_keys
from pixelis.retrieval.memory import Memory, open_memory, read_memory

SPEC = KeySpec(text_dim=24, pixel_dim=32)
TINY = IndexSettings(exact_below=300, code_bytes=4, rotations=1, iterations=2, num_lists=4, nprobe=4, rerank=128)
KILLS_PER_MEMORY = 25


@dataclass
class Tally:
    kills: int = 0
    kills_while_opening: int = 0
    acknowledged: int = 0
    unacknowledged_kept: int = 0
    """Items that were whole on the disk though their call had not returned."""
    torn: int = 0
    """Kills that left a torn tail to cut."""
    behind: int = 0
    """Kills that left a saved index to catch up."""


def item(number: int) -> Item:
    """The same for the same number; lines differ in length."""
    rng = np.random.default_rng(number)
    entry = Entry(id=f"t{number}", medium=f"{number:064x}", trajectory=f"run/t{number}", answer="x" * (number * 37 % 300), value=number / 7)
    return Item(entry, rng.standard_normal(24), rng.standard_normal(32))


def child(folder: Path, pipe: int, seed: int) -> None:
    """Add until killed; each acknowledged count of items goes to the pipe."""
    rng = random.Random(seed)
    memory = open_memory(folder, SPEC, settings=TINY)
    while True:
        first = max(0, len(memory) - rng.randrange(2))  # now and then an item that is there already
        memory.add_many([item(number) for number in range(first, len(memory) + rng.randint(1, 3))])
        os.write(pipe, f"{len(memory)}\n".encode())
        if memory.kind != "exact" and rng.random() < 0.2:
            memory.checkpoint()


def kill_once(folder: Path, rng: random.Random, tally: Tally) -> int:
    """Start a child, kill it; the number of items that it acknowledged."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.close(reading)
            child(folder, writing, rng.randrange(2**32))
        finally:
            os._exit(1)  # only an error comes here
    os.close(writing)
    with open(reading, "rb") as acknowledged:
        said = b""
        if rng.random() < 0.8:
            said = acknowledged.readline()
            time.sleep(rng.random() * 0.03)
        else:
            tally.kills_while_opening += 1
            time.sleep(rng.random() * 0.01)
        os.kill(pid, signal.SIGKILL)
        said += acknowledged.read()
    status = os.waitpid(pid, 0)[1]
    if not os.WIFSIGNALED(status):
        raise SystemExit(f"the child ended by itself with {status}: see above")
    tally.kills += 1
    whole = said[: said.rfind(b"\n") + 1].split()
    return int(whole[-1]) if whole else 0


def check(folder: Path, acknowledged: int, tally: Tally) -> int:
    """Compare what is there with what must be; the number of items.

    Raises:
        AssertionError: an acknowledged item is missing, an item is not what was added, or index and store differ.
    """
    if not (folder / "memory.json").exists():
        assert acknowledged == 0
        return 0
    with read_memory(folder, settings=TINY) as memory:
        assert len(memory) >= acknowledged, f"{acknowledged} items were acknowledged, {len(memory)} are there"
        check_content(memory)
        num = len(memory)
    with open_memory(folder, settings=TINY) as memory:
        assert len(memory) == num
        tally.torn += any("never acknowledged" in note for note in memory.notes)
        tally.behind += any("caught up" in note for note in memory.notes)
        assert not any("exact scan" in note or "afresh" in note for note in memory.notes), memory.notes
        check_content(memory)
    return num


def check_content(memory: Memory) -> None:
    """Every item is the one that was added, whole, and the search finds it."""
    memory.verify()
    for number, entry in enumerate(memory.entries()):
        assert entry == item(number).entry, f"item {number} is {entry}"
    if len(memory):
        last = item(len(memory) - 1)
        row = make_keys(memory.spec, last.text_D[None], last.pixel_D[None]).astype(np.float16)
        assert (memory.rows()[-1:] == row).all()
        assert memory.neighbours(last.text_D, last.pixel_D, num=1)[0].position == len(memory) - 1


def kill_many(folder: Path, kills: int, *, seed: int, is_trained: bool) -> Tally:
    rng, tally = random.Random(seed), Tally()
    while tally.kills < kills:
        shutil.rmtree(folder, ignore_errors=True)
        num = 0
        if is_trained:
            with open_memory(folder, SPEC, settings=TINY, sync=lambda file: None) as memory:
                memory.add_many([item(number) for number in range(300)])
                memory.train_index()
                num = 300
        for _ in range(min(KILLS_PER_MEMORY, kills - tally.kills)):
            acknowledged = max(num, kill_once(folder, rng, tally))
            tally.acknowledged += acknowledged - num
            num = check(folder, acknowledged, tally)
            tally.unacknowledged_kept += num - acknowledged
    return tally


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=1000, help="half of them with a trained index")
    parser.add_argument("--folder", type=Path, required=True, help="made, and removed at the end")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--exact-only", action="store_true", help="no trained index: needs no faiss")
    args = parser.parse_args()
    if args.folder.exists() and any(args.folder.iterdir()):
        sys.exit(f"{args.folder} is not empty: give a new folder")
    for is_trained in (False,) if args.exact_only else (False, True):
        started = time.perf_counter()
        kills = args.kills if args.exact_only else (args.kills + 1 - is_trained) // 2
        tally = kill_many(args.folder / "memory", kills, seed=args.seed + is_trained, is_trained=is_trained)
        name = "trained index" if is_trained else "exact scan"
        print(f"{name}: {tally} in {time.perf_counter() - started:.0f} s", flush=True)
    shutil.rmtree(args.folder)
    print("nothing lost, nothing half visible, index and store agree")


if __name__ == "__main__":
    main()
