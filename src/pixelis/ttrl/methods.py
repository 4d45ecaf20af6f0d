"""Test-time adaptation by name: Pixel TTRL, and the two baselines that run through the same loop on the same stream and budget.

- ttrl: the paper's.
- entropy: each query is answered by its first rollout that answers, and every update is taken: no vote, no abstention. What is minimised
  is the mean entropy of the tokens that the policy sampled (`losses.entropy_loss`); anchor, corridor and roll-back stay.
- retrieval: the neighbours' stored answers vote, each as loudly as it is similar, over the answers that the query's own rollouts gave, and
  nothing is learnt. Simplified against RA-TTA (Lee et al., 2025): it retrieves from the answers given so far instead of labelled pictures
  of the web, by one key instead of several descriptions; the rollouts stand in for the list of classes, and decide alone where no neighbour
  has a say.

Source: paper §4 (Table 1, VLM TTA) and supplement 8.
"""

from __future__ import annotations

from dataclasses import replace

from pixelis.ttrl.state import AdaptSettings


def as_method(settings: AdaptSettings) -> AdaptSettings:
    """The settings with what their method implies: how it answers, that it never abstains, whether it learns."""
    if settings.method == "ttrl":
        return settings
    bold = replace(settings.decision, delta=0.0, quantile=None)
    if settings.method == "entropy":
        return replace(settings, decision=replace(bold, vote="first", counts_neighbours=False))
    return replace(settings, learns=False, decision=replace(bold, vote="similarity", counts_neighbours=True))
