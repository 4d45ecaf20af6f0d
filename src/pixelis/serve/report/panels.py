"""Which keys of a journal stand in which panel.

Panels follow the keys that a journal has, so that every phase is drawn by the same table; a number that no panel knows gets a panel of its
own, and nothing is lost.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pixelis.serve.report.series import Series
from pixelis.train.corridor import CorridorSettings

MAX_OTHERS = 48


@dataclass(frozen=True, kw_only=True)
class Panel:
    """What one small plot shows."""

    title: str
    unit: str
    """Label of the vertical axis."""
    keys: tuple[str, ...]
    """Those that the journal has are drawn; a key that ends in a dot stands for all below it."""
    kind: Literal["lines", "shares", "families"] = "lines"
    over: str = ""
    """Key on the horizontal axis; the journal's counter when empty."""
    is_log: bool = False
    band: tuple[float, float] | None = None
    is_share: bool = False
    """In [0, 1]: the axis shows all of it."""
    is_diagram: bool = False
    """Shares against shares: the other axis shows all of it too, and the diagonal is where both agree."""
    only_with: str = ""
    """A key that a journal must have for the panel to be meant: `used` is a loss of sight, and a count of rollouts in phase 2."""


_CORRIDOR = CorridorSettings()
FIGURES: dict[str, tuple[Panel, ...]] = {
    "Reward": (
        Panel(title="Parts of the reward", unit="reward per rollout", keys=("reward", "answer", "curiosity", "structure", "penalty")),
        Panel(title="Answer by update", unit="answer reward", keys=("answer", "accuracy", "answered"), is_share=True),
        Panel(title="Learning curve", unit="answer reward", keys=("answer",), over="spent", is_share=True),
    ),
    "KL corridor": (
        Panel(title="KL to the anchor", unit="nats per sampled token", keys=("kl", "mean_kl"), band=(_CORRIDOR.low, _CORRIDOR.high)),
        Panel(title="Beta of the corridor", unit="beta", keys=("beta",), is_log=True),
        Panel(title="Gates", unit="nats per sampled token", keys=("mismatch", "sight"), is_log=True),
    ),
    "What the policy does": (
        Panel(title="Chain length", unit="steps per rollout", keys=("chain_length", "steps")),
        Panel(title="Op mix", unit="share of calls", keys=("op_share.",), kind="shares", is_share=True),
        Panel(title="Op entropy", unit="nats", keys=("op_entropy",)),
    ),
    "Soundness": (
        Panel(title="Valid share of steps (RaPR)", unit="share of steps", keys=("valid_share", "rapr"), is_share=True),
        Panel(title="Composite chains (RaCPR, own embeddings)", unit="share", keys=("composite_share",), is_share=True),
        Panel(title="Invalid calls", unit="share of steps", keys=("invalid",)),
        Panel(title="Rollouts with a call", unit="share of rollouts", keys=("tool_rate",), is_share=True),
    ),
    "Steps of the optimiser": (
        Panel(title="Clipped tokens", unit="share of tokens", keys=("clipped",)),
        Panel(title="Norm of the gradient", unit="norm", keys=("grad_norm",), is_log=True),
        Panel(title="Flat groups", unit="share of groups", keys=("flat_share",), is_share=True),
    ),
    "Losses": (
        Panel(title="Training loss", unit="loss", keys=("loss", "token_loss", "aux_loss", "dynamics_loss")),
        Panel(title="Dev loss", unit="loss", keys=("dev.all", "dev_loss")),
    ),
    "Sight": (
        Panel(title="Parts of the loss", unit="loss", is_log=True, only_with="centre",
              keys=("centre", "colour", "kind", "box", "used", "name", "places")),
        Panel(title="Dev shares", unit="share", is_share=True,
              keys=("dev_recall", "dev_precision", "dev_colour", "dev_kind", "dev_both", "dev_near")),
        Panel(title="Dev error of places", unit="thousandths of the sides", keys=("dev_off",), is_log=True),
    ),
    "Learning while serving": (
        Panel(title="Coverage and acceptance", unit="share of queries", keys=("coverage", "accepted_share", "abstained", "masked"),
              is_share=True, only_with="accepted"),
        Panel(title="Margin of the vote", unit="share of the weight", keys=("margin",), is_share=True, only_with="accepted"),
        Panel(title="Return of the rollouts", unit="return", keys=("return", "value"), only_with="accepted"),
        Panel(title="Updates so far", unit="updates", keys=("accepted", "num_rolled_back", "num_held"), only_with="accepted"),
        Panel(title="What an update stands on", unit="rollouts, items", keys=("kept", "neighbours"), only_with="accepted"),
        Panel(title="Weight of an update", unit="weight", keys=("weight",), only_with="accepted"),
        Panel(title="Lift of the policy", unit="share of the headroom", keys=("lift",), is_share=True, only_with="accepted"),
        Panel(title="Evidence for another lift", unit="standard errors", keys=("lift_evidence",), only_with="accepted"),
        Panel(title="Headroom of the media", unit="stops", keys=("headroom",), only_with="accepted"),
    ),
    "What abstaining is worth": (
        Panel(title="Risk by coverage", unit="share of errors among answers", keys=("risk",), over="coverage", is_share=True),
        Panel(title="Margin by coverage", unit="least margin that answers", keys=("margin",), over="coverage", only_with="risk"),
    ),
    "Reliability": (
        Panel(title="Right by confidence", unit="share of right answers", keys=("right",), over="confidence", is_share=True,
              is_diagram=True),
        Panel(title="Answers by confidence", unit="answers", keys=("answers",), over="confidence"),
    ),
    "Time": (Panel(title="Seconds of an update or query", unit="s", keys=("seconds.",)),),
    "Families": (
        Panel(title="Answer reward by family", unit="answer reward", keys=("by_family.",), kind="families"),
        Panel(title="Dev loss by family", unit="loss", keys=("dev.",), kind="families"),
    ),
}  # fmt: skip
"""Every known panel; `dev.all`, which has its own, is left out of the families."""
_ELSEWHERE = {"families": ("dev.all",)}
UNTOLD = ("ops.", "prompts.", "flat_groups", "spent", "epoch", "phase")
"""Keys that are drawn in another form, tell of single prompts, or only number the rows."""


def chosen_of(panel: Panel, series: dict[str, Series]) -> dict[str, Series]:
    """What a panel draws, by label."""
    if not {panel.over, panel.only_with} - {""} <= series.keys():
        return {}
    chosen = {}
    for wanted in panel.keys:
        if wanted.endswith("."):
            chosen |= {
                k.removeprefix(wanted): s for k, s in series.items() if k.startswith(wanted) and k not in _ELSEWHERE.get(panel.kind, ())
            }
        elif wanted in series:
            chosen[wanted] = series[wanted]
    return chosen


def unknown(series: dict[str, Series]) -> list[str]:
    """Keys that no panel draws."""
    panels = [panel for panels in FIGURES.values() for panel in panels if not panel.only_with or panel.only_with in series]
    told = [key for panel in panels for key in (*panel.keys, panel.over) if key] + list(UNTOLD)
    return [key for key in series if not any(key.startswith(t) if t.endswith(".") else key == t for t in told)]


def others(series: dict[str, Series]) -> tuple[Panel, ...]:
    """Panels of their own for keys that no other draws."""
    return tuple(Panel(title=key, unit="value", keys=(key,)) for key in unknown(series)[:MAX_OTHERS])
