from functools import cache
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from sacrebleu.metrics import CHRF
from tests.evaluation.real import gold_replies, published_replies

from personalign.evaluation.overlap import (
    chrf,
    f1_convai2,
    longest_common_subsequence,
    rouge_l,
    rouge_l_coco,
    rouge_n,
    rouge_tokens,
)

TEXTS = st.lists(
    st.sampled_from(["I", "have", "a", "dog", "dog's", ".", "don't", "the", "42", "é"]), max_size=9
)
PAIRS = st.lists(st.tuples(TEXTS.map(" ".join), TEXTS.map(" ".join)), min_size=1, max_size=5)


def split(texts: list[str]) -> list[list[str]]:
    return [text.split() for text in texts]


def test_rouge_l_coco_by_hand() -> None:
    # "a c d" is common: precision 3/4, recall 3/5.
    precision, recall, squared = 3 / 4, 3 / 5, 1.2**2
    expected = (1 + squared) * precision * recall / (recall + squared * precision)
    assert rouge_l_coco(split(["a x c d"]), split(["a b c d e"])).figure() == pytest.approx(100 * expected)


def test_rouge_l_coco_is_the_mean_over_items_and_zero_where_nothing_is_shared() -> None:
    found = rouge_l_coco(split(["a b", "c", ""]), split(["a b", "d", "e"]))
    assert found.figure() == pytest.approx(100 / 3)


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


def rouge_of_google(responses: list[str], golds: list[str], kind: str) -> float:
    scorer = RougeScorer([kind], use_stemmer=False)
    scores = [
        scorer.score(gold, response)[kind].fmeasure for response, gold in zip(responses, golds, strict=True)
    ]
    return 100 * sum(scores) / len(scores)


def ours(responses: list[str], golds: list[str], kind: str) -> float:
    guesses, targets = ([rouge_tokens(text) for text in texts] for texts in (responses, golds))
    if kind == "rougeL":
        return rouge_l(guesses, targets).figure()
    return rouge_n(guesses, targets, order=int(kind[-1])).figure()


@given(PAIRS, st.sampled_from(["rouge1", "rouge2", "rougeL"]))
def test_rouge_equals_that_of_rouge_score(pairs: list[tuple[str, str]], kind: str) -> None:
    responses, golds = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    assert ours(responses, golds, kind) == pytest.approx(rouge_of_google(responses, golds, kind), abs=1e-6)


@given(PAIRS)
def test_chrf_equals_that_of_sacrebleu(pairs: list[tuple[str, str]]) -> None:
    responses, golds = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    theirs = CHRF().corpus_score(responses, [golds]).score
    assert chrf(responses, golds).figure() == pytest.approx(theirs, abs=1e-6)


def test_f1_ignores_case_punctuation_and_articles() -> None:
    assert f1_convai2(["The dog, a CAT!"], ["dog cat"]).figure() == pytest.approx(100)
    # "i have dog" against "i have cat fish": 2 shared of 3 and of 4.
    assert f1_convai2(["i have a dog ."], ["i have the cat fish"]).figure() == pytest.approx(100 * 4 / 7)
    assert f1_convai2(["", "."], ["dog", ""]).figure() == 0
    assert f1_convai2(["我有狗。"], ["我有猫"], language="zh").figure() == pytest.approx(100 * 2 / 3)


def f1_by_definition(response: str, gold: str) -> float:
    """ParlAI's steps, one at a time."""
    bags = []
    for text in (response, gold):
        kept = "".join(" " if c in "!\"#$%&()*+,-./:;<=>?@[]\\^`{|}~_'" else c for c in text.lower())
        bags.append([word for word in kept.split() if word not in {"a", "an", "the"}])
    guess, target = bags
    rest, hits = list(target), 0
    for word in guess:
        if word in rest:
            rest.remove(word)
            hits += 1
    return 2 * hits / (len(guess) + len(target)) if hits else 0.0


@given(PAIRS)
def test_f1_equals_its_definition(pairs: list[tuple[str, str]]) -> None:
    found = f1_convai2([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    expected = [f1_by_definition(response, gold) for response, gold in pairs]
    assert found.figure() == pytest.approx(100 * sum(expected) / len(expected), abs=1e-9)


@pytest.mark.data
def test_real_replies_score_as_the_libraries_say(personalign_data: Path) -> None:
    golds = gold_replies(personalign_data)[:2000]
    for replies in published_replies(personalign_data).values():
        responses = replies[:2000]
        for kind in ("rouge1", "rouge2", "rougeL"):
            assert ours(responses, golds, kind) == pytest.approx(
                rouge_of_google(responses, golds, kind), abs=1e-6
            )
        theirs = CHRF().corpus_score(responses, [golds]).score
        assert chrf(responses, golds).figure() == pytest.approx(theirs, abs=1e-6)
        expected = [f1_by_definition(r, g) for r, g in zip(responses, golds, strict=True)]
        assert f1_convai2(responses, golds).figure() == pytest.approx(
            100 * sum(expected) / len(expected), abs=1e-6
        )
