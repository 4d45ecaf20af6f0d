"""Real kills of phases 1 to 3: a run that is killed at random moments and gone on with ends at the bytes of one that was not.

A newborn policy of a few hundred thousand parameters, PixelWorld and the real tools. The parent starts the command, sends SIGKILL to it
and all its children after a random time, starts it again, and so on; once it has been killed often enough it may end. Weights, journals
and what else the run leaves are then compared with those of an undisturbed run.

    python benchmarks/parts/run_crash.py --kills 8 --folder FOLDER [--phase sft --phase rft --phase adapt]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from pixelis.policy.prompt import Prompting
from pixelis.policy.vlm_make import make_checkpoint
from pixelis.train.vocabulary import make_vocabulary

SIZES = {"hidden": 48, "num_layers": 3, "num_heads": 3, "num_kv_heads": 3, "vision_hidden": 32, "vision_layers": 1, "num_deepstack": 0}
SIDE = (128, 96)
PROMPTING = Prompting(guide="", has_schemas=False, max_pixels=SIDE[0] * SIDE[1], max_frames=2, image_size=SIDE, frame_size=SIDE)
COTA = """seed = 0
[cota]
out = "{folder}/cota"
[cota.shares]
attribute = {{ media = 24 }}
no_tool = {{ media = 24 }}
"""
SFT = """seed = 0
checkpoint = "{folder}/born"
out = "unused"
traces = ["{folder}/cota"]
dev_traces = ["{folder}/cota"]
[sft]
epochs = 6
rounds = 2
batch_tokens = 1500
max_tokens = 1500
dev_every = 20
dev_traces = 8
save_every_s = 0.001
"""
RFT = """seed = 0
checkpoint = "{folder}/born"
out = "unused"
max_new_tokens = 24
[rft]
updates = 12
prompts = 2
group = 3
max_steps = 3
families = ["no_tool", "attribute"]
save_every_s = 0.0
"""
ADAPT = """seed = 0
checkpoint = "{folder}/born"
out = "unused"
max_new_tokens = 24
[stream]
split = "test"
seed = 1
segments = ["24 lighting:3"]
families = ["no_tool", "attribute"]
[adapt]
rollouts = 3
max_steps = 2
rate = 1e-3
lift_spread = 0.5
max_mismatch = 1.0
[vote]
delta = 0.0
[serve]
lag = 1
"""
PHASES = {"sft": (SFT, ("train", "sft")), "rft": (RFT, ("train", "rft")), "adapt": (ADAPT, ("adapt",))}
BY_THE_CLOCK = ("seconds", "tokens_per_s", "mismatch")
"""Of a journal's rows. Which conversations step together hangs on how long tools take, and the sampler's rounding on that: its
log-probabilities differ by a millionth of a nat, and so does their distance from training's. Nothing is learnt from either."""


def command(phase: str, folder: Path, out: Path) -> list[str]:
    return [sys.executable, "-m", "pixelis.cli", *PHASES[phase][1], str(folder / f"{phase}.toml"), "--out", str(out)]


def left_behind(out: Path) -> dict[str, object]:
    """What a finished run leaves, by file: bytes, but journals and trajectories without what hangs on the clock."""
    found: dict[str, object] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if not path.is_file() or path.name in ("commands.jsonl", ".lock", "timings.jsonl") or path.suffix == ".npz":
            continue
        if path.name == "metrics.jsonl":
            rows = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{key: value for key, value in row.items() if key not in BY_THE_CLOCK} for row in rows]
        elif path.name == "trajectories.jsonl":
            rows = [json.loads(line)["trajectory"] for line in path.read_text().splitlines()]
            found[name] = [{**row, "tokens": [run["ids"] for run in row["tokens"]]} for row in rows]
        else:
            found[name] = path.read_bytes()
    return found


def started(words: Sequence[str]) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)


def ended(child: subprocess.Popen, *, within_s: float) -> bool:
    """Whether it ends by itself in that time; else it is killed, with all that it has started."""
    try:
        _, said = child.communicate(timeout=within_s)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.communicate()
        return False
    if child.returncode:
        sys.exit(f"{' '.join(child.args)} ended with {child.returncode}: {said.decode()[-1500:]}")
    return True


def examined(phase: str, folder: Path, kills: int, seed: int) -> str:
    """One line on a phase.

    Raises:
        SystemExit: the two runs left different things.
    """
    begun = time.monotonic()
    whole, again = folder / f"{phase}-whole", folder / f"{phase}-killed"
    ended(started(command(phase, folder, whole)), within_s=3600)
    whole_s, rng, num_kills, num_starts = time.monotonic() - begun, random.Random(seed), 0, 0
    while True:
        num_starts += 1
        # A process takes seconds to begin; one that were always killed before it has kept anything would never get anywhere.
        is_last = num_kills >= kills
        if ended(started(command(phase, folder, again)), within_s=3600 if is_last else rng.uniform(0.3, 0.8) * whole_s):
            break
        num_kills += 1
    one, two = left_behind(whole), left_behind(again)
    differs = sorted(name for name in one.keys() | two.keys() if one.get(name) != two.get(name))
    if differs:
        sys.exit(f"{phase}: after {num_kills} kills {', '.join(differs)} differ")
    size = sum(len(value) for value in one.values() if isinstance(value, bytes))
    spent = time.monotonic() - begun
    return f"{phase:6} {num_kills:3} kills {num_starts:3} starts   {len(one):3} files, {size / 1e6:.1f} MB   equal   {spent:.0f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="to work in; what it holds of an earlier call is deleted")
    parser.add_argument("--kills", type=int, default=8, help="of each phase, unless it ends before")
    parser.add_argument("--phase", action="append", choices=sorted(PHASES), help="may be given several times; all unless given")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    folder = args.folder.resolve()
    for name in ("born", "cota", *(f"{phase}-{kind}" for phase in PHASES for kind in ("whole", "killed"))):
        shutil.rmtree(folder / name, ignore_errors=True)
    make_checkpoint(folder / "born", make_vocabulary(), **SIZES, max_pixels=SIDE[0] * SIDE[1])
    PROMPTING.save(folder / "born")
    for name, text in (("cota", COTA), *((phase, recipe) for phase, (recipe, _) in PHASES.items())):
        (folder / f"{name}.toml").write_text(text.format(folder=folder))
    phases = args.phase or list(PHASES)
    if "sft" in phases:
        subprocess.run(
            [sys.executable, "-m", "pixelis.cli", "data", "cota", str(folder / "cota.toml")], check=True, stdout=subprocess.DEVNULL
        )
    for number, phase in enumerate(phases):
        print(examined(phase, folder, args.kills, args.seed + number), flush=True)


if __name__ == "__main__":
    main()
