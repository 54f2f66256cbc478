"""Models of many kinds: their trees are scored exactly, or they are refused with the reason."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.trees.random_trees import Grown, Sprout, alone, grow
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BloomConfig,
    BloomForCausalLM,
    Gemma3TextConfig,
    GPT2Config,
    GPTNeoConfig,
    GptOssConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MistralConfig,
    MixtralConfig,
    Qwen2Config,
)

from personalign.errors import PersonalignError
from personalign.models.precision import Precision
from personalign.models.selftest import plan_for
from personalign.trees import ScoringPlan, score

VOCABULARY = 60
WINDOW = 20
COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.15,
}
SMALL = {"vocab_size": VOCABULARY, "hidden_size": 32, "initializer_range": 0.15}
CONFIGURATIONS: dict[str, Any] = {
    "llama": lambda: LlamaConfig(**COMMON),
    "qwen2": lambda: Qwen2Config(**COMMON),
    "qwen2-sliding": lambda: Qwen2Config(
        **COMMON, use_sliding_window=True, sliding_window=WINDOW, max_window_layers=1
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=4, n_positions=96, initializer_range=0.15
    ),
    "gemma-3": lambda: Gemma3TextConfig(
        **COMMON,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=WINDOW,
        layer_types=["sliding_attention", "full_attention"],
        max_position_embeddings=512,
    ),
    "mistral": lambda: MistralConfig(**COMMON, sliding_window=WINDOW),
    "mixtral": lambda: MixtralConfig(**COMMON, num_local_experts=4),
    "gpt-oss": lambda: GptOssConfig(
        **COMMON, head_dim=8, num_local_experts=4, num_experts_per_tok=2, sliding_window=WINDOW
    ),
    "bloom": lambda: BloomConfig(**SMALL, n_layer=2, n_head=4),
    "gpt-neo": lambda: GPTNeoConfig(
        **SMALL,
        num_layers=2,
        num_heads=4,
        window_size=WINDOW,
        attention_types=[[["global", "local"], 1]],
        max_position_embeddings=128,
    ),
    "mamba": lambda: MambaConfig(**SMALL, num_hidden_layers=2, state_size=8),
    "dynamic-ntk": lambda: LlamaConfig(
        **COMMON,
        max_position_embeddings=80,
        rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0},
    ),
}
MODES = dict.fromkeys(CONFIGURATIONS, "packed") | dict.fromkeys(("bloom", "gpt-neo", "mamba"), "separate")


def model_of(kind: str, *, attention: str | None = None) -> nn.Module:
    torch.manual_seed(3)
    model: nn.Module = AutoModelForCausalLM.from_config(
        CONFIGURATIONS[kind](), dtype=torch.float32, attn_implementation=attention
    )
    return model.eval()


def planned(model: nn.Module, **others: Any) -> ScoringPlan:
    return plan_for(model, attention=model.config._attn_implementation, **others)


def long_tree(seed: int) -> Grown:
    """Longer than the window, and not the tree that the self-test itself scored."""
    random = np.random.default_rng(seed)

    def tokens(count: int) -> tuple[int, ...]:
        return tuple(random.integers(0, VOCABULARY, count).tolist())

    return grow(
        tokens(50),
        [
            Sprout(0, 0.9, tokens(8)),
            Sprout(1, 0.5, tokens(7)),
            Sprout(2, 0.5, tokens(6)),
            Sprout(0, 0.4, tokens(9)),
            Sprout(4, 1.0, tokens(5)),
            Sprout(0, 0.0, tokens(9)),
        ],
    )


def largest_error(model: nn.Module, plan: ScoringPlan, *, seed: int = 11) -> float:
    trees = [long_tree(seed), long_tree(seed + 1)]
    found = score(model, [item.tree for item in trees], plan=plan)
    with torch.no_grad():
        return max(
            float((log_probs - alone(model, path)).abs().max())
            for item, branches in zip(trees, found, strict=True)
            for path, log_probs in zip(item.paths, branches, strict=True)
        )


@pytest.mark.parametrize("kind", CONFIGURATIONS)
def test_the_plan_is_exact(kind: str) -> None:
    model = model_of(kind)
    plan = planned(model)
    assert plan.mode == MODES[kind]
    assert largest_error(model, plan) <= 1e-5
    assert "path by path" in plan.reason or "one per row" in plan.reason


@pytest.mark.parametrize("kind", ["gemma-3", "mistral", "qwen2-sliding"])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_sliding_layers_get_masks_of_their_own(kind: str, attention: str) -> None:
    model = model_of(kind, attention=attention)
    plan = planned(model)
    assert plan.window == WINDOW
    assert largest_error(model, plan) <= 1e-5
    assert largest_error(model, ScoringPlan(attention=attention)) > 1e-2  # type: ignore[arg-type]


def test_an_untrained_model_is_tested_as_sharply() -> None:
    """Standard initialisation makes the context's influence small; the tolerance shrinks with it."""
    torch.manual_seed(3)
    config = MistralConfig(**{**COMMON, "initializer_range": 0.02}, sliding_window=WINDOW)
    assert planned(AutoModelForCausalLM.from_config(config).eval()).window == WINDOW


def test_a_window_longer_than_the_usual_tree_is_tried() -> None:
    config = MistralConfig(**COMMON, sliding_window=130)
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config).eval()
    plan = planned(model)
    assert plan.window == 130
    assert "tree of 210 tokens" in plan.reason


def test_positions_are_respected() -> None:
    plan = planned(model_of("gpt2"))
    assert plan.longest == 96
    with pytest.raises(PersonalignError, match="97 tokens cannot be scored"):
        score(model_of("gpt2"), [grow(tuple([1] * 97), []).tree], plan=plan)


def test_beyond_its_unscaled_length_dynamic_rope_is_refused() -> None:
    model = model_of("dynamic-ntk")
    plan = planned(model)
    assert plan.longest == 79
    with pytest.raises(PersonalignError, match="80 tokens cannot be scored"):
        score(model, [grow(tuple([1] * 80), []).tree], plan=plan)


def test_too_few_positions_are_refused() -> None:
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=1, n_head=4, n_positions=8)
    with pytest.raises(PersonalignError, match="takes 8 tokens at most"):
        planned(AutoModelForCausalLM.from_config(config).eval())


def test_a_model_that_sees_ahead_is_refused() -> None:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
    )
    torch.manual_seed(3)
    with pytest.raises(PersonalignError, match="is not a causal language model"):
        planned(AutoModelForCausalLM.from_config(config).eval())


class CountingLlama(LlamaForCausalLM):  # type: ignore[misc]
    """Depends on how often it was called."""

    calls = 0

    def forward(self, *arguments: Any, **named: Any) -> Any:
        output = super().forward(*arguments, **named)
        self.calls += 1
        output.logits = output.logits * (1 + 0.01 * self.calls)
        return output


class CrowdedBloom(BloomForCausalLM):  # type: ignore[misc]
    """Depends on the number of rows, as experts with a capacity do."""

    def forward(self, *arguments: Any, **named: Any) -> Any:
        output = super().forward(*arguments, **named)
        output.logits = output.logits * (1 + 0.1 * (named["input_ids"].shape[0] - 1))
        return output


def test_a_model_with_a_memory_is_refused() -> None:
    with pytest.raises(PersonalignError, match="depend on what it scored before"):
        planned(CountingLlama(LlamaConfig(**COMMON)).eval())


def test_a_model_that_heeds_other_rows_runs_every_branch_by_itself() -> None:
    torch.manual_seed(3)
    model = CrowdedBloom(CONFIGURATIONS["bloom"]()).eval()
    plan = planned(model)
    assert plan.mode == "single"
    assert largest_error(model, plan) <= 1e-5


def test_a_model_without_context_is_not_believed() -> None:
    model = model_of("llama")
    for layer in model.model.layers:
        nn.init.zeros_(layer.self_attn.o_proj.weight)
    plan = planned(model)
    assert plan.mode == "separate"
    assert "hardly heeds its context" in plan.reason


def test_the_error_under_autocast_is_named() -> None:
    precision = Precision("bfloat16", "cpu", "asked for")
    assert "in bfloat16" in planned(model_of("llama"), precision=precision).reason


def test_flex_attention_is_tried_like_the_others() -> None:
    model = model_of("llama", attention="flex_attention")
    plan = planned(model)
    assert (plan.mode, plan.attention) == ("packed", "flex_attention")
