from tests.evaluation.report.made_report import made_dialogues, made_systems

from personalign.evaluation.report.cases import cases_of


def test_a_case_holds_what_every_system_said_selected_and_was_judged() -> None:
    systems = {name: seeds[0] for name, seeds in made_systems().items()}
    dialogues = {dialogue.id: dialogue for dialogue in made_dialogues()}
    found = cases_of(systems, dialogues, judged=True)
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
    systems = {name: seeds[0] for name, seeds in made_systems().items()}
    found = cases_of(systems, {}, judged=False)
    # nice weather / nice dog / i do not know: one of three words shared by one pair of three.
    assert found["cases"][7][6] == round((2 / 3 + 1 + 1) / 3, 3)
    assert found["cases"][7][5] == ["", "", ""]
    assert found["dialogues"][0]["messages"] == [["assistant", "0 bees ."], ["assistant", "nice weather ."]]
