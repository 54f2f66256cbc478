"""Untrained models that chat: tiny, made on the spot, with weights large enough for the context to matter."""

from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

from personalign._files import write_json
from personalign.data.dialogue import Dialogue, Turn
from personalign.models import LoadedModel, build_backbone, prepare, train_bpe, word_tokenizer
from personalign.prompts import Prompter, PromptSettings, structure_texts

SENTENCE = (
    "i have a dog cat parrot . work as baker cook at night any pets ? what do you hello yes no and like"
)
WORDS = SENTENCE.split()
PERSONA = ("i have a dog .", "i work as a baker .", "i like parrot .")


@cache
def tokenizer_of(kind: str) -> Any:
    structure = structure_texts("en")
    if kind == "words":
        return word_tokenizer(WORDS, structure=structure, language="en")
    return train_bpe([SENTENCE, *structure, "我有一只狗 🐶"], vocab_size=300)


@cache
def chat_model(
    shape: str = "qwen2",
    *,
    tokenizer: str = "words",
    mode: str = "packed",
    max_positions: int = 512,
    ends: bool = True,
) -> LoadedModel:
    """`ends=False` keeps the end token's logit at 0, which is never among the largest."""
    tokens = tokenizer_of(tokenizer)
    model = build_backbone(
        shape,  # type: ignore[arg-type]
        vocab_size=len(tokens),
        width=32,
        layers=2,
        heads=4,
        max_positions=max_positions,
        bos_id=tokens.bos_token_id,
        eos_id=tokens.eos_token_id,
        pad_id=tokens.pad_token_id,
        seed=3,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8.0)
        if not ends:
            model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.clone())
            model.config.tie_word_embeddings = False
            model.lm_head.weight[tokens.eos_token_id] = 0.0
    loaded = prepare(model, tokens, device=torch.device("cpu"))
    return replace(loaded, plan=replace(loaded.plan, mode=mode))  # type: ignore[arg-type]


def prompter_of(loaded: LoadedModel, **settings: Any) -> Prompter:
    return Prompter(loaded.tokenizer, PromptSettings(**{"max_tokens": 256, "reserve": 32, **settings}))


def talk(*texts: str, persona: tuple[str, ...] = PERSONA) -> Dialogue:
    """The user begins, and the speakers take turns."""
    roles = ("user", "assistant")
    return Dialogue("chat", persona, tuple(Turn(roles[i % 2], text) for i, text in enumerate(texts)))


def publish(folder: Path, loaded: LoadedModel, **changes: Any) -> Path:
    """A model folder as a finished run publishes it; `changes` replace keys of its `personalign.json`."""
    prompter = prompter_of(loaded)
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    card = {
        "prompts": asdict(prompter.settings),
        "prompt_hash": prompter.hash,
        "none_bias": 0.0,
        "share_of_none": 0.4,
        "selector": {"kind": "lm", "encoder": None, "discount": 1.0},
        "decoding": {"strategy": "greedy", "max_new_tokens": 12},
        "examples": [["i have a cat .", "i work at night ."], ["i like parrot ."]],
    }
    write_json(folder / "personalign.json", card | changes)
    return folder
