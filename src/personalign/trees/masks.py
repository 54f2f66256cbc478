"""The visibility rule as each attention implementation wants it."""

from typing import Any

import torch
from torch import Tensor

from personalign.trees.packing import PackedBatch
from personalign.trees.plan import Attention, ScoringPlan

RECOMPILE_LIMIT = 64


def attention_masks(batch: PackedBatch, *, plan: ScoringPlan, dtype: torch.dtype) -> Any:
    """What to pass as `attention_mask`: one mask, or a dict of one mask per kind of layer.

    A sliding window is counted in positions along the path, as it would be in the path run alone: a token
    sees those of its path whose position is less than `window` behind its own.
    """
    full = _mask(batch, window=None, attention=plan.attention, dtype=dtype)
    if plan.window is None and not plan.layer_types:
        return full
    sliding = _mask(batch, window=plan.window, attention=plan.attention, dtype=dtype)
    if not plan.layer_types:
        return sliding
    return {kind: sliding if kind == "sliding_attention" else full for kind in plan.layer_types}


def _mask(batch: PackedBatch, *, window: int | None, attention: Attention, dtype: torch.dtype) -> Any:
    if attention == "flex_attention":
        return _block_mask(batch, window=window)
    visible = batch.visible
    assert visible is not None, "packed without a mask"
    if window is not None:
        distance = batch.position_ids[:, :, None] - batch.position_ids[:, None, :]
        visible = visible & (distance < window)
    if attention == "eager":
        return additive(visible[:, None], dtype=dtype)
    return visible[:, None]


def additive(visible: Tensor, *, dtype: torch.dtype) -> Tensor:
    """0 where visible, the dtype's lowest number elsewhere."""
    zero = torch.zeros((), dtype=dtype, device=visible.device)
    return torch.where(visible, zero, torch.finfo(dtype).min)


def _block_mask(batch: PackedBatch, *, window: int | None) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    # Kernels are compiled for each mode of gradients, precision and number of heads, and once more where lengths
    # turn out to change. Beyond torch's limit of 8 it would go on uncompiled, slower by far, with a mere warning.
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, RECOMPILE_LIMIT)
    node, limits, start, positions = batch.node, batch.limits, batch.start, batch.position_ids

    def rule(row: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        of_query, of_key = node[row, query], node[row, key]
        reach = key - start[row, of_key] < limits[row, of_query, of_key]
        seen = (query == key) | (reach & ((of_query != of_key) | (key <= query)))
        if window is not None:
            seen = seen & (positions[row, query] - positions[row, key] < window)
        return seen

    rows, length = batch.input_ids.shape
    device = batch.input_ids.device
    # Uncompiled, the rule is worked out for every pair of tokens before blocks are made of it.
    compiled = device.type == "cuda"
    return create_block_mask(
        rule, B=rows, H=None, Q_LEN=length, KV_LEN=length, device=device, _compile=compiled
    )
