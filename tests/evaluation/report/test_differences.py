import re

import pytest
from tests.evaluation.report.made_report import made_evaluation, made_systems, with_gold

from personalign.evaluation.report.differences import differences_section

FOUND = made_evaluation(made_systems(), against="liar & co_1")
SECTION = differences_section(FOUND)


def rows_of(table: str) -> dict[str, list[str]]:
    """Cells by metric."""
    body = table.split("<tbody>")[1]
    rows = re.findall(r'<tr><th scope="row">(.*?)</th>(.*?)</tr>', body)
    return {metric: re.findall(r"<td.*?>(.*?)</td>", cells) for metric, cells in rows}


def test_every_test_is_told_whole() -> None:
    table = rows_of(SECTION.tables[0])
    assert set(table) == set(FOUND.differences["good"])
    for metric, (difference, interval, effect, p, p_holm, test, _) in table.items():
        found = FOUND.differences["good"][metric]
        assert float(difference) == pytest.approx(found.comparison.difference, abs=0.05)
        low, high = map(float, interval.split(" to "))
        assert low == pytest.approx(found.comparison.low, abs=0.05)
        assert high == pytest.approx(found.comparison.high, abs=0.05)
        assert float(effect) == pytest.approx(found.comparison.effect, abs=0.01)
        assert float(p) == pytest.approx(found.p, abs=1e-4)
        assert float(p_holm) == pytest.approx(found.p_holm, abs=1e-4)
        assert test == "randomisation"


def test_fewer_contradictions_are_better_and_fewer_words_are_neither() -> None:
    assert "good minus liar &amp; co_1" in SECTION.tables[0]
    table = rows_of(SECTION.tables[0])
    assert table["contradict_rate"][0] == "-0.5000"
    assert table["contradict_rate"][-1].startswith("better *")
    assert table["c_score/max"][-1].startswith("better *")
    assert "better" not in table["length/tokens"][-1]
    assert "worse" not in table["length/tokens"][-1]
    assert 'class="bar better"' in SECTION.charts[0]
    assert "worse" in rows_of(SECTION.tables[1])["f1/convai2"][-1]


def test_the_summary_counts_what_is_significant() -> None:
    words = [cells[-1] for cells in rows_of(SECTION.tables[0]).values()]
    better = sum(word.startswith("better *") for word in words)
    assert f"{len(words)} tests, {better} significantly better, 0 significantly worse" in SECTION.tables[0]


def test_the_reference_has_no_difference() -> None:
    found = made_evaluation(with_gold(made_systems()), reference="gold")
    section = differences_section(found)
    assert len(section.charts) == len(section.tables) == 2
    assert "gold minus" not in "".join((*section.charts, *section.tables))


def test_without_tests_there_is_nothing_to_show() -> None:
    section = differences_section(made_evaluation(made_systems(), against=None))
    assert (list(section.charts), list(section.tables)) == ([], [])
