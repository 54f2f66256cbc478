"""A person and everything that is known of them to have been said: their sessions."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from personalign.data.dialogue import Dialogue
from personalign.data.split import conversation_of, normalise_line, persona_key

# Below it k-means with IDL's three clusters is not reached (IDL's release: `if len(sessions) >= 6`).
ENOUGH_TO_CLUSTER = 6


@dataclass(frozen=True, slots=True)
class Person:
    """`sessions` in the order of the source, which is the order in time where the source has one."""

    name: str
    sessions: tuple[Dialogue, ...]


def people_of(dialogues: Iterable[Dialogue], *, least: int = 1) -> list[Person]:
    """Sessions by `person` where the source names one, else by persona set; in order of first appearance.

    The persona set is that of `personalign.data.split`: order, case and final stops make no difference. Dialogues with
    neither are nobody's and left out, as are people with fewer than `least` sessions.
    """
    sessions: dict[object, list[Dialogue]] = defaultdict(list)
    for dialogue in dialogues:
        if dialogue.person is not None:
            sessions[dialogue.person].append(dialogue)
        elif dialogue.persona:
            sessions[persona_key(dialogue)].append(dialogue)
    return [
        Person(key if isinstance(key, str) else "; ".join(sorted(held[0].persona)), tuple(held))
        for key, held in sessions.items()
        if len(held) >= least
    ]


def without_lines_of(people: Sequence[Person], tested: Sequence[Person]) -> list[Person]:
    """Those who share no persona line, name or conversation with a tested person; a partner's persona does not count.

    Data sets of one origin give one profile to many people, whole or in part: whoever has learnt a line of a tested
    person has been told who that is.
    """
    names = {person.name for person in tested}
    lines = {line for person in tested for line in _lines(person)}
    heard = {name for person in tested for name in _conversations(person)}
    return [
        person
        for person in people
        if person.name not in names and not _lines(person) & lines and not _conversations(person) & heard
    ]


def _lines(person: Person) -> set[str]:
    return {normalise_line(line) for session in person.sessions for line in session.persona}


def _conversations(person: Person) -> set[str]:
    return {name for session in person.sessions if (name := conversation_of(session)) is not None}


def sessions_per_person(dialogues: Sequence[Dialogue]) -> list[int]:
    """How many sessions each person has, most first."""
    return sorted((len(person.sessions) for person in people_of(dialogues)), reverse=True)
