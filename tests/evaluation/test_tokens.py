from hypothesis import given
from hypothesis import strategies as st

from personalign.evaluation.tokens import tokens, words, words_and_marks


def test_english_tokens_are_cut_at_white_space_only() -> None:
    assert tokens("i don't , really.\tNo") == ["i", "don't", ",", "really.", "No"]


def test_chinese_tokens_are_characters_and_whole_runs_of_other_letters() -> None:
    assert tokens("我有2只 dog，好。", language="zh") == ["我", "有", "2", "只", "dog", "，", "好", "。"]


def test_marks_are_split_off_and_apostrophes_kept() -> None:
    assert words_and_marks("don't,really... ok?") == ["don't", ",", "really", ".", ".", ".", "ok", "?"]


def test_words_are_lower_case_without_marks() -> None:
    assert words("I LIKE it , 2 _ much !") == ["i", "like", "it", "2", "much"]
    assert words("我爱Go，真的。", language="zh") == ["我", "爱", "go", "真", "的"]


def test_an_underscore_is_a_mark() -> None:
    assert words_and_marks("_foo _ a_b don't_") == ["_", "foo", "_", "a", "_", "b", "don't", "_"]
    assert words("_foo __init__ 我_x", language="zh") == ["foo", "init", "我", "x"]
    assert words("_foo") == ["foo"]


@given(st.text())
def test_no_character_but_white_space_is_lost(text: str) -> None:
    kept = "".join(text.split())
    assert "".join(tokens(text)) == kept
    assert "".join("".join(tokens(text, language="zh")).split()) == kept
    assert "".join(words_and_marks(text)) == kept
