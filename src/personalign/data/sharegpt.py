"""ShareGPT's JSON: `{"conversations": [{"from": "human" | "gpt" | "system", "value": ...}]}`."""

from collections.abc import Mapping
from typing import Any

from personalign.data.faults import Fault, Row, Rows, excerpt, kind
from personalign.data.text import lines_of, read_json_values

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"}


def read_rows(text: str, *, file: str) -> Rows:
    """The conversations of a JSON array or of JSON Lines as native rows.

    The lines of a leading system message (or of the key `system`) become the persona, unless the record has
    a `persona` of its own. Other keys of the record and of its messages are kept.
    """
    values = read_json_values(text, file=file)
    rows: list[Row] = []
    faults = list(values.faults)
    for record in values.rows:
        row, problems = _row_of(record.value)
        faults += [Fault(file, record.line, *problem) for problem in problems]
        if not problems:
            rows.append(Row(record.line, row))
    return Rows(tuple(rows), tuple(faults))


def messages_of(conversation: list[Any]) -> tuple[list[dict[str, Any]], list[tuple[str, str, str]]]:
    """Native messages of `{"from", "value"}` objects, and the problems in them."""
    messages = []
    problems = []
    for index, said in enumerate(conversation):
        field = f"conversations[{index}]"
        if not isinstance(said, dict):
            problems.append((field, f"is {kind(said)}", 'write {"from": "human" or "gpt", "value": "..."}'))
            continue
        speaker = said.get("from")
        role = ROLES.get(speaker) if isinstance(speaker, str) else None
        if role is None:
            shown = excerpt(speaker) if isinstance(speaker, str) else kind(speaker)
            remedy = "write 'human' (the partner) or 'gpt'; 'system' only as the first message"
            problems.append((f"{field}.from", f"is {shown}", remedy))
        others = {key: value for key, value in said.items() if key not in {"from", "value"}}
        messages.append({**others, "role": role, "content": said.get("value")})
    return messages, problems


def _row_of(record: Any) -> tuple[dict[str, Any], list[tuple[str, str, str]]]:
    conversation = record.get("conversations") if isinstance(record, dict) else None
    if not isinstance(record, dict) or not isinstance(conversation, list):
        return {}, [("conversations", "is no list", 'write [{"from": "human", "value": "..."}, ...]')]
    system, spoken = _split_system(conversation)
    messages, problems = messages_of(spoken)
    row: dict[str, Any] = {key: value for key, value in record.items() if key != "conversations"}
    given = row.pop("system", None) if system is None else system
    if given is not None and not isinstance(given, str):
        problems.append(("system", f"is {kind(given)}", "write a string"))
    elif row.get("persona") is None:
        row["persona"] = [line.strip() for _, line in lines_of(given or "")]
    return {**row, "messages": messages}, problems


def _split_system(conversation: list[Any]) -> tuple[Any, list[Any]]:
    first = conversation[0] if conversation else None
    if isinstance(first, Mapping) and first.get("from") == "system":
        return first.get("value"), conversation[1:]
    return None, conversation
