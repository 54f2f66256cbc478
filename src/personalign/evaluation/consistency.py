"""Does a reply agree with the persona, and with what the person said before? Figures over a judge's verdicts.

PAL's C.score takes the best line of each reply, so one entailed line hides a contradicted one; hence the sum
(Madotto et al. 2019) and the two rates beside it. All can be gamed by stating the persona whatever was said:
compare systems at the same share of "none", beside copy rate, contradict rate and perplexity.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from personalign.errors import PersonalignError
from personalign.evaluation.answers import Answers
from personalign.evaluation.judge import CONTRADICTION, ENTAILMENT, Judge
from personalign.evaluation.sums import Floats, Sums, mean_of, quotient
from personalign.evaluation.tokens import Language, words

# Nie et al. 2021 call a pair contradictory above this probability.
DECODE_THRESHOLD = 0.5


@dataclass(frozen=True, slots=True)
class Consistency:
    """Per reply, [lines, 3] probabilities of entailment, neutral and contradiction by each of its persona lines.

    A reply without persona lines counts 0 in each figure per reply.
    """

    probabilities: tuple[Floats, ...]

    def signs(self) -> list[list[int]]:
        """Per reply and line, +1 entailed, 0 neutral, -1 contradicted: NLI(u, p) of Madotto et al. 2019."""
        return [(1 - lines.argmax(axis=1)).tolist() if len(lines) else [] for lines in self.probabilities]

    def c_score_max(self) -> Sums:
        """`c_score/max`, PAL: mean over replies of the best sign over the lines, in [-1, 1]."""
        return mean_of([max(signs, default=0) for signs in self.signs()])

    def c_score_sum(self) -> Sums:
        """`c_score/sum`, Madotto et al. 2019: mean over replies of the sum of the signs over the lines."""
        return mean_of([sum(signs) for signs in self.signs()])

    def entail_rate(self) -> Sums:
        """`entail_rate`: share of replies that entail at least one line."""
        return mean_of([float(1 in signs) for signs in self.signs()])

    def contradict_rate(self) -> Sums:
        """`contradict_rate`: share of replies that contradict at least one line."""
        return mean_of([float(-1 in signs) for signs in self.signs()])

    def coherent_pairs(self) -> Sums:
        """`coh/pairs`: share of (line, reply) pairs not labelled contradiction; what IDL's release prints as Coh."""
        return self._pairs(lambda signs: sum(sign >= 0 for sign in signs))

    def entailed_pairs(self) -> Sums:
        """`coh_con/pairs`: share of (line, reply) pairs labelled entailment; IDL's Coh-Con, not CLV's."""
        return self._pairs(lambda signs: sum(sign == 1 for sign in signs))

    def recall(self, relevant: Sequence[Sequence[int]]) -> Sums:
        """`recall`: share of the turns labelled with a line whose reply entails that line (the first of several)."""
        hits = [
            float(bool(lines) and signs[lines[0]] == 1)
            for signs, lines in zip(self.signs(), relevant, strict=True)
        ]
        return mean_of(hits, [bool(lines) for lines in relevant])

    def apc(self, relevant: Sequence[Sequence[int]]) -> Sums:
        """`apc/labelled`: active-passive constraint, Peng and Shang 2024, per line, in [0, 1].

        A line that matters should be entailed, any other not contradicted: the mean over lines of
        P(rel) P(entailed) + (1 - P(rel)) (1 - P(contradicted)), P(rel) being 1 for labelled lines and 0 for others
        (the paper asks a second model). Replies without persona lines are left out.
        """
        scores = []
        for lines, labelled in zip(self.probabilities, relevant, strict=True):
            matters = np.isin(np.arange(len(lines)), labelled)
            kept = np.where(matters, lines[:, ENTAILMENT], 1 - lines[:, CONTRADICTION])
            scores.append(float(kept.mean()) if len(lines) else 0.0)
        return mean_of(scores, [len(lines) > 0 for lines in self.probabilities])

    def _pairs(self, count: Callable[[Sequence[int]], int]) -> Sums:
        rows = np.array([[count(signs), len(signs)] for signs in self.signs()], dtype=np.float64)
        return Sums(rows.reshape(-1, 2), quotient)


def judge_consistency(
    judge: Judge, responses: Sequence[str], personas: Sequence[Sequence[str]]
) -> Consistency:
    """Judge every reply against every line of its persona. `personas[i]` belongs to `responses[i]`."""
    if len(responses) != len(personas):
        raise PersonalignError(
            f"{len(responses)} responses but {len(personas)} personas; give one per response"
        )
    pairs = [(line, reply) for reply, persona in zip(responses, personas, strict=True) for line in persona]
    return Consistency(_split(judge, pairs, [len(persona) for persona in personas]))


def judge_earlier_turns(judge: Judge, answers: Answers) -> tuple[Floats, ...]:
    """[earlier own messages, 3] per reply: what each of them says of the reply."""
    pairs = [
        (earlier, reply.text)
        for question, reply in zip(answers.questions, answers.replies, strict=True)
        for earlier in question.own
    ]
    return _split(judge, pairs, [len(question.own) for question in answers.questions])


def self_contradiction(verdicts: Sequence[Floats]) -> Sums:
    """`self_contradiction/reply`: share of replies that an earlier message of the same person contradicts.

    P(contradiction) > 0.5 for one of them (Nie et al. 2021, DECODE). Replies to a first turn are left out. On a test
    set the earlier messages are the person's own, not the system's: of a system that talked the whole dialogue itself
    it says more.
    """
    return mean_of(_contradicted(verdicts), [len(earlier) > 0 for earlier in verdicts])


def self_contradicting_dialogues(verdicts: Sequence[Floats], dialogues: Sequence[str]) -> Sums:
    """`self_contradiction/dialogue`: share of dialogues with at least one such reply."""
    rows = np.array([[hit, 1.0] for hit in _contradicted(verdicts)])
    return Sums(rows, quotient, units=dialogues)


def copied_share(response: str, persona: Sequence[str], *, language: Language = "en") -> float:
    """Length of the longest run of words that a reply shares with one persona line, over the reply's length.

    Words are lower-cased, punctuation does not count; Chinese words are characters. 0 for a reply without words.
    """
    reply = words(response, language=language)
    if not reply:
        return 0.0
    longest = (_longest_common_run(reply, words(line, language=language)) for line in persona)
    return max(longest, default=0) / len(reply)


def _contradicted(verdicts: Sequence[Floats]) -> list[float]:
    return [
        float(len(earlier) > 0 and earlier[:, CONTRADICTION].max() > DECODE_THRESHOLD) for earlier in verdicts
    ]


def _split(judge: Judge, pairs: Sequence[tuple[str, str]], lengths: Sequence[int]) -> tuple[Floats, ...]:
    probabilities = judge.judge(pairs).probabilities if pairs else np.zeros((0, 3), dtype=np.float32)
    ends = np.cumsum([0, *lengths]).tolist()
    return tuple(probabilities[start:end].astype(np.float64) for start, end in pairwise(ends))


def _longest_common_run(first: Sequence[str], second: Sequence[str]) -> int:
    best, row = 0, [0] * (len(second) + 1)
    for token in first:
        row = [0] + [row[i] + 1 if token == other else 0 for i, other in enumerate(second)]
        best = max(best, *row)
    return best
