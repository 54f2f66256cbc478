"""The backbone that comes with the package, by name."""

import hashlib
from functools import cache
from importlib.resources import files
from pathlib import Path

MINI = "personalign-mini"


def shipped_model(source: str | Path) -> str | Path:
    """The folder of the backbone that comes along, for its name where no folder here has it; else `source`."""
    return _folder() if is_mini(source) else source


def is_mini(source: str | Path | None) -> bool:
    return str(source) == MINI and not Path(MINI).is_dir()


def moved_mini(folder: Path) -> Path | None:
    """The backbone that comes along, for its folder in another installation that is not there."""
    same = folder.parts[-2:] == _folder().parts[-2:]
    return _folder() if same and not folder.is_dir() else None


@cache
def mini_fingerprint() -> str:
    """Of its weights: what was trained from others is not what would be trained now."""
    return hashlib.sha256((_folder() / "model.safetensors").read_bytes()).hexdigest()


def _folder() -> Path:
    return Path(str(files("personalign") / "mini"))
