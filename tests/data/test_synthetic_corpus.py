import hashlib
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from personalign.data.dialogue import Dialogue
from personalign.data.native import parse_row
from personalign.data.synthetic import (
    SPLITS,
    Corpus,
    SyntheticOracle,
    generate,
    stated,
    tokens,
    vocabulary,
    write_corpus,
)
from personalign.data.synthetic.grammar import grammar, replace_values
from personalign.data.synthetic.people import has_held_out_pair
from personalign.errors import PersonalignError

PEOPLE = {"train": 400, "align": 60, "stop": 60, "test": 120, "unseen": 40}


@pytest.fixture(scope="module", params=["en", "zh"])
def corpus(request: pytest.FixtureRequest) -> Corpus:
    return generate(request.param, seed=3, people=PEOPLE)


def everybody(corpus: Corpus) -> list[Dialogue]:
    return [dialogue for dialogues in corpus.splits().values() for dialogue in dialogues]


def facts(dialogue: Dialogue) -> dict[str, str]:
    language = dialogue.extra["language"]
    found = [stated(line, language=language) for line in dialogue.persona]
    return {kind: values[0] for line in found for kind, values in line.items()}


def skeletons(texts: list[str], *, language: str) -> set[str]:
    """The texts with every value and every month replaced by a blank."""
    values = {value: "{}" for kind in grammar(language).kinds for value in kind.seen + kind.unseen}
    found = set()
    for text in texts:
        for month in grammar(language).months:
            text = text.replace(month, "{month}")
        found.add(replace_values(text, values, language=language))
    return found


def questions(dialogues: tuple[Dialogue, ...]) -> list[str]:
    return [
        dialogue.messages[2 * number].content
        for dialogue in dialogues
        for number, row in enumerate(dialogue.extra["truth"])
        if row["act"] in ("answer", "evade")
    ]


def test_a_dialogue_has_three_to_six_lines_and_speakers_in_turn(corpus: Corpus) -> None:
    assert {name: len(dialogues) for name, dialogues in corpus.splits().items()} == PEOPLE
    assert len({dialogue.id for dialogue in everybody(corpus)}) == sum(PEOPLE.values())
    for dialogue in everybody(corpus):
        assert len(dialogue.persona) == len(facts(dialogue))
        assert len(dialogue.partner_persona) == 5
        assert [turn.role for turn in dialogue.messages] == ["user", "assistant"] * 7
        assert dialogue.relevant is not None
        assert len(dialogue.relevant) == len(dialogue.extra["truth"]) == 7


def test_every_number_of_lines_is_as_common_in_every_split(corpus: Corpus) -> None:
    for dialogues in corpus.splits().values():
        sizes = Counter(len(dialogue.persona) for dialogue in dialogues)
        assert set(sizes) == {3, 4, 5, 6}
        assert max(sizes.values()) < 0.4 * len(dialogues)


def test_people_get_more_facts_where_all_sets_of_few_are_taken() -> None:
    # There are 2,288 sets of three unseen facts; a quarter of the people would want one.
    unseen = generate("en", seed=0, people={"unseen": 12_000}, exchanges=1).unseen
    sizes = Counter(len(dialogue.persona) for dialogue in unseen)
    assert 2000 < sizes[3] <= 2288
    assert sizes[4] > 3100
    assert sum(sizes.values()) == 12_000


def test_replies_express_the_relevant_line_and_no_other(corpus: Corpus) -> None:
    oracle = SyntheticOracle(corpus.language)
    for dialogue in everybody(corpus):
        for index, relevant, truth in zip(
            dialogue.reply_indices(), dialogue.relevant or (), dialogue.extra["truth"], strict=True
        ):
            reply = dialogue.messages[index].content
            labels = oracle.judge([(line, reply) for line in dialogue.persona])
            assert [place for place, label in enumerate(labels) if label == "entailment"] == list(relevant)
            assert "contradiction" not in labels
            assert (truth["act"] == "answer") == bool(relevant)
            expected = {truth["kind"]: (truth["value"],)} if relevant else {}
            assert stated(reply, language=corpus.language) == expected


def test_the_history_never_tells_the_right_value(corpus: Corpus) -> None:
    for dialogue in everybody(corpus):
        for number, row in enumerate(dialogue.extra["truth"]):
            if row["value"] is not None:
                for turn in dialogue.messages[: 2 * number + 1]:
                    assert row["value"] not in stated(turn.content, language=corpus.language).get(
                        row["kind"], ()
                    )


def test_the_partner_often_tells_a_wrong_value_of_the_asked_kind_first(corpus: Corpus) -> None:
    answered = misled = 0
    for dialogue in corpus.train:
        for number, row in enumerate(dialogue.extra["truth"]):
            if row["act"] == "answer":
                answered += 1
                history = [turn.content for turn in dialogue.messages[: 2 * number + 1]]
                misled += any(row["kind"] in stated(text, language=corpus.language) for text in history)
    assert misled / answered > 0.25


def test_questions_without_a_line_are_evaded_and_no_kind_is_asked_for_twice(corpus: Corpus) -> None:
    evasions = set(grammar(corpus.language).evasions)
    evaded = 0
    for dialogue in everybody(corpus):
        rows = dialogue.extra["truth"]
        asked = [row["kind"] for row in rows if row["act"] in ("answer", "evade")]
        assert len(asked) == len(set(asked))
        for index, row in zip(dialogue.reply_indices(), rows, strict=True):
            if row["act"] == "evade":
                evaded += 1
                assert row["kind"] not in facts(dialogue)
                assert dialogue.messages[index].content in evasions
    assert evaded > 100


def test_almost_half_of_the_replies_express_no_line(corpus: Corpus) -> None:
    labels = [label for dialogue in corpus.train for label in dialogue.relevant or ()]
    assert sum(label == () for label in labels) / len(labels) == pytest.approx(0.45, abs=0.03)


def test_splits_share_no_person_and_no_set_of_facts(corpus: Corpus) -> None:
    for key in (lambda dialogue: dialogue.person, lambda dialogue: frozenset(facts(dialogue).items())):
        sets = [{key(dialogue) for dialogue in dialogues} for dialogues in corpus.splits().values()]
        assert sum(map(len, sets)) == len(set().union(*sets)) == sum(PEOPLE.values())


def test_combinations_are_held_out_for_test_but_no_value_is(corpus: Corpus) -> None:
    rules = grammar(corpus.language)
    for dialogue in corpus.train + corpus.align + corpus.stop:
        assert not has_held_out_pair(rules, facts(dialogue))
    assert all(has_held_out_pair(rules, facts(dialogue)) for dialogue in corpus.test)
    seen = {(kind.name, value) for kind in rules.kinds for value in kind.seen}
    assert {fact for dialogue in corpus.train for fact in facts(dialogue).items()} == seen


def test_wordings_of_lines_and_questions_are_held_out(corpus: Corpus) -> None:
    language = corpus.language
    training = corpus.train + corpus.align
    heard = skeletons(
        [text for d in training for text in (*d.persona, *(t.content for t in d.messages))], language=language
    )
    for held_out in (corpus.stop, corpus.test, corpus.unseen):
        assert (
            not skeletons(
                [line for d in held_out for line in d.persona + d.partner_persona], language=language
            )
            & heard
        )
        assert not skeletons(questions(held_out), language=language) & heard
    and_you = grammar(language).and_you
    for held_out in (corpus.test, corpus.unseen):
        asked = skeletons(questions(held_out), language=language)
        assert not asked & skeletons(questions(corpus.stop), language=language)
        assert any(text.endswith(and_you) for text in asked)


def test_unseen_people_have_only_values_that_no_other_split_mentions(corpus: Corpus) -> None:
    rules = grammar(corpus.language)
    unseen = {value for kind in rules.kinds for value in kind.unseen}
    assert all(set(facts(dialogue).values()) <= unseen for dialogue in corpus.unseen)
    for dialogue in corpus.train + corpus.align + corpus.stop + corpus.test:
        for text in (
            *dialogue.persona,
            *dialogue.partner_persona,
            *(turn.content for turn in dialogue.messages),
        ):
            told = {value for values in stated(text, language=corpus.language).values() for value in values}
            assert not told & unseen


def test_the_vocabulary_covers_the_corpus(corpus: Corpus) -> None:
    known = set(vocabulary(corpus.language))
    for dialogue in everybody(corpus):
        for text in (
            *dialogue.persona,
            *dialogue.partner_persona,
            *(turn.content for turn in dialogue.messages),
        ):
            assert set(tokens(text, language=corpus.language)) <= known


def test_sessions_keep_the_person_and_change_the_partner() -> None:
    dialogues = generate("en", seed=0, people={"train": 20}, sessions_per_person=4).train
    assert len(dialogues) == 80
    for start in range(0, 80, 4):
        sessions = dialogues[start : start + 4]
        assert len({(session.person, session.persona) for session in sessions}) == 1
        assert len({session.partner_persona for session in sessions}) == 4
        assert len({session.id for session in sessions}) == 4


@pytest.mark.parametrize("exchanges", [1, 2, 12, 20])
def test_dialogues_have_the_length_that_is_asked_for(exchanges: int) -> None:
    dialogues = generate("zh", seed=1, people={"train": 50, "unseen": 50}, exchanges=exchanges)
    for dialogue in dialogues.train + dialogues.unseen:
        assert len(dialogue.messages) == 2 * exchanges
        assert all(turn.content for turn in dialogue.messages)


def test_written_files_are_read_back_the_same(corpus: Corpus, tmp_path: Path) -> None:
    paths = write_corpus(tmp_path / "new", corpus)
    assert list(paths) == list(SPLITS)
    for split, path in paths.items():
        assert path.name == f"{split}.jsonl"
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        read = tuple(
            parse_row(row, file=path.name, line=number)[0] for number, row in enumerate(rows, start=1)
        )
        assert read == corpus.splits()[split]


def test_empty_splits_leave_no_file(tmp_path: Path) -> None:
    assert list(write_corpus(tmp_path, generate("en", seed=0, people={"stop": 2}))) == ["stop"]
    assert [path.name for path in tmp_path.iterdir()] == ["stop.jsonl"]


def test_seeds_differ_and_splits_do_not_depend_on_each_others_size() -> None:
    small = generate("en", seed=5, people={"train": 10, "test": 10})
    large = generate("en", seed=5, people={"train": 30, "test": 10, "align": 5})
    assert small.train == large.train[:10]
    assert small.test == large.test
    assert generate("en", seed=6, people={"train": 10}).train != small.train


def test_the_same_in_every_process(tmp_path: Path) -> None:
    program = (
        "from personalign.data.synthetic import generate, write_corpus; import sys;"
        "write_corpus(sys.argv[1], generate('zh', seed=9, people={'train': 40, 'unseen': 5}))"
    )
    digests = set()
    for hash_seed in ("1", "2"):
        folder = tmp_path / hash_seed
        environment = {**os.environ, "PYTHONHASHSEED": hash_seed}
        subprocess.run([sys.executable, "-c", program, str(folder)], check=True, env=environment)
        digests.add(hashlib.sha256((folder / "train.jsonl").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_two_thousand_dialogues_take_less_than_two_seconds() -> None:
    start = time.process_time()
    generate("en", seed=0, people={"train": 2000})
    assert time.process_time() - start < 2


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"people": {"valid": 3}}, "no split 'valid'; write one of train, align, stop, test, unseen"),
        ({"people": {"train": -1}}, "train is -1"),
        ({"people": {"unseen": 10**6}}, "at most 20000"),
        ({"sessions_per_person": 0}, "sessions_per_person is 0"),
        ({"exchanges": 21}, "from 1 to 20"),
        ({"exchanges": 0}, "from 1 to 20"),
    ],
)
def test_arguments_out_of_range_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(PersonalignError, match=message):
        generate("en", **{"seed": 0, "people": {"train": 1}, **wrong})  # type: ignore[arg-type]
