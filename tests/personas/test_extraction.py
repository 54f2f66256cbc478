"""Scores of extraction, the split by sentence, and which messages are persona-intensive."""

from collections.abc import Sequence

import pytest

from personalign.data.dialogue import Dialogue, Turn
from personalign.errors import PersonalignError
from personalign.evaluation.nli_triples import Fact
from personalign.personas.extraction import (
    BySentence,
    Triple,
    gold_triples,
    persona_intensive,
    score_extraction,
    sentences_of,
    split_facts,
)

DOG, CAT, JOB = (
    Triple("i", "have_pet", "a dog"),
    Triple("i", "have_pet", "cats"),
    Triple("my mom", "job", "a vet"),
)


class Fake:
    """Finds what it is told to."""

    name = "fake"

    def __init__(self, **found: Triple) -> None:
        self.found = found

    def triples(self, texts: Sequence[str]) -> list[tuple[Triple, ...]]:
        return [(self.found[text],) if text in self.found else () for text in texts]


def test_one_wrong_element_makes_a_triple_false() -> None:
    gold = [(DOG,), (JOB,), (CAT,)]
    found = [(DOG,), (JOB._replace(subject="i"),), (CAT._replace(relation="like"),)]
    scores = score_extraction(gold, found)
    assert (scores.texts, scores.gold) == (3, 3)
    assert scores.exact_match == pytest.approx(1 / 3)
    assert scores.f1 == pytest.approx(1 / 3)
    assert (scores.subject_f1, scores.relation_f1, scores.object_f1) == pytest.approx((2 / 3, 2 / 3, 1.0))


def test_f1_counts_what_is_missing_and_what_is_too_much() -> None:
    scores = score_extraction([(DOG, CAT), (), (JOB,)], [(DOG,), (CAT,), ()])
    assert scores.exact_match == pytest.approx(1 / 3)
    # One of two found is right, one of three is found.
    assert scores.f1 == pytest.approx(2 * 1 / (3 + 2))
    # "i" twice is found once.
    assert scores.subject_f1 == pytest.approx(2 * 1 / (3 + 2))
    assert score_extraction([()], [()]).f1 == 1.0


def test_case_and_punctuation_make_no_difference() -> None:
    assert (
        score_extraction(
            [(Triple("I", "like", "rock 'n' roll"),)], [(Triple("i", "like", "Rock n roll !"),)]
        ).f1
        == 1
    )


def test_sentences_are_split_and_not_facts() -> None:
    facts = [Fact(f"sentence {at // 2}", "i", "like", f"thing {at}") for at in range(40)]
    learnt, held_out = split_facts(facts, held_out=0.1, seed=1)
    assert (len(learnt), len(held_out)) == (36, 4)
    assert not {fact.text for fact in learnt} & {fact.text for fact in held_out}
    assert split_facts(facts, held_out=0.1, seed=1) == (learnt, held_out)
    assert split_facts(facts, held_out=0.1, seed=2)[1] != held_out
    assert gold_triples(held_out)[held_out[0].text] == tuple(Triple(*fact_of) for fact_of in (
        (fact.subject, fact.relation, fact.object) for fact in held_out if fact.text == held_out[0].text
    ))  # fmt: skip
    alike = [Fact("I have a dog.", "i", "pet", "dog"), Fact("i have a dog .", "i", "pet", "dog"), facts[0]]
    for seed in range(9):
        assert {len(part) for part in split_facts(alike, held_out=0.5, seed=seed)} == {1, 2}
    with pytest.raises(PersonalignError, match="1 sentences cannot be split"):
        split_facts(facts[:2], held_out=0.1, seed=1)


def talk(*texts: str) -> Dialogue:
    roles = ("user", "assistant")
    return Dialogue("d", (), tuple(Turn(roles[at % 2], text) for at, text in enumerate(texts)))  # type: ignore[arg-type]


def test_messages_with_the_object_of_a_fact_are_persona_intensive() -> None:
    dialogue = talk("pets?", "I have  a Dog", "ok", "hello", "i have cats", "no dog")
    found = {"I have  a Dog": DOG, "no dog": CAT, "i have cats": CAT}
    # The partner's facts do not count, nor a fact whose object is not said.
    assert persona_intensive(dialogue, Fake(**found)) == ["I have  a Dog"]
    assert persona_intensive(dialogue, Fake()) == ["I have  a Dog", "hello", "no dog"]


class FirstWord:
    """Finds one fact a text: its first word."""

    name = "first word"

    def triples(self, texts: Sequence[str]) -> list[tuple[Triple, ...]]:
        return [(Triple("i", "say", text.split()[0]),) if text else () for text in texts]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        (
            "I live in Lyon\nI have diabetes.  And a dog!",
            ["I live in Lyon", "I have diabetes.", "And a dog!"],
        ),
        ("i ran 3.5 km to example.org . fine", ["i ran 3.5 km to example.org .", "fine"]),
        ("我住在里昂。我有一只狗！真的？", ["我住在里昂。", "我有一只狗！", "真的？"]),
        (" \n", []),
    ],
)
def test_a_message_is_cut_into_sentences(text: str, sentences: list[str]) -> None:
    assert sentences_of(text) == sentences


def test_every_sentence_of_a_message_is_asked_for_its_fact() -> None:
    found = BySentence(FirstWord()).triples(["dogs bark. cats purr\ndogs run", "", "one"])
    assert [[triple.object for triple in facts] for facts in found] == [["dogs", "cats"], [], ["one"]]
