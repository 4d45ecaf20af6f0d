"""Load a checkpoint to learn, whole or with adapters on it, and write down what it became."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from pixelis.core.errors import ConfigError
from pixelis.policy.adapters import POLICY, add_adapters, continue_adapters, save_adapters
from pixelis.policy.prompt import Prompting
from pixelis.policy.shipped import located
from pixelis.policy.vlm import VlmPolicy
from pixelis.policy.vlm_load import Checkpoint, load_checkpoint, prompting_of, version_of


def load_learner(
    where: str | Path,
    lora: Any | None = None,
    *,
    adapter: str | Path | None = None,
    prompting: Prompting | None = None,
    dtype: str = "auto",
    device: str = "auto",
    gradient_checkpointing: bool = False,
) -> Checkpoint:
    """A checkpoint whose language model learns: all of it, or LoRA adapters only.

    Args:
        lora: rank, alpha and dropout (`config_train.LoraTable`) of new adapters; None trains the language model itself.
        adapter: the folder of a trained adapter, which learns on instead of new ones.
        dtype: of the model; "auto" is float32 where all of it learns, whatever the checkpoint was written in, and else as `load_checkpoint`
            has it. Adapters are float32 either way.
        prompting: how it will be prompted from now on; when None what the adapter says that learns on, or else the checkpoint.
        gradient_checkpointing: keep only what enters each layer and compute the rest once more on the way back: a third more
            arithmetic, for a fraction of the memory. Measuring and sampling are as without.

    Raises:
        ConfigError: no checkpoint of the Qwen3-VL family; new adapters and a trained one are both asked for; all of it is to learn in
            float16, in which Adam divides by 0.
        DataError: no adapter lies in the folder.
        NotInstalled: adapters without peft.
    """
    if lora is not None and adapter is not None:
        raise ConfigError(f"the adapter {adapter} brings its own rank: leave out [lora]")
    is_whole = lora is None and adapter is None
    if is_whole and dtype == "float16":
        raise ConfigError(
            'a model cannot learn whole in float16 (1e-8 is 0 there, and Adam divides by it): set dtype = "float32" or "auto"'
        )
    loaded = load_checkpoint(where, dtype="float32" if is_whole and dtype == "auto" else dtype, device=device)
    if adapter is not None:
        told = prompting_of(located(where), adapter)
        loaded = replace(loaded, prompting=told, version=version_of(located(where), adapter, loaded.base, told.lift))
    if prompting is not None:
        loaded = replace(loaded, prompting=prompting)
    if gradient_checkpointing:
        text = loaded.base.model.language_model
        enable = getattr(text, "activation_checkpointing_enable", None) or text.gradient_checkpointing_enable  # its older name
        enable({"use_reentrant": False})
    if adapter is not None:
        return replace(loaded, model=continue_adapters(loaded.model, adapter))
    if lora is None:
        loaded.base.model.language_model.requires_grad_(True)
        loaded.base.lm_head.requires_grad_(True)
        return loaded
    return replace(loaded, model=add_adapters(loaded.model, rank=lora.rank, alpha=lora.alpha, dropout=lora.dropout))


def make_sampler(where: str | Path, *, max_new_tokens: int, num_slots: int, **options: Any) -> VlmPolicy:
    """A policy that samples from its whole distribution, and learns.

    Args:
        options: see `load_learner`.
    """
    started = load_learner(where, **options)
    return VlmPolicy(started, temperature=1.0, top_p=1.0, max_new_tokens=max_new_tokens, num_slots=num_slots)


def save_whole(checkpoint: Checkpoint, out: str | Path, *, prompting: Prompting | None = None) -> Path:
    """Write a checkpoint that was trained whole, with tokenizer and image processor, and how it is prompted where that is known."""
    checkpoint.base.save_pretrained(out)
    checkpoint.tokenizer.save_pretrained(out)
    checkpoint.images.save_pretrained(out)
    if prompting is not None:
        prompting.save(out)
    return Path(out)


def save_policy(policy: VlmPolicy, out: str | Path) -> Path:
    """Write a policy that has learnt: its model, or its adapter, with tokenizer, image processor and prompting."""
    out = Path(out)
    with policy.paused() as model:
        if hasattr(model, "peft_config"):
            save_adapters(model, out, names=(POLICY,))
        else:
            model.save_pretrained(out)
    policy.checkpoint.tokenizer.save_pretrained(out)
    policy.checkpoint.images.save_pretrained(out)
    policy.prompting.save(out)
    return out
