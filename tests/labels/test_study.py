import sys
from pathlib import Path

import pytest

from personalign.data.dialogue import Dialogue, Turn
from personalign.labels.labeller import IdfOverlapLabeller
from personalign.labels.study import joined_labels, main, study, table


def dialogue(name: str, *, relevant: tuple[tuple[int, ...], ...] | None = None) -> Dialogue:
    replies = [f"my {name} is old", "what a nice day"]
    messages = tuple(turn for reply in replies for turn in (Turn("user", "hi"), Turn("assistant", reply)))
    return Dialogue(id=name, persona=("i like tea", f"i have a {name}"), messages=messages, relevant=relevant)


TRAIN = [dialogue(name) for name in ("dog", "boat", "sister")]
TEST = [dialogue(name, relevant=((1,), ())) for name in ("farm", "bike")]
PAIRS = {(f"i have a {name}", f"my {name} is old") for name in ("dog", "boat", "sister")}


def test_labels_are_joined_by_line_and_reply() -> None:
    assert joined_labels(TRAIN[:1], PAIRS) == [((1,), ())]
    assert joined_labels(TEST[:1], PAIRS) == [((), ())]


def test_thresholds_come_from_the_training_set_alone() -> None:
    row, always_none = study(
        [IdfOverlapLabeller(threshold=99.0)], train=TRAIN, gold=joined_labels(TRAIN, PAIRS), test=TEST
    )
    assert row.train_accuracy == 1.0
    assert row.test.accuracy == 1.0
    assert always_none.test.accuracy == 0.5
    assert row.threshold is not None
    assert 0 < row.threshold < 1
    blind, _ = study([IdfOverlapLabeller()], train=TRAIN, gold=[((), ())] * 3, test=TEST)
    assert blind.test.accuracy == 0.5
    assert blind.test.share_none == 1.0


def test_the_table_has_a_row_per_labeller_and_the_baseline() -> None:
    rows = study([IdfOverlapLabeller()], train=TRAIN, gold=joined_labels(TRAIN, PAIRS), test=TEST)
    text = table(rows)
    assert "| idf | " in text
    assert "| always none | - | - | 0.500 | 0.000 |" in text


def test_a_mistake_is_one_message_and_exit_code_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    absent = str(tmp_path / "absent.jsonl")
    monkeypatch.setattr(sys, "argv", ["study", "--train", absent, "--pairs", absent, "--test", absent])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1
    assert capsys.readouterr().err.startswith(f"error: {absent} does not exist")
