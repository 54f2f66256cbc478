"""ParlAI's text: persona kinds, silence, candidates, numbering, and what it cannot carry."""

from pathlib import Path

import pytest

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import parse, read_dialogues, write_dialogues
from personalign.errors import PersonalignError

BOTH = (
    "1 your persona: i keep bees.\n"
    "2 partner's persona: i sail.\n"
    "3 any pets ?\tonly bees .\t\ti sing .|only bees .\n"
    "4 how many ?\ttwo hives .\t\ttwo hives .|none .\n"
    "1 your persona: i bake.\n"
    "2 __SILENCE__\thello there\n"
    "3 hi\\nyou\n"
    "4 still there ?\tyes\n"
)


def read(folder: Path, text: str) -> list[Dialogue]:
    path = folder / "valid_both_original.txt"
    path.write_bytes(text.encode())
    return read_dialogues(path)


def test_both_personas_candidates_silence_and_restart(tmp_path: Path) -> None:
    first, second = read(tmp_path, BOTH)
    assert first.persona == ("i keep bees.",)
    assert first.partner_persona == ("i sail.",)
    assert first.candidates == (("i sing .", "only bees ."), ("two hives .", "none ."))
    assert first.messages[2:] == (Turn("user", "how many ?"), Turn("assistant", "two hives ."))
    assert second.id == "valid_both_original:5"
    assert second.candidates is None
    assert second.messages == (
        Turn("assistant", "hello there"),
        Turn("user", "hi\nyou"),
        Turn("user", "still there ?"),
        Turn("assistant", "yes"),
    )


@pytest.mark.parametrize(
    ("text", "persona", "partner"),
    [
        ("1 your persona: a\n2 hi\tyo\n", ("a",), ()),
        ("1 partner's persona: b\n2 hi\tyo\n", (), ("b",)),
        ("1 hi\tyo\n", (), ()),
    ],
    ids=["self", "other", "none"],
)
def test_persona_kinds(tmp_path: Path, text: str, persona: tuple[str, ...], partner: tuple[str, ...]) -> None:
    (dialogue,) = read(tmp_path, text)
    assert (dialogue.persona, dialogue.partner_persona) == (persona, partner)
    assert len(dialogue.messages) == 2


def test_bom_crlf_blank_lines_and_gaps_in_the_numbering(tmp_path: Path) -> None:
    (dialogue,) = read(tmp_path, "\ufeff1 your persona: a\r\n\r\n4 hi\tyo\r\n")
    assert dialogue.messages[1].content == "yo"
    assert dialogue.persona == ("a",)


@pytest.mark.parametrize(
    ("line", "field"),
    [
        ("no number\tyo", "line"),
        ("2 again\tyo", "number"),
        ("3 \tyo", "text"),
        ("3 hi\t", "reply"),
        ("3 hi\tyo\t\ta||yo", "candidates"),
        ("3 hi\tyo\t\ta|b", "candidates"),
        ("3 hi\tyo\t\tyo\tmore", "line"),
        ("3 your persona: late", "persona"),
        ("3 __SILENCE__", "reply"),
    ],
)
def test_each_fault_has_its_own_line(tmp_path: Path, line: str, field: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(f"1 your persona: a\n2 hi\tyo\n{line}\n1 hi\tyo\n", encoding="utf-8")
    assert [(fault.line, fault.field) for fault in parse(path).faults] == [(3, field)]


def test_an_empty_persona_line_is_a_fault(tmp_path: Path) -> None:
    path = tmp_path / "bad.txt"
    path.write_text("1 your persona: \n2 hi\tyo\n", encoding="utf-8")
    assert [(fault.line, fault.field) for fault in parse(path).faults] == [(1, "persona")]


def test_written_text_is_the_published_layout(tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text(BOTH, encoding="utf-8")
    target = tmp_path / "out.txt"
    assert write_dialogues(target, read_dialogues(tmp_path / "in.txt"), format="parlai") == 8
    assert target.read_text(encoding="utf-8") == BOTH


@pytest.mark.parametrize(
    "messages",
    [
        (Turn("user", "a\tb"),),
        (Turn("user", "a\rb"),),
        (Turn("user", "a\\nb"),),
        (Turn("user", "__SILENCE__"),),
        (Turn("user", "your persona: x"),),
        (Turn("assistant", "this|that"),),
        (),
    ],
)
def test_what_the_text_would_change_is_refused(tmp_path: Path, messages: tuple[Turn, ...]) -> None:
    target = tmp_path / "out.txt"
    with pytest.raises(PersonalignError, match="dialogue d1"):
        write_dialogues(target, [Dialogue("d1", (), messages)], format="parlai")
    assert list(tmp_path.iterdir()) == []


def test_silence_is_a_sentence_like_any_in_a_persona(tmp_path: Path) -> None:
    target = tmp_path / "out.txt"
    given = Dialogue("d1", ("__SILENCE__",), (Turn("user", "hi"), Turn("assistant", "yo")))
    write_dialogues(target, [given], format="parlai")
    [read] = read_dialogues(target)
    assert (read.persona, read.messages) == (given.persona, given.messages)


def test_blank_turns_are_taken_out_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "talk.txt"
    path.write_text(
        "1 your persona: a\n2 \tok\t\tno|ok\n3 so?\t \t\tno|yes\n4  \n5 hi\tyo\t\tyo\n", encoding="utf-8"
    )
    faults = parse(path).faults
    assert [(fault.line, fault.field) for fault in faults] == [
        (2, "text"), (3, "candidates"), (3, "reply"), (4, "text"),
    ]  # fmt: skip
    assert all("--drop-empty-turns" in fault.remedy for fault in faults if fault.field != "candidates")
    (dialogue,) = read_dialogues(path, drop_empty_turns=True)
    assert dialogue.messages == (
        Turn("assistant", "ok"), Turn("user", "so?"), Turn("user", "hi"), Turn("assistant", "yo"),
    )  # fmt: skip
    assert dialogue.candidates == (("no", "ok"), ("yo",))
