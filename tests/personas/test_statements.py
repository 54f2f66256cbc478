"""Sentences in the first person, in two languages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalign.personas.statements import Statements, content_words, has_word


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
    ],
)
def test_words_are_found_whole(text: str, word: str, found: bool) -> None:
    assert has_word(text, word) == found


def test_words_that_tell_something() -> None:
    assert content_words("I have two dogs , and my DOGS like it") == ["dogs"]
    assert content_words("我有一只狗") == ["只", "狗"]
