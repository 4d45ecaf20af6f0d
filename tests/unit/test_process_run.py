"""Process metrics of a stored evaluation: what scripted chains must get under an encoder that sees colours only."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pixelis.core.errors import DataError
from pixelis.core.grammar import Turn, render_turn
from pixelis.core.ops import Call
from pixelis.data.world.items import make_item
from pixelis.eval.pixelworld import evaluate
from pixelis.eval.process_run import COSINES_FILE, process_json, process_report, process_text
from pixelis.testing import ScriptedPolicy
from pixelis.tools.execute import Executor
from pixelis.tools.settings import ToolSettings
from pixelis.tools.zoom import ZoomTool


class Colours:
    """Unit vector of the mean colour."""

    version = "colours"

    def __init__(self):
        self.num_seen = 0

    def embed(self, images):
        self.num_seen += len(images)
        means = np.stack([image.reshape(-1, 3).mean(0) + 1 for image in images])
        return means / np.linalg.norm(means, axis=1, keepdims=True)


def item_of(task):
    _, seed, index, family = task.id.partition("@")[0].split("-")
    return make_item(task.id.split("-")[0], int(index), seed=int(seed), family=family)


def near(task, reach: int) -> str:
    """A box around the evidence, larger or smaller: all of them cover it."""
    item = item_of(task)
    box = min((box for _, box in item.evidence.boxes), key=lambda box: box.area)
    x, y = 1000 / item.width, 1000 / item.height
    edges = (box.x0 * x - reach, box.y0 * y - reach, box.x1 * x + reach, box.y1 * y + reach)
    return render_turn(
        Turn(thought="Here.", call=Call(op="ZOOM", arguments={"bbox_2d": [min(max(round(edge), 0), 1000) for edge in edges]}))
    )


def chain(task):
    """Items in turn: three looks at one place and the right answer, or no look and a wrong one."""
    item = item_of(task)
    looks = [near(task, reach) for reach in (5, 6, 7)] if item.index % 2 == 0 else []
    return [*looks, render_turn(Turn(thought="So.", answer=item.answer if looks else "nothing"))]


def run(folder, split, num=6):
    executor = Executor({"ZOOM": ZoomTool()})
    evaluate(
        ScriptedPolicy(chain),
        executor,
        ToolSettings(),
        split=split,
        num_items=num,
        families=("read_sign",),
        out_folder=folder,
        keep_media=False,
    )
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("process")
    return run(folder / "test", "test"), run(folder / "dev", "dev")


def test_chains_that_look_get_it_and_chains_that_do_not_get_nothing(runs):
    test, dev = runs
    report = process_report(test, dev, Colours())
    assert report.rapr.value == 0.5 and report.rapr.count == 6  # half of the trajectories, all of their steps
    assert [row.rapr for row in report.rows] == [1, 0] * 3 and [row.right for row in report.rows] == [1, 0] * 3
    assert report.racpr.rate.value <= 0.5 and {row.racpr for row in report.rows} <= {0.0, 1.0}
    assert report.entropy.pooled == 0 and report.entropy.num_calls == 9  # one op only
    # Right where it looked, in every one of six items.
    assert report.correlations["rapr"]["point-biserial"].value == pytest.approx(1)
    assert report.plans is None and json.loads(json.dumps(process_json(report), allow_nan=False))["prc"] is None
    assert "RaCPR" in process_text(report)


def test_cosines_are_kept_and_used_again(runs):
    test, dev = runs
    process_report(test, dev, Colours())
    encoder = Colours()
    process_report(test, dev, encoder)
    assert encoder.num_seen == 0
    (test / COSINES_FILE).write_text("{}\n")  # of something else: made again
    process_report(test, dev, encoder)
    assert encoder.num_seen == 9


def test_plans_survive_nothing_changed(runs):
    test, dev = runs
    report = process_report(test, dev, Colours(), executor=Executor({"ZOOM": ZoomTool()}), num_plans=2)
    # Zooms stand in no answer and no later call is built on them: no evidence, so nothing to survive.
    assert report.plans is not None and report.plans.rate.count + report.plans.rate.num_unscored == 2
    assert "PRC" in process_text(report)


def test_a_run_is_no_yardstick_of_its_own(runs, tmp_path):
    with pytest.raises(DataError, match="its own yardstick"):
        process_report(runs[0], runs[0], Colours())
    with pytest.raises(DataError):
        process_report(runs[0], tmp_path, Colours())
