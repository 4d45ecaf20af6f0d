"""The memory of trajectories: what is stored, its index, and the blocklist before both; read while it is written.

A trained index lies in `index-<num>-<digest>.faiss`, which `index.json` names. It is made to agree with the stored items whenever a
memory is opened. Shapes: N items, Q questions, K the width of a key.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pixelis.core.errors import DataError
from pixelis.retrieval.entry import Added, Entry, Item, Neighbour, entry_line, with_hashes
from pixelis.retrieval.files import KEY_TYPE, row_name
from pixelis.retrieval.index import Approximate, IndexSettings, Scan, best_of, train
from pixelis.retrieval.keys import KeySpec, make_keys
from pixelis.retrieval.snapshot import clear_scratch, load_snapshot, save_snapshot
from pixelis.retrieval.store import EntryStore, make_folder

if TYPE_CHECKING:
    from pixelis.retrieval.whitelist import Blocklist

NUM_NEIGHBOURS = 8


class Memory:
    """One memory, as `open_memory` or `read_memory` give it; any number of threads may ask while one adds.

    Attributes:
        notes: what was cut, caught up or set aside on opening, in words.
        num_refused: items refused as evaluation media since it was opened.
    """

    def __init__(self, store: EntryStore, settings: IndexSettings, *, blocklist: Blocklist | None, max_items: int | None) -> None:
        self.settings, self.blocklist, self.num_refused = settings, blocklist, 0
        self._store, self._max_items = store, max_items
        self._adding, self._asking = threading.Lock(), threading.Lock()
        self._scan = Scan(settings.exact_below)
        self._index: Approximate | None
        if store.is_writer:
            clear_scratch(store.folder)
        self._index, notes = load_snapshot(store.folder, store.rows(), settings)
        self.notes = (*store.notes, *notes)

    def __enter__(self) -> Memory:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another writer in. The index is not saved: see `checkpoint`."""
        self._store.close()

    # ------------------------------------------------------------ asking

    @property
    def is_full(self) -> bool:
        """Whether it holds as many items as it may."""
        return self._max_items is not None and len(self) >= self._max_items

    def __len__(self) -> int:
        return len(self._store)

    @property
    def folder(self) -> Path:
        return self._store.folder

    @property
    def spec(self) -> KeySpec:
        return self._store.spec

    @property
    def kind(self) -> str:
        """ "exact" until an index is trained."""
        return "exact" if self._index is None else self.settings.kind

    def neighbours(
        self,
        text_D: np.ndarray | None,
        pixel_D: np.ndarray | None,
        *,
        num: int = NUM_NEIGHBOURS,
        omega: float | None = None,
        without_media: Collection[str] = (),
    ) -> tuple[Neighbour, ...]:
        """The most similar entries, best first; of equally similar ones the earlier added first.

        Args:
            omega: another weight of the pixel cosine for this question; then a part of weight 0 may be None.
            without_media: SHA-256 of media to pass over, the question's own for one.

        Returns:
            Fewer than `num` where the memory holds fewer, or where passing over leaves fewer of the best `rerank`.
        """
        query_QK = make_keys(self.spec, _row(text_D), _row(pixel_D), omega=omega)
        positions, similarities = self.search(query_QK, max(num, self.settings.rerank) if without_media else num)[0]
        found = []
        for position, similarity in zip(positions.tolist(), similarities.tolist(), strict=True):
            entry = self.entry(position)
            if entry.medium not in without_media:
                found.append(Neighbour(position, similarity, entry))
            if len(found) == num:
                break
        return tuple(found)

    def search(self, query_QK: np.ndarray, num: int = NUM_NEIGHBOURS) -> list[tuple[np.ndarray, np.ndarray]]:
        """Per question the positions and similarities of the best `num` by exact comparison of the candidates, best first."""
        with self._asking:
            rows_NK = self._store.rows()
            if self._index is None:
                candidates = self._scan.candidates(rows_NK, query_QK, num)
            else:
                candidates = self._index.candidates(query_QK, max(num, self.settings.rerank))
        return [best_of(rows_NK, query_K, some_C, num) for query_K, some_C in zip(query_QK, candidates, strict=True)]

    def entry(self, position: int) -> Entry:
        """Raises: DataError: there is no such item, or its line was changed after it was written."""
        return self._store.entry(position)

    def entries(self) -> Iterator[Entry]:
        """All entries in order, read once from start to end."""
        return self._store.entries()

    def rows(self) -> np.ndarray:
        """All keys as stored, float16 [N, K], memory-mapped."""
        return self._store.rows()

    def refresh(self) -> int:
        """Take in what a writer in another process has added since; how many items. A writer is always current."""
        with self._asking:
            num_new = 0 if self._store.is_writer else self._store.refresh()
            if self._index is not None and num_new:
                self._index.add(self._store.rows()[len(self._index) :])
            return num_new

    def verify(self) -> None:
        """Read everything and compare; see `EntryStore.verify`. The index must hold as many keys as are stored.

        Raises:
            DataError: a line or a row was changed after it was written; names file and number.
        """
        self._store.verify()
        if self._index is not None and len(self._index) != len(self):
            raise DataError(f"{self.folder}: the index holds {len(self._index)} of {len(self)} items; open the memory again")

    # ------------------------------------------------------------ adding

    def add(self, item: Item) -> Added:
        """Add one item; on the disk when this returns. See `add_many`."""
        return self.add_many([item])[0]

    def add_many(self, items: Sequence[Item]) -> list[Added]:
        """Add items in order; those not refused are on the disk when this returns.

        Nothing is written before all are checked. A crash during the call keeps the first few of them, each whole; adding them again is
        safe. What is or resembles an evaluation medium is refused and never reaches disk or index.

        Raises:
            DataError: a bad key, a known id with other content, a missing fingerprint, more than `max_items`, a memory open for reading
                only, or a disk that cannot be written: the memory is then closed, and what was acknowledged before is safe.
        """
        with self._adding:
            self._require_writer()
            outcomes, lines, names, rows_NK = self._prepare(items)
            if not lines:
                return outcomes
            if self._max_items is not None and len(self) + len(lines) > self._max_items:
                raise DataError(f"{self.folder} holds {len(self)} of at most {self._max_items} items; {len(lines)} more do not fit")
            self._store.append(lines, rows_NK)
            with self._asking:
                self._store.admit(lines, names)
                if self._index is not None:
                    self._index.add(rows_NK)
            return outcomes

    def train_index(self, *, audit: Callable[[Memory], object] | None = None, again: bool = False) -> None:
        """Train an index on the keys that are there, take it into use and save it. Never while serving: it takes minutes.

        Args:
            audit: called with this memory, the new index in use; if it raises, the index is dropped and nothing is saved.
            again: replace an index that is there.

        Raises:
            DataError: there is an index, too few keys for one, or this memory is open for reading only.
        """
        with self._adding:
            self._require_writer()
            if self._index is not None and not again:
                raise DataError(f"{self.folder} has a trained index, which only grows; say again=True to replace it")
            if len(self) < self.settings.exact_below:
                raise DataError(f"{self.folder} holds {len(self)} items: an index needs {self.settings.exact_below}, the scan serves fewer")
            index = train(self.rows(), self.settings)
            index.add(self.rows())
            with self._asking:
                before, self._index = self._index, index
            try:
                if audit is not None:
                    audit(self)
                self._save()
            except BaseException:
                with self._asking:
                    self._index = before
                raise

    def checkpoint(self) -> None:
        """Save the index, so that opening has less to catch up. Without it nothing is lost."""
        with self._adding:
            self._require_writer()
            if self._index is not None:
                self._save()

    # ------------------------------------------------------------ inside

    def _require_writer(self) -> None:
        if not self._store.is_writer:
            raise DataError(f"{self.folder} is closed or open for reading only: open it with open_memory to change it")

    def _save(self) -> None:
        save_snapshot(self.folder, self._index, self._store.rows(), self.settings)

    def _prepare(self, items: Sequence[Item]) -> tuple[list[Added], list[bytes], list[str], np.ndarray]:
        """Outcomes, and the lines, ids and rows of the new items."""
        outcomes: list[Added] = []
        fresh: dict[str, tuple[int, bytes]] = {}
        rows = [np.zeros((0, self.spec.dim), KEY_TYPE)]
        for item in items:
            refusal = None if self.blocklist is None else self.blocklist.refusal(item.entry.medium, item.fingerprint)
            if refusal is not None:
                self.num_refused += 1
                outcomes.append(Added(None, False, refusal))
                continue
            name = item.entry.id
            row_NK = make_keys(self.spec, _row(item.text_D), _row(item.pixel_D)).astype(KEY_TYPE)
            line = entry_line(with_hashes(item), row_name(row_NK[0]))
            at = self._store.find(name)
            there = fresh.get(name, (None, None)) if at is None else (at, self._store.line(at))
            if there[0] is None:
                fresh[name] = there = (len(self) + len(fresh), line)
                rows.append(row_NK)
                outcomes.append(Added(there[0], True))
            elif there[1] == line:
                outcomes.append(Added(there[0], False))
            else:
                raise DataError(f"{self.folder}: item {name} is there with other content; entries never change, give it another id")
        return outcomes, [line for _, line in fresh.values()], list(fresh), np.concatenate(rows)


def open_memory(
    folder: str | os.PathLike,
    spec: KeySpec | None = None,
    *,
    blocklist: Blocklist | None = None,
    settings: IndexSettings = IndexSettings(),
    max_items: int | None = None,
    sync: Callable[[int], None] = os.fsync,
) -> Memory:
    """Open a memory to add and to ask; the only one that adds at a time.

    Args:
        spec: of the keys; needed to make a new memory, else compared.
        blocklist: evaluation media that are refused.
        max_items: adding more raises, so that a service cannot fill the disk: 4 KB an item at scale. None for no limit.
        sync: brings a written file to the disk.

    Raises:
        DataError: another writer has it open, it is damaged, or was made for other keys.
        NotInstalled: it has a trained index, and faiss is missing.
    """
    make_folder(Path(folder), spec)
    return _opened(EntryStore(Path(folder), sync=sync, is_writer=True), settings, blocklist, max_items)


def read_memory(folder: str | os.PathLike, *, settings: IndexSettings = IndexSettings()) -> Memory:
    """Open a memory to ask only, also while another process adds: what is complete now, and more after `refresh`.

    Raises:
        DataError: it is no memory, or damaged.
        NotInstalled: it has a trained index, and faiss is missing.
    """
    return _opened(EntryStore(Path(folder), is_writer=False), settings, None, None)


def _opened(store: EntryStore, settings: IndexSettings, blocklist: Blocklist | None, max_items: int | None) -> Memory:
    try:
        return Memory(store, settings, blocklist=blocklist, max_items=max_items)
    except BaseException:
        store.close()
        raise


def _row(part_D: np.ndarray | None) -> np.ndarray | None:
    return None if part_D is None else np.asarray(part_D)[None]
