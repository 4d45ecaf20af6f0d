"""Three LoRA adapters on one base: the policy, the anchor it must stay near, and its slow average.

So both KL terms need no second model. Adapters sit in the language model only; images are encoded by the same weights for all
three, and their features are shared. Only the policy's adapter is ever trainable. Source: paper §3.2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pixelis.core.errors import ConfigError, DataError, NotInstalled

POLICY, ANCHOR, EMA = "policy", "anchor", "ema"
NAMES = (POLICY, ANCHOR, EMA)

LANGUAGE_LINEARS = r".*language_model\.layers\.\d+\.(self_attn\.(q|k|v|o)_proj|mlp\.(gate|up|down)_proj)"
"""Every linear of the language model, and none of the vision tower."""


def add_adapters(
    base: Any, *, rank: int = 16, alpha: float | None = None, dropout: float = 0.0, targets: str = LANGUAGE_LINEARS, seed: int = 0
) -> Any:
    """Put the three adapters on a Qwen3-VL model; all begin as the base itself.

    Args:
        rank: of every adapter.
        alpha: LoRA's scale times rank; twice the rank when left out.
        targets: regular expression over module names.
        seed: of the random half of the policy's adapter, which the other two copy.
    Returns:
        A `PeftModel` with the policy active and trainable.

    Raises:
        ConfigError: `targets` fits nothing, or modules of the vision tower.
        NotInstalled: peft is missing.
    """
    peft, torch = _packages()
    hits = [name for name, _ in base.named_modules() if re.fullmatch(targets, name)]
    if not hits:
        raise ConfigError(f"targets {targets!r} fits no module of the model")
    _refuse_vision(hits)
    config = peft.LoraConfig(
        r=rank, lora_alpha=2 * rank if alpha is None else alpha, lora_dropout=dropout, target_modules=targets, bias="none"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _with_followers(peft.get_peft_model(base, config, adapter_name=POLICY), config)


def continue_adapters(base: Any, folder: str | Path) -> Any:
    """Put a trained policy's adapter on its base, with an anchor and an average that begin as that policy.

    Args:
        folder: as peft writes it, such as the `policy` folder of a finished run.

    Raises:
        DataError: there is no adapter in the folder.
        ConfigError: the adapter sits in the vision tower.
        NotInstalled: peft is missing.
    """
    peft, _ = _packages()
    if not (Path(folder) / "adapter_config.json").is_file():
        raise DataError(f"{folder}: adapter_config.json is missing; name the folder of one adapter, such as runs/paper-8b/sft/{POLICY}")
    model = peft.PeftModel.from_pretrained(base, str(folder), adapter_name=POLICY, is_trainable=True)
    return _with_followers(model, model.peft_config[POLICY])


def beside(folder: str | Path, name: str) -> Path | None:
    """The folder in which a run left the file `name` for an adapter that it trained: the adapter's own, or the one above it."""
    return next((place for place in (Path(folder), Path(folder).parent) if (place / name).is_file()), None)


def _with_followers(model: Any, config: Any) -> Any:
    """Anchor and average, as copies of the policy; the policy is active and trainable."""
    for name in (ANCHOR, EMA):
        model.add_adapter(name, config)
        copy_adapter(model, source=POLICY, target=name)
    _activate(model, (POLICY,))
    assert_language_only(model)
    return model


def lora_parameters(model: Any, name: str) -> dict[str, Any]:
    """The parameters of one adapter by a name that is the same for every adapter.

    Raises:
        ConfigError: there is no such adapter.
    """
    mark = f".{name}."
    found = {key.replace(mark, "."): p for key, p in model.named_parameters() if mark in key and ".lora_" in key}
    if not found:
        raise ConfigError(f"the model has no adapter {name!r}; it has {', '.join(model.peft_config)}")
    return found


def assert_language_only(model: Any) -> None:
    """Servers drop adapters of the vision tower without a word: refuse them here.

    Raises:
        ConfigError: some adapter sits in the vision tower.
    """
    _refuse_vision([name for name, _ in model.named_parameters() if ".lora_" in name])


def _refuse_vision(names: Sequence[str]) -> None:
    wrong = [name for name in names if re.search(r"(^|\.)visual\.", name)]
    if wrong:
        raise ConfigError(f"LoRA belongs into the language model only; {len(wrong)} modules of the vision tower are hit, first {wrong[0]}")


@contextmanager
def using(model: Any, name: str | None) -> Iterator[Any]:
    """Run the model with another adapter, or with none (`None`); afterwards the one before is active again.

    What is trainable does not change: gradients never reach the anchor or the average.
    """
    layers = _layers(model)
    if name is not None and name not in model.peft_config:
        raise ConfigError(f"the model has no adapter {name!r}; it has {', '.join(model.peft_config)}")
    active, was_disabled = tuple(layers[0].active_adapters), layers[0].disable_adapters
    try:
        _activate(model, active if name is None else (name,), is_disabled=name is None)
        yield model
    finally:
        _activate(model, active, is_disabled=was_disabled)


def active_adapter(model: Any) -> str | None:
    """Which adapter runs; None when the base runs bare."""
    layer = _layers(model)[0]
    return None if layer.disable_adapters else layer.active_adapters[0]


def update_ema(model: Any, *, decay: float, source: str = POLICY, target: str = EMA) -> None:
    """Move `target` towards `source`: `target = decay * target + (1 - decay) * source`, factor by factor.

    The average is taken of the two LoRA factors, not of their product: near each other, as here, the two differ by the product of the
    factors' differences.

    Args:
        decay: in [0, 1]; 1 leaves the target as it is.
    """
    _, torch = _packages()
    if not 0 <= decay <= 1:
        raise ConfigError(f"decay must be in [0, 1]; got {decay}")
    old, new = lora_parameters(model, target), lora_parameters(model, source)
    with torch.no_grad():
        for key, parameter in old.items():
            parameter.lerp_(new[key].to(parameter.dtype), 1 - decay)


def copy_adapter(model: Any, *, source: str, target: str) -> None:
    """Make `target` equal `source`, as when training begins and its anchor is laid down."""
    update_ema(model, decay=0.0, source=source, target=target)


def save_adapters(model: Any, folder: str | Path, *, names: Sequence[str] = NAMES) -> Path:
    """Write each adapter to a folder of its own name, as peft and inference servers read it."""
    folder = Path(folder)
    for name in names:
        lora_parameters(model, name)
    model.save_pretrained(str(folder), selected_adapters=list(names))
    (folder / "adapters.json").write_text(json.dumps({"names": list(names)}))
    return folder


def load_adapters(base: Any, folder: str | Path) -> Any:
    """Put saved adapters on a base; the policy is active and trainable.

    Raises:
        DataError: the folder holds none, or no policy.
        NotInstalled: peft is missing.
    """
    peft, _ = _packages()
    folder = Path(folder)
    try:
        names = json.loads((folder / "adapters.json").read_text())["names"]
    except (OSError, ValueError, KeyError) as error:
        raise DataError(f"{folder} holds no adapters: {error}") from None
    if POLICY not in names:
        raise DataError(f"{folder} holds {', '.join(names)}, but no {POLICY}")
    model = None
    for name in (POLICY, *(n for n in names if n != POLICY)):
        if not (folder / name / "adapter_config.json").is_file():
            raise DataError(f"{folder / name}: adapter_config.json is missing")
        if model is None:
            model = peft.PeftModel.from_pretrained(base, str(folder / name), adapter_name=name, is_trainable=True)
        else:
            model.load_adapter(str(folder / name), adapter_name=name, is_trainable=False)
    _activate(model, (POLICY,))
    assert_language_only(model)
    return model


def _activate(model: Any, names: Sequence[str], *, is_disabled: bool = False) -> None:
    """Make adapters active. peft's own switch would make whatever is active trainable."""
    for layer in _layers(model):
        layer.enable_adapters(not is_disabled)
        layer.set_adapter(list(names), inference_mode=True)
    model.active_adapter = names[0]
    for key, parameter in model.named_parameters():
        if ".lora_" in key:
            parameter.requires_grad_(f".{POLICY}." in key)


def _layers(model: Any) -> list[Any]:
    return [m for m in model.modules() if hasattr(m, "lora_A")]


def _packages() -> tuple[Any, Any]:
    try:
        import peft
        import torch
    except ImportError:
        raise NotInstalled("peft with torch", "pip install 'pixelis[vlm]'") from None
    return peft, torch
