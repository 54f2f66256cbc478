"""Relevance labels of training dialogues, as a recipe asks for them; used for training and calibration, never at test."""

from dataclasses import replace
from typing import Any, TypeVar

from personalign.data.dialogue import Dialogue
from personalign.errors import PersonalignError
from personalign.labels.labeller import (
    CosineIdfLabeller,
    CosineLabeller,
    IdfOverlapLabeller,
    Labeller,
    NliLabeller,
)
from personalign.methods.judges import judges_asked, open_judge, with_cache
from personalign.methods.parts import Parts, contents_of
from personalign.methods.recipe import Labels, Recipe
from personalign.methods.steps import Reporter

AnyLabeller = TypeVar("AnyLabeller", IdfOverlapLabeller, NliLabeller, CosineLabeller, CosineIdfLabeller)
UNTESTED_PARTS = ("train", "align", "stop")


def label_parts(parts: Parts, recipe: Recipe, *, reporter: Reporter) -> Parts:
    """Give every dialogue of the training parts labels; dialogues of other parts keep those that they have.

    Test dialogues without labels get them too: they score selection, and only oracle selection reads them.
    """
    labels = recipe.data.labels
    if labels.method == "given":
        for name, dialogues in parts.items():
            _require_labels(name, dialogues)
        return parts
    reporter.say(f"Labelling relevant persona lines by {labels.method}")
    labeller = open_labeller(labels, recipe)
    return {
        name: _labelled(dialogues, labeller)
        if name in UNTESTED_PARTS
        else _completed(name, dialogues, labeller, reporter=reporter)
        for name, dialogues in parts.items()
    }


def open_labeller(labels: Labels, recipe: Recipe) -> Labeller:
    match labels.method:
        case "idf":
            return _cut(IdfOverlapLabeller(language=recipe.language), labels)
        case "nli":
            judge = open_judge(
                recipe.evaluation.judges[0], language=recipe.language, dtype=recipe.evaluation.judge_dtype
            )
            return _cut(NliLabeller(with_cache(judge)), labels)
        case "cosine" | "cosine-idf":
            from personalign.models.encoder import load_encoder

            encoder = load_encoder(recipe.selector.encoder)
            if labels.method == "cosine":
                return _cut(CosineLabeller(encoder), labels)
            return _cut(CosineIdfLabeller(encoder, language=recipe.language), labels)
    raise PersonalignError(f"labels: there is no method '{labels.method}'")


def _cut(labeller: AnyLabeller, labels: Labels) -> AnyLabeller:
    return labeller if labels.threshold is None else replace(labeller, threshold=labels.threshold)


def label_settings(recipe: Recipe) -> dict[str, Any]:
    """What decides the labels besides the recipe's section on them."""
    match recipe.data.labels.method:
        case "nli":
            first = recipe.evaluation.judges[0]
            asked = [first, recipe.evaluation.judge_dtype, *judges_asked([first]).values()]
            return {"label_judge": asked}
        case "cosine" | "cosine-idf":
            return {"label_encoder": contents_of(recipe.selector.encoder)}
    return {}


def _labelled(dialogues: list[Dialogue], labeller: Labeller) -> list[Dialogue]:
    found = labeller.label(dialogues)
    return [replace(dialogue, relevant=labels) for dialogue, labels in zip(dialogues, found, strict=True)]


def _completed(
    part: str, dialogues: list[Dialogue], labeller: Labeller, *, reporter: Reporter
) -> list[Dialogue]:
    missing = sum(dialogue.relevant is None for dialogue in dialogues)
    if not missing:
        return dialogues
    reporter.say(f"Part '{part}': {missing} of {len(dialogues)} dialogues had no labels and got some")
    # All of them, since the idf of a word counts in how many texts of the part it stands.
    found = _labelled(dialogues, labeller)
    return [new if given.relevant is None else given for given, new in zip(dialogues, found, strict=True)]


def _require_labels(part: str, dialogues: list[Dialogue]) -> None:
    for dialogue in dialogues:
        if dialogue.relevant is None:
            raise PersonalignError(
                f"dialogue {dialogue.id} of part '{part}' has no `relevant`; label the file with `personalign data "
                "label`, or set data.labels.method to idf, cosine, cosine-idf or nli"
            )
