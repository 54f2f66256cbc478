import json
from collections import Counter
from pathlib import Path

import pytest

from personalign.errors import PersonalignError
from personalign.evaluation.judge import CONTRADICTION, ENTAILMENT, NEUTRAL
from personalign.evaluation.nli_triples import ONE_OF, OPPOSITES, Fact, pairs_of_facts, read_facts

PETS = ["dog", "cat", "parrot", "snake", "horse"]
FACTS = [
    *(Fact(f"i own a {pet} {n}", "i", "have_pet", pet) for pet in PETS for n in range(4)),
    *(
        Fact(f"my favorite color is {c} {n}", "my", "favorite_color", c)
        for c in ("red", "blue", "green")
        for n in range(4)
    ),
    *(Fact(f"i eat {food} {n}", "i", "like_food", food) for food in ("fish", "rice") for n in range(3)),
    *(Fact(f"i hate {food} {n}", "i", "dislike_food", food) for food in ("fish", "rice") for n in range(3)),
    Fact("my father owns a dog", "my father", "have_pet", "dog"),
]
FACT_OF = {fact.text: fact for fact in FACTS}


def test_labels_follow_from_the_facts() -> None:
    rows = pairs_of_facts(FACTS, limit=120, seed=1)
    assert Counter(row.label for row in rows) == {ENTAILMENT: 40, NEUTRAL: 40, CONTRADICTION: 40}
    polar = 0
    for row in rows:
        first, second = FACT_OF[row.premise], FACT_OF[row.hypothesis]
        same = first.relation == second.relation
        if row.label == ENTAILMENT:
            assert same
            assert first.object == second.object
        elif row.label == CONTRADICTION and same:
            assert first.relation == "favorite_color"
            assert first.object != second.object
        elif row.label == CONTRADICTION:
            assert {first.relation, second.relation} == {"like_food", "dislike_food"}
            assert first.object == second.object
            polar += 1
        elif same:
            assert first.relation not in ONE_OF
            assert first.object != second.object
        if same:
            assert ("father" in row.premise) == ("father" in row.hypothesis)
    assert polar > 5
    assert any(
        FACT_OF[row.premise].relation == FACT_OF[row.hypothesis].relation == "have_pet"
        for row in rows
        if row.label == NEUTRAL
    )


def test_no_pair_stands_there_twice_and_seeds_repeat() -> None:
    rows = pairs_of_facts(FACTS, limit=10_000, seed=1)
    keys = [frozenset((row.premise, row.hypothesis)) for row in rows]
    assert len(keys) == len(set(keys))
    assert rows == pairs_of_facts(FACTS, limit=10_000, seed=1)
    assert rows != pairs_of_facts(FACTS, limit=10_000, seed=2)


def test_a_plural_is_no_other_pet() -> None:
    facts = [Fact("i have a dog", "i", "have_pet", "dog"), Fact("my two dogs", "i", "have_pet", "two dogs")]
    assert not [row for row in pairs_of_facts(facts, limit=9, seed=0) if row.label == NEUTRAL]


def test_opposites_of_two_people_do_not_contradict() -> None:
    facts = [
        Fact("i love pizza", "i", "like_food", "pizza"),
        Fact("my brother hates pizza", "my brother", "dislike_food", "pizza"),
    ]
    assert not [row for row in pairs_of_facts(facts, limit=9, seed=0) if row.label == CONTRADICTION]


def test_all_facts_of_a_text_speak_to_its_label() -> None:
    facts = [
        Fact("i have two dogs and live in nyc", "i", "have_pet", "two dogs"),
        Fact("i have two dogs and live in nyc", "i", "live_in_general", "nyc"),
        Fact("nyc is my home", "i", "live_in_general", "nyc"),
        Fact("i am 30 and single", "i", "has_age", "30"),
        Fact("i am 30 and single", "i", "marital_status", "single"),
        Fact("i am 30 and married", "i", "has_age", "30"),
        Fact("i am 30 and married", "i", "marital_status", "married"),
    ]
    labels = {
        frozenset((row.premise, row.hypothesis)): row.label for row in pairs_of_facts(facts, limit=90, seed=0)
    }
    assert labels[frozenset(("i have two dogs and live in nyc", "nyc is my home"))] == ENTAILMENT
    assert labels[frozenset(("i am 30 and single", "i am 30 and married"))] == CONTRADICTION
    assert labels[frozenset(("nyc is my home", "i am 30 and single"))] == NEUTRAL


def test_nothing_to_pair_gives_nothing() -> None:
    assert pairs_of_facts([], limit=9, seed=0) == []
    assert pairs_of_facts(FACTS[:1], limit=9, seed=0) == []


def test_opposites_are_no_relation_of_one_value() -> None:
    assert not {relation for pair in OPPOSITES for relation in pair} & ONE_OF


def test_facts_are_read_and_faults_named(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    path.write_text(
        json.dumps({"text": "I own a Dog.", "triples": [["I", "have_pet", "Dog"], ["i", "x", "y"]]}) + "\n"
    )
    assert read_facts(path) == [
        Fact("I own a Dog.", "i", "have_pet", "dog"),
        Fact("I own a Dog.", "i", "x", "y"),
    ]
    path.write_text('{"text": "a", "triples": [["i", "x"]]}\n')
    with pytest.raises(PersonalignError, match=r"line 1, field 'triples': \['i', 'x'\] is not"):
        read_facts(path)
    path.write_text('{"text": "a"}\n')
    with pytest.raises(PersonalignError, match="line 1: expected"):
        read_facts(path)
