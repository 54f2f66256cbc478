"""The models of the benchmark, from configurations with seeded weights, and their work in operations."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask

from _data import VOCABULARY
from personalign.trees import scoring
from personalign.trees.masks import attention_masks
from personalign.trees.segments import Segment, segments_of

SIZES = ("10M", "30M", "124M")
# On a GPU, Llama-shaped with the vocabularies of GPT-2 and of Llama 3.2 1B, whose shape the larger one has.
GPU_SIZES = ("llama-124M", "llama-1.2B")
SEED = 0
# Width, layers, inner width, heads, heads of keys and values, vocabulary.
LLAMAS = {
    "10M": (320, 6, 960, 5, 5, VOCABULARY),
    "30M": (512, 8, 1536, 8, 8, VOCABULARY),
    "llama-124M": (768, 12, 2048, 12, 12, 50257),
    "llama-1.2B": (2048, 16, 8192, 32, 8, 128256),
}


def build_model(size: str, *, device: str = "cpu", attention: str = "sdpa", max_positions: int = 1024) -> Any:
    """A model of this size, the same weights in every process; no dropout."""
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig

    if size == "124M":
        config: Any = GPT2Config(
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, pad_token_id=2, eos_token_id=1
        )
    else:
        width, layers, inner, heads, kv_heads, vocabulary = LLAMAS[size]
        config = LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=width,
            num_hidden_layers=layers,
            intermediate_size=inner,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            max_position_embeddings=max_positions,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=2,
        )
    torch.manual_seed(SEED)
    with torch.device(device):
        return AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=torch.float32)


class WorkCounter:
    """Counts the tokens that a model is given, padding included, and the operations that they cost.

    `ours` tells that the head sees scored tokens alone, and that attention skips what no token of a segment sees.
    """

    def __init__(self, model: Any, *, ours: bool) -> None:
        self._ours = ours
        # Queries by keys; on a GPU a tensor, which nobody waits for before the end.
        self._pairs: Any = 0
        self.tokens = 0
        self._counted: Any = 0.0
        config = model.config
        self._layers = config.num_hidden_layers
        self._width = config.hidden_size
        self._head = model.get_output_embeddings().weight.numel()
        skipped = self._head + (config.n_positions * config.n_embd if config.model_type == "gpt2" else 0)
        self._body = sum(parameter.numel() for parameter in model.parameters()) - skipped
        self._handles = [model.get_input_embeddings().register_forward_pre_hook(self._see_tokens)]
        if ours:
            self._handles.append(model.get_output_embeddings().register_forward_hook(self._see_scored))
            # The names that the scoring module calls them by.
            scoring.segments_of = self._seen_segments(segments_of)  # type: ignore[attr-defined]
            scoring.attention_masks = self._seen_blocks(attention_masks)  # type: ignore[attr-defined]

    def _seen_segments(self, cut: Callable[..., list[Segment]]) -> Callable[..., list[Segment]]:
        def counted(*arguments: Tensor, **named: Tensor) -> list[Segment]:
            segments = cut(*arguments, **named)
            self._pairs = sum(segment.mask.numel() for segment in segments)
            return segments

        return counted

    def _seen_blocks(self, make: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            mask = make(*arguments, **named)
            if isinstance(mask, BlockMask):
                blocks = mask.kv_num_blocks.sum()
                if mask.full_kv_num_blocks is not None:
                    blocks = blocks + mask.full_kv_num_blocks.sum()
                self._pairs = blocks * mask.BLOCK_SIZE[0] * mask.BLOCK_SIZE[1]
            return mask

        return counted

    @property
    def operations(self) -> float:
        return float(self._counted)

    def _see_tokens(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        rows, length = arguments[0].shape
        tokens = rows * length
        self.tokens += tokens
        # Segments and blocks are cut before the forward pass that this is the beginning of.
        pairs = self._pairs if self._ours else length * tokens
        attention = 2 * self._layers * self._width * pairs
        body = self._body * tokens
        # A peer that does not hand its positions to the head itself runs it on every token.
        head = 0 if self._ours else self._head * tokens
        self._add(body + attention + head)

    def _see_scored(self, _: nn.Module, arguments: tuple[Any, ...], __: Any) -> None:
        self._add(self._head * arguments[0].shape[:-1].numel())

    def _add(self, multiplications: Any) -> None:
        # Two operations per multiplication; the backward pass repeats each product twice.
        self._counted = self._counted + 2 * multiplications * (3 if torch.is_grad_enabled() else 1)

    def close(self) -> None:
        for handle in self._handles:
            handle.remove()
        scoring.segments_of = segments_of  # type: ignore[attr-defined]
        scoring.attention_masks = attention_masks  # type: ignore[attr-defined]


@dataclass(frozen=True, slots=True)
class Peak:
    """Measured operations per second of a large square matrix product."""

    fp32: float
    bf16: float | None


def measure_peak(device: str, *, with_bf16: bool) -> Peak:
    return Peak(
        fp32=_product_rate(torch.float32, device),
        bf16=_product_rate(torch.bfloat16, device) if with_bf16 else None,
    )


def _product_rate(dtype: torch.dtype, device: str, *, repeats: int = 8) -> float:
    size = 8192 if device == "cuda" else 2048
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    torch.mm(left, right)
    best = float("inf")
    for _ in range(repeats):
        wait_for(device)
        start = time.perf_counter()
        torch.mm(left, right)
        wait_for(device)
        best = min(best, time.perf_counter() - start)
    return 2 * size**3 / best


def wait_for(device: str) -> None:
    """Until the device has done what it was given: a GPU works behind the program."""
    if device == "cuda":
        torch.cuda.synchronize()
