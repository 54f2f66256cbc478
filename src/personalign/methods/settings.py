"""What a stage of a recipe means to the trainer."""

from dataclasses import replace

from personalign.methods.recipe import AlignStage, Recipe, Stage
from personalign.models import LoadedModel
from personalign.training.step import StageSettings


def stage_settings(stage: Stage, recipe: Recipe, loaded: LoadedModel) -> StageSettings:
    """A number of `steps` stands in for `epochs`; alignment trains by DPO unless its pairs are ablated."""
    aligning = isinstance(stage, AlignStage) and recipe.ablation != "without_pairs"
    settings = StageSettings(
        objective="dpo" if aligning else "nll",
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
        seed=recipe.seed,
        bf16=loaded.precision.autocast,
        save_every=stage.save_every,
        evaluate_every=stage.evaluate_every,
        patience=stage.patience,
        use_cpu=loaded.device.type == "cpu",
    )
    if isinstance(stage, AlignStage):
        settings = replace(settings, beta=stage.beta, sft_weight=stage.sft_weight)
    return settings
