"""OCR's networks with their weights as they are in the wheel, and with subnormal ones set to zero, in turns.

python benchmarks/parts/ocr_weights.py [--repeats N] [--threads N] [--out FILE.md]

A line per network and size of input: milliseconds of either, their ratio (median of the turns' own ratios, and its range), and whether the
answers have the same bytes.
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from pathlib import Path

import numpy as np
import onnxruntime

from pixelis.tools.engines.ocr_models import DETECTOR, RECOGNISER, model_path
from pixelis.tools.engines.onnx_session import onnx_session
from pixelis.tools.engines.onnx_weights import without_subnormals

SIZES = {DETECTOR: ((160, 416), (352, 640), (736, 736), (896, 1216)), RECOGNISER: ((48, 96), (48, 320), (48, 960))}
HEAD = f"{'network':24s} {'input':>10s} {'as it is':>10s} {'cleaned':>10s} {'times as fast':>22s}  same bytes"


def seconds(session: onnxruntime.InferenceSession, x: np.ndarray) -> tuple[float, np.ndarray]:
    start = time.perf_counter()
    out = session.run(None, {"x": x})[0]
    return time.perf_counter() - start, out


def row(name: str, size: tuple[int, int], *, repeats: int, threads: int) -> str:
    stored = model_path(name).read_bytes()
    plain, cleaned = (onnx_session(model, threads=threads, keeps_memory=False) for model in (stored, without_subnormals(stored)))
    x = np.random.default_rng(0).uniform(-1, 1, (1, 3, *size)).astype(np.float32)
    (_, one), (_, other) = seconds(plain, x), seconds(cleaned, x)
    turns = np.array([(seconds(plain, x)[0], seconds(cleaned, x)[0]) for _ in range(repeats)])
    ratios = turns[:, 0] / turns[:, 1]
    before, after = 1000 * np.median(turns, axis=0)
    factor = f"{np.median(ratios):.2f} ({ratios.min():.2f} to {ratios.max():.2f})"
    shape = f"{size[0]} x {size[1]}"
    return f"{name.removesuffix('.onnx'):24s} {shape:>10s} {before:7.1f} ms {after:7.1f} ms {factor:>22s}  {np.array_equal(one, other)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    lines = [row(name, size, repeats=args.repeats, threads=args.threads) for name, sizes in SIZES.items() for size in sizes]
    table = "\n".join([HEAD, *lines])
    print(table)
    if args.out is not None:
        made = f"`python benchmarks/parts/ocr_weights.py --threads {args.threads} --out {args.out}`, {args.repeats} turns each"
        where = f"{platform.machine()}, {os.cpu_count()} cores, onnxruntime {onnxruntime.__version__}"
        args.out.write_text(f"# OCR's networks without subnormal weights\n\n{made}; {where}.\n\n```text\n{table}\n```\n", "utf-8")


if __name__ == "__main__":
    main()
