"""For those who test their own tools and policies."""

from pixelis.testing.check import ContractBroken, check_tool
from pixelis.testing.scripted import ScriptedPolicy, WrappedTool

__all__ = ["ContractBroken", "ScriptedPolicy", "WrappedTool", "check_tool"]
