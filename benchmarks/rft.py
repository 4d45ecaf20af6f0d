"""Seconds per update of phase 2: ours beside TRL's GRPOTrainer, with one policy, the same items and tools, in turns.

TRL takes multi-turn tool calls with images natively: PixelWorld and the six tools are its `environment_factory`, each rollout one
environment, on its transformers backend (vLLM needs a GPU and its own kernels). Both sides start from the same weights and read the same
prompts (checked by checksum), in groups of the same size, float32, temperature 1, with the same banned tokens, the same cap on the tokens
of a turn and on calls, the same result cache, learning rate and beta. Left to itself TRL would end a rollout at the first call that it
cannot parse; here its tokenizer reads turns as our runner does, so that a broken call gets its error to read on both. Media are opened
once an update, and the vision tower is frozen, on both. Each side is a process of its own; they do one update each in turns, and which
one begins alternates.

What differs, by design of the two: TRL takes turns in step, prefills the whole conversation anew every turn, pads all rollouts to the
longest, and learns from all of them. It samples the end token of every turn; ours stops behind the closing tag. Ours also measures every
rollout under the sampling weights (the mismatch gate), gives curiosity and coherence with their heads, and learns only from groups that are
not flat. TRL's reward is the answer and the penalty alone.

generate: the rollouts, but for the time in which tools ran and the model wrote nothing, which is `tools`. score: log-probabilities and
rewards. train: the steps. The first update of each side is a warm-up and not counted, except with --tiny.

    python benchmarks/rft.py --updates 5 --out docs/results/trl_rft.md
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import resource
import shlex
import sys
import time
from dataclasses import replace
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.parts.rft_facts import Options, Side, Update, page

from pixelis.policy.prompt import Prompting

CHECKPOINT = ROOT / "src" / "pixelis" / "weights" / "nano-sft"
SIDES = ("ours", "TRL")


def side_of(name: str) -> Side:
    """Imported in its own process only: neither side's packages weigh on the other."""
    if name == "ours":
        from benchmarks.parts.rft_ours import ours

        return ours
    from benchmarks.parts.rft_trl import trl

    return trl


class PipeGate:
    """A side's end of the pipe."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._cpu_s = pipe, 0.0

    def wait(self) -> None:
        self._pipe.recv()
        self._cpu_s = time.process_time()

    def done(self, update: Update) -> None:
        self._pipe.send(replace(update, cpu_s=time.process_time() - self._cpu_s, peak_mib=peak_mib()))


def peak_mib() -> float:
    """Resident memory of this process at its highest; on a GPU, what torch took there at its highest."""
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**20
    highest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return highest / 2**20 if sys.platform == "darwin" else highest / 2**10


def work(name: str, options: Options, pipe: Connection) -> None:
    try:
        side_of(name)(options, PipeGate(pipe))
    except EOFError:  # the parent is gone
        return


def compare(options: Options) -> dict[str, list[Update]]:
    """All updates of both sides, in turns."""
    spawn = multiprocessing.get_context("spawn")
    pipes, processes, found = {}, [], {name: [] for name in SIDES}
    for name in SIDES:
        pipes[name], far = spawn.Pipe()
        processes.append(spawn.Process(target=work, args=(name, options, far), name=name, daemon=True))
        processes[-1].start()
        far.close()
    for number in range(options.updates):
        for name in SIDES[:: -1 if number % 2 else 1]:
            try:
                pipes[name].send("go")
                found[name].append(pipes[name].recv())
            except (EOFError, BrokenPipeError):
                raise SystemExit(f"{name} ended before its update {number + 1}: its error stands above") from None
            update = found[name][-1]
            print(f"update {number} {name}: {update.seconds:.2f} s, {update.sampled_tokens} tokens, {update.num_turns} turns", flush=True)
    for process in processes:
        process.join()
    return found


def make_options(args: argparse.Namespace) -> Options:
    prompting = Prompting.of(args.checkpoint)
    if prompting.guide or prompting.has_schemas:
        raise SystemExit(f"{args.checkpoint} reads a guide or schemas, which the sides would write differently: take nano-sft or its like")
    if args.updates < 1 or args.groups < 1 or args.size < 2:
        raise SystemExit(f"at least 1 update, 1 group and 2 rollouts of each are needed; got {args.updates}, {args.groups} and {args.size}")
    rows = args.trl_rows or args.size
    if args.groups * args.size % rows:
        raise SystemExit(f"--trl-rows {rows} does not divide the {args.groups * args.size} rollouts of an update")
    options = Options(str(args.checkpoint), args.updates + 1, args.groups, args.size, threads=args.threads, trl_rows=rows)
    if args.tiny:
        families = ("read_sign", "when_appears")
        return replace(options, updates=1, groups=2, size=2, max_steps=3, families=families, trl_rows=2)
    return options


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--updates", type=int, default=5, help="that are counted, of each side")
    parser.add_argument("--groups", type=int, default=8, help="prompts of an update")
    parser.add_argument("--size", type=int, default=6, help="rollouts of each prompt")
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="of torch, on each side")
    parser.add_argument("--trl-rows", type=int, help="rollouts of one pass of TRL's training; --size unless given")
    parser.add_argument("--out", type=Path, help="a Markdown page, beside standard output")
    parser.add_argument("--tiny", action="store_true", help="does it run at all: one small update each, nothing to conclude from")
    args = parser.parse_args()
    options = make_options(args)
    found = compare(options)
    counted = slice(0 if args.tiny else 1, None)
    about = (
        f"{Path(options.checkpoint).name}, {options.groups} prompts x {options.size} rollouts, at most {options.max_new_tokens} tokens a "
        f"turn and {options.max_steps} calls, float32, torch threads: {options.threads} on {os.cpu_count()} cores; "
        f"TRL {version('trl')} through `environment_factory`, transformers {version('transformers')}, torch {version('torch')}."
    )
    text = page(shlex.join(["python", "benchmarks/rft.py", *sys.argv[1:]]), about, found["ours"][counted], found["TRL"][counted])
    print(f"\n{text}")
    if args.out:
        args.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
