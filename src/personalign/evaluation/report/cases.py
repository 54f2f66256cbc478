"""What the case browser shows: every turn with every system's reply, the line it selected and the judge's verdicts."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from personalign.data.dialogue import Dialogue
from personalign.evaluation.answers import Answers, Question
from personalign.evaluation.tokens import Language, words

_LETTERS = "enc"
"""Entailed, neutral, contradicted: one letter per persona line."""


def cases_of(
    systems: Mapping[str, Answers], dialogues: Mapping[str, Dialogue], *, judged: bool
) -> dict[str, Any]:
    """Plain values for the page; the dialogues once, and each turn's replies in the order of the systems.

    `systems` answer the same turns. A case is [dialogue, turn, labelled lines or null, replies, selected lines, verdicts,
    disagreement]; of the selected lines null is none and -1 that nothing was selected, verdicts are a text per system.
    """
    first = next(iter(systems.values()))
    order = list(dict.fromkeys(question.dialogue for question in first.questions))
    number = {name: index for index, name in enumerate(order)}
    personas = {question.dialogue: question.persona for question in first.questions}
    verdicts = {
        name: _verdicts(answers) if judged else [""] * len(first) for name, answers in systems.items()
    }
    spread = (
        _by_verdicts(list(verdicts.values())) if judged else _by_words(list(systems.values()), first.language)
    )
    cases = []
    for index, question in enumerate(first.questions):
        replies = [answers.replies[index] for answers in systems.values()]
        cases.append(
            [
                number[question.dialogue],
                question.turn,
                None if question.relevant is None else list(question.relevant),
                [reply.text for reply in replies],
                [reply.line if reply.selects else -1 for reply in replies],
                [verdicts[name][index] for name in systems],
                round(float(spread[index]), 3),
            ]
        )
    return {
        "systems": list(systems),
        "judged": judged,
        "dialogues": [
            {
                "id": name,
                "persona": list(personas[name]),
                "messages": _messages(dialogues.get(name), first.questions, name),
            }
            for name in order
        ],
        "cases": cases,
    }


def _messages(dialogue: Dialogue | None, questions: Sequence[Question], name: str) -> list[list[str]]:
    """[role, text] of each message; without the dialogue, the gold replies alone."""
    if dialogue is not None:
        return [[message.role, message.content] for message in dialogue.messages]
    return [["assistant", question.gold or ""] for question in questions if question.dialogue == name]


def _verdicts(answers: Answers) -> list[str]:
    from personalign.evaluation.measuring import judged as verdicts_of

    return [
        "".join(_LETTERS[label] for label in lines.argmax(axis=1)) if len(lines) else ""
        for lines in verdicts_of(answers).probabilities
    ]


def _by_verdicts(verdicts: Sequence[Sequence[str]]) -> np.ndarray:
    """How far apart the systems' summed signs are: 0 where all say the same of the persona."""
    sums = np.array(
        [[text.count("e") - text.count("c") for text in texts] for texts in verdicts], dtype=np.float64
    )
    return np.asarray(sums.max(axis=0) - sums.min(axis=0))


def _by_words(systems: Sequence[Answers], language: Language) -> np.ndarray:
    """One minus the mean share of words that two systems' replies have in common."""
    bags = [[frozenset(words(text, language=language)) for text in answers.texts] for answers in systems]
    gaps = np.zeros(len(bags[0]))
    pairs = list(combinations(bags, 2))
    for one, other in pairs:
        gaps += [1 - len(a & b) / max(1, len(a | b)) for a, b in zip(one, other, strict=True)]
    return gaps / max(1, len(pairs))
