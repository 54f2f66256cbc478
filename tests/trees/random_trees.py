"""Random trees with a second, plain description of each path, and tiny models to score them."""

import copy
from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, GPT2Config, LlamaConfig, Qwen2Config

from personalign.trees import DialogueTree

VOCABULARY = 60
CONFIGURATIONS = {
    "llama": LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        initializer_range=0.15,
    ),
    "qwen2": Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        initializer_range=0.15,
        tie_word_embeddings=True,
    ),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=256,
        initializer_range=0.15,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    ),
}


def tiny_model(shape: str, *, attention: str = "sdpa", **settings: Any) -> nn.Module:
    """The same weights for the same shape, whatever the attention implementation; `settings` change the configuration."""
    torch.manual_seed(7)
    config = copy.deepcopy(CONFIGURATIONS[shape])
    for name, value in settings.items():
        setattr(config, name, value)
    model: nn.Module = AutoModelForCausalLM.from_config(
        config, dtype=torch.float32, attn_implementation=attention
    )
    return model.eval()


@dataclass(frozen=True)
class Path:
    """One branch written out: the token ids from the first on, and which of them are scored."""

    tokens: tuple[int, ...]
    scored: tuple[int, ...]


@dataclass(frozen=True)
class Sprout:
    """A node to be: its parent (modulo what there is), where it hangs (a share of the parent), its tokens."""

    parent: int
    share: float
    tokens: tuple[int, ...]


TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=8).map(tuple)
SPROUTS = st.builds(
    Sprout,
    parent=st.integers(0, 1000),
    share=st.sampled_from([0.0, 0.3, 0.5, 0.8, 1.0]),
    tokens=TOKENS,
)


@dataclass(frozen=True)
class Grown:
    """A tree, the path of every branch, and for each node the tokens before it and its own."""

    tree: DialogueTree
    paths: tuple[Path, ...]


def grow(trunk: tuple[int, ...], sprouts: list[Sprout], *, deepest: int = 3) -> Grown:
    """Hang the sprouts on the trunk; every node is a branch, scored from its second token at the latest."""
    tree = DialogueTree()
    tree.attach(list(trunk))
    before: list[tuple[int, ...]] = [()]
    own: list[tuple[int, ...]] = [trunk]
    depth = [0]
    for sprout in sprouts:
        allowed = [node for node, level in enumerate(depth) if level < deepest]
        parent = allowed[sprout.parent % len(allowed)]
        at = round(sprout.share * len(own[parent]))
        tree.attach(list(sprout.tokens), parent=parent, at=at)
        before.append(before[parent] + own[parent][:at])
        own.append(sprout.tokens)
        depth.append(depth[parent] + 1)
    paths = []
    for node, (above, tokens) in enumerate(zip(before, own, strict=True)):
        first = 0 if above else 1
        if len(tokens) > first:
            start = tree.nodes[node].start
            tree.score_tokens(list(range(start + first, start + len(tokens))))
            paths.append(Path(above + tokens, tuple(range(len(above) + first, len(above) + len(tokens)))))
    return Grown(tree, tuple(paths))


TREES = st.builds(grow, st.lists(st.integers(0, VOCABULARY - 1), min_size=2, max_size=10).map(tuple),
                  st.lists(SPROUTS, min_size=1, max_size=6))  # fmt: skip


def alone(model: nn.Module, path: Path) -> Tensor:
    """The oracle: the path as a plain sequence, without mask or positions of ours. Shape [scored tokens]."""
    ids = torch.tensor([path.tokens])
    log_probs = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    scored = torch.tensor(path.scored, dtype=torch.long)
    return log_probs[scored - 1, ids[0, scored]]
