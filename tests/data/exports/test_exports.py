"""Chats as phones and programs export them, made up: what is read, what is left out, and what is said of damage."""

import json
import time
import zipfile
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.data.exports.made_chats import said, whatsapp
from typer.testing import CliRunner

from personalign.cli.main import app
from personalign.data.exports import DateOrder, read_export, recognise, sessions_of
from personalign.data.exports.discord import read_discord
from personalign.data.exports.table import read_table
from personalign.data.exports.telegram import read_telegram
from personalign.data.exports.whatsapp import read_whatsapp
from personalign.data.formats import read_dialogues
from personalign.errors import PersonalignError

# WhatsApp ------------------------------------------------------------------------------------------------


def test_the_zip_that_phones_send(tmp_path: Path) -> None:
    path = tmp_path / "WhatsApp Chat - Ann.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            "_chat.txt", "\ufeff[31/12/2023, 21:05:33] Ann: hi\r\n[31/12/2023, 21:05:34] Ben: ho\r\n"
        )
        archive.writestr("00000012-PHOTO.jpg", b"\xff\xd8")
    assert said(read_export(path)) == [("Ann", "hi"), ("Ben", "ho")]
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("other.txt", "x")
    with pytest.raises(PersonalignError, match="holds 2 text files, where an exported chat has one"):
        read_export(path)


def test_a_damaged_zip_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chat.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("_chat.txt", "[31/12/2023, 21:05:33] Ann: hi\n" * 200)
    data = bytearray(path.read_bytes())
    flipped = data.copy()
    flipped[60] ^= 255
    for damaged in (flipped, data[:-30]):
        path.write_bytes(damaged)
        with pytest.raises(
            PersonalignError, match=r"cannot be unpacked|no message begins|is not UTF-8|0 text files"
        ):
            read_export(path)


def test_options_of_another_format_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "chat.txt"
    path.write_text("31/12/2023, 21:05 - Ann: hi\n", encoding="utf-8")
    with pytest.raises(
        PersonalignError, match="chat belongs to format telegram, and this is whatsapp; leave it out"
    ):
        read_export(path, chat="Ann")
    with pytest.raises(PersonalignError, match="columns belongs to format csv"):
        read_export(path, columns={"sender": "who"})
    with pytest.raises(PersonalignError, match="date order 'foo' is unknown; write dmy, mdy or ymd"):
        read_export(path, date_order="foo")  # type: ignore[arg-type]


NAMES = (
    st.text("abcdefghij :\u00e9\u5c0f\u660e", min_size=1, max_size=90)
    .map(str.strip)
    # Such a name cannot be told from what is said.
    .filter(lambda name: name and ": " not in name)
)
WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=("Cc", "Cf", "Zl", "Zp", "Zs")), min_size=1, max_size=30
)
PATTERNS = [
    "%d/%m/%Y, %H:%M - {}",
    "[%d.%m.%y, %H:%M:%S] {}",
    "%m/%d/%y, %I:%M %p - {}",
    "%Y/%m/%d, %H:%M - {}",
]
MOMENTS = st.datetimes(min_value=datetime(2015, 1, 1), max_value=datetime(2030, 1, 1))


@given(
    st.lists(st.tuples(NAMES, st.lists(WORDS, min_size=1, max_size=3)), min_size=1, max_size=12),
    MOMENTS,
    st.sampled_from(
        ["%d/%m/%Y, %H:%M - {}", "[%d.%m.%y, %H:%M:%S] {}", "%m/%d/%y, %I:%M %p - {}", "%Y/%m/%d, %H:%M - {}"]
    ),
)
@settings(max_examples=150, deadline=None)
def test_whatever_was_written_is_read_back(
    chat: list[tuple[str, list[str]]], begin: datetime, pattern: str
) -> None:
    lines, wanted = [], []
    for number, (name, words) in enumerate(chat):
        moment = begin.replace(second=0, microsecond=0) + timedelta(hours=17 * number)
        # "x" keeps a line from looking like a placeholder or the beginning of another message.
        text = "\n".join(f"x{word}" for word in words)
        lines.append(moment.strftime(pattern).format(f"{name}: {text}"))
        wanted.append((name, text, moment))
    order: DateOrder = "ymd" if pattern.startswith("%Y") else "mdy" if pattern.startswith("%m") else "dmy"
    log = whatsapp(*lines, date_order=order)
    assert [(m.sender, m.text, m.sent) for m in log.messages] == wanted
    assert not log.left_out


@given(st.text(max_size=200), st.sampled_from(["", "31/12/2023, 21:05 - Ann: a\n", "{", '{"messages": [']))
@settings(max_examples=200, deadline=None)
def test_any_text_is_read_or_named(text: str, begin: str) -> None:
    for read in (read_whatsapp, read_telegram, read_discord, read_table):
        try:
            log = read(begin + text, file="chat")
        except PersonalignError as error:
            assert str(error).startswith("chat")  # noqa: PT017
        else:
            assert all(message.text.strip() and message.sender for message in log.messages)


# Telegram ------------------------------------------------------------------------------------------------


def telegram(*messages: dict[str, Any], **changes: Any) -> dict[str, Any]:
    rows = [
        {
            "id": number,
            "type": "message",
            "date": f"2024-05-{number:02d}T10:00:00",
            "from": "Ann",
            "text": "hi",
        }
        | row
        for number, row in enumerate(messages, start=1)
    ]
    return {"name": "Ben", "type": "personal_chat", "id": 7, "messages": rows} | changes


def written(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=1), encoding="utf-8")
    return path


def test_telegram(tmp_path: Path) -> None:
    export = telegram(
        {"text": "你好"},
        {"from": "Ben", "text": ["see ", {"type": "link", "text": "example.org"}, " !"]},
        {"type": "service", "action": "phone_call", "text": ""},
        {"photo": "photos/1.jpg", "text": ""},
        {"photo": "photos/2.jpg", "text": "my cat"},
        {"media_type": "sticker", "sticker_emoji": "x", "text": ""},
        {"forwarded_from": "Somebody", "text": "a poem"},
        {"from": None, "text": "gone"},
        {"text": " "},
        {"text": "half \ud83d"},
    )
    path = tmp_path / "result.json"
    path.write_text(json.dumps(export), encoding="utf-8")
    log = read_export(path)
    assert said(log) == [
        ("Ann", "你好"),
        ("Ben", "see example.org !"),
        ("Ann", "my cat"),
        ("Ann", "half \ufffd"),
    ]
    assert log.messages[1].sent == datetime(2024, 5, 2, 10)
    assert log.left_out == {
        "system messages": 1,
        "media without text": 2,
        "forwarded messages": 1,
        "messages without a sender": 1,
        "blank messages": 1,
    }


def test_a_telegram_account_has_many_chats(tmp_path: Path) -> None:
    chats = [telegram({}), telegram({"text": "ho"}, name="Carla"), telegram({}, name=None, id=9)]
    path = written(tmp_path / "result.json", {"about": "x", "chats": {"about": "y", "list": chats}})
    assert said(read_export(path, chat="Carla")) == [("Ann", "ho")]
    with pytest.raises(
        PersonalignError,
        match="holds 3 chats, and no chat was chosen; write --chat with one of: Ben, Carla, 9",
    ):
        read_export(path)
    with pytest.raises(PersonalignError, match="there is no chat 'Dora'"):
        read_export(path, chat="Dora")


def test_two_people_of_one_name_are_told_apart(tmp_path: Path) -> None:
    export = telegram({"from_id": "u1"}, {"from_id": "u2", "text": "ho"}, {"from": "Ben", "from_id": "u3"})
    log = read_export(written(tmp_path / "result.json", export))
    assert said(log) == [("Ann (u1)", "hi"), ("Ann (u2)", "ho"), ("Ben", "hi")]
    assert log.remarks == ("2 people are called Ann; they are told apart by their ids",)
    two = discord({}, {"author": {"id": "2", "name": "x", "nickname": "Ann"}})
    assert {m.sender for m in read_export(written(tmp_path / "d.json", two)).messages} == {
        "Ann (1)",
        "Ann (2)",
    }
    chats = [telegram({}, id=7), telegram({"text": "ho"}, id=8)]
    path = written(tmp_path / "account.json", {"chats": {"list": chats}})
    assert said(read_export(path, chat="8")) == [("Ann", "ho")]
    with pytest.raises(PersonalignError, match="there is no chat 'Ben'; write --chat with one of: 7, 8"):
        read_export(path, chat="Ben")


def test_a_number_that_is_too_long_is_named(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"messages": [{"id": ' + "1" * 5000 + "}]}", encoding="utf-8")
    with pytest.raises(PersonalignError, match="not JSON"):
        read_export(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"date": "yesterday"}, "date: a string, not a date such as 2024-05-31T18:05:00"),
        ({"date": None}, "date: missing"),
        ({"from": 7}, "from: a number, not a string"),
        ({"text": 7}, "text: a number, not a string or a list of its parts"),
        ({"text": [7]}, "text: a list, not a string or a list of its parts"),
    ],
)
def test_a_message_that_is_not_telegrams_names_its_line(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    path = written(tmp_path / "result.json", telegram({}, row, {}))
    # The object begins on the line before its first key.
    line = path.read_text(encoding="utf-8").splitlines().index('   "id": 2,')
    with pytest.raises(PersonalignError) as caught:
        read_export(path)
    assert f"result.json:{line}: {message}" in str(caught.value)


def test_a_cut_off_export_names_the_line(tmp_path: Path) -> None:
    path = written(tmp_path / "result.json", telegram({}, {}, {}))
    text = path.read_text(encoding="utf-8")
    cut = text[: text.index('"id": 3') + 20]
    path.write_text(cut, encoding="utf-8")
    with pytest.raises(PersonalignError) as caught:
        read_export(path)
    number = len(cut.splitlines())
    assert f"result.json:{number}: line: not JSON" in str(caught.value)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({"chats": {"list": []}}, "holds neither messages nor chats"),
        ({"messages": 3}, "messages: is not a list"),
        ({"messages": [3]}, "message: a number, not an object"),
        ({}, "holds neither messages nor chats"),
    ],
)
def test_what_is_no_telegram_export(tmp_path: Path, value: Any, message: str) -> None:
    with pytest.raises(PersonalignError, match=message):
        read_export(written(tmp_path / "result.json", value), format="telegram")


# Discord -------------------------------------------------------------------------------------------------


def discord(*messages: dict[str, Any]) -> dict[str, Any]:
    rows = [
        {
            "id": str(number),
            "type": "Default",
            "timestamp": f"2024-05-{number:02d}T10:00:00.123+02:00",
            "content": "hi",
            "author": {"id": "1", "name": "ann", "nickname": "Ann", "isBot": False},
            "attachments": [],
        }
        | row
        for number, row in enumerate(messages, start=1)
    ]
    return {"guild": {"id": "0"}, "channel": {"id": "1"}, "dateRange": {}, "messages": rows}


def test_discord(tmp_path: Path) -> None:
    path = written(
        tmp_path / "export.json",
        discord(
            {},
            {"type": "Reply", "content": "不错", "author": {"name": "ben"}},
            {"type": "RecipientAdd", "content": "Added Carla."},
            {"content": "", "attachments": [{"fileName": "a.png"}]},
            {"content": ""},
        ),
    )
    log = read_export(path)
    assert said(log) == [("Ann", "hi"), ("ben", "不错")]
    assert log.messages[0].sent == datetime(2024, 5, 1, 8, 0, 0, 123000)
    assert log.left_out == {"system messages": 1, "media without text": 1, "blank messages": 1}


def test_half_a_character_in_a_name_is_mended(tmp_path: Path) -> None:
    """Escapes can spell it, and no file can hold it."""
    half = {"author": {"id": "\ud83d", "name": "Ann \ud83d"}}
    rows = [half, {"author": {"name": "ben"}}]
    path = tmp_path / "export.json"
    path.write_text(json.dumps(discord(*rows)), encoding="utf-8")
    log = read_export(path)
    assert [(message.sender, message.sender_id) for message in log.messages] == [
        ("Ann \ufffd", "\ufffd"),
        ("ben", ""),
    ]
    target = tmp_path / "ann.jsonl"
    words = ["data", "import", str(path), str(target), "--person", "Ann", "--silence", "48"]
    assert CliRunner().invoke(app, words).exit_code == 0
    assert read_dialogues(target)[0].person == "Ann \ufffd"
    path.write_text(json.dumps({"chats": {"list": [telegram({}, name="\ud83d")]}}), encoding="utf-8")
    with pytest.raises(PersonalignError, match="write --chat with one of: \ufffd"):
        read_export(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"timestamp": "never"}, "timestamp: a string, not a date such as"),
        ({"content": None}, "content: missing"),
        ({"author": "ann"}, "author: a string, not an object with the author's name"),
        ({"author": {}}, "author: an object, not an object with the author's name"),
    ],
)
def test_a_message_that_is_not_discords_names_its_line(
    tmp_path: Path, row: dict[str, Any], message: str
) -> None:
    path = written(tmp_path / "export.json", discord(row))
    line = path.read_text(encoding="utf-8").splitlines().index(' "messages": [') + 2
    with pytest.raises(PersonalignError) as caught:
        read_export(path)
    assert f"export.json:{line}: {message}" in str(caught.value)


# Tables --------------------------------------------------------------------------------------------------


def test_a_table(tmp_path: Path) -> None:
    path = tmp_path / "chat.csv"
    path.write_text(
        '\ufeffDate,Author,Content\n2024-05-31 10:00,Ann,"one, two\nthree"\n1717149600,Ben,ho\n2024/06/01 10:00,Ben,\n\n'
        "1717149600000,Ben,later\n",
        encoding="utf-8",
    )
    log = read_export(path)
    assert said(log) == [("Ann", "one, two\nthree"), ("Ben", "ho"), ("Ben", "later")]
    assert [message.line for message in log.messages] == [2, 4, 7]
    assert log.messages[1].sent == log.messages[2].sent
    assert log.left_out == {"blank messages": 1}
    path.write_text("when;who;what\n2024-05-31;Ann;hi\n", encoding="utf-8")
    log = read_export(path, columns={"date": "when", "sender": "WHO", "text": "what"})
    assert said(log) == [("Ann", "hi")]
    path.write_text("date,sender,text\n20240531,Ann,hi\n1717149600,Ben,ho\n", encoding="utf-8")
    assert [message.sent for message in read_export(path).messages] == [
        datetime(2024, 5, 31),
        datetime(2024, 5, 31, 10),
    ]
    with pytest.raises(
        PersonalignError, match="--column sendr: there is no such field; write sender, text, date"
    ):
        read_export(path, columns={"sendr": "who"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "when,author,text\n",
            "chat.csv:1: date: no column date or timestamp or time or datetime among when, ",
        ),
        ("date,author,text\n2024-05-31,Ann\n", "chat.csv:2: row: 2 cells, where the header has 3"),
        ("date,author,text\n2024-05-31,Ann,a\nsoon,Ann,b\n", "chat.csv:3: date: 'soon' is no date"),
        ("date,author,text\n2024-05-31,,a\n", "chat.csv:2: sender: is empty"),
        ('date,author,text\n2024-05-31,Ann,"a\n', "chat.csv:2: line: no row of a table"),
        ("\n", "chat.csv:1: sender: no column"),
        ("date,author,text\n1234567,Ann,a\n", "chat.csv:2: date: '1234567' is no date"),
    ],
)
def test_a_damaged_table_names_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "chat.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PersonalignError) as caught:
        read_export(path)
    assert message in str(caught.value)


def test_a_cell_may_be_as_long_as_a_message(tmp_path: Path) -> None:
    path = tmp_path / "chat.csv"
    long = "word " * 40_000
    path.write_text(f"date,sender,text\n2024-05-31,Ann,{long}\n", encoding="utf-8")
    assert said(read_export(path)) == [("Ann", long.strip())]


# Order ---------------------------------------------------------------------------------------------------


def test_rows_of_a_table_are_put_in_the_order_of_their_moments(tmp_path: Path) -> None:
    """Two phones in two time zones, one after the other."""
    path = tmp_path / "chat.csv"
    rows = [
        "2024-05-31T18:00+02:00,Bob,a",
        "2024-05-31T18:10+02:00,Bob,c",
        "2024-05-31T16:05+00:00,Ann,b",
        "2024-05-31T16:15Z,Ann,d",
        "1717173600,Bob,e",
    ]
    path.write_text("\n".join(["date,sender,text", *rows]), encoding="utf-8")
    log = read_export(path)
    assert [message.text for message in log.messages] == ["a", "b", "c", "d", "e"]
    assert log.messages[0].sent == datetime(2024, 5, 31, 16, 0)
    [dialogue] = sessions_of(log, "Ann").dialogues
    assert [turn.content for turn in dialogue.messages] == ["a", "b", "c", "d", "e"]


SUMMER_ENDS = ("02:57", "02:58", "02:01", "02:03")


def test_where_summer_time_ends_messages_keep_the_order_of_the_file(tmp_path: Path) -> None:
    """The hour is there twice on the clock of WhatsApp and Telegram."""
    rows = [(clock, ("Ann", "Ben")[at % 2], str(at)) for at, clock in enumerate(SUMMER_ENDS)]
    phone = whatsapp(*(f"27/10/2024, {clock} - {who}: {text}" for clock, who, text in rows))
    export = telegram(
        *({"date": f"2024-10-27T{clock}:00", "from": who, "text": text} for clock, who, text in rows)
    )
    desktop = read_export(written(tmp_path / "result.json", export))
    for log in (phone, desktop):
        # Shorter than the step back.
        [dialogue] = sessions_of(log, "Ann", silence=timedelta(minutes=30)).dialogues
        assert [turn.content for turn in dialogue.messages] == ["0", "1", "2", "3"]


def test_discord_s_times_with_offsets_are_moments(tmp_path: Path) -> None:
    """Written by a computer whose clock was set back an hour in between; nobody was silent for two."""
    times = ["2024-10-27T02:59:00+02:00", "2024-10-27T02:01:00+01:00", "2024-10-27T02:30:00+01:00"]
    authors = [{"name": "ann"}, {"name": "ben"}, {"name": "ann"}]
    rows = [{"timestamp": at, "author": who} for at, who in zip(times, authors, strict=True)]
    log = read_export(written(tmp_path / "export.json", discord(*rows)))
    assert [f"{message.sent:%H:%M}" for message in log.messages] == ["00:59", "01:01", "01:30"]


# Sessions ------------------------------------------------------------------------------------------------


def test_sessions_are_cut_by_silence_and_read_from_the_persons_side() -> None:
    log = whatsapp(
        "31/12/2023, 10:00 - Ann: hi",
        "31/12/2023, 10:01 - Ann: you there?",
        "31/12/2023, 10:02 - Ben: yes",
        "31/12/2023, 10:03 - Carla: me too",
        "31/12/2023, 16:03 - Ann: back",
        "31/12/2023, 22:04 - Ben: alone here",
        "01/01/2024, 10:00 - Ben: happy new year",
        "01/01/2024, 10:01 - Ann: to you too",
    )
    found = sessions_of(log, "ann")
    assert (found.person, found.messages, found.without_reply) == ("Ann", 8, 1)
    assert [dialogue.id for dialogue in found.dialogues] == ["Ann-00001", "Ann-00002"]
    assert {dialogue.person for dialogue in found.dialogues} == {"Ann"}
    first, second = found.dialogues
    assert [(turn.role, turn.content) for turn in first.messages] == [
        ("assistant", "hi\nyou there?"),
        ("user", "yes\nme too"),
        ("assistant", "back"),
    ]
    assert first.extra["began"] == "2023-12-31T10:00:00"
    assert second.messages[0].role == "user"
    ben = sessions_of(log, "B", silence=timedelta(days=1))
    assert [turn.role for turn in ben.dialogues[0].messages] == [
        "user",
        "assistant",
        "user",
        "assistant",
        "user",
    ]
    assert ben.without_reply == 0


@pytest.mark.parametrize(
    ("person", "message"),
    [
        ("Dora", "nobody here is called 'Dora'; write one of: Anna (2), Anton (1)"),
        ("An", "'An' could be Anna, Anton; write one of: Anna (2), Anton (1)"),
    ],
)
def test_names_are_found_or_listed(person: str, message: str) -> None:
    log = whatsapp(
        "31/12/2023, 10:00 - Anna: a", "31/12/2023, 10:01 - Anton: b", "31/12/2023, 10:01 - Anna: c"
    )
    with pytest.raises(PersonalignError) as caught:
        sessions_of(log, person)
    assert message in str(caught.value)


def test_who_talks_to_nobody_has_no_sessions() -> None:
    log = whatsapp("31/12/2023, 10:00 - Anna: a", "31/12/2023, 22:01 - Anna: b")
    with pytest.raises(
        PersonalignError, match="Anna is in no conversation: nobody else writes in 2 sessions"
    ):
        sessions_of(log, "Anna")


def test_formats_are_recognised(tmp_path: Path) -> None:
    assert recognise(json.dumps(discord({}))) == "discord"
    assert recognise(json.dumps(telegram({}))) == "telegram"
    assert recognise("31/12/2023, 10:00 - Anna: a") == "whatsapp"
    assert recognise("date,author,text", name="a/Chat.CSV.gz") == "csv"
    with pytest.raises(PersonalignError, match="is no file; write the path of an exported chat"):
        read_export(tmp_path / "none.txt")
    with pytest.raises(
        PersonalignError, match="unknown format 'signal'; write one of whatsapp, telegram, discord, csv"
    ):
        read_export(written(tmp_path / "a.json", {}), format="signal")  # type: ignore[arg-type]


@pytest.mark.parametrize("format", ["whatsapp", "telegram", "discord", "csv"])
def test_a_hundred_thousand_messages_take_less_than_half_a_minute(tmp_path: Path, format: str) -> None:
    moments = [datetime(2020, 1, 1) + timedelta(minutes=20 * number) for number in range(100_000)]
    names = ["Ann", "Ben"]
    path = tmp_path / "chat"
    if format == "whatsapp":
        lines = (f"{m:%d/%m/%Y, %H:%M} - {names[n % 2]}: message {n}" for n, m in enumerate(moments))
        path.write_text("\n".join(lines), encoding="utf-8")
    elif format == "telegram":
        rows = [
            {"date": m.isoformat(), "from": names[n % 2], "text": f"m {n}"} for n, m in enumerate(moments)
        ]
        written(path, telegram(*rows))
    elif format == "discord":
        rows = [
            {"timestamp": m.isoformat(), "author": {"name": names[n % 2]}, "content": f"m {n}"}
            for n, m in enumerate(moments)
        ]
        written(path, discord(*rows))
    else:
        rows_of_text = (f"{m.isoformat()},{names[n % 2]},m {n}" for n, m in enumerate(moments))
        path.write_text("date,sender,text\n" + "\n".join(rows_of_text), encoding="utf-8")
    start = time.monotonic()
    log = read_export(path, format=format)  # type: ignore[arg-type]
    found = sessions_of(log, "Ben")
    assert time.monotonic() - start < 30
    assert len(log.messages) == 100_000
    assert len(found.dialogues) == 1
