import dataclasses
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalign.data.dialogue import Dialogue
from personalign.data.synthetic import (
    SyntheticOracle,
    generate,
    nli_pairs,
    shuffle_personas,
    stated,
    swap_personas,
    vocabulary,
)
from personalign.data.synthetic.grammar import find_months, grammar
from personalign.data.synthetic.oracle import since
from personalign.errors import PersonalignError

LANGUAGES = ("en", "zh")
both_languages = pytest.mark.parametrize("language", LANGUAGES)


@pytest.mark.parametrize(
    ("line", "reply", "label"),
    [
        ("i have a dog .", "my pet is a dog .", "entailment"),
        ("i have a dog .", "My pet? A DOG!", "entailment"),
        ("i have a dog .", "dog dog i a", "entailment"),
        ("i have a dog .", "i have a cat .", "contradiction"),
        ("i have a dog .", "i have a dog and a cat .", "contradiction"),
        ("i have a dog .", "i live in paris .", "neutral"),
        ("i have a dog .", "i live in paris with a dog .", "entailment"),
        ("i have a dog .", "i would rather not say .", "neutral"),
        ("i have a dog .", "", "neutral"),
        ("i love pop music .", "that is popular .", "neutral"),
        ("i am tall .", "i have a cat .", "neutral"),
    ],
)
def test_english_labels(line: str, reply: str, label: str) -> None:
    assert SyntheticOracle("en").judge([(line, reply)]) == [label]
    assert SyntheticOracle("en").is_right(reply, line=line) == (label == "entailment")


@pytest.mark.parametrize(
    ("line", "reply", "label"),
    [
        ("我爱喝牛奶。", "我喜欢喝牛奶。", "entailment"),
        ("我和奶奶住在一起。", "我喜欢喝牛奶。", "neutral"),
        ("我爱喝牛奶。", "我喜欢喝绿茶。", "contradiction"),
        ("我最喜欢绿色。", "我喜欢喝绿茶。", "neutral"),
        ("我会演奏大提琴。", "我会小提琴。", "contradiction"),
        ("我会说法语。", "我不想说。", "neutral"),
    ],
)
def test_chinese_labels(line: str, reply: str, label: str) -> None:
    assert SyntheticOracle("zh").judge([(line, reply)]) == [label]


DATED_EN = ("i have a dog since june .", "i live in paris since may .")
DATED_ZH = ("我养了小狗，从三月起。", "我住在北京，从五月起。")


@pytest.mark.parametrize(
    ("language", "line", "reply", "label"),
    [
        # Two facts, each with its own month.
        ("en", DATED_EN[0], "i have a dog since june . i live in paris since may .", "entailment"),
        ("en", DATED_EN[1], "i have a dog since june . i live in paris since may .", "entailment"),
        ("en", DATED_EN[0], "i live in paris since may , with a dog since june .", "entailment"),
        ("en", DATED_EN[0], "i have a dog since may . i live in paris since june .", "contradiction"),
        ("en", DATED_EN[1], "i have a dog since may . i live in paris since june .", "contradiction"),
        ("en", DATED_EN[0], "i have a dog . i live in paris since may .", "entailment"),
        ("en", DATED_EN[1], "i have a dog . i live in paris since june .", "contradiction"),
        ("en", DATED_EN[0], "i have a dog since june . i live in rome since april .", "entailment"),
        ("zh", DATED_ZH[0], "我有小狗，从三月起。我家在北京，从五月起。", "entailment"),
        ("zh", DATED_ZH[1], "我有小狗，从三月起。我家在北京，从五月起。", "entailment"),
        ("zh", DATED_ZH[0], "我有小狗，从五月起。我家在北京，从三月起。", "contradiction"),
        ("zh", DATED_ZH[1], "我有小狗，从五月起。我家在北京，从三月起。", "contradiction"),
        ("zh", DATED_ZH[0], "我有小狗。我家在北京，从五月起。", "entailment"),
        # One fact.
        ("en", DATED_EN[0], "i have a dog since june .", "entailment"),
        ("en", DATED_EN[0], "i have a dog .", "entailment"),
        ("en", DATED_EN[0], "i have a dog since may .", "contradiction"),
        ("en", DATED_EN[0], "since may i have a dog .", "contradiction"),
        ("en", DATED_EN[0], "since june i have a dog .", "entailment"),
        ("en", DATED_EN[0], "i have a dog since june or may .", "contradiction"),
        ("en", "i have a dog .", "i have a dog since may .", "entailment"),
        ("en", DATED_EN[0], "since june .", "neutral"),
        ("zh", DATED_ZH[0], "我有小狗，从五月起。", "contradiction"),
        ("zh", DATED_ZH[0], "从五月起，我有小狗。", "contradiction"),
        ("zh", DATED_ZH[0], "从三月起。", "neutral"),
    ],
)
def test_a_month_belongs_to_the_value_before_it(language: str, line: str, reply: str, label: str) -> None:
    assert SyntheticOracle(language).judge([(line, reply)]) == [label]


def test_stated_keeps_the_order_and_every_value() -> None:
    found = stated("a cat , a dog , a cat in rome", language="en")
    assert found == {"pet": ("cat", "dog"), "city": ("rome",)}


def test_an_unknown_language_is_refused_at_once() -> None:
    with pytest.raises(PersonalignError, match="write en or zh"):
        SyntheticOracle("de")


@both_languages
@given(data=st.data())
def test_any_jumble_of_words_is_read(language: str, data: st.DataObject) -> None:
    known_words = [*vocabulary(language), *grammar(language).months]
    words = data.draw(st.lists(st.sampled_from(known_words) | st.text(max_size=5), max_size=12))
    text = " ".join(words)
    found, months = stated(text, language=language), since(text, language=language)
    assert months.keys() == found.keys()
    assert not found or set().union(*months.values()) == set(find_months(text, language=language))
    for kind, values in found.items():
        known = grammar(language).kind(kind)
        assert values
        assert set(values) <= {*known.seen, *known.unseen}
    if language == "en":
        named = {value for kind in grammar("en").kinds for value in kind.seen + kind.unseen} & set(words)
        assert named <= {value for values in found.values() for value in values}


@both_languages
@pytest.mark.parametrize("part", ["train", "stop", "test"])
def test_nli_pairs_are_balanced_and_the_oracle_agrees(language: str, part: str) -> None:
    pairs = nli_pairs(language, size=300, seed=1, part=part)  # type: ignore[arg-type]
    assert Counter(pair.label for pair in pairs) == {"entailment": 100, "neutral": 100, "contradiction": 100}
    judged = SyntheticOracle(language).judge([(pair.premise, pair.hypothesis) for pair in pairs])
    assert judged == [pair.label for pair in pairs]
    silent = [
        pair for pair in pairs if pair.label == "neutral" and not stated(pair.hypothesis, language=language)
    ]
    assert 25 < len(silent) < 75
    assert pairs == nli_pairs(language, size=300, seed=1, part=part)  # type: ignore[arg-type]
    assert pairs != nli_pairs(language, size=300, seed=2, part=part)  # type: ignore[arg-type]


def labels(dialogue: Dialogue, persona: tuple[str, ...]) -> list[list[str]]:
    oracle = SyntheticOracle(dialogue.extra["language"])
    replies = [dialogue.messages[index].content for index in dialogue.reply_indices()]
    return [oracle.judge([(line, reply) for line in persona]) for reply in replies]


@both_languages
@pytest.mark.parametrize("split", ["test", "unseen"])
def test_swapped_replies_suit_the_new_person_and_contradict_the_old(language: str, split: str) -> None:
    dialogues = generate(language, seed=4, people={split: 40}).splits()[split]  # type: ignore[index]
    swapped = swap_personas(dialogues, seed=0)
    assert len(swapped) == 40
    for old, new in zip(dialogues, swapped, strict=True):
        assert new.relevant == old.relevant
        assert [t for t in new.messages if t.role == "user"] == [t for t in old.messages if t.role == "user"]
        for relevant, on_new, on_old, row, index in zip(
            new.relevant or (),
            labels(new, new.persona),
            labels(new, old.persona),
            new.extra["truth"],
            new.reply_indices(),
            strict=True,
        ):
            for place in range(len(new.persona)):
                assert on_new[place] == ("entailment" if place in relevant else "neutral")
                assert on_old[place] == ("contradiction" if place in relevant else "neutral")
            if relevant:
                told = stated(new.messages[index].content, language=language)
                assert told == {row["kind"]: (row["value"],)}
        partner_values = [stated(line, language=language) for line in new.partner_persona]
        assert not any(stated(line, language=language) in partner_values for line in new.persona)
        kinds = [
            grammar(language).kind(name) for line in new.persona for name in stated(line, language=language)
        ]
        values = [value[0] for line in new.persona for value in stated(line, language=language).values()]
        for kind, value in zip(kinds, values, strict=True):
            assert value in (kind.unseen if split == "unseen" else kind.seen)


def test_swapping_depends_on_the_seed_alone() -> None:
    dialogues = generate("en", seed=4, people={"test": 5}).test
    random.seed(1)
    once = swap_personas(dialogues, seed=0)
    random.seed(2)
    assert swap_personas(dialogues, seed=0) == once
    assert swap_personas(dialogues, seed=1) != once


@both_languages
def test_shuffled_personas_are_those_of_others_and_fit_only_by_chance(language: str) -> None:
    dialogues = generate(language, seed=4, people={"test": 60}, sessions_per_person=2).test
    shuffled = shuffle_personas(dialogues, seed=0)
    fitting = wanted = 0
    for old, new in zip(dialogues, shuffled, strict=True):
        assert new.messages == old.messages
        assert new.persona != old.persona
        assert dataclasses.replace(new, persona=old.persona, relevant=old.relevant) == old
        for relevant, before, row in zip(
            new.relevant or (), old.relevant or (), labels(new, new.persona), strict=True
        ):
            assert list(relevant) == [place for place, label in enumerate(row) if label == "entailment"]
            fitting += bool(relevant)
            wanted += bool(before)
    assert wanted > 100
    assert fitting / wanted < 0.1


def test_one_person_alone_cannot_be_shuffled() -> None:
    dialogues = generate("en", seed=4, people={"test": 1}, sessions_per_person=3).test
    with pytest.raises(PersonalignError, match="two or more people"):
        shuffle_personas(dialogues, seed=0)
    assert shuffle_personas([], seed=0) == []


def test_other_dialogues_are_refused() -> None:
    with pytest.raises(PersonalignError, match="dialogue mine has no language"):
        swap_personas([Dialogue(id="mine", persona=("i have a dog .",), messages=())], seed=0)
