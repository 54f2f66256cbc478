from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from personalign.evaluation.grams import grams_of, shared

TEXTS = st.lists(st.text("abc", max_size=7), max_size=6)


@given(TEXTS)
def test_counts_equal_those_of_a_counter(texts: list[str]) -> None:
    for order, grams in enumerate(grams_of(texts, highest=4), start=1):
        whole = "".join(texts)
        found: dict[tuple[int, str], int] = {}
        for text, gram, count in zip(grams.text, grams.gram, grams.count, strict=True):
            place = grams.first[gram]
            found[int(text), whole[place : place + order]] = int(count)
        expected = {
            (number, gram): count
            for number, text in enumerate(texts)
            for gram, count in Counter(text[i : i + order] for i in range(len(text) - order + 1)).items()
        }
        assert found == expected
        assert grams.totals().tolist() == [max(0, len(text) - order + 1) for text in texts]
        assert grams.different().tolist() == [
            len({text[i : i + order] for i in range(len(text) - order + 1)}) for text in texts
        ]


@given(st.lists(st.tuples(st.text("ab", max_size=6), st.text("ab", max_size=6)), max_size=5))
def test_what_two_texts_share_is_clipped(pairs: list[tuple[str, str]]) -> None:
    texts = [*(first for first, _ in pairs), *(second for _, second in pairs)]
    for order, grams in enumerate(grams_of(texts, highest=3), start=1):
        expected = []
        for pair in pairs:
            ours, theirs = (Counter(t[i : i + order] for i in range(len(t) - order + 1)) for t in pair)
            expected.append((ours & theirs).total())
        assert shared(grams).tolist() == expected
