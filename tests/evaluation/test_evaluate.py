import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from personalign.errors import PersonalignError
from personalign.evaluation.answers import Answers, Question, Reply
from personalign.evaluation.evaluate import Settings, evaluate, evaluate_together
from personalign.evaluation.metrics import find_metrics, metric_of
from personalign.evaluation.significance import holm

QUESTIONS = [
    Question(
        f"d{index // 2}",
        index % 2 * 2 + 1,
        ("i fish",),
        gold=f"reply {index}",
        relevant=(0,) if index % 2 else (),
    )
    for index in range(20)
]


def answers(*texts: str) -> Answers:
    return Answers(QUESTIONS, [Reply(text) for text in texts])


GOOD = answers(*[question.gold or "" for question in QUESTIONS])
BAD = answers(*["no idea"] * 20)
METRICS = find_metrics(["bleu-1/coco", "f1/convai2", "length/tokens", "hits@1"])


def test_figures_intervals_and_what_is_left_out() -> None:
    found = evaluate({"good": [GOOD], "bad": [BAD]}, metrics=METRICS)
    assert (found.turns, found.dialogues) == (20, 10)
    assert found.scores["good"]["f1/convai2"].estimate.value == pytest.approx(100)
    assert found.scores["bad"]["f1/convai2"].estimate.value == 0
    assert set(found.left_out) == {"hits@1"}
    assert "'rank'" in found.left_out["hits@1"]
    assert found.differences == {}


def test_a_part_is_scored_alone() -> None:
    half = answers(*[(question.gold or "") if question.relevant else "no" for question in QUESTIONS])
    metrics = find_metrics(["f1/convai2"])
    for part, expected in (("needs_line", 100.0), ("needs_none", 0.0), ("all", 50.0)):
        found = evaluate({"half": [half]}, metrics=metrics, settings=Settings(part=part))  # type: ignore[arg-type]
        assert found.scores["half"]["f1/convai2"].estimate.value == pytest.approx(expected)


def test_differences_are_corrected_over_the_whole_table() -> None:
    found = evaluate(
        {"good": [GOOD], "bad": [BAD]}, metrics=METRICS, against="bad", settings=Settings(samples=9999)
    )
    differences = found.differences["good"]
    assert set(differences) == {"bleu-1/coco", "f1/convai2", "length/tokens"}
    f1 = differences["f1/convai2"]
    # Only the exchange of no dialogue, and that of all ten, differ as much: two of 1,024.
    assert f1.p == pytest.approx(2 / 1024, abs=0.0015)
    assert f1.p_holm == pytest.approx(3 * f1.p)
    assert differences["length/tokens"].p_holm == 1.0
    assert f1.over_seeds is None


def test_seeds_are_tested_against_seeds() -> None:
    worse = answers("no", *[question.gold or "" for question in QUESTIONS[1:]])
    found = evaluate(
        {"ours": [GOOD, worse], "theirs": [BAD, BAD]}, metrics=find_metrics(["f1/convai2"]), against="theirs"
    )
    score = found.scores["ours"]["f1/convai2"]
    assert score.per_seed == pytest.approx((100, 95))
    assert score.estimate.value == pytest.approx(97.5)
    difference = found.differences["ours"]["f1/convai2"]
    assert difference.over_seeds is not None
    assert difference.p == difference.over_seeds.p
    assert difference.stars == "***"


def test_unequal_turns_and_unknown_names_are_refused() -> None:
    other = Answers(QUESTIONS[1:], [Reply("x")] * 19)
    with pytest.raises(PersonalignError, match="b answers other turns than a"):
        evaluate({"a": [GOOD], "b": [other]}, metrics=METRICS)
    with pytest.raises(PersonalignError, match="'c' is none of the systems: 'a'"):
        evaluate({"a": [GOOD]}, metrics=METRICS, against="c")
    unlabelled = Answers([Question("x", 1, (), gold="y")], [Reply("y")])
    with pytest.raises(PersonalignError, match="'relevant' for every dialogue"):
        evaluate({"a": [unlabelled]}, metrics=METRICS, settings=Settings(part="needs_line"))


def test_one_dialogue_has_figures_without_intervals() -> None:
    found = evaluate({"a": [Answers(QUESTIONS[:2], [Reply("x")] * 2)]}, metrics=METRICS)
    assert math.isnan(found.scores["a"]["bleu-1/coco"].estimate.low)


def test_a_figure_that_does_not_exist_is_no_difference() -> None:
    none = [Question(f"d{index}", 1, ("i fish",), gold="x", relevant=()) for index in range(8)]
    systems = {
        name: [Answers(none, [Reply(name, selects=True, line=None)] * 8)] for name in ("ours", "theirs")
    }
    metrics = find_metrics(["selection/accuracy_needed", "length/tokens"])
    found = evaluate(systems, metrics=metrics, against="theirs")
    difference = found.differences["ours"]["selection/accuracy_needed"]
    assert math.isnan(difference.p)
    assert math.isnan(difference.comparison.p_bootstrap)
    assert math.isnan(difference.comparison.effect)
    assert difference.stars == ""
    # It takes no part in the correction of the others.
    assert found.differences["ours"]["length/tokens"].p_holm == 1.0


def test_systems_that_choose_other_lines_can_be_compared() -> None:
    lines = ("i fish", "i run", "i ski", "i swim", "i sail")
    questions = [Question(f"d{index}", 1, lines, gold="x", relevant=(index % 3,)) for index in range(12)]
    few = Answers(questions, [Reply("x", selects=True, line=index % 2) for index in range(12)])
    many = Answers(questions, [Reply("x", selects=True, line=index % 5) for index in range(12)])
    found = evaluate({"few": [few], "many": [many]}, metrics=find_metrics(["selection"]), against="few")
    difference = found.differences["many"]["selection/macro_f1"]
    ours, theirs = (found.scores[name]["selection/macro_f1"].estimate.value for name in ("many", "few"))
    assert difference.comparison.difference == pytest.approx(ours - theirs)
    assert 0 < difference.p <= 1
    # What the data alone decide is not tested.
    assert "selection/accuracy_always_none" in found.scores["many"]
    assert "selection/accuracy_always_none" not in found.differences["many"]


def test_more_seeds_of_one_are_tested_by_the_bootstrap() -> None:
    found = evaluate(
        {"ours": [GOOD, GOOD], "published": [BAD]}, metrics=find_metrics(["f1/convai2"]), against="published"
    )
    difference = found.differences["ours"]["f1/convai2"]
    assert difference.test == "paired bootstrap"
    assert difference.p == difference.comparison.p_bootstrap < 0.01


def test_every_test_of_many_gets_as_many_samples_as_a_star_needs() -> None:
    every = find_metrics(["bleu-1", "bleu-2", "rouge-1", "rouge-2", "rouge-l", "f1", "chrf"])
    systems = {"bad": [BAD], **{f"good {number}": [GOOD] for number in range(5)}}
    found = evaluate(systems, metrics=every, against="bad", settings=Settings(samples=100))
    count = sum(map(len, found.differences.values()))
    assert found.test_samples == 20 * count > 100
    assert evaluate(systems, metrics=every[:1]).test_samples == 0


def test_bootstraps_of_many_get_twice_as_many() -> None:
    """Their least p is 2 / (samples + 1): of 1,000 samples no star could appear from 26 tests on."""
    every = find_metrics(["bleu-1", "bleu-2", "rouge-1", "rouge-2", "rouge-l", "f1", "chrf"])
    systems = {"published": [BAD], **{f"ours {number}": [GOOD, GOOD] for number in range(5)}}
    found = evaluate(systems, metrics=every, against="published")
    tests = [one for some in found.differences.values() for one in some.values()]
    assert len(tests) >= 26
    assert {one.test for one in tests} == {"paired bootstrap"}
    assert found.test_samples == 40 * len(tests)
    assert found.differences["ours 0"]["f1/convai2"].p_holm < 0.05


def test_what_is_evaluated_together_is_corrected_together() -> None:
    systems = {"good": [GOOD], "bad": [BAD]}
    parts = [(systems, METRICS), (systems, find_metrics(["f1", "rouge-l", "chrf"]))]
    found = evaluate_together(parts, against="bad", settings=Settings(samples=100))
    tests = [one for part in found for one in part.differences["good"].values()]
    assert len(found[0].differences["good"]) == 3
    assert len(tests) > 6
    assert [part.test_samples for part in found] == [20 * len(tests)] * 2
    assert [one.p_holm for one in tests] == holm([one.p for one in tests])
    alone = evaluate(systems, metrics=METRICS, against="bad", settings=Settings(samples=20 * len(tests)))
    f1, f1_alone = (one.differences["good"]["f1/convai2"] for one in (found[0], alone))
    assert f1.p == f1_alone.p
    assert f1.p_holm > f1_alone.p_holm


def test_no_interval_leaves_the_range_of_its_metric() -> None:
    """Two dialogues whose replies differ as much as can be have a jackknife beyond 0 and 1."""
    questions = [Question(name, 1, (), gold="x") for name in ("varied", "stuck")]
    answers = Answers(questions, [Reply("a b c d e f g"), Reply("a a a a a a a")])
    found = evaluate({"only": [answers]}, metrics=find_metrics(["distinct-1/corpus", "entropy-1"]))
    distinct = found.scores["only"]["distinct-1/corpus"].estimate
    assert (distinct.low, distinct.high) == (0.0, 1.0)
    for metric, score in found.scores["only"].items():
        least, most = metric_of(metric).limits
        assert least <= score.estimate.low <= score.estimate.value <= score.estimate.high <= most


def test_a_reference_is_scored_and_not_tested() -> None:
    found = evaluate(
        {"gold": [GOOD], "bad": [BAD], "other": [BAD]}, metrics=METRICS, against="bad", reference="gold"
    )
    assert found.reference == "gold"
    assert set(found.scores) == {"gold", "bad", "other"}
    assert set(found.differences) == {"other"}
    assert found.left_out == {"hits@1": "every system lacks 'rank' in every prediction"}


def test_a_metric_that_one_system_has_says_what_the_other_lacks() -> None:
    ranked = Answers(QUESTIONS, [Reply("x", rank=1) for _ in QUESTIONS])
    found = evaluate({"ranked": [ranked], "bad": [BAD]}, metrics=METRICS)
    assert "hits@1" in found.scores["ranked"]
    assert found.left_out == {"hits@1": "bad lacks 'rank' in every prediction"}


def test_progress_is_told_of_every_piece_of_work() -> None:
    shown: dict[str, list[int]] = {}

    @contextmanager
    def progress(description: str, *, total: int) -> Iterator[Callable[[int], None]]:
        shown[description] = [total, 0]

        def advance(pieces: int) -> None:
            shown[description][1] += pieces

        yield advance

    metrics = find_metrics(["f1/convai2", "length/tokens", "selection/accuracy"])
    found = evaluate({"a": [GOOD], "b": [BAD]}, metrics=metrics, against="b", progress=progress)
    # Neither system selects: nothing of that is tested.
    assert len(found.differences["a"]) == 2
    assert shown == {"measuring": [6, 6], "testing": [2, 2]}
