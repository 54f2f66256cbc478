"""Recipes by name: those that come with the package, and files."""

import difflib
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from personalign.errors import PersonalignError
from personalign.methods.pretrain_recipe import PretrainRecipe, parse_pretrain_recipe
from personalign.methods.recipe import IDL, Recipe, override, parse_recipe, read_recipe

if TYPE_CHECKING:
    from personalign.methods.idl_recipe import IdlRecipe


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
        raise PersonalignError(
            f"there is no recipe '{name}'{_nearest(name, texts)}; the shipped ones are {', '.join(texts)}"
        )
    return texts[name]


def load_recipe(name_or_path: str, assignments: Sequence[str] = ()) -> Recipe:
    """A shipped recipe or a file, with `a.b=c` assignments applied.

    Raises PersonalignError for what is neither, and for a recipe that is not right.
    """
    return parse_recipe(_values(name_or_path, assignments), source=name_or_path)


def load_run_recipe(name_or_path: str, assignments: Sequence[str] = ()) -> "Recipe | IdlRecipe":
    """The same of a recipe for `personalign run`, whichever its method."""
    return parse_run_recipe(_values(name_or_path, assignments), source=name_or_path)


def parse_run_recipe(values: Mapping[str, Any], *, source: str) -> "Recipe | IdlRecipe":
    """`parse_recipe` or `parse_idl_recipe`, by the recipe's method."""
    if values.get("method") != IDL:
        return parse_recipe(values, source=source)
    # Its parts know clustering and encoders, whose import takes seconds.
    from personalign.methods.idl_recipe import parse_idl_recipe

    return parse_idl_recipe(values, source=source)


def load_pretrain_recipe(name_or_path: str, assignments: Sequence[str] = ()) -> PretrainRecipe:
    """The same of a recipe for `personalign pretrain`."""
    return parse_pretrain_recipe(_values(name_or_path, assignments), source=name_or_path)


def _values(name_or_path: str, assignments: Sequence[str]) -> dict[str, Any]:
    if Path(name_or_path).is_file():
        values = read_recipe(name_or_path)
    elif name_or_path in (texts := shipped_recipes()):
        values = yaml.safe_load(texts[name_or_path])
    else:
        raise PersonalignError(
            f"'{name_or_path}' is neither a file nor a shipped recipe{_nearest(name_or_path, texts)}; "
            f"shipped are {', '.join(texts)}"
        )
    return override(values, list(assignments))


def _nearest(name: str, texts: Mapping[str, str]) -> str:
    """A file beside the one that was named, or a recipe, spelt almost alike."""
    path = Path(name)
    files_there = (
        [str(path.with_name(item.name)) for item in path.parent.glob("*.y*ml")]
        if path.parent.is_dir()
        else []
    )
    near = difflib.get_close_matches(name, [*files_there, *texts], n=1, cutoff=0.7)
    return f" (did you mean {near[0]}?)" if near else ""
