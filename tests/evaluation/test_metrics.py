import math

import pytest

from personalign.errors import PersonalignError
from personalign.evaluation.answers import Answers, Question, Reply
from personalign.evaluation.metrics import (
    METRICS,
    PAL_TEXT,
    find_metrics,
    missing,
    printed_name,
)

JUDGED = {"judge", "coherence"}


def answers(*, language: str = "en") -> Answers:
    return Answers(
        [
            Question("x", 1, ("i fish", "i run"), gold="i fish a lot", past=("i fish",), relevant=(0,)),
            Question(
                "x", 3, ("i fish", "i run"), gold="yes", own=("i fish a lot",), past=("no",), relevant=()
            ),
        ],
        [
            Reply("i fish", True, 0, (0.5, 0.1, 0.4), gold_nll=4.0, gold_tokens=5, rank=1),
            Reply("yes", True, None, (0.2, 0.1, 0.7), gold_nll=1.0, gold_tokens=2, rank=2),
        ],
        language=language,  # type: ignore[arg-type]
    )


def of_texts(*pairs: tuple[str, str], language: str = "en") -> dict[str, float]:
    """PAL's metrics of (reply, gold) pairs."""
    given = Answers(
        [Question(str(number), 0, (), gold=gold) for number, (_, gold) in enumerate(pairs)],
        [Reply(reply) for reply, _ in pairs],
        language=language,  # type: ignore[arg-type]
    )
    return {name: METRICS[name].measure(given).figure() for name in PAL_TEXT}


def test_text_metrics_have_the_names_and_scale_of_the_tables() -> None:
    values = of_texts(("i have a dog .", "i have a cat ."), ("yes", "yes"))
    assert round(values["bleu-1/coco"], 2) == round(100 * 5 / 6, 2)
    assert round(values["rouge-l/coco"], 2) == round(100 * (0.8 + 1) / 2, 2)
    assert values["distinct-2/corpus"] == 4 / 6


def test_chinese_texts_are_cut_by_character_or_by_word() -> None:
    assert round(of_texts(("我有狗", "我有猫"), language="zh")["bleu-1/coco"], 1) == 66.7
    # jieba: 我们 / 喜欢 / 北京 against 我们 / 喜欢 / 上海.
    words = of_texts(("我们喜欢北京", "我们喜欢上海"), language="zh-word")
    assert round(words["bleu-1/coco"], 1) == pytest.approx(66.7)
    bleu = METRICS["bleu-1/coco"]
    assert printed_name(bleu, "zh") == "bleu-1/coco@char"
    assert printed_name(bleu, "zh-word") == "bleu-1/coco@word"


def test_every_metric_but_the_judged_measures_what_has_everything() -> None:
    for metric in METRICS.values():
        if JUDGED & set(metric.needs):
            assert missing(answers(), metric) in (["judge"], ["coherence"])
        else:
            value = metric.measure(answers()).figure()
            low, _, high = metric.range.partition(" to ")
            if high:
                # Replies of two words have no trigram.
                too_short = math.isnan(value) and metric.name in ("distinct-3/per_response", "repetition-4")
                assert too_short or float(low) <= value <= float(high)


def test_figures_that_the_names_promise() -> None:
    found = {
        name: METRICS[name].measure(answers()).figure()
        for name in METRICS
        if not JUDGED & set(METRICS[name].needs)
    }
    assert found["hits@1"] == 0.5
    assert found["mrr"] == 0.75
    assert found["selection/accuracy"] == 1.0
    assert found["selection/recall@1"] == 1.0
    assert found["share_none"] == found["share_none_labelled"] == 0.5
    assert found["ppl/token"] == pytest.approx(2.718281828 ** (5 / 7))
    # Four words and one word, each with its end.
    assert found["ppl/word"] == pytest.approx(2.718281828 ** (5 / 7))
    assert found["copy_rate"] == 0.5


def test_what_is_missing_is_named() -> None:
    bare = Answers([Question("x", 1, ())], [Reply("hm")])
    assert missing(bare, METRICS["bleu-1/coco"]) == ["gold"]
    assert missing(bare, METRICS["hits@1"]) == ["rank"]


def test_metrics_are_found_by_name_or_by_what_stands_before_the_slash() -> None:
    assert [m.name for m in find_metrics(["rouge-l"])] == ["rouge-l/coco", "rouge-l/rouge_score"]
    assert [m.name for m in find_metrics(["mrr", "mrr"])] == ["mrr"]
    with pytest.raises(PersonalignError, match="did you mean distinct-1/corpus"):
        find_metrics(["distinct-1/korpus"])


def test_metrics_are_found_by_printed_names_and_without_legacy_variants() -> None:
    assert [metric.name for metric in find_metrics(["BLEU-1/coco@char"])] == ["bleu-1/coco"]
    assert "bleu-1/idl_legacy_char" not in [metric.name for metric in find_metrics(["bleu-1"])]
    assert [metric.name for metric in find_metrics(["bleu-1/idl_legacy_char"])] == ["bleu-1/idl_legacy_char"]
    with pytest.raises(PersonalignError, match="did you mean bleu-1 or bleu-2 or bleu-3 or bleu-4"):
        find_metrics(["bleu"])


def test_answers_want_one_reply_per_turn() -> None:
    with pytest.raises(PersonalignError, match="0 replies to 1 turns"):
        Answers([Question("x", 1, ())], [])
