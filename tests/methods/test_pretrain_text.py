"""Dialogue that a backbone is made of: values that can only be copied, spacing, placeholders."""

import re
from dataclasses import replace

import pytest
from tests.methods.made_runs import baker, greeter

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.synthetic import foreign_values, generate, vocabulary, with_made_up_values
from personalign.data.synthetic.grammar import find_values, grammar
from personalign.errors import PersonalignError
from personalign.methods.pretrain_recipe import SyntheticText
from personalign.methods.pretrain_text import filled_in, synthetic_text, unspaced, words_of

WORDS = [f"quux{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"]


def texts(dialogue: Dialogue) -> list[str]:
    return [*dialogue.persona, *dialogue.partner_persona, *(turn.content for turn in dialogue.messages)]


def test_foreign_values_stand_wherever_the_old_ones_stood() -> None:
    corpus = generate("en", seed=1, people={"train": 30}).train
    given = foreign_values(corpus, WORDS, seed=1)
    for old, new in zip(corpus, given, strict=True):
        assert new.relevant == old.relevant
        renamed: dict[str, str] = {}
        for before, after in zip(texts(old), texts(new), strict=True):
            assert not list(find_values(after, language="en"))
            words, others = before.split(), after.split()
            assert len(words) == len(others)
            changed = {a: b for a, b in zip(words, others, strict=True) if a != b}
            assert set(changed) == {value for _, value in find_values(before, language="en")}
            for value, word in changed.items():
                assert renamed.setdefault(value, word) == word
        assert len(set(renamed.values())) == len(renamed)
        for turn, row in zip(new.reply_indices(), new.extra["truth"], strict=True):
            assert row["value"] is None or row["value"] in new.messages[turn].content.split()


def test_too_few_words_are_refused() -> None:
    corpus = generate("en", seed=1, people={"train": 1}).train
    with pytest.raises(PersonalignError, match=r"train-00000-0 has .* values, but there are 2 words"):
        foreign_values(corpus, WORDS[:2], seed=1)


def test_shares_of_the_synthetic_dialogues_are_changed_and_all_four_kinds_are_there() -> None:
    talk = replace(baker(), messages=(Turn("user", " ".join(WORDS)),))
    settings = SyntheticText(people=200, words=0.5, unspaced=0.25)
    made = synthetic_text(settings, [talk], language="en", seed=1)
    assert made == synthetic_text(settings, [talk], language="en", seed=1)
    kinds = [
        (any("quux" in text for text in texts(item)), not any(" ." in text for text in texts(item)))
        for item in made
    ]
    assert abs(sum(words for words, _ in kinds) - 100) < 25
    assert abs(sum(spaced for _, spaced in kinds) - 50) < 25
    assert len(set(kinds)) == 4
    plain = synthetic_text(SyntheticText(people=20), [], language="zh", seed=1)
    assert plain == list(generate("zh", seed=1, people={"train": 20}).train)


def test_no_word_is_one_of_the_grammar() -> None:
    talk = replace(baker(), messages=(Turn("user", "The frog and the FERRET, don't: ukulele! A yak."),))
    assert words_of([talk], but_not=vocabulary("en")) == ["ukulele"]
    assert {value for kind in grammar("en").kinds for value in kind.unseen} <= set(vocabulary("en"))


def test_unspaced_is_as_people_write() -> None:
    talk = replace(baker(), messages=(Turn("user", "well , is it ? yes . 3 . 5"), Turn("assistant", "oh no")))
    assert [turn.content for turn in unspaced(talk).messages] == ["well, is it? yes. 3. 5", "oh no"]


def test_placeholders_are_filled_alike_within_a_dialogue() -> None:
    one = replace(
        greeter(),
        messages=(
            Turn("user", "I am [user 1's name]."),
            Turn("assistant", "Hi [user 1's name], I am [Name]. [laughs]"),
        ),
    )
    choices = {r"(?i)\[[^\]]*name\]": ["anna", "ben", "tom"]}
    many = filled_in([replace(one, id=str(at)) for at in range(40)], choices, seed=1)
    found = set()
    for item in many:
        said = " ".join(turn.content for turn in item.messages)
        match = re.fullmatch(r"I am (\w+)\. Hi (\w+), I am (\w+)\. \[laughs\]", said)
        assert match is not None
        assert match[1] == match[2]
        found |= set(match.groups())
    assert found == {"anna", "ben", "tom"}


def test_made_up_words_stand_for_values_in_a_share_of_the_dialogues() -> None:
    corpus = generate("en", seed=1, people={"train": 60, "unseen": 5})
    given = with_made_up_values(corpus.train, share=0.5, seed=1)
    assert given == with_made_up_values(corpus.train, share=0.5, seed=1)
    changed = [new for old, new in zip(corpus.train, given, strict=True) if new != old]
    assert 20 <= len(changed) <= 40
    words = set()
    for dialogue in changed:
        assert not [value for text in texts(dialogue) for value in find_values(text, language="en")]
        words |= {row["value"] for row in dialogue.extra["truth"] if row["value"]}
    assert all(re.fullmatch("[a-z]{4,}", word) for word in words)
    # Hardly a word is told of two people, and none is a value that is kept for test.
    assert len(words) > 0.8 * sum(row["value"] is not None for d in changed for row in d.extra["truth"])
    assert with_made_up_values(corpus.train, share=0.0, seed=1) == list(corpus.train)
