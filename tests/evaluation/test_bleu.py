import math
import warnings
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nltk.translate.bleu_score import corpus_bleu, sentence_bleu
from sacrebleu.metrics import BLEU
from tests.evaluation.real import gold_replies, published_replies, rows_of

from personalign.errors import PersonalignError
from personalign.evaluation.bleu import Variant, bleu, bleu_counts, bleu_idl_legacy

SENTENCES = st.lists(st.sampled_from("abcde"), min_size=0, max_size=9).map(" ".join)
PAIRS = st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=6)
ORDERS = st.sampled_from([1, 2, 3, 4])


def scored(responses: list[str], golds: list[str], *, order: int, variant: Variant = "coco") -> float:
    counts = bleu_counts([text.split() for text in responses], [text.split() for text in golds])
    return bleu(counts, order=order, variant=variant).figure()


def coco_by_definition(responses: list[str], golds: list[str], order: int) -> float:
    """pycocoevalcap's corpus score written out, n-gram by n-gram."""
    hits, grams, length, wanted = [0] * order, [0] * order, 0, 0
    for response, gold in zip(responses, golds, strict=True):
        guess, target = response.split(), gold.split()
        length += len(guess)
        wanted += len(target)
        for n in range(1, order + 1):
            found = [tuple(guess[i : i + n]) for i in range(len(guess) - n + 1)]
            given = [tuple(target[i : i + n]) for i in range(len(target) - n + 1)]
            grams[n - 1] += len(found)
            hits[n - 1] += sum(min(found.count(gram), given.count(gram)) for gram in set(found))
    score = 1.0
    for hit, count in zip(hits, grams, strict=True):
        score *= (hit + 1e-15) / (count + 1e-9)
    ratio = (length + 1e-15) / (wanted + 1e-9)
    return 100 * score ** (1 / order) * (1 if ratio >= 1 else math.exp(1 - 1 / ratio))


def test_by_hand() -> None:
    # 4 of 5 words and 2 of 4 pairs match; equal lengths, so no penalty.
    responses, references = ["i have a dog ."], ["i have a cat ."]
    assert scored(responses, references, order=1) == pytest.approx(80)
    assert scored(responses, references, order=2) == pytest.approx(100 * math.sqrt(4 / 5 * 2 / 4))


def test_repeated_words_are_clipped_and_short_corpora_penalised() -> None:
    # "the the the": one "the" counts; 3 tokens against 5: exp(1 - 5/3).
    value = scored(["the the the"], ["the dog is so big"], order=1)
    assert value == pytest.approx(100 / 3 * math.exp(1 - 5 / 3))


def test_counts_are_pooled_over_the_corpus() -> None:
    # Two of two words, then none of six: 2 / 8, not the mean of 1 and 0.
    assert scored(["a b", "c d e f g h"], ["a b", "i j k l m n"], order=1) == pytest.approx(25)


def test_without_any_hit_the_variants_differ() -> None:
    assert scored(["a b"], ["c d"], order=2) == pytest.approx(100 * math.sqrt(1e-15 / 2 * 1e-15))
    assert scored(["a b"], ["c d"], order=2, variant="nltk") == 0
    assert scored(["a b"], ["c d"], order=2, variant="sacrebleu") == 0


@settings(max_examples=200)
@given(PAIRS, ORDERS)
def test_coco_equals_its_definition(items: list[tuple[str, str]], order: int) -> None:
    responses, references = [item[0] for item in items], [item[1] for item in items]
    expected = coco_by_definition(responses, references, order)
    assert scored(responses, references, order=order) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=200)
@given(PAIRS, ORDERS)
def test_sacrebleu_equals_that_of_sacrebleu(items: list[tuple[str, str]], order: int) -> None:
    responses, references = [item[0] for item in items], [item[1] for item in items]
    oracle = BLEU(tokenize="none", max_ngram_order=order, force=True)
    theirs = oracle.corpus_score(responses, [references])
    assert scored(responses, references, order=order, variant="sacrebleu") == pytest.approx(
        theirs.score, abs=1e-6
    )


@settings(max_examples=200)
@given(PAIRS, ORDERS)
def test_nltk_equals_that_of_nltk(items: list[tuple[str, str]], order: int) -> None:
    responses, references = [item[0] for item in items], [item[1] for item in items]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = corpus_bleu(
            [[text.split()] for text in references],
            [text.split() for text in responses],
            weights=(1 / order,) * order,
        )
    assert scored(responses, references, order=order, variant="nltk") == pytest.approx(
        100 * float(theirs), abs=1e-6
    )


@given(st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=4), st.sampled_from([1, 2]))
def test_the_legacy_score_is_nltks_of_characters_with_the_gold_as_guess(
    pairs: list[tuple[str, str]], order: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = [
            float(sentence_bleu([response], gold, weights=(1 / order,) * order)) for response, gold in pairs
        ]
    ours = bleu_idl_legacy([pair[0] for pair in pairs], [pair[1] for pair in pairs], order=order)
    assert ours.figure() == pytest.approx(100 * sum(theirs) / len(theirs), abs=1e-6)


@given(PAIRS, ORDERS, st.sampled_from(["coco", "nltk", "sacrebleu"]))
def test_bounds_order_and_duplicates(items: list[tuple[str, str]], order: int, variant: Variant) -> None:
    responses, references = [item[0] for item in items], [item[1] for item in items]
    value = scored(responses, references, order=order, variant=variant)
    assert 0 <= value <= 100 + 1e-9
    assert scored(responses[::-1], references[::-1], order=order, variant=variant) == pytest.approx(value)
    if variant == "nltk" and value > 1:  # a copy of a corpus with an order missed halves nothing else
        assert scored(responses * 2, references * 2, order=order, variant=variant) == pytest.approx(value)


@pytest.mark.parametrize("responses", [[], ["a", "b"]])
def test_unequal_or_empty_input_is_refused(responses: list[str]) -> None:
    with pytest.raises(PersonalignError, match="give equal numbers"):
        scored(responses, ["a"][: len(responses)], order=1)


@pytest.mark.data
@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_real_replies_score_as_the_libraries_say(personalign_data: Path, order: int) -> None:
    golds = gold_replies(personalign_data)
    responses = published_replies(personalign_data)["LMEDR (original personas)"]
    theirs = BLEU(tokenize="none", max_ngram_order=order).corpus_score(responses, [golds]).score
    assert scored(responses, golds, order=order, variant="sacrebleu") == pytest.approx(theirs, abs=1e-6)
    weights = (1 / order,) * order
    nltk = corpus_bleu([[g.split()] for g in golds], [r.split() for r in responses], weights=weights)
    assert scored(responses, golds, order=order, variant="nltk") == pytest.approx(100 * float(nltk), abs=1e-6)


@pytest.mark.data
def test_four_published_scores_are_reproduced(personalign_data: Path) -> None:
    """The corpus BLEU-4 that Madotto et al. 2021 printed of four Few-Shot Bots is `bleu-4/coco`."""
    golds = gold_replies(personalign_data)
    checked = 0
    for system in rows_of(personalign_data / "model_outputs_convai2_valid.jsonl.gz"):
        if system["published_scores"] and system["responses"]:
            responses = published_replies(personalign_data)[system["system"]]
            assert round(scored(responses, golds, order=4), 2) == system["published_scores"]["BLEU"]
            checked += 1
    assert checked == 4
