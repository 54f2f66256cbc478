"""Real files load, and their counts are those that were published for them."""

from pathlib import Path

import pytest

from personalign.data.formats import parse, read_dialogues, write_dialogues
from personalign.data.statistics import statistics

pytestmark = pytest.mark.data

# dialogues, turns, examples
COUNTS = {
    "convai2_valid": (1000, 15_602, 7801),
    "convai2_train_part": (2361, 34_702, 17_351),
    "convai2_candidates_sample": (154, 2286, 1143),
    "synthetic_persona_chat_valid": (1000, 27_704, 13_637),
    "msc_valid_sessions": (2000, 23_288, 11_644),
    "msc_valid_persona_extraction": (2000, 25_459, 12_702),
    "xpersona_zh_valid": (222, 3440, 1720),
    "xpersona_zh_test": (222, 3458, 1729),
    "real_persona_chat_ja_sample": (600, 18_060, 9011),
    "dailydialog_valid": (1000, 8069, 3851),
    "dailydialog_test": (1000, 7740, 3700),
}


@pytest.mark.parametrize("name", sorted(COUNTS))
def test_published_counts(personalign_data: Path, name: str) -> None:
    counts = statistics(read_dialogues(personalign_data / f"{name}.jsonl.gz"))
    assert (counts.dialogues, counts.turns, counts.examples) == COUNTS[name]


def test_labels_and_candidates(personalign_data: Path) -> None:
    labelled = statistics(read_dialogues(personalign_data / "convai2_valid.jsonl.gz"))
    assert labelled.share_of_none == pytest.approx(1 - 2947 / 7801)
    ranked = statistics(read_dialogues(personalign_data / "convai2_candidates_sample.jsonl.gz"))
    assert (ranked.candidate_lists, ranked.candidates_per_list) == (1143, 20)


def test_empty_turns_are_found_and_can_be_dropped(personalign_data: Path) -> None:
    path = personalign_data / "dulemon_zh_sample.jsonl.gz"
    assert [fault.line for fault in parse(path).faults] == [2, 5, 10, 13]
    assert len(read_dialogues(path, drop_empty_turns=True)) == 20


@pytest.mark.parametrize("format", ["native", "parlai", "pal"])
def test_a_whole_split_survives_the_formats(personalign_data: Path, tmp_path: Path, format: str) -> None:
    before = read_dialogues(personalign_data / "convai2_valid.jsonl.gz")
    write_dialogues(tmp_path / "copy", before, format=format)  # type: ignore[arg-type]
    after = read_dialogues(tmp_path / "copy")
    assert [(d.persona, d.messages) for d in after] == [(d.persona, d.messages) for d in before]
    if format != "parlai":
        assert [d.relevant for d in after] == [d.relevant for d in before]
