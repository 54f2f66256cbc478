"""The layers, the light start-up and the size of files, read from the source."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "personalign"

# A folder imports only from those above it.
LAYERS = (
    "data",
    "prompts",
    "trees",
    "models",
    "decoding",
    "evaluation",
    "labels",
    "personas",
    "training",
    "methods",
    "cli",
)
SHARED = {
    "personalign._files",
    "personalign._mini",
    "personalign._ranks",
    "personalign._server",
    "personalign._version",
    "personalign.errors",
}
PUBLIC = {"personalign", "personalign.api"}
HEAVY = {
    "accelerate",
    "datasets",
    "peft",
    "scipy",
    "sentence_transformers",
    "sklearn",
    "torch",
    "transformers",
}
MAXIMUM_LINES = 600

MODULES = sorted(PACKAGE.rglob("*.py"))
PYTHON_FILES = sorted(
    path for folder in ("src", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py")
)


def relative_name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


KNOWN = {module_name(path) for path in MODULES}


def imported_by(node: ast.AST, *, package: str) -> list[str]:
    """The modules that one statement names, as absolute; a name inside a module counts as the module."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        base = node.module or ""
        if node.level:
            parents = package.split(".")[: len(package.split(".")) - node.level + 1]
            base = ".".join([*parents, *([node.module] if node.module else [])])
        return [f"{base}.{alias.name}" if f"{base}.{alias.name}" in KNOWN else base for alias in node.names]
    return []


def package_of(path: Path) -> str:
    name = module_name(path)
    return name if path.name == "__init__.py" else name.rpartition(".")[0]


def all_imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {name for node in ast.walk(tree) for name in imported_by(node, package=package_of(path))}


def statements_at_import(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """The statements that run when the module is imported, without those for type checkers alone."""
    for statement in body:
        yield statement
        if isinstance(statement, ast.If) and "TYPE_CHECKING" not in ast.dump(statement.test):
            yield from statements_at_import(statement.body + statement.orelse)
        if isinstance(statement, ast.With | ast.ClassDef | ast.For):
            yield from statements_at_import(statement.body)
        if isinstance(statement, ast.Try):
            handlers = [inner for handler in statement.handlers for inner in handler.body]
            yield from statements_at_import([*statement.body, *handlers, *statement.orelse])


def imports_at_import(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    statements = statements_at_import(tree.body)
    return {name for node in statements for name in imported_by(node, package=package_of(path))}


def layer_faults(path: Path) -> list[str]:
    folder = path.relative_to(PACKAGE).parts[0]
    if folder not in LAYERS:
        return [f"{folder} is not in the list of layers"]
    allowed = set(LAYERS[: LAYERS.index(folder) + 1])
    ours = {name for name in all_imports(path) if name.split(".")[0] == "personalign"}
    if folder == "cli":
        ours -= PUBLIC
    return sorted(
        name for name in ours - SHARED if len(name.split(".")) < 2 or name.split(".")[1] not in allowed
    )


@pytest.mark.parametrize(
    "path", [path for path in MODULES if path.parent != PACKAGE], ids=lambda path: relative_name(path)
)
def test_a_folder_imports_only_from_those_above_it(path: Path) -> None:
    assert layer_faults(path) == []


@pytest.mark.parametrize("name", ["_files", "_version", "errors"])
def test_what_everyone_imports_imports_nothing_of_ours_but_the_error(name: str) -> None:
    ours = {found for found in all_imports(PACKAGE / f"{name}.py") if found.startswith("personalign")}
    assert ours <= ({"personalign.errors"} if name == "_files" else set())


def test_the_layers_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "personalign"
    path = package / "trees" / "wrong.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "from personalign.data.dialogue import Turn\n"
        "from personalign.errors import PersonalignError\n"
        "from ..models import loading\n"
        "from . import masks\n"
        "def later():\n    import personalign.cli.main\n    from personalign import training\n"
    )
    monkeypatch.setitem(globals(), "PACKAGE", package)
    monkeypatch.setitem(globals(), "KNOWN", {"personalign.training"})
    assert layer_faults(path) == ["personalign.cli.main", "personalign.models", "personalign.training"]


@pytest.mark.parametrize("folder", ["data", "cli"])
def test_files_read_at_start_up_import_nothing_heavy(folder: str) -> None:
    heavy = {
        relative_name(path): sorted(found)
        for path in (PACKAGE / folder).rglob("*.py")
        if (found := {name.split(".")[0] for name in imports_at_import(path)} & HEAVY)
    }
    assert heavy == {}


def test_importing_them_loads_nothing_heavy() -> None:
    """The same through everything that they import in turn."""
    light = sorted(
        module_name(path)
        for path in MODULES
        if path == PACKAGE / "__init__.py" or path.relative_to(PACKAGE).parts[0] in {"data", "cli"}
    )
    program = (
        "import importlib, sys\n"
        f"for name in {light!r}:\n"
        "    importlib.import_module(name)\n"
        f"    loaded = sorted(set(sys.modules) & {HEAVY!r})\n"
        "    if loaded: sys.exit(f'{name} loads {loaded}')\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("path", PYTHON_FILES, ids=lambda path: relative_name(path))
def test_no_file_needs_a_table_of_contents(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAXIMUM_LINES
