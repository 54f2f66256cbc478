"""A small evaluation with everything that a report can show, and one as large as PersonaChat's test part."""

import random
from collections.abc import Sequence

import numpy as np

from personalign.data.dialogue import Dialogue, Turn
from personalign.evaluation.answers import Answers, Reply
from personalign.evaluation.evaluate import Evaluation, Settings, evaluate
from personalign.evaluation.judge import Pair, Verdicts
from personalign.evaluation.metrics import find_metrics
from personalign.evaluation.predictions import questions_of


class ByWord:
    """Entailed where line and reply share "bees", contradicted where the reply denies them, else neutral."""

    name = "by word"

    def judge(self, pairs: Sequence[Pair]) -> Verdicts:
        classes = [
            2 if "no bees" in reply else 0 if "bees" in line and "bees" in reply else 1
            for line, reply in pairs
        ]
        return Verdicts(np.eye(3, dtype=np.float32)[classes].reshape(-1, 3))


def made_dialogues(count: int = 12) -> list[Dialogue]:
    return [
        Dialogue(
            f"d{index}",
            ("i keep bees .", "i <b>run</b> & swim ."),
            (
                Turn("user", f"any pets {index} ?"),
                Turn("assistant", f"{index} bees ."),
                Turn("user", "</script><script>alert(1)</script>"),
                Turn("assistant", "nice weather ."),
            ),
            relevant=((0,), ()),
        )
        for index in range(count)
    ]


def made_systems(count: int = 12) -> dict[str, list[Answers]]:
    questions = questions_of(made_dialogues(count))

    def answers(*texts: str, selects: bool = False) -> Answers:
        replies = [
            Reply(texts[index % 2].format(index // 2), selects, 0 if selects and index % 2 == 0 else None)
            for index in range(len(questions))
        ]
        return Answers(questions, replies, judge=ByWord())

    return {
        "good": [answers("{} bees .", "nice weather .", selects=True)],
        "liar & co_1": [answers("no bees {} .", "nice dog .")],
        "dull": [answers("i do not know .", "i do not know .", selects=True)],
    }


def with_gold(systems: dict[str, list[Answers]]) -> dict[str, list[Answers]]:
    """The gold replies as a further system, called "gold"."""
    questions = next(iter(systems.values()))[0].questions
    replies = [Reply(question.gold or "") for question in questions]
    return {**systems, "gold": [Answers(questions, replies, judge=ByWord())]}


def made_evaluation(
    systems: dict[str, list[Answers]],
    *,
    against: str | None = "dull",
    reference: str | None = None,
    bounds: Sequence[str] = (),
) -> Evaluation:
    names = ["f1/convai2", "contradict_rate", "c_score/max", "length", "selection/accuracy", "ppl/token"]
    return evaluate(
        systems,
        metrics=find_metrics(names),
        against=against,
        reference=reference,
        bounds=bounds,
        settings=Settings(samples=4999),
    )


def personachat_sized(systems: int) -> tuple[list[Dialogue], dict[str, list[Answers]]]:
    """1,000 dialogues with 7,801 turns of eleven words each, as many as in PersonaChat's test part."""
    drawn = random.Random(1)
    vocabulary = ["".join(drawn.choices("abcdefghijklmnop", k=drawn.randint(2, 8))) for _ in range(3000)]
    vocabulary += ["bees"] * 30

    def sentence(length: int) -> str:
        return " ".join(drawn.choices(vocabulary, k=length)) + " ."

    dialogues = []
    for index in range(1000):
        replies = 8 if index < 801 else 7
        messages = [Turn(role, sentence(11)) for _ in range(replies) for role in ("user", "assistant")]
        persona = ("i keep bees .", *(sentence(6) for _ in range(4)))
        relevant = tuple((drawn.randrange(5),) if drawn.random() < 0.4 else () for _ in range(replies))
        dialogues.append(Dialogue(f"test-{index}", persona, tuple(messages), relevant=relevant))
    questions = questions_of(dialogues)
    answered = {
        f"system {number}": [
            Answers(
                questions,
                [Reply(sentence(11), True, drawn.choice((None, 0, 1, 2))) for _ in questions],
                judge=ByWord(),
            )
        ]
        for number in range(systems)
    }
    return dialogues, answered
