"""The counts that papers print of a dialogue set."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from personalign.data.dialogue import Dialogue
from personalign.data.people import ENOUGH_TO_CLUSTER, sessions_per_person
from personalign.data.split import persona_key

# Chinese and Japanese are written without spaces: each character of theirs counts as a word.
_WORD = re.compile(r"[㐀-䶿一-鿿豈-﫿぀-ヿ]|[^\s㐀-䶿一-鿿豈-﫿぀-ヿ]+")


@dataclass(frozen=True, slots=True)
class Statistics:
    """Counts and means over a list of dialogues; a mean or share over nothing is None.

    - `examples`: assistant turns. `distinct_persona_sets`: order, case, spacing and final stops ignored.
    - words: runs between spaces; Chinese and Japanese characters count one each.
    - `people`: distinct names of `person`. Where no name is given, sessions are counted by persona set (see
      `personalign.data.people`); with six of them IDL's three clusters are reached.
    - `share_of_none`: of the labelled examples, those with no relevant line.
    """

    dialogues: int
    turns: int
    examples: int
    turns_per_dialogue: float | None
    longest_dialogue: int
    words_per_turn: float | None
    words_per_reply: float | None
    persona_lines: int
    lines_per_persona: float | None
    distinct_persona_lines: int
    distinct_persona_sets: int
    without_persona: int
    with_partner_persona: int
    people: int
    people_with_two_sessions: int
    people_with_six_sessions: int
    most_sessions: int
    labelled_examples: int
    share_of_none: float | None
    candidate_lists: int
    candidates_per_list: float | None
    without_reply: int
    starting_with_assistant: int
    with_turns_in_a_row: int


def count_words(text: str) -> int:
    return len(_WORD.findall(text))


def statistics(dialogues: Sequence[Dialogue]) -> Statistics:
    turns = [turn for dialogue in dialogues for turn in dialogue.messages]
    words = [count_words(turn.content) for turn in turns]
    reply_words = [count for turn, count in zip(turns, words, strict=True) if turn.role == "assistant"]
    lines = [line for dialogue in dialogues for line in dialogue.persona]
    labels = [indices for dialogue in dialogues for indices in dialogue.relevant or ()]
    candidates = [items for dialogue in dialogues for items in dialogue.candidates or () if items]
    with_persona = [dialogue for dialogue in dialogues if dialogue.persona]
    sessions = sessions_per_person(dialogues)
    lengths = [len(dialogue.messages) for dialogue in dialogues]
    return Statistics(
        dialogues=len(dialogues),
        turns=len(turns),
        examples=len(reply_words),
        turns_per_dialogue=_mean(lengths),
        longest_dialogue=max(lengths, default=0),
        words_per_turn=_mean(words),
        words_per_reply=_mean(reply_words),
        persona_lines=len(lines),
        lines_per_persona=_mean([len(dialogue.persona) for dialogue in with_persona]),
        distinct_persona_lines=len(set(lines)),
        distinct_persona_sets=len({persona_key(dialogue) for dialogue in with_persona}),
        without_persona=len(dialogues) - len(with_persona),
        with_partner_persona=sum(bool(dialogue.partner_persona) for dialogue in dialogues),
        people=len({dialogue.person for dialogue in dialogues if dialogue.person is not None}),
        people_with_two_sessions=sum(count >= 2 for count in sessions),
        people_with_six_sessions=sum(count >= ENOUGH_TO_CLUSTER for count in sessions),
        most_sessions=max(sessions, default=0),
        labelled_examples=len(labels),
        share_of_none=_mean([not indices for indices in labels]),
        candidate_lists=len(candidates),
        candidates_per_list=_mean([len(items) for items in candidates]),
        without_reply=sum(not dialogue.reply_indices() for dialogue in dialogues),
        starting_with_assistant=sum(_starts_with_assistant(dialogue) for dialogue in dialogues),
        with_turns_in_a_row=sum(_has_turns_in_a_row(dialogue) for dialogue in dialogues),
    )


def _mean(numbers: Sequence[int | bool]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None


def _starts_with_assistant(dialogue: Dialogue) -> bool:
    return bool(dialogue.messages) and dialogue.messages[0].role == "assistant"


def _has_turns_in_a_row(dialogue: Dialogue) -> bool:
    roles = [turn.role for turn in dialogue.messages]
    return any(role == following for role, following in pairwise(roles))
