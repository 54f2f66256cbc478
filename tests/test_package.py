"""The public names, and the wheel as somebody else would install it."""

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

import personalign

ROOT = Path(__file__).parents[1]

PUBLIC_NAMES = [
    "Dialogue",
    "PersonalignError",
    "Turn",
    "__version__",
    "load",
    "reply",
    "score",
    "select",
    "train",
]


def test_the_public_names_are_these() -> None:
    assert sorted(personalign.__all__) == PUBLIC_NAMES
    assert dir(personalign) == PUBLIC_NAMES


@pytest.mark.parametrize("name", PUBLIC_NAMES)
def test_every_public_name_is_there(name: str) -> None:
    value = getattr(personalign, name)
    assert isinstance(value, str) if name == "__version__" else value.__name__ == name


def test_other_names_are_not_there() -> None:
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        _ = personalign.trian


def test_importing_the_package_imports_neither_torch_nor_transformers() -> None:
    program = "import personalign, sys; print(sorted({'torch', 'transformers', 'numpy'} & set(sys.modules)))"
    assert run(sys.executable, "-c", program) == "[]\n"


@dataclass(frozen=True, slots=True)
class Environment:
    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @property
    def command(self) -> Path:
        return self.folder / "bin" / "personalign"

    @property
    def site_packages(self) -> Path:
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        return self.folder / "lib" / version / "site-packages"


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run without PYTHONPATH, which would let the checkout stand in for what is installed."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    result = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps", "-w", folder, ROOT)
    (built,) = folder.glob("personalign-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """An environment with the wheel, and with nothing else of its own: it borrows our dependencies.

    A `.pth` file adds a folder without reading the `.pth` files in it, so our editable install is not seen.
    """
    environment = Environment(tmp_path_factory.mktemp("environment"))
    venv.create(environment.folder, with_pip=False, symlinks=True)
    pip = [sys.executable, "-m", "pip", "--python", environment.python]
    run(*pip, "install", "-q", "--no-index", "--no-deps", wheel)
    (environment.site_packages / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


def test_the_wheel_carries_everything_that_is_read_at_run_time(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    package = ROOT / "src" / "personalign"
    sources = {
        path.relative_to(package.parent).as_posix()
        for path in package.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert sources <= names
    assert "personalign/py.typed" in names
    assert [name for name in names if name.startswith("personalign/recipes/") and name.endswith(".yaml")]
    assert [name for name in names if name.endswith(".dist-info/licenses/LICENSE")]
    outside = {name.split("/")[0] for name in names} - {
        "personalign",
        f"personalign-{personalign.__version__}.dist-info",
    }
    assert outside == set()


def test_the_command_runs_from_the_wheel(installed: Environment, tmp_path: Path) -> None:
    program = "import personalign; print(personalign.__file__)"
    assert Path(run(installed.python, "-c", program, cwd=tmp_path).strip()).is_relative_to(
        installed.site_packages
    )
    assert run(installed.command, "--version", cwd=tmp_path) == f"personalign {personalign.__version__}\n"
    assert "quickstart" in run(installed.command, "--help", cwd=tmp_path)


def test_the_help_needs_neither_torch_nor_transformers(installed: Environment, tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "sys.modules.update(dict.fromkeys(['torch', 'transformers', 'datasets', 'numpy']))\n"
        "sys.argv = ['personalign', '--help']\n"
        "from personalign.cli.main import main\n"
        "main()\n"
    )
    assert "quickstart" in run(installed.python, "-c", program, cwd=tmp_path)


@pytest.mark.slow
def test_the_wheel_installs_with_its_dependencies(wheel: Path, tmp_path: Path) -> None:
    """Needs a package index: everything is fetched anew, at the locked versions."""
    environment = Environment(tmp_path / "environment")
    venv.create(environment.folder, with_pip=True, symlinks=True)
    run(environment.python, "-m", "pip", "install", "-q", "-c", ROOT / "requirements.lock", wheel)
    run(environment.python, "-m", "pip", "check")
    assert "quickstart" in run(environment.command, "--help", cwd=tmp_path)
