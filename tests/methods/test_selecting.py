"""What stage 2 is validated by."""

from collections.abc import Sequence

import numpy as np
import pytest
from tests.methods.made_runs import prompter, tiny_model

from personalign.data.synthetic import generate
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.respond import Selection, respond
from personalign.evaluation.bleu import bleu, bleu_counts
from personalign.evaluation.consistency import judge_consistency
from personalign.evaluation.judge import Pair, Verdicts
from personalign.evaluation.tokens import tokens
from personalign.methods.selecting import c_score_on, calibrated


class LengthJudge:
    """Verdicts that differ from pair to pair, whatever is said."""

    name = "length"

    def judge(self, pairs: Sequence[Pair]) -> Verdicts:
        kinds = [(len(reply) + 2 * len(line)) % 3 for reply, line in pairs]
        return Verdicts(np.eye(3, dtype=np.float32)[kinds])


def test_stage_2_is_validated_by_what_the_model_says_on_the_stopping_part() -> None:
    people = {"train": 1, "align": 1, "stop": 3, "test": 1, "unseen": 1}
    stop = generate("en", seed=5, people=people, exchanges=3).splits()["stop"]
    loaded = tiny_model()
    decoding = DecodingSettings(max_new_tokens=6)
    judge = LengthJudge()
    validate = c_score_on(
        stop, loaded, prompter(), judge=judge, scorer=None, decoding=decoding, budget=400, language="en"
    )
    found = validate(loaded.model)
    bias = calibrated(loaded, prompter(), stop, scorer=None, budget=400).none_bias
    replies = respond(
        loaded,
        prompter(),
        stop,
        selection=Selection("predicted", none_bias=bias),
        decoding=decoding,
        budget=400,
    )
    of = {dialogue.id: dialogue for dialogue in stop}
    judged = judge_consistency(
        judge, [one.text for one in replies], [of[one.dialogue].persona for one in replies]
    )
    said = [tokens(one.text) for one in replies]
    gold = [tokens(of[one.dialogue].messages[one.turn].content) for one in replies]
    assert found.score == pytest.approx(judged.c_score_max().figure())
    assert found.beside == pytest.approx(
        {
            "c_score/sum": judged.c_score_sum().figure(),
            "contradict_rate": judged.contradict_rate().figure(),
            "bleu-1/coco": bleu(bleu_counts(said, gold), order=1, variant="coco").figure(),
        }
    )
    assert 0.0 < found.score < 1.0
    assert len({*found.beside.values(), found.score}) > 2
