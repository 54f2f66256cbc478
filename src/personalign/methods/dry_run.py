"""What a recipe would cost, before it is run: tokens, trimmed examples, memory, time."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from personalign.errors import PersonalignError
from personalign.methods import pal
from personalign.methods.labelling import label_parts
from personalign.methods.models import untrained_backbone
from personalign.methods.parts import load_parts
from personalign.methods.recipe import Recipe, Stage
from personalign.methods.steps import Reporter
from personalign.models import LoadedModel, autocast
from personalign.prompts import Prompter
from personalign.training.examples import Example, grow, statistics
from personalign.training.step import StageSettings, step_loss
from personalign.trees import batches_under

# fp32 weights, gradients, and Adam's two moments.
BYTES_PER_TRAINED_PARAMETER = 16


@dataclass(slots=True)
class Estimate:
    """Per stage: steps, tokens as trees and as one sequence per example, dropped turns, hours; and memory in bytes."""

    parameters: int = 0
    weights_and_optimizer_bytes: int = 0
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    def lines(self) -> list[str]:
        lines = [
            f"{self.parameters / 1e6:.1f}M parameters; weights, gradients and optimizer state "
            f"{self.weights_and_optimizer_bytes / 1e9:.2f} GB, activations apart"
        ]
        for name, stage in self.stages.items():
            lines.append(
                f"{name}: {stage['examples']} examples, {stage['steps']} steps; {stage['tree_tokens']} tokens an epoch "
                f"as trees ({stage['sequence_tokens']} one by one); about {stage['minutes']:.1f} minutes"
            )
            if stage["dropped"]:
                lines.append(f"    turns: {stage['dropped']}")
        lines.append("Rejected replies, decoding and judging come on top.")
        return lines


def estimate(recipe: Recipe, *, reporter: Reporter) -> Estimate:
    """Read the data, grow the trees, and time one step of each stage on this machine; nothing is written."""
    parts = label_parts(load_parts(recipe), recipe, reporter=reporter)
    loaded, prompter = untrained_backbone(recipe, parts)
    trained = sum(item.numel() for item in loaded.model.parameters() if item.requires_grad)
    frozen = sum(item.numel() for item in loaded.model.parameters() if not item.requires_grad)
    result = Estimate(trained + frozen, BYTES_PER_TRAINED_PARAMETER * trained + 4 * frozen)
    for name, stage in _stages(recipe).items():
        dropped = pal.Dropped()
        part = parts["align" if name == "stage2" else "train"]
        result.stages[name] = _measure(name, part, loaded, prompter, stage, dropped)
    return result


def _stages(recipe: Recipe) -> dict[str, Stage]:
    stages = recipe.stages
    named: dict[str, Stage | None] = {
        "finetuning": stages.finetuning,
        "stage1": stages.stage1 if recipe.ablation != "without_mix" else None,
        "stage2": stages.stage2 if recipe.ablation != "without_alignment" else None,
    }
    return {name: stage for name, stage in named.items() if stage is not None}


def _measure(
    name: str,
    dialogues: Sequence[Any],
    loaded: LoadedModel,
    prompter: Prompter,
    stage: Stage,
    dropped: pal.Dropped,
) -> dict[str, Any]:
    examples = _examples(name, dialogues, prompter, dropped)
    if not examples:
        raise PersonalignError(
            f"stage {name} has no training examples; turns left out: {dict(dropped.counts) or 'none'}. Check the data, "
            "and prompts.max_tokens"
        )
    trees = grow(examples, budget=stage.token_budget)
    sizes = statistics(trees)
    steps = stage.steps or max(1, round(stage.epochs * len(examples) / stage.batch_examples))
    seconds = _seconds_per_token(loaded, trees, stage) * sizes.tree_tokens * steps * stage.batch_examples
    return {
        "examples": sizes.examples,
        "steps": steps,
        "tree_tokens": sizes.tree_tokens,
        "sequence_tokens": sizes.sequence_tokens,
        "dropped": dict(dropped.counts),
        "minutes": seconds / max(1, sizes.examples) / 60,
    }


def _examples(name: str, dialogues: Sequence[Any], prompter: Prompter, dropped: pal.Dropped) -> list[Example]:
    if name == "finetuning":
        return pal.fine_tuning(dialogues, prompter, dropped=dropped)
    if name == "stage1":
        return pal.persona_aware_learning(dialogues, prompter, dropped=dropped)
    # Rejected replies do not exist yet: those of the dialogue's neighbour are of like length.
    gold = [[item.messages[turn].content for turn in item.reply_indices()] for item in dialogues]
    shifted = [[*replies[1:], *replies[:1]] for replies in gold]
    return pal.alignment_pairs(dialogues, shifted, prompter, dropped=dropped)


def _seconds_per_token(loaded: LoadedModel, trees: Sequence[Any], stage: Stage) -> float:
    """One forward and backward pass over one batch within the token budget."""
    first = batches_under(trees, length=len, budget=stage.token_budget)[0]
    held = [trees[index] for index in first]
    settings = StageSettings()
    loaded.model.train()
    # The first pass allocates; the second is timed.
    seconds = 0.0
    for _ in range(2):
        start = time.perf_counter()
        with autocast(loaded.precision):
            loss, _ = step_loss(loaded.model, held, settings=settings, plan=loaded.plan, total=1.0)
        torch.autograd.backward(loss)
        if loaded.device.type == "cuda":
            torch.cuda.synchronize()
        seconds = time.perf_counter() - start
        loaded.model.zero_grad()
    return seconds / sum(len(tree) for tree in held)
