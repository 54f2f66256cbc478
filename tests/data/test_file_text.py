"""Encodings, line ends, compression and JSON that programs disagree about."""

import gzip
from pathlib import Path

import pytest

from personalign.data.formats import parse, read_dialogues
from personalign.data.text import read_json_values
from personalign.errors import PersonalignError

LINE = '{"id": "%s", "messages": [{"role": "user", "content": "grüße 你好 🐝"}]}'
TEXT = f"{LINE % 'a'}\n{LINE % 'b'}\n"


@pytest.mark.parametrize(
    "data",
    [
        TEXT.encode(),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        b"\xfe\xff" + TEXT.encode("utf-16-be"),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.rstrip("\n").encode(),
        gzip.compress(TEXT.encode()),
        gzip.compress(TEXT.encode("utf-8-sig")),
    ],
    ids=["utf-8", "bom", "utf-16-le", "utf-16-be", "crlf", "no-last-newline", "gzip", "gzip-bom"],
)
def test_accepted_bytes(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(data)
    dialogues = read_dialogues(path)
    assert [dialogue.id for dialogue in dialogues] == ["a", "b"]
    assert dialogues[1].messages[0].content == "grüße 你好 🐝"


def test_other_encodings_name_byte_offset_line_and_remedy(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    first = (LINE % "a").encode() + b"\n"
    bad = b'{"messages": [{"role": "user", "content": "gr\xfc\xdfe"}]}\n'
    path.write_bytes(first + bad + first + bad)
    faults = parse(path).faults
    assert [fault.line for fault in faults] == [2, 4]
    assert f"byte offset {len(first) + bad.index(0xFC)}" in faults[0].problem
    assert "0xfc" in faults[0].problem
    assert "iconv" in faults[0].remedy
    with pytest.raises(PersonalignError, match="not UTF-8"):
        read_dialogues(path)


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-32"])
def test_wide_encodings_without_a_known_mark_are_refused(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes('{"messages": []}'.encode(encoding))
    (fault,) = parse(path).faults
    assert fault.field == "encoding"
    assert "NUL" in fault.problem


def test_broken_utf16_names_the_byte(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xff\xfe" + "ab".encode("utf-16-le") + b"\x00\xdc")
    (fault,) = parse(path).faults
    assert "byte offset 6" in fault.problem


@pytest.mark.parametrize("cut", [5, 30, -1])
def test_cut_off_gzip_is_one_fault(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(TEXT.encode())[:cut])
    (fault,) = parse(path).faults
    assert (fault.line, fault.field) == (0, "file")
    assert "gzip" in fault.problem


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ('{"messages": [], "messages": []}', "'messages' occurs twice"),
        ('{"messages": [], "score": NaN}', "NaN"),
        ('{"messages": [], "score": -Infinity}', "-Infinity"),
        ('{"messages": [], "score": 1e999}', "too large"),
        ('{"messages": [], "number": ' + "9" * 5000 + "}", "not readable"),
        ('{"messages": [], "deep": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ('{"messages": [], "half": "\\ud83d"}', "half a character"),
        ('{"messages": []', "column"),
        ('{"messages": []} {}', "Extra data"),
    ],
    ids=["twice", "nan", "infinity", "float", "int", "deep", "surrogate", "cut", "two"],
)
def test_json_that_programs_disagree_about(line: str, word: str) -> None:
    rows = read_json_values('{"messages": []}\n' + line + '\n{"messages": []}\n', file="f")
    (fault,) = rows.faults
    assert fault.line == 2
    assert word in fault.problem
    assert [row.line for row in rows.rows] == [1, 3]


def test_one_json_array_is_read_with_the_lines_of_its_values() -> None:
    rows = read_json_values('[\n {"a": 1},\n\n {"a":\n 2},{"a": 3}]\n', file="f")
    assert [(row.line, row.value["a"]) for row in rows.rows] == [(2, 1), (4, 2), (5, 3)]
    assert rows.faults == ()
    assert read_json_values("[]", file="f").rows == ()


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[{"a": 1},\n{"a": }]', 2),
        ('[{"a": 1}\n{"a": 2}]', 1),
        ('[{"a": 1},\n', 2),
        ('[{"a": 1}', 1),
        ('[{"a": 1}]\nmore', 1),
        ('[{"a": 1},]', 1),
    ],
)
def test_a_broken_array_is_one_fault(text: str, line: int) -> None:
    (fault,) = read_json_values(text, file="f").faults
    assert fault.line == line


def test_a_file_without_dialogues_and_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_text("\n\n", encoding="utf-8")
    (fault,) = parse(tmp_path / "empty.jsonl").faults
    assert "no dialogue" in fault.problem
    with pytest.raises(PersonalignError, match="does not exist"):
        read_dialogues(tmp_path / "absent.jsonl")
    with pytest.raises(PersonalignError, match="is a folder"):
        read_dialogues(tmp_path, format="native")
