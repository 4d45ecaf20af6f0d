"""The process of a stage: a command of `pixelis`, as `python -m pixelis.staged PARENT THREADS WORD...`; THREADS 0 bounds none."""

from __future__ import annotations

import signal
import sys

from pixelis.cli import main
from pixelis.core.child import keep_to, leave_with

if __name__ == "__main__":
    _, parent, threads, *words = sys.argv
    leave_with(int(parent))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background has it ignored, and interrupts its stages by it
    if int(threads):
        keep_to(int(threads))
    sys.argv = ["pixelis", *words]
    main()
