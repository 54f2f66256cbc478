"""Who is told before whom: in training by what a session says, in a test never by what it says."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.methods.made_runs import prompter

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.people import Person, people_of
from personalign.data.synthetic import SyntheticOracle, generate
from personalign.evaluation.judge import OracleJudge
from personalign.methods import idl_sessions
from personalign.methods.extractors import GrammarExtractor, open_extractor
from personalign.methods.idl_criteria import MadeTriple, triple_maker, verified
from personalign.methods.idl_recipe import Sessions
from personalign.methods.idl_sessions import (
    People,
    Told,
    read_people,
    told_in_test,
    told_in_training,
    told_to,
)
from personalign.personas.extraction import Triple

EVERY = Sessions(identification="every", references=3)


class Encoder:
    """Texts are alike as far as they share words."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        words = sorted({word for text in texts for word in text.lower().split()})
        rows = np.array([[word in text.lower().split() for word in words] for text in texts], dtype=float)
        found: np.ndarray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-9)
        return found


CORPUS = generate("en", seed=4, people={"train": 4}, sessions_per_person=7, exchanges=2)
PEOPLE = people_of(CORPUS.train)


def read(people: Sequence[Person], settings: Sessions = EVERY) -> People:
    return read_people(
        people,
        settings,
        encoder=Encoder(),  # type: ignore[arg-type]
        extractor=GrammarExtractor("en"),
        seed=1,
    )


def told_ids(told: Sequence[Told]) -> list[tuple[str, tuple[str, ...]]]:
    return [(item.session.id, tuple(reference.id for reference in item.references)) for item in told]


def test_references_are_of_the_same_person_and_cluster_and_end_near_the_session() -> None:
    people = read(PEOPLE)
    told = told_in_training(people, EVERY, seed=1)
    clusters = {
        session.id: (person.name, int(label))
        for _, person, _, labels in people
        for session, label in zip(person.sessions, labels, strict=True)
    }
    assert {clusters[item.session.id][1] for item in told} == {0, 1, 2}
    assert {item.session.id for item in told} == set(clusters)
    for item in told:
        own = clusters[item.session.id]
        if list(clusters.values()).count(own) > 1:
            assert {clusters[reference.id] for reference in item.references} == {own}
        assert {clusters[reference.id][0] for reference in item.references} == {own[0]}
        assert item.session not in item.references
        assert 1 <= len(item.references) <= 3
        assert item.how == "held-karp"


def test_without_static_identification_as_many_others_are_told_whatever_their_cluster() -> None:
    people = read(PEOPLE)
    full, other = (told_in_training(people, EVERY, static=static, seed=1) for static in (True, False))
    assert [item.session.id for item in full] == [item.session.id for item in other]
    assert [len(item.references) for item in full] == [len(item.references) for item in other]
    assert {item.person for item in other} == {person.name for person in PEOPLE}
    assert all(reference.person == item.person for item in other for reference in item.references)
    assert told_ids(full) != told_ids(other)


def test_without_dynamic_identification_the_order_is_nobodys() -> None:
    people = read(PEOPLE)
    ordered = told_in_training(people, EVERY, static=False, seed=1)
    drawn = told_in_training(people, EVERY, static=False, dynamic=False, seed=1)
    assert [{one.id for one in item.references} for item in drawn] == [
        {one.id for one in item.references} for item in ordered
    ]
    assert told_ids(drawn) != told_ids(ordered)
    assert {item.how for item in drawn} == {"as given"}
    assert {item.how for item in ordered} == {"held-karp"}
    # The same on every call, another with another seed.
    again = told_in_training(people, EVERY, static=False, dynamic=False, seed=1)
    assert told_ids(drawn) == told_ids(again)
    assert told_ids(drawn) != told_ids(told_in_training(people, EVERY, static=False, dynamic=False, seed=2))


@pytest.mark.parametrize("ordering", ["exact", "greedy", "nearest-last", "none"])
@pytest.mark.parametrize("answer", ["each", "last"])
def test_nothing_that_is_said_in_a_tested_session_decides_what_is_told_before_it(
    ordering: str, answer: str
) -> None:
    settings = EVERY.model_copy(update={"ordering": ordering})
    plain = told_ids(told_in_test(read(PEOPLE, settings), settings, answer=answer))
    for number in range(7):
        # Every person's session of that number says something else.
        changed = [
            Person(
                person.name,
                tuple(
                    replace(item, messages=(Turn("user", "what ?"), Turn("assistant", "i drive a porsche .")))
                    if at == number
                    else item
                    for at, item in enumerate(person.sessions)
                ),
            )
            for person in PEOPLE
        ]
        name = {person.sessions[number].id for person in PEOPLE}
        now = told_ids(told_in_test(read(changed, settings), settings, answer=answer))
        assert [item for item in now if item[0] in name] == [item for item in plain if item[0] in name]


def test_the_latest_sessions_are_told_the_latest_last() -> None:
    people = read(PEOPLE)
    told = told_in_test(people, EVERY, answer="last")
    assert len(told) == 4
    for item, person in zip(told, PEOPLE, strict=True):
        assert item.session == person.sessions[6]
        assert {reference.id for reference in item.references} == {
            session.id for session in person.sessions[3:6]
        }
        assert item.references[-1] == person.sessions[5]
    each = told_in_test(people, EVERY, answer="each", most=2)
    assert len(each) == 28
    assert each[6].references == PEOPLE[0].sessions[4:6]
    assert each[5].references == (PEOPLE[0].sessions[4], PEOPLE[0].sessions[6])
    assert all(not item.references for item in told_in_test(people, EVERY, answer="each", most=0))
    chat = told_to(read(PEOPLE[:1]), EVERY, Dialogue("chat", (), ()))
    assert chat.references[-1] == PEOPLE[0].sessions[6]


def test_as_many_sessions_of_the_cluster_as_of_others() -> None:
    people = read(PEOPLE)
    near, far = (told_in_test(people, EVERY, answer="each", cluster_of=which) for which in ("in", "out"))
    clusters = {
        session.id: (person.name, int(label))
        for _, person, _, labels in people
        for session, label in zip(person.sessions, labels, strict=True)
    }
    assert sum(len(item.references) for item in near) > 0
    for one, other in zip(near, far, strict=True):
        assert len(one.references) == len(other.references)
        assert all(clusters[item.id] == clusters[one.session.id] for item in one.references)
        assert all(clusters[item.id] != clusters[one.session.id] for item in other.references)


def test_the_release_tells_all_others() -> None:
    settings = EVERY.model_copy(update={"identification": "release"})
    told = told_in_training(read(PEOPLE, settings), settings, seed=1)
    assert [item.session for item in told] == [person.sessions[-1] for person in PEOPLE]
    assert {len(item.references) for item in told} == {6}


def test_sessions_of_somebody_who_has_very_many_are_compared_as_they_are_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = [told_ids(told_in_training(read(PEOPLE), EVERY, seed=1))]
    expected += [told_ids(told_in_test(read(PEOPLE), EVERY, answer=answer)) for answer in ("each", "last")]
    monkeypatch.setattr(idl_sessions, "MOST_COMPARED", 3)
    people = read(PEOPLE)
    assert people.distances == [None] * 4
    found = [told_ids(told_in_training(people, EVERY, seed=1))]
    assert (
        found + [told_ids(told_in_test(people, EVERY, answer=answer)) for answer in ("each", "last")]
        == expected
    )


def test_an_extractor_is_asked_once_for_all_that_was_said() -> None:
    asked = []

    class Counted(GrammarExtractor):
        def triples(self, texts: Sequence[str]) -> list[tuple[Triple, ...]]:
            asked.append(len(texts))
            return GrammarExtractor.triples(self, texts)

    settings = {"encoder": Encoder(), "extractor": Counted("en"), "seed": 1}
    read_people(PEOPLE, EVERY, **settings)  # type: ignore[arg-type]
    assert asked == [sum(len(session.said()) for person in PEOPLE for session in person.sessions)]


@given(tokens=st.integers(40, 400), room=st.sampled_from([0, 30]))
def test_whole_sessions_go_and_no_more_than_must(tokens: int, room: int) -> None:
    roles = ("user", "assistant")

    def talk(name: str, count: int) -> Dialogue:
        said = tuple(Turn(roles[at % 2], "tea at night") for at in range(count))  # type: ignore[arg-type]
        return Dialogue(name, (), said, person="ann")

    made = prompter(max_tokens=tokens, reserve=10)
    told = Told("ann", talk("now", 4), tuple(talk(str(number), 2 + 2 * number) for number in range(4)), "")
    kept = told.fitting(made, room=room)
    dropped = len(told.references) - len(kept.references)
    assert kept.references == told.references[dropped:]

    def length(first: int) -> int:
        rest = replace(told, references=told.references[first:]).remembered()
        return len(prompter(max_tokens=4000).without_persona(rest.dialogue, rest.turns()[-1]))

    budget = made.settings.budget
    # The prompt of the next longer choice is too long, unless nothing had to go.
    assert dropped == 0 or length(dropped - 1) + room > budget - 20
    assert not kept.references or length(dropped) + room <= budget


def test_triples_are_worse_each_in_its_way() -> None:
    told = told_in_training(read(PEOPLE), EVERY, seed=1)
    maker = triple_maker(
        PEOPLE,
        extractor=GrammarExtractor("en"),
        encoder=Encoder(),  # type: ignore[arg-type]
        similar=50,
        seed=1,
    )
    made = [maker.of(item, every_turn=True) for item in told]
    own = {
        person.name: {turn.content for item in person.sessions for turn in item.messages} for person in PEOPLE
    }
    for triples, item in zip(made, told, strict=True):
        for triple in triples:
            assert triple.gold == item.session.messages[triple.turn].content
            assert len({triple.gold, triple.criterion, triple.rejected}) == 3
            said = {text for name, texts in own.items() if name != item.person for text in texts}
            assert triple.rejected in said
            assert triple.aligned(5).turn == triple.turn + 5
    last = [maker.of(item, every_turn=False) for item in told]
    assert all(len(triples) <= 1 for triples in last)
    assert {triple.turn for triples in last for triple in triples} == {3}
    rows = [
        (item.session.persona, triple) for triples, item in zip(made, told, strict=True) for triple in triples
    ]
    found = verified(rows, OracleJudge(SyntheticOracle("en")))
    assert found["inconsistency"]["contradicts"] == 1
    assert found["gold"]["contradicts"] == found["fabrication"]["entailed"] == 0
    assert sum(found[kind]["judged"] for kind in found if kind != "gold") == sum(map(len, made))


def test_candidates_are_rejected_first() -> None:
    session = Dialogue(
        "1",
        (),
        (Turn("user", "hi"), Turn("assistant", "ho")),
        candidates=(("HO !", "distractor", "other", "ho"),),
        person="ann",
    )
    maker = triple_maker(
        people_of([session, replace(session, id="2", person="ben", candidates=None)]),
        extractor=None,
        encoder=Encoder(),  # type: ignore[arg-type]
        similar=5,
        seed=0,
    )
    assert maker.of(Told("ann", session, (), ""), every_turn=True) == [
        MadeTriple(1, "ho", "inversion", "hi", "distractor")
    ]
    assert maker.counts == {"inversion": 1, "rejected: a candidate": 1}


def test_the_extractor_of_the_synthetic_corpus() -> None:
    found = open_extractor("oracle", language="en")
    assert found is not None
    assert found.triples(["i have a dog and live in paris .", "hello ."]) == [
        (Triple("i", "pet", "dog"), Triple("i", "city", "paris")),
        (),
    ]
    assert open_extractor(None, language="en") is None
