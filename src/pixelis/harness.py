"""The agent as a model of lmms-eval and of VLMEvalKit, from names and paths: `python -m pixelis.harness`.

lmms-eval finds it through the entry point `lmms_eval.models`; VLMEvalKit has none, and is started through this module. Neither is imported
before it is needed: without one, asking for its class raises `NotInstalled`.
"""

from __future__ import annotations

import atexit
import runpy
import sys
from collections.abc import Sequence
from functools import cache, partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import ModuleType
from typing import Any

from pixelis.agent import POLICIES, make_executor, make_policy
from pixelis.config import Recipe, recipe_with
from pixelis.core.errors import ConfigError, NotInstalled, PixelisError
from pixelis.eval.harness import lmms_eval, vlmevalkit
from pixelis.eval.harness.asker import Asker
from pixelis.eval.harness.lmms_eval import LmmsEvalAnswers
from pixelis.eval.harness.vlmevalkit import VlmEvalKitAnswers
from pixelis.rollout.run import Limits
from pixelis.tools.toolbox import resolved

HERE = "pixelis.harness"
"""Where harnesses find the classes; not `__name__`, which is `__main__` when this module is started."""
DISTRIBUTIONS = {lmms_eval.NAME: "lmms_eval", vlmevalkit.NAME: "vlmeval"}
INSTALL = {
    "lmms_eval": ("lmms-eval", "pip install lmms-eval"),
    "vlmeval": ("VLMEvalKit", "git clone https://github.com/open-compass/VLMEvalKit && pip install -e VLMEvalKit"),
}
CLASSES = {"LmmsEvalChat": lmms_eval.NAME, "LmmsEvalSimple": lmms_eval.NAME, vlmevalkit.CLASS: vlmevalkit.NAME}
"""The classes of this module, each made when it is first asked for: its base class is the harness's."""
NEED_MORE = ("endpoint", "vlm")
"""Policies that are more than a name."""
USAGE = "usage: python -m pixelis.harness lmms-eval ARGUMENTS   |   python -m pixelis.harness vlmevalkit PATH/TO/run.py ARGUMENTS"


def open_asker(harness: str, **options: Any) -> Asker:
    """The agent, ready to be asked, from what a user wrote behind `--model_args` or in a configuration file.

    Args:
        harness: who asks.
        options: `run` (a folder, which must be given), `policy`, `model`, `adapter`, `url`, `recipe`, `seed` and `no_tools` as in
            `pixelis ask` and `pixelis eval`, `parallel` (trajectories at once), `media` (copy media files into the run).

    Raises:
        ConfigError: an unknown option, a wrong value, or no run folder.
        NotInstalled: the policy or a tool needs a package that is missing.
        DataError: the run folder holds another run.
    """
    known = {"run", "policy", "model", "adapter", "url", "recipe", "seed", "no_tools", "parallel", "media"}
    if unknown := sorted(options.keys() - known):
        raise ConfigError(f"{harness}: no option {', '.join(unknown)}: they are {', '.join(sorted(known))}")
    if not options.get("run"):
        raise ConfigError(f"{harness}: say where the trajectories are to be kept: run=FOLDER")
    recipe = _recipe(harness, options)
    policy = make_policy(recipe.policy)
    try:
        asker = Asker(
            policy,
            make_executor(recipe.tools),
            recipe.tools,
            harness=harness,
            run_folder=Path(str(options["run"])),
            seed=recipe.seed,
            limits=Limits(max_steps=recipe.limits.max_steps, max_seconds=recipe.limits.max_seconds),
            num_parallel=_number(harness, "parallel", options.get("parallel", 8)),
            keep_media=_switch(harness, "media", options.get("media", False)),
            versions=_version(harness),
        )
    except BaseException:
        policy.close()
        raise
    atexit.register(_leave, asker)
    return asker


def lmms_eval_manifest() -> Any:
    """What lmms-eval's entry point `lmms_eval.models` wants to know: under which name it finds which classes."""
    manifest = _of("lmms_eval.models.registry_v2").ModelManifest
    return manifest(model_id=lmms_eval.MODEL, chat_class_path=_path("LmmsEvalChat"), simple_class_path=_path("LmmsEvalSimple"))


def register_lmms_eval() -> None:
    """Make `--model pixelis` known to the lmms-eval of this process, whatever its version.

    Raises:
        NotInstalled: lmms-eval is missing.
    """
    models = _of("lmms_eval.models")
    try:
        manifest = import_module("lmms_eval.models.registry_v2").ModelManifest
    except ModuleNotFoundError:
        manifest = None
    lmms_eval.register(models, manifest, chat=_path("LmmsEvalChat"), simple=_path("LmmsEvalSimple"))


def register_vlmevalkit() -> None:
    """Make the class `Pixelis` and the models `pixelis-POLICY` known to the VLMEvalKit of this process.

    Raises:
        NotInstalled: VLMEvalKit is missing.
    """
    supported = _of("vlmeval.config").supported_VLM
    policies = [name for name in POLICIES if name not in NEED_MORE]
    vlmevalkit.register(_of("vlmeval.vlm"), supported, model_class(vlmevalkit.CLASS), policies=policies)


@cache
def model_class(name: str) -> type:
    """One of `CLASSES`: the agent's answers, mixed with the base class of the harness.

    Raises:
        NotInstalled: the harness is missing.
    """
    harness = CLASSES[name]
    about = {"__module__": HERE, "open_asker": staticmethod(partial(open_asker, harness))}
    if harness == vlmevalkit.NAME:
        return type(name, (VlmEvalKitAnswers, _of("vlmeval.vlm.base").BaseModel), about)
    return type(name, (LmmsEvalAnswers, _of("lmms_eval.api.model").lmms), {**about, "is_simple": name == "LmmsEvalSimple"})


def __getattr__(name: str) -> type:
    if name in CLASSES:
        return model_class(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def main(arguments: Sequence[str]) -> None:
    """Start a harness that knows the agent; what follows its name is for the harness itself."""
    match list(arguments):
        case [lmms_eval.NAME, *rest]:
            register_lmms_eval()
            sys.argv = [lmms_eval.NAME, *rest]
            _of("lmms_eval.__main__").cli_evaluate()
        case [vlmevalkit.NAME, script, *rest]:
            if not Path(script).is_file():
                raise ConfigError(f"{script}: there is no such file; name the run.py of VLMEvalKit")
            sys.path.insert(0, str(Path(script).resolve().parent))  # as `python run.py` would: the package lies beside it
            register_vlmevalkit()
            sys.argv = [script, *rest]
            runpy.run_path(script, run_name="__main__")
        case _:
            raise ConfigError(USAGE)


def _recipe(harness: str, options: dict[str, Any]) -> Recipe:
    """The recipe with what the options say instead; a harness may have read a folder's name as a number."""
    named = {key: str(options[key]) for key in ("policy", "model", "adapter", "url") if options.get(key) is not None}
    known = recipe_with(
        str(options["recipe"]) if options.get("recipe") else None,
        seed=None if options.get("seed") is None else _number(harness, "seed", options["seed"]),
        no_tools=_switch(harness, "no_tools", options.get("no_tools", False)),
        name=named.pop("policy", None),
        **named,
    )
    return known.model_copy(update={"tools": resolved(known.tools)})


def _number(harness: str, name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"{harness}: {name} is a whole number, not {value!r}")
    return value


def _switch(harness: str, name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise ConfigError(f"{harness}: {name} is true or false, not {value!r}")
    return value


def _of(module: str) -> ModuleType:
    """A module of a harness.

    Raises:
        NotInstalled: the harness is missing. A package that the harness itself misses is its own error.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if (error.name or "").partition(".")[0] != package:
            raise
        raise NotInstalled(*INSTALL[package]) from None


def _path(name: str) -> str:
    return f"{HERE}.{name}"


def _version(harness: str) -> dict[str, str]:
    try:
        return {harness: version(DISTRIBUTIONS[harness])}
    except PackageNotFoundError:
        return {}


def _leave(asker: Asker) -> None:
    asker.close()
    print(asker.summary(), file=sys.stderr)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except PixelisError as problem:
        print(f"error: {problem}", file=sys.stderr)
        sys.exit(2)
