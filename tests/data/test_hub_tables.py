"""Tables with a column map: csv, parquet, JSON, a saved data set, and a hub id without a network."""

import csv
import datetime
import json
import math
from pathlib import Path
from typing import Any

import pytest

from personalign.data.dialogue import Turn
from personalign.data.formats import parse, read_dialogues
from personalign.errors import PersonalignError

TURNS = (Turn("user", "any pets?"), Turn("assistant", "only bees."))
MAP = {"persona": "personality", "messages": "utterances", "topic": "subject"}
RECORD = {"personality": ["i keep bees."], "utterances": ["any pets?", "only bees."], "subject": "pets"}


def csv_file(folder: Path, *records: dict[str, Any], name: str = "talk.csv") -> Path:
    path = folder / name
    with path.open("w", encoding="utf-8-sig", newline="") as stream:
        writer = csv.DictWriter(stream, list(records[0]), delimiter="\t" if name.endswith("tsv") else ",")
        writer.writeheader()
        writer.writerows(records)
    return path


@pytest.mark.parametrize("name", ["talk.csv", "talk.tsv"])
def test_csv_cells_are_lines_or_json(tmp_path: Path, name: str) -> None:
    lines = {"personality": "i keep bees.\n", "utterances": "any pets?\nonly bees.\n", "subject": "NA"}
    encoded = {key: json.dumps(value) for key, value in RECORD.items()} | {"subject": "pets"}
    first, second = read_dialogues(csv_file(tmp_path, lines, encoded, name=name), columns=MAP)
    assert first.messages == second.messages == TURNS
    assert first.persona == second.persona == ("i keep bees.",)
    assert (first.extra["topic"], second.extra["topic"]) == ("NA", "pets")
    assert first.id != second.id


def test_speakers_by_name(tmp_path: Path) -> None:
    record = {"persona": "i keep bees.", "talk": "Bo: hello: you\nAl: any pets?\nBo: only bees."}
    columns = {"messages": "talk", "assistant_name": "Bo"}
    (dialogue,) = read_dialogues(csv_file(tmp_path, record), columns=columns)
    assert dialogue.messages == (Turn("assistant", "hello: you"), *TURNS)
    nameless = csv_file(tmp_path, {"persona": "", "talk": "hello"})
    (fault,) = parse(nameless, columns=columns).faults
    assert fault.field == "messages[0]"
    assert "assistant_name" in fault.remedy


def test_a_name_that_nobody_has_is_a_fault(tmp_path: Path) -> None:
    path = csv_file(tmp_path, {"talk": "Al: any pets?\nBo: only bees."}, {"talk": "Al: hi"})
    (fault,) = parse(path, columns={"messages": "talk", "assistant_name": "Bob"}).faults
    assert (fault.line, fault.field) == (0, "assistant_name")
    assert "'Bob'" in fault.problem
    assert "'Al', 'Bo'" in fault.remedy


@pytest.mark.parametrize("talk", ["Al: hi\nBo: bye,\nsee you at 5:30", "Al: hi\nCy: hi"])
def test_a_second_partner_is_a_fault(tmp_path: Path, talk: str) -> None:
    path = csv_file(tmp_path, {"talk": "Al: hi\nBo: yo"}, {"talk": talk})
    (fault,) = parse(path, columns={"messages": "talk", "assistant_name": "Bo"}).faults
    assert (fault.line, fault.field) == (4, "messages")
    assert "2 speakers beside 'Bo': 'Al', " in fault.problem


@pytest.mark.parametrize("columns", [{}, {"assistant_name": "Bo"}])
def test_a_blank_line_is_an_empty_turn(tmp_path: Path, columns: dict[str, str]) -> None:
    names = ("Al: ", "Bo: ") if columns else ("", "")
    path = csv_file(
        tmp_path, {"messages": f"{names[0]}any\u2028pets?\n\n{names[0]}well?\r\n{names[1]}bees\r\n"}
    )
    assert [fault.field for fault in parse(path, columns=columns).faults] == ["messages[1].content"]
    (dialogue,) = read_dialogues(path, columns=columns, drop_empty_turns=True)
    assert dialogue.messages == (
        Turn("user", "any\u2028pets?"), Turn("user", "well?"), Turn("assistant", "bees"),
    )  # fmt: skip


def test_a_blank_line_of_a_persona_is_a_fault(tmp_path: Path) -> None:
    path = csv_file(tmp_path, {"persona": "i bake.\n\ni am\u2028tall.", "messages": ""})
    assert [fault.field for fault in parse(path).faults] == ["persona[1]"]


def test_json_lines_with_a_map_leave_other_columns_out(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(RECORD | {"other": 1}) + "\n", encoding="utf-8")
    (dialogue,) = read_dialogues(path, columns=MAP)
    assert dialogue.messages == TURNS
    assert dict(dialogue.extra) == {"topic": "pets"}


def test_parquet_and_saved_data_sets(tmp_path: Path) -> None:
    import datasets

    table = datasets.Dataset.from_list([RECORD])
    table.to_parquet(str(tmp_path / "talk.parquet"))
    datasets.DatasetDict(train=table, test=table).save_to_disk(str(tmp_path / "saved"))
    native = {"id": "n", "messages": [{"role": turn.role, "content": turn.content} for turn in TURNS]}
    datasets.Dataset.from_list([native]).save_to_disk(str(tmp_path / "one"))
    for source, split in (("talk.parquet", None), ("saved", "test")):
        (dialogue,) = read_dialogues(tmp_path / source, columns=MAP, split=split)
        assert dialogue.messages == TURNS
        assert dialogue.persona == ("i keep bees.",)
    assert read_dialogues(tmp_path / "one")[0].messages == TURNS
    with pytest.raises(PersonalignError, match="write one of train, test"):
        read_dialogues(tmp_path / "saved", columns=MAP)
    with pytest.raises(PersonalignError, match="no split 'dev'"):
        read_dialogues(tmp_path / "saved", columns=MAP, split="dev")


def test_one_row_per_reply_is_joined(tmp_path: Path) -> None:
    rows = [
        {"p": ["i keep bees."], "h": ["any pets?"], "r": "only bees.", "l": [0]},
        {"p": ["i keep bees."], "h": ["any pets?", "only bees.", "oh"], "r": "yes", "l": []},
    ]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    columns = {"persona": "p", "history": "h", "response": "r"}
    (plain,) = read_dialogues(path, columns=columns)
    assert len(plain.messages) == 4
    assert plain.relevant is None
    (labelled,) = read_dialogues(path, columns=columns | {"relevant": "l"})
    assert labelled.relevant == ((0,), ())


REPLIES: list[dict[str, Any]] = [
    {"persona": ["i keep bees."], "history": ["any pets?"], "response": "only bees."},
    {"persona": ["i keep bees."], "history": ["any pets?", "only bees.", "oh"], "response": "yes"},
]


def replies_file(folder: Path, *changes: dict[str, Any]) -> Path:
    path = folder / "rows.jsonl"
    rows = [row | change for row, change in zip(REPLIES, changes, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_rows_of_replies_keep_what_else_they_say(tmp_path: Path) -> None:
    rest = {"user": "p1", "partner_persona": ["i sail."], "subject": {"name": "pets"}, "other": 1}
    columns = {"person": "user", "topic": "subject"}
    (dialogue,) = read_dialogues(replies_file(tmp_path, rest, rest), format="hub", columns=columns)
    assert len(dialogue.messages) == 4
    assert (dialogue.person, dialogue.partner_persona) == ("p1", ("i sail.",))
    assert dict(dialogue.extra) == {"topic": {"name": "pets"}}
    path = replies_file(tmp_path, rest, rest | {"user": "p2"})
    first, second = read_dialogues(path, format="hub", columns=columns)
    assert (first.person, second.person) == ("p1", "p2")
    assert second.extra["earlier_history"] == ["any pets?", "only bees."]


def test_rows_of_replies_keep_their_candidates(tmp_path: Path) -> None:
    path = replies_file(tmp_path, {"candidates": ["no.", "only bees."]}, {"candidates": None})
    (dialogue,) = read_dialogues(path, format="hub")
    assert dialogue.candidates == (("no.", "only bees."), ())
    (fault,) = parse(replies_file(tmp_path, {}, {"candidates": "yes"}), format="hub").faults
    assert (fault.line, fault.field) == (2, "candidates")


def test_rows_of_replies_have_the_id_of_their_dialogue_or_none(tmp_path: Path) -> None:
    same = replies_file(tmp_path, {"id": "a"}, {"id": "a"})
    assert read_dialogues(same, format="hub", columns={"id": "id"})[0].id == "a"
    path = replies_file(tmp_path, {"id": "a"}, {"id": "b"})
    (fault,) = parse(path, format="hub", columns={"id": "id"}).faults
    assert (fault.line, fault.field) == (2, "id")
    assert "'a' and 'b'" in fault.problem
    assert [dialogue.id for dialogue in read_dialogues(path, format="hub")] == ["rows:1"]


@pytest.mark.parametrize("labels", [0, False, "", "0", [1], [[0]]])
def test_relevant_of_a_reply_is_a_list_of_lines(tmp_path: Path, labels: Any) -> None:
    parsed = parse(replies_file(tmp_path, {"relevant": [0]}, {"relevant": labels}), format="hub")
    wrong = [] if labels == "" else [(2, "relevant")]
    assert [(fault.line, fault.field) for fault in parsed.faults] == wrong


def test_history_and_response_can_be_other_keys_beside_messages(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    row = {"messages": ["any pets?", "only bees."], "history": "long\n\nago", "response": "none"}
    path.write_text(json.dumps(row), encoding="utf-8")
    columns = {"messages": "messages", "history": "history", "response": "response"}
    (dialogue,) = read_dialogues(path, columns=columns)
    assert (dialogue.messages, dict(dialogue.extra)) == (
        TURNS, {"history": "long\n\nago", "response": "none"},
    )  # fmt: skip
    assert read_dialogues(path, format="hub")[0].messages == TURNS


@pytest.mark.parametrize(
    ("value", "word"), [(datetime.datetime(2024, 1, 2), "datetime"), (math.nan, "float"), ([b"x"], "bytes")]
)
def test_what_json_cannot_carry_is_a_fault(tmp_path: Path, value: Any, word: str) -> None:
    import pyarrow as pa
    import pyarrow.parquet

    said = [{"role": "user", "content": "hi", "sent": value}]
    rows = [{"messages": said, "when": None}, {"messages": [], "when": value}, {"messages": [], "when": None}]
    pyarrow.parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "talk.parquet")
    parsed = parse(tmp_path / "talk.parquet", columns={"when": "when"})
    assert [(fault.line, fault.field) for fault in parsed.faults] == [(1, "messages"), (2, "when")]
    assert all(word in fault.problem for fault in parsed.faults)
    assert [fault.line for fault in parse(tmp_path / "talk.parquet").faults] == [1]


def test_a_sharegpt_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    talk = [{"from": "human", "value": "any pets?"}, {"from": "gpt", "value": "only bees."}]
    path.write_text(json.dumps({"talk": talk}), encoding="utf-8")
    assert read_dialogues(path, columns={"messages": "talk"})[0].messages == TURNS


def test_missing_columns_name_those_there_are(tmp_path: Path) -> None:
    path = csv_file(tmp_path, {"a": "x", "b": "y"})
    with pytest.raises(PersonalignError, match=r"no column 'talk'; its columns are a, b"):
        read_dialogues(path, columns={"messages": "talk"})
    with pytest.raises(PersonalignError, match=r"called 'messages'.*'history' and 'response'.*columns="):
        read_dialogues(path)
    with pytest.raises(PersonalignError, match=r"called 'messages'"):
        read_dialogues(csv_file(tmp_path, {"response": "x"}))


def test_columns_called_history_and_response_need_no_map(tmp_path: Path) -> None:
    (dialogue,) = read_dialogues(csv_file(tmp_path, {"history": "any pets?", "response": "only bees."}))
    assert dialogue.messages == TURNS


@pytest.mark.parametrize(
    ("text", "line"),
    [('a,b\n"x,y', 2), ('messages\n"a\nb"\nhi,there\n', 4), ("messages,messages\na,b\n", 1)],
)
def test_broken_csv_is_one_fault(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    (fault,) = parse(path, format="hub").faults
    assert fault.line == line


def test_every_row_with_too_many_cells_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bad.csv"
    path.write_text("messages,persona\nhi\nhi,i bake.\nhi,there,you\n", encoding="utf-8")
    parsed = parse(path)
    assert [fault.line for fault in parsed.faults] == [2, 4]
    assert [dialogue.persona for dialogue in parsed.dialogues] == [("i bake.",)]


def test_broken_parquet_and_folders_without_data(tmp_path: Path) -> None:
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(PersonalignError, match="parquet"):
        read_dialogues(tmp_path / "bad.parquet")
    (tmp_path / "folder").mkdir()
    with pytest.raises(PersonalignError, match="could not open"):
        read_dialogues(tmp_path / "folder")


def test_a_hub_id_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, *, split: str | None) -> datasets.Dataset:
        asked.append((name, split))
        return datasets.Dataset.from_list([RECORD])

    monkeypatch.setattr(datasets, "load_dataset", load)
    assert read_dialogues("owner/talk", columns=MAP, split="train")[0].messages == TURNS
    assert asked == [("owner/talk", "train")]


def test_a_hub_id_may_end_like_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    rows = datasets.Dataset.from_list([{"messages": ["any pets?", "only bees."]}])
    monkeypatch.setattr(datasets, "load_dataset", lambda name, *, split: rows)
    assert read_dialogues("owner/chats-v1.5")[0].messages == TURNS
    with pytest.raises(PersonalignError, match="does not exist"):
        read_dialogues("owner/chats.jsonl")


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(name: str, *, split: str | None) -> datasets.Dataset:
        raise ConnectionError(f"no route to {name}")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(PersonalignError, match="no route to owner/talk"):
        read_dialogues("owner/talk")


def test_cells_longer_than_csv_reads_by_itself(tmp_path: Path) -> None:
    long = "bees " * 40_000
    (dialogue,) = read_dialogues(csv_file(tmp_path, {"persona": "a", "messages": f"hi\n{long}"}))
    assert dialogue.messages[1] == Turn("assistant", long.strip())


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_the_header_says_what_parts_the_cells(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "talk.csv"
    header = delimiter.join(["persona", "messages", "topic"])
    path.write_text(
        f"{header}\n" + delimiter.join(['"i bake, a lot; really."', '"hi\nyo"', "x"]), encoding="utf-8"
    )
    (dialogue,) = read_dialogues(path)
    assert (dialogue.persona, dialogue.messages[1].content) == (("i bake, a lot; really.",), "yo")


def test_a_tsv_is_parted_by_tabs_alone(tmp_path: Path) -> None:
    path = tmp_path / "talk.tsv"
    path.write_text("a;b;messages\tpersona\nhi\ti bake.\n", encoding="utf-8")
    (dialogue,) = read_dialogues(path, columns={"messages": "a;b;messages"})
    assert (dialogue.persona, dialogue.messages) == (("i bake.",), (Turn("user", "hi"),))


@pytest.mark.parametrize("name", ["talk.CSV", "Talk.Csv", "TALK.TSV"])
def test_a_table_is_known_by_its_ending_in_capitals_too(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("messages\nhi\n", encoding="utf-8")
    (dialogue,) = read_dialogues(path)
    assert (dialogue.id, dialogue.messages) == (f"{path.stem}:2", (Turn("user", "hi"),))


@pytest.mark.parametrize("response", ["[]", "{}", "[1, 2]", '{"a": 1}', "[laughs] yes"])
def test_a_response_is_a_text_whatever_it_begins_with(tmp_path: Path, response: str) -> None:
    row = {"persona": "a", "history": '["any pets?"]', "response": response}
    (dialogue,) = read_dialogues(csv_file(tmp_path, row))
    assert dialogue.messages == (Turn("user", "any pets?"), Turn("assistant", response))


def test_blank_turns_of_rows_of_replies_are_taken_out_when_asked(tmp_path: Path) -> None:
    path = replies_file(tmp_path, {"response": ""}, {"history": ["any pets?", "", "oh"]})
    assert [fault.field for fault in parse(path, format="hub").faults] == ["response", "history"]
    (dialogue,) = read_dialogues(path, format="hub", drop_empty_turns=True)
    assert [turn.content for turn in dialogue.messages] == ["any pets?", "oh", "yes"]
