"""What a decision of Pixel TTRL costs per query, apart from sampling: `decide` and `credit` on facts as nano records them.

    python benchmarks/decide.py                     # the table
    python benchmarks/decide.py --queries 200 --rollouts 16

Facts are drawn, not sampled by a policy: chains of the six tools about images and videos of PixelWorld's size, whose rollouts look at
nearly the same places, as rollouts of one question do, and neighbours with the votes and the exemplar that a memory keeps. Times are the
processor's for this one thread, so that a busy machine does not count; `OMP_NUM_THREADS=1` keeps numpy at one, too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np

from pixelis.core.geometry import Box, Mask, View
from pixelis.core.ops import (
    Attribute,
    OcrOutput,
    Output,
    PropOutput,
    Segment,
    SegOutput,
    TempOutput,
    TextSpan,
    TrackPoint,
    TrkOutput,
    ZoomOutput,
)
from pixelis.ttrl.decide import credit, decide
from pixelis.ttrl.evidence import Evidence
from pixelis.ttrl.facts import NeighbourFacts, QueryFacts, RolloutFacts
from pixelis.ttrl.reliability import Cast
from pixelis.ttrl.value import ValueState

WIDTH, HEIGHT, NUM_FRAMES, FPS = 320, 240, 40, 8.0
WORDS = ("exit", "gate 4", "platform 9", "open", "3")
KINDS = {"image": ("SEG", "ZOOM", "OCR", "PROP"), "video": ("TRK", "TEMP", "SEG", "PROP")}


def near(rng: np.random.Generator, box: Box) -> Box:
    """Nearly the same place, whole pixels."""
    x0, y0 = round(box.x0 + rng.normal(0, 3)), round(box.y0 + rng.normal(0, 3))
    return Box(x0, y0, x0 + box.width, y0 + box.height).clip(width=WIDTH, height=HEIGHT)


def output(rng: np.random.Generator, op: str, place: Box) -> Output:
    """What a tool may have shown of that place."""
    box, name = near(rng, place), WORDS[rng.integers(len(WORDS))]
    if op == "SEG":
        mask_HW = np.zeros((HEIGHT, WIDTH), bool)
        mask_HW[int(box.y0) : int(box.y1), int(box.x0) : int(box.x1)] = True
        return SegOutput(frame=0, box=box, mask=Mask.from_array(mask_HW), area_share=0.05, score=0.9)
    if op == "ZOOM":
        return ZoomOutput(frame=0, box=box, view=View(box.x0, box.y0, 2, 2), width=80, height=80, image="0" * 64)
    if op == "TRK":
        points = tuple(TrackPoint(frame=k, time_s=k / FPS, box=near(rng, box), score=0.9) for k in range(NUM_FRAMES))
        return TrkOutput(track_id=1, points=points, score=0.9)
    if op == "OCR":
        return OcrOutput(frame=0, box=box, spans=(TextSpan(text=name, box=box, confidence=0.9),))
    if op == "TEMP":
        segments = tuple(Segment(start_s=k + rng.random(), end_s=k + 1.5, score=0.8) for k in range(2))
        return TempOutput(event="moves", box=None, first_frame=0, last_frame=NUM_FRAMES - 1, segments=segments)
    return PropOutput(what="colour", frame=0, box=box, attributes=(Attribute(name="colour", value=name, confidence=0.9),))


def chain(rng: np.random.Generator, ops: tuple[str, ...], place: Box, num_steps: int) -> tuple[Evidence, ...]:
    chosen = [ops[rng.integers(len(ops))] for _ in range(num_steps)]
    return tuple(Evidence(op=op, output=output(rng, op, place), is_decisive=bool(rng.random() < 0.7)) for op in chosen)


def draw(rng: np.random.Generator, number: int, kind: str, *, rollouts: int, neighbours: int, steps: int) -> QueryFacts:
    """One query; every fourth neighbour is about the same medium."""
    x, y = int(rng.integers(10, 200)), int(rng.integers(10, 140))
    place, ops = Box(x, y, x + 60, y + 50), KINDS[kind]

    def one() -> tuple[Evidence, ...]:
        return chain(rng, ops, place, max(1, steps + int(rng.integers(-1, 2))))

    own = [
        RolloutFacts(
            id=f"r{k}",
            answer=(said := WORDS[int(rng.integers(2))]),
            label=said,
            confidence=float(rng.random()),
            entropy_nats=float(rng.random()),
            curiosity=float(rng.random()),
            coherence=float(rng.random()),
            evidence=one(),
        )
        for k in range(rollouts)
    ]
    near_by = [
        NeighbourFacts(
            id=f"n{k}",
            similarity=float(rng.random()),
            medium="m" if k % 4 == 0 else f"other{k}",
            votes=tuple(Cast(task="", worker=one.worker, label=WORDS[int(rng.integers(3))]) for one in own),
            evidence=one(),
            intrinsic=float(rng.random()),
        )
        for k in range(neighbours)
    ]
    return QueryFacts(id=f"{kind}{number}", medium="m", rollouts=tuple(own), neighbours=tuple(near_by))


def timed(work: Callable[[QueryFacts], object], queries: list[QueryFacts]) -> np.ndarray:
    """Milliseconds per query, the first one left out."""
    taken = []
    for facts in queries:
        start = time.thread_time()
        work(facts)
        taken.append(1e3 * (time.thread_time() - start))
    return np.array(taken[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("queries", 60), ("rollouts", 8), ("neighbours", 8), ("steps", 5), ("seed", 0)):
        parser.add_argument(f"--{name}", type=int, default=value)
    wanted = parser.parse_args()
    rng = np.random.default_rng(wanted.seed)
    print(f"{wanted.rollouts} rollouts of about {wanted.steps} steps, {wanted.neighbours} neighbours, {wanted.queries} queries each")
    print(f"{'medium':8} {'part':8} {'p50 ms':>8} {'p95 ms':>8}")
    for kind in KINDS:
        sizes = {"rollouts": wanted.rollouts, "neighbours": wanted.neighbours, "steps": wanted.steps}
        queries = [draw(rng, k, kind, **sizes) for k in range(wanted.queries + 1)]
        decisions = {facts.id: decide(facts) for facts in queries}
        parts = {"decide": decide, "credit": lambda facts, known=decisions: credit(facts, known[facts.id], ValueState())}
        for name, work in parts.items():
            ms = timed(work, queries)
            print(f"{kind:8} {name:8} {np.percentile(ms, 50):8.2f} {np.percentile(ms, 95):8.2f}")


if __name__ == "__main__":
    main()
