"""TeacherPolicy: answers PixelWorld items by plan, knowing their truth; every call is executed by the real tools."""

from __future__ import annotations

import json
from collections.abc import Callable

from pixelis.core.grammar import RESPONSE_CLOSE, RESPONSE_OPEN, Turn, render_turn
from pixelis.core.ops import Call
from pixelis.core.trajectory import PolicyInfo, TokenRun
from pixelis.data.world.item import Item
from pixelis.data.world.rng import Rng
from pixelis.policy.base import Observation, PolicyError, Task
from pixelis.policy.planner.policy import clean
from pixelis.policy.planner.question import choose
from pixelis.rollout.teacher import stills, texts, videos
from pixelis.rollout.teacher.hand import Habits, Hand, Plan

VERSION = "8"

PLANS: dict[str, Callable[[Hand], Plan]] = {
    "read_sign": texts.read_sign,
    "compare_signs": texts.compare_signs,
    "attribute": stills.attribute,
    "count": stills.count,
    "size_compare": stills.size_compare,
    "relation": stills.relation,
    "table": texts.table,
    "chart": texts.chart,
    "no_tool": stills.no_tool,
    "false_premise": stills.false_premise,
    "end_place": videos.where_it_ends,
    "turn": videos.turn,
    "faster": videos.faster,
    "occlusion": videos.where_it_ends,
    "when_appears": videos.when,
    "when_disappears": videos.when,
    "when_changes": videos.when,
    "order": videos.order,
    "timed_text": videos.timed_text,
    "false_event": videos.when,
}
"""Family to plan."""


class TeacherPolicy:
    """Writes CoTA traces: thoughts and calls from an item's truth, as far as coarse eyes would see it.

    A task brings its item in `facts["item"]`. The turn after a result follows what the result said, not what the truth says, so that a
    tool's error leads to a wrong answer, which the acceptance rule then refuses.
    """

    def __init__(self, habits: Habits = Habits()) -> None:
        self.habits = habits
        self.info = PolicyInfo(name="teacher", version=VERSION)
        self.hands: dict[str, Hand] = {}
        """What it did on purpose, by the id of the task: `mistakes`, `has_given_up`."""

    def open(self, task: Task, *, seed: int) -> TeacherSession:
        item = task.facts.get("item")
        if not isinstance(item, Item):
            raise PolicyError(f"task {task.id or task.question!r} brings no PixelWorld item: the teacher answers nothing else")
        # By the medium, not by the question: several questions on one medium then share their calls, and the tools' results.
        hand = Hand(item, Rng("teacher", item.medium_name, seed), self.habits)
        self.hands[task.id] = hand
        return TeacherSession(hand)

    def close(self) -> None:
        return None


class TeacherSession:
    def __init__(self, hand: Hand) -> None:
        self.hand = hand
        self._plan = PLANS[hand.item.family](hand)
        self._response: dict | None = None

    async def act(self) -> str:
        """The next turn of the plan."""
        try:
            act = next(self._plan) if self._response is None else self._plan.send(self._response)
        except StopIteration as done:
            item = self.hand.item
            said = item.plain_answer if self.hand.has_given_up and item.choices else done.value.answer  # a guess among the options
            answer = choose(item.choices, clean(said))
            lead = clean(done.value.thought)
            thought = f"{lead} So {answer}." if item.choices else lead
            return render_turn(Turn(thought=thought, answer=answer))
        return render_turn(Turn(thought=clean(act.thought), call=Call(op=act.op, arguments=act.arguments)))

    def observe(self, observation: Observation) -> None:
        self._response = json.loads(observation.response.removeprefix(RESPONSE_OPEN).removesuffix(RESPONSE_CLOSE))

    def tokens(self) -> tuple[TokenRun, ...]:
        return ()

    def close(self) -> None:
        self._plan.close()
