"""A randomly initialised Qwen3-VL checkpoint of any size: the real architecture and chat format, as transformers writes it.

The folder loads with transformers alone (`AutoModelForImageTextToText`, `AutoTokenizer`, `AutoImageProcessor`), so what runs on it runs on
a real checkpoint. Its answers mean nothing until somebody trains it.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pixelis.core.errors import NotInstalled

SPECIALS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
TAGS = ("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", "<think>", "</think>")
"""Whole tokens that are not special: they are part of the text, as in Qwen3-VL."""

# As in Qwen3-VL: the tools stand in the system turn, a result stands in a user turn, and several results share one.
CHAT_TEMPLATE = """
{%- macro body(content) -%}
  {%- if content is string -%}
    {{- content -}}
  {%- elif content -%}
    {%- for part in content -%}
      {%- if part.type == 'image' -%}
        {{- '<|vision_start|><|image_pad|><|vision_end|>' -}}
      {%- else -%}
        {{- part.text -}}
      {%- endif -%}
    {%- endfor -%}
  {%- endif -%}
{%- endmacro -%}
{%- set has_system = messages and messages[0].role == 'system' -%}
{%- if tools or has_system -%}
  {{- '<|im_start|>system\\n' -}}
  {%- if has_system -%}{{- body(messages[0].content) -}}{%- endif -%}
  {%- if tools -%}
    {%- if has_system -%}{{- '\\n\\n' -}}{%- endif -%}
    {{- '# Tools\\n\\nThese functions may be called:\\n<tools>' -}}
    {%- for tool in tools -%}{{- '\\n' + (tool | tojson) -}}{%- endfor -%}
    {{- '\\n</tools>\\n\\nWrite a call as JSON between tags:\\n<tool_call>\\n{"name": NAME, "arguments": {...}}\\n</tool_call>' -}}
  {%- endif -%}
  {{- '<|im_end|>\\n' -}}
{%- endif -%}
{%- for message in messages -%}
  {%- if message.role == 'user' -%}
    {{- '<|im_start|>user\\n' -}}{{- body(message.content) -}}{{- '<|im_end|>\\n' -}}
  {%- elif message.role == 'assistant' -%}
    {{- '<|im_start|>assistant\\n' -}}{{- body(message.content) -}}
    {%- for call in message.tool_calls or [] -%}
      {%- if message.content or not loop.first -%}{{- '\\n' -}}{%- endif -%}
      {%- set call = call.function if call.function else call -%}
      {{- '<tool_call>\\n' + ({'name': call.name, 'arguments': call.arguments} | tojson) + '\\n</tool_call>' -}}
    {%- endfor -%}
    {{- '<|im_end|>\\n' -}}
  {%- elif message.role == 'tool' -%}
    {%- if loop.first or messages[loop.index0 - 1].role != 'tool' -%}{{- '<|im_start|>user' -}}{%- endif -%}
    {{- '\\n<tool_response>\\n' -}}{{- body(message.content) -}}{{- '\\n</tool_response>' -}}
    {%- if loop.last or messages[loop.index0 + 1].role != 'tool' -%}{{- '<|im_end|>\\n' -}}{%- endif -%}
  {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<|im_start|>assistant\\n' -}}{%- endif -%}
"""


def make_checkpoint(
    folder: str | Path,
    tokenizer: Any,
    *,
    hidden: int = 128,
    intermediate: int | None = None,
    num_layers: int = 4,
    num_heads: int = 4,
    num_kv_heads: int = 2,
    vision_hidden: int = 96,
    vision_layers: int = 3,
    num_deepstack: int = 2,
    num_positions: int = 256,
    min_pixels: int = 32 * 32,
    max_pixels: int = 256 * 256,
    max_context: int = 8192,
    seed: int = 0,
) -> Path:
    """Write a checkpoint: model, tokenizer, image processor and chat template.

    Args:
        tokenizer: with `SPECIALS` and a chat template.
        hidden, intermediate: widths of the language model; three times the hidden width when left out.
        num_positions: learnt positions of patches, a square number: a grid that is stretched over every image.
        min_pixels, max_pixels: area to which images are resized; one visual token covers 32 x 32 of them.
        seed: of the weights.
    Returns:
        The folder.
    Raises:
        NotInstalled: torch, transformers or tokenizers is missing.
    """
    try:
        import torch
        from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration
        from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
    except ImportError:
        raise NotInstalled("torch with transformers 5.17 or newer", "pip install 'pixelis[vlm]'") from None
    folder = Path(folder)
    ids = {token: tokenizer.convert_tokens_to_ids(token) for token in SPECIALS}
    head_dim = hidden // num_heads
    third = head_dim // 2 // 3
    config = Qwen3VLConfig(
        text_config={
            "vocab_size": len(tokenizer),
            "hidden_size": hidden,
            "intermediate_size": intermediate or 3 * hidden,
            "num_hidden_layers": num_layers,
            "num_attention_heads": num_heads,
            "num_key_value_heads": num_kv_heads,
            "head_dim": head_dim,
            "max_position_embeddings": max_context,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 100_000.0,
                "mrope_section": [head_dim // 2 - 2 * third, third, third],
                "mrope_interleaved": True,
            },
            "tie_word_embeddings": True,
            "pad_token_id": ids["<|endoftext|>"],
        },
        vision_config={
            "depth": vision_layers,
            "hidden_size": vision_hidden,
            "intermediate_size": 3 * vision_hidden,
            "num_heads": 4,
            "out_hidden_size": hidden,
            "num_position_embeddings": num_positions,
            "deepstack_visual_indexes": list(range(num_deepstack)),
        },
        image_token_id=ids["<|image_pad|>"],
        video_token_id=ids["<|video_pad|>"],
        vision_start_token_id=ids["<|vision_start|>"],
        vision_end_token_id=ids["<|vision_end|>"],
        tie_word_embeddings=True,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Qwen3VLForConditionalGeneration(config)
    model.generation_config.update(
        eos_token_id=[ids["<|im_end|>"], ids["<|endoftext|>"]], pad_token_id=ids["<|endoftext|>"], do_sample=True
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    images = Qwen2VLImageProcessorPil(
        patch_size=16,
        temporal_patch_size=2,
        merge_size=2,
        size={"shortest_edge": min_pixels, "longest_edge": max_pixels},
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
    )
    images.save_pretrained(folder)
    _name_processor(folder)
    return folder


def _name_processor(folder: Path) -> None:
    """Say which processor class the folder belongs to, for loaders that have torchvision and can build it."""
    path = folder / "preprocessor_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"processor_class": "Qwen3VLProcessor"}, indent=2))
