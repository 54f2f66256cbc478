"""Any source -> dialogues, and dialogues -> files. A source with a fault is refused whole."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from personalign._files import write_json, write_jsonl, write_text
from personalign.data import characters, hub, native, pal, parlai, preferences, sharegpt
from personalign.data.dialogue import Dialogue
from personalign.data.faults import Fault, Row, Rows, error_of
from personalign.data.text import read_text
from personalign.data.turns import drop_empty_turns as without_empty_turns
from personalign.data.turns import merge_turns as merged
from personalign.errors import PersonalignError

Format = Literal["native", "parlai", "pal", "sharegpt", "hub", "transcripts", "cornell", "light"]
WriteFormat = Literal["native", "trl", "parlai", "pal"]

_TABLES = (".csv", ".tsv", ".parquet")
_PICKLE = ".pkl"
_EXPORTED_CHAT = re.compile(r"[\ufeff\u200e\u200f\s\[]*\d{1,4}[./-]\d{1,2}[./-]\d{1,4}[ ,]")
_PARLAI_LINE = re.compile(r"\s*[0-9]+ ")
_LIST_IN_LIST = re.compile(r"\s*\[\s*\[")
_CONVERSATIONS = re.compile(r'"conversations"\s*:\s*\[')
_MESSAGES = re.compile(r'"messages"\s*:')
_TRANSCRIPT = re.compile(r'"turns"\s*:\s*\[\s*(\{\s*"speaker"|\])')
_LIGHT = re.compile(r'"agents"\s*:\s*\[')
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True, slots=True)
class Parsed:
    """Everything that could be read, and everything that is wrong. `lines` goes with `dialogues`."""

    dialogues: tuple[Dialogue, ...]
    lines: tuple[int, ...]
    faults: tuple[Fault, ...]


def read_dialogues(
    path_or_id: str | Path,
    *,
    format: Format | None = None,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    merge_turns: bool = False,
    drop_empty_turns: bool = False,
) -> list[Dialogue]:
    """The dialogues of a file, a local `datasets` folder or a hub id.

    - `format`: recognised where it is None. `columns`, `split`: for tables, see `personalign.data.hub`.
    - `merge_turns`: join turns in a row by one speaker; `drop_empty_turns`: take blank ones out.

    Raises PersonalignError that names file, line and field of the first faults and their count; nothing of
    a source with a fault is returned.
    """
    parsed = parse(
        path_or_id,
        format=format,
        columns=columns,
        split=split,
        merge_turns=merge_turns,
        drop_empty_turns=drop_empty_turns,
    )
    if parsed.faults:
        raise error_of(
            parsed.faults, command=_listing(path_or_id, format=format, columns=columns, split=split)
        )
    return list(parsed.dialogues)


def _listing(
    source: str | Path, *, format: Format | None, columns: Mapping[str, str] | None, split: str | None
) -> list[str]:
    """The command that lists all faults of a source that was read with these options."""
    words = ["personalign", "data", "validate", str(source)]
    words += [] if format is None else ["--format", format]
    words += [word for field, column in (columns or {}).items() for word in ("--column", f"{field}={column}")]
    return words + ([] if split is None else ["--split", split])


def parse(
    path_or_id: str | Path,
    *,
    format: Format | None = None,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    merge_turns: bool = False,
    drop_empty_turns: bool = False,
) -> Parsed:
    """As `read_dialogues`, but the faults are returned beside what could be read."""
    source = str(path_or_id)
    rows = _read_rows(source, format=format, columns=columns, split=split, blank_turns=drop_empty_turns)
    faults = list(rows.faults)
    read: list[tuple[int, Dialogue]] = []
    ids: list[tuple[int, str]] = []
    on_line: Counter[int] = Counter()
    for row in rows.rows:
        on_line[row.line] += 1
        value = without_empty_turns(row.value) if drop_empty_turns else row.value
        dialogue, problems = native.parse_row(value, file=source, line=row.line, place=on_line[row.line])
        faults.extend(problems)
        if dialogue is not None:
            read.append((row.line, merged(dialogue) if merge_turns else dialogue))
            ids.append((row.line, dialogue.id))
        elif isinstance(value, dict) and isinstance(value.get("id"), str | int):
            # Whatever else is wrong there: every fault is found in one pass.
            ids.append((row.line, str(value["id"])))
    faults.extend(_repeated_ids(ids, source))
    if not rows.rows and not faults:
        faults.append(Fault(source, 0, "file", "holds no dialogue", "name a file with at least one"))
    return Parsed(
        dialogues=tuple(dialogue for _, dialogue in read),
        lines=tuple(line for line, _ in read),
        faults=tuple(sorted(faults)),
    )


def recognise(text: str) -> Format:
    """The format that the first characters of `text` have."""
    if _PARLAI_LINE.match(text):
        return "parlai"
    if _LIST_IN_LIST.match(text):
        return "pal"
    conversations = _CONVERSATIONS.search(text)
    messages = _MESSAGES.search(text)
    if conversations and (messages is None or conversations.start() < messages.start()):
        return "sharegpt"
    if messages is None and _TRANSCRIPT.search(text):
        return "transcripts"
    if messages is None and _LIGHT.search(text) and '"speech"' in text:
        return "light"
    return "native"


def is_table(path: str | Path) -> bool:
    """Whether a file of that name is read as a table."""
    return native.suffix_of(path) in _TABLES


def check_writable(path: str | Path) -> None:
    """PersonalignError for a name under which what is written could not be read again."""
    suffix = native.suffix_of(path)
    if suffix in (*_TABLES, _PICKLE):
        raise PersonalignError(
            f"{path}: what is written is no {suffix} file, and could not be read again under that name; "
            "end it in .jsonl, PAL's JSON in .json, ParlAI's text in .txt"
        )


def _read_rows(
    source: str,
    *,
    format: Format | None,
    columns: Mapping[str, str] | None,
    split: str | None,
    blank_turns: bool,
) -> Rows:
    if format is not None and format not in get_args(Format):
        raise PersonalignError(f"unknown format {format!r}; write one of {', '.join(get_args(Format))}")
    path = Path(source)
    if path.exists() and not (columns or split):
        if format == "cornell" or (format is None and characters.is_cornell(path)):
            return characters.read_cornell(path)
        if format == "light" or (format is None and path.suffix.lower() == _PICKLE):
            return characters.read_light(path)
    tabular = path.is_dir() or is_table(path) or columns or split
    if format == "hub" or (format is None and tabular and path.exists()):
        return hub.read_rows(source, columns=columns, split=split, blank_turns=blank_turns)
    if columns or split:
        if format is None and _HUB_ID.fullmatch(source):
            return hub.read_rows(source, columns=columns, split=split, blank_turns=blank_turns)
        raise PersonalignError(
            f"{source}: a column map and a split belong to tables; write format hub, or leave them out"
        )
    if not path.exists():
        if (
            format is None
            and source.count("/") == 1
            and _HUB_ID.fullmatch(source)
            and path.suffix.lower() not in native.SUFFIXES
        ):
            return hub.read_rows(source, blank_turns=blank_turns)
        raise PersonalignError(f"{source} does not exist; write the path of a file, or a hub id (owner/name)")
    if path.is_dir():
        raise PersonalignError(f"{source} is a folder, which format {format} cannot read; name a file in it")
    text, faults = read_text(path)
    if faults:
        return Rows((), faults)
    if format is None and _EXPORTED_CHAT.match(text):
        remedy = "`personalign data import` makes dialogues of an exported chat, which this looks like"
        return Rows((), (Fault(source, 1, "line", "begins with a date, as no dialogue file does", remedy),))
    format = format or recognise(text)
    if format == "light":
        return characters.read_light(path)
    return _text_rows(text, file=source, format=format, blank_turns=blank_turns)


def _text_rows(text: str, *, file: str, format: Format, blank_turns: bool) -> Rows:
    match format:
        case "parlai":
            return parlai.read_rows(text, file=file, blank_turns=blank_turns)
        case "pal":
            return pal.read_rows(text, file=file, blank_turns=blank_turns)
        case "sharegpt":
            return sharegpt.read_rows(text, file=file)
        case "transcripts":
            return characters.read_transcripts(text, file=file)
        case _:
            return native.read_rows(text, file=file)


def _repeated_ids(ids: Sequence[tuple[int, str]], source: str) -> list[Fault]:
    first: dict[str, int] = {}
    faults = []
    for line, name in ids:
        if name in first:
            problem = f"{name!r} is the id of line {first[name]} as well"
            faults.append(Fault(source, line, "id", problem, "give every dialogue an id of its own"))
        first.setdefault(name, line)
    return faults


def write_dialogues(
    path: str | Path,
    dialogues: Sequence[Dialogue],
    *,
    format: WriteFormat = "native",
    rejected: Mapping[tuple[str, int], str] | None = None,
) -> int:
    """Write `path` whole or not at all; return how many records it holds (ParlAI: lines).

    `native` carries everything. `trl` writes preference rows, see `preferences.preference_rows`; `rejected`
    belongs to it. `parlai` and `pal` carry what those formats can, and raise PersonalignError for text that
    they would change and where nothing is left to write; `pal.left_out` counts what PAL's has no place for.
    Compressed when the name ends in `.gz`, PAL's JSON and ParlAI's text apart.
    """
    check_writable(path)
    match format:
        case "native":
            return write_jsonl(path, _checked_rows(dialogues))
        case "trl":
            return write_jsonl(path, preferences.preference_rows(dialogues, rejected=rejected))
        case "parlai":
            lines = list(parlai.lines_from(dialogues))
            write_text(path, "".join(f"{line}\n" for line in lines))
            return len(lines)
        case "pal":
            tuples = list(pal.tuples_from(dialogues))
            if not tuples:
                raise PersonalignError(
                    f"{path} is not written: PAL's format holds one tuple per reply, and no dialogue has one; "
                    "give dialogues with assistant turns"
                )
            write_json(path, tuples)
            return len(tuples)
    raise PersonalignError(f"unknown format {format!r}; write one of {', '.join(get_args(WriteFormat))}")


def _checked_rows(dialogues: Sequence[Dialogue]) -> list[dict[str, object]]:
    rows = [
        Row(number, native.dialogue_to_row(dialogue)) for number, dialogue in enumerate(dialogues, start=1)
    ]
    faults = [
        fault for row in rows for fault in native.parse_row(row.value, file="the dialogues", line=row.line)[1]
    ]
    faults += _repeated_ids([(number, d.id) for number, d in enumerate(dialogues, start=1)], "the dialogues")
    if faults:
        raise PersonalignError(f"not written: {len(faults)} faults, the first: {faults[0]}")
    return [row.value for row in rows]
