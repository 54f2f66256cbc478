"""The models of the benchmark, from configurations with seeded weights, and their work in operations."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from _data import VOCABULARY
from personalign.trees import scoring
from personalign.trees.segments import Segment, segments_of

SIZES = ("10M", "30M", "124M")
SEED = 0


def build_model(size: str) -> Any:
    """A model of this size, the same weights in every process; no dropout."""
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    if size == "124M":
        config: Any = GPT2Config(
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, pad_token_id=2, eos_token_id=1
        )
    else:
        width, layers, inner, heads = (320, 6, 960, 5) if size == "10M" else (512, 8, 1536, 8)
        config = LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=width,
            num_hidden_layers=layers,
            intermediate_size=inner,
            num_attention_heads=heads,
            num_key_value_heads=heads,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
    torch.manual_seed(SEED)
    return AutoModelForCausalLM.from_config(config, attn_implementation="sdpa", dtype=torch.float32)


class WorkCounter:
    """Counts the tokens that a model is given, padding included, and the operations that they cost.

    `ours` tells that the head sees scored tokens alone, and that attention skips what no token of a segment sees.
    """

    def __init__(self, model: Any, *, ours: bool) -> None:
        self._ours = ours
        self._pairs = 0
        self.tokens = 0
        self.operations = 0.0
        config = model.config
        self._layers = config.num_hidden_layers
        self._width = config.hidden_size
        self._head = model.get_output_embeddings().weight.numel()
        skipped = self._head + (config.n_positions * config.n_embd if config.model_type == "gpt2" else 0)
        self._body = sum(parameter.numel() for parameter in model.parameters()) - skipped
        self._handles = [model.get_input_embeddings().register_forward_pre_hook(self._see_tokens)]
        if ours:
            self._handles.append(model.get_output_embeddings().register_forward_hook(self._see_scored))
            # The name that the scoring module calls it by.
            scoring.segments_of = self._seen_segments(segments_of)  # type: ignore[attr-defined]

    def _seen_segments(self, cut: Callable[..., list[Segment]]) -> Callable[..., list[Segment]]:
        def counted(*arguments: Tensor, **named: Tensor) -> list[Segment]:
            segments = cut(*arguments, **named)
            self._pairs = sum(segment.mask.numel() for segment in segments)
            return segments

        return counted

    def _see_tokens(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        rows, length = arguments[0].shape
        tokens = rows * length
        self.tokens += tokens
        # Queries by keys; segments are cut before the forward pass that this is the beginning of.
        pairs = self._pairs if self._ours else length * tokens
        attention = 2 * self._layers * self._width * pairs
        body = self._body * tokens
        # A peer that does not hand its positions to the head itself runs it on every token.
        head = 0 if self._ours else self._head * tokens
        self._add(body + attention + head)

    def _see_scored(self, _: nn.Module, arguments: tuple[Any, ...], __: Any) -> None:
        self._add(self._head * arguments[0].shape[:-1].numel())

    def _add(self, multiplications: float) -> None:
        # Two operations per multiplication; the backward pass repeats each product twice.
        self.operations += 2 * multiplications * (3 if torch.is_grad_enabled() else 1)

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()


@dataclass(frozen=True, slots=True)
class Peak:
    """Measured operations per second of a large square matrix product."""

    fp32: float
    bf16: float | None


def measure_peak(*, with_bf16: bool) -> Peak:
    return Peak(
        fp32=_product_rate(torch.float32),
        bf16=_product_rate(torch.bfloat16) if with_bf16 else None,
    )


def _product_rate(dtype: torch.dtype, *, size: int = 2048, repeats: int = 8) -> float:
    left, right = torch.randn(size, size).to(dtype), torch.randn(size, size).to(dtype)
    torch.mm(left, right)
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        torch.mm(left, right)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best
