from dataclasses import replace
from typing import Any

from tests.evaluation.report.made_report import made_dialogues, made_systems, with_gold

from personalign.evaluation.answers import Answers
from personalign.evaluation.report.cases import cases_of

DIALOGUES = {dialogue.id: dialogue for dialogue in made_dialogues()}


def first_seeds() -> dict[str, Answers]:
    return {name: seeds[0] for name, seeds in made_systems().items()}


def test_a_case_holds_what_every_system_said_selected_and_was_judged() -> None:
    found = cases_of(first_seeds(), DIALOGUES, judged=True)
    assert found["systems"] == ["good", "liar & co_1", "dull"]
    assert len(found["dialogues"]) == 12
    assert len(found["cases"]) == 24
    assert found["dialogues"][3]["messages"][0] == ["user", "any pets 3 ?"]
    dialogue, turn, relevant, replies, selected, verdicts, apart = found["cases"][6]
    assert (dialogue, turn, relevant) == (3, 1, [0])
    assert replies == ["3 bees .", "no bees 3 .", "i do not know ."]
    assert selected == [0, -1, 0]
    # One line entailed; both contradicted; neither: sums 1, -2, 0.
    assert verdicts == ["en", "cc", "nn"]
    assert apart == 3.0
    assert found["cases"][7][2:] == [
        [],
        ["nice weather .", "nice dog .", "i do not know ."],
        [None, -1, None],
        ["nn"] * 3,
        0.0,
    ]


def test_without_a_judge_words_tell_how_far_apart_replies_are() -> None:
    found = cases_of(first_seeds(), DIALOGUES, judged=False)
    # nice weather / nice dog / i do not know: one of three words shared by one pair of three.
    assert found["cases"][7][6] == round((2 / 3 + 1 + 1) / 3, 3)
    assert found["cases"][7][5] == ["", "", ""]


def test_the_reference_is_shown_and_disagrees_with_nobody() -> None:
    systems = {name: seeds[0] for name, seeds in with_gold(made_systems()).items()}
    for judged in (True, False):
        found = cases_of(systems, DIALOGUES, judged=judged, reference="gold")
        without = cases_of(first_seeds(), DIALOGUES, judged=judged)
        assert found["systems"][found["reference"]] == "gold"
        assert [case[6] for case in found["cases"]] == [case[6] for case in without["cases"]]
        assert found["cases"][6][3][3] == "3 bees ."


def test_what_the_cases_can_be_asked_is_told() -> None:
    def told(found: dict[str, Any]) -> dict[str, Any]:
        return {key: found[key] for key in ("judged", "labelled", "selects", "compared")}

    assert told(cases_of(first_seeds(), DIALOGUES, judged=True)) == {
        "judged": True,
        "labelled": True,
        "selects": True,
        "compared": True,
    }
    liar = first_seeds()["liar & co_1"]
    bare = replace(liar, questions=[replace(question, relevant=None) for question in liar.questions])
    assert told(cases_of({"liar": bare, "gold": bare}, DIALOGUES, judged=False, reference="gold")) == {
        "judged": False,
        "labelled": False,
        "selects": False,
        "compared": False,
    }
