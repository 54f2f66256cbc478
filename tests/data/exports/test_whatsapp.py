"""WhatsApp's exported chats, made up: dates, what the program says, damage."""

from datetime import datetime

import pytest
from tests.data.exports.made_chats import said, whatsapp

from personalign.errors import PersonalignError

LRM, NARROW, RLE, PDF = "\u200e", "\u202f", "\u202b", "\u202c"


def test_android_in_english() -> None:
    log = whatsapp(
        "31/12/2023, 21:04 - Messages and calls are end-to-end encrypted. No one outside of this chat can read them.",
        "31/12/2023, 21:05 - Ann Lee: hello: are you there?",
        "31/12/2023, 21:06 - +49 151 000000: yes",
        "still packing",
        "",
        "see you at 10:30 - promise",
        "31/12/2023, 21:07 - Ann Lee: <Media omitted>",
        "31/12/2023, 21:07 - Ann Lee: IMG-20231231-WA0001.jpg (file attached)",
        "our dog in the snow",
        "31/12/2023, 21:08 - +49 151 000000: This message was deleted",
        "31/12/2023, 21:08 - Ann Lee: You deleted this message",
        "31/12/2023, 21:09 - Ann Lee: all good <This message was edited>",
        '31/12/2023, 21:09 - Ann Lee created group "trip"',
        "01/01/2024, 00:00 - Ann Lee:",
    )
    assert said(log) == [
        ("Ann Lee", "hello: are you there?"),
        ("+49 151 000000", "yes\nstill packing\n\nsee you at 10:30 - promise"),
        ("Ann Lee", "our dog in the snow"),
        ("Ann Lee", "all good"),
    ]
    assert [message.line for message in log.messages] == [2, 3, 8, 12]
    assert log.messages[0].sent == datetime(2023, 12, 31, 21, 5)
    assert log.left_out == {
        "system messages": 2,
        "media without text": 1,
        "deleted messages": 2,
        "blank messages": 1,
    }
    assert not log.remarks


def test_ios_with_marks_and_narrow_spaces() -> None:
    log = whatsapp(
        f"[12/31/23, 9:05:33{NARROW}PM] Ann: {LRM}Messages and calls are end-to-end encrypted.",
        f"[12/31/23, 9:05:34{NARROW}PM] ~{NARROW}Ann: {RLE}\u0634\u0643\u0631\u0627{PDF}",
        f"{LRM}[12/31/23, 12:00:01{NARROW}AM] Ben: {LRM}image omitted",
        f"{LRM}[12/31/23, 12:00:02{NARROW}AM] Ben: look {LRM}<attached: 00000012-PHOTO.jpg>",
        f"[1/2/24, 12:00:03{NARROW}PM] Ben: {LRM}This message was deleted.",
        f"[1/2/24, 12:00:04{NARROW}PM] Ben: {LRM}Missed voice call, {LRM}Tap to call back",
        f"[1/2/24, 12:00:05{NARROW}PM] Ben: fine",
    )
    assert said(log) == [
        ("Ann", "\u0634\u0643\u0631\u0627"),
        ("Ben", "look"),
        ("Ben", "fine"),
    ]
    assert [message.sent.hour for message in log.messages] == [21, 0, 12]
    assert log.messages[-1].sent == datetime(2024, 1, 2, 12, 0, 5)
    assert log.left_out == {"system messages": 2, "media without text": 1, "deleted messages": 1}


def test_documents_of_ios_and_placeholders_and_deletions_in_other_languages() -> None:
    log = whatsapp(
        f"[31.12.23, 21:05:33] Ann: {LRM}report.pdf • {LRM}3 pages {LRM}<attached: 00000013-report.pdf>",
        f"[31.12.23, 21:05:34] Ann: {LRM}report.pdf • {LRM}3 pages {LRM}document omitted",
        f"[31.12.23, 21:05:35] Ann: two lines\nof text {LRM}<attached: 00000014-PHOTO.jpg>",
        "[31.12.23, 21:05:36] Ann: <Media omessi>",
        "[31.12.23, 21:05:37] Ann: <Arquivo de mídia oculto>",
        "[31.12.23, 21:05:38] Ann: Du hast diese Nachricht gelöscht.",
        "[31.12.23, 21:05:39] Ann: Eliminaste este mensaje",
        "[31.12.23, 21:05:40] Ann: i said: a • b is not a document",
    )
    assert said(log) == [("Ann", "two lines\nof text"), ("Ann", "i said: a • b is not a document")]
    assert log.left_out == {"media without text": 4, "deleted messages": 2}


def test_names_with_colons_and_long_names() -> None:
    long = "Ann-Kathrin von der Hohenstein-Wittelsbach (Hausverwaltung, Notfälle) 24/7:Tag+Nacht"
    log = whatsapp(
        "27/10/2024, 21:06 - Mom :): hi Ann",
        f"27/10/2024, 21:07 - {long}: is it urgent: yes or no?",
        "27/10/2024, 21:08 - Re:Zero Fan: no",
        "27/10/2024, 21:09 - Mom :):",
        f"[27/10/2024, 21:09:00] \u202a{long}\u202c: {LRM}image omitted",
        f"[27/10/2024, 21:09:00] ~\u202f\u202a{long}\u202c: bye",
    )
    assert said(log) == [
        ("Mom :)", "hi Ann"),
        (long, "is it urgent: yes or no?"),
        ("Re:Zero Fan", "no"),
        (long, "bye"),
    ]
    assert log.left_out == {"blank messages": 1, "media without text": 1}


@pytest.mark.parametrize(
    "line",
    [
        'Ann changed the group name from "Trip" to "Trip: Rome"',
        "Ann changed the subject from “Trip: Oslo” to “Trip”",
        "You created group “Trip: Rome”",
        "Ann hat den Betreff von „Trip“ zu „Trip: Rom“ geändert",
        'Du hast die Gruppe "Trip: Rom" erstellt',
        'Ana cambió el nombre del grupo de "Viaje" a "Viaje: Roma"',
        "Anne a changé le nom du groupe de « Rome » en « Voyage : Rome »",
        'Anna ha modificato il nome del gruppo da "Roma" a "Viaggio: Roma"',
        'Ana mudou o nome do grupo de "Roma" para "Viagem: Roma"',
        'Anna heeft de groepsnaam gewijzigd van "Rome" naar "Reis: Rome"',
        'Anna heeft het onderwerp gewijzigd van "Rome" naar "Reis: Rome"',
        "小明将群组名称从“旅行”改为“旅行: 罗马”",
        "小明將群組名稱由「旅行」改為「旅行: 羅馬」",
    ],
)
def test_a_group_that_is_named_with_a_colon_says_nothing(line: str) -> None:
    log = whatsapp(f"27/10/2024, 21:06 - {line}", f"27/10/2024, 21:07 - Ann: {line}")
    assert said(log) == [("Ann", line)]
    assert log.left_out == {"system messages": 1}


def test_contacts_may_be_called_after_groups() -> None:
    assert said(whatsapp('27/10/2024, 21:06 - Book group "Ulysses": at mine: 8 pm')) == [
        ('Book group "Ulysses"', "at mine: 8 pm")
    ]


def test_a_mark_within_a_message_does_not_make_it_whatsapps() -> None:
    log = whatsapp(
        f"[31/12/23, 21:05:33] Ann: my number: {LRM}+972 50 123 4567",
        f"[31/12/23, 21:05:34] Ann: \u05e9\u05dc\u05d5\u05dd: {LRM}hello there",
        f"[31/12/23, 21:05:35] Ann: {LRM}Missed voice call",
    )
    assert said(log) == [
        ("Ann", "my number: +972 50 123 4567"),
        ("Ann", "\u05e9\u05dc\u05d5\u05dd: hello there"),
    ]
    assert log.left_out == {"system messages": 1}


@pytest.mark.parametrize(
    "tag",
    [
        "This message was edited",
        "Diese Nachricht wurde bearbeitet",
        "Se editó este mensaje.",
        "Ce message a été modifié",
        "Questo messaggio è stato modificato",
        "Mensagem editada",
        "Dit bericht is bewerkt",
        "此消息已编辑",
        "此訊息已被編輯",
    ],
)
def test_that_a_message_was_edited_is_no_part_of_it(tag: str) -> None:
    log = whatsapp(
        f"31/12/2023, 21:05 - Ann: hola amiga <{tag}>",
        f"31/12/2023, 21:05 - Ann: two\nlines <{tag}>",
        f"31/12/2023, 21:06 - Ann: <{tag}> is what it says",
        f"[31/12/2023, 21:06:00] Ann: hola {LRM}<{tag}>",
    )
    assert [text for _, text in said(log)] == ["hola amiga", "two\nlines", f"<{tag}> is what it says", "hola"]


@pytest.mark.parametrize(
    "text",
    [
        "This message was deleted by admin Bob",
        "This message was deleted by an admin",
        "You deleted this message as admin",
        "Diese Nachricht wurde von Admin Bob gelöscht.",
        "El admin. Bob eliminó este mensaje.",
        "Ce message a été supprimé par l'admin Bob",
        "Questo messaggio è stato eliminato dall'amministratore Bob",
        "Mensagem apagada pelo admin Bob",
        "Dit bericht is verwijderd door beheerder Bob",
        "此消息已被管理员Bob删除",
        "管理員 Bob 已刪除此訊息",
    ],
)
def test_what_an_admin_deleted_is_deleted(text: str) -> None:
    log = whatsapp(f"31/12/2023, 21:05 - Ann: {text}", f"31/12/2023, 21:05 - Ann: {text}\nwhy ?")
    assert [said_of for _, said_of in said(log)] == [f"{text}\nwhy ?"]
    assert log.left_out == {"deleted messages": 1}


@pytest.mark.parametrize(
    "text",
    [
        "Waiting for this message. This may take a while.",
        "Warte auf diese Nachricht. Dies kann etwas dauern.",
        "Esperando este mensaje. Esto podría tardar.",
        "En attente de ce message. Cela peut prendre du temps.",
        "In attesa del messaggio. Potrebbe richiedere del tempo.",
        "Aguardando mensagem. Essa ação pode levar alguns instantes.",
        "Wachten op dit bericht. Dit kan even duren.",
        "正在等待此消息。这可能需要一段时间。",
    ],
)
def test_what_has_not_come_is_no_message(text: str) -> None:
    begin = text.partition(".")[0].partition("。")[0]
    log = whatsapp(f"31/12/2023, 21:05 - Ann: {text}", f"31/12/2023, 21:05 - Ann: {begin}")
    assert said(log) == [("Ann", begin)]
    assert log.left_out == {"system messages": 1}


@pytest.mark.parametrize(
    "words",
    [
        "imagen omitida",
        "Bild weggelassen",
        "Kontaktkarte ausgelassen",
        "vidéo absente",
        "audio omesso",
        "figurinha omitida",
        "afbeelding weggelaten",
        "<adjunto: 00000012-PHOTO.jpg>",
    ],
)
def test_behind_its_mark_ios_names_what_was_sent(words: str) -> None:
    log = whatsapp(
        f"[31/12/23, 21:05:33] Ann: mira la playa {LRM}{words}",
        f"[31/12/23, 21:05:33] Ann: mira\nla playa\n{LRM}{words}",
        f"[31/12/23, 21:05:34] Ann: {LRM}{words}",
        f"[31/12/23, 21:05:35] Ann: {words}",
    )
    texts = ["mira la playa", "mira\nla playa", words]
    assert [text for _, text in said(log)] == texts
    assert log.left_out == {"media without text": 1}


def test_what_stands_for_media_in_other_languages_is_no_caption() -> None:
    log = whatsapp(
        f"[31/12/23, 21:05:33] Ann: merhaba {LRM}görüntü dahil edilmedi",
        f"[31/12/23, 21:05:34] Ann: hello {LRM}\u05ea\u05de\u05d5\u05e0\u05d4 \u05d4\u05d5\u05e9\u05de\u05d8\u05d4",
    )
    assert said(log) == [("Ann", "merhaba"), ("Ann", "hello")]


def test_chinese_phones() -> None:
    log = whatsapp(
        "2023/12/31 下午9:05 - 消息和通话都进行端到端加密。",
        "2023/12/31 下午9:05 - 小明: 你好：在吗？",
        "2023/12/31 上午12:01 - 小红: <省略多媒体文件>",
        "2024/1/1 凌晨1:30 - 小红: 此消息已删除",
        "2024/1/1 中午12:15 - 小红: 吃了",
        "2024/1/1 中午1:15 - 小红: 好",
        "[2024/1/1 晚上8:00:00] 小明: 图片已省略",
        "[2024/1/1 20:00:01] 小明: 我养了一只猫",
    )
    assert said(log) == [("小明", "你好：在吗？"), ("小红", "吃了"), ("小红", "好"), ("小明", "我养了一只猫")]
    assert [message.sent.hour for message in log.messages] == [21, 12, 13, 20]
    assert log.left_out == {"system messages": 1, "media without text": 2, "deleted messages": 1}


@pytest.mark.parametrize(
    ("lines", "sent"),
    [
        (["31.12.23, 21:05 - Ann: a"], datetime(2023, 12, 31, 21, 5)),
        (["31.12.2023 um 21.05 - Ann: a"], datetime(2023, 12, 31, 21, 5)),
        (["2023-12-31, 9:05 p.\u00a0m. - Ann: a"], datetime(2023, 12, 31, 21, 5)),
        (["31/12/2023 à 21:05 - Ann: a"], datetime(2023, 12, 31, 21, 5)),
        (["[31.12.23, 21:05:33] Ann: a"], datetime(2023, 12, 31, 21, 5, 33)),
        (["12/31/23, 12:05 am - Ann: a"], datetime(2023, 12, 31, 0, 5)),
        # Only the later line tells which of the two numbers is the month.
        (["3/4/24, 10:00 - Ann: a", "3/20/24, 10:00 - Ann: b"], datetime(2024, 3, 4, 10, 0)),
        (["3/4/24, 10:00 - Ann: a", "20/4/24, 10:00 - Ann: b"], datetime(2024, 4, 3, 10, 0)),
        # Both are dates, but read as day/month time would go back.
        (["1/11/24, 10:00 - Ann: a", "2/3/24, 10:00 - Ann: b"], datetime(2024, 1, 11, 10, 0)),
    ],
)
def test_dates_of_many_places(lines: list[str], sent: datetime) -> None:
    log = whatsapp(*lines)
    assert log.messages[0].sent == sent
    assert not log.remarks


def test_dates_that_nobody_can_tell_apart_are_said_and_can_be_settled() -> None:
    line = "03/04/2024, 10:00 - Ann: a"
    guessed = whatsapp(line)
    assert guessed.messages[0].sent == datetime(2024, 4, 3, 10, 0)
    assert guessed.remarks == (
        "dates are read as dmy: day and month could be the other way round; --date-order decides",
    )
    settled = whatsapp(line, date_order="mdy")
    assert settled.messages[0].sent == datetime(2024, 3, 4, 10, 0)
    assert not settled.remarks


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["hello"], "chat.txt:1: line: no message begins here: 'hello'; give WhatsApp's exported chat"),
        (["", ""], "chat.txt: file: holds no message"),
        (
            ["31/12/2023, 21:05 - Ann: a", "31/12/2023, 25:99 - Ann: b", "01/01/2024, 10:00 - Ann: c"],
            "chat.txt:2: date: 31/12/2023 25:99 is no date and time; export the chat again, or mend it",
        ),
    ],
)
def test_damage_names_the_line(lines: list[str], message: str) -> None:
    with pytest.raises(PersonalignError) as caught:
        whatsapp(*lines)
    assert message in str(caught.value)
