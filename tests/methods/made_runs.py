"""Tiny backbones, dialogues and recipes for the tests of methods."""

import contextlib
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path as FilePath
from typing import Any

import pytest
import torch

from personalign._files import write_json
from personalign.data.dialogue import Dialogue, Turn
from personalign.methods.recipe import Recipe, parse_recipe
from personalign.models import LoadedModel, build_backbone, prepare, word_tokenizer
from personalign.prompts import Prompter, PromptSettings, structure_texts

VOCABULARY = """
i you have a dog cat work at night in the bakery any pets ?
yes no . hello how are do like tea zebra none
"""


class SilentReporter:
    """Keeps what a run says."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextlib.contextmanager
    def task(self, description: str, total: int) -> Iterator[Callable[[int], None]]:
        yield lambda steps: None


@cache
def tokenizer() -> Any:
    return word_tokenizer(VOCABULARY.split(), structure=structure_texts("en"), language="en")


def tiny_model(*, seed: int = 1, shape: str = "llama") -> LoadedModel:
    """Random weights, large enough that predictions are far from uniform."""
    tokens = tokenizer()
    model = build_backbone(
        shape,  # type: ignore[arg-type]
        vocab_size=len(tokens),
        width=16,
        layers=1,
        heads=2,
        max_positions=512,
        bos_id=tokens.bos_token_id,
        eos_id=tokens.eos_token_id,
        pad_id=tokens.pad_token_id,
        seed=seed,
    )
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:
                parameter.normal_(std=0.3)
    return prepare(model, tokens, dtype="float32", device=torch.device("cpu"))


def prompter(**settings: Any) -> Prompter:
    return Prompter(tokenizer(), PromptSettings(**{"max_tokens": 300, "reserve": 30, **settings}))


def baker(name: str = "baker") -> Dialogue:
    return Dialogue(
        name,
        ("i have a dog .", "i work at night in the bakery ."),
        (
            Turn("user", "hello . any pets ?"),
            Turn("assistant", "yes i have a dog ."),
            Turn("user", "do you like tea ?"),
            Turn("assistant", "no ."),
            Turn("user", "how are you at night ?"),
            Turn("assistant", "i work in the bakery ."),
        ),
        relevant=((0,), (), (1, 0)),
    )


def greeter(name: str = "greeter") -> Dialogue:
    return Dialogue(
        name,
        ("i like tea .",),
        (
            Turn("user", "hello ."),
            Turn("assistant", "hello you ."),
            Turn("user", "tea ?"),
            Turn("assistant", "yes ."),
        ),
        relevant=((), (0,)),
    )


# Changes that turn the shipped quickstart into one of seconds.
SHRUNKEN = {
    "data.synthetic.train": 12,
    "data.synthetic.align": 4,
    "data.synthetic.stop": 3,
    "data.synthetic.test": 3,
    "data.synthetic.unseen": 2,
    "data.synthetic.exchanges": 3,
    "backbone.scratch.width": 16,
    "backbone.scratch.layers": 1,
    "backbone.scratch.heads": 2,
    "stages.copying.max_steps": 2,
    "stages.copying.batch": 2,
    "stages.finetuning.steps": 2,
    "stages.finetuning_longer": "null",
    "stages.stage1.steps": 4,
    "stages.stage2.steps": 4,
    "stages.stage2.evaluate_every": 2,
    "stages.finetuning.batch_examples": 12,
    "stages.stage1.batch_examples": 12,
    "stages.stage2.batch_examples": 4,
    "stages.stage2.learning_rate": 0.001,
    "decoding.max_new_tokens": 6,
    "evaluation.bootstrap": 20,
}


# And idl-quickstart.
SMALL_IDL = [
    "data.synthetic={train: 4, align: 4, test: 2, sessions: 6, exchanges: 2}",
    "backbone={scratch: {shape: llama, width: 16, layers: 1, heads: 2}, dtype: float32}",
    "prompts={max_tokens: 300, reserve: 20}",
    *(f"stages.{stage}.steps=3" for stage in ("finetuning", "gold", "stage1", "stage2")),
    *(f"stages.{stage}.save_every=1" for stage in ("finetuning", "gold", "stage1", "stage2")),
    "stages.stage2.batch_examples=4",
    "decoding.max_new_tokens=4",
    "compared={sessions: [1], out_of_cluster: true, attention: 2}",
    "evaluation.bootstrap=10",
]


def shrunken(**changes: Any) -> list[str]:
    """Arguments of `--set`; keys of `changes` are written with two underscores for a dot."""
    values = SHRUNKEN | {key.replace("__", "."): value for key, value in changes.items()}
    return [f"{key}={value}" for key, value in values.items()]


def minimal_values() -> dict[str, Any]:
    """The least that a recipe must say."""
    return {
        "name": "made",
        "data": {"synthetic": {}},
        "backbone": {"scratch": {}},
        "stages": {"stage1": {"learning_rate": 1e-3}, "stage2": {"learning_rate": 1e-4}},
    }


def file_recipe(**data: Any) -> Recipe:
    """A recipe on files."""
    values = minimal_values() | {
        "data": {"files": data},
        "backbone": {"scratch": {"tokenizer": "bpe"}},
        "evaluation": {"judges": []},
    }
    return parse_recipe(values, source="made.yaml")


@contextlib.contextmanager
def dying_before_its_marker(step: str) -> Iterator[None]:
    """A run in the block ends, with MemoryError, where the step's work is done and its marker not yet written."""

    def dies(path: FilePath, value: Any) -> None:
        if path.stem == step:
            raise MemoryError
        write_json(path, value)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("personalign.methods.steps.write_json", dies)
        with pytest.raises(MemoryError):
            yield
