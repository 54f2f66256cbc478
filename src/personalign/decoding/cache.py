"""A key-value cache in which tokens keep their slots: written once, never moved, and cut back at will."""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicLayer


class _SlotLayer(DynamicLayer):  # type: ignore[misc]
    """Keys and values of one layer, [rows, heads, slots, size], in a buffer that grows by half when it is full.

    transformers' own dynamic layer copies everything at every token; here a step writes only its own slots.
    """

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self._capacity = capacity
        self._used = 0
        self._key_buffer: Tensor | None = None
        self._value_buffer: Tensor | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        start, end = self._used, self._used + key_states.shape[-2]
        self._key_buffer = self._room(self._key_buffer, key_states, end)
        self._value_buffer = self._room(self._value_buffer, value_states, end)
        self._key_buffer[:, :, start:end] = key_states
        self._value_buffer[:, :, start:end] = value_states
        self._used = end
        self.keys = self._key_buffer[:, :, :end]
        self.values = self._value_buffer[:, :, :end]
        self.is_initialized = True
        return self.keys, self.values

    def _room(self, buffer: Tensor | None, like: Tensor, end: int) -> Tensor:
        if buffer is not None and end <= buffer.shape[-2]:
            return buffer
        slots = max(self._capacity, end + end // 2)
        grown = like.new_empty((*like.shape[:-2], slots, like.shape[-1]))
        if buffer is not None:
            grown[:, :, : self._used] = buffer[:, :, : self._used]
        return grown

    def keep(self, rows: Tensor, slots: Tensor) -> None:
        """Keep the given rows [kept] and, of each, the given slots [kept, slots], in that order."""
        assert self._key_buffer is not None
        assert self._value_buffer is not None
        self._key_buffer = _gather(self._key_buffer, rows, slots, room=self._capacity)
        self._value_buffer = _gather(self._value_buffer, rows, slots, room=self._capacity)
        self._used = slots.shape[1]


def _gather(buffer: Tensor, rows: Tensor, slots: Tensor, *, room: int) -> Tensor:
    heads = torch.arange(buffer.shape[1], device=buffer.device)
    kept = slots.shape[1]
    result = buffer.new_empty((len(rows), buffer.shape[1], kept + room, buffer.shape[3]))
    result[:, :, :kept] = buffer[rows[:, None, None], heads[:, None], slots[:, None]]
    return result


class SlotCache(Cache):  # type: ignore[misc]
    """One slot layer per layer of the model."""

    def __init__(self, *, layers: int, capacity: int) -> None:
        super().__init__(layers=[_SlotLayer(capacity) for _ in range(layers)])

    def keep(self, rows: Tensor, slots: Tensor) -> None:
        for layer in self.layers:
            layer.keep(rows, slots)
