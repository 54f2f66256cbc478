"""Pretraining a small backbone: language modelling on dialogue text, mixed with copies of real persona lines."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import read_dialogues
from personalign.data.split import normalise_line
from personalign.evaluation.nli_data import read_entailed_pairs
from personalign.methods.parts import Parts, locate
from personalign.methods.recipe import PretrainStage, Recipe
from personalign.methods.steps import Interrupted, Reporter
from personalign.models import choose_precision
from personalign.models.precision import Dtype
from personalign.prompts import UNSELECTED, Prompter
from personalign.training.examples import Example, grow
from personalign.training.examples import Path as Target
from personalign.training.step import StageSettings
from personalign.training.trainer import total_steps, train_stage


def pretraining_dialogues(recipe: Recipe, parts: Parts) -> tuple[list[Dialogue], dict[str, int]]:
    """The dialogues that a backbone from scratch may read, and what was left out of them.

    Nothing of the test part gets in: a message that equals one of its messages is dropped from its dialogue, and a
    dialogue whose persona shares a line with a test persona, revised lines included, is dropped whole.
    """
    files = recipe.data.files
    if files is None:
        return parts["train"], {"dialogues": len(parts["train"])}
    test_messages = {normalise_line(turn.content) for item in parts["test"] for turn in item.messages}
    test_lines = {normalise_line(line) for item in parts["test"] for line in _all_lines(item)}
    counts: Counter[str] = Counter()
    kept: list[Dialogue] = []
    sources = [parts["train"], *(read_dialogues(locate(files, key)) for key in files.pretrain)]
    if files.pretrain_persona_pairs is not None:
        sources.append(_pairs_as_dialogues(locate(files, files.pretrain_persona_pairs)))
    for source in sources:
        for dialogue in source:
            if any(normalise_line(line) in test_lines for line in _all_lines(dialogue)):
                counts["dialogues dropped for a test persona line"] += 1
                continue
            messages = tuple(
                turn for turn in dialogue.messages if normalise_line(turn.content) not in test_messages
            )
            counts["messages dropped for a test message"] += len(dialogue.messages) - len(messages)
            # A reply that nothing is left of teaches nothing; a pair of line and reply is one message.
            if len(messages) > 1 or len(messages) == len(dialogue.messages) > 0:
                number = len(kept)
                kept.append(
                    replace(dialogue, id=f"{number}", messages=messages, relevant=None, candidates=None)
                )
    counts["dialogues"] = len(kept)
    return kept, dict(counts)


def pretrain(
    model: nn.Module,
    dialogues: Sequence[Dialogue],
    prompter: Prompter,
    stage: PretrainStage,
    *,
    seed: int,
    dtype: Dtype,
    checkpoints: Path,
    journal: Path,
    reporter: Reporter,
    resume: bool = False,
) -> dict[str, Any]:
    """Train `model` in place on whole dialogues, one row in `copy_every` being a copy exercise.

    Raises Interrupted after Ctrl-C; `resume` then goes on from what is under `checkpoints`.
    """
    examples = pretraining_examples(dialogues, prompter, stage, seed=seed)
    trees = grow(examples, budget=stage.token_budget)
    settings = StageSettings(
        learning_rate=stage.learning_rate,
        epochs=stage.epochs if stage.steps is None else 1e6,
        max_steps=stage.steps,
        batch_examples=stage.batch_examples,
        token_budget=stage.token_budget,
        warmup_steps=stage.warmup_steps,
        schedule=stage.schedule,
        max_grad_norm=stage.max_grad_norm,
        weight_decay=stage.weight_decay,
        adam_beta2=stage.adam_beta2,
        save_every=stage.save_every,
        seed=seed,
        bf16=_bf16(model, dtype),
    )
    with reporter.task("Pretraining", total_steps(trees, settings)) as advance:
        result = train_stage(
            model,
            trees,
            settings=settings,
            folder=checkpoints,
            stage="pretrain",
            journal=journal,
            progress=lambda step, total, values: advance(1),
            resume=resume,
        )
    if result.interrupted:
        raise Interrupted("pretrain")
    tokens = sum(len(tree) for tree in trees)
    return {
        "rows": len(examples),
        "tokens": tokens,
        "steps": result.steps,
        "seconds": round(result.seconds, 1),
    }


def pretraining_examples(
    dialogues: Sequence[Dialogue], prompter: Prompter, stage: PretrainStage, *, seed: int
) -> list[Example]:
    """Whole dialogues, and copy exercises on their persona lines."""
    examples = _language_examples(dialogues, prompter)
    if stage.copy_every:
        count = len(examples) // stage.copy_every
        examples += _copy_examples(dialogues, prompter, count=count, seed=seed)
    return examples


def _language_examples(dialogues: Sequence[Dialogue], prompter: Prompter) -> list[Example]:
    """The longest prompt of each dialogue with its last reply, every token a target."""
    examples = []
    for dialogue in dialogues:
        turns = dialogue.reply_indices()
        if not turns or not prompter.window(dialogue, turns[-1]).fits:
            continue
        prompt = prompter.reply(dialogue, turns[-1], line=UNSELECTED)
        row = [*prompt, *prompter.reply_target(dialogue.messages[turns[-1]].content)]
        examples.append(Example(dialogue.id, turns[-1], (Target("text", row[:1], row[1:]),)))
    return examples


def _copy_examples(
    dialogues: Sequence[Dialogue], prompter: Prompter, *, count: int, seed: int
) -> list[Example]:
    """Persona lines of random dialogues, then the same lines in another order; the second half is the target."""
    generator = np.random.default_rng((seed, 0xC0B1))
    lines = sorted({line for dialogue in dialogues for line in dialogue.persona})
    if len(lines) < 5:
        return []
    examples = []
    for number in range(count):
        chosen = generator.choice(len(lines), size=5, replace=False)
        first = [token for index in chosen for token in prompter.reply_target(lines[index])]
        second = [
            token for index in generator.permutation(chosen) for token in prompter.reply_target(lines[index])
        ]
        examples.append(Example(f"copy-{number}", 0, (Target("copy", first, second),)))
    return examples


def _pairs_as_dialogues(path: str) -> list[Dialogue]:
    """Rows of a persona line and a reply that expresses it, each as a dialogue of one message."""
    return [
        Dialogue(id=str(number), persona=(row.premise,), messages=(Turn("assistant", row.hypothesis),))
        for number, row in enumerate(read_entailed_pairs(path))
    ]


def _all_lines(dialogue: Dialogue) -> list[str]:
    revised = [*dialogue.extra.get("persona_revised", ()), *dialogue.extra.get("partner_persona_revised", ())]
    return [*dialogue.persona, *dialogue.partner_persona, *revised]


def _bf16(model: nn.Module, dtype: Dtype) -> bool:
    device = next(model.parameters()).device
    return choose_precision(dtype, device=device, parameters=_count(model)).autocast


def _count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
