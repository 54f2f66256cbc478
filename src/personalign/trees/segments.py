"""Attention on a CPU that skips what no token sees.

A tree's mask is mostly empty: a branch sees its own tokens and the trunk before it, no other branch. The rows of
the mask are cut into segments, runs of neighbouring nodes, and each segment attends to the keys alone that one of
its tokens sees. Same sums as with the whole mask, at a fraction of the work.
"""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from transformers.integrations.sdpa_attention import repeat_kv
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from personalign.trees.tree import BoolArray, IntArray

# Shorter segments would skip more, but small matrices are slow.
SHORTEST, LONGEST = 48, 128


@dataclass(frozen=True, slots=True)
class Segment:
    """Tokens `first` to `last` of a row, the runs of tokens that they see, and what of those each one sees.

    `mask` is additive, fp32 [1, queries, keys].
    """

    row: int
    first: int
    last: int
    keys: tuple[tuple[int, int], ...]
    mask: Tensor


def segments_of(visible: Tensor, *, node: Tensor) -> list[Segment]:
    """Cut every row into segments: neighbouring small nodes joined, long nodes cut.

    `visible` is bool [rows, tokens, tokens], `node` the node of each token, [rows, tokens].
    """
    return [
        _segment(seen, row, first, last)
        for row, (seen, nodes) in enumerate(zip(visible.numpy(), node.numpy(), strict=True))
        for first, last in _runs_of_nodes(nodes)
    ]


def _runs_of_nodes(node: IntArray) -> list[tuple[int, int]]:
    borders = [0, *(np.flatnonzero(np.diff(node)) + 1).tolist(), len(node)]
    runs: list[tuple[int, int]] = []
    for first, last in pairwise(borders):
        if runs and runs[-1][1] - runs[-1][0] < SHORTEST and last - first < SHORTEST:
            runs[-1] = (runs[-1][0], last)
            continue
        cuts = np.linspace(first, last, -(-(last - first) // LONGEST) + 1).astype(int).tolist()
        runs.extend(pairwise(cuts))
    return runs


def _segment(visible: BoolArray, row: int, first: int, last: int) -> Segment:
    seen = np.flatnonzero(np.diff(visible[first:last].any(0), prepend=False, append=False))
    keys = tuple((int(start), int(end)) for start, end in seen.reshape(-1, 2))
    part = np.concatenate([visible[first:last, start:end] for start, end in keys], axis=1)
    mask = np.where(part, np.float32(0), np.finfo(np.float32).min)
    return Segment(row, first, last, keys, torch.from_numpy(mask)[None])


@contextlib.contextmanager
def attending_in(segments: Sequence[Segment], *, mask: Tensor) -> Iterator[None]:
    """Within this context, layers of the `sdpa` implementation that are handed `mask` attend in these segments.

    Layers that are handed anything else (a mask with a bias in it, say) do as ever. The implementation is replaced
    for the whole process: contexts of two threads must not overlap.
    """
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
    ) -> Any:
        if attention_mask is not mask or dropout or position_bias is not None or softcap is not None:
            return usual(
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
        groups = query.shape[1] // key.shape[1]
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
        key, value = repeat_kv(key, groups), repeat_kv(value, groups)
        scale = query.shape[-1] ** -0.5 if scaling is None else scaling
        # What is cast is decided here; autocast would take the scores to half precision as well.
        with torch.autocast("cpu", enabled=False):
            return _SegmentAttention.apply(query, key, value, segments, scale), None  # type: ignore[no-untyped-call]

    ALL_ATTENTION_FUNCTIONS["sdpa"] = attention
    try:
        yield
    finally:
        del ALL_ATTENTION_FUNCTIONS["sdpa"]


class _SegmentAttention(torch.autograd.Function):
    """Queries, keys and values [rows, heads, tokens, width] -> [rows, tokens, heads, width].

    Scores and softmax are in fp32 or better, as in the kernels that this stands for.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, segments: Sequence[Segment], scale: float
    ) -> Tensor:
        result = query.new_empty(query.transpose(1, 2).shape[:-1] + value.shape[-1:])
        precise = torch.promote_types(query.dtype, torch.float32)
        scaled, exact_key = query.to(precise) * scale, key.to(precise)
        shares = []
        for segment in segments:
            scores = torch.bmm(_queries(scaled, segment), _keys(exact_key, segment).mT).add_(segment.mask)
            share = torch.softmax(scores, dim=-1).to(value.dtype)
            part = torch.bmm(share, _keys(value, segment))
            result[segment.row, segment.first : segment.last] = part.transpose(0, 1)
            shares.append(share)
        ctx.save_for_backward(query, key, value, *shares)
        ctx.segments, ctx.scale = segments, scale
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None, None]:
        query, key, value, *shares = ctx.saved_tensors
        gradient = gradient.transpose(1, 2)
        to_query, to_key, to_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for segment, share in zip(ctx.segments, shares, strict=True):
            queries, keys, values = _queries(query, segment), _keys(key, segment), _keys(value, segment)
            to_result = _queries(gradient, segment)
            to_share = torch.bmm(to_result, values.mT)
            to_scores = torch._softmax_backward_data(to_share, share, -1, share.dtype)
            to_query[segment.row, :, segment.first : segment.last] = torch.bmm(to_scores, keys)
            _add_to_keys(to_key, segment, torch.bmm(to_scores.mT, queries))
            _add_to_keys(to_value, segment, torch.bmm(share.mT, to_result))
        return to_query.mul_(ctx.scale), to_key.mul_(ctx.scale), to_value, None, None


def _queries(states: Tensor, segment: Segment) -> Tensor:
    return states[segment.row, :, segment.first : segment.last]


def _keys(states: Tensor, segment: Segment) -> Tensor:
    row = states[segment.row]
    if len(segment.keys) == 1:
        return row[:, segment.keys[0][0] : segment.keys[0][1]]
    return torch.cat([row[:, start:end] for start, end in segment.keys], dim=1)


def _add_to_keys(states: Tensor, segment: Segment, part: Tensor) -> None:
    done = 0
    for start, end in segment.keys:
        states[segment.row, :, start:end] += part[:, done : done + end - start]
        done += end - start
