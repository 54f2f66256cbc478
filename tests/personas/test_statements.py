"""Sentences in the first person, in two languages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalign.personas.statements import Statements, _folded, content_words, has_word, messages_with


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Yes. I have two dogs! And you?", ["I have two dogs!"]),
        ("my brother lives in Lyon\nnice weather", ["my brother lives in Lyon"]),
        ("do i know you ?", []),
        ("it is late .", []),
        ("i see", []),
        ("有。我有一只狗。你呢？", ["我有一只狗。"]),
        ("我可以来吗？", []),
        ("我好", []),
        ("I'm a nurse", ["I'm a nurse"]),
        ("IKEA is big, idiots like it", []),
    ],
)
def test_what_somebody_says_of_themselves(text: str, said: list[str]) -> None:
    assert [fact.object for fact in Statements().triples([text])[0]] == said


@given(st.lists(st.text(max_size=60), max_size=4))
def test_every_statement_stands_in_its_text(texts: list[str]) -> None:
    for text, facts in zip(texts, Statements().triples(texts), strict=True):
        assert all(fact.object in " ".join(text.split()) for fact in facts)


@pytest.mark.parametrize(
    ("text", "word", "found"),
    [
        ("I have Diabetes.", "diabetes", True),
        ("prediabetes", "diabetes", False),
        ("room 42 !", "42", True),
        ("我有糖尿病。", "糖尿病", True),
        ("it is (me)", "me", True),
        ("a.b", "b", True),
        # No spaces between words, or endings that are glued to them.
        ("昨日ハナコと会った", "ハナコ", True),
        ("昨日はなこと会った", "はなこ", True),
        ("昨日ﾊﾅｺと会った", "ハナコ", True),
        ("지민이가 왔어", "지민", True),
        ("เมื่อวานเจอสมชายที่ตลาด", "สมชาย", True),
        ("ຂ້ອຍຮັກສົມໃຈຫຼາຍ", "ສົມໃຈ", True),
        ("ខ្ញុំស្រឡាញ់សុខា", "សុខា", True),
        ("မောင်အောင်လာတယ်", "အောင်", True),
        ("我和佐々木说了", "佐々木", True),
        ("𠮷田さんが来た", "𠮷田", True),
        ("昨日Annと会った", "ann", True),
        ("昨日Annaと会った", "ann", False),
        ("2024年に", "2024", True),
        ("昨日Hanako先生と", "nako先生", False),
        # One word, typed in several ways.
        ("I met O\u2019Brien.", "O'Brien", True),
        ("I met O'Brien's dog", "o\u2019brien", True),
        ("Jose\u0301 came", "jos\u00e9", True),
        ("jos\u00e9 came", "JOSE\u0301", True),
        ("Ｈａｎａ came", "hana", True),
        ("STRASSE 7", "straße", True),
        ("İstanbul is far", "istanbul", True),
        ("dia\u00adbe\u200btes", "diabetes", True),
        ("Jean\u2011Luc", "jean-luc", True),
        ("San\n Francisco", "san francisco", True),
        ("Jos\u00e9phine came", "Jos\u00e9", False),
        ("anything", " \u200e", False),
    ],
)
def test_words_are_found_whole(text: str, word: str, found: bool) -> None:
    assert has_word(text, word) == found


@given(st.text(max_size=20), st.text(min_size=1, max_size=6), st.text(max_size=20))
def test_a_word_between_blanks_is_found(before: str, word: str, behind: str) -> None:
    assert has_word(f"{before} {word} {behind}", word) == bool(_folded(word))


def test_messages_are_counted_word_by_word() -> None:
    texts = ["i have a dog", "my dog, my Dog", "a cat"]
    assert messages_with(texts, ["dog", "cat", "fish", "dog"]) == {"dog": 2, "cat": 1, "fish": 0}


def test_words_that_tell_something() -> None:
    assert content_words("I have two dogs , and my DOGS like it") == ["dogs"]
    assert content_words("我有一只狗") == ["只", "狗"]
