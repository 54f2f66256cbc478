"""Tables: Hugging Face `datasets` by hub id or local folder, and csv, tsv, parquet and JSON files.

A column map says which column holds which field: `{"persona": "personality", "messages": "utterances"}`.
Fields that it does not name are read from columns of the native names, other columns are left out. A key of
the map that is no native field puts its column into `extra`. Cells are taken as they come:

- persona, partner_persona: a list of sentences, or a text with one sentence per line;
- messages: a list of `{"role", "content"}` or of `{"from", "value"}`; a list of utterances that alternate,
  the partner's first; or a text with one utterance per line. Utterances that begin with a speaker's name and
  a colon are told apart by the map's `assistant_name`, which is a name, not a column;
- `history` (a list of utterances, the last one the partner's) with `response`, where there are no messages:
  one row per reply, with `relevant` and `candidates` of that reply. Consecutive rows are joined into
  dialogues as PAL's tuples are, where all else that they say is equal. `id` is read only if the map names it:
  a row's id is seldom that of a dialogue;
- a text cell that begins with `[` or `{` is read as JSON, for csv files, but for those of `id`, `person` and
  `response`, which are texts.
"""

import csv
import io
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from personalign.data import pal, sharegpt
from personalign.data.faults import Fault, Row, Rows, excerpt, kind
from personalign.data.native import FIELDS, suffix_of
from personalign.data.text import LONGEST_CELL, decode_json, read_json_values, read_text
from personalign.errors import PersonalignError

_Problem = tuple[str, str, str]
# What may part the cells of a table; of several, what its header has most of.
_DELIMITERS = {".csv": ",;\t", ".tsv": "\t"}
_NAMES = {"assistant_name"}
_PER_REPLY = ("history", "response")
# Texts that a bracket may begin, and never lists.
_TEXTS = {"id", "person", "response"}
_OF_ONE_REPLY = {"id", "persona", *_PER_REPLY, "relevant", "candidates"}
_MAP_EXAMPLE = (
    'for example columns={"messages": "utterances"}, or columns={"history": "context", "response": "reply"}'
)
_SHOWN_NAMES = 10
_SPACES = " \t\r"


def read_rows(
    source: str,
    *,
    columns: Mapping[str, str] | None = None,
    split: str | None = None,
    blank_turns: bool = False,
) -> Rows:
    """The dialogues of a table as native rows. `split` names a part of a hub or saved data set.

    `blank_turns`: let those of rows of one reply through, for whoever takes them out; else each is a fault.

    Raises PersonalignError when the table cannot be opened or lacks a column of the map.
    """
    records = _records(source, split)
    if not records.rows:
        return records
    present = dict.fromkeys(
        key for record in records.rows if isinstance(record.value, dict) for key in record.value
    )
    complete = _complete(columns or {}, list(present), source)
    return _mapped(records, complete, source, blank_turns=blank_turns)


def _records(source: str, split: str | None) -> Rows:
    path = Path(source)
    suffix = suffix_of(source)
    if path.is_file() and suffix == ".parquet":
        return _numbered(_parquet(path), source)
    if path.is_file():
        text, faults = read_text(path)
        if faults:
            return Rows((), faults)
        delimiters = _DELIMITERS.get(suffix)
        return _csv(text, source, delimiters) if delimiters else read_json_values(text, file=source)
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


def _csv(text: str, file: str, delimiters: str) -> Rows:
    csv.field_size_limit(LONGEST_CELL)
    delimiter = max(delimiters, key=text.partition("\n")[0].count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[Row] = []
    faults: list[Fault] = []
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
                faults.append(Fault(file, start, "line", problem, remedy))
            else:
                rows.append(Row(start, dict(cells)))
            start = reader.line_num + 1
    except csv.Error as error:
        faults.append(Fault(file, start, "line", f"no csv: {error}", "mend the quoting here"))
    return Rows(tuple(rows), tuple(faults))


def _complete(columns: Mapping[str, str], present: list[str], source: str) -> dict[str, str]:
    absent = [name for field, name in columns.items() if field not in _NAMES and name not in present]
    if absent:
        raise PersonalignError(
            f"{source} has no column {', '.join(map(repr, absent))}; its columns are {', '.join(present)}"
        )
    complete = {field: field for field in FIELDS if field in present} | dict(columns)
    if "messages" not in complete:
        complete = {field: field for field in _PER_REPLY if field in present} | complete
    if "messages" not in columns and all(field in complete for field in _PER_REPLY):
        unread = {"messages", "id"} - columns.keys()
        return {field: column for field, column in complete.items() if field not in unread}
    if "messages" not in complete:
        raise PersonalignError(
            f"{source} has no column that is called 'messages', nor two that are called 'history' and "
            f"'response'; its columns are {', '.join(present)}. Write which column holds what, {_MAP_EXAMPLE}"
        )
    return complete


def _mapped(records: Rows, columns: Mapping[str, str], source: str, *, blank_turns: bool) -> Rows:
    rows: list[Row] = []
    faults = list(records.faults)
    for record in records.rows:
        if isinstance(record.value, dict):
            row = _cells(record.value, columns)
            problems = list(_uncarried(row))
        else:
            row, problems = {}, [("line", f"is {kind(record.value)}", "write an object with the columns")]
        faults += [Fault(source, record.line, *problem) for problem in problems]
        if not problems:
            rows.append(Row(record.line, row))
    is_whole = "messages" in columns
    if is_whole:
        native = _spoken(rows, source, columns.get("assistant_name"))
    else:
        native = _joined(rows, source, blank_turns=blank_turns)
    return Rows(native.rows, (*faults, *native.faults))


def _cells(record: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    """The cells of `record` under the keys of the map: texts taken apart, nothing checked."""
    row: dict[str, Any] = {}
    for field, column in columns.items():
        if field in _NAMES:
            continue
        cell = record.get(column)
        if isinstance(cell, str) and cell.lstrip()[:1] in {"[", "{"} and field not in _TEXTS:
            decoded, problem = decode_json(cell)
            cell = cell if problem else decoded
        row[field] = cell
    by_line = ("messages",) if "messages" in row else ("history",)
    for field in ("persona", "partner_persona", *by_line):
        if isinstance(row.get(field), str):
            row[field] = _lines(row[field])
    for field in ("candidates", "relevant"):
        if row.get(field) == "":
            row[field] = None
    return row


def _lines(text: str) -> list[str]:
    """A blank line stays: it would be missed where roles alternate or labels count lines."""
    return [line.strip(_SPACES) for line in text.removesuffix("\n").split("\n")] if text.strip() else []


def _uncarried(row: Mapping[str, Any]) -> Iterator[_Problem]:
    for field, cell in row.items():
        try:
            json.dumps(cell, allow_nan=False)
        except (TypeError, ValueError, RecursionError) as error:
            remedy = "write text or a finite number, or leave the column out of the map"
            yield field, f"JSON cannot carry it: {error}", remedy


def _spoken(rows: list[Row], source: str, assistant_name: str | None) -> Rows:
    """Rows whose `messages` have roles."""
    if assistant_name is not None:
        names = Counter(name for row in rows for name in _speakers(row.value["messages"]))
        if names and assistant_name not in names:
            shown = ", ".join(excerpt(name) for name, _ in names.most_common(_SHOWN_NAMES))
            problem = f"no utterance begins with {assistant_name!r} and a colon"
            remedy = f"write one of the names that utterances begin with: {shown}"
            return Rows((), (Fault(source, 0, "assistant_name", problem, remedy),))
    spoken: list[Row] = []
    faults: list[Fault] = []
    for row in rows:
        messages, problems = _messages(row.value["messages"], assistant_name)
        faults += [Fault(source, row.line, *problem) for problem in problems]
        if not problems:
            spoken.append(Row(row.line, {**row.value, "messages": messages}))
    return Rows(tuple(spoken), tuple(faults))


def _messages(utterances: Any, assistant_name: str | None) -> tuple[Any, list[_Problem]]:
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


def _speakers(utterances: Any) -> list[str]:
    """The names before the first colon of each utterance, where the utterances are texts."""
    if not isinstance(utterances, list) or not all(isinstance(said, str) for said in utterances):
        return []
    names = [said.partition(":")[0].strip() for said in utterances if ":" in said]
    return [name for name in names if name]


def _named(utterances: list[str], assistant_name: str) -> tuple[list[dict[str, str]], list[_Problem]]:
    messages = []
    problems = []
    partners = [name for name in dict.fromkeys(_speakers(utterances)) if name != assistant_name]
    if len(partners) > 1:
        shown = ", ".join(excerpt(name) for name in partners[:_SHOWN_NAMES])
        problem = f"has {len(partners)} speakers beside {assistant_name!r}: {shown}"
        remedy = "begin every line with the name of one of the two speakers, and a colon"
        problems.append(("messages", problem, remedy))
    for index, said in enumerate(utterances):
        name, colon, content = said.partition(":")
        if said.strip() and not (colon and name.strip()):
            remedy = "write the speaker's name and a colon, or leave `assistant_name` out of the map"
            problems.append((f"messages[{index}]", "does not begin with a speaker", remedy))
        role = "assistant" if name.strip() == assistant_name else "user"
        messages.append({"role": role, "content": content.strip(_SPACES)})
    return messages, problems


def _joined(rows: list[Row], source: str, *, blank_turns: bool) -> Rows:
    """The dialogues that rows of one reply make up."""
    faults: list[Fault] = []
    examples = []
    for row in rows:
        problems = list(_reply_problems(row.value, blank_turns=blank_turns))
        faults += [Fault(source, row.line, *problem) for problem in problems]
        if not problems:
            examples.append(_example(row))
    joined = []
    for group in pal.by_dialogue(examples):
        other = next((example for example in group if example.id != group[0].id), None)
        if other is None:
            joined.append(pal.row_of(group))
        else:
            problem = f"the rows of one dialogue have the ids {group[0].id!r} and {other.id!r}"
            remedy = "map the column that names the dialogue, or leave `id` out of the map"
            faults.append(Fault(source, other.line, "id", problem, remedy))
    return Rows(tuple(joined), tuple(faults))


def _reply_problems(value: Mapping[str, Any], *, blank_turns: bool) -> Iterator[_Problem]:
    persona, history = ([] if value.get(name) is None else value[name] for name in ("persona", "history"))
    labels = value.get("relevant")
    shape = [persona, history, value["response"], [-1] if labels is None or labels == [] else labels]
    for field, problem, remedy in pal.tuple_problems(shape, blank_turns=blank_turns):
        yield "relevant" if field == "labels" else field, problem, remedy
    candidates = value.get("candidates")
    if candidates is not None and not isinstance(candidates, list):
        yield "candidates", f"is {kind(candidates)}", "write a list of replies, [] for none"


def _example(row: Row) -> pal.Example:
    value = row.value
    labels = value.get("relevant")
    return pal.Example(
        row.line,
        value.get("persona") or [],
        value["history"] or [],
        value["response"],
        None if labels is None else [index for index in labels if index >= 0],
        candidates=value.get("candidates"),
        id=value.get("id"),
        rest={key: cell for key, cell in value.items() if key not in _OF_ONE_REPLY},
    )
