from personalign.evaluation.consistency import Consistency
from personalign.evaluation.metrics import METRICS, text_metrics
from personalign.evaluation.selection import selection_metrics


def test_text_metrics_have_the_names_and_scale_of_the_tables() -> None:
    values = text_metrics(["i have a dog .", "yes"], ["i have a cat .", "yes"])
    assert round(values["bleu-1/coco"], 2) == round(100 * 5 / 6, 2)
    assert round(values["rouge-l/coco"], 2) == round(100 * (0.8 + 1) / 2, 2)
    assert values["distinct-2/corpus"] == 4 / 6
    assert len(values) == 9


def test_every_metric_that_is_printed_is_described() -> None:
    printed = {
        *text_metrics(["a"], ["a"]),
        *Consistency(((1,),)).metrics(),
        *selection_metrics([()], [None]),
        "copy_rate",
        "ppl/token",
    }
    assert printed == set(METRICS)


def test_chinese_texts_are_cut_by_character() -> None:
    assert round(text_metrics(["我有狗"], ["我有猫"], language="zh")["bleu-1/coco"], 1) == 66.7
