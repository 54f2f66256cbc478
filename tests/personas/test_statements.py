"""Sentences in the first person, in two languages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalign.personas.statements import Statements


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
