"""Who takes the updates: order, failures, deadlines and stops, with students that learn nothing; a job to the disk and back."""

from __future__ import annotations

import io
import threading

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from pixelis.core.errors import ConfigError, DataError
from pixelis.policy.buffer import ImageRef, PlacedImage
from pixelis.policy.vlm_vision import Features
from pixelis.rollout.pack import ANSWER, Example, TurnSpan
from pixelis.train.corridor import CorridorState
from pixelis.ttrl.job import Job, job_of, plain_job
from pixelis.ttrl.learn import Lesson
from pixelis.ttrl.worker import Done, Inline, Shelf, UpdateFailed, Worker


def job(number, **more):
    return Job(
        number=number, query=f"{number}:q", answer="3", is_masked=False, lessons=(), trials=(), features={}, row={"query": number}, **more
    )


class Pupil:
    """Notes what it takes; fails at a place, or waits until it may go on."""

    def __init__(self, fails_at=None, error=ZeroDivisionError("by hand"), gate=None):
        self.taken, self._fails_at, self._error, self._gate = [], fails_at, error, gate

    def take(self, job):
        if self._gate is not None:
            self._gate.wait()
        if job.number == self._fails_at:
            raise self._error
        self.taken.append(job.number)
        return Done(job, None, CorridorState.start(), None, 0.0)


@pytest.mark.parametrize("kind", [Inline, lambda pupil: Worker(pupil, deadline_s=60)])
def test_jobs_come_out_as_they_went_in(kind):
    pupil = Pupil()
    updates = kind(pupil)
    for number in range(4):
        updates.submit(job(number))
    assert len(updates) == 4
    assert [updates.collect().job.number for _ in range(3)] == [0, 1, 2] and len(updates) == 1
    assert updates.collect().job.number == 3 and pupil.taken == [0, 1, 2, 3] and not len(updates)
    updates.close()
    updates.close()


def test_a_job_that_is_collected_in_the_same_thread_is_taken_then():
    pupil = Pupil()
    updates = Inline(pupil)
    updates.submit(job(0))
    assert pupil.taken == []  # so the answer in between sees the weights before it
    updates.collect()
    assert pupil.taken == [0]


def test_the_worker_does_not_wait_to_be_asked():
    gate = threading.Event()
    worker = Worker(Pupil(gate=gate), deadline_s=60)
    worker.submit(job(0))
    gate.set()
    worker.close()
    assert worker.student.taken == [0] and len(worker) == 1  # taken, and still to be collected
    assert worker.collect().job.number == 0


@pytest.mark.parametrize(("error", "kind"), [(ZeroDivisionError("by hand"), UpdateFailed), (DataError("by hand"), DataError)])
def test_a_failure_is_raised_where_its_job_is_collected_and_nothing_is_taken_after_it(error, kind):
    worker = Worker(Pupil(fails_at=1, error=error), deadline_s=60)
    for number in range(3):
        worker.submit(job(number))
    assert worker.collect().job.number == 0
    for _ in range(2):
        with pytest.raises(kind, match=r"update of query 1:q failed: .*by hand") as caught:
            worker.collect()
        assert caught.value.__cause__ is error
    worker.submit(job(3))
    worker.close()
    assert worker.student.taken == [0]


def test_an_update_that_never_ends_is_a_message():
    gate = threading.Event()
    worker = Worker(Pupil(gate=gate), deadline_s=0.01)
    worker.submit(job(7))
    with pytest.raises(ConfigError, match=r"update of query 7:q is not done after 0\.01 s; .*deadline_s in \[serve\]"):
        worker.collect()
    worker.close()  # does not wait for it
    gate.set()


def test_a_stop_takes_what_is_inside_first():
    gate = threading.Event()
    worker = Worker(Pupil(gate=gate), deadline_s=60)
    for number in range(3):
        worker.submit(job(number))
    gate.set()
    worker.close()
    assert worker.student.taken == [0, 1, 2]


def test_a_shelf_holds_what_is_shown_and_the_canary_set_always():
    one, two = (Features(torch.full((1, 2), value), torch.zeros(0, 1, 2)) for value in (1.0, 2.0))
    shelf = Shelf({"canary": one})
    shelf.shown = {"image": two}
    assert shelf.features(["image", "canary", "image"]) == [two, one, two]
    shelf.shown = {}
    with pytest.raises(KeyError):
        shelf.features(["image"])


def test_a_job_goes_to_the_disk_and_back():
    half = torch.tensor([[0.1, -2.5]]).half().float()  # features come from halves
    example = Example(
        ids_T=np.array([5, 6, 7], np.int32),
        role_T=np.array([0, 2, 3], np.int8),
        positions_3T=np.arange(9, dtype=np.int32).reshape(3, 3),
        images=(PlacedImage(ImageRef("a" * 64, (1, 2, 2)), 0, 1),),
        turns=(TurnSpan(1, 3, ANSWER, 3, 3),),
        trajectory_id="t",
    )
    lesson = Lesson(example, torch.tensor([-0.5, -0.25]), torch.tensor([-0.75, -0.125]), 0.1 + 0.2)
    whole = Job(
        number=3, query="3:q", answer=None, is_masked=True, lessons=(lesson,), trials=((0.25, 0.1 + 0.2), (-0.25, -0.5)),
        features={"a" * 64: Features(half, half[None])}, row={"query": 3, "kl": None, "seconds": {"sample": 0.5}},
    )  # fmt: skip
    file = io.BytesIO()
    torch.save(plain_job(whole), file)
    file.seek(0)
    again = job_of(torch.load(file, weights_only=True))
    assert (again.number, again.query, again.answer, again.is_masked, again.row) == (3, "3:q", None, True, whole.row)
    assert again.trials == whole.trials
    (back,) = again.lessons
    assert torch.equal(back.logp_N, lesson.logp_N) and torch.equal(back.anchor_logp_N, lesson.anchor_logp_N)
    assert back.advantage == lesson.advantage
    for name in ("ids_T", "role_T", "positions_3T"):
        one, two = getattr(back.example, name), getattr(example, name)
        assert one.dtype == two.dtype and np.array_equal(one, two)
    assert (back.example.images, back.example.turns, back.example.trajectory_id) == (example.images, example.turns, "t")
    kept = again.features["a" * 64]
    assert torch.equal(kept.tokens_ND, half) and torch.equal(kept.deep_LND, half[None])
