"""PlannerPolicy: a plan per question, written turn by turn."""

from __future__ import annotations

import json

from pixelis.core.errors import PixelisError
from pixelis.core.grammar import RESPONSE_CLOSE, RESPONSE_OPEN, TAGS, Turn, render_turn
from pixelis.core.ops import Call
from pixelis.core.trajectory import PolicyInfo, TokenRun
from pixelis.policy.base import Observation, PolicyError, Task
from pixelis.policy.planner import moments, photos, stills, texts, videos
from pixelis.policy.planner.base import Act, Plan, Scene
from pixelis.policy.planner.question import choose, parse

VERSION = "1"
MAX_ANSWER_CHARS = 2_000

PLANS = {
    "sum": stills.total,
    "light": stills.light,
    "sign_sum": texts.sign_numbers,
    "sign_difference": texts.sign_numbers,
    "sign_compare": texts.sign_numbers,
    "chart_difference": texts.chart,
    "chart_best": texts.chart,
    "chart_value": texts.chart,
    "table_best": texts.table_best,
    "table_cell": texts.table_cell,
    "spot": stills.spot,
    "count_big": stills.count_big,
    "count_card": stills.count_card,
    "count": stills.count,
    "closer": stills.closer,
    "size_which": stills.size_which,
    "relation_side": stills.relation,
    "relation_true": stills.relation,
    "shape": stills.shape,
    "read": texts.read_sign,
    "text_there": texts.text_there,
    "colour": stills.colour,
    "how_big": lambda scene: photos.most_salient(scene, "size"),
    "orientation": lambda scene: photos.most_salient(scene, "orientation"),
    "where": photos.where,
    "describe": photos.describe,
    "unknown": photos.unknown,
    "order_true": moments.order,
    "order": moments.order,
    "timed_text": moments.timed_text,
    "timed_text_before": moments.timed_text,
    "timed_text_after": moments.timed_text,
    "when_appears": moments.when,
    "when_disappears": moments.when,
    "when_changes": moments.when,
    "when_moves": moments.when,
    "when_cut": moments.when,
    "faster": videos.faster,
    "speed": videos.speed,
    "turn_side": videos.turn,
    "turn_after": videos.turn,
    "end_place": videos.end_place,
    "direction": videos.direction,
    "describe_video": moments.describe_video,
}
"""Intent to plan."""


class PlannerPolicy:
    """Answers by rules: the question chooses a plan, the planner's eyes say where to point, the tools measure."""

    def __init__(self) -> None:
        self.info = PolicyInfo(name="planner", version=VERSION)

    def open(self, task: Task, *, seed: int) -> PlannerSession:
        question = parse(task.question, is_video=task.medium.kind == "video")
        return PlannerSession(PLANS[question.intent](Scene(task.medium, question)), question.options)

    def close(self) -> None:
        return None


class PlannerSession:
    def __init__(self, plan: Plan, options: tuple[str, ...]) -> None:
        self._plan = plan
        self._options = options
        self._response: dict | None = None

    async def act(self) -> str:
        """Raises: PolicyError: the medium cannot be read where the plan looks."""
        try:
            act = next(self._plan) if self._response is None else self._plan.send(self._response)
        except StopIteration as done:
            answer = clean(choose(self._options, str(done.value)))[:MAX_ANSWER_CHARS]
            return render_turn(Turn(thought="That answers it.", answer=answer))
        except PixelisError as error:
            raise PolicyError(str(error)) from None
        return _render(act)

    def observe(self, observation: Observation) -> None:
        body = observation.response.removeprefix(RESPONSE_OPEN).removesuffix(RESPONSE_CLOSE)
        self._response = json.loads(body)

    def tokens(self) -> tuple[TokenRun, ...]:
        return ()

    def close(self) -> None:
        self._plan.close()


def _render(act: Act) -> str:
    return render_turn(Turn(thought=clean(act.thought), call=Call(op=act.op, arguments=act.arguments)))


def clean(text: str) -> str:
    """A text without the grammar's tags, which hostile signs may hold."""
    for tag in TAGS:
        text = text.replace(tag, " ")
    return text.strip()
