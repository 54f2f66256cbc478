"""Model cards: what a run's model is, what it learnt from, and what was measured."""

from collections.abc import Sequence
from typing import Any

from personalign._mini import MINI, is_mini
from personalign._version import __version__
from personalign.methods.recipe import Recipe, recipe_yaml
from personalign.methods.shipped import load_pretrain_recipe
from personalign.methods.tables import results_table


def model_card(recipe: Recipe, results: dict[str, Any]) -> str:
    """Markdown with the front matter of the Hugging Face hub."""
    backbone = recipe.backbone.name
    front = [
        "---",
        "library_name: personalign",
        f"language: {recipe.language}",
        "tags: [persona, dialogue, dpo, pal]",
    ]
    front += [f"base_model: {backbone}"] if backbone and not is_mini(backbone) else []
    source = "the synthetic corpus" if recipe.data.synthetic is not None else recipe.data.files.train  # type: ignore[union-attr]
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
            f"A dialogue model that keeps a persona: PAL, trained by personalign {__version__} from {made} on {source}, "
            f"seed {recipe.seed}. It is meant for research and for characters that are known to be made up; it states "
            "what its persona says, whether or not that is true of anybody.",
            "",
            "    personalign chat THIS_FOLDER --line 'i have a dog .'",
            "",
            *credit_lines("The backbone learnt from:", credits),
            results_table(results),
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
