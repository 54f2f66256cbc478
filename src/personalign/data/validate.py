"""Every fault of a source in one pass."""

from collections.abc import Mapping
from pathlib import Path

from personalign.data.faults import Fault
from personalign.data.formats import Format, parse

__all__ = ["Fault", "validate"]


def validate(
    path_or_id: str | Path,
    *,
    format: Format | None = None,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
) -> list[Fault]:
    """All faults, in the order of their lines; empty when `read_dialogues` takes the source.

    Faults of syntax hide those below them only where nothing can be read on: damaged compression, a wrong
    encoding, a JSON array or csv that breaks off.
    """
    return list(parse(path_or_id, format=format, columns=columns, split=split).faults)
