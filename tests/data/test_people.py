"""Whose sessions are whose."""

from pathlib import Path

import pytest

from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import read_dialogues
from personalign.data.people import people_of, sessions_per_person, without_lines_of
from personalign.data.statistics import statistics
from personalign.data.synthetic import generate

MESSAGES = (Turn("user", "hi"), Turn("assistant", "ho"))


def talk(name: str, *persona: str, person: str | None = None) -> Dialogue:
    return Dialogue(name, persona, MESSAGES, person=person)


def test_a_name_decides_else_the_persona_set() -> None:
    dialogues = [
        talk("1", "i am tall.", "i bake."),
        talk("2", "I bake", "i am tall."),
        talk("3", "i am tall.", "i bake.", person="ann"),
        talk("4", "i swim.", person="ann"),
        talk("5"),
        talk("6", "i swim."),
    ]
    people = people_of(dialogues)
    assert [[item.id for item in person.sessions] for person in people] == [["1", "2"], ["3", "4"], ["6"]]
    assert [person.name for person in people] == ["i am tall.; i bake.", "ann", "i swim."]
    assert len(people_of(dialogues, least=2)) == 2
    assert sessions_per_person(dialogues) == [2, 2, 1]


def test_statistics_count_sessions() -> None:
    corpus = generate("en", seed=1, people={"train": 3}, sessions_per_person=6)
    counted = statistics([*corpus.train, talk("1", "i swim."), talk("2", "i swim.")])
    assert (counted.people_with_two_sessions, counted.people_with_six_sessions, counted.most_sessions) == (
        4,
        3,
        6,
    )
    assert statistics([]).most_sessions == 0


def test_who_shares_a_line_or_a_name_with_a_tested_person_is_left_out() -> None:
    tested = people_of([talk("1", "I bake.", "i am tall."), talk("2", "i ski.", person="ann")])
    others = people_of(
        [
            talk("3", "i bake", "i swim."),
            talk("4", "i swim.", "i run."),
            talk("5", "i sing.", person="ann"),
            talk("6", person="ben"),
        ]
    )
    assert [person.sessions[0].id for person in without_lines_of(others, tested)] == ["4", "6"]
    # Said in any session.
    later = people_of([talk("7", "i run.", person="cid"), talk("8", "i am tall !", person="cid")])
    assert without_lines_of(later, tested) == []


def test_the_wild_people_who_share_nothing_with_the_tested_ones(personalign_data: Path) -> None:
    """Both files use PERSONA-CHAT's validation personas."""
    tested = people_of(read_dialogues(personalign_data / "synthetic_persona_chat_valid.jsonl.gz"), least=6)
    wild = people_of(read_dialogues(personalign_data / "convai2_wild_bot_human.jsonl.gz"))
    assert (len(tested), len(wild)) == (39, 671)
    assert len(without_lines_of(wild, tested)) == 403


@pytest.mark.parametrize(
    ("key", "two", "six"),
    [
        ("synthetic_persona_chat_valid", 230, 39),
        ("convai2_wild_bot_human", 639, 271),
        ("convai2_candidates_sample", 10, 9),
        ("cornell_movie_sample", 58, 40),
        ("msc_valid_sessions", 500, 0),
    ],
)
def test_real_people(personalign_data: Path, key: str, two: int, six: int) -> None:
    counted = statistics(read_dialogues(personalign_data / f"{key}.jsonl.gz"))
    assert (counted.people_with_two_sessions, counted.people_with_six_sessions) == (two, six)
