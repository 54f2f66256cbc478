"""Relevance labels: which persona lines does a gold reply express?

For training and for scoring selection, never at inference.
A labeller scores every line of every reply; lines at or above its threshold are relevant, none is "none".
The default thresholds of the overlap and cosine labellers were tuned on 10,000 turns of PERSONA-CHAT's training
set with the offline MiniLM; see docs/labels.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from personalign.data.dialogue import Dialogue
from personalign.evaluation.judge import ENTAILMENT, Judge
from personalign.evaluation.tokens import Language
from personalign.labels.overlap import inverse_document_frequency, overlap

WORDS_WEIGHT = 0.5
WORDS_THRESHOLD = 0.88
"""The defaults of `cosine-idf`."""

LineScores = list[npt.NDArray[np.float64]]
"""Per dialogue, [assistant turns, persona lines]."""

Labels = list[tuple[tuple[int, ...], ...]]
"""Per dialogue and assistant turn, indices of the relevant lines: the `relevant` of a `Dialogue`."""


class Labeller(Protocol):
    """`threshold` cuts what `scores` returns; `label` is `scores` cut by it."""

    @property
    def name(self) -> str: ...

    @property
    def threshold(self) -> float: ...

    def scores(self, dialogues: Sequence[Dialogue]) -> LineScores: ...

    def label(self, dialogues: Sequence[Dialogue]) -> Labels: ...


class TextEncoder(Protocol):
    """Texts to unit vectors [N, width]; `personalign.models.encoder.Encoder` is one."""

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]: ...


@dataclass(frozen=True, slots=True)
class NliLabeller:
    """A line is relevant if the reply entails it: argmax = entailment with P >= threshold.

    The published way (PersonaClassifier, ORIG; Chen et al. 2023), with 0.99; 0 means no threshold.
    Lines come in persona order as published, or the surest first with `best_first` (PAL uses only the first).
    0.99 suits a large judge; a small one that is never so sure labels everything "none": tune it.
    """

    judge: Judge
    threshold: float = 0.99
    best_first: bool = False
    name: str = "nli"

    def scores(self, dialogues: Sequence[Dialogue]) -> LineScores:
        """P(entailment), 0 where another class is more probable."""
        pairs = [
            (line, dialogue.messages[turn].content)
            for dialogue in dialogues
            for turn in dialogue.reply_indices()
            for line in dialogue.persona
        ]
        if not pairs:
            return _per_dialogue(np.zeros(0), dialogues)
        verdicts = self.judge.judge(pairs)
        entailed = np.where(verdicts.classes() == ENTAILMENT, verdicts.probabilities[:, ENTAILMENT], 0)
        return _per_dialogue(entailed, dialogues)

    def label(self, dialogues: Sequence[Dialogue]) -> Labels:
        return labels_above(self.scores(dialogues), self.threshold, best_first=self.best_first)


@dataclass(frozen=True, slots=True)
class IdfOverlapLabeller:
    """A line's score is the summed idf of the words that it shares with the reply; the best line comes first.

    idf is that of the dialogues being labelled, so label a whole set at once.
    """

    threshold: float = 0.75
    language: Language = "en"
    name: str = "idf"

    def scores(self, dialogues: Sequence[Dialogue]) -> LineScores:
        weights = inverse_document_frequency(_sentences(dialogues), language=self.language)
        return [
            np.array(
                [
                    [
                        overlap(
                            line, dialogue.messages[turn].content, weights=weights, language=self.language
                        )
                        for line in dialogue.persona
                    ]
                    for turn in dialogue.reply_indices()
                ],
                dtype=np.float64,
            ).reshape(len(dialogue.reply_indices()), len(dialogue.persona))
            for dialogue in dialogues
        ]

    def label(self, dialogues: Sequence[Dialogue]) -> Labels:
        return labels_above(self.scores(dialogues), self.threshold)


@dataclass(frozen=True, slots=True)
class CosineLabeller:
    """A line's score is the cosine of its embedding and the reply's; the best line comes first."""

    encoder: TextEncoder
    threshold: float = 0.49
    name: str = "cosine"

    def scores(self, dialogues: Sequence[Dialogue]) -> LineScores:
        texts = _sentences(dialogues)
        row = {text: index for index, text in enumerate(texts)}
        vectors = self.encoder.encode(texts).astype(np.float64)
        return [
            vectors[[row[dialogue.messages[turn].content] for turn in dialogue.reply_indices()]]
            @ vectors[[row[line] for line in dialogue.persona]].T
            if dialogue.persona and dialogue.reply_indices()
            else np.zeros((len(dialogue.reply_indices()), len(dialogue.persona)))
            for dialogue in dialogues
        ]

    def label(self, dialogues: Sequence[Dialogue]) -> Labels:
        return labels_above(self.scores(dialogues), self.threshold)


@dataclass(frozen=True, slots=True)
class CosineIdfLabeller:
    """Cosine plus `weight` times the idf overlap: meaning, and the rare words that it tends to blur."""

    encoder: TextEncoder
    weight: float = WORDS_WEIGHT
    threshold: float = WORDS_THRESHOLD
    language: Language = "en"
    name: str = "cosine-idf"

    def scores(self, dialogues: Sequence[Dialogue]) -> LineScores:
        cosines = CosineLabeller(self.encoder).scores(dialogues)
        overlaps = IdfOverlapLabeller(language=self.language).scores(dialogues)
        return [cosine + self.weight * shared for cosine, shared in zip(cosines, overlaps, strict=True)]

    def label(self, dialogues: Sequence[Dialogue]) -> Labels:
        return labels_above(self.scores(dialogues), self.threshold)


def labels_above(scores: LineScores, threshold: float, *, best_first: bool = True) -> Labels:
    """The lines whose score is at least `threshold` and above 0; in persona order unless `best_first`."""
    return [tuple(_lines(turn, threshold, best_first=best_first) for turn in dialogue) for dialogue in scores]


def _lines(scores: npt.NDArray[np.float64], threshold: float, *, best_first: bool) -> tuple[int, ...]:
    order = np.argsort(-scores, kind="stable") if best_first else np.arange(len(scores))
    return tuple(int(line) for line in order if scores[line] >= threshold and scores[line] > 0)


def _per_dialogue(flat: npt.NDArray[np.floating], dialogues: Sequence[Dialogue]) -> LineScores:
    shapes = [(len(dialogue.reply_indices()), len(dialogue.persona)) for dialogue in dialogues]
    ends = np.cumsum([turns * lines for turns, lines in shapes])[:-1]
    parts = np.split(flat.astype(np.float64), ends)
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)] if shapes else []


def _sentences(dialogues: Sequence[Dialogue]) -> list[str]:
    """The different persona lines and messages, in the order in which they first occur."""
    texts = (
        text
        for dialogue in dialogues
        for text in (*dialogue.persona, *(turn.content for turn in dialogue.messages))
    )
    return list(dict.fromkeys(texts))
