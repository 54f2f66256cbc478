"""One system's replies to the turns of a test set, with everything that a metric may look at."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from personalign.errors import PersonalignError
from personalign.evaluation.coherence import CoherenceJudge
from personalign.evaluation.judge import Judge
from personalign.evaluation.tokens import Language

Found = TypeVar("Found")


@dataclass(frozen=True, slots=True)
class Question:
    """One turn of a test set: what was asked, of whom, and how the person did answer.

    `own` are the person's earlier messages of the dialogue, `partner` the other's; `past` what the same person says in
    other dialogues of the data, `relevant` the lines that `gold` is labelled with (None: not labelled).
    """

    dialogue: str
    turn: int
    persona: tuple[str, ...]
    gold: str | None = None
    own: tuple[str, ...] = ()
    partner: tuple[str, ...] = ()
    past: tuple[str, ...] = ()
    relevant: tuple[int, ...] | None = None

    @property
    def key(self) -> tuple[str, int]:
        return self.dialogue, self.turn

    def context(self) -> tuple[str, ...]:
        """The partner's last message, the one that is answered."""
        return self.partner[-1:]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a system answered, and what it told of how it came to it (None: it did not).

    `line`: the persona line that it rests on, None with `selects` for "none". `probabilities`: of every line, then of
    none. `gold_nll`: nats of the gold reply over `gold_tokens` tokens. `rank`: place of the gold reply among its
    candidates, from 1.
    """

    text: str
    selects: bool = False
    line: int | None = None
    probabilities: tuple[float, ...] | None = None
    gold_nll: float | None = None
    gold_tokens: int | None = None
    rank: int | None = None


@dataclass(frozen=True, slots=True)
class Answers:
    """`replies[i]` answers `questions[i]`. What is derived from them is computed once, by `once`."""

    questions: Sequence[Question]
    replies: Sequence[Reply]
    language: Language = "en"
    judge: Judge | None = None
    coherence: CoherenceJudge | None = None
    _derived: dict[Hashable, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if len(self.questions) != len(self.replies) or not self.questions:
            raise PersonalignError(
                f"{len(self.replies)} replies to {len(self.questions)} turns; give one per turn, at least one"
            )

    def __len__(self) -> int:
        return len(self.questions)

    @property
    def texts(self) -> list[str]:
        return [reply.text for reply in self.replies]

    @property
    def dialogues(self) -> list[str]:
        return [question.dialogue for question in self.questions]

    def golds(self) -> list[str]:
        """Raises PersonalignError where a turn has none; the registry asks for them only where all do."""
        golds = [question.gold for question in self.questions if question.gold is not None]
        if len(golds) != len(self):
            raise PersonalignError("some turns have no gold reply")
        return golds

    def once(self, key: Hashable, compute: Callable[[], Found]) -> Found:
        if key not in self._derived:
            self._derived[key] = compute()
        found: Found = self._derived[key]  # type: ignore[assignment]
        return found
