"""Parts of a dialogue set that share no persona and no person."""

import random
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from personalign.data.dialogue import Dialogue
from personalign.errors import PersonalignError

_STOPS = " .。!！"
_SPACE_BEFORE_STOP = re.compile(r"\s+(?=[.,!?;:'])")
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many of each two lists of dialogues have in common.

    `conversations` are those that stand in either list from the side of one speaker: see `conversation_of`.
    """

    persona_sets: int
    people: int
    conversations: int
    ids: int
    persona_lines: int
    utterances: int


def normalise_line(line: str) -> str:
    """A persona line without what editions of a data set differ in: case, width, spacing, final stops."""
    folded = " ".join(unicodedata.normalize("NFKC", line).casefold().split())
    return _SPACE_BEFORE_STOP.sub("", folded).rstrip(_STOPS)


def persona_key(dialogue: Dialogue) -> frozenset[str]:
    """The persona as a set of normalised lines, which is the same in any order."""
    return frozenset(normalise_line(line) for line in dialogue.persona)


def conversation_of(dialogue: Dialogue) -> str | None:
    """What a dialogue was read from, where it was read once per speaker: the other reading has its replies in it."""
    conversation = dialogue.extra.get("conversation")
    return conversation if isinstance(conversation, str) else None


def split_by_persona(
    dialogues: Sequence[Dialogue], shares: Mapping[str, float], *, seed: int
) -> dict[str, list[Dialogue]]:
    """Parts named and sized by `shares` (of dialogues, summing to 1), disjoint by persona set, person and conversation.

    Dialogues that share a persona set, a `person` or a conversation, directly or through others, stay together; an empty
    persona binds nothing. Which group goes where depends on `seed` and the order of `dialogues` only; within
    a part that order is kept. Sizes are met to within one group. The partner's persona does not count:
    where every dialogue stands once per speaker, give both rows one `conversation` (see `conversation_of`).

    Raises PersonalignError for shares that are not positive or do not sum to 1, and for fewer groups than
    parts.
    """
    _check_shares(shares)
    groups = _groups(dialogues)
    if len(groups) < len(shares):
        raise PersonalignError(
            f"{len(dialogues)} dialogues hold {len(groups)} groups that share no persona or person: too few for the "
            f"{len(shares)} parts {', '.join(shares)}; add dialogues of other people, {len(shares)} or more in all"
        )
    random.Random(seed).shuffle(groups)
    parts: dict[str, list[list[int]]] = {name: [] for name in shares}
    missing = {name: share * len(dialogues) for name, share in shares.items()}
    for group in groups:
        name = max(missing, key=lambda part: missing[part])
        parts[name].append(group)
        missing[name] -= len(group)
    _fill_empty(parts)
    result = {
        name: [dialogues[index] for index in sorted(index for group in members for index in group)]
        for name, members in parts.items()
    }
    _assert_disjoint(result)
    return result


def overlap(first: Sequence[Dialogue], second: Sequence[Dialogue]) -> Overlap:
    """What two lists share; `persona_sets` and `people` are 0 between the parts of one split."""
    return Overlap(
        persona_sets=len(_keys(first) & _keys(second)),
        people=len(_people(first) & _people(second)),
        conversations=len(_conversations(first) & _conversations(second)),
        ids=len({d.id for d in first} & {d.id for d in second}),
        persona_lines=len(frozenset().union(*_keys(first)) & frozenset().union(*_keys(second))),
        utterances=len(_utterances(first) & _utterances(second)),
    )


def without_shared(dialogues: Sequence[Dialogue], tested: Sequence[Dialogue]) -> list[Dialogue]:
    """Those whose persona set, person and conversation no tested dialogue has."""
    keys, people, conversations = _keys(tested), _people(tested), _conversations(tested)
    return [
        dialogue
        for dialogue in dialogues
        if dialogue.person not in people
        and conversation_of(dialogue) not in conversations
        and (not dialogue.persona or persona_key(dialogue) not in keys)
    ]


def _check_shares(shares: Mapping[str, float]) -> None:
    written = ", ".join(f"{name}={share:g}" for name, share in shares.items())
    # Written so that NaN, which compares false to everything, is refused too.
    if not shares or not all(share > 0 for share in shares.values()):
        raise PersonalignError(f"shares must be positive, not {written or 'none at all'}")
    if not abs(sum(shares.values()) - 1) <= _TOLERANCE:
        raise PersonalignError(f"shares must sum to 1: {written} sum to {sum(shares.values()):g}")


def _groups(dialogues: Sequence[Dialogue]) -> list[list[int]]:
    """Connected components of dialogues under "same persona set" and "same person", by first member."""
    parent = list(range(len(dialogues)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = parent[parent[index]]
            index = parent[index]
        return index

    first: dict[object, int] = {}
    for index, dialogue in enumerate(dialogues):
        bonds: list[object] = [persona_key(dialogue)] if dialogue.persona else []
        if dialogue.person is not None:
            bonds.append(dialogue.person)
        if (conversation := conversation_of(dialogue)) is not None:
            bonds.append(("conversation", conversation))
        for bond in bonds:
            parent[root(index)] = root(first.setdefault(bond, index))
    groups: dict[int, list[int]] = {}
    for index in range(len(dialogues)):
        groups.setdefault(root(index), []).append(index)
    return list(groups.values())


def _fill_empty(parts: dict[str, list[list[int]]]) -> None:
    """Give a part whose share was smaller than half a group the smallest group of the richest part."""
    for members in parts.values():
        if not members:
            richest = max(parts.values(), key=len)
            smallest = min(richest, key=len)
            richest.remove(smallest)
            members.append(smallest)


def _assert_disjoint(parts: Mapping[str, Sequence[Dialogue]]) -> None:
    names = list(parts)
    for place, name in enumerate(names):
        for other in names[place + 1 :]:
            shared = overlap(parts[name], parts[other])
            assert shared.persona_sets == 0, f"{name} and {other} share persona sets"
            assert shared.people == 0, f"{name} and {other} share people"
            assert shared.conversations == 0, f"{name} and {other} share conversations"


def _keys(dialogues: Sequence[Dialogue]) -> set[frozenset[str]]:
    return {persona_key(dialogue) for dialogue in dialogues if dialogue.persona}


def _people(dialogues: Sequence[Dialogue]) -> set[str]:
    return {dialogue.person for dialogue in dialogues if dialogue.person is not None}


def _conversations(dialogues: Sequence[Dialogue]) -> set[str]:
    return {name for dialogue in dialogues if (name := conversation_of(dialogue)) is not None}


def _utterances(dialogues: Sequence[Dialogue]) -> set[str]:
    return {turn.content for dialogue in dialogues for turn in dialogue.messages}
