"""Model cards: what a run's model is, what it learnt from, and what was measured."""

from collections.abc import Sequence
from typing import Any

from personalign._mini import MINI, is_mini
from personalign._version import __version__
from personalign.methods.idl_recipe import IdlRecipe
from personalign.methods.recipe import Recipe, RunRecipe, recipe_yaml
from personalign.methods.shipped import load_pretrain_recipe
from personalign.methods.tables import results_table


def model_card(recipe: Recipe, results: dict[str, Any]) -> str:
    """Markdown with the front matter of the Hugging Face hub."""
    data = recipe.data
    source = "the synthetic corpus" if data.files is None else data.files.train
    return _card(
        recipe,
        tags=("dpo", "pal"),
        what="A dialogue model that keeps a persona: PAL",
        source=source,
        caution="it states what its persona says, whether or not that is true of anybody",
        chat="personalign chat THIS_FOLDER --line 'i have a dog .'",
        tables=results_table(results),
    )


def idl_card(recipe: IdlRecipe, tables: str) -> str:
    """The same of a model that learns people from their sessions."""
    data = recipe.data
    source = "the synthetic corpus" if data.files is None else ", ".join(data.files.train)
    return _card(
        recipe,
        tags=("dpoc", "idl"),
        what="A dialogue model that talks like somebody whose earlier conversations it is told: IDL",
        source=source,
        caution="it states what somebody has said before, or something like it, whether or not that is true",
        chat="personalign chat THIS_FOLDER --sessions SESSIONS",
        tables=tables,
    )


def _card(
    recipe: RunRecipe, *, tags: Sequence[str], what: str, source: str, caution: str, chat: str, tables: str
) -> str:
    backbone = recipe.backbone.name
    front = [
        "---",
        "library_name: personalign",
        f"language: {recipe.language}",
        f"tags: [persona, dialogue, {', '.join(tags)}]",
    ]
    front += [f"base_model: {backbone}"] if backbone and not is_mini(backbone) else []
    made = f"the backbone {backbone}" if backbone else "a backbone trained from scratch"
    credits = load_pretrain_recipe(MINI).credits if is_mini(backbone) else ()
    return "\n".join(
        [
            *front,
            "---",
            "",
            f"# {recipe.name}",
            "",
            f"{recipe.description}",
            "",
            f"{what}, trained by personalign {__version__} from {made} on {source}, seed {recipe.seed}. It is meant for "
            f"research and for characters that are known to be made up; {caution}.",
            "",
            f"    {chat}",
            "",
            *credit_lines("The backbone learnt from:", credits),
            tables,
            "## Recipe",
            "",
            "```yaml",
            recipe_yaml(recipe).rstrip(),
            "```",
            "",
        ]
    )


def credit_lines(heading: str, credits: Sequence[str]) -> list[str]:
    """A list of credits under its heading; no lines where there are none."""
    return [heading, "", *(f"- {credit}" for credit in credits), ""] if credits else []
