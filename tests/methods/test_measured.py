"""The row of a table that repeats the selected line."""

from personalign.methods.measured import _repeating_its_line


def test_a_selected_line_is_repeated_and_else_the_reply_stays() -> None:
    row = {
        "system": "pal_predicted",
        "persona": ["i bake .", "i fish ."],
        "response": "yes .",
        "selected": 1,
        "selects": True,
        "gold_nll": 3.0,
        "gold_tokens": 2,
    }
    repeated = _repeating_its_line(row)
    assert repeated["response"] == "i fish ."
    assert repeated.keys() == row.keys() - {"gold_nll", "gold_tokens"}
    assert _repeating_its_line(row | {"selected": None})["response"] == "yes ."
    assert row["response"] == "yes ."
