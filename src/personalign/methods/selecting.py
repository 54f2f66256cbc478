"""How the systems of a run select, and the C.score under that selection which stops stage 2.

The bias of "none" always comes from the stopping part, at its labelled share of none; never from test dialogues.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from personalign.data.dialogue import Dialogue
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.respond import Selection, SelectionScorer, respond, selection_scores
from personalign.decoding.selection import calibrate_none, labelled_line
from personalign.evaluation.answers import Answers, Question, Reply
from personalign.evaluation.judge import Judge
from personalign.evaluation.metrics import METRICS
from personalign.methods.recipe import Language
from personalign.models import LoadedModel
from personalign.prompts import Prompter
from personalign.training.journal import Validate, Validated

WATCHED = ("c_score/sum", "contradict_rate", "bleu-1/coco")


@dataclass(frozen=True, slots=True)
class Calibration:
    """The bias of "none" at which a model chooses none as often as the labels, `share_of_none`, do."""

    none_bias: float
    share_of_none: float


def calibrated(
    loaded: LoadedModel,
    prompter: Prompter,
    stop: Sequence[Dialogue],
    *,
    scorer: SelectionScorer | None,
    budget: int,
) -> Calibration:
    share = labelled_share_of_none(stop)
    scores = selection_scores(loaded, prompter, stop, scorer=scorer, budget=budget)
    return Calibration(calibrate_none([item for row in scores for item in row], share_of_none=share), share)


def labelled_share_of_none(dialogues: Sequence[Dialogue]) -> float:
    labels = [labelled_line(dialogue, turn) for dialogue in dialogues for turn in dialogue.reply_indices()]
    return sum(label is None for label in labels) / len(labels)


def c_score_on(
    stop: Sequence[Dialogue],
    loaded: LoadedModel,
    prompter: Prompter,
    *,
    judge: Judge,
    scorer: SelectionScorer | None,
    decoding: DecodingSettings,
    budget: int,
    language: Language,
) -> Validate:
    """A validation of stage 2: mean C.score (max) of replies to `stop`, calibrated anew at every call.

    `WATCHED` is what PAL draws over the course of alignment besides (its Figure 4).
    """
    by_id = {dialogue.id: dialogue for dialogue in stop}

    def validate(model: object) -> Validated:
        found = calibrated(loaded, prompter, stop, scorer=scorer, budget=budget)
        responses = respond(
            loaded,
            prompter,
            stop,
            selection=Selection("predicted", scorer=scorer, none_bias=found.none_bias),
            decoding=decoding,
            budget=budget,
        )
        answers = Answers(
            [
                Question(item.dialogue, item.turn, talk.persona, gold=talk.messages[item.turn].content)
                for item in responses
                for talk in [by_id[item.dialogue]]
            ],
            [Reply(item.text) for item in responses],
            language=language,
            judge=judge,
        )
        score = METRICS["c_score/max"].measure(answers).figure()
        return Validated(score, {name: METRICS[name].measure(answers).figure() for name in WATCHED})

    return validate
