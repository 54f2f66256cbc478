import gzip
import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import BLEU

from personalign.errors import PersonalignError
from personalign.evaluation.text_overlap import (
    bleu_coco,
    copied_share,
    copy_rate,
    longest_common_subsequence,
    rouge_l_coco,
)

SENTENCES = st.lists(st.sampled_from("abcde"), min_size=1, max_size=9).map(" ".join)
ITEMS = st.lists(st.tuples(SENTENCES, st.lists(SENTENCES, min_size=2, max_size=2)), min_size=1, max_size=6)


def test_bleu_by_hand() -> None:
    # 4 of 5 words and 2 of 4 pairs match; equal lengths, so no penalty.
    responses, references = ["i have a dog ."], [["i have a cat ."]]
    assert bleu_coco(responses, references, order=1) == pytest.approx(4 / 5)
    assert bleu_coco(responses, references, order=2) == pytest.approx(math.sqrt(4 / 5 * 2 / 4))


def test_bleu_clips_repeated_words_and_penalises_short_corpora() -> None:
    # "the the the": one "the" counts; 3 tokens against 5: exp(1 - 5/3).
    value = bleu_coco(["the the the"], [["the dog is so big"]], order=1)
    assert value == pytest.approx(1 / 3 * math.exp(1 - 5 / 3))


def test_bleu_pools_counts_over_the_corpus() -> None:
    # Two of two words, then none of six: 2 / 8, not the mean of 1 and 0.
    value = bleu_coco(["a b", "c d e f g h"], [["a b"], ["i j k l m n"]], order=1)
    assert value == pytest.approx(2 / 8)


def test_bleu_without_any_hit_is_set_by_the_additive_constants() -> None:
    # (1e-15 / (2 + 1e-9)) to the power 1, and the geometric mean with (1e-15 / (1 + 1e-9)).
    assert bleu_coco(["a b"], [["c d"]], order=1) == pytest.approx(1e-15 / 2)
    assert bleu_coco(["a b"], [["c d"]], order=2) == pytest.approx(math.sqrt(1e-15 / 2 * 1e-15))


def test_bleu_of_an_empty_response_is_a_number() -> None:
    assert bleu_coco([""], [["c d"]], order=2) == pytest.approx(0, abs=1e-12)


def test_bleu_takes_the_closest_length_and_of_two_the_shorter() -> None:
    # Lengths 2 and 4 are equally close to 3: against 2 there is no penalty.
    assert bleu_coco(["a b x"], [["a b y z", "a b"]], order=1) == pytest.approx(2 / 3)


def test_bleu_in_chinese_counts_characters() -> None:
    assert bleu_coco(["我有狗"], [["我有猫"]], order=1, language="zh") == pytest.approx(2 / 3)


@settings(max_examples=100, deadline=None)
@given(ITEMS, st.sampled_from([1, 2, 3, 4]))
def test_bleu_equals_sacrebleu_wherever_an_ngram_of_every_order_matches(
    items: list[tuple[str, list[str]]], order: int
) -> None:
    responses, references = [item[0] for item in items], [item[1] for item in items]
    oracle = BLEU(tokenize="none", smooth_method="none", max_ngram_order=order, force=True)
    theirs = oracle.corpus_score(responses, [list(column) for column in zip(*references, strict=True)])
    ours = bleu_coco(responses, references, order=order)
    if all(theirs.counts):
        assert ours * 100 == pytest.approx(theirs.score, abs=1e-5)
    else:
        assert ours < 0.05


def test_rouge_by_hand() -> None:
    # "a c d" is common: precision 3/4, recall 3/5.
    precision, recall, squared = 3 / 4, 3 / 5, 1.2**2
    expected = (1 + squared) * precision * recall / (recall + squared * precision)
    assert rouge_l_coco(["a x c d"], [["a b c d e"]]) == pytest.approx(expected)


def test_rouge_is_the_mean_over_items_and_zero_where_nothing_is_shared() -> None:
    assert rouge_l_coco(["a b", "c", ""], [["a b"], ["d"], ["e"]]) == pytest.approx(1 / 3)


def test_rouge_takes_the_best_precision_and_the_best_recall() -> None:
    # Precision from the first reference (2/2), recall from the second (1/1).
    assert rouge_l_coco(["a b"], [["a b c d"], ["a"]][:1]) < 1
    assert rouge_l_coco(["a b"], [["a b c d", "a"]]) == pytest.approx(1.0)


@given(st.text("abc", max_size=8), st.text("abc", max_size=8))
def test_common_subsequence_equals_the_recursive_definition(first: str, second: str) -> None:
    @cache
    def length(i: int, j: int) -> int:
        if i == len(first) or j == len(second):
            return 0
        if first[i] == second[j]:
            return 1 + length(i + 1, j + 1)
        return max(length(i + 1, j), length(i, j + 1))

    assert longest_common_subsequence(first, second) == length(0, 0)


def test_copied_share_is_the_longest_run_shared_with_one_line() -> None:
    persona = ["I like to fish.", "i have a big dog"]
    # "i have a big" is shared; the run may not go on into another line.
    assert copied_share("well , i have a big fish", persona) == pytest.approx(4 / 6)
    assert copied_share("I LIKE TO FISH!", persona) == 1.0
    assert copied_share("...", persona) == 0.0
    assert copied_share("hello", []) == 0.0


@given(st.text("ab ", max_size=12), st.text("ab ", max_size=12))
def test_copied_share_equals_search_over_all_runs(reply: str, line: str) -> None:
    own, other = reply.split(), line.split()
    runs = [own[i:j] for i in range(len(own)) for j in range(i + 1, len(own) + 1)]
    others = [other[i:j] for i in range(len(other)) for j in range(i + 1, len(other) + 1)]
    expected = max((len(run) for run in runs if run in others), default=0) / max(1, len(own))
    assert copied_share(reply, [line]) == pytest.approx(expected)


def test_copy_rate_is_the_mean() -> None:
    assert copy_rate(["i fish", "no"], [["i fish"], ["i fish"]]) == pytest.approx(0.5)


@pytest.mark.parametrize("responses", [[], ["a", "b"]])
def test_unequal_or_empty_input_is_refused(responses: list[str]) -> None:
    with pytest.raises(PersonalignError, match="give equal numbers"):
        bleu_coco(responses, [["a"]][: len(responses)], order=1)


@pytest.mark.data
def test_corpus_bleu_equals_published_scores(personalign_data: Path) -> None:
    """Four systems of Madotto et al. 2021 with the corpus BLEU-4 that their own script printed."""
    references = [
        (message["content"],)
        for dialogue in _rows(personalign_data / "convai2_valid.jsonl.gz")
        for message in dialogue["messages"]
        if message["role"] == "assistant"
    ]
    checked = 0
    for system in _rows(personalign_data / "model_outputs_convai2_valid.jsonl.gz"):
        if system["published_scores"] and system["responses"]:
            responses = [reply for replies in system["responses"] for reply in replies]
            ours = 100 * bleu_coco(responses, references, order=4)
            assert round(ours, 2) == system["published_scores"]["BLEU"], system["system"]
            checked += 1
    assert checked == 4


def _rows(path: Path) -> list[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]
