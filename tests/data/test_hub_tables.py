"""Tables with a column map: csv, parquet, JSON, a saved data set, and a hub id without a network."""

import csv
import json
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


def test_a_sharegpt_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    talk = [{"from": "human", "value": "any pets?"}, {"from": "gpt", "value": "only bees."}]
    path.write_text(json.dumps({"talk": talk}), encoding="utf-8")
    assert read_dialogues(path, columns={"messages": "talk"})[0].messages == TURNS


def test_missing_columns_name_those_there_are(tmp_path: Path) -> None:
    path = csv_file(tmp_path, {"a": "x", "b": "y"})
    with pytest.raises(PersonalignError, match=r"no column 'talk'; its columns are a, b"):
        read_dialogues(path, columns={"messages": "talk"})
    with pytest.raises(PersonalignError, match=r"called 'messages'.*columns="):
        read_dialogues(path)


@pytest.mark.parametrize(
    ("text", "line"),
    [('a,b\n"x,y', 2), ('messages\n"a\nb"\nhi,there\n', 4), ("messages,messages\na,b\n", 1)],
)
def test_broken_csv_is_one_fault(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "bad.csv"
    path.write_text(text, encoding="utf-8")
    (fault,) = parse(path, format="hub").faults
    assert fault.line == line


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


def test_a_hub_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def load(name: str, *, split: str | None) -> datasets.Dataset:
        raise ConnectionError(f"no route to {name}")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(PersonalignError, match="no route to owner/talk"):
        read_dialogues("owner/talk")
