"""README and docs/demo.md tell the truth: what `make demo` prints is what stands there, and commands and files exist."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pixelis.core.store import open_run

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCK = re.search(r"```text\n(.*?)\n```", (ROOT / "docs" / "demo.md").read_text(encoding="utf-8"), re.DOTALL)


def words(text: str) -> list[str]:
    """Lines without what differs from run to run: seconds, and where the page was written."""
    lines = [line.rstrip() for line in text.strip().splitlines()]
    return [line for line in lines if line and not line.startswith(("viewer page:", "six questions took"))]


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "run"
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--out", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout, folder


def test_the_demo_prints_what_its_page_shows(demo):
    assert BLOCK is not None
    assert words(demo[0]) == words(BLOCK[1])


def test_the_demo_leaves_a_run_with_its_page(demo):
    _, folder = demo
    assert len(list(open_run(folder).trajectories())) == 6
    assert (folder / "view.html").stat().st_size > 100_000


@pytest.mark.parametrize("name", ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs"])
def test_linked_files_exist(name):
    pages = sorted((ROOT / name).rglob("*.md")) if name == "docs" else [ROOT / name]
    links = [(one, link) for one in pages for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", one.read_text(encoding="utf-8"))]
    missing = [f"{one.name}: {link}" for one, link in links if not link.startswith("http") and not (one.parent / link).exists()]
    assert links and not missing


def test_named_commands_exist():
    done = subprocess.run([sys.executable, "-m", "pixelis.cli", "--help"], capture_output=True, text=True, timeout=60)
    pages = "\n".join([README, *((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("demo.md", "pixelworld.md"))])
    for verb in set(re.findall(r"^pixelis (\w+)", pages, re.MULTILINE)):
        assert verb in done.stdout
    for target in set(re.findall(r"^make (\w+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.MULTILINE)
