"""What the case browser shows: every turn with every system's reply, the line it selected and the judge's verdicts."""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from personalign.data.dialogue import Dialogue
from personalign.evaluation.answers import Answers
from personalign.evaluation.tokens import Language, words

_LETTERS = "enc"
"""Entailed, neutral, contradicted: one letter per persona line."""


def cases_of(
    systems: Mapping[str, Answers],
    dialogues: Mapping[str, Dialogue],
    *,
    judged: bool,
    reference: str | None = None,
) -> dict[str, Any]:
    """Plain values for the page; the dialogues once, and each turn's replies in the order of the systems.

    `systems` answer the same turns of `dialogues`, which are given by id; the `reference` is shown among them but
    disagrees with nobody. A case is [dialogue, turn, labelled lines or null, replies, selected lines, verdicts,
    disagreement]; of the selected lines null is none and -1 that nothing was selected, verdicts are a text per system.
    """
    first = next(iter(systems.values()))
    order = list(dict.fromkeys(question.dialogue for question in first.questions))
    number = {name: index for index, name in enumerate(order)}
    verdicts = {
        name: _verdicts(answers) if judged else [""] * len(first) for name, answers in systems.items()
    }
    competing = [name for name in systems if name != reference]
    if judged:
        spread = _by_verdicts([verdicts[name] for name in competing])
    else:
        spread = _by_words([systems[name] for name in competing], first.language)
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
        "reference": None if reference is None else list(systems).index(reference),
        "judged": judged,
        "labelled": any(question.relevant is not None for question in first.questions),
        "selects": any(reply.selects for answers in systems.values() for reply in answers.replies),
        "compared": len(competing) > 1,
        "dialogues": [
            {
                "id": name,
                "persona": list(dialogues[name].persona),
                "messages": [[message.role, message.content] for message in dialogues[name].messages],
            }
            for name in order
        ],
        "cases": cases,
    }


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
