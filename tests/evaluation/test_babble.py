import random

import pytest

from personalign.evaluation.babble import HELD_OUT, KINDS, TRAINED_ON, babble_rows, babbler
from personalign.evaluation.judge import NEUTRAL

REPLIES = ["i have two dogs and a cat .", "no , i work at night .", "do you like tea ?", "yes"]
WORDS = {word for reply in REPLIES for word in reply.split()}
LINE = "i keep seven bees ."


def test_every_kind_is_trained_on_or_held_out() -> None:
    assert sorted([*TRAINED_ON, *HELD_OUT]) == sorted(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_babble_has_the_words_it_should(kind: str) -> None:
    made_by = babbler(REPLIES)
    shuffle = random.Random(1)
    allowed = WORDS | (set(LINE.split()) if "line" in kind else set())
    for _ in range(50):
        words = made_by.make(kind, line=LINE, shuffle=shuffle).split()
        assert words
        if kind != "pieces":
            assert set(words) <= allowed
        if kind == "shuffled_line":
            assert set(LINE.split()) <= set(words)
        if kind in ("repeated", "repeated_line", "stuck"):
            assert max(words.count(word) for word in words) >= 3


def test_rows_are_neutral_of_every_kind_alike_and_repeatable() -> None:
    made_by = babbler(REPLIES)
    rows = babble_rows(made_by, [LINE], kinds=TRAINED_ON, count=24, seed=3)
    assert len(rows) == 24
    assert {row.label for row in rows} == {NEUTRAL}
    assert {row.premise for row in rows} == {LINE}
    assert rows == babble_rows(made_by, [LINE], kinds=TRAINED_ON, count=24, seed=3)
    assert rows != babble_rows(made_by, [LINE], kinds=TRAINED_ON, count=24, seed=4)


@pytest.mark.parametrize("kind", KINDS)
def test_chinese_babble_is_of_characters_and_never_the_line_itself(kind: str) -> None:
    line = "我养了七只蜜蜂"
    made_by = babbler(["我有两只狗和一只猫。", "不，我晚上上班。", "你喜欢喝茶吗？"])
    shuffle = random.Random(1)
    for _ in range(50):
        said = made_by.make(kind, line=line, shuffle=shuffle)
        assert said
        assert " " not in said
        assert line not in said
