"""From exported chats of three programs, in English and Chinese, to a model that chats."""

import json
import shlex
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.decoding.tiny_chat_models import chat_model
from typer.testing import CliRunner

from personalign.cli.learn import Strikes, _asked, _slug, read_strikes
from personalign.cli.main import app
from personalign.data.formats import read_dialogues
from personalign.errors import PersonalignError
from personalign.methods.learn import LearnRun
from personalign.methods.opening import open_model
from personalign.methods.recipe import read_recipe
from personalign.methods.steps import Interrupted, alone_in

Said = tuple[datetime, str, str]
Writer = Callable[[Path, Sequence[Said]], Path]

ENGLISH = (
    ("Ben", "hello , any pets ?"),
    ("Ana", "yes . i have a dog ."),
    ("Ben", "what do you do ?"),
    ("Ana", "i work as a baker at night ."),
)
CHINESE = (
    ("小明", "你好，你有狗吗？"),
    ("小红", "有。我有一只狗。"),
    ("小明", "你做什么？"),
    ("小红", "我在面包店上夜班。"),
)


def told(lines: Sequence[tuple[str, str]], *, days: int = 4) -> list[Said]:
    """The same talk on several days, with the day's number at the end."""
    return [
        (datetime(2024, 5, 1 + day, 18, minute), who, f"{text} {day}")
        for day in range(days)
        for minute, (who, text) in enumerate(lines)
    ]


def whatsapp(path: Path, said: Sequence[Said]) -> Path:
    """With a system line, a placeholder of media, a deleted message and a right-to-left mark, as phones write them."""
    rows = [f"{sent:%d/%m/%Y, %H:%M} - \u200f{who}: {text}" for sent, who, text in said]
    sent, who, _ = said[-1]
    rows.insert(0, "01/05/2024, 17:00 - Messages and calls are end-to-end encrypted.")
    rows += [
        f"{sent:%d/%m/%Y, %H:%M} - {who}: <Media omitted>",
        f"{sent:%d/%m/%Y, %H:%M} - {who}: This message was deleted",
    ]
    path.write_text("\n".join(rows), encoding="utf-8")
    return path


def telegram(path: Path, said: Sequence[Said]) -> Path:
    rows = [
        {"id": at, "type": "message", "date": sent.isoformat(), "from": who, "text": text}
        for at, (sent, who, text) in enumerate(said, start=1)
    ]
    rows.append({"id": 99, "type": "service", "date": said[-1][0].isoformat(), "action": "pin", "text": ""})
    chat = {"name": "x", "type": "personal_chat", "id": 7, "messages": rows}
    path.write_text(json.dumps(chat, ensure_ascii=False), encoding="utf-8")
    return path


def discord(path: Path, said: Sequence[Said]) -> Path:
    rows = [
        {
            "id": str(at),
            "type": "Default",
            "timestamp": f"{sent.isoformat()}+00:00",
            "content": text,
            "author": {"id": who, "name": who, "isBot": False},
            "attachments": [],
        }
        for at, (sent, who, text) in enumerate(said, start=1)
    ]
    log = {"guild": {"id": "0"}, "channel": {"id": "1"}, "dateRange": {}, "messages": rows}
    path.write_text(json.dumps(log, ensure_ascii=False), encoding="utf-8")
    return path


WRITERS: dict[str, Writer] = {"whatsapp": whatsapp, "telegram": telegram, "discord": discord}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("learn") / "model"
    loaded = chat_model(tokenizer="bytes")
    loaded.model.save_pretrained(folder)
    loaded.tokenizer.save_pretrained(folder)
    return folder


def learn(export: Path, person: str, out: Path, model: Path, *more: str, code: int = 0) -> str:
    words = ["learn", str(export), "--person", person, "--out", str(out), "--model", str(model), "--yes"]
    result = CliRunner().invoke(app, [*words, "--steps", "2", "--max-tokens", "300", *more])
    assert result.exit_code == code, result.output
    return result.output


def as_json(output: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(output.splitlines()[-1])
    return value


@pytest.mark.parametrize("language", ["english", "chinese"])
@pytest.mark.parametrize("program", WRITERS)
def test_an_export_becomes_a_character(program: str, language: str, tmp_path: Path, model: Path) -> None:
    lines, person, other = (ENGLISH, "Ana", "Ben") if language == "english" else (CHINESE, "小红", "小明")
    export = WRITERS[program](tmp_path / "export", told(lines))
    output = learn(export, person, tmp_path / "made", model, "--json")
    assert f"{person}: 4 sessions in 16 messages" in output
    found = as_json(output)
    facts = {item["fact"][2] for item in found["facts"]}
    expected = (
        {"i have a dog .", "i work as a baker at night ."} if language == "english" else {"我有一只狗。"}
    )
    assert expected <= facts
    # Each with the sentence that it comes from, and nothing that the partner says.
    assert all(item["fact"][2] in " ".join(item["text"].split()) for item in found["facts"])
    assert not any(text in facts for who, text in lines if who == other)
    opened = open_model(tmp_path / "made")
    assert opened.loaded.adapted
    assert opened.selection.strategy == "unselected"
    cards = [(tmp_path / "made" / place / "README.md").read_text() for place in (".", "model")]
    assert cards[0] == cards[1]
    assert cards[0].startswith("# made\n")
    assert {session.person for session in opened.sessions} == {person}
    # The latest session is told last, next to the chat.
    assert opened.sessions[-1].id == f"{person}-00004"
    chat = CliRunner().invoke(app, ["chat", str(tmp_path / "made"), "--json"], input="hello\n/undo\nyes ?\n")
    assert chat.exit_code == 0, chat.output
    assert f"It was told {len(opened.sessions)} earlier sessions of {person}" in chat.output
    said = as_json(chat.output)["dialogue"]["messages"]
    assert [message["content"] for message in said if message["role"] == "user"] == ["yes ?"]


def test_what_is_struck_is_neither_learnt_nor_told(tmp_path: Path, model: Path) -> None:
    export = whatsapp(tmp_path / "chat.txt", told(ENGLISH))
    listed = as_json(learn(export, "Ana", tmp_path / "first", model, "--json"))["facts"]
    number = next(item["number"] for item in listed if item["fact"][2] == "i have a dog .")
    output = learn(export, "Ana", tmp_path / "second", model, "--strike", str(number), "--json")
    found = as_json(output)
    assert (found["struck"], found["messages_left_out"]) == ([number], 4)
    for place in ("sessions.jsonl", "model/sessions.jsonl"):
        text = (tmp_path / "second" / place).read_text(encoding="utf-8")
        assert "dog" not in text
        assert "baker" in text
    # Who asks is asked about it in other words, and what still names it is said.
    text = (tmp_path / "second" / "sessions.jsonl").read_text(encoding="utf-8")
    assert "any pets" in text
    assert "Words of these facts that other messages still have: dog" not in output
    by_word = as_json(learn(export, "Ana", tmp_path / "word", model, "--strike-word", "Pets", "--json"))
    assert (by_word["struck_words"], by_word["messages_left_out"]) == (["Pets"], 4)
    assert by_word["messages_with_word"] == {"Pets": 4}
    text = (tmp_path / "word" / "sessions.jsonl").read_text(encoding="utf-8")
    assert "pets" not in text
    assert "dog" in text
    message = learn(export, "Ana", tmp_path / "third", model, "--strike", "99", code=1)
    assert f"--strike 99: there are {len(listed)} facts" in message
    assert not (tmp_path / "third").exists()


def test_how_many_messages_a_struck_word_is_in_is_said(tmp_path: Path, model: Path) -> None:
    export = whatsapp(tmp_path / "chat.txt", told([*ENGLISH, ("Ben", "like O\u2019Brien ?")]))
    words = ["--strike-word", "night", "--strike-word", "O'Brien"]
    output = learn(export, "Ana", tmp_path / "made", model, *words)
    assert "night: in 4 messages\nO'Brien: in 4 messages\n8 messages left out" in output
    text = (tmp_path / "made" / "sessions.jsonl").read_text(encoding="utf-8")
    assert "night" not in text
    assert "Brien" not in text


def test_a_word_that_strikes_nothing_stops_it(tmp_path: Path, model: Path) -> None:
    export = whatsapp(tmp_path / "chat.txt", told(ENGLISH))
    words = ["--strike-word", "baker", "--strike-word", "diabtes"]
    output = learn(export, "Ana", tmp_path / "made", model, *words, code=1)
    assert "strike word 'diabtes': no message that would be learnt from has it" in output
    assert not (tmp_path / "made").exists()


def test_who_types_such_a_word_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter(["2 bakr", "2 baker"])
    monkeypatch.setattr("builtins.input", lambda _: next(answers))
    assert _asked(3, ["i am a baker", "a baker ?", "yes"]) == ([2], {"baker": 2})


def test_facts_are_shown_as_they_were_written(tmp_path: Path, model: Path) -> None:
    """Neither emoji names, markup nor signs that a terminal obeys are anything but text."""
    lines = [("Ben", "hello"), ("Ana", "i have a :dog: and [bold] \x1b[31mred\x9b0m shoes")]
    export = telegram(tmp_path / "result.json", told(lines))
    output = learn(export, "Ana", tmp_path / "made", model)
    assert "1 i have a :dog: and [bold] [31mred0m shoes 0\n" in output
    assert "\x1b" not in output


def test_it_goes_on_where_it_was_left(tmp_path: Path, model: Path) -> None:
    export = whatsapp(tmp_path / "chat.txt", told(ENGLISH))
    learn(export, "Ana", tmp_path / "made", model)
    assert "has learnt somebody already; add --resume" in learn(
        export, "Ana", tmp_path / "made", model, code=1
    )
    weights = tmp_path / "made" / "model" / "adapter_model.safetensors"
    before = weights.stat().st_mtime_ns
    learn(export, "Ana", tmp_path / "made", model, "--resume")
    assert weights.stat().st_mtime_ns == before
    # Without the model, which is then written again from the weights that are kept.
    (tmp_path / "made" / "steps" / "model.json").unlink()
    learn(export, "Ana", tmp_path / "made", model, "--resume")
    assert weights.stat().st_mtime_ns > before
    assert "nothing was begun there" in learn(export, "Ana", tmp_path / "other", model, "--resume", code=1)
    assert "nothing can be struck any more" in learn(
        export, "Ana", tmp_path / "made", model, "--resume", "--strike", "1", code=1
    )


def test_a_damaged_export_names_the_line_and_leaves_nothing(tmp_path: Path, model: Path) -> None:
    export = tmp_path / "result.json"
    telegram(export, told(ENGLISH))
    rows = json.loads(export.read_text(encoding="utf-8"))
    del rows["messages"][2]["date"]
    export.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    output = learn(export, "Ana", tmp_path / "made", model, code=1)
    assert "result.json:20: date: missing" in output
    assert not (tmp_path / "made").exists()


def test_a_hundred_thousand_messages_are_ready_to_be_learnt_in_a_minute(tmp_path: Path, model: Path) -> None:
    said = [
        (
            datetime(2020, 1, 1) + timedelta(minutes=30 * at + 600 * (at // 20)),
            ("Ben", "Ana")[at % 2],
            f"i am {at}",
        )
        for at in range(100_000)
    ]
    export = telegram(tmp_path / "result.json", said)
    start = time.monotonic()
    output = learn(export, "Ana", tmp_path / "made", model, "--json")
    spent = time.monotonic() - start
    steps = as_json(output)["steps"]
    assert "5,000 sessions in 100,000 messages" in output
    assert spent - steps["stage1"]["training_seconds"] < 60
    # What is learnt from is the end of it.
    assert read_dialogues(str(tmp_path / "made" / "sessions.jsonl"))[-1].messages[-1].content == "i am 99999"
    assert steps["data"]["train"]["dialogues"] == 200


def test_an_interrupted_learning_goes_on_as_it_was_begun(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = whatsapp(tmp_path / "chat.txt", told(ENGLISH))

    def stopped(*_: Any, **__: Any) -> Any:
        raise Interrupted("stage1")

    with monkeypatch.context() as patched:
        patched.setattr(LearnRun, "_fit", stopped)
        output = learn(export, "Ana", tmp_path / "made", model, "--strike", "1", code=130)
    [command] = [line.strip() for line in output.splitlines() if line.strip().endswith("--resume")]
    words = shlex.split(command)[1:]
    result = CliRunner().invoke(app, [*words, "--json"])
    assert result.exit_code == 0, result.output
    # The model and the steps that the first command named, and what it struck.
    assert as_json(result.output)["steps"]["stage1"]["steps"] == 2
    assert "dog" not in (tmp_path / "made" / "sessions.jsonl").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--silence", "1e12"], "--silence is 1e+12; write a number of hours above 0"),
        (["--silence", "nan"], "--silence is nan"),
        (["--learning-rate", "0"], "stages.stage1.learning_rate"),
    ],
)
def test_mistakes_leave_no_folder(tmp_path: Path, model: Path, more: list[str], message: str) -> None:
    export = whatsapp(tmp_path / "chat.txt", told(ENGLISH))
    output = learn(export, "Ana", tmp_path / "made", model, *more, code=1)
    assert message in output
    assert not (tmp_path / "made").exists()


def test_the_mini_does_not_learn_chinese(tmp_path: Path) -> None:
    export = whatsapp(tmp_path / "chat.txt", told(CHINESE))
    output = learn(export, "小红", tmp_path / "made", Path("personalign-mini"), code=1)
    assert "personalign-mini knows English alone; name a model with --model" in output
    assert not (tmp_path / "made").exists()


GERMAN = [
    ("Ana", "ich habe gestern den ganzen Tag im Garten gearbeitet"),
    ("Ben", "und hast du die Tomaten schon gepflanzt ?"),
    ("Ana", "nein , das mache ich erst nach dem Regen"),
    ("Ben", "mein Bruder kommt am Wochenende aus Hamburg zu Besuch"),
] * 5


def test_of_another_language_it_is_said_that_facts_are_not_found(tmp_path: Path, model: Path) -> None:
    export = whatsapp(tmp_path / "chat.txt", told(GERMAN))
    output = learn(export, "Ana", tmp_path / "made", Path("personalign-mini"), code=1)
    assert "seems to be in another language, and personalign-mini knows English alone" in output
    assert "neither English nor Chinese" in learn(export, "Ana", tmp_path / "made", model)
    assert "neither English" not in learn(
        whatsapp(tmp_path / "b.txt", told(ENGLISH * 3)), "Ana", tmp_path / "b", model
    )


JAPANESE = [
    ("花子", "昨日は東京で友達と映画を見ました。"),
    ("太郎", "私は毎日学校で日本語を勉強します。"),
] * 5


def test_japanese_is_not_taken_for_chinese(tmp_path: Path, model: Path) -> None:
    export = whatsapp(tmp_path / "chat.txt", told(JAPANESE))
    output = learn(export, "花子", tmp_path / "made", Path("personalign-mini"), code=1)
    assert "the chat seems to be in another language" in output
    assert "neither English nor Chinese" in learn(export, "花子", tmp_path / "made", model)
    assert read_recipe(tmp_path / "made" / "recipe.yaml")["language"] == "en"
    learn(whatsapp(tmp_path / "zh.txt", told(CHINESE)), "小红", tmp_path / "zh", model)
    assert read_recipe(tmp_path / "zh" / "recipe.yaml")["language"] == "zh"


def test_what_is_being_learnt_is_not_written_over(tmp_path: Path, model: Path) -> None:
    export = whatsapp(tmp_path / "chat.txt", told(ENGLISH))
    learn(export, "Ana", tmp_path / "made", model)
    (tmp_path / "made" / "steps" / "stage1.json").unlink()
    before = (tmp_path / "made" / "sessions.jsonl").read_bytes()
    with alone_in(tmp_path / "made"):
        output = learn(export, "Ana", tmp_path / "made", model, "--strike-word", "baker", code=1)
    assert "another process is running" in output
    assert (tmp_path / "made" / "sessions.jsonl").read_bytes() == before


def test_a_model_that_is_not_there_leaves_nothing(tmp_path: Path) -> None:
    export = whatsapp(tmp_path / "chat.txt", told(ENGLISH))
    output = learn(export, "Ana", tmp_path / "made", tmp_path / "gpt9000", code=1)
    assert "gpt9000" in output
    assert not (tmp_path / "made").exists()


def test_where_nobody_can_be_asked_nothing_is_learnt_unasked(tmp_path: Path, model: Path) -> None:
    export = whatsapp(tmp_path / "chat.txt", told(ENGLISH))
    words = ["learn", str(export), "--person", "Ana", "--out", str(tmp_path / "made"), "--model", str(model)]
    result = CliRunner().invoke(app, words)
    assert (result.exit_code, (tmp_path / "made").exists()) == (1, False)
    assert "nobody can be asked here" in result.output


@pytest.mark.parametrize(
    ("typed", "numbers", "words"),
    [
        ("", [], []),
        ("none", [], []),
        ("3", [3], []),
        ("1, 4-6;2", [1, 4, 5, 6, 2], []),
        ("2 diabetes", [2], ["diabetes"]),
        ("糖尿病", [], ["糖尿病"]),
    ],
)
def test_what_is_typed_is_read(typed: str, numbers: list[int], words: list[str]) -> None:
    assert read_strikes(typed, facts=6) == Strikes(numbers, words)


@pytest.mark.parametrize("typed", ["7", "0", "2-9", "5-3"])
def test_numbers_of_no_fact_are_refused(typed: str) -> None:
    with pytest.raises(PersonalignError, match="the facts have the numbers 1 to 6"):
        read_strikes(typed, facts=6)


def test_the_latest_session_says_when_to_stop(tmp_path: Path, model: Path) -> None:
    export = whatsapp(tmp_path / "chat.txt", told(ENGLISH, days=9))
    learn(export, "Ana", tmp_path / "made", model)
    rows = (tmp_path / "made" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert any("validation" in json.loads(row) for row in rows)
    # Too few to spare one.
    learn(whatsapp(tmp_path / "few.txt", told(ENGLISH, days=3)), "Ana", tmp_path / "few", model)
    rows = (tmp_path / "few" / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    assert not any("validation" in json.loads(row) for row in rows)


def test_what_is_lost_of_an_export_is_said(tmp_path: Path, model: Path) -> None:
    export = whatsapp(tmp_path / "chat.txt", told(ENGLISH))
    output = learn(export, "Ana", tmp_path / "made", model)
    assert "1 system messages: left out" in output
    assert "media without text: left out" in output


def test_a_chat_is_told_anybodys_sessions(tmp_path: Path, model: Path) -> None:
    imported = tmp_path / "sessions.jsonl"
    export = whatsapp(tmp_path / "chat.txt", told(ENGLISH, days=9))
    assert (
        CliRunner().invoke(app, ["data", "import", str(export), str(imported), "--person", "Ana"]).exit_code
        == 0
    )
    learn(export, "Ana", tmp_path / "made", model)

    def chat(*more: str, code: int = 0, typed: str = "hello\n") -> str:
        result = CliRunner().invoke(app, ["chat", str(tmp_path / "made"), *more], input=typed)
        assert result.exit_code == code, result.output
        return result.output

    assert "earlier sessions of Ana" in chat("--sessions", str(imported), "--person", "Ana")
    assert "nobody here is called 'Eve'" in chat("--sessions", str(imported), "--person", "Eve", code=1)
    assert "give them with --sessions FILE" in chat("--person", "Ana", code=1)
    assert "give one of the two" in chat("--sessions", str(imported), "--line", "i have a dog .", code=1)
    # A persona that is given stands in for the sessions that came along.
    assert "Its persona:" in chat("--line", "i have a dog .")
    assert "this model is told somebody's sessions, and no persona" in chat(typed="/persona i have a dog .\n")


def test_a_folder_is_named_after_who_is_learnt() -> None:
    assert _slug("Ana / Work ") == "Ana-Work"
    assert _slug("小红") == "小红"
    assert _slug("?!") == "somebody"
