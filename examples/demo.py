"""Ask about a photo, a page and a video; write the viewer page; replay. The first half of `make demo`.

    python examples/demo.py [--out runs/demo]

The photo and the page come with scikit-image; the video is made here from two of its photos. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

import av
import numpy as np
import skimage.data
from PIL import Image

from pixelis.agent import make_executor
from pixelis.cli import print_step
from pixelis.core.media import open_medium
from pixelis.core.store import RunWriter, open_run
from pixelis.policy.base import Task
from pixelis.policy.planner import PlannerPolicy
from pixelis.rollout.run import Runner
from pixelis.serve.viewer.page import write_page
from pixelis.tools.replay import replay_run
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import resolved

QUESTIONS = [
    ("photo.png", "What colour is the cup?"),
    ("photo.png", "How big is the largest object?"),
    ("page.png", "What is the title of the page?"),
    ("page.png", "Read the text at the bottom."),
    ("video.mp4", "Which way does the cat move?"),
    ("video.mp4", "When does something start to move?"),
]


def make_media(folder: Path) -> None:
    """A photo, a page, and a video in which a cat's face waits, then slides across a breakfast table."""
    coffee, cat = Image.fromarray(skimage.data.coffee()), Image.fromarray(skimage.data.chelsea()[50:250, 110:340])
    coffee.save(folder / "photo.png")
    Image.fromarray(skimage.data.page()).convert("RGB").save(folder / "page.png")
    ground, face = np.asarray(coffee.resize((480, 320))), np.asarray(cat.resize((84, 72)))
    with av.open(str(folder / "video.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "16"})
        stream.width, stream.height, stream.pix_fmt = 480, 320, "yuv420p"
        for i in range(40):
            frame, step = ground.copy(), max(0, i - 15)
            x, y = 20 + 14 * step, 30 + 2 * step
            frame[y : y + 72, x : x + 84] = face
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), help="the run folder; made anew")
    out = parser.parse_args().out
    if (out / "run.json").exists():
        shutil.rmtree(out)
    media = out / "media"
    media.mkdir(parents=True, exist_ok=True)
    make_media(media)

    settings, policy = resolved(ToolSettings()), PlannerPolicy()
    runner = Runner(policy, make_executor(settings), settings=settings, on_step=print_step)
    num_s = 0.0
    with RunWriter(out, {"demo": True, "policy": policy.info.name, "tools": settings.model_dump(mode="json")}) as writer:
        for name, question in QUESTIONS:
            start = time.perf_counter()
            print(f"\n== {name}: {question}")
            writer.put_blob((media / name).read_bytes())
            with open_medium(media / name) as medium:
                (rollout,) = runner.run([(Task(question=question, medium=medium), 0)], writer)
            trajectory = rollout.trajectory
            num_s += time.perf_counter() - start
            print(f"answer: {trajectory.answer}")

    run = open_run(out)
    page = write_page(out, out / "view.html")
    report = replay_run(run)
    print(f"\nreplay: {report.num_trajectories} trajectories, {report.num_steps} steps: {'equal' if report.is_equal else 'DIFFERENT'}")
    for difference in report.differences:
        print(difference)
    print(f"viewer page: {page}")
    print(f"six questions took {num_s:.0f} s")
    sys.exit(0 if report.is_equal and all(t.answer for t in run.trajectories()) else 1)


if __name__ == "__main__":
    main()
