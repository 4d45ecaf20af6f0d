"""Search: an exact scan for small memories, OPQ + IVF-PQ with exact re-ranking for large ones, HNSW as an ablation.

Shapes: N keys, Q questions, K the width of a key, C candidates. Similarity is the inner product. Source: paper, supplement §3.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from pixelis.core.errors import ConfigError, DataError, NotInstalled
from pixelis.retrieval.files import widened

BLOCK_ROWS = 256
ADD_ROWS = 8192
"""Rows that are widened and encoded at once."""
SLACK = 1e-5
"""More than single precision can be wrong about an inner product of unit vectors."""
HNSW_LINKS, HNSW_BUILD = 32, 80
_POINTS_PER_LIST = 40
_OPQ_POINTS = 65_536


@dataclass(frozen=True)
class IndexSettings:
    """How to search.

    Args:
        kind: what `train` makes: "ivfpq", or "hnsw" (the ablation; text-only with a memory of omega = 0).
        exact_below: memories smaller than this are scanned exactly and not trained.
        rotated_dim: width after the OPQ rotation, at most that of the keys (paper: 768 for search on CPUs).
        code_bytes: of the product quantiser, 8 bits each.
        iterations: of every k-means.
        rotations: of OPQ's alternation of rotation and quantiser.
        num_lists: None: the power of two nearest to 4 sqrt(N), with at least 39 keys each.
        nprobe: lists that are searched.
        rerank: candidates that are compared exactly.
        seed: of the sample that is trained on and of k-means.

    Raises:
        ConfigError: a value out of its range.
    """

    kind: Literal["ivfpq", "hnsw"] = "ivfpq"
    exact_below: int = 20_000
    rotated_dim: int = 768
    code_bytes: int = 64
    iterations: int = 20
    rotations: int = 20
    num_lists: int | None = None
    nprobe: int = 32
    rerank: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in ("ivfpq", "hnsw"):
            raise ConfigError(f"index kind {self.kind!r}: give ivfpq or hnsw; small memories are scanned exactly without an index")
        for name in ("exact_below", "rotated_dim", "code_bytes", "iterations", "rotations", "nprobe", "rerank"):
            if getattr(self, name) < 1:
                raise ConfigError(f"index setting {name} = {getattr(self, name)}: give at least 1")

    def lists_for(self, num: int) -> int:
        """Lists for a memory of `num` keys."""
        if self.num_lists is not None:
            return self.num_lists
        wanted = 2 ** round(np.log2(4 * np.sqrt(num)))
        return max(1, min(wanted, 2 ** int(np.log2(max(1, num / 39)))))


class Scan:
    """Compares with every key; keeps full blocks of them in single precision, up to a limit, and widens the others each time."""

    def __init__(self, max_kept_rows: int) -> None:
        self._max_blocks = max_kept_rows // BLOCK_ROWS
        self._kept: dict[int, np.ndarray] = {}

    def candidates(self, rows_NK: np.ndarray, query_QK: np.ndarray, num: int) -> list[np.ndarray]:
        """Per question the positions that may be among the best `num`, ascending: those, and what rounding cannot tell from them."""
        scores_QN = np.empty((len(query_QK), len(rows_NK)), np.float32)
        for start in range(0, len(rows_NK), BLOCK_ROWS):
            scores_QN[:, start : start + BLOCK_ROWS] = query_QK @ self._block(rows_NK, start).T
        if len(rows_NK) <= num:
            return [np.arange(len(rows_NK))] * len(query_QK)
        least_Q = np.partition(scores_QN, len(rows_NK) - num, axis=1)[:, len(rows_NK) - num]
        return [np.flatnonzero(scores_N >= least - SLACK) for scores_N, least in zip(scores_QN, least_Q, strict=True)]

    def _block(self, rows_NK: np.ndarray, start: int) -> np.ndarray:
        number, is_full = start // BLOCK_ROWS, start + BLOCK_ROWS <= len(rows_NK)
        if number in self._kept:
            return self._kept[number]
        block = widened(rows_NK[start : start + BLOCK_ROWS])
        if is_full and number < self._max_blocks:
            self._kept[number] = block  # keys never change, so a full block never does
        return block


def best_of(rows_NK: np.ndarray, query_K: np.ndarray, candidates_C: np.ndarray, num: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions and similarities of the best candidates by exact comparison with the stored keys; of equal ones the earlier key first.

    Args:
        candidates_C: positions in any order, each once.
    Returns:
        int64 and float64, at most `num` of each.
    """
    places_C = np.sort(candidates_C)
    keys_CK = widened(rows_NK[places_C])
    if len(places_C) > num:
        rough_C = keys_CK @ query_K.astype(np.float32)
        hopeful = np.flatnonzero(rough_C >= np.partition(rough_C, -num)[-num] - SLACK)
        places_C, keys_CK = places_C[hopeful], keys_CK[hopeful]
    # Row by row in double precision: a matrix product may give equal rows at different places different last digits.
    similarity_C = np.multiply(keys_CK, query_K, dtype=np.float64).sum(1)
    order = np.argsort(-similarity_C, kind="stable")[:num]
    return places_C[order], similarity_C[order]


class Approximate:
    """A trained index that only grows.

    Args:
        index: faiss's.
    """

    def __init__(self, index: Any, settings: IndexSettings) -> None:
        self._index, self._settings = index, settings
        faiss = _faiss()
        if settings.kind == "ivfpq":
            faiss.extract_index_ivf(index).nprobe = settings.nprobe
        else:
            faiss.downcast_index(index).hnsw.efSearch = max(settings.rerank, 64)

    def __len__(self) -> int:
        return self._index.ntotal

    @property
    def dim(self) -> int:
        return self._index.d

    def add(self, rows_NK: np.ndarray) -> None:
        """Append keys; their positions go on from those that are there."""
        for start in range(0, len(rows_NK), ADD_ROWS):
            with _threads(1 if self._settings.kind == "hnsw" else None):  # links depend on the order in which threads insert
                self._index.add(widened(rows_NK[start : start + ADD_ROWS]))

    def candidates(self, query_QK: np.ndarray, num: int) -> list[np.ndarray]:
        """Per question at most `num` positions, in no order."""
        places_QC = self._index.search(np.ascontiguousarray(query_QK, np.float32), num)[1]
        return [places_C[places_C >= 0] for places_C in places_QC]

    def empty(self) -> None:
        """Forget the keys and keep what was learnt."""
        self._index.reset()

    def save(self, path: Path) -> None:
        _faiss().write_index(self._index, str(path))

    @classmethod
    def load(cls, path: Path, settings: IndexSettings) -> Approximate:
        """Raises: DataError: the file holds no such index."""
        try:
            return cls(_faiss().read_index(str(path)), settings)
        except (RuntimeError, AttributeError) as error:
            raise DataError(f"{path} holds no {settings.kind} index ({str(error).splitlines()[0][:120]})") from None


def train(rows_NK: np.ndarray, settings: IndexSettings) -> Approximate:
    """An index without keys, trained on a sample of these.

    Raises:
        NotInstalled: faiss is missing.
        ConfigError: too few keys for the settings, or a width that does not suit them.
    """
    faiss, dim = _faiss(), rows_NK.shape[1]
    if settings.kind == "hnsw":
        index = faiss.IndexHNSWFlat(dim, HNSW_LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = HNSW_BUILD
        return Approximate(index, settings)
    num_lists = settings.lists_for(len(rows_NK))
    rotated_dim = min(settings.rotated_dim, dim) // settings.code_bytes * settings.code_bytes
    if rotated_dim == 0 or len(rows_NK) < max(256, num_lists):
        raise ConfigError(
            f"{len(rows_NK)} keys of width {dim} cannot train {num_lists} lists and {settings.code_bytes} bytes of 256 values: "
            "keep the exact scan, or lower num_lists or code_bytes"
        )
    rng = np.random.default_rng(settings.seed)
    num_sample = min(len(rows_NK), max(_OPQ_POINTS, _POINTS_PER_LIST * num_lists))
    sample = np.sort(rng.permutation(len(rows_NK))[:num_sample])
    rotation = faiss.OPQMatrix(dim, settings.code_bytes, rotated_dim)
    rotation.niter = settings.rotations
    scratch = faiss.ProductQuantizer(rotated_dim, settings.code_bytes, 8)
    quantiser = faiss.IndexFlatIP(rotated_dim)
    ivf = faiss.IndexIVFPQ(quantiser, rotated_dim, num_lists, settings.code_bytes, 8, faiss.METRIC_INNER_PRODUCT)
    for clustering in (ivf.cp, ivf.pq.cp, scratch.cp):
        clustering.niter, clustering.seed = settings.iterations, settings.seed + 1
        clustering.min_points_per_centroid = 1  # silences a warning of hundreds of lines
    few = np.sort(rng.permutation(sample)[:_OPQ_POINTS])
    rotation.pq = scratch
    rotation.train(widened(rows_NK[few]))
    rotation.pq = None
    rotated = [rotation.apply(widened(rows_NK[sample[at : at + ADD_ROWS]])) for at in range(0, num_sample, ADD_ROWS)]
    ivf.train(np.concatenate(rotated))
    return Approximate(faiss.IndexPreTransform(rotation, ivf), settings)


def require_index() -> None:
    """Raises: NotInstalled: faiss, which trained indices need, is missing."""
    _faiss()


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise NotInstalled("faiss-cpu, which searches large memories", "pip install 'pixelis[retrieval]'") from None
    return faiss


@contextlib.contextmanager
def _threads(num: int | None) -> Iterator[None]:
    """faiss's number of threads, which is global, while this lasts."""
    faiss = _faiss()
    before = faiss.omp_get_max_threads()
    if num is not None:
        faiss.omp_set_num_threads(num)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
