"""Random examples that share histories as the turns of dialogues do, and a tiny model that learns them."""

import random

import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig

from personalign.training.examples import Example, Path

VOCABULARY = 40


def tiny_model(*, seed: int = 5, initializer_range: float = 0.15) -> nn.Module:
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        initializer_range=initializer_range,
    )
    model: nn.Module = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    return model.eval()


def supervised(*, dialogues: int = 6, turns: int = 3, seed: int = 0, trunk: bool = False) -> list[Example]:
    """Two paths per turn behind a growing history, the second of them weighted."""
    draw = random.Random(seed)
    examples = []
    for dialogue in range(dialogues):
        history = _tokens(draw, 3)
        for turn in range(draw.randint(1, turns)):
            history += _tokens(draw, draw.randint(2, 6))
            selection = _tokens(draw, draw.randint(1, 4))
            paths = [
                Path("selection", [*history, 1], selection),
                Path("reply", [*history, 2, *selection], _tokens(draw, draw.randint(1, 6)), weight=0.5),
            ]
            if trunk and turn == 0:
                paths.append(Path("trunk", history[:1], history[1:], weight=0.2))
            examples.append(Example(f"d{dialogue}", turn, tuple(paths)))
    return examples


def pairs(*, dialogues: int = 6, turns: int = 3, seed: int = 0) -> list[Example]:
    """A chosen and a rejected reply per turn behind a growing history."""
    draw = random.Random(seed)
    examples = []
    for dialogue in range(dialogues):
        history = _tokens(draw, 3)
        for turn in range(draw.randint(1, turns)):
            history += _tokens(draw, draw.randint(2, 6))
            prompt = [*history, 2]
            chosen = Path("chosen", prompt, _tokens(draw, draw.randint(1, 6)))
            rejected = Path("rejected", prompt, _tokens(draw, draw.randint(1, 6)))
            examples.append(Example(f"d{dialogue}", turn, (chosen, rejected)))
    return examples


def triples(*, dialogues: int = 6, turns: int = 3, seed: int = 0) -> list[Example]:
    """`pairs` with a criterion reply each."""
    draw = random.Random(seed + 1)
    found = []
    for example in pairs(dialogues=dialogues, turns=turns, seed=seed):
        chosen, rejected = example.paths
        criterion = Path("criterion", chosen.prompt, _tokens(draw, draw.randint(1, 6)))
        found.append(Example(example.dialogue, example.turn, (chosen, criterion, rejected)))
    return found


def path_log_probs(model: nn.Module, path: Path) -> torch.Tensor:
    """The oracle: log-probabilities of the target's tokens, from the path as a plain sequence."""
    ids = torch.tensor([[*path.prompt, *path.target]])
    log_probs = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    places = torch.arange(len(path.prompt), ids.shape[1])
    return log_probs[places - 1, ids[0, places]]


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}


def _tokens(draw: random.Random, count: int) -> list[int]:
    return [draw.randrange(3, VOCABULARY) for _ in range(count)]
