"""Qwen3-VL-8B in its real shape: tokens per second and peak memory of phases 1 and 2, with random weights and the recipes' own LoRA.

What a step costs depends on shapes and not on what the weights say, so the model is filled with noise instead of being fetched. Everything
else is the real thing: traces are collected here with the real tools, `run_sft` and `run_rft` run as the recipes in `recipes/paper-8b` say
but for their length, and the model goes through a folder that `load_learner` reads. The tokenizer is a small one with merges of its own,
so a text has more tokens than with Qwen's; the embedding has Qwen's 151,936 rows. `--shape tiny` tries the same on any machine.

    python benchmarks/large.py --out docs/results/large.md
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

from pixelis.agent import make_executor
from pixelis.config_train import RftRecipe, SftRecipe, load_recipe_as
from pixelis.policy.vlm import VlmPolicy
from pixelis.policy.vlm_make import make_checkpoint
from pixelis.rollout.collect import Plan, Share, collect
from pixelis.testing.tiny_vlm import make_tokenizer
from pixelis.tools.settings import ToolSettings
from pixelis.tools.toolbox import resolved
from pixelis.train.corridor import CorridorSettings
from pixelis.train.journal import Journal
from pixelis.train.rft import run_rft
from pixelis.train.rft_state import RftSettings
from pixelis.train.sft import run_sft
from pixelis.train.sft_state import SftSettings
from pixelis.train.start import load_learner

RECIPES = Path(__file__).parents[1] / "recipes" / "paper-8b"
FAMILIES = ("relation", "attribute", "count", "size_compare", "read_sign")

# Qwen3-VL-8B-Instruct's config.json; what is not named is the architecture's default.
TEXT_8B = {
    "vocab_size": 151_936, "hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36, "num_attention_heads": 32,
    "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 262_144, "tie_word_embeddings": False,
    "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True},
}  # fmt: skip
VISION_8B = {
    "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 4096, "patch_size": 16,
    "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304, "deepstack_visual_indexes": [8, 16, 24],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--shape", choices=("8b", "tiny"), default="8b")
    parser.add_argument("--traces", type=int, default=140)
    parser.add_argument("--workers", type=int, default=2, help="processes that collect the traces")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(Path(folder), args.shape, args.traces, args.workers)
    text = page(args.shape, rows)
    print(text)
    if args.out:
        args.out.write_text(text, encoding="utf-8")


def measure(folder: Path, shape: str, num_traces: int, num_workers: int) -> list[dict[str, Any]]:
    """Facts of both phases, in order."""
    tools = resolved(ToolSettings(seg="classical"))
    shares = {name: Share(max(1, num_traces // len(FAMILIES))) for name in FAMILIES}
    traces = _timed("collect", lambda: collect(folder / "traces", Plan("train", 1, shares), settings=tools, num_workers=num_workers))
    checkpoint = _timed("write the model", lambda: write_model(folder / "model", shape))
    return [phase_1(folder, checkpoint, traces, shape), phase_2(folder, checkpoint, tools, shape)]


def phase_1(folder: Path, checkpoint: Path, traces: Path, shape: str) -> dict[str, Any]:
    """`run_sft` over the traces once: seconds of each update after the first, and what a pass holds at most."""
    wanted = load_recipe_as(SftRecipe, RECIPES / "sft.toml")
    started = _timed("load", lambda: _learner(checkpoint, wanted, prompting=wanted.prompting and wanted.prompting.build()))
    small = {"accumulate": 1} if shape == "tiny" else {}
    settings = SftSettings(**wanted.sft.model_dump() | {"epochs": 1, "dev_traces": 4} | small)
    _forget_peak()
    ticks: list[float] = []
    facts: list[dict] = []

    def log(row: dict) -> None:
        facts.append(row)
        print(json.dumps(row), flush=True)

    with _watched(ticks):
        run_sft(started, [traces], [traces], folder / "sft", settings, num_workers=1, log=log)
    rows = [json.loads(line) for line in (folder / "sft" / "metrics.jsonl").read_text().splitlines()]
    tokens = [row["tokens"] for row in rows if "tokens" in row]
    seconds = [b - a for a, b in itertools.pairwise(ticks)]
    return {
        "updates": len(tokens),
        "tokens_per_update": round(sum(tokens) / len(tokens)),
        "tokens_s": sum(tokens[1:]) / sum(seconds) if seconds else float("nan"),
        "seconds_per_update": sum(seconds) / len(seconds) if seconds else float("nan"),
        "peak_gb": _peak(),
        "estimated_gb": facts[0]["estimated_gb"],
        "learning": facts[0]["learning_parameters"],
        "loss": [row["token_loss"] for row in rows if "token_loss" in row],
    }


def phase_2(folder: Path, checkpoint: Path, tools: ToolSettings, shape: str) -> dict[str, Any]:
    """`run_rft` on the adapter of phase 1, for a few updates of few and short rollouts: noise never ends a turn by itself."""
    wanted = load_recipe_as(RftRecipe, RECIPES / "rft.toml")
    _forget_peak()
    started = _learner(checkpoint, wanted, adapter=folder / "sft" / "policy")
    values = wanted.rft.model_dump()
    values = {key: value for key, value in values.items() if not key.endswith("_weight")}
    settings = RftSettings(**values | {"updates": 3, "prompts": 4, "group": 4, "max_steps": 2, "families": ("no_tool", "relation")},
                           corridor=CorridorSettings(**wanted.corridor.model_dump()))  # fmt: skip
    policy = VlmPolicy(started, temperature=1.0, top_p=1.0, max_new_tokens=64 if shape == "8b" else 12, num_slots=settings.num_parallel)
    _forget_peak()
    rows: list[dict] = []
    try:
        run_rft(policy, make_executor(tools), tools, folder / "rft", settings, log=lambda row: print(json.dumps(row), flush=True))
        rows = [json.loads(line) for line in (folder / "rft" / "metrics.jsonl").read_text().splitlines()]
    finally:
        policy.close()
    laps = {name: sum(row["seconds"][name] for row in rows[1:]) / (len(rows) - 1) for name in rows[0]["seconds"]}
    return {
        "updates": len(rows),
        "rollouts": settings.prompts * settings.group,
        "laps": laps,
        "peak_gb": _peak(),
        "mismatch": max(row["mismatch"] for row in rows),
        "first_kl": rows[0]["kl"],
    }


def write_model(folder: Path, shape: str) -> Path:
    """A checkpoint folder with the shape's weights, all noise of the initialiser's scale."""
    tokenizer = make_tokenizer(vocab_size=4096)
    make_checkpoint(
        folder, tokenizer, hidden=96, num_layers=4, num_heads=3, num_kv_heads=3, vision_layers=3, max_pixels=1 << 20, max_context=32_768
    )
    if shape == "tiny":
        return folder
    small = json.loads((folder / "config.json").read_text())
    ids = {key: value for key, value in small.items() if key.endswith("_token_id")}
    config = Qwen3VLConfig(text_config=TEXT_8B, vision_config=VISION_8B, tie_word_embeddings=False, **ids)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    with torch.device("meta"):
        model = Qwen3VLForConditionalGeneration(config)
    model = model.to(torch.bfloat16).to_empty(device=device)
    for name, parameter in model.named_parameters():
        parameter.data.fill_(1.0) if "norm" in name and name.endswith("weight") else parameter.data.normal_(0.0, 0.02)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder)
    del model
    torch.cuda.empty_cache()
    return folder


def _learner(checkpoint: Path, wanted: SftRecipe | RftRecipe, **more: Any) -> Any:
    return load_learner(checkpoint, wanted.lora, dtype=wanted.dtype, gradient_checkpointing=wanted.gradient_checkpointing, **more)


@contextmanager
def _watched(ticks: list[float]) -> Iterator[None]:
    """Notes when each update of phase 1 ended, with the device idle."""
    original = Journal.step

    def step(journal: Journal, *args: Any) -> None:
        _wait()
        ticks.append(time.perf_counter())
        original(journal, *args)

    Journal.step = step
    try:
        yield
    finally:
        Journal.step = original


def _timed(what: str, action: Callable[[], Any]) -> Any:
    start = time.perf_counter()
    result = action()
    _wait()
    print(f"{what}: {time.perf_counter() - start:.1f} s", flush=True)
    return result


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _forget_peak() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def _peak() -> float:
    """GB at most since `_forget_peak`; NaN without a GPU."""
    return torch.cuda.max_memory_allocated() / 1e9 if torch.cuda.is_available() else float("nan")


def page(shape: str, rows: list[dict[str, Any]]) -> str:
    """The results as Markdown."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    sft, rft = rows
    laps = ", ".join(f"{name} {seconds:.1f}" for name, seconds in rft["laps"].items())
    return "\n".join([
        "# Qwen3-VL-8B in its real shape" if shape == "8b" else "# The same on a tiny model",
        "",
        f"`python benchmarks/large.py --shape {shape}`, {device}, torch {torch.__version__}, transformers {transformers.__version__}. "
        "Random weights, bfloat16, LoRA and gradient checkpointing as in `recipes/paper-8b`.",
        "",
        "| Phase | Updates | Tokens per update | Tokens/s | Seconds per update | Peak GB | Estimated GB |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        f"| SFT ({sft['learning'] / 1e6:.1f} M learn) | {sft['updates']} | {sft['tokens_per_update']} | {sft['tokens_s']:.0f} | "
        f"{sft['seconds_per_update']:.1f} | {sft['peak_gb']:.1f} | {sft['estimated_gb']:.1f} |",
        f"| RFT ({rft['rollouts']} rollouts) | {rft['updates']} | | | {sum(rft['laps'].values()):.1f} | {rft['peak_gb']:.1f} | |",
        "",
        f"Of an RFT update, in seconds: {laps}. Largest difference of sampler and training: {rft['mismatch']:.4f} nats per token "
        f"(bfloat16); KL before the first step: {rft['first_kl']:.4f}.",
        f"Loss of phase 1 by update: {', '.join(f'{value:.2f}' for value in sft['loss'])}.",
        "",
    ])  # fmt: skip


if __name__ == "__main__":
    main()
