"""What a run was made with: versions of the libraries in use, and the commit."""

from __future__ import annotations

import importlib.metadata
import platform
import subprocess
import sys
from pathlib import Path

from pixelis import __version__

ALWAYS = ("numpy", "scipy", "pillow")
"""Tools and media use them, though perhaps only later in a run."""
IF_LOADED = ("torch", "transformers")


def versions() -> dict[str, str]:
    """Of Pixelis, Python, the libraries in use, and `commit` where the package is run from its repository."""
    loaded = {name: importlib.metadata.version(name) for name in ALWAYS}
    loaded |= {name: str(sys.modules[name].__version__) for name in IF_LOADED if name in sys.modules}
    commit = commit_of(Path(__file__))
    return {"pixelis": __version__, "python": platform.python_version(), **loaded, **({"commit": commit} if commit else {})}


def commit_of(file: Path) -> str | None:
    """Twelve digits of the commit that a file stands in, `+` behind it where tracked files beside or below it differ from it.

    None where no repository tracks the file, such as a package installed into an environment inside somebody else's repository.
    """

    def git(*words: str) -> str | None:
        command = ["git", "-C", str(file.parent), *words]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    if not git("ls-files", "--error-unmatch", file.name):
        return None
    commit = git("rev-parse", "--short=12", "HEAD")
    return commit and commit + ("+" if git("status", "--porcelain", "--untracked-files=no", "--", "..") else "")
