"""Attention on a CPU that skips what no token sees.

A tree's mask is mostly empty: a branch sees its own tokens and the trunk before it, no other branch. The rows of
the mask are cut into segments, runs of neighbouring nodes, and each segment attends to the keys alone that one of
its tokens sees. Same sums as with the whole mask, at a fraction of the work.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from personalign.trees.packing import PackedBatch

# Shorter segments would skip more, but small matrices are slow.
SHORTEST = 64

_attend = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
_attend_backward = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens `first` to `last` of a row, the runs of tokens that they see, and what of those each one sees.

    `mask` is additive, fp32 [1, 1, queries, keys]; None means that each token sees the run up to itself.
    """

    row: int
    first: int
    last: int
    keys: tuple[tuple[int, int], ...]
    mask: Tensor | None


def segments_of(batch: PackedBatch) -> list[Segment]:
    """Cut every row into segments of whole nodes with at least `SHORTEST` tokens, where there are so many."""
    visible, node = batch.visible.numpy(), batch.node.numpy()
    return [
        _segment(visible[row], row, first, last)
        for row in range(len(node))
        for first, last in _runs_of_nodes(node[row])
    ]


def _runs_of_nodes(node: np.ndarray[Any, Any]) -> list[tuple[int, int]]:
    borders = [0, *(np.flatnonzero(np.diff(node)) + 1).tolist(), len(node)]
    runs: list[tuple[int, int]] = []
    for first, last in zip(borders[:-1], borders[1:], strict=True):
        if runs and runs[-1][1] - runs[-1][0] < SHORTEST and last - first < SHORTEST:
            runs[-1] = (runs[-1][0], last)
        else:
            runs.append((first, last))
    return runs


def _segment(visible: np.ndarray[Any, Any], row: int, first: int, last: int) -> Segment:
    seen = np.flatnonzero(np.diff(visible[first:last].any(0), prepend=False, append=False))
    keys = tuple((int(start), int(end)) for start, end in seen.reshape(-1, 2))
    part = np.concatenate([visible[first:last, start:end] for start, end in keys], axis=1)
    if keys == ((first, last),) and np.array_equal(part, np.tri(last - first, dtype=np.bool_)):
        return Segment(row, first, last, keys, None)
    mask = np.where(part, np.float32(0), np.finfo(np.float32).min)
    return Segment(row, first, last, keys, torch.from_numpy(mask)[None, None])


@contextlib.contextmanager
def attending_in(segments: Sequence[Segment]) -> Iterator[None]:
    """Within this context models with the `sdpa` implementation attend in these segments."""
    usual = ALL_ATTENTION_FUNCTIONS["sdpa"]

    def attention(
        module: nn.Module,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attention_mask: Tensor | None,
        dropout: float = 0.0,
        scaling: float | None = None,
        position_bias: Tensor | None = None,
        softcap: float | None = None,
        **others: Any,
    ) -> tuple[Tensor, None]:
        whole = query.shape[2] == key.shape[2]
        if dropout or position_bias is not None or softcap is not None or not whole:
            result: tuple[Tensor, None] = usual(
                module,
                query,
                key,
                value,
                attention_mask,
                dropout=dropout,
                scaling=scaling,
                position_bias=position_bias,
                softcap=softcap,
                **others,
            )
            return result
        groups = query.shape[1] // key.shape[1]
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        return _SegmentAttention.apply(query, key, value, segments, scaling), None  # type: ignore[no-untyped-call]

    ALL_ATTENTION_FUNCTIONS["sdpa"] = attention
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]


class _SegmentAttention(torch.autograd.Function):
    """Queries, keys and values [rows, heads, tokens, width] -> [rows, tokens, heads, width]."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: Sequence[Segment], scale: float | None
    ) -> Tensor:
        result = query.new_empty(query.transpose(1, 2).shape[:-1] + value.shape[-1:])
        norms = []
        for segment in segments:
            part, norm = _attend(
                _queries(query, segment),
                _keys(key, segment),
                _keys(value, segment),
                0.0,
                segment.mask is None,
                attn_mask=segment.mask,
                scale=scale,
            )
            result[segment.row, segment.first : segment.last] = part[0].transpose(0, 1)
            norms.append(norm)
        ctx.save_for_backward(query, key, value, result, *norms)
        ctx.segments, ctx.scale = segments, scale
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, result, *norms = ctx.saved_tensors
        result, gradient = result.transpose(1, 2), gradient.transpose(1, 2)
        to_query, to_key, to_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for segment, norm in zip(ctx.segments, norms, strict=True):
            parts = _attend_backward(
                _queries(gradient, segment),
                _queries(query, segment),
                _keys(key, segment),
                _keys(value, segment),
                _queries(result, segment),
                norm,
                0.0,
                segment.mask is None,
                attn_mask=segment.mask,
                scale=ctx.scale,
            )
            to_query[segment.row, :, segment.first : segment.last] = parts[0][0]
            _add_to_keys(to_key, segment, parts[1])
            _add_to_keys(to_value, segment, parts[2])
        return to_query, to_key, to_value, None, None


def _queries(states: Tensor, segment: Segment) -> Tensor:
    return states[segment.row : segment.row + 1, :, segment.first : segment.last]


def _keys(states: Tensor, segment: Segment) -> Tensor:
    row = states[segment.row : segment.row + 1]
    if len(segment.keys) == 1:
        return row[:, :, segment.keys[0][0] : segment.keys[0][1]]
    return torch.cat([row[:, :, start:end] for start, end in segment.keys], dim=2)


def _add_to_keys(states: Tensor, segment: Segment, part: Tensor) -> None:
    done = 0
    for start, end in segment.keys:
        states[segment.row, :, start:end] += part[0, :, done : done + end - start]
        done += end - start
