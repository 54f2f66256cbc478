"""The counts, against numbers counted by hand."""

import pytest

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.statistics import count_words, statistics

DIALOGUES = [
    Dialogue(
        "a",
        ("I keep bees.", "I am tall."),
        (Turn("user", "any pets ?"), Turn("assistant", "only bees"), Turn("assistant", "and you ?")),
        candidates=(("x", "y", "only bees"), ()),
        relevant=((0,), ()),
        person="p",
    ),
    Dialogue("b", ("i am tall", "i keep bees"), (Turn("assistant", "hi"),), relevant=((),), person="p"),
    Dialogue("c", (), (), partner_persona=("x",)),
]


def test_every_count() -> None:
    counts = statistics(DIALOGUES)
    assert (counts.dialogues, counts.turns, counts.examples) == (3, 4, 3)
    assert counts.turns_per_dialogue == pytest.approx(4 / 3)
    assert counts.longest_dialogue == 3
    assert counts.words_per_turn == pytest.approx((3 + 2 + 3 + 1) / 4)
    assert counts.words_per_reply == pytest.approx((2 + 3 + 1) / 3)
    assert (counts.persona_lines, counts.distinct_persona_lines, counts.distinct_persona_sets) == (4, 4, 1)
    assert counts.lines_per_persona == 2
    assert (counts.without_persona, counts.with_partner_persona, counts.people) == (1, 1, 1)
    assert counts.labelled_examples == 3
    assert counts.share_of_none == pytest.approx(2 / 3)
    assert (counts.candidate_lists, counts.candidates_per_list) == (1, 3)
    assert (counts.without_reply, counts.starting_with_assistant, counts.with_turns_in_a_row) == (1, 1, 1)


def test_nothing_has_no_means() -> None:
    counts = statistics([])
    assert counts.dialogues == counts.turns == counts.longest_dialogue == 0
    assert counts.share_of_none is counts.words_per_turn is counts.candidates_per_list is None


@pytest.mark.parametrize(
    ("text", "words"),
    [("i keep bees .", 4), ("我养蜜蜂", 4), ("我有3只 cat", 5), ("こんにちは", 5), ("", 0), ("🐝 🐝", 2)],
)
def test_words(text: str, words: int) -> None:
    assert count_words(text) == words
