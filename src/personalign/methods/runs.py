"""Runs by the method of their recipe."""

from pathlib import Path

from personalign._ranks import ALONE, Ranks
from personalign.methods.idl_recipe import IdlRecipe
from personalign.methods.idl_run import IdlRun
from personalign.methods.recipe import Recipe
from personalign.methods.run import PalRun
from personalign.methods.steps import Reporter

AnyRun = PalRun | IdlRun


def make_run(
    recipe: Recipe | IdlRecipe,
    folder: Path,
    *,
    reporter: Reporter,
    resume: bool = False,
    ranks: Ranks = ALONE,
) -> AnyRun:
    """The run of a recipe in a folder; nothing is done yet."""
    if isinstance(recipe, IdlRecipe):
        return IdlRun(recipe, folder, reporter=reporter, resume=resume, ranks=ranks)
    return PalRun(recipe, folder, reporter=reporter, resume=resume, ranks=ranks)
