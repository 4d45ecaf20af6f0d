"""The process of a stage: a command of `pixelis`, as `python -m pixelis.staged PARENT THREADS WORD...`; THREADS 0 bounds none."""

from __future__ import annotations

import sys

from pixelis.cli import main
from pixelis.core.child import keep_to, leave_with

if __name__ == "__main__":
    _, parent, threads, *words = sys.argv
    leave_with(int(parent))
    if int(threads):
        keep_to(int(threads))
    sys.argv = ["pixelis", *words]
    main()
