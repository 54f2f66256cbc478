"""The documentation against the code: links, commands, recipe keys, and the README's way to a recipe of one's own."""

import json
import re
import shlex
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from typer.testing import CliRunner

import personalign
from personalign.cli.main import COMMANDS, _load, app
from personalign.data.formats import write_dialogues
from personalign.data.synthetic import generate
from personalign.data.validate import validate
from personalign.methods import idl_recipe as idl_schema
from personalign.methods import pretrain_recipe as pretrain_schema
from personalign.methods import recipe as schema
from personalign.methods.idl_recipe import IdlRecipe
from personalign.methods.pretrain_recipe import PretrainRecipe, parse_pretrain_recipe
from personalign.methods.recipe import Recipe, override, parse_recipe
from personalign.methods.shipped import parse_run_recipe, recipe_text, shipped_recipes

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
OTHER_PAGES = ("CONTRIBUTING.md", "CHANGELOG.md", "benchmarks/README.md")
PAGES = sorted([README, *(ROOT / name for name in OTHER_PAGES), *(ROOT / "docs").glob("*.md")])
RECIPES_PAGE = ROOT / "docs" / "recipes.md"
PAGE_NAMES = [page.relative_to(ROOT).as_posix() for page in PAGES]

# Headings of docs/recipes.md, and the class whose keys the table below each lists.
SECTIONS: dict[str, type[BaseModel]] = {
    "The recipe itself": schema.Recipe,
    "data": schema.Data,
    "data.synthetic": schema.SyntheticData,
    "data.files": schema.FileData,
    "data.labels": schema.Labels,
    "backbone": schema.Backbone,
    "backbone.scratch": schema.Scratch,
    "backbone.lora": schema.Lora,
    "prompts": schema.Prompts,
    "stages": schema.Stages,
    "stages.copying": schema.CopyStage,
    "A training stage": schema.Stage,
    "stages.pretrain": schema.PretrainStage,
    "stages.stage2": schema.AlignStage,
    "selector": schema.Selector,
    "decoding": schema.Decoding,
    "evaluation": schema.Evaluation,
    "Backbones of one's own": pretrain_schema.PretrainRecipe,
    "data of a backbone": pretrain_schema.PretrainData,
    "data.synthetic of a backbone": pretrain_schema.SyntheticText,
    "A recipe of IDL": idl_schema.IdlRecipe,
    "data of IDL": idl_schema.PeopleData,
    "data.synthetic of IDL": idl_schema.SyntheticPeople,
    "data.files of IDL": idl_schema.PeopleFiles,
    "data.files.test of IDL": idl_schema.TestPeople,
    "sessions": idl_schema.Sessions,
    "stages of IDL": idl_schema.IdlStages,
    "stages.stage2 of IDL": schema.CriterionStage,
    "compared": idl_schema.Compared,
}


def fenced(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


def shell_lines(text: str) -> list[str]:
    """Lines of console and plain code blocks, indented blocks and inline code; continued lines joined."""
    lines, fence = [], None
    for line in text.replace("\\\n", " ").splitlines():
        if line.startswith("```"):
            fence = None if fence is not None else line.removeprefix("```")
        elif fence in ("", "console"):
            lines.append(line.strip().removeprefix("$ "))
        elif fence is None and line.startswith("    "):
            lines.append(line.strip())
        elif fence is None:
            lines += re.findall(r"`([^`]+)`", line)
    return lines


def commands(text: str, program: str) -> list[list[str]]:
    """The words of every use of `program`, without comments and the brackets of a synopsis."""
    found = []
    for line in shell_lines(text):
        if line.startswith(f"{program} "):
            words = shlex.split(line, comments=True)[1:]
            found.append([word.removeprefix("[").removesuffix("]") for word in words])
    return found


def section_of(annotation: Any) -> type[BaseModel] | None:
    """The section that a field holds, also an optional one."""
    kinds = get_args(annotation) or (annotation,)
    return next((kind for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel)), None)


def choices_of(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    return [choice for part in get_args(annotation) for choice in choices_of(part)]


def default_of(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    return "its defaults" if isinstance(value, BaseModel) else f"`{json.dumps(value)}`"


def reachable(section: type[BaseModel]) -> Iterator[type[BaseModel]]:
    yield section
    for field in section.model_fields.values():
        inner = section_of(field.annotation)
        if inner is not None:
            yield from reachable(inner)


def documented() -> dict[str, list[tuple[str, str, str]]]:
    """Key, default and meaning of every row, by heading."""
    tables: dict[str, list[tuple[str, str, str]]] = {}
    heading = ""
    for line in RECIPES_PAGE.read_text(encoding="utf-8").splitlines():
        if line.startswith("#"):
            heading = line.lstrip("# ").replace("`", "")
        elif heading in SECTIONS and (row := re.fullmatch(r"\| `(\w+)` \| (.+?) \| (.+) \|", line)):
            tables.setdefault(heading, []).append((row[1], row[2], row[3]))
    return tables


def test_every_section_of_a_recipe_has_a_table() -> None:
    assert {*reachable(Recipe), *reachable(PretrainRecipe), *reachable(IdlRecipe)} == set(SECTIONS.values())
    assert set(documented()) == set(SECTIONS)


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_table_of_a_section_lists_its_keys_and_defaults(heading: str) -> None:
    section = SECTIONS[heading]
    # What a section adds to another one that has a table: keys of a training stage are listed once.
    listed = [base for base in section.__mro__[1:] if base in SECTIONS.values()]
    fields = {
        name: field
        for name, field in section.model_fields.items()
        if not any(name in base.model_fields for base in listed if issubclass(base, BaseModel))
    }
    rows = [(key, default) for key, default, _ in documented()[heading]]
    assert sorted(rows) == sorted((name, default_of(field)) for name, field in fields.items())


@pytest.mark.parametrize("heading", SECTIONS)
def test_the_table_of_a_section_names_every_choice(heading: str) -> None:
    for key, _, meaning in documented()[heading]:
        for choice in choices_of(SECTIONS[heading].model_fields[key].annotation):
            assert f"`{choice}`" in meaning, f"{heading}.{key} does not mention {choice}"


def test_every_shipped_recipe_is_listed_and_every_listed_one_is_shipped() -> None:
    text = RECIPES_PAGE.read_text(encoding="utf-8").split("## What a run leaves")[0]
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    listed = {name for row in rows for name in re.findall(r"`([\w.-]+)`", row.split("|")[1])}
    assert listed == set(shipped_recipes())
    for row in rows:
        for name in re.findall(r"`([\w.-]+)`", row.split("|")[1]):
            untested = yaml.safe_load(recipe_text(name))["measured"].startswith("untested")
            assert untested == ("untested" in row), f"{name}: recipe and docs disagree on what was measured"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("http://", "https://")):
            continue
        place, _, anchor = link.partition("#")
        target = page if not place else page.parent / place
        assert target.is_file(), f"{page.name} links to {link}, which is not there"
        if anchor:
            assert anchor in anchors(target), f"{page.name} links to {link}, but there is no such heading"


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_commands_and_their_options_exist(page: Path) -> None:
    for words in commands(page.read_text(encoding="utf-8"), "personalign"):
        shown = f"{page.name}: personalign {shlex.join(words)}"
        if words[0].startswith("--"):
            assert words[0] in ("--help", "--version"), shown
            continue
        assert words[0] in COMMANDS, shown
        command, given = _load(COMMANDS[words[0]]), words[1:]
        inner = getattr(command, "commands", None)
        if inner and given:
            assert given[0] in inner, shown
            command, given = inner[given[0]], given[1:]
        known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        for word in given:
            assert not word.startswith("--") or word in known, f"{shown}: there is no {word}"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_settings_of_commands_are_keys_of_a_recipe(page: Path) -> None:
    shipped = shipped_recipes()
    for words in commands(page.read_text(encoding="utf-8"), "personalign"):
        named = next((word for word in words if word in shipped), "pal-personachat-small")
        # A loop's variable stands for a number.
        given = [re.sub(r"\$\w+", "1", value) for option, value in pairwise(words) if option == "--set"]
        values = override(yaml.safe_load(shipped[named]), given)
        parse = parse_pretrain_recipe if values["method"] == "pretrain" else parse_run_recipe
        parse(values, source=page.name)


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_files_that_a_page_names_exist(page: Path) -> None:
    named = re.findall(r"\b((?:tests|src|benchmarks)/[\w./-]+\w)", page.read_text(encoding="utf-8"))
    for name in named:
        assert (ROOT / name).exists(), f"{page.name}: there is no {name}"


@pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)
def test_make_targets_exist(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for words in commands(page.read_text(encoding="utf-8"), "make"):
        assert words[0] in targets, f"{page.name}: make {words[0]}"


def test_the_readme_uses_public_names() -> None:
    [example] = fenced(README.read_text(encoding="utf-8"), "python")
    names = set(re.findall(r"personalign\.(\w+)", example))
    assert names
    assert names <= set(personalign.__all__)


def test_the_readme_prints_the_size_of_the_quickstart() -> None:
    """150 dialogues to borrow are those of the alignment part."""
    recipe = parse_recipe(yaml.safe_load(recipe_text("quickstart")), source="quickstart")
    assert recipe.data.synthetic is not None
    assert f"borrow\n{recipe.data.synthetic.align} from" in README.read_text(encoding="utf-8")


def test_the_dialogues_of_the_readme_can_be_checked_shown_and_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The README's own `data` commands on its own two dialogues and some borrowed ones; labelling apart."""
    text = README.read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    [rows] = fenced(text, "jsonl")
    Path("talk.jsonl").write_text(rows, encoding="utf-8")
    assert validate("talk.jsonl") == []
    borrowed = generate("en", seed=3, people={"align": 20}, exchanges=2).align
    write_dialogues(Path("borrowed.jsonl"), borrowed)
    lines = rows + Path("borrowed.jsonl").read_text(encoding="utf-8")
    Path("talk.jsonl").write_text(lines, encoding="utf-8")
    Path("labelled.jsonl").write_text(lines, encoding="utf-8")
    done = []
    for words in commands(text, "personalign"):
        if words[0] == "data" and words[1] in ("validate", "stats", "show", "split"):
            result = CliRunner().invoke(app, words)
            assert result.exit_code == 0, f"{words}: {result.output} {result.exception}"
            done.append(words[1])
    assert done == ["validate", "stats", "show", "show", "split"]
    assert len(Path("parts/train.jsonl").read_text(encoding="utf-8").splitlines()) == 20
    assert len(Path("parts/test.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_the_recipe_of_the_readme_is_a_recipe_without_a_judge() -> None:
    [changes] = fenced(README.read_text(encoding="utf-8"), "yaml")
    values = {**yaml.safe_load(recipe_text("pal-personachat-small")), **yaml.safe_load(changes)}
    del values["stages"]["stage2"]["evaluate_every"], values["stages"]["stage2"]["patience"]
    recipe = parse_recipe(values, source="README.md")
    assert recipe.data.files is not None
    assert recipe.data.files.train == "parts/train.jsonl"
    assert recipe.data.files.pretrain == ()
    assert recipe.evaluation.judges == ()
    assert recipe.stages.stage2.evaluate_every is None
