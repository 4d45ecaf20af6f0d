"""Imports point downward only, there are no cycles, and the light core stays light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "src" / "pixelis"

MAY_IMPORT = {
    "core": set(),
    "tools": {"core"},
    "policy": {"core", "tools"},
    "data": {"core", "tools"},
    "rewards": {"core"},
    "retrieval": {"core", "data"},
    "rollout": {"core", "tools", "policy", "data", "rewards", "retrieval"},
    "train": {"core", "tools", "policy", "data", "rewards", "retrieval", "rollout"},
    "ttrl": {"core", "tools", "policy", "data", "rewards", "retrieval", "rollout", "train"},
    "eval": {"core", "tools", "policy", "data", "rewards", "retrieval", "rollout", "ttrl"},
    "testing": {"core", "tools", "policy"},
    "serve": {"core", "tools", "policy", "data", "rewards", "retrieval", "rollout", "train", "ttrl", "eval"},
    "weights": set(),
}
"""Which rooms a room may import, besides itself. Modules at the top (cli, config, agent) stand on all of them."""

HEAVY = {"torch", "transformers", "peft", "openai", "trl"}
WITHOUT_TORCH = {"core", "tools", "data", "rewards", "retrieval"}
"""Rooms whose modules may not import a heavy package at module level, engines included."""


def module_name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path, *, only_top_level: bool = False) -> set[str]:
    """Names of the modules that a file imports, inside functions too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if only_top_level else ast.walk(tree)
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the full name"
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


MODULES = {module_name(path): path for path in SOURCE.rglob("*.py")}


def room(name: str) -> str | None:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 and parts[0] == "pixelis" and parts[1] in MAY_IMPORT else None


def test_every_folder_has_its_line_in_the_table():
    folders = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders <= set(MAY_IMPORT)


def test_imports_point_downward():
    wrong = [
        f"{name} imports {target}"
        for name, path in MODULES.items()
        if room(name)
        for target in imports(path)
        if target.startswith("pixelis.") and target in MODULES and room(target) != room(name) and room(target) not in MAY_IMPORT[room(name)]
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_there_are_no_cycles():
    graph = {name: {t for t in imports(path) if t in MODULES and t != name} for name, path in MODULES.items()}
    packages = {name for name in graph if any(other.startswith(name + ".") for other in graph)}
    graph = {name: targets - packages for name, targets in graph.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " -> ".join([*trail[trail.index(name) :], name])
        if name in done:
            return
        for target in sorted(graph[name]):
            visit(target, (*trail, name))
        done.add(name)

    for name in sorted(graph):
        visit(name, ())


def test_heavy_packages_are_imported_where_they_are_used():
    wrong = [
        f"{name} imports {target} at module level"
        for name, path in MODULES.items()
        if room(name) in WITHOUT_TORCH or room(name) is None
        for target in imports(path, only_top_level=True)
        if target.split(".")[0] in HEAVY
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_importing_pixelis_and_its_tools_loads_no_torch():
    code = "import sys, pixelis.agent, pixelis.cli; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
