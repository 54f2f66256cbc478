import csv
import io
import re

import pytest
from tests.evaluation.report.made_report import made_evaluation, made_systems, with_gold

from personalign.evaluation.evaluate import evaluate
from personalign.evaluation.metrics import find_metrics
from personalign.evaluation.report.tables import (
    better_or_worse,
    cells_of,
    csv_table,
    digits_for,
    family_tables,
    latex_tables,
    markdown_tables,
    metrics_of,
    rows_of,
)

FOUND = made_evaluation(made_systems())


def test_the_best_and_the_second_follow_the_direction_of_the_metric() -> None:
    f1 = {name: cell and cell.place for name, cell in cells_of(FOUND, "f1/convai2").items()}
    assert f1 == {"good": 1, "liar & co_1": 2, "dull": 0}
    # Lower is better; both that never contradict are best, and the third is the last, not the second.
    rate = {name: cell and cell.place for name, cell in cells_of(FOUND, "contradict_rate").items()}
    assert rate == {"good": 1, "liar & co_1": 0, "dull": 1}
    assert {cell.place for cell in cells_of(FOUND, "length/tokens").values() if cell} == {0}


def test_a_system_without_a_figure_has_an_empty_cell() -> None:
    assert cells_of(FOUND, "selection/accuracy")["liar & co_1"] is None
    assert "ppl/token" not in metrics_of(FOUND)


def test_metrics_keep_the_order_of_the_registry() -> None:
    systems = made_systems()
    first = {"liar": systems["liar & co_1"], "good": systems["good"]}
    found = evaluate(first, metrics=find_metrics(["selection/accuracy", "share_none_labelled"]))
    assert metrics_of(found) == ["selection/accuracy", "share_none_labelled"]


def test_the_reference_takes_no_place_and_decides_no_digits() -> None:
    systems = with_gold(made_systems())
    del systems["good"]
    cells = cells_of(made_evaluation(systems, reference="gold"), "f1/convai2")
    gold, liar = cells["gold"], cells["liar & co_1"]
    assert gold is not None
    assert liar is not None
    assert (gold.figure, gold.place, gold.stars) == ("100.00", 0, "")
    assert liar.place == 1
    assert len(liar.figure.partition(".")[2]) == 2


def test_markdown_has_a_table_per_family() -> None:
    lines = markdown_tables(FOUND, title="mine | <yours>").splitlines()
    assert lines[0] == r"# mine \| \<yours\>"
    assert [line for line in lines if line.startswith("## ")] == [
        "## Consistency with the persona",
        "## Selection",
        "## Overlap with the gold reply",
        "## Diversity",
    ]
    overlap = lines.index("| system | f1/convai2 |")
    assert lines[overlap + 2].startswith(r"| good | **100.0**\*\* [100.0, 100.0] |")
    selection = lines.index("| system | selection/accuracy |")
    assert lines[selection + 3] == r"| liar & co\_1 | - |"


def test_names_cannot_break_a_markdown_row() -> None:
    systems = made_systems()
    named = {"a | b*c": systems["good"], "`|`": systems["dull"]}
    text = markdown_tables(made_evaluation(named, against=None), title="t")
    assert r"| a \| b\*c | " in text
    rows = [line for line in text.splitlines() if line.startswith("|")]
    # One bar more than there are columns, in head and rows alike.
    bars = [len(re.findall(r"(?<!\\)\|", row)) for row in rows]
    assert bars == [4] * 4 + [3] * 12


def test_latex_has_a_booktabs_table_per_family_with_marks_and_intervals() -> None:
    text = latex_tables(FOUND, caption="50 % of a_b")
    assert text.count(r"\begin{table}") == text.count(r"\toprule") == 4
    assert r"System & c\_score/max $\uparrow$ & contradict\_rate $\downarrow$ \\" in text
    assert r"{}good & \textbf{100.0}$^{**}$ {\scriptsize [100.0, 100.0]} \\" in text
    assert r"{}liar \& co\_1 & \underline{" in text
    assert r"\caption{50 \% of a\_b: Overlap with the gold reply.}" in text
    assert r"\label{tab:overlap-with-the-gold-reply}" in text
    assert text.count("{") == text.count("}")


def test_latex_survives_any_name() -> None:
    systems = made_systems()
    named = {r"[a] \&%$#_{}~^<>|": systems["good"], "*": systems["dull"]}
    text = latex_tables(made_evaluation(named, against=None), caption="t")
    assert (
        r"{}[a] \textbackslash{}\&\%\$\#\_\{\}\textasciitilde{}\textasciicircum{}"
        r"\textless{}\textgreater{}\textbar{} & "
    ) in text
    # After a line break [ and * would be its arguments.
    rows = re.findall(r"(?:\\\\|\\midrule)\n(.*)", text)
    assert not [row for row in rows if row.startswith(("[", "*"))]


def test_the_reference_is_set_apart() -> None:
    found = made_evaluation(with_gold(made_systems()), reference="gold")
    latex = latex_tables(found, caption="t").splitlines()
    assert latex[latex.index(r"\midrule") + 1].startswith("{}gold & ")
    assert latex[latex.index(r"\midrule") + 2] == r"\midrule"
    markdown = markdown_tables(found, title="t").splitlines()
    assert markdown[6].startswith("| *gold* |")


def test_a_bound_takes_no_place_and_comes_last() -> None:
    systems = with_gold(made_systems())
    found = made_evaluation(systems, reference="gold", bounds=["good", "absent"])
    assert found.bounds == {"good"}
    assert "good" not in found.differences
    cells = cells_of(found, "f1/convai2")
    assert [None if cells[name] is None else cells[name].place for name in ("gold", "good")] == [0, 0]  # type: ignore[union-attr]
    assert rows_of(found)[0] == "gold"
    assert rows_of(found)[-1] == "good"
    assert "| *good* |" in markdown_tables(found, title="t")
    assert latex_tables(found, caption="t").count(r"\midrule") == 3 * latex_tables(found, caption="t").count(
        r"\toprule"
    )


def test_the_worst_is_not_the_second() -> None:
    alike = made_systems()
    three = {"one": alike["good"], "other": alike["good"], "worst": alike["dull"]}
    cells = cells_of(made_evaluation(three, against=None), "f1/convai2")
    assert [cell.place for cell in cells.values() if cell is not None] == [1, 1, 0]


def test_equal_figures_are_not_all_the_best() -> None:
    alike = {name: made_systems()["good"] for name in ("one", "other")}
    cells = cells_of(made_evaluation(alike, against=None), "f1/convai2")
    assert [cell.place for cell in cells.values() if cell is not None] == [0, 0]


def test_tables_say_what_their_figures_rest_on() -> None:
    note = "Figures of 9 turns, p < .05."
    assert "Figures of 9 turns, p \\< .05." in markdown_tables(FOUND, title="t", note=note)
    latex = latex_tables(FOUND, caption="Mine.", note=note)
    assert r"\caption{Mine: Diversity. Figures of 9 turns, p \textless{} .05.}" in latex


def test_csv_holds_everything_at_full_precision() -> None:
    rows = list(csv.DictReader(io.StringIO(csv_table(FOUND))))
    good = next(row for row in rows if row["system"] == "good" and row["metric"] == "f1/convai2")
    assert float(good["value"]) == FOUND.scores["good"]["f1/convai2"].estimate.value
    difference = FOUND.differences["good"]["f1/convai2"]
    told = [float(good[key]) for key in ("diff", "diff_low", "diff_high", "effect", "p", "p_holm")]
    comparison = difference.comparison
    assert told == [
        comparison.difference,
        comparison.low,
        comparison.high,
        comparison.effect,
        difference.p,
        difference.p_holm,
    ]
    assert good["test"] == "randomisation"
    dull = next(row for row in rows if row["system"] == "dull")
    assert (dull["diff"], dull["p"], dull["test"]) == ("", "", "")


def test_an_interval_belongs_to_the_test_that_gave_p() -> None:
    one = made_systems()
    seeds = {"a": [*one["good"], *one["liar & co_1"]], "b": [*one["dull"], *one["liar & co_1"]]}
    found = made_evaluation(seeds, against="b")
    over_seeds = found.differences["a"]["f1/convai2"].over_seeds
    assert over_seeds is not None
    rows = csv.DictReader(io.StringIO(csv_table(found)))
    row = next(row for row in rows if (row["system"], row["metric"]) == ("a", "f1/convai2"))
    assert row["test"] == "t-test over seeds"
    assert (float(row["diff_low"]), float(row["diff_high"])) == (over_seeds.low, over_seeds.high)


@pytest.mark.parametrize(
    ("metric", "difference", "word"),
    [
        ("contradict_rate", -0.4, "better"),
        ("contradict_rate@char", 0.4, "worse"),
        ("f1/convai2", -1.0, "worse"),
        ("f1/convai2", 0.0, ""),
        ("f1/convai2", float("nan"), ""),
        ("length/tokens", 3.0, ""),
    ],
)
def test_what_a_difference_means_follows_the_direction(metric: str, difference: float, word: str) -> None:
    assert better_or_worse(metric, difference) == word


@pytest.mark.parametrize(
    ("values", "digits"), [([0.5, 0.1], 3), ([0.5, 12.0], 2), ([-140.0], 1), ([float("nan")], 3)]
)
def test_digits_follow_the_largest_figure(values: list[float], digits: int) -> None:
    assert digits_for(values) == digits


def test_further_judges_have_tables_of_their_own() -> None:
    again = made_evaluation(made_systems())
    headings = [heading for heading, _, _ in family_tables(FOUND, {"judge b": again})]
    assert headings[:2] == ["Consistency with the persona", "Consistency with the persona, by judge b"]
    assert r"by judge b" in markdown_tables(FOUND, title="t", further={"judge b": again})
    rows = list(csv.DictReader(io.StringIO(csv_table(FOUND, judge="a", further={"judge b": again}))))
    judged = [row for row in rows if row["metric"] == "contradict_rate" and row["system"] == "dull"]
    assert [row["judge"] for row in judged] == ["a", "judge b"]
    assert {row["judge"] for row in rows if row["metric"] == "f1/convai2"} == {""}
    # A judge of the same name takes no row away.
    assert csv_table(FOUND, judge="a", further={"a": again}).count("\n") == 1 + len(rows)
