"""What a run says it was made with."""

from __future__ import annotations

import platform
import subprocess
import sys

from pixelis import __version__
from pixelis.core.versions import commit_of, versions


def git(folder, *words):
    command = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c", *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_versions_name_what_is_loaded():
    import numpy as np
    import PIL

    found = versions()
    assert (found["pixelis"], found["python"], found["numpy"]) == (__version__, platform.python_version(), np.__version__)
    assert found["pillow"] == PIL.__version__


def test_versions_name_what_a_run_will_load_later():
    script = "import sys; from pixelis.core.versions import versions; print('scipy' in versions(), 'scipy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["True", "False"]


def test_a_commit_is_told_where_the_file_is_tracked(tmp_path):
    package = tmp_path / "package"
    package.mkdir()
    file = package / "one.py"
    file.write_text("1")
    assert commit_of(file) is None  # no repository
    git(tmp_path, "init", "-q")
    assert commit_of(file) is None  # a repository that does not know it
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-qm", "first")
    assert commit_of(file) == git(tmp_path, "rev-parse", "--short=12", "HEAD")
    file.write_text("2")
    assert commit_of(file) == git(tmp_path, "rev-parse", "--short=12", "HEAD") + "+"
    assert commit_of(tmp_path / "absent" / "two.py") is None
