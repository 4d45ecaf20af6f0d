"""The policy without learning: it parses the question, looks coarsely, and lets the tools be exact."""

from pixelis.policy.planner.policy import PlannerPolicy

__all__ = ["PlannerPolicy"]
