"""What the table of a run compares."""

from collections.abc import Sequence
from dataclasses import replace

from personalign.decoding.selection import Strategy
from personalign.methods.recipe import Recipe
from personalign.methods.systems import System

VERBATIM = "the selected line itself"
"""What repeating the line that PAL selected would score, with PAL's own reply where it selected none."""

GOLD = "gold replies"
"""The title of their row in every table."""

_TITLES: dict[Strategy, str] = {
    "predicted": "PAL",
    "random": "PAL, random selection",
    "unselected": "PAL, no selection",
    "oracle": "PAL, oracle selection",
}


REVISED = "revised"
"""The test dialogues under their rewritten personas, as a part of the run."""

_REVISED_NAMES = {"finetuning": "finetuning_revised", "pal_predicted": "pal_revised"}
REVISED_TITLE = "{}, revised personas"


def final_stage(recipe: Recipe) -> str:
    """The stage whose model is PAL itself under the recipe's ablation."""
    return "stage1" if recipe.ablation == "without_alignment" else "stage2"


def aligned_from(recipe: Recipe) -> str:
    """The stage whose model alignment starts from."""
    return "backbone" if recipe.ablation == "without_mix" else "stage1"


def compared_systems(recipe: Recipe) -> list[System]:
    """Baselines, PAL's stages and its ways of selecting; of the synthetic corpus also unseen and exchanged personas."""
    final = final_stage(recipe)
    systems = []
    if recipe.stages.finetuning is not None:
        systems.append(System("finetuning", "fine-tuning", "finetuning", "unselected"))
    if recipe.stages.finetuning_longer is not None:
        systems.append(System("finetuning_longer", "fine-tuning, longer", "finetuning_longer", "unselected"))
    if final == "stage2" and aligned_from(recipe) == "stage1":
        systems.append(System("stage1", "PAL stage 1", "stage1", "predicted"))
    systems += [
        System(f"pal_{strategy}", title, final, strategy)
        for strategy, title in _TITLES.items()
        if strategy in recipe.evaluation.strategies
    ]
    if recipe.data.synthetic is None:
        return [*systems, *(_under_revised(systems) if recipe.evaluation.revised else ())]
    if recipe.stages.finetuning is not None:
        title = "fine-tuning, unseen values"
        systems.append(System("finetuning_unseen", title, "finetuning", "unselected", "unseen"))
    return [
        *systems,
        System("pal_unseen", "PAL, unseen values", final, "predicted", "unseen"),
        System("pal_swapped", "PAL, persona swapped", final, "predicted", "swapped"),
        System("pal_shuffled", "PAL, persona shuffled", final, "predicted", "shuffled"),
    ]


def _under_revised(systems: Sequence[System]) -> list[System]:
    """Fine-tuning and PAL once more, told the rewritten personas."""
    return [
        replace(system, name=name, title=REVISED_TITLE.format(system.title), part=REVISED)
        for system in systems
        if (name := _REVISED_NAMES.get(system.name)) is not None
    ]
