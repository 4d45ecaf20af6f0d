"""Where a run of Pixel TTRL is, and how it is kept, so that a killed one goes on to the same decisions.

After every query the state is written, whole or not at all, and with it the item that the memory is to take in: on the disk first, in the
memory then. So memory and state never disagree by more than that item, which is added again on resuming, where it does no harm. Updates
whose weights do not serve yet are kept as jobs, and taken again on resuming.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from pixelis.core.errors import ConfigError, DataError
from pixelis.core.ops import record
from pixelis.core.store import write_whole
from pixelis.retrieval.entry import Entry, Item
from pixelis.train.corridor import CorridorSettings, CorridorState
from pixelis.ttrl.decide import DecisionSettings, dump, load
from pixelis.ttrl.job import Job, job_of, plain_job
from pixelis.ttrl.lift import Light, light_of, plain_light
from pixelis.ttrl.stress import Stress
from pixelis.ttrl.value import ValueState
from pixelis.ttrl.worker import Weights

STATE_FILE, QUERIES_FILE, AUDIT_FILE, METRICS_FILE, ABOUT_FILE = "state.pt", "queries.jsonl", "audit.jsonl", "metrics.jsonl", "adapt.json"
LINES_FILES = (QUERIES_FILE, AUDIT_FILE, METRICS_FILE)
Log = Callable[[dict[str, Any]], None]
METHODS = ("ttrl", "entropy", "retrieval")
"""Of test-time adaptation; see `ttrl/methods.py`."""


@dataclass(frozen=True)
class AdaptSettings:
    """Values of a run; `recipes/nano/ttrl.toml` says where each comes from.

    Args:
        rollouts: of each query.
        neighbours: retrieved for each query; 0 retrieves nothing.
        omega: weight of the pixel cosine in retrieval.
        method: a name in `METHODS`; `methods.as_method` sets what it implies.
        learns: False only decides: to calibrate, or to measure the vote alone.
        max_accepted: updates accepted by the vote after which the run goes on answering and learns no more; None for no limit. For arms of
            a study at one budget: the least that any of them accepts.
        ema: decay of the anchor per update that was not taken back; 1 keeps it where it began, 0 has none.
        rate: of the optimiser, constant; 0 leaves the weights as they are.
        beta: the corridor's start.
        use_corridor: False keeps beta as it is.
        max_steps: of a rollout.
        max_mismatch: mean |log p of training - log p of the sampler| in nats beyond which nothing is learnt from a query.
        lag: queries that are answered before an update serves. 0 updates between answers; from 1 on a worker updates beside serving.
        deadline_s: how long an answer waits for an update that should serve it.
        lift_spread: standard deviation of the lifts (shares of the medium's headroom) that a query's rollouts try around the policy's, so
            that it learns how bright to look (`ttrl/lift.py`); 0 shows all of them the same.
        last_layers: decoder layers that learn, from the top; None for all that learns.
        stress: what is done to neighbours and to the asking key on purpose.

    Raises:
        ConfigError: an unknown method, or a value that would silently do nothing or another thing.
    """

    rollouts: int = 8
    neighbours: int = 8
    omega: float = 0.5
    method: str = "ttrl"
    learns: bool = True
    max_accepted: int | None = None
    ema: float = 0.995
    rate: float = 2e-5
    beta: float = 0.3
    use_corridor: bool = True
    max_steps: int = 10
    batch_tokens: int = 6000
    max_mismatch: float = 0.02
    num_parallel: int = 8
    lag: int = 0
    deadline_s: float = 600.0
    lift_spread: float = 0.0
    last_layers: int | None = None
    seed: int = 0
    decision: DecisionSettings = DecisionSettings()
    corridor: CorridorSettings = CorridorSettings()
    stress: Stress = Stress()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise ConfigError(f"method {self.method!r}: choose one of {', '.join(METHODS)}")
        if self.neighbours == 0 and (self.method == "retrieval" or self.stress.changes_neighbours):
            raise ConfigError("neighbours = 0: method retrieval, flip and near_miss need some; give neighbours, or leave these out")
        if self.lift_spread and self.rollouts < 2:
            raise ConfigError(f"lift_spread = {self.lift_spread:g} compares rollouts of a query: give 2 or more, not {self.rollouts}")
        if self.last_layers is not None and not self.rate:
            raise ConfigError(f"last_layers = {self.last_layers} with rate = 0: nothing learns; give a rate, or leave it out")
        if self.decision.vote == "borda":
            raise ConfigError("vote = 'borda' wants rankings, and rollouts that serve give one answer each; compare it by eval consistency")
        if self.omega == 0 and self.stress.changes_pictures:
            raise ConfigError("omega = 0: keys hold no pixels that jpeg or rescale could change; give omega, or leave these out")

    @property
    def learns_lift(self) -> bool:
        return self.learns and self.lift_spread > 0

    def to_json(self) -> dict[str, Any]:
        """What makes a run what it is. What a run of an earlier release did not know is left out at its default: such a run goes on."""
        plain = {key: value for key, value in asdict(self).items() if key not in ("decision", "num_parallel", "deadline_s")}
        decision = json.loads(dump(self.decision))
        for table, key, default in (
            (plain, "method", "ttrl"),
            (plain, "max_accepted", None),
            (plain, "stress", asdict(Stress())),
            (decision, "counts_neighbours", False),
            (plain, "lift_spread", 0.0),
            (plain, "last_layers", None),
        ):
            if table[key] == default:
                del table[key]
        return json.loads(json.dumps(plain)) | {"decision": decision}


@record
class Tally:
    """Counts over the queries so far."""

    accepted: int = 0
    """Updates that the vote let through, whatever became of them."""
    abstained: int = 0
    rolled_back: int = 0
    held: int = 0
    """Not learnt from: training and sampler saw different things."""


@dataclass
class Progress:
    """All that decides how a run goes on, beside the memory."""

    position: int = 0
    corridor: CorridorState = field(default_factory=CorridorState.start)
    """After the latest update that serves."""
    value: ValueState = ValueState()
    tally: Tally = Tally()
    pending: Item | None = None
    """What the memory takes in next."""
    jobs: tuple[Job, ...] = ()
    """Of the latest queries: updates whose weights do not serve yet."""
    weights: Weights | None = None
    """Those that serve; None while nothing has been learnt."""


def claim(out: Path, about: dict[str, Any]) -> None:
    """Make the folder this run's own, or check that it is.

    Raises:
        ConfigError: it holds a run of other settings, another stream or another start.
        DataError: what it says of its run cannot be read.
    """
    path, about = out / ABOUT_FILE, json.loads(json.dumps(about))
    if not path.is_file():
        write_whole(path, (json.dumps(about, indent=1) + "\n").encode())
        return
    try:
        there = dict(json.loads(path.read_bytes()))
    except (ValueError, TypeError) as error:
        raise DataError(f"{path}: is damaged ({error}); delete the folder {out} and adapt again") from None
    if there != about:
        differs = [key for key in about if there.get(key) != about[key]]
        raise ConfigError(f"{out}: holds another run (its {', '.join(differs)} differ); choose a new folder")


def save(out: Path, progress: Progress) -> None:
    """The state, on the disk and whole when this returns."""
    item, weights = progress.pending, progress.weights
    pending = None if item is None else {"entry": asdict(item.entry), "text": _tensor(item.text_D), "pixel": _tensor(item.pixel_D)}
    state = {
        "position": progress.position,
        "corridor": asdict(progress.corridor),
        "value": dump(progress.value).decode(),
        "tally": asdict(progress.tally),
        "pending": pending,
        "jobs": [plain_job(job) for job in progress.jobs],
        "learner": None if weights is None else weights.learner,
        "anchor": None if weights is None else weights.anchor,
        "light": None if weights is None else plain_light(weights.light),
    }
    part = out / f".{STATE_FILE}.part"
    with part.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, out / STATE_FILE)


def resume(out: Path, beta: float) -> Progress:
    """Where the run in the folder is; at its start where there is no state yet.

    Raises:
        DataError: the state cannot be read.
    """
    path = out / STATE_FILE
    if not path.is_file():
        return Progress(corridor=CorridorState.start(beta))
    try:
        found = torch.load(path, weights_only=True)
    except Exception as error:  # noqa: BLE001 whatever is wrong with it, the user hears which file
        raise DataError(f"{path}: cannot be read ({error}); delete the folder {out} and adapt again") from None
    pending = found["pending"]
    return Progress(
        position=found["position"],
        corridor=CorridorState(**found["corridor"]),
        value=load(ValueState, found["value"].encode(), where=str(path)),
        tally=Tally(**found["tally"]),
        pending=None if pending is None else Item(Entry(**pending["entry"]), _array(pending["text"]), _array(pending["pixel"])),
        jobs=tuple(job_of(job) for job in found["jobs"]),
        weights=None if found["learner"] is None else _weights(found),
    )


def _weights(found: dict[str, Any]) -> Weights:
    light = found.get("light")  # an earlier release knew of none
    return Weights(found["learner"], found["anchor"], Light() if light is None else light_of(light))


def _tensor(part: Any) -> torch.Tensor | None:
    return None if part is None else torch.from_numpy(part.copy())


def _array(part: torch.Tensor | None) -> Any:
    return None if part is None else part.numpy()


class Lines:
    """A JSONL file with one line per query; on opening, lines behind the first `num` are dropped."""

    def __init__(self, path: Path, num: int) -> None:
        kept = path.read_bytes().split(b"\n")[:num] if path.is_file() else []
        if len(kept) < num:
            raise DataError(f"{path}: holds {len(kept)} of {num} queries; the folder is damaged: adapt into a new one")
        write_whole(path, b"".join(line + b"\n" for line in kept))
        self._file = path.open("ab")

    def write(self, line: bytes) -> None:
        """On the disk when this returns."""
        self._file.write(line + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
