import csv
import io

import pytest
from tests.evaluation.report.made_report import made_evaluation, made_systems

from personalign.evaluation.report.tables import (
    cells_of,
    csv_table,
    digits_for,
    latex_table,
    markdown_table,
    metrics_of,
)

FOUND = made_evaluation(made_systems())


def test_the_best_and_the_second_follow_the_direction_of_the_metric() -> None:
    f1 = {name: cell and cell.place for name, cell in cells_of(FOUND, "f1/convai2").items()}
    assert f1 == {"good": 1, "liar & co_1": 2, "dull": 0}
    # Lower is better; both that never contradict are best.
    rate = {name: cell and cell.place for name, cell in cells_of(FOUND, "contradict_rate").items()}
    assert rate == {"good": 1, "liar & co_1": 2, "dull": 1}
    assert {cell.place for cell in cells_of(FOUND, "length/tokens").values() if cell} == {0}


def test_a_system_without_a_figure_has_an_empty_cell() -> None:
    assert cells_of(FOUND, "selection/accuracy")["liar & co_1"] is None
    assert "ppl/token" not in metrics_of(FOUND)


def test_markdown() -> None:
    lines = markdown_table(FOUND, ["f1/convai2", "selection/accuracy"]).splitlines()
    assert lines[0] == "| system | f1/convai2 | selection/accuracy |"
    assert lines[2].startswith(r"| good | **100.0**\*\* [100.0, 100.0] | **1.000**")
    assert lines[3].endswith("| - |")


def test_latex_is_booktabs_with_marks_and_escapes() -> None:
    text = latex_table(FOUND, ["f1/convai2", "contradict_rate"], caption="50 % of a_b")
    assert r"\toprule" in text
    assert r"System & f1/convai2 $\uparrow$ & contradict\_rate $\downarrow$ \\" in text
    assert r"good & \textbf{100.0}$^{**}$ & \textbf{0.000} \\" in text
    assert r"liar \& co\_1 & \underline{" in text
    assert r"\caption{50 \% of a\_b}" in text
    assert text.count("{") == text.count("}")


def test_csv_holds_everything_at_full_precision() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_table(FOUND, metrics_of(FOUND)))))
    good = next(row for row in rows if row["system"] == "good" and row["metric"] == "f1/convai2")
    score = FOUND.scores["good"]["f1/convai2"].estimate
    assert float(good["value"]) == score.value
    assert float(good["p_holm"]) == FOUND.differences["good"]["f1/convai2"].p_holm
    dull = next(row for row in rows if row["system"] == "dull")
    assert dull["p"] == ""


@pytest.mark.parametrize(
    ("values", "digits"), [([0.5, 0.1], 3), ([0.5, 12.0], 2), ([-140.0], 1), ([float("nan")], 3)]
)
def test_digits_follow_the_largest_figure(values: list[float], digits: int) -> None:
    assert digits_for(values) == digits
