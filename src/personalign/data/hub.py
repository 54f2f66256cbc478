"""Tables: Hugging Face `datasets` by hub id or local folder, and csv, tsv, parquet and JSON files.

A column map says which column holds which field: `{"persona": "personality", "messages": "utterances"}`.
Fields that it does not name are read from columns of the native names, other columns are left out. A key of
the map that is no native field puts its column into `extra`. Cells are taken as they come:

- persona, partner_persona: a list of sentences, or a text with one sentence per line;
- messages: a list of `{"role", "content"}` or of `{"from", "value"}`; a list of utterances that alternate,
  the partner's first; or a text with one utterance per line. Utterances that begin with a speaker's name and
  a colon are told apart by the map's `assistant_name`, which is a name, not a column;
- `history` (a list of utterances, the last one the partner's) with `response`: one row per reply, joined
  into dialogues as PAL's tuples are;
- a text cell that begins with `[` or `{` is read as JSON, for csv files.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from personalign.data import pal, sharegpt
from personalign.data.faults import Fault, Row, Rows, kind
from personalign.data.native import FIELDS
from personalign.data.text import decode_json, read_json_values, read_text
from personalign.errors import PersonalignError

_Problem = tuple[str, str, str]
_DELIMITERS = {".csv": ",", ".tsv": "\t"}
_NAMES = {"assistant_name"}
_PER_REPLY = ("history", "response")
_MAP_EXAMPLE = 'for example columns={"persona": "personality", "messages": "utterances"}'


def read_rows(source: str, *, columns: Mapping[str, str] | None = None, split: str | None = None) -> Rows:
    """The dialogues of a table as native rows. `split` names a part of a hub or saved data set.

    Raises PersonalignError when the table cannot be opened or lacks a column of the map.
    """
    records = _records(source, split)
    if not records.rows:
        return records
    present = dict.fromkeys(
        key for record in records.rows if isinstance(record.value, dict) for key in record.value
    )
    return _mapped(records, _complete(columns or {}, list(present), source), source)


def _records(source: str, split: str | None) -> Rows:
    path = Path(source)
    suffix = Path(source.removesuffix(".gz")).suffix
    if path.is_file() and suffix == ".parquet":
        return _numbered(_parquet(path), source)
    if path.is_file():
        text, faults = read_text(path)
        if faults:
            return Rows((), faults)
        delimiter = _DELIMITERS.get(suffix)
        return _csv(text, source, delimiter) if delimiter else read_json_values(text, file=source)
    return _numbered(_data_set(source, split), source)


def _numbered(values: Iterable[Any], source: str) -> Rows:
    try:
        return Rows(tuple(Row(number, value) for number, value in enumerate(values, start=1)))
    except Exception as error:  # rows are decoded lazily, by libraries that share no base class of errors
        raise PersonalignError(f"{source} cannot be read: {error}") from error


def _parquet(path: Path) -> list[Any]:
    import pyarrow.parquet  # type: ignore[import-untyped]

    try:
        return list(pyarrow.parquet.read_table(path).to_pylist())
    except Exception as error:  # as above
        raise PersonalignError(f"{path} is not a readable parquet file: {error}") from error


def _data_set(source: str, split: str | None) -> Iterable[Any]:
    import datasets

    folder = Path(source)
    saved = (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()
    try:
        opened = datasets.load_from_disk(source) if saved else datasets.load_dataset(source, split=split)
    except Exception as error:  # as above; the network adds its own errors
        raise PersonalignError(
            f"{source} is no file here, and `datasets` could not open it: {error}\n"
            "  write the path of a file or folder, or a hub id such as owner/name that this machine can reach"
        ) from error
    if not isinstance(opened, datasets.DatasetDict):
        return list(opened)
    if split is None and len(opened) == 1:
        return list(next(iter(opened.values())))
    if split not in opened:
        wanted = "no split was named" if split is None else f"it has no split {split!r}"
        raise PersonalignError(f"{source}: {wanted}; write one of {', '.join(opened)}")
    return list(opened[split])


def _csv(text: str, file: str, delimiter: str) -> Rows:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    start = 1
    try:
        header = list(reader.fieldnames or ())
        if len(set(header)) < len(header):
            return Rows((), (Fault(file, 1, "line", "two columns have one name", "rename one of them"),))
        start = reader.line_num + 1
        for cells in reader:
            if None in cells or None in cells.values():
                problem = f"has not the {len(header)} cells of the header"
                remedy = "quote cells that hold the delimiter or a line break"
                return Rows(tuple(rows), (Fault(file, start, "line", problem, remedy),))
            rows.append(Row(start, dict(cells)))
            start = reader.line_num + 1
    except csv.Error as error:
        fault = Fault(file, start, "line", f"no csv: {error}", "mend the quoting here")
        return Rows(tuple(rows), (fault,))
    return Rows(tuple(rows))


def _complete(columns: Mapping[str, str], present: list[str], source: str) -> dict[str, str]:
    absent = [name for field, name in columns.items() if field not in _NAMES and name not in present]
    if absent:
        raise PersonalignError(
            f"{source} has no column {', '.join(map(repr, absent))}; its columns are {', '.join(present)}"
        )
    complete = {field: field for field in FIELDS if field in present} | dict(columns)
    if "messages" not in complete and not all(field in complete for field in _PER_REPLY):
        raise PersonalignError(
            f"{source} has no column that is called 'messages'; its columns are {', '.join(present)}. "
            f"Write which column holds what, {_MAP_EXAMPLE}"
        )
    return complete


def _mapped(records: Rows, columns: Mapping[str, str], source: str) -> Rows:
    rows: list[Row] = []
    faults = list(records.faults)
    for record in records.rows:
        if isinstance(record.value, dict):
            row, problems = _native(record.value, columns)
        else:
            row, problems = {}, [("line", f"is {kind(record.value)}", "write an object with the columns")]
        faults += [Fault(source, record.line, *problem) for problem in problems]
        if not problems:
            rows.append(Row(record.line, row))
    joined = _joined(rows, source) if "response" in columns else Rows(tuple(rows))
    return Rows(joined.rows, (*faults, *joined.faults))


def _native(record: Mapping[str, Any], columns: Mapping[str, str]) -> tuple[dict[str, Any], list[_Problem]]:
    row: dict[str, Any] = {}
    problems: list[_Problem] = []
    for field, column in columns.items():
        if field in _NAMES:
            continue
        cell = record.get(column)
        if isinstance(cell, str) and cell.lstrip()[:1] in {"[", "{"} and field not in {"id", "person"}:
            decoded, problem = decode_json(cell)
            cell = cell if problem else decoded
        row[field] = cell
    for field in ("persona", "partner_persona", "history"):
        if isinstance(row.get(field), str):
            row[field] = _lines(row[field])
    for field in ("candidates", "relevant"):
        if row.get(field) == "":
            row[field] = None
    if "messages" in row:
        row["messages"], problems = _messages(row["messages"], columns.get("assistant_name"))
    return row, problems


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _messages(cell: Any, assistant_name: str | None) -> tuple[Any, list[_Problem]]:
    utterances = _lines(cell) if isinstance(cell, str) else cell
    if not isinstance(utterances, list):
        return utterances, []
    if utterances and all(isinstance(said, dict) and "from" in said for said in utterances):
        return sharegpt.messages_of(utterances)
    if not all(isinstance(said, str) for said in utterances):
        return utterances, []
    if assistant_name is None:
        roles = ("user", "assistant")
        return [{"role": roles[i % 2], "content": said} for i, said in enumerate(utterances)], []
    return _named(utterances, assistant_name)


def _named(utterances: list[str], assistant_name: str) -> tuple[list[dict[str, str]], list[_Problem]]:
    messages = []
    problems = []
    for index, said in enumerate(utterances):
        name, colon, content = said.partition(":")
        if not colon:
            remedy = "write the speaker's name and a colon, or leave `assistant_name` out of the map"
            problems.append((f"messages[{index}]", "does not begin with a speaker", remedy))
        role = "assistant" if name.strip() == assistant_name else "user"
        messages.append({"role": role, "content": content.strip()})
    return messages, problems


def _joined(rows: list[Row], source: str) -> Rows:
    faults: list[Fault] = []
    examples = []
    for row in rows:
        value = row.value
        labels = value.get("relevant")
        shape = [value.get("persona") or [], value.get("history") or [], value.get("response")]
        problems = list(pal.tuple_problems([*shape, [-1] if labels is None else labels or [-1]]))
        faults += [Fault(source, row.line, *problem) for problem in problems]
        if not problems:
            kept = None if labels is None else [index for index in labels if index >= 0]
            examples.append(pal.Example(row.line, shape[0], shape[1], str(shape[2]), kept))
    return Rows(tuple(pal.join_examples(examples)), tuple(faults))
