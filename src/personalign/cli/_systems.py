"""What `evaluate` and `report` read from their command lines."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from personalign.errors import PersonalignError
from personalign.evaluation.tokens import Language

if TYPE_CHECKING:
    from personalign.evaluation.coherence import CoherenceJudge
    from personalign.evaluation.judge import Judge


def named_files(given: Sequence[str]) -> dict[str, list[Path]]:
    """Name and files of each `[NAME=]FILE[,FILE ...]`; without a name a system is called after its first file.

    Raises PersonalignError for a name that is there twice, and for what is no file.
    """
    named: dict[str, list[Path]] = {}
    for text in given:
        name, equals, files = text.partition("=")
        if not equals or Path(text).exists():
            name, files = "", text
        paths = [Path(files)] if Path(files).exists() else [Path(file) for file in files.split(",") if file]
        for path in paths:
            if not path.is_file():
                raise PersonalignError(f"{path} is no file; give predictions as [NAME=]FILE[,FILE ...]")
        if not paths:
            raise PersonalignError(f"'{text}' names no file; give predictions as [NAME=]FILE[,FILE ...]")
        name = name or _stem(paths[0])
        if name in named:
            raise PersonalignError(f"two systems are called '{name}'; write NAME=FILE to tell them apart")
        named[name] = paths
    return named


def opened_judge(name: str | None, *, language: Language) -> "Judge | None":
    """The judge behind its cache."""
    if name is None:
        return None
    from personalign.cli._output import quieten
    from personalign.methods.judges import open_judge, with_cache

    quieten()
    return with_cache(open_judge(name, language="en" if language == "en" else "zh", dtype="auto"))


def opened_coherence_judge(name: str | None) -> "CoherenceJudge | None":
    if name is None:
        return None
    from personalign.cli._output import quieten
    from personalign.evaluation.coherence import load_coherence_judge

    quieten()
    return load_coherence_judge(name)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rpartition(".")[0] or path.name
