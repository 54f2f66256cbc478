"""Options that several commands read."""

from pathlib import Path

from personalign._files import check_regular
from personalign.errors import PersonalignError


def pairs_of(values: list[str], *, option: str, example: str) -> dict[str, str]:
    """What NAME=VALUE, given several times, says. Raises PersonalignError for anything else."""
    pairs: dict[str, str] = {}
    for value in values:
        name, equals, given = value.partition("=")
        if not (name and equals and given):
            raise PersonalignError(f"{option} {value!r}: write NAME=VALUE, for example {option} {example}")
        if name in pairs:
            raise PersonalignError(f"{option} {value!r}: {name!r} was given before")
        pairs[name] = given
    return pairs


def keep_existing(*paths: Path, force: bool) -> None:
    """Refuse to write over what is there, before anything is read or computed."""
    folders = [str(path) for path in paths if path.is_dir()]
    if folders:
        raise PersonalignError(f"{', '.join(folders)}: a folder; name a file to write")
    for path in paths:
        check_regular(path)
    there = [str(path) for path in paths if path.exists()]
    if there and not force:
        raise PersonalignError(
            f"{', '.join(there)}: there already; write to another place, or add --force to overwrite"
        )


def column_map(values: list[str] | None) -> dict[str, str] | None:
    """Which column holds which field of a table; None where nothing is said of it."""
    return pairs_of(values, option="--column", example="FIELD=COLUMN") if values else None
