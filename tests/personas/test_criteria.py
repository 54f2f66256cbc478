"""Criterion replies: of each kind what the paper says, never empty, never what was said."""

from collections.abc import Sequence

import numpy as np
import pytest

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.people import people_of
from personalign.errors import PersonalignError
from personalign.personas.criteria import KINDS, CriterionMaker, criterion_maker
from personalign.personas.extraction import Triple

FACTS = {
    "I am a farmer , you know": Triple("i", "job", "farmer"),
    "i was a pilot": Triple("i", "job", "pilot"),
    "i am a spaceman": Triple("i", "job", "spaceman"),
    "i live on a farm": Triple("i", "live_in", "farm"),
    "i own a farm": Triple("i", "own", "farm"),
}


class Extractor:
    name = "fake"

    def triples(self, texts: Sequence[str]) -> list[tuple[Triple, ...]]:
        return [(FACTS[text],) if text in FACTS else () for text in texts]


class Encoder:
    """Texts are alike as far as they share words."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        words = sorted({word for text in texts for word in text.lower().split()})
        rows = np.array([[word in text.lower().split() for word in words] for text in texts], dtype=float)
        found: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        return found


def session(person: str, *texts: str) -> Dialogue:
    roles = ("user", "assistant")
    turns = tuple(Turn(roles[at % 2], text) for at, text in enumerate(texts))  # type: ignore[arg-type]
    return Dialogue(f"{person}-{len(texts)}", (), turns, person=person)


SESSIONS = [
    session("ann", "what are you ?", "I am a farmer , you know", "i am a vet , you know", "nice to meet you"),
    session("ann", "hello", "i was a pilot"),
    session("ben", "hello", "i am a spaceman", "where ?", "i live on a farm", "fine", "i own a farm"),
]


def maker(*, seed: int = 0, similar: int = 50, sessions: Sequence[Dialogue] = SESSIONS) -> CriterionMaker:
    return criterion_maker(
        people_of(sessions),
        extractor=Extractor(),
        encoder=Encoder(),  # type: ignore[arg-type]
        similar=similar,
        seed=seed,
    )


def test_inconsistency_takes_another_object_of_the_relation_from_the_persons_own_sessions() -> None:
    found = {item.kind: item.text for item in maker().every("ann", "I am a farmer , you know")}
    assert found["inconsistency"] == "I am a pilot , you know"


def test_without_another_of_the_persons_own_it_is_anybodys() -> None:
    texts = {
        {item.kind: item.text for item in maker(seed=seed).every("ben", "i am a spaceman")}["inconsistency"]
        for seed in range(20)
    }
    assert texts == {"i am a farmer", "i am a pilot"}


def test_fabrication_is_alike_and_has_facts_of_which_the_person_has_none() -> None:
    found = {
        {item.kind: item.text for item in maker(seed=seed).every("ann", "I am a farmer , you know")}[
            "fabrication"
        ]
        for seed in range(20)
    }
    # Neither "i was a pilot", which is her own, nor "nice to meet you", which states nothing.
    assert found == {"i am a spaceman", "i live on a farm", "i own a farm"}
    # The most alike after the reply itself.
    nearest = {item.kind: item.text for item in maker(similar=1).every("ann", "I am a farmer , you know")}
    assert nearest["fabrication"] == "i am a spaceman"


def test_inversion_is_the_partners_nearest_utterance() -> None:
    found = {item.kind: item.text for item in maker().every("ann", "I am a farmer , you know")}
    assert found["inversion"] == "i am a vet , you know"


def test_what_cannot_be_made_is_left_out() -> None:
    assert [item.kind for item in maker().every("ann", "nice to meet you")] == ["fabrication", "inversion"]
    assert maker().every("ann", "never said") == []
    alone = maker(sessions=[session("ann", "nice", "nice")])
    # The partner says the very same.
    assert alone.every("ann", "nice") == []
    assert alone.one("ann", "nice") is None
    assert alone.counts == {"none could be made": 1}


def test_one_is_drawn_among_those_that_can_be_made_and_counted() -> None:
    drawn = [maker(seed=seed).one("ann", "I am a farmer , you know") for seed in range(60)]
    kinds = {item.kind for item in drawn if item is not None}
    assert kinds == set(KINDS)
    made = maker()
    first = made.one("ann", "I am a farmer , you know")
    assert first == made.one("ann", "I am a farmer , you know")
    assert first is not None
    assert made.counts == {first.kind: 2}


def test_marks_stay_where_they_were_and_objects_as_they_were_said(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = {
        "I have two Dogs.": Triple("I", "pet", "Dogs."),
        "i own a Great Dane!": Triple("i", "pet", "Great Dane!"),
    }
    monkeypatch.setattr(
        Extractor, "triples", lambda self, texts: [(facts[t],) if t in facts else () for t in texts]
    )
    talk = session("ann", "a", "I have two Dogs.", "b", "i own a Great Dane!")
    found = {item.kind: item.text for item in maker(sessions=[talk]).every("ann", "I have two Dogs.")}
    assert found["inconsistency"] == "I have two Great Dane."


def test_somebody_unknown_is_named() -> None:
    with pytest.raises(PersonalignError, match="nobody who was read is called 'zz'"):
        maker().every("zz", "hello")


@pytest.mark.parametrize("person", ["ann", "ben"])
def test_never_empty_never_what_was_said(person: str) -> None:
    for item in SESSIONS:
        for turn in item.messages:
            for criterion in maker().every(person, turn.content):
                assert criterion.text.strip()
                assert criterion.text.lower().split() != turn.content.lower().split()
