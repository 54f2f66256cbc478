"""The recipe of a backbone: what it reads, what it looks like, how long it is trained."""

import re
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from personalign.errors import PersonalignError
from personalign.methods.recipe import (
    PRETRAIN,
    Above0,
    Backbone,
    CopyStage,
    Count,
    Decoding,
    Language,
    Positive,
    PretrainStage,
    Prompts,
    Scratch,
    Section,
    Share,
    validated,
)


class SyntheticText(Section):
    """Dialogues of the training split of the synthetic corpus: no held-out values, combinations or wordings.

    A share of `words` (English only) has words of the files for values, so that they can only be copied; a share of
    `unspaced` is written as people write, with no space before a full stop.
    """

    people: Positive = 4000
    exchanges: Positive = 7
    seed: Count = 1
    words: Share = 0.0
    unspaced: Share = 0.0


class PretrainData(Section):
    """Dialogue files, each a key, path or hub id, and the synthetic corpus.

    `both_sides` reads every dialogue from the partner's side as well, where the partner has a persona. `persona_pairs` is
    a file of (persona, response) rows. `fill_in` maps patterns to what is put where they match, one choice for all that
    match alike in a dialogue: dialogues that a model wrote have placeholders for names. Nothing that `tested` files hold
    is read; what is left out is counted. `held_out` is the share that measures the model, by persona set.
    """

    files: tuple[str, ...] = ()
    persona_pairs: str | None = None
    synthetic: SyntheticText | None = None
    both_sides: bool = False
    fill_in: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    tested: tuple[str, ...] = ()
    held_out: Share = 0.02
    hub: dict[str, str] = Field(default_factory=dict)


class PretrainRecipe(Section):
    """`tasks`: `text` is language modelling alone; `persona` adds PAL's two tasks, choosing a line and replying with it,
    on labels that files bring and otherwise by idf overlap. `weights` is what the model is stored in. `credits` say whose
    the data are and under which licence; they stand in the model's card. `examples` are personas
    to begin a chat with, some of the held-out ones where none are given.
    """

    name: str
    description: str = ""
    measured: str = "untested"
    method: Literal["pretrain"]
    seed: Count = 1
    language: Language = "en"
    data: PretrainData
    backbone: Backbone = Backbone(scratch=Scratch())
    prompts: Prompts = Prompts()
    tasks: Literal["text", "persona"] = "text"
    text_weight: Above0 = 1.0
    copying: CopyStage | None = None
    pretrain: PretrainStage
    decoding: Decoding = Decoding()
    weights: Literal["float32", "bfloat16"] = "float32"
    credits: tuple[str, ...] = ()
    examples: tuple[tuple[str, ...], ...] = ()


def parse_pretrain_recipe(values: Mapping[str, Any], *, source: str) -> PretrainRecipe:
    """Check a recipe's values; the messages are those of `parse_recipe`."""
    if values.get("method", "pal") != PRETRAIN:
        raise PersonalignError(
            f"{source}: `personalign pretrain` takes recipes whose method is {PRETRAIN}; give this one to "
            "`personalign run`"
        )
    recipe = validated(PretrainRecipe, values, source=source)
    data = recipe.data
    if not data.files and data.synthetic is None:
        raise PersonalignError(f"{source}: data: give `files`, `synthetic`, or both")
    if not 0 < data.held_out < 1:
        raise PersonalignError(f"{source}: data.held_out is {data.held_out:g}; write a share between 0 and 1")
    _check_texts(recipe, source=source)
    scratch = recipe.backbone.scratch
    if scratch is None or recipe.backbone.name is not None or recipe.backbone.lora is not None:
        raise PersonalignError(
            f"{source}: backbone: give `scratch` alone; a backbone is trained from random weights"
        )
    if scratch.tokenizer == "word" and (data.files or data.persona_pairs):
        raise PersonalignError(
            f"{source}: backbone.scratch.tokenizer is 'word', which knows the words of the synthetic corpus alone; "
            "write bpe"
        )
    defaults = PretrainStage.model_fields
    for key in ("evaluate_every", "patience", "trunk_weight", "reply_weight"):
        if getattr(recipe.pretrain, key) != defaults[key].default:
            raise PersonalignError(f"{source}: pretrain.{key} has no meaning here; leave it out")
    if recipe.tasks == "text" and recipe.text_weight != PretrainRecipe.model_fields["text_weight"].default:
        raise PersonalignError(
            f"{source}: text_weight weighs text against PAL's tasks, and tasks is text; leave it out"
        )
    return recipe


def _check_texts(recipe: PretrainRecipe, *, source: str) -> None:
    data = recipe.data
    for pattern, choices in data.fill_in.items():
        try:
            re.compile(pattern)
        except re.error as error:
            raise PersonalignError(
                f"{source}: data.fill_in: '{pattern}' is no regular expression ({error}); escape what is meant as it "
                "stands with a backslash"
            ) from None
        if not choices:
            raise PersonalignError(
                f"{source}: data.fill_in: '{pattern}' has nothing to put in; give a list of words"
            )
    if data.synthetic is not None and data.synthetic.words and (recipe.language != "en" or not data.files):
        raise PersonalignError(
            f"{source}: data.synthetic.words takes words of English `files`; write 0, or give such files"
        )
