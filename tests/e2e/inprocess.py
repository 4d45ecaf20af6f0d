"""`pixelis` as from a shell, but in this process: what a command costs is then the command, not five seconds of imports before it."""

from __future__ import annotations

import contextlib
import io
import sys
from dataclasses import dataclass

from pixelis.cli import main


@dataclass(frozen=True)
class Finished:
    returncode: int
    stdout: str
    stderr: str


def pixelis(*args: object, ok: bool = True) -> Finished:
    """One command line, which must end well, or must not where `ok` is False."""
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["pixelis", *map(str, args)]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        sys.argv = before
    assert (code == 0) is ok, out.getvalue() + err.getvalue()
    return Finished(code, out.getvalue(), err.getvalue())
