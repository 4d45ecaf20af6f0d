"""Loads a Qwen3-VL checkpoint: model, tokenizer, image processor, chat template. Needs neither torchvision nor the hub."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pixelis.core.errors import ConfigError, NotInstalled
from pixelis.policy.adapters import beside
from pixelis.policy.prompt import PROMPTING_FILE, Prompting
from pixelis.policy.shipped import located

try:
    import torch
    import transformers
    from transformers import AutoImageProcessor, AutoModelForImageTextToText, AutoTokenizer
except ImportError:
    raise NotInstalled("torch with transformers 5.17 or newer", "pip install 'pixelis[vlm]'") from None

FAMILY = ("qwen3_vl", "qwen3_vl_moe")


@dataclass(frozen=True)
class Checkpoint:
    """A loaded checkpoint."""

    model: Any
    """`Qwen3VLForConditionalGeneration`, or a `PeftModel` around it."""
    tokenizer: Any
    images: Any
    """The image processor."""
    template: str
    name: str
    version: str
    """A hash or commit of the weights where one is known, the versions of torch and transformers, and the lift unless it is 0."""
    prompting: Prompting = Prompting()
    """How it was trained to be prompted."""

    @property
    def base(self) -> Any:
        """The Qwen3-VL model itself, adapters inside."""
        return base_of(self.model)


def base_of(model: Any) -> Any:
    """The Qwen3-VL model inside a `PeftModel`; any other model is its own."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def load_checkpoint(
    checkpoint: str | Path,
    *,
    adapter: str | Path | None = None,
    dtype: str | torch.dtype = "auto",
    device: str = "auto",
    lift: float | None = None,
) -> Checkpoint:
    """Load a folder, the name of a shipped policy, or a hub name, of the Qwen3-VL family.

    Args:
        adapter: a LoRA adapter's folder, as peft writes it; it is prompted as it was trained to be, where it says so.
        dtype: torch dtype or its name; "auto" is float32 on a CPU and what the checkpoint says elsewhere.
        device: "auto" takes a GPU when there is one.
        lift: at which it sees, instead of what its folder says; see `policy/exposure.py`.

    Raises:
        ConfigError: another architecture, or a folder without a part that is needed.
        NotInstalled: an adapter was asked for and peft is missing.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if dtype == "auto" and torch.device(device).type == "cpu":
        dtype = torch.float32  # bfloat16 is slower than float32 on most CPUs
    where = located(checkpoint)
    try:
        model = AutoModelForImageTextToText.from_pretrained(where, dtype=dtype)
        tokenizer = AutoTokenizer.from_pretrained(where)
        images = AutoImageProcessor.from_pretrained(where)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{where} cannot be loaded as a vision-language checkpoint: {error}") from error
    if model.config.model_type not in FAMILY:
        raise ConfigError(f"{where} is a {model.config.model_type} model; this policy runs {' and '.join(FAMILY)}")
    if adapter is not None:
        model = _with_adapter(model, adapter)
    model = model.to(device).eval()
    patch_matmul(base_of(model).model.visual)
    prompting = prompting_of(where, adapter)
    prompting = prompting if lift is None else replace(prompting, lift=lift)
    return Checkpoint(
        model=model,
        tokenizer=tokenizer,
        images=images,
        template=_template(where, tokenizer),
        name=Path(where).name if Path(where).exists() else where,
        version=version_of(where, adapter, model, prompting.lift),
        prompting=prompting,
    )


def patch_matmul(visual: Any) -> None:
    """Let the vision tower embed patches by one matrix product: the same weights and numbers, without Conv3d's slowness.

    The kernel is as large as its stride, so the convolution sees every patch once, and the patches come flattened already.
    """
    embed = visual.patch_embed

    def forward(patches: torch.Tensor) -> torch.Tensor:
        weight = embed.proj.weight
        return torch.nn.functional.linear(patches.to(weight.dtype).view(-1, weight[0].numel()), weight.flatten(1), embed.proj.bias)

    embed.forward = forward


def _with_adapter(model: Any, adapter: str | Path) -> Any:
    try:
        from peft import PeftModel
    except ImportError:
        raise NotInstalled("peft", "pip install 'pixelis[vlm]'") from None
    try:
        return PeftModel.from_pretrained(model, str(adapter), adapter_name="policy", is_trainable=False)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{adapter} cannot be loaded as a LoRA adapter: {error}") from error


def _template(where: str, tokenizer: Any) -> str:
    """The checkpoint's own template; older repositories keep it beside the processor instead of the tokenizer."""
    if tokenizer.chat_template:
        return tokenizer.chat_template
    from transformers.utils import cached_file

    for name in ("chat_template.jinja", "chat_template.json"):
        path = cached_file(where, name, _raise_exceptions_for_missing_entries=False)
        if path is not None:
            text = Path(path).read_text(encoding="utf-8")
            return text if name.endswith("jinja") else json.loads(text)["chat_template"]
    raise ConfigError(f"{where} has no chat template: add chat_template.jinja to its folder")


def prompting_of(where: str, adapter: str | Path | None) -> Prompting:
    """How a checkpoint is prompted, or the adapter on it, which may have been trained otherwise."""
    told = beside(adapter, PROMPTING_FILE) if adapter is not None else None
    return Prompting.of(told or where)


def version_of(where: str, adapter: str | Path | None, model: Any, lift: float) -> str:
    """Hashes of the weights, the adapter's first, and versions of the packages.

    Two policies of the same weights that are shown media at different lifts are two policies.
    """
    import hashlib

    parts = [f"torch {torch.__version__}", f"transformers {transformers.__version__}"]
    commit = getattr(model.config, "_commit_hash", None)
    if commit:
        parts.insert(0, commit[:12])
    for folder in (where, adapter):
        if folder is None or not Path(folder).is_dir():
            continue
        digest = hashlib.sha256()
        for path in sorted(Path(folder).glob("*.safetensors")):
            with open(path, "rb") as file:
                while block := file.read(1 << 22):
                    digest.update(block)
        parts.insert(0, digest.hexdigest()[:12])
    if lift:
        parts.append(f"lift {lift:g}")
    return ", ".join(parts)
