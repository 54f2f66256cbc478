import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from personalign.errors import PersonalignError
from personalign.evaluation.judge_data import judge_data
from personalign.evaluation.nli_rows import (
    NliRow,
    normalise,
    read_entailed_pairs,
    read_nli_rows,
    read_objects,
    sentences_in,
    sentences_of,
)


def row(premise: str, hypothesis: str, label: str = "neutral", split: str = "train") -> dict[str, str]:
    return {"premise": premise, "hypothesis": hypothesis, "label": label, "split": split}


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(item) + "\n" for item in rows), encoding="utf-8")
    return path


def test_json_json_lines_and_gzip_read_the_same(tmp_path: Path) -> None:
    rows = [row("i ski .", "i like snow .", "positive"), row("a", "b", "Contradiction", "valid")]
    lines = write(tmp_path / "rows.jsonl", rows)
    whole = tmp_path / "rows.json"
    whole.write_text(json.dumps(rows), encoding="utf-8-sig")
    packed = tmp_path / "rows.jsonl.gz"
    packed.write_bytes(gzip.compress(lines.read_bytes()))
    expected = [NliRow("i ski .", "i like snow .", 0), NliRow("a", "b", 2, "valid")]
    assert read_nli_rows(lines) == read_nli_rows(whole) == read_nli_rows(packed) == expected


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), min_size=1, max_size=5))
def test_any_text_survives(tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]) -> None:
    pairs = [(a, b) for a, b in pairs if a.strip() and b.strip()] or [("a", "b")]
    path = write(tmp_path_factory.mktemp("nli") / "rows.jsonl", [row(a, b) for a, b in pairs])
    assert [(item.premise, item.hypothesis) for item in read_nli_rows(path)] == pairs


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", "line 2: not JSON"),
        ("[1]", "line 2: expected a JSON object, found list"),
        ('{"hypothesis": "b", "label": "neutral"}', "line 2, field 'premise': expected a text, found None"),
        ('{"premise": "a", "hypothesis": " ", "label": "neutral"}', "line 2, field 'hypothesis'"),
        (
            '{"premise": "a", "hypothesis": "b", "label": "maybe"}',
            "line 2, field 'label': 'maybe' is no NLI label",
        ),
    ],
)
def test_a_fault_names_its_place(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(row("a", "b")) + "\n" + line + "\n")
    with pytest.raises(PersonalignError, match=message):
        read_nli_rows(path)


def test_unreadable_and_empty_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(PersonalignError, match="cannot be read"):
        read_nli_rows(tmp_path / "absent.jsonl")
    (tmp_path / "torn.jsonl.gz").write_bytes(gzip.compress(b"{}" * 500)[:20])
    with pytest.raises(PersonalignError, match="cannot be read"):
        read_nli_rows(tmp_path / "torn.jsonl.gz")
    (tmp_path / "empty.jsonl").write_text("")
    with pytest.raises(PersonalignError, match="no rows"):
        read_nli_rows(tmp_path / "empty.jsonl")


def test_normalised_sentences_ignore_case_marks_and_spaces() -> None:
    assert normalise(" I don't  Ski . ") == normalise("i don't ski!") == "i don t ski"


def test_every_text_and_sentence_of_a_file_is_found(tmp_path: Path) -> None:
    dialogue = {
        "persona": ["I ski."],
        "messages": [{"role": "user", "content": "Hello ! do you ski ? 我滑雪。你呢"}],
        "candidates": [["Maybe so"]],
    }
    found = sentences_in(write(tmp_path / "dialogues.jsonl", [dialogue]))
    assert {
        "i ski",
        "hello",
        "do you ski",
        "hello do you ski 我滑雪 你呢",
        "我滑雪",
        "你呢",
        "maybe so",
    } <= found
    assert "" not in found


def test_rows_with_forbidden_sentences_are_dropped_and_counted(tmp_path: Path) -> None:
    data = write(
        tmp_path / "nli.jsonl",
        [
            row("i ski", "i like snow"),
            row("I swim .", "it is wet"),
            row("i run", "i jog"),
            row("i read", "i like books"),
            row("i cook. i like books", "i bake"),
            row("i cook", "i bake . i am wet !"),
            row("i swim", "i am wet", split="valid"),
            row("x", "I like books .", split="test"),
        ],
    )
    pairs = write(
        tmp_path / "pairs.jsonl",
        [{"persona": f"line {i}", "response": f"reply {i}"} for i in range(5)]
        + [{"persona": "I run!", "response": "often"}, {"persona": "z", "response": "z", "split": "valid"}],
    )
    test_file = write(tmp_path / "test.jsonl", [{"persona": ["i run."], "messages": []}])
    gathered = judge_data(data, entailed_pairs=pairs, exclude=[test_file], max_entailed=3, max_neutral=2)
    assert gathered.counts == {
        "read": 8,
        "valid": 1,
        "other_splits": 1,
        "entailed_pairs_read": 6,
        "dropped_own_other_splits": 4,
        "dropped_excluded_files": 1,
        "entailed_pairs_dropped_own_other_splits": 0,
        "entailed_pairs_dropped_excluded_files": 1,
        "train_rows": 1,
        "more_rows": 0,
        "entailed_rows": 3,
        "random_neutral_rows": 2,
        "fact_rows": 0,
        "babble_rows": 0,
        "dev_rows": 0,
    }
    assert gathered.train[0] == NliRow("i ski", "i like snow", 1)
    assert gathered.valid == (NliRow("i swim", "i am wet", 1, "valid"),)
    known = {(item.premise, item.hypothesis) for item in read_entailed_pairs(pairs)}
    for item in gathered.train[1:]:
        assert ((item.premise, item.hypothesis) in known) == (item.label == 0)


def test_rows_of_snli_are_read_and_those_without_a_label_left_out(tmp_path: Path) -> None:
    rows = [
        {"sentence1": "a", "sentence2": "b", "gold_label": "entailment"},
        {"sentence1": "a", "sentence2": "c", "gold_label": "-"},
        {"sentence1": "a", "sentence2": "d", "label": "negative"},
    ]
    assert read_nli_rows(write(tmp_path / "snli.jsonl", rows)) == [NliRow("a", "b", 0), NliRow("a", "d", 2)]
    bad = write(tmp_path / "bad.jsonl", [{"sentence1": "a", "sentence2": "b", "gold_label": "hm"}])
    with pytest.raises(PersonalignError, match="field 'gold_label': 'hm' is no NLI label"):
        read_nli_rows(bad)


@pytest.mark.parametrize("line", ["[" * 100_000, '{"premise": ' + "9" * 5000 + "}", "{"])
def test_lines_that_no_parser_takes_are_one_message(tmp_path: Path, line: str) -> None:
    (tmp_path / "rows.jsonl").write_text('{"premise": "a", "hypothesis": "b", "label": "neutral"}\n' + line)
    with pytest.raises(PersonalignError, match=r"line 2: not (readable )?JSON"):
        read_nli_rows(tmp_path / "rows.jsonl")


def test_more_files_facts_and_babble_join_under_the_same_rules(tmp_path: Path) -> None:
    data = write(
        tmp_path / "nli.jsonl",
        [row(f"line {i}", f"reply {i}") for i in range(20)] + [row("v", "w", split="valid")],
    )
    more = write(
        tmp_path / "more.jsonl", [row("x", "y"), row("v .", "y"), row("z", "z", split="valid"), row("x", "y")]
    )
    texts = [(f"my {pet} is here {n}", pet) for pet in ("dog", "cat") for n in range(3)] + [("W!", "dog")]
    facts = write(
        tmp_path / "facts.jsonl", [{"text": t, "triples": [["i", "have_pet", pet]]} for t, pet in texts]
    )
    gathered = judge_data(data, more=[more], facts=[facts], max_facts=9, babble=10)
    assert gathered.counts["more_dropped_own_other_splits"] == 1
    assert gathered.counts["facts_dropped_own_other_splits"] == 1
    assert (gathered.counts["more_rows"], gathered.counts["babble_rows"]) == (2, 10)
    assert gathered.counts["fact_rows"] == 6
    # The row that stands there twice is learnt from once.
    assert len(gathered.train) == 20 + 1 + 6 + 10
    assert not {"v", "w"} & {normalise(text) for r in gathered.train for text in (r.premise, r.hypothesis)}
    assert gathered == judge_data(data, more=[more], facts=[facts], max_facts=9, babble=10)


def test_no_premise_of_the_held_out_part_is_learnt_from(tmp_path: Path) -> None:
    rows = [row(f"line {i % 20}", f"line {i % 7}") for i in range(60)] + [row("v", "w", split="valid")]
    pairs = [{"persona": f"line {i}", "response": f"reply {i}"} for i in range(20)]
    gathered = judge_data(
        write(tmp_path / "nli.jsonl", rows), entailed_pairs=write(tmp_path / "p.jsonl", pairs), dev_share=0.2
    )
    premises = {item.premise for item in gathered.dev}
    assert len(premises) == 4
    assert gathered.counts["dev_rows"] == len(gathered.dev) == 12
    assert not premises & {text for item in gathered.train for text in (item.premise, item.hypothesis)}


def test_the_parts_share_no_premise_and_lose_nothing(tmp_path: Path) -> None:
    rows = [row(f"line {i % 20}", f"reply {i}") for i in range(60)] + [row("v", "w", split="valid")]
    data = write(tmp_path / "nli.jsonl", rows)
    first, second, everything = (judge_data(data, part=part).train for part in ("a", "b", "all"))
    assert first
    assert second
    assert not {item.premise for item in first} & {item.premise for item in second}
    assert sorted(item.hypothesis for item in (*first, *second)) == sorted(
        item.hypothesis for item in everything
    )


def test_a_file_without_validation_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PersonalignError, match="no validation rows"):
        judge_data(write(tmp_path / "nli.jsonl", [row("a", "b")]))


def test_nothing_left_to_train_on_is_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "nli.jsonl", [row("a", "b"), row("a", "c", split="valid")])
    with pytest.raises(PersonalignError, match="no training rows"):
        judge_data(data)


@pytest.mark.data
def test_no_training_row_of_a_real_judge_has_a_sentence_of_the_test_dialogues(personalign_data: Path) -> None:
    test_file = personalign_data / "convai2_valid.jsonl.gz"
    gathered = judge_data(
        personalign_data / "dnli_part.jsonl.gz",
        entailed_pairs=personalign_data / "persona_entailed_pairs.jsonl.gz",
        exclude=[test_file],
    )
    with gzip.open(test_file, "rt", encoding="utf-8") as stream:
        dialogues = [json.loads(line) for line in stream]
    seen = {
        normalise(text)
        for dialogue in dialogues
        for text in (
            *dialogue["persona"],
            *dialogue["partner_persona"],
            *(message["content"] for message in dialogue["messages"]),
        )
    }
    assert gathered.counts["random_neutral_rows"] == 3000
    for item in gathered.train:
        assert not seen & (sentences_of(item.premise) | sentences_of(item.hypothesis))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"premise": "a", "meta": "\\ud83d"}', "line 2: .*half a character"),
        ('{"premise": "a", "weight": NaN}', "line 2: .*NaN is not a JSON value"),
        ('{"premise": "a", "premise": "b"}', "line 2: .*key 'premise' occurs twice"),
    ],
)
def test_what_could_not_be_written_again_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("{}\n" + text, encoding="utf-8")
    with pytest.raises(PersonalignError, match=message):
        list(read_objects(path))
    path.write_text(f"[{{}},\n{text}]", encoding="utf-8")
    with pytest.raises(PersonalignError, match=message.replace("line 2", ":2: line")):
        list(read_objects(path))
