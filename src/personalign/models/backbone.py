"""Small backbones from scratch, in the shapes of known architectures."""

import math
from typing import Any, Literal

import torch

from personalign.errors import PersonalignError

Shape = Literal["llama", "gpt2", "qwen2"]


def build_backbone(
    shape: Shape,
    *,
    vocab_size: int,
    width: int,
    layers: int,
    heads: int,
    max_positions: int,
    bos_id: int,
    eos_id: int,
    pad_id: int,
    seed: int,
    key_value_heads: int | None = None,
    feed_forward: int | None = None,
    attention: Literal["sdpa", "eager"] = "sdpa",
    look_back: float = 0.0,
) -> Any:
    """A randomly initialised causal LM in fp32, without dropout, input and output embeddings tied.

    `feed_forward` is 4 x width for GPT-2 and 8/3 x width for the gated shapes unless given. `look_back` above
    0 (qwen2 alone, which has query and key biases) starts one head of the first layer at looking one token
    back, the more sharply the greater it is: the half of an induction head that is slow to emerge by itself.
    Raises PersonalignError where the width cannot be divided among the heads, or the shape cannot look back.
    """
    from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config, set_seed

    if width % heads or (shape != "gpt2" and (width // heads) % 2):
        raise PersonalignError(
            f"a width of {width} cannot be divided among {heads} heads (rotary positions need an even number "
            "per head); choose a multiple"
        )
    set_seed(seed)
    common = {
        "vocab_size": vocab_size,
        "bos_token_id": bos_id,
        "eos_token_id": eos_id,
        "pad_token_id": pad_id,
        "tie_word_embeddings": True,
    }
    if shape == "gpt2":
        config: Any = GPT2Config(
            n_embd=width,
            n_layer=layers,
            n_head=heads,
            n_inner=feed_forward,
            n_positions=max_positions,
            resid_pdrop=0.0,
            embd_pdrop=0.0,
            attn_pdrop=0.0,
            **common,
        )
    else:
        config = {"llama": LlamaConfig, "qwen2": Qwen2Config}[shape](
            hidden_size=width,
            intermediate_size=feed_forward or 8 * math.ceil(width / 3),
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=key_value_heads or heads,
            max_position_embeddings=max_positions,
            **common,
        )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation=attention)
    if look_back:
        if shape != "qwen2":
            raise PersonalignError(
                f"look_back needs query and key biases, which {shape} has not; choose shape qwen2"
            )
        _look_back(model.model.layers[0].self_attn, size=width // heads, strength=look_back, config=config)
    return model


def _look_back(attention: Any, *, size: int, strength: float, config: Any) -> None:
    """Bias head 0 so that, whatever the tokens, its score at distance d is strength^2 * sum cos(f * (d - 1)).

    The sum runs over the rotary frequencies f that turn noticeably from one token to the next.
    """
    base = config.rope_parameters["rope_theta"]
    frequencies = base ** (-torch.arange(0, size, 2) / size)
    radius = torch.where(frequencies > 0.02, strength, 0.0)
    with torch.no_grad():
        attention.k_proj.bias[:size] = torch.cat([radius, torch.zeros_like(radius)])
        # The query is the key turned by one position, so that they agree at distance 1.
        turned = [radius * frequencies.cos(), -radius * frequencies.sin()]
        attention.q_proj.bias[:size] = torch.cat(turned)
