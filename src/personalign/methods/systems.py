"""A system is a trained model with a way to select; its predictions are one JSON object per test turn."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from personalign.data.dialogue import Dialogue
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.respond import Response, Selection, respond
from personalign.decoding.selection import Strategy
from personalign.decoding.served import ServedModel
from personalign.evaluation.answers import Answers, Question, Reply
from personalign.evaluation.judge import Judge
from personalign.evaluation.metrics import METRICS, PAL_TEXT, missing
from personalign.evaluation.significance import estimate
from personalign.methods.pal import branch_scores
from personalign.methods.recipe import Language
from personalign.models import LoadedModel
from personalign.prompts import UNSELECTED, Prompter
from personalign.training.examples import Example, Path, grow

Row = dict[str, Any]
PAL_FIGURES = (
    *PAL_TEXT,
    "copy_rate",
    "ppl/token",
    "selection/accuracy",
    "selection/accuracy_always_none",
    "selection/accuracy_needed",
    "selection/recall@1",
    "selection/macro_f1",
    "share_none",
)
CONSISTENCY = ("c_score/max", "c_score/sum", "entail_rate", "contradict_rate")
SELECTING: frozenset[Strategy] = frozenset({"predicted", "random", "oracle"})


@dataclass(frozen=True, slots=True)
class System:
    """`stage` names the stage whose model answers; `part` the dialogues that it is tested on."""

    name: str
    title: str
    stage: str
    strategy: Strategy
    part: str = "test"


def predict(
    system: System,
    loaded: LoadedModel,
    prompter: Prompter,
    dialogues: Sequence[Dialogue],
    *,
    selection: Selection,
    decoding: DecodingSettings,
    budget: int,
    progress: Callable[[int, int], None] | None = None,
    served: ServedModel | None = None,
) -> list[Row]:
    """Decode every assistant turn and score its gold reply under the same prompt; one row per turn."""
    responses = respond(
        loaded,
        prompter,
        dialogues,
        selection=selection,
        decoding=decoding,
        budget=budget,
        progress=progress,
        served=served,
    )
    by_id = {dialogue.id: dialogue for dialogue in dialogues}
    gold = gold_scores(loaded, prompter, by_id, responses, budget=budget)
    return [
        row_of(
            system.name,
            response,
            by_id[response.dialogue],
            response.turn,
            gold=gold[response.dialogue, response.turn],
        )
        for response in responses
    ]


def row_of(system: str, response: Response, dialogue: Dialogue, turn: int, *, gold: tuple[float, int]) -> Row:
    """What is kept of a reply to message `turn` of the dialogue; `gold`: the gold reply's nll and tokens."""
    nth = dialogue.reply_indices().index(turn)
    nll, tokens = gold
    choice = response.choice
    return {
        "system": system,
        "dialogue": dialogue.id,
        "turn": turn,
        "persona": list(dialogue.persona),
        "response": response.text,
        "gold": dialogue.messages[turn].content,
        "relevant": list(dialogue.relevant[nth]) if dialogue.relevant is not None else None,
        "selected": None if choice is None else choice.line,
        "selects": choice is not None,
        "probabilities": None if choice is None else [round(p, 4) for p in choice.probabilities],
        "ended": response.ended,
        "gold_nll": nll,
        "gold_tokens": tokens,
    }


def gold_rows(dialogues: Sequence[Dialogue]) -> list[Row]:
    """The gold replies as a system of their own: what every score is to be read against."""
    return [
        {
            "system": "gold",
            "dialogue": dialogue.id,
            "turn": turn,
            "persona": list(dialogue.persona),
            "response": dialogue.messages[turn].content,
            "gold": dialogue.messages[turn].content,
            "relevant": list(dialogue.relevant[nth]) if dialogue.relevant is not None else None,
            "selected": None,
            "selects": False,
        }
        for dialogue in dialogues
        for nth, turn in enumerate(dialogue.reply_indices())
    ]


def evaluate(
    rows: Sequence[Row],
    judges: Mapping[str, Judge],
    *,
    language: Language,
    bootstrap: int,
    seed: int,
    names: Sequence[str] = PAL_FIGURES,
    judged_names: Sequence[str] = CONSISTENCY,
    past: Mapping[str, Sequence[str]] = {},
) -> dict[str, Any]:
    """The metrics of `names`, by default those of PAL's tables; consistency per judge, over all turns and by label.

    Turns labelled with a line and turns labelled none are also scored apart, since systems that do not select can be
    compared with those that do only there. `recall` is the share of labelled turns whose reply the judge finds to
    entail the labelled line. Intervals are 95 % bootstraps by dialogue. `past`: by dialogue, what the person said
    elsewhere.
    """
    answers = answers_of(rows, language=language, past=past)
    result: dict[str, Any] = {"turns": len(rows)}
    for name in names:
        if not missing(answers, METRICS[name]):
            result[name] = METRICS[name].measure(answers).figure()
    if "share_none" in result:  # to be read beside it, and only there
        result["share_none_labelled"] = METRICS["share_none_labelled"].measure(answers).figure()
    for name, judge in judges.items():
        judged = answers_of(rows, language=language, judge=judge)
        result[f"judge:{name}"] = _consistency(judged, judged_names, bootstrap=bootstrap, seed=seed)
    return result


def answers_of(
    rows: Sequence[Row],
    *,
    language: Language,
    judge: Judge | None = None,
    past: Mapping[str, Sequence[str]] = {},
) -> Answers:
    """What a run wrote of a system, as the metrics take it."""
    return Answers(
        [
            Question(
                row["dialogue"],
                row["turn"],
                tuple(row["persona"]),
                gold=row["gold"],
                past=tuple(past.get(row["dialogue"], ())),
                relevant=None if row["relevant"] is None else tuple(row["relevant"]),
            )
            for row in rows
        ],
        [
            Reply(
                row["response"],
                selects=row["selects"],
                line=row["selected"],
                probabilities=row.get("probabilities"),
                gold_nll=row.get("gold_nll"),
                gold_tokens=row.get("gold_tokens"),
            )
            for row in rows
        ],
        language=language,
        judge=judge,
    )


def _consistency(
    answers: Answers, judged_names: Sequence[str], *, bootstrap: int, seed: int
) -> dict[str, Any]:
    every = list(range(len(answers)))
    parts = {"all": every}
    if all(question.relevant is not None for question in answers.questions):
        needs = [bool(question.relevant) for question in answers.questions]
        parts |= {
            "needs_line": [index for index in every if needs[index]],
            "needs_none": [index for index in every if not needs[index]],
        }
    groups = answers.dialogues
    sums = {name: METRICS[name].measure(answers) for name in (*judged_names, "recall")}
    result: dict[str, Any] = {}
    for part, kept in parts.items():
        names = [*judged_names, *(["recall"] if part == "needs_line" else [])]
        for name in names if kept else ():
            found = estimate(
                [sums[name].of(kept)],
                [groups[index] for index in kept],
                samples=bootstrap,
                seed=seed,
            )
            result[name if name == "recall" else f"{name}/{part}"] = found.as_dict()
    return result


def gold_scores(
    loaded: LoadedModel,
    prompter: Prompter,
    dialogues: Mapping[str, Dialogue],
    responses: Sequence[Response],
    *,
    budget: int,
) -> dict[tuple[str, int], tuple[float, int]]:
    """Negative log-likelihood and token count of each gold reply, end token included, under the system's prompt.

    A reply that does not fit behind its prompt into what the model takes is scored as far as it does, so that one of
    them does not end a run; its count says so.
    """
    examples = []
    for response in responses:
        dialogue = dialogues[response.dialogue]
        line = UNSELECTED if response.choice is None else response.choice.line
        prompt = prompter.reply(dialogue, response.turn, line=line)
        target = prompter.reply_target(dialogue.messages[response.turn].content)
        if loaded.plan.longest is not None:
            target = target[: loaded.plan.longest - len(prompt)]
        examples.append(Example(dialogue.id, response.turn, (Path("reply", prompt, target),)))
    trees = grow(examples, budget=budget)
    return {
        example.key: (-log_prob, length)
        for tree, (sums, lengths) in zip(trees, branch_scores(loaded, trees, budget=budget), strict=True)
        for example, log_prob, length in zip(tree.examples, sums.tolist(), lengths.tolist(), strict=True)
    }
