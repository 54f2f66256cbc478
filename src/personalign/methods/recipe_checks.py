"""What a recipe's sections must be to each other, found before anything is computed."""

from collections.abc import Sequence
from pathlib import Path

from personalign._mini import MINI, is_mini
from personalign.decoding.generation import DecodingSettings
from personalign.errors import PersonalignError
from personalign.methods.recipe import Recipe, RunRecipe, Stage
from personalign.prompts import PromptSettings

# Files of dialogues between PERSONA-CHAT's validation personas, of which the mini has read two.
_MINI_HAS_READ = frozenset(
    {
        "convai2_valid",
        "convai2_wild_bot_human",
        "msc_valid_persona_extraction",
        "msc_valid_sessions",
        "synthetic_persona_chat_valid",
    }
)


def check_recipe(recipe: Recipe, source: str) -> None:
    """Raise PersonalignError for the first mistake; keys that would be read by nothing count as mistakes."""
    if (recipe.data.synthetic is None) == (recipe.data.files is None):
        raise PersonalignError(f"{source}: data: give either `synthetic` or `files`, and not both")
    check_common(recipe, source)
    files = recipe.data.files
    check_mini(recipe, () if files is None else (("data.files.test", files.test),), source)
    _check_judges(recipe, source)
    _check_stages(recipe, source)
    _check_shares(recipe, source)
    _check_words(recipe, source)


def check_common(recipe: RunRecipe, source: str) -> None:
    """What the recipes of all methods may have wrong: the backbone, and lengths of prompts and replies."""
    if (recipe.backbone.name is None) == (recipe.backbone.scratch is None):
        raise PersonalignError(f"{source}: backbone: give either `name` or `scratch`, and not both")
    scratch = recipe.backbone.scratch
    if scratch is not None and scratch.shape == "gpt2" and recipe.backbone.attention == "flex_attention":
        raise PersonalignError(
            f"{source}: backbone.attention: a gpt2 cannot run flex_attention; write sdpa, or another shape"
        )
    _check_lengths(recipe, source)


def check_mini(recipe: RunRecipe, tested: Sequence[tuple[str, str]], source: str) -> None:
    """The backbone that comes along knows English, and PERSONA-CHAT's validation personas.

    `tested`: keys of the recipe, each with the file that is tested on.
    """
    if not is_mini(recipe.backbone.name):
        return
    if recipe.language != "en":
        raise PersonalignError(
            f"{source}: backbone.name: {MINI} knows English alone, and language is {recipe.language}; start from another "
            "one, or from random weights (backbone.scratch, as in the recipe quickstart-scratch)"
        )
    for key, test in tested:
        # A key, or a path with endings.
        if Path(test).name.split(".")[0] in _MINI_HAS_READ:
            raise PersonalignError(
                f"{source}: {key}: {test} has personas that {MINI} was trained on, so its figures would mean nothing; "
                "start from another backbone, or test on other people"
            )


def _check_words(recipe: Recipe, source: str) -> None:
    scratch = recipe.backbone.scratch
    synthetic = recipe.data.synthetic
    knows_all = scratch is None or scratch.tokenizer != "word"
    if synthetic is not None and synthetic.made_up and not (recipe.language == "en" and knows_all):
        raise PersonalignError(
            f"{source}: data.synthetic.made_up is for English and for tokenizers that can write any word; write 0, or "
            "language en and backbone.scratch.tokenizer bpe"
        )
    if scratch is not None and scratch.tokenizer == "word" and recipe.data.synthetic is None:
        raise PersonalignError(
            f"{source}: backbone.scratch.tokenizer is 'word', which knows the words of the synthetic corpus alone; "
            "write bpe"
        )


def _check_judges(recipe: Recipe, source: str) -> None:
    if "predicted" not in recipe.evaluation.strategies:
        raise PersonalignError(
            f"{source}: evaluation.strategies lacks predicted, which the model that is published selects by; add it"
        )
    if recipe.evaluation.revised and recipe.data.files is None:
        raise PersonalignError(
            f"{source}: evaluation.revised: the synthetic corpus has no rewritten personas; leave it out"
        )
    judges = recipe.evaluation.judges
    if recipe.data.files is not None and "judges" not in recipe.evaluation.model_fields_set:
        raise PersonalignError(
            f"{source}: evaluation.judges is missing; name NLI judges, folders or hub ids, or write "
            "evaluation.judges: [] to leave consistency unmeasured (the oracle knows the synthetic corpus alone)"
        )
    if judges:
        return
    if recipe.stages.stage2.evaluate_every is not None:
        raise PersonalignError(
            f"{source}: stages.stage2.evaluate_every needs a judge to evaluate with, and evaluation.judges is empty; "
            "name one, or write stages.stage2.evaluate_every: null"
        )
    if recipe.data.labels.method == "nli":
        raise PersonalignError(
            f"{source}: data.labels.method is nli, which labels with the first judge, and evaluation.judges is empty; "
            "name one, or choose another method"
        )


def _check_stages(recipe: Recipe, source: str) -> None:
    stages = recipe.stages
    if stages.finetuning_longer is not None and stages.finetuning is None:
        raise PersonalignError(
            f"{source}: stages.finetuning_longer goes on from stages.finetuning, which is not there; "
            "write stages.finetuning_longer: null too"
        )
    if stages.stage2.trunk_weight:
        raise PersonalignError(
            f"{source}: stages.stage2.trunk_weight has no meaning in stage 2; leave it out"
        )
    for name, stage in stages:
        if name != "stage1" and isinstance(stage, Stage) and stage.reply_weight != 1:
            raise PersonalignError(
                f"{source}: stages.{name}.reply_weight has a meaning in stage 1 alone, where replies stand beside "
                "selections; leave it out"
            )
    if stages.stage2.patience is not None and stages.stage2.evaluate_every is None:
        raise PersonalignError(
            f"{source}: stages.stage2.patience counts evaluations, and stages.stage2.evaluate_every is null; "
            "write how many steps lie between two"
        )
    if stages.pretrain is not None and (
        stages.pretrain.trunk_weight or stages.pretrain.batches == "shuffled"
    ):
        raise PersonalignError(
            f"{source}: stages.pretrain: trunk_weight and batches have no meaning there, since every token is a target; "
            "leave them out"
        )
    others = {
        "pretrain": stages.pretrain,
        "finetuning": stages.finetuning,
        "finetuning_longer": stages.finetuning_longer,
        "stage1": stages.stage1,
    }
    for name, stage in others.items():
        if stage is not None and (stage.evaluate_every is not None or stage.patience is not None):
            raise PersonalignError(
                f"{source}: stages.{name}: evaluate_every and patience belong to stage2, which alone is stopped early"
            )


def _check_shares(recipe: Recipe, source: str) -> None:
    files = recipe.data.files
    if files is None:
        return
    carved = files.align_share + files.stop_share
    if files.align is not None and abs(carved - 1.0) > 1e-6:
        raise PersonalignError(
            f"{source}: data.files.align is given, so data.files.align_share and data.files.stop_share must sum to 1, "
            f"but sum to {carved:g}"
        )
    if files.align is None and carved >= 1.0:
        raise PersonalignError(
            f"{source}: data.files.align_share and data.files.stop_share leave nothing of the training file: they sum "
            f"to {carved:g}; write less than 1"
        )


def _check_lengths(recipe: RunRecipe, source: str) -> None:
    """Build the settings of prompts and decoding, which check their own values."""
    try:
        prompts = PromptSettings(language=recipe.language, **recipe.prompts.model_dump())
        decoding = DecodingSettings(**recipe.decoding.model_dump(exclude={"engine"}), seed=recipe.seed)
    except PersonalignError as error:
        raise PersonalignError(f"{source}: {error}") from None
    if recipe.decoding.engine == "openai" and decoding.strategy == "beam":
        raise PersonalignError(
            f"{source}: decoding.strategy is beam, which servers do not offer; write greedy or sample, or "
            "decoding.engine: local"
        )
    if decoding.max_new_tokens > prompts.reserve:
        raise PersonalignError(
            f"{source}: decoding.max_new_tokens is {decoding.max_new_tokens}, but prompts.reserve keeps only "
            f"{prompts.reserve} tokens free for a reply; write the same or less, or raise prompts.reserve"
        )
