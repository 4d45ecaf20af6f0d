"""Ask the trained policy of the package, let it learn from a short shifted stream, and write a report. The second half of `make demo`.

    python examples/demo_nano.py [--policy nano-rft] [--out runs/demo-nano]

The items are PixelWorld's, from its test split, whose words, fonts and layouts no training has seen.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from pixelis.agent import make_executor, make_policy
from pixelis.cli import app, print_step
from pixelis.config import PolicySettings
from pixelis.core.media import open_medium
from pixelis.core.store import RunWriter
from pixelis.data.world.items import make_item, render
from pixelis.policy.base import Task
from pixelis.rollout.run import Runner
from pixelis.serve.viewer.page import write_page
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import resolved

ITEMS = (("an image", "attribute", 2), ("a page", "table", 0), ("a video", "when_changes", 1))
"""What it is, family, and number in the family's own set of the test split."""
RECIPE = "recipes/demo.toml"
ADAPT = Path("runs/demo-adapt")


def ask_three(policy_name: str, out: Path) -> Path:
    """Questions about an image, a page and a video; the page with what was seen and done."""
    settings, policy = resolved(ToolSettings()), make_policy(PolicySettings(name=policy_name))
    runner = Runner(policy, make_executor(settings), settings=settings, on_step=print_step)
    with RunWriter(out, {"demo": True, "policy": policy.info.name}) as writer:
        for what, family, number in ITEMS:
            item = make_item("test", number, seed=11, family=family)
            print(f"\n== {what}: {item.prompt}")
            data = render(item)
            writer.put_blob(data)
            with open_medium(data, name=item.medium_name) as medium:
                (rollout,) = runner.run([(Task(question=item.prompt, medium=medium, id=item.id), 0)], writer)
            print(f"answer: {rollout.trajectory.answer}   (true: {item.answer})")
    policy.close()
    return write_page(out, out / "view.html")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", default="nano-rft", help="a checkpoint of the package")
    parser.add_argument("--out", type=Path, default=Path("runs/demo-nano"), help="the run folder; made anew")
    given = parser.parse_args()
    start = time.perf_counter()
    for folder in (given.out, ADAPT):
        shutil.rmtree(folder, ignore_errors=True)
    page = ask_three(given.policy, given.out)
    print("\n== learning while it serves: three dozen darkened questions, without labels (the truth is only shown)")
    app(["adapt", RECIPE, "--checkpoint", given.policy], standalone_mode=False)
    app(["report", str(ADAPT), "--out", "runs/demo.html"], standalone_mode=False)
    print(f"viewer page: {page}\nreport page: runs/demo.html\nall this took {time.perf_counter() - start:.0f} s")


if __name__ == "__main__":
    main()
