"""How the systems of a run select, and the C.score under that selection which stops stage 2.

The bias of "none" always comes from the stopping part, at its labelled share of none; never from test dialogues.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from personalign._ranks import ALONE, Ranks
from personalign.data.dialogue import Dialogue
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.respond import Response, Selection, SelectionScorer, respond, selection_scores
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
    ranks: Ranks = ALONE,
) -> Calibration:
    """Of several processes each scores its share; all get the same bias."""
    share = labelled_share_of_none(stop)
    scores = ranks.merged(selection_scores(loaded, prompter, ranks.share(stop), scorer=scorer, budget=budget))
    return Calibration(calibrate_none([item for row in scores for item in row], share_of_none=share), share)


def labelled_share_of_none(dialogues: Sequence[Dialogue]) -> float:
    labels = [labelled_line(dialogue, turn) for dialogue in dialogues for turn in dialogue.reply_indices()]
    return sum(label is None for label in labels) / max(1, len(labels))


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
    ranks: Ranks = ALONE,
) -> Validate:
    """A validation of stage 2: mean C.score (max) of replies to `stop`, calibrated anew at every call.

    `WATCHED` is what PAL draws over the course of alignment besides (its Figure 4).
    """
    by_id = {dialogue.id: dialogue for dialogue in stop}
    mine = ranks.share(stop)

    def validate(model: object) -> Validated:
        found = calibrated(loaded, prompter, stop, scorer=scorer, budget=budget, ranks=ranks)
        replied = respond(
            loaded,
            prompter,
            mine,
            selection=Selection("predicted", scorer=scorer, none_bias=found.none_bias),
            decoding=decoding,
            budget=budget,
        )
        of_dialogue: dict[str, list[Response]] = {dialogue.id: [] for dialogue in mine}
        for item in replied:
            of_dialogue[item.dialogue].append(item)
        responses = list(chain.from_iterable(ranks.merged(list(of_dialogue.values()))))
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
