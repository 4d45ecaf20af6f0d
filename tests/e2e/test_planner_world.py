"""The planner with the real tools: PixelWorld items of most families, and photos of anything."""

from __future__ import annotations

import io

import numpy as np
import pytest
import skimage.data
from PIL import Image

from pixelis.agent import make_executor
from pixelis.core.media import Medium, open_medium
from pixelis.data.world.items import make_item, render
from pixelis.data.world.score import score_answer
from pixelis.policy.base import Task
from pixelis.policy.planner import PlannerPolicy
from pixelis.rollout.run import Runner
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import resolved

FAMILIES = ("compare_signs", "attribute", "count", "size_compare", "relation", "table", "chart", "no_tool", "when_appears", "timed_text")
NEEDED_RIGHT = 8


@pytest.fixture(scope="module")
def runner() -> Runner:
    settings = resolved(ToolSettings())
    return Runner(PlannerPolicy(), make_executor(settings), settings=settings)


def ask(runner: Runner, medium: Medium, question: str):
    with medium:
        (rollout,) = runner.run([(Task(question=question, medium=medium), 0)])
    assert rollout.trajectory.stop == "answered", rollout.trajectory.stop_detail
    return rollout.trajectory


def photo(name: str) -> Medium:
    data = io.BytesIO()
    Image.fromarray(np.asarray(getattr(skimage.data, name)())).convert("RGB").save(data, "PNG")
    return open_medium(data.getvalue(), name=name)


def test_world(runner):
    right, told = 0.0, []
    for family in FAMILIES:
        item = make_item("dev", 0, seed=1, family=family)
        trajectory = ask(runner, open_medium(render(item), name=item.medium_name), item.prompt)
        right += (score := score_answer(item, trajectory.answer))
        told.append(f"{family} {score:g}: {item.prompt!r} -> {trajectory.answer!r}, truth {item.answer!r}")
        assert len(trajectory.steps) <= 14
    assert right >= NEEDED_RIGHT, "\n".join(told)


@pytest.mark.parametrize(
    ("name", "question", "right"),
    [
        ("coffee", "What colour is the cup?", {"red", "white", "brown"}),
        ("chelsea", "What colour is the cat?", {"brown", "orange"}),
        ("page", "What is the title of the page?", {"Region-based segmentation"}),
        ("coins", "How many coins are there?", {"22", "23", "24", "25", "26"}),
        ("coffee", "Is the dog left of the cat?", {"I cannot tell: I find things by colour and shape, and these I cannot find"}),
    ],
)
def test_photos(runner, name, question, right):
    assert ask(runner, photo(name), question).answer in right


def test_the_cup_is_about_half_of_the_photo(runner):
    answer = ask(runner, photo("coffee"), "How big is the largest object?").answer
    share = float(answer.split(",")[1].split("%")[0])
    assert 35 < share < 60
