"""What a stage of a recipe trains on, and what it means to the trainer."""

from collections.abc import Sequence
from dataclasses import replace

from personalign.errors import PersonalignError
from personalign.methods import pal
from personalign.methods.parts import Parts
from personalign.methods.recipe import AlignStage, CriterionStage, Recipe, Stage
from personalign.models import LoadedModel
from personalign.prompts import Prompter
from personalign.training.examples import Example, GrownTree, grow, one_per_example
from personalign.training.step import Objective, StageSettings


def trained_stages(recipe: Recipe) -> dict[str, Stage]:
    """The stages that a run trains under the recipe's ablation, in order; pretraining is the backbone's."""
    stages = recipe.stages
    named: dict[str, Stage | None] = {
        "finetuning": stages.finetuning,
        "finetuning_longer": stages.finetuning_longer,
        "stage1": None if recipe.ablation == "without_mix" else stages.stage1,
        "stage2": None if recipe.ablation == "without_alignment" else stages.stage2,
    }
    return {name: stage for name, stage in named.items() if stage is not None}


def stage_examples(
    name: str,
    recipe: Recipe,
    parts: Parts,
    prompter: Prompter,
    *,
    rejected: Sequence[Sequence[str]] | None,
    dropped: pal.Dropped,
) -> list[Example]:
    """The examples of a stage; `rejected`, the replies without a persona, is what stage 2 pairs gold replies with."""
    stage = trained_stages(recipe)[name]
    weight = stage.trunk_weight
    if name == "stage1":
        return pal.persona_aware_learning(
            parts["train"],
            prompter,
            dropped=dropped,
            ablation=recipe.ablation,
            trunk_weight=weight,
            reply_weight=stage.reply_weight,
        )
    if name != "stage2":
        return pal.fine_tuning(parts["train"], prompter, dropped=dropped, trunk_weight=weight)
    only_labelled = recipe.stages.stage2.only_labelled
    if recipe.ablation == "without_pairs" or rejected is None:
        return pal.gold_alone(parts["align"], prompter, dropped=dropped, only_labelled=only_labelled)
    return pal.alignment_pairs(
        parts["align"], rejected, prompter, dropped=dropped, only_labelled=only_labelled
    )


def stage_trees(examples: Sequence[Example], stage: Stage) -> list[GrownTree]:
    """A tree per dialogue, or, to compare with, one per example where batches are to be shuffled."""
    if stage.batches == "shuffled":
        return one_per_example(examples)
    return grow(examples, budget=stage.token_budget)


def warmup_remark(name: str, stage: Stage, steps: int) -> str | None:
    """What to say of a stage that ends before its learning rate is reached; small data sets make such stages."""
    if stage.warmup_steps < steps:
        return None
    return (
        f"{name}: its {steps} steps end within the warm-up of {stage.warmup_steps}, so the learning rate is never "
        "reached; lower its warmup_steps, or raise its epochs or steps"
    )


def stage_settings(
    stage: Stage, *, seed: int, loaded: LoadedModel, objective: Objective = "nll"
) -> StageSettings:
    """What a stage of a recipe is to the trainer; a stage that aligns may yet train by nll, without pairs."""
    if loaded.device.type == "cuda" and loaded.device.index:
        raise PersonalignError(
            f"backbone.device: training runs on the first GPU that is visible; instead of {loaded.device} write cuda "
            f"and set CUDA_VISIBLE_DEVICES={loaded.device.index}"
        )
    settings = StageSettings(
        objective=objective,
        learning_rate=stage.learning_rate,
        epochs=stage.epochs,
        max_steps=stage.steps,
        batch_examples=stage.batch_examples,
        token_budget=stage.token_budget,
        warmup_steps=stage.warmup_steps,
        schedule=stage.schedule,
        max_grad_norm=stage.max_grad_norm,
        weight_decay=stage.weight_decay,
        adam_beta2=stage.adam_beta2,
        seed=seed,
        bf16=loaded.precision.autocast,
        save_every=stage.save_every,
        evaluate_every=stage.evaluate_every,
        patience=stage.patience,
        use_cpu=loaded.device.type == "cpu",
    )
    if isinstance(stage, AlignStage):
        settings = replace(settings, beta=stage.beta, sft_weight=stage.sft_weight)
    if isinstance(stage, CriterionStage):
        settings = replace(settings, penalty=stage.penalty, penalty_in=stage.penalty_in)
    return settings
