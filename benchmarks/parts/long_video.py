"""Memory of TRK and TEMP on long videos: how far the process grows over what it held before the call, at 480p.

Run: python benchmarks/parts/long_video.py [MINUTES ...]    (each length in a process of its own; 3 and 6 unless told otherwise)
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import av
import numpy as np

WIDTH, HEIGHT, FPS = 854, 480, 2
OP = {
    "TRK": {"bbox_2d": [100, 300, 200, 500]},
    "TEMP": {"event": "moves"},
}


def write_video(path: Path, minutes: float) -> int:
    """A disc that goes to and fro over a textured ground that never stands still; the number of frames."""
    rng = np.random.default_rng(0)
    ground = np.kron(rng.integers(90, 170, (HEIGHT // 8, -(-WIDTH // 8), 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))[:, :WIDTH]
    ys, xs = np.mgrid[0:HEIGHT, 0:WIDTH]
    num_frames = round(60 * minutes * FPS)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for i in range(num_frames):
            image = np.roll(ground, i, axis=1)
            x = 128 + abs((4 * i) % 1000 - 500)
            image[(xs - x) ** 2 + (ys - 192) ** 2 < 40**2] = (200, 40, 40)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return num_frames


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


def growth_mb(work) -> float:
    """How much more than before a call the process held at its highest."""
    before, highest, done = resident_mb(), [0.0], threading.Event()

    def watch() -> None:
        while not done.is_set():
            highest[0] = max(highest[0], resident_mb())
            time.sleep(0.01)

    watcher = threading.Thread(target=watch)
    watcher.start()
    work()
    done.set()
    watcher.join()
    return highest[0] - before


def measure(path: Path) -> None:
    """One line for each op: it has looked at a short stretch before, so that what loads once is loaded."""
    from pixelis.core.media import open_medium
    from pixelis.core.ops import Call
    from pixelis.tools.execute import Executor
    from pixelis.tools.toolbox import build_toolbox

    executor = Executor(build_toolbox(), deadline_s=3600)
    for op, arguments in OP.items():
        with open_medium(path) as medium:
            stretch = {"from_s": 0.0, "to_s": 8.0} if op == "TRK" else {"window": [0.0, 8.0]}
            executor.run(Call(op=op, arguments=arguments | stretch), medium, [])
            results = []
            grown = growth_mb(lambda: results.append(executor.run(Call(op=op, arguments=arguments), medium, [])))  # noqa: B023
            found = results[0].result
            size = f"{medium.width}x{medium.height}, {medium.num_frames} frames, {medium.duration_s / 60:.0f} min"
            print(f"{op:5} {size}: {found.status}, {grown:.0f} MB more at its highest, {results[0].seconds:.0f} s", flush=True)


def main() -> None:
    if sys.argv[1:2] == ["--file"]:
        measure(Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        for minutes in [float(text) for text in sys.argv[1:]] or [3.0, 6.0]:
            path = Path(folder) / f"{minutes:g}.mp4"
            write_video(path, minutes)
            subprocess.run([sys.executable, __file__, "--file", str(path)], check=True)


if __name__ == "__main__":
    main()
