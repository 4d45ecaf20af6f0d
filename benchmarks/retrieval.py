"""The index of the trajectory memory at the paper's size: time to build, size, recall against the exact scan, latency, memory.

Keys are drawn to look like real ones: clusters with heavy-tailed sizes in a space of few dimensions, members that vary within it, and
noise in all dimensions; text and pixels share most of their clusters. Questions are members of clusters, moved a little. The keys are
written to --folder in chunks; a run that was stopped goes on where it was. Keys and index that lie there whole are used again, with the
seconds that they took; all else is measured again.

    python benchmarks/retrieval.py --items 1250000 --folder FOLDER --out docs/results/retrieval.md
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np

from pixelis.retrieval.files import KEY_TYPE, map_rows, widened
from pixelis.retrieval.index import ADD_ROWS, Approximate, IndexSettings, Scan, best_of, train
from pixelis.retrieval.keys import KeySpec, make_keys

CHUNK = 25_000
LATENT, LOCAL = 48, 12
"""Dimensions in which centres differ, and in which members of one cluster do."""
NUM_NEIGHBOURS = 8
NPROBES = (8, 16, 32, 64)
PAPER_MB = 127


# ---------------------------------------------------------------- keys


class Mixture:
    """Where keys come from."""

    def __init__(self, items: int, spec: KeySpec, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.spec, self.seed, self.num = spec, seed, max(20, items // 250)
        share = 1 / np.arange(1, self.num + 1) ** 0.9
        self.ends = np.cumsum(share / share.sum())
        self.text_of = np.where(rng.random(self.num) < 0.7, np.arange(self.num), rng.integers(0, self.num, self.num))
        self.parts = {}
        for name, dim in (("text", spec.text_dim), ("pixel", spec.pixel_dim)):
            basis = rng.standard_normal((LATENT, dim)).astype(np.float32) / np.sqrt(dim)
            local = rng.standard_normal((16, LOCAL, LATENT)).astype(np.float32) / np.sqrt(LATENT)  # sixteen kinds of variation
            self.parts[name] = basis, rng.standard_normal((self.num, LATENT)).astype(np.float32), local

    def keys(self, number: int, count: int, *, spread: float = 1.0) -> np.ndarray:
        """Unit float32 keys; the same for the same number."""
        rng = np.random.default_rng((self.seed, number))
        cluster = np.minimum(np.searchsorted(self.ends, rng.random(count)), self.num - 1)
        return self._members(cluster, rng, spread)

    def _members(self, cluster: np.ndarray, rng: np.random.Generator, spread: float) -> np.ndarray:
        made = {}
        for name, (basis, centres, local) in self.parts.items():
            own = self.text_of[cluster] if name == "text" else cluster
            latent = centres[own]
            moves = 2.0 * spread * rng.standard_normal((len(own), LOCAL), np.float32)
            for kind in range(len(local)):
                rows = np.flatnonzero(own % len(local) == kind)
                latent[rows] += moves[rows] @ local[kind]
            noise = rng.standard_normal((len(own), basis.shape[1]), np.float32) * (1.5 / np.sqrt(basis.shape[1]))
            made[name] = latent @ basis + noise
        return make_keys(self.spec, made["text"], made["pixel"])


def write_keys(path: Path, mixture: Mixture, items: int) -> float:
    """Write what is missing of the keys; seconds."""
    started = time.perf_counter()
    row_bytes = mixture.spec.dim * KEY_TYPE.itemsize
    done = path.stat().st_size // row_bytes // CHUNK * CHUNK if path.exists() else 0
    done = min(done, items)
    with open(path, "ab") as file:
        file.truncate(done * row_bytes)
        for start in range(done, items, CHUNK):
            file.write(mixture.keys(start // CHUNK, CHUNK)[: items - start].astype(KEY_TYPE).tobytes())
            say(f"keys {min(start + CHUNK, items):,} of {items:,}")
    return time.perf_counter() - started


def questions(mixture: Mixture, rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Stored keys, moved by noise a third of their length."""
    rng = np.random.default_rng((seed, 1 << 40))
    asked = widened(rows[np.sort(rng.permutation(len(rows))[:count])])
    noise = rng.standard_normal(asked.shape, np.float32)
    asked += 0.33 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    pixel_dim = mixture.spec.pixel_dim
    return make_keys(mixture.spec, asked[:, pixel_dim:], asked[:, :pixel_dim])


# ---------------------------------------------------------------- measuring


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def exact_answers(rows: np.ndarray, asked: np.ndarray) -> list[np.ndarray]:
    answers = []
    for start in range(0, len(asked), 64):
        some = asked[start : start + 64]
        found = Scan(0).candidates(rows, some, NUM_NEIGHBOURS)
        answers += [best_of(rows, query, places, NUM_NEIGHBOURS)[0] for query, places in zip(some, found, strict=True)]
        say(f"exact answers {len(answers):,} of {len(asked):,}")
    return answers


def recall(found: list[np.ndarray], truth: list[np.ndarray]) -> float:
    return float(np.mean([len(set(a.tolist()) & set(b.tolist())) / len(b) for a, b in zip(found, truth, strict=True)]))


def memory_mb() -> dict[str, float]:
    lines = Path("/proc/self/status").read_text().splitlines()
    facts = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith("Rss")}
    return {name: int(value) / 1024 for name, value in facts.items()}


def percentiles(times: list[float]) -> list[float]:
    return [float(1000 * np.percentile(times, p)) for p in (50, 95)]


def timed(ask, asked: np.ndarray) -> tuple[list[np.ndarray], list[float]]:
    """Answers one by one, and p50 and p95 in ms."""
    found, times = [], []
    for query in asked:
        started = time.perf_counter()
        found.append(ask(query[None]))
        times.append(time.perf_counter() - started)
    return found, percentiles(times)


def serve(folder: Path, num_threads: int, truth: list[np.ndarray], asked: np.ndarray, rows: np.ndarray) -> None:
    """In a process of its own: what a server that only opens index and keys needs and how fast it answers. Prints JSON."""
    import faiss

    faiss.omp_set_num_threads(num_threads)
    before = memory_mb()
    result = {}
    for nprobe in NPROBES if num_threads == 1 else (32,):
        settings = IndexSettings(nprobe=nprobe)
        index = Approximate.load(folder / "index.faiss", settings)

        def ask(query, index=index, settings=settings):
            return best_of(rows, query[0], index.candidates(query, settings.rerank)[0], NUM_NEIGHBOURS)[0]

        found, times = timed(ask, asked)
        result[nprobe] = {"recall": recall(found, truth), "ms": times}
        if nprobe == 32:
            after = memory_mb()
            result["own_mb"] = after["RssAnon"] - before["RssAnon"]
            result["mapped_mb"] = after["RssFile"] - before["RssFile"]
    print(json.dumps(result))


def beside(rows: np.ndarray, mixture: Mixture, asked: np.ndarray, settings: IndexSettings) -> list[str]:
    """Other ways to search, on the first keys: rows of a table."""
    import faiss

    truth, full = exact_answers(rows, asked), widened(rows)
    pixel_dim, lines = mixture.spec.pixel_dim, []
    text, text_asked = np.ascontiguousarray(full[:, pixel_dim:]), np.ascontiguousarray(asked[:, pixel_dim:])

    def row(name, make, ask, size_mb):
        started = time.perf_counter()
        made = make()
        seconds = time.perf_counter() - started
        found, (p50, p95) = timed(lambda query: ask(made, query), asked)
        lines.append(f"| {name} | {seconds:.0f} | {size_mb(made):.0f} | {recall(found, truth):.3f} | {p50:.2f} | {p95:.2f} |")
        say(lines[-1])

    def ours():
        index = train(rows, settings)
        index.add(rows)
        return index

    def added(index, keys):
        index.add(keys)
        return index

    def hnsw(dim):
        index = faiss.IndexHNSWFlat(dim, 32, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction, index.hnsw.efSearch = 80, 256
        return index

    def reranked(index, query):
        return best_of(rows, query[0], index.candidates(query, 256)[0], NUM_NEIGHBOURS)[0]

    def scan(index, query):
        return best_of(rows, query[0], index.candidates(rows, query, NUM_NEIGHBOURS)[0], NUM_NEIGHBOURS)[0]

    def plain(index, query):
        return index.search(query, NUM_NEIGHBOURS)[1][0]

    def text_only(index, query):
        return index.search(np.ascontiguousarray(query[:, pixel_dim:]), NUM_NEIGHBOURS)[1][0]

    faiss.omp_set_num_threads(1)
    flat_mb, file_mb = full.nbytes / 1e6, rows.nbytes / 1e6
    row("OPQ + IVF-PQ, re-ranked (ours)", ours, reranked, lambda index: index_mb(index))
    row("exact scan, numpy (ours, below 20,000)", lambda: Scan(20_000), scan, lambda index: file_mb)
    row("faiss flat", lambda: added(faiss.IndexFlatIP(full.shape[1]), full), plain, lambda index: flat_mb)
    row("faiss HNSW", lambda: added(hnsw(full.shape[1]), full), plain, lambda index: flat_mb + len(rows) * 64 * 4 / 1e6)
    row("faiss HNSW, text only (ablation)", lambda: added(hnsw(text.shape[1]), text), text_only, lambda index: text.nbytes / 1e6)
    try:
        from usearch.index import Index

        def usearch():
            index = Index(ndim=full.shape[1], metric="ip", dtype="f16", connectivity=32, expansion_add=80, expansion_search=256)
            index.add(np.arange(len(full)), full, threads=1)
            return index

        row(
            "usearch f16",
            usearch,
            lambda index, query: index.search(query[0], NUM_NEIGHBOURS).keys.astype(np.int64),
            lambda i: i.memory_usage / 1e6,
        )
    except ImportError:
        lines.append("| usearch f16 | not installed | | | | |")
    own = text_asked @ text.T
    text_truth = [np.argsort(-scores, kind="stable")[:NUM_NEIGHBOURS] for scores in own]
    lines.append("")
    lines.append(f"Exact text-only neighbours are {recall(text_truth, truth):.3f} of the hybrid ones. ")
    return lines


def index_mb(index: Approximate) -> float:
    path = Path(f"/tmp/.pixelis-index-{os.getpid()}")
    try:
        index.save(path)
        return path.stat().st_size / 1e6
    finally:
        path.unlink(missing_ok=True)


def half_precision(mixture: Mixture, count: int, asked: np.ndarray) -> str:
    """What storing keys in half precision costs."""
    full = np.concatenate([mixture.keys(start // CHUNK, CHUNK)[: count - start] for start in range(0, count, CHUNK)])
    half = widened(full.astype(KEY_TYPE))
    same, worst = [], 0.0
    for query in asked:
        exact, stored = full @ query, half @ query
        worst = max(worst, float(np.abs(exact - stored).max()))
        same.append(len(set(np.argpartition(-exact, 8)[:8].tolist()) & set(np.argpartition(-stored, 8)[:8].tolist())) / 8)
    return f"recall@8 {np.mean(same):.4f} of single precision, similarities move by at most {worst:.1e}"


# ---------------------------------------------------------------- the page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--items", type=int, default=1_250_000)
    parser.add_argument("--dim-text", type=int, default=768)
    parser.add_argument("--dim-pixel", type=int, default=1024)
    parser.add_argument("--queries", type=int, default=512)
    parser.add_argument("--beside", type=int, default=50_000, help="keys for the comparison with other ways to search; 0 for none")
    parser.add_argument("--folder", type=Path, required=True, help="for keys and index; 4.6 GB at 1.25 million")
    parser.add_argument("--out", type=Path, help="a Markdown page; standard output when absent")
    parser.add_argument("--rotations", type=int, default=IndexSettings.rotations, help="of OPQ; fewer to see quickly that all works")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    spec = KeySpec(args.dim_text, args.dim_pixel)
    args.folder.mkdir(parents=True, exist_ok=True)
    path = args.folder / f"keys-{args.items}-{spec.dim}-{args.seed}.f16"
    if args.serve:
        with np.load(args.folder / "asked.npz") as saved:
            truth, asked = list(saved["truth"]), saved["asked"]
        serve(args.folder, args.serve, truth, asked, map_rows(path, args.items, spec.dim))
        return
    page = measure(args, spec, path)
    if args.out:
        args.out.write_text(page, encoding="utf-8")
    else:
        print(page)


def build(folder: Path, rows: np.ndarray, settings: IndexSettings) -> dict[str, float]:
    """Train and fill the index, unless it lies there made of as many keys with these settings; what it took."""
    import faiss

    about = {"items": len(rows), "settings": asdict(settings)}
    note = folder / "index.json"
    if note.exists() and (known := json.loads(note.read_text()))["about"] == about:
        return known["took"]
    say("training")
    started = time.perf_counter()
    index = train(rows, settings)
    trained = time.perf_counter()
    say(f"trained in {trained - started:.0f} s")
    for start in range(0, len(rows), 8 * ADD_ROWS):
        index.add(rows[start : start + 8 * ADD_ROWS])
        say(f"added {len(index):,}")
    took = {"train_s": trained - started, "add_s": time.perf_counter() - trained, "threads": faiss.omp_get_max_threads()}
    index.save(folder / "index.faiss")
    note.write_text(json.dumps({"about": about, "took": took}))
    return took


def measure(args: argparse.Namespace, spec: KeySpec, path: Path) -> str:
    mixture = Mixture(args.items, spec, args.seed)
    keys_s = write_keys(path, mixture, args.items)
    rows = map_rows(path, args.items, spec.dim)
    asked = questions(mixture, rows, args.queries, args.seed)
    truth = exact_answers(rows, asked)
    np.savez(args.folder / "asked.npz", truth=np.array(truth), asked=asked)
    settings = IndexSettings(seed=args.seed, rotations=args.rotations)
    built = build(args.folder, rows, settings)
    size_mb = (args.folder / "index.faiss").stat().st_size / 1e6
    served = {}
    for threads in (1, 2):
        say(f"serving with {threads} threads")
        names = ("items", "dim_text", "dim_pixel", "folder", "seed")
        options = [f"--{name.replace('_', '-')}={getattr(args, name)}" for name in names]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
        command = [sys.executable, __file__, *options, "--serve", str(threads)]
        served[threads] = json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    one, two = served[1], served[2]
    lists = settings.lists_for(args.items)
    lines = [
        "# Retrieval",
        "",
        f"Made by `python benchmarks/retrieval.py --folder FOLDER --out docs/results/retrieval.md "
        f"--items {args.items} --dim-text {args.dim_text} --dim-pixel {args.dim_pixel} "
        f"--queries {args.queries} --beside {args.beside} --rotations {args.rotations} "
        f"--seed {args.seed}`, which says how the keys are drawn. "
        f"{os.cpu_count()} CPU cores, {args.queries} questions, the truth is the exact scan over all stored keys.",
        "",
        f"| {args.items:,} keys of {spec.dim} | ours | paper |",
        "|---|---|---|",
        f"| index on disk, MB | {size_mb:.1f} ({lists} lists, rotated to {min(settings.rotated_dim, spec.dim)}) | {PAPER_MB} (1.25 M) |",
        f"| keys on disk, half precision, MB | {path.stat().st_size / 1e6:.0f} | not said |",
        f"| training, s (threads: {built['threads']}) | {built['train_s']:.0f} | 960 to 1,080 on an A100 (2 M keys) |",
        f"| adding, s | {built['add_s']:.0f} | 138 (A100) |",
        f"| recall@8 | {one['32']['recall']:.3f} | not said |",
        f"| p50 / p95 a question, 1 thread, ms | {one['32']['ms'][0]:.2f} / {one['32']['ms'][1]:.2f} | the text lost them (32 cores) |",
        f"| p50 / p95 a question, 2 threads, ms | {two['32']['ms'][0]:.2f} / {two['32']['ms'][1]:.2f} | |",
        f"| resident memory of index, own, MB | {one['own_mb']:.0f} | {PAPER_MB} |",
        f"| resident, mapped from disk, can be dropped, MB | {one['mapped_mb']:.0f} | |",
        "",
        f"Keys drawn in {keys_s:.0f} s (0 when they were there). The index holds codes (64 B), ids (8 B), list centres, rotation.",
        "",
        "| nprobe | recall@8 | p50 ms | p95 ms |",
        "|---|---|---|---|",
        *(f"| {n} | {one[str(n)]['recall']:.3f} | {one[str(n)]['ms'][0]:.2f} | {one[str(n)]['ms'][1]:.2f} |" for n in NPROBES),
    ]
    if args.beside:
        count = min(args.beside, args.items)
        few, some = rows[:count], questions(mixture, rows[:count], min(256, args.queries), args.seed)
        say("half precision")
        lines += ["", f"Half precision on disk, {min(count, CHUNK):,} keys: {half_precision(mixture, min(count, CHUNK), some)}."]
        lines += ["", f"## Beside other ways to search, {count:,} keys, 1 thread", ""]
        lines += ["| | build, s | size, MB | recall@8 | p50 ms | p95 ms |", "|---|---|---|---|---|---|"]
        lines += beside(few, mixture, some, settings)
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    main()
