"""Recipes by name: those that come with the package, and files."""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

import yaml

from personalign.errors import PersonalignError
from personalign.methods.recipe import Recipe, override, parse_recipe, read_recipe


def shipped_recipes() -> dict[str, str]:
    """The text of every shipped recipe, by name."""
    folder = files("personalign") / "recipes"
    texts = {
        item.name.removesuffix(".yaml"): item.read_text(encoding="utf-8")
        for item in folder.iterdir()
        if item.name.endswith(".yaml")
    }
    return dict(sorted(texts.items()))


def recipe_text(name: str) -> str:
    """The text of a shipped recipe. Raises PersonalignError that lists those there are."""
    texts = shipped_recipes()
    if name not in texts:
        raise PersonalignError(f"there is no recipe '{name}'; the shipped ones are {', '.join(texts)}")
    return texts[name]


def load_recipe(name_or_path: str, assignments: Sequence[str] = ()) -> Recipe:
    """A shipped recipe or a file, with `a.b=c` assignments applied.

    Raises PersonalignError for what is neither, and for a recipe that is not right.
    """
    if Path(name_or_path).is_file():
        values = read_recipe(name_or_path)
    elif name_or_path in (texts := shipped_recipes()):
        values = yaml.safe_load(texts[name_or_path])
    else:
        raise PersonalignError(
            f"'{name_or_path}' is neither a file nor a shipped recipe; those are {', '.join(texts)}"
        )
    return parse_recipe(override(values, list(assignments)), source=name_or_path)
