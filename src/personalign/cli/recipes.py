"""`personalign recipes`: the recipes that come with the package."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from personalign._files import write_text
from personalign._mini import MINI
from personalign.cli._output import emit_json, output_console, print_command
from personalign.errors import PersonalignError

app = typer.Typer(
    help="List, show and copy the recipes that come with personalign.",
    no_args_is_help=True,
    add_completion=False,
)

# Of PAL's and IDL's recipes under `data.files`, of a backbone's under `data`.
_FILE_KEYS = frozenset(
    ["train", "test", "align", "pretrain", "pretrain_persona_pairs", "files", "persona_pairs", "tested"]
)

Name = Annotated[str, typer.Argument(help="Of a shipped recipe; `personalign recipes list` prints them.")]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object as the last line.")]


@app.command("list")
def list_recipes(json: Json = False) -> None:
    """List the shipped recipes, what each is for, and whether it was measured."""
    from personalign.methods.shipped import shipped_recipes

    rows = []
    for name, text in shipped_recipes().items():
        values = yaml.safe_load(text)
        rows.append(
            {
                "name": name,
                "description": values["description"],
                "needs": _needs(values),
                "measured": values["measured"],
            }
        )
    console = output_console()
    for row in rows:
        console.print(
            f"[bold]{row['name']}[/bold]  {row['description']}\n    needs: {row['needs']}\n"
            f"    measured: {row['measured']}"
        )
    if json:
        emit_json({"recipes": rows})


def _needs(values: dict[str, Any]) -> str:
    """What must be there before a recipe can run."""
    needs = []
    if data := _files_of(values["data"]):
        needs.append(f"data files {', '.join(data)}")
    if values["backbone"].get("name") not in (None, MINI):
        needs.append(f"the model {values['backbone']['name']}")
    judges = [name for name in values.get("evaluation", {}).get("judges", []) if name != "oracle"]
    if judges:
        needs.append(f"judges {', '.join(judges)}")
    return "; ".join(needs) or "nothing"


def _files_of(data: dict[str, Any]) -> list[str]:
    """Every file that a recipe names, once, in the recipe's order."""
    files = data.get("files", {})
    section = files if isinstance(files, dict) else data
    named: list[str] = []
    for key, value in section.items():
        if key in _FILE_KEYS and value is not None:
            # Several groups of people are tested, each in a section with a file.
            given = [people["file"] for people in value.values()] if isinstance(value, dict) else value
            named += [given] if isinstance(given, str) else given
    return list(dict.fromkeys(named))


@app.command("show")
def show_recipe(name: Name, json: Json = False) -> None:
    """Print a shipped recipe."""
    from personalign.methods.shipped import recipe_text

    text = recipe_text(name)
    output_console().print(text, markup=False, highlight=False, soft_wrap=True)
    if json:
        emit_json({"name": name, "recipe": yaml.safe_load(text)})


@app.command("copy")
def copy_recipe(
    name: Name,
    to: Annotated[
        Path, typer.Argument(help="File to write, or a folder for my-NAME.yaml.", show_default="here")
    ] = Path(),
    json: Json = False,
) -> None:
    """Copy a shipped recipe to a file of yours, named after it, to be changed and run.

    The copy says what it was copied from, and that it was not measured.
    """
    from personalign.methods.recipe import PRETRAIN
    from personalign.methods.shipped import recipe_text, shipped_recipes

    text = recipe_text(name)
    path = to / f"my-{name}.yaml" if to.is_dir() else to
    if path.stem in shipped_recipes():
        # Its runs would go into the folder of the original's.
        raise PersonalignError(f"{path}: a copy needs a name of its own; write for example my-{name}.yaml")
    if path.exists():
        raise PersonalignError(f"{path} exists already; name another file")
    write_text(path, _own(text, name=path.stem, of=name))
    command = "pretrain" if yaml.safe_load(text).get("method") == PRETRAIN else "run"
    print_command(output_console(), f"{path} written; run it with:", command, path)
    if json:
        emit_json({"name": name, "path": path})


def _own(text: str, *, name: str, of: str) -> str:
    """The recipe under its own name, and without the claims that were made for the one that it was copied from."""
    for key, value in (("name", name), ("description", f"a copy of {of}"), ("measured", "untested")):
        line = yaml.safe_dump({key: value}, allow_unicode=True, width=1000).strip()
        start = text.index(f"{key}: ")
        text = text[:start] + line + text[text.index("\n", start) :]
    return text
