"""The language model as a sampler needs it: lanes of keys and values that outlive a turn, and one step for all lanes at once.

It runs the checkpoint's own modules and weights in the order of transformers' forward pass, without its generality: no mask
building, no cache classes, no output records. On a small model these cost more than the arithmetic. Letters: N sequences or
tokens, D hidden size, H heads, K key-value heads, G query heads per key-value head, L layers, V vocabulary, T tokens, C capacity.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

from pixelis.policy.vlm_load import base_of
from pixelis.policy.vlm_vision import Features

FUSE_LIMIT = 300_000_000
"""Language models up to this many parameters get a second copy of their weights, merged for fewer and larger products."""

FIRST_CAPACITY = 512


@dataclass(frozen=True)
class Piece:
    """Tokens that one lane has yet to read.

    Args:
        lane: where its keys and values go.
        start: how many tokens the lane has read so far.
        ids: the tokens.
        positions_3T: their rotary positions.
        images: features of the images among them, with the stretch they stand in, counted from `start`.
    """

    lane: int
    start: int
    ids: Sequence[int]
    positions_3T: torch.Tensor
    images: Sequence[tuple[int, int, Features]] = ()


class Decoder:
    """Keys and values of `num_lanes` sequences, and the two ways to extend them.

    Args:
        model: a Qwen3-VL model, with or without LoRA adapters.
        num_lanes: sequences held at once.
        image_id: the id of an image token.
        fuse_limit: parameters of a language model up to which weights are merged for speed.
    """

    def __init__(self, model: Any, *, num_lanes: int, image_id: int, fuse_limit: int = FUSE_LIMIT) -> None:
        base = base_of(model)
        self._text, self._head, self._image_id = base.model.language_model, base.lm_head, image_id
        self.num_lanes = num_lanes
        config = self._text.config
        self._heads, self._kv_heads = config.num_attention_heads, config.num_key_value_heads
        self._head_dim = getattr(config, "head_dim", None) or config.hidden_size // self._heads
        weight = self._text.embed_tokens.weight
        self.device, self.dtype = weight.device, weight.dtype
        self._is_fused = sum(p.numel() for p in self._text.parameters()) <= fuse_limit
        self._kv = self._empty(FIRST_CAPACITY)
        self.refresh()

    def refresh(self) -> None:
        """Read the weights again, after training or a change of adapter; what the lanes hold is then stale."""
        with torch.no_grad():
            self._layers = [_Layer(layer, self._is_fused) for layer in self._text.layers]
            self._tables = self._rotary(torch.arange(self._kv.shape[-2], device=self.device).expand(3, -1))

    # ------------------------------------------------------------ lanes

    def save(self, lane: int, length: int) -> torch.Tensor:
        """A copy of a lane's first `length` keys and values."""
        return self._kv[:, :, lane, :, :length].clone()

    def restore(self, lane: int, saved: torch.Tensor) -> None:
        self._reserve(saved.shape[-2])
        self._kv[:, :, lane, :, : saved.shape[-2]] = saved

    def _empty(self, capacity: int) -> torch.Tensor:
        shape = (len(self._text.layers), 2, self.num_lanes, self._kv_heads, capacity, self._head_dim)
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def _reserve(self, length: int) -> None:
        capacity = self._kv.shape[-2]
        if length <= capacity:
            return
        while capacity < length:
            capacity *= 2
        grown = self._empty(capacity)
        grown[..., : self._kv.shape[-2], :] = self._kv
        self._kv = grown
        self._tables = self._rotary(torch.arange(capacity, device=self.device).expand(3, -1))

    def _rotary(self, positions_3T: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines [T, 1, head size]; the sines carry the sign of the half that is swapped in."""
        cos, sin = self._text.rotary_emb(self._text.embed_tokens.weight, positions_3T[:, None])
        sin = sin[0].clone()
        sin[:, : self._head_dim // 2] *= -1
        return cos[0][:, None], sin[:, None]

    def _turn(self, x_NHd: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        return torch.addcmul(x_NHd * cos, x_NHd.roll(self._head_dim // 2, -1), sin)

    # ------------------------------------------------------------ reading

    def read(self, pieces: Sequence[Piece]) -> torch.Tensor:
        """Extend lanes by any number of tokens each, in one pass over all their tokens.

        Returns:
            Logits [N pieces, V] behind each piece's last token.

        Raises:
            RuntimeError: image tokens and image features do not match.
        """
        self._refuse_dropout()
        self._reserve(max(p.start + len(p.ids) for p in pieces))
        ids = torch.tensor([id_ for p in pieces for id_ in p.ids], device=self.device)
        hidden = F.embedding(ids, self._text.embed_tokens.weight)
        features = [f for p in pieces for _, _, f in p.images]
        places = self._check_images(pieces, ids)
        if features:
            hidden[places] = torch.cat([f.tokens_ND for f in features]).to(self.dtype)
        deep = torch.cat([f.deep_LND for f in features], dim=1).to(self.dtype) if features else ()
        cos, sin = self._rotary(torch.cat([p.positions_3T for p in pieces], dim=1).to(self.device))
        masks = [self._mask(p) for p in pieces]
        for index, layer in enumerate(self._layers):
            q, k, v = self._project(layer, hidden, cos, sin)
            hidden = layer.finish(hidden, self._attend_pieces(index, pieces, masks, q, k, v))
            if index < len(deep):
                hidden[places] += deep[index]
        lasts = torch.tensor([len(p.ids) for p in pieces], device=self.device).cumsum(0) - 1
        return self._head(self._text.norm(hidden[lasts]))

    def _check_images(self, pieces: Sequence[Piece], ids: torch.Tensor) -> torch.Tensor:
        """Indices of the image tokens, which must be exactly where the features say."""
        places, offset = [], 0
        for piece in pieces:
            for start, end, features in piece.images:
                if end - start != features.tokens_ND.shape[0]:
                    raise RuntimeError(f"{end - start} image tokens, but {features.tokens_ND.shape[0]} image features")
                places.extend(range(offset + start, offset + end))
            offset += len(piece.ids)
        found = (ids == self._image_id).nonzero()[:, 0]
        expected = torch.tensor(places, dtype=found.dtype, device=self.device)
        if not torch.equal(found, expected):
            raise RuntimeError(f"{len(found)} image tokens, but {len(places)} image features, or elsewhere")
        return expected

    def _mask(self, piece: Piece) -> torch.Tensor | None:
        """Which keys each new token sees [T, keys]; None where plain causal attention does."""
        if piece.start == 0:
            return None
        num = len(piece.ids)
        return torch.ones(num, piece.start + num, dtype=torch.bool, device=self.device).tril(piece.start)

    def _attend_pieces(
        self, index: int, pieces: Sequence[Piece], masks: list, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
    ) -> torch.Tensor:
        out, offset = [], 0
        for piece, mask in zip(pieces, masks, strict=True):
            num = len(piece.ids)
            stretch = slice(offset, offset + num)
            end = piece.start + num
            keys, values = self._kv[index, :, piece.lane, :, :end]
            keys[:, piece.start :] = k[stretch].transpose(0, 1)
            values[:, piece.start :] = v[stretch].transpose(0, 1)
            queries = q[stretch].transpose(0, 1)[None]
            got = F.scaled_dot_product_attention(
                queries, keys[None], values[None], attn_mask=mask, is_causal=mask is None, enable_gqa=self._heads != self._kv_heads
            )
            out.append(got[0].transpose(0, 1).reshape(num, -1))
            offset += num
        return out[0] if len(out) == 1 else torch.cat(out)

    # ------------------------------------------------------------ stepping

    def step(self, lanes: Sequence[int], ids: Sequence[int], lengths: Sequence[int], positions: Sequence[int]) -> torch.Tensor:
        """Extend each lane by one text token.

        Args:
            lanes: distinct lanes, ascending.
            ids: the token for each.
            lengths: how many tokens each has read so far.
            positions: rotary position of each token.
        Returns:
            Logits [N lanes, V].
        """
        self._refuse_dropout()
        longest, reach = max(lengths) + 1, lanes[-1] + 1
        self._reserve(max(longest, max(positions) + 1))
        index = torch.tensor([lanes, ids, lengths, positions], device=self.device)
        lane_N, id_N, length_N, position_N = index
        hidden = F.embedding(id_N, self._text.embed_tokens.weight)
        cos, sin = self._tables[0][position_N], self._tables[1][position_N]
        # Lanes that rest are computed along and dropped: attention over a view is cheaper than gathering keys and values.
        is_dense = reach == len(lanes)
        ends = length_N if is_dense else length_N.new_zeros(reach).index_copy_(0, lane_N, length_N)
        hidden_keys = torch.arange(longest, device=self.device) > ends[:, None]
        mask = torch.zeros_like(hidden_keys, dtype=self.dtype).masked_fill_(hidden_keys, float("-inf"))[:, None, None]
        for number, layer in enumerate(self._layers):
            q, k, v = self._project(layer, hidden, cos, sin)
            keys, values = self._kv[number]
            keys[lane_N, :, length_N] = k
            values[lane_N, :, length_N] = v
            q = q.view(len(lanes), self._kv_heads, -1, self._head_dim)  # the heads of a group become rows of one query
            if not is_dense:
                q = q.new_zeros(reach, *q.shape[1:]).index_copy_(0, lane_N, q)
            out = F.scaled_dot_product_attention(q, keys[:reach, :, :longest], values[:reach, :, :longest], attn_mask=mask)
            out = out if is_dense else out[lane_N]
            hidden = layer.finish(hidden, out.reshape(len(lanes), -1))
        return self._head(self._text.norm(hidden))

    def _refuse_dropout(self) -> None:
        if self._text.training and not self._is_fused:
            raise RuntimeError("the model is in training mode, in which adapters drop out at random: call model.eval() before sampling")

    def _project(self, layer: _Layer, hidden: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, ...]:
        q, k, v = layer.project(hidden, self._heads, self._kv_heads, self._head_dim)
        return self._turn(q, cos, sin), self._turn(k, cos, sin), v


class _Layer:
    """One decoder layer, cut at its attention."""

    def __init__(self, layer: Any, is_fused: bool) -> None:
        attention, mlp = layer.self_attn, layer.mlp
        self._layer, self._attention, self._mlp = layer, attention, mlp
        self._is_fused = is_fused and all(hasattr(mlp, name) for name in ("gate_proj", "up_proj", "down_proj"))
        if self._is_fused:
            self._qkv = _stack([attention.q_proj, attention.k_proj, attention.v_proj])
            self._gate_up = _stack([mlp.gate_proj, mlp.up_proj])
            self._out, self._down = _stack([attention.o_proj]), _stack([mlp.down_proj])

    def project(self, hidden_ND: torch.Tensor, heads: int, kv_heads: int, head_dim: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Queries [N, H, head size], keys and values [N, K, head size], normalised, not yet rotated."""
        x, attention = _norm(self._layer.input_layernorm, hidden_ND), self._attention
        if self._is_fused:
            q, k, v = F.linear(x, *self._qkv).view(len(x), -1, head_dim).split((heads, kv_heads, kv_heads), dim=1)
        else:
            q, k, v = (project(x).view(len(x), -1, head_dim) for project in (attention.q_proj, attention.k_proj, attention.v_proj))
        return _norm(attention.q_norm, q), _norm(attention.k_norm, k), v

    def finish(self, hidden_ND: torch.Tensor, attended_ND: torch.Tensor) -> torch.Tensor:
        """What follows attention: output projection and feed-forward, each added to the stream."""
        if not self._is_fused:
            hidden_ND = hidden_ND + self._attention.o_proj(attended_ND)
            return hidden_ND + self._mlp(_norm(self._layer.post_attention_layernorm, hidden_ND)[None])[0]
        hidden_ND = hidden_ND + F.linear(attended_ND, *self._out)
        gate, up = F.linear(_norm(self._layer.post_attention_layernorm, hidden_ND), *self._gate_up).chunk(2, dim=-1)
        return hidden_ND + F.linear(self._mlp.act_fn(gate) * up, *self._down)


def _norm(module: Any, x: torch.Tensor) -> torch.Tensor:
    """RMS norm; in half precision through the module, whose rounding the training pass shares."""
    if x.dtype != torch.float32:
        return module(x)
    return F.rms_norm(x, x.shape[-1:], module.weight, module.variance_epsilon)


def _stack(modules: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Weights of several linear modules as one, active adapters merged in; with one module and no adapter, a view of its own."""
    weights = [_merged(m) for m in modules]
    biases = [m.bias for m in modules]
    weight = weights[0] if len(weights) == 1 else torch.cat(weights)
    return weight, None if biases[0] is None else torch.cat(biases)


def _merged(module: Any) -> torch.Tensor:
    if not hasattr(module, "lora_A"):
        return module.weight
    weight = base = module.get_base_layer().weight
    if module.disable_adapters or module.merged:
        return base
    for name in module.active_adapters:
        if name in module.lora_A:
            weight = weight + module.get_delta_weight(name)
    return weight.to(base.dtype)  # adapters are float32 whatever the base is
