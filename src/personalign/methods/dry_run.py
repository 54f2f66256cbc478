"""What a recipe would cost, before it is run: tokens, trimmed examples, memory, time."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch

from personalign.data.dialogue import Dialogue
from personalign.errors import PersonalignError
from personalign.methods import pal
from personalign.methods.backbone import CopyWarmup, copy_warmup
from personalign.methods.idl_lineup import trained_stages as idl_trained_stages
from personalign.methods.idl_parts import load_people, people_texts
from personalign.methods.idl_recipe import IdlRecipe
from personalign.methods.idl_stages import SessionReader, stand_in_triples
from personalign.methods.judges import find_judge
from personalign.methods.labelling import label_parts
from personalign.methods.lineup import REVISED
from personalign.methods.models import untrained_backbone
from personalign.methods.parts import TRIMMED, Parts, load_parts, revised, trimmed_turns
from personalign.methods.pretraining import pretraining_dialogues, pretraining_examples
from personalign.methods.recipe import CopyStage, Recipe, RunRecipe, Stage
from personalign.methods.stages import stage_examples, stage_trees, trained_stages, warmup_remark
from personalign.methods.steps import Reporter
from personalign.models import LoadedModel, autocast, plain_tokens
from personalign.prompts import Prompter
from personalign.training.examples import Example, micro_batches, statistics
from personalign.training.step import StageSettings, step_loss
from personalign.training.trainer import total_steps

# fp32 weights, gradients, and Adam's two moments.
BYTES_PER_TRAINED_PARAMETER = 16
TIMED_COPYING_STEPS = 3


@dataclass(slots=True)
class Estimate:
    """Per stage: steps, tokens as trees and as one sequence per example, dropped turns, minutes; and memory in bytes."""

    parameters: int = 0
    weights_and_optimizer_bytes: int = 0
    most_copying_steps: int = 0
    most_copying_minutes: float = 0.0
    turns: int = 0
    turns_on_a_trunk: int = 0
    trimmed: dict[str, dict[str, int]] = field(default_factory=dict)
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    def lines(self, *, done: Collection[str]) -> list[str]:
        lines = [
            f"{self.parameters / 1e6:.1f}M parameters; weights, gradients and optimizer state "
            f"{self.weights_and_optimizer_bytes / 1e9:.2f} GB, activations apart"
        ]
        lines.append(
            f"{self.turns_on_a_trunk} of {self.turns} training prompts share the trunk of their dialogue"
        )
        lines += [
            f"{counts[TRIMMED]} of {counts['turns']} turns of part '{name}' lose their oldest messages to "
            "prompts.max_tokens"
            for name, counts in self.trimmed.items()
            if counts[TRIMMED]
        ]
        copying = bool(self.most_copying_steps) and "backbone" not in done
        if copying:
            lines.append(
                f"copying: {self.most_copying_steps} short steps at most, fewer once it can copy; at most about "
                f"{self.most_copying_minutes:.1f} minutes"
            )
        for name, stage in self.stages.items():
            lines.append(
                f"{name}: {stage['examples']} examples, {stage['steps']} steps; {stage['tree_tokens']} tokens an epoch "
                f"as trees ({stage['sequence_tokens']} one by one); about {stage['minutes']:.1f} minutes"
            )
            if stage["dropped"]:
                lines.append(f"    turns {_counts(stage['dropped'])}")
            if stage["remark"]:
                lines.append(f"    {stage['remark']}")
        left = {name: stage for name, stage in self.stages.items() if _step_of(name) not in done}
        if not left:
            return [*lines, "No training is left to do."]
        minutes = sum(stage["minutes"] for stage in left.values())
        lines.append(
            f"In all about {minutes:.1f} minutes of training"
            + (" that are left" if done else "")
            + (f", up to {self.most_copying_minutes:.1f} more of copying" if copying else "")
            + "; rejected replies, decoding and judging come on top."
        )
        return lines


Stages = Callable[[Prompter], Iterator[tuple[str, Stage, list[Example], pal.Dropped]]]
"""Each stage by name, with its examples under a prompter, and what was left out of them."""


def estimate(recipe: Recipe | IdlRecipe, *, reporter: Reporter) -> Estimate:
    """Read the data, grow the trees, and time one step of each stage on this machine; nothing is written."""
    for name in recipe.evaluation.judges:
        find_judge(name)
    if isinstance(recipe, IdlRecipe):
        parts = load_people(recipe, say=reporter.say)
        stages = _idl_stages(recipe, parts, reporter)
        texts = partial(people_texts, recipe, parts)
    else:
        parts = label_parts(load_parts(recipe, say=reporter.say), recipe, reporter=reporter)
        if recipe.evaluation.revised:
            parts[REVISED] = revised(parts["test"])
        stages = _pal_stages(recipe, parts, reporter)
        texts = partial(pretraining_dialogues, recipe, parts)
    return _estimated(recipe, parts, texts, stages)


def _estimated(
    recipe: RunRecipe, parts: Parts, read: Callable[[], tuple[list[Dialogue], Any]], stages: Stages
) -> Estimate:
    scratch = recipe.backbone.scratch is not None
    texts = read()[0] if scratch else []
    loaded, prompter = untrained_backbone(recipe, texts)
    trained = sum(item.numel() for item in loaded.model.parameters() if item.requires_grad)
    frozen = sum(item.numel() for item in loaded.model.parameters() if not item.requires_grad)
    result = Estimate(trained + frozen, BYTES_PER_TRAINED_PARAMETER * trained + 4 * frozen)
    if scratch:
        copying, pretraining = recipe.stages.copying, recipe.stages.pretrain
        if copying is not None:
            result.most_copying_steps = copying.max_steps
            result.most_copying_minutes = copying.max_steps * _seconds_per_copying_step(loaded, copying) / 60
        if pretraining is not None:
            dropped = pal.Dropped()
            rows = pretraining_examples(
                texts, prompter, pretraining, seed=recipe.seed, dropped=dropped.counts
            )
            result.stages["pretrain"] = _measure(rows, loaded, pretraining, dropped, name="pretrain")
    result.trimmed = trimmed_turns(parts, prompter)
    reports = [prompter.prefix_report(dialogue) for dialogue in parts["train"]]
    result.turns = sum(report.turns for report in reports)
    result.turns_on_a_trunk = sum(report.shared for report in reports)
    for name, stage, examples, dropped in stages(prompter):
        result.stages[name] = _measure(examples, loaded, stage, dropped, name=name)
    return result


def _pal_stages(recipe: Recipe, parts: Parts, reporter: Reporter) -> Stages:
    def stages(prompter: Prompter) -> Iterator[tuple[str, Stage, list[Example], pal.Dropped]]:
        rejected = _rejected_stand_ins(parts["align"])
        trained = trained_stages(recipe)
        for number, (name, stage) in enumerate(trained.items(), 1):
            reporter.say(_begins(name, number, len(trained)))
            dropped = pal.Dropped()
            examples = stage_examples(name, recipe, parts, prompter, rejected=rejected, dropped=dropped)
            yield name, stage, examples, dropped

    return stages


def _idl_stages(recipe: IdlRecipe, parts: Parts, reporter: Reporter) -> Stages:
    def stages(prompter: Prompter) -> Iterator[tuple[str, Stage, list[Example], pal.Dropped]]:
        reader = SessionReader(recipe, lambda: parts, reporter=reporter)
        triples = stand_in_triples(reader.aligned(), every_turn=recipe.sessions.supervise == "every")
        trained = idl_trained_stages(recipe)
        for number, stage in enumerate(trained, 1):
            reporter.say(_begins(stage.name, number, len(trained)))
            dropped = pal.Dropped()
            examples = reader.examples(stage, prompter, triples=triples, dropped=dropped)
            yield stage.name, stage.settings, examples, dropped

    return stages


def _begins(stage: str, number: int, stages: int) -> str:
    return f"Estimating {stage} ({number} of {stages})"


def _measure(
    examples: Sequence[Example], loaded: LoadedModel, stage: Stage, dropped: pal.Dropped, *, name: str
) -> dict[str, Any]:
    if not examples:
        raise PersonalignError(
            f"stage {name} has no training examples; turns left out: {_counts(dropped.counts) or 'none'}. Check the "
            "data, and prompts.max_tokens"
        )
    trees = stage_trees(examples, stage)
    sizes = statistics(trees)
    settings = StageSettings(epochs=stage.epochs, max_steps=stage.steps, batch_examples=stage.batch_examples)
    steps = total_steps(trees, settings)
    tokens_a_step = sizes.tree_tokens * stage.batch_examples / sizes.examples
    return {
        "examples": sizes.examples,
        "steps": steps,
        "tree_tokens": sizes.tree_tokens,
        "sequence_tokens": sizes.sequence_tokens,
        "dropped": dict(dropped.counts),
        "remark": warmup_remark(name, stage, steps),
        "minutes": _seconds_per_token(loaded, trees, stage) * tokens_a_step * steps / 60,
    }


def _step_of(stage: str) -> str:
    return "backbone" if stage == "pretrain" else stage


def _counts(dropped: Mapping[str, int]) -> str:
    return "; ".join(f"{reason}: {count}" for reason, count in dropped.items())


def _seconds_per_copying_step(loaded: LoadedModel, copying: CopyStage) -> float:
    """Of an untrained model, which the steps that are timed change: sizes and times stay what they are."""
    settings = CopyWarmup(**copying.model_dump())
    tokens = plain_tokens(loaded.tokenizer)
    # The first step allocates.
    copy_warmup(loaded.model, replace(settings, max_steps=1), token_ids=tokens, seed=0)
    few = replace(settings, max_steps=TIMED_COPYING_STEPS)
    result = copy_warmup(loaded.model, few, token_ids=tokens, seed=0)
    return result.seconds / result.steps


def _rejected_stand_ins(dialogues: Sequence[Dialogue]) -> list[list[str]]:
    """Rejected replies do not exist yet: other gold replies are of like length."""
    gold = [[item.messages[turn].content for turn in item.reply_indices()] for item in dialogues]
    every = [reply for replies in gold for reply in replies]
    others = iter([*every[1:], *every[:1]])
    return [[next(others) for _ in replies] for replies in gold]


def _seconds_per_token(loaded: LoadedModel, trees: Sequence[Any], stage: Stage) -> float:
    """One forward and backward pass over one batch within the token budget."""
    held = micro_batches(trees, plan=loaded.plan, budget=stage.token_budget)[0]
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
