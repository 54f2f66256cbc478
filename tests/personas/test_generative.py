"""The generative extractor: how facts are written and read, and that a model learns to write them."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from typer.testing import CliRunner

from personalign.cli.main import app
from personalign.decoding.generation import Grown
from personalign.evaluation.nli_triples import Fact
from personalign.methods.extractor_training import fact_examples
from personalign.methods.extractors import open_extractor
from personalign.models import prepare, train_bpe
from personalign.models.backbone import build_backbone
from personalign.personas import generative
from personalign.personas.extraction import BySentence, Triple
from personalign.personas.generative import FactPrompter, GenerativeExtractor, read_facts_of, written
from personalign.training.examples import grow
from personalign.training.step import StageSettings
from personalign.training.trainer import train_stage

ELEMENTS = (
    st.text(
        st.characters(codec="utf-8", exclude_categories=("Cc", "Zl", "Zp"), exclude_characters="<>,"),
        min_size=1,
    )
    .map(lambda text: " ".join(text.split()))
    .filter(bool)
)


@given(st.lists(st.tuples(ELEMENTS, ELEMENTS, ELEMENTS), max_size=4))
def test_what_is_written_is_read_back(triples: list[tuple[str, str, str]]) -> None:
    facts = tuple(Triple(*triple) for triple in triples)
    assert read_facts_of(written(facts)) == facts
    assert "\n" not in written(facts)


def test_objects_may_hold_commas_and_marks_are_taken_out() -> None:
    assert read_facts_of(written([Triple("i", "like", "rock, pop <3")])) == (
        Triple("i", "like", "rock, pop 3"),
    )
    assert written([]) == "<>"
    assert read_facts_of("<> nonsense <i, like> <i, like, tea> <, ,>") == (Triple("i", "like", "tea"),)


def facts() -> list[Fact]:
    things, verbs = ["tea", "rain", "dogs", "bread"], ["like", "hate"]
    return [
        Fact(f"{begin}i {verb} {thing} .", "i", verb, thing)
        for begin in ("", "well , ", "oh , ", "you know , ")
        for verb in verbs
        for thing in things
    ]


OTHERS = ("hello .", "and you ?")


def test_sentences_are_stacked_and_lines_are_theirs_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = train_bpe(["i like tea and rain <,>"], vocab_size=300)
    asked: list[str] = []

    def answer(loaded: object, rows: list[list[list[int]]], **settings: object) -> list[list[Grown]]:
        asked.extend(tokenizer.decode(prompt) for prompt in rows[0])
        lines = ["<i, like, tea>\n<>\n<i, like, rain> <i, own, tea>", "<i, like, mud>"]
        return [[Grown(tokenizer.encode(text, add_special_tokens=False), True) for text in lines]]

    monkeypatch.setattr(generative, "plain_generate", answer)
    loaded = SimpleNamespace(tokenizer=tokenizer)
    extractor = GenerativeExtractor("made", loaded, stacked=3)  # type: ignore[arg-type]
    found = extractor.triples(["a", "b", "c", "a", "d", "e"])
    assert [text.count("\n") for text in asked] == [4, 3]
    rain = (Triple("i", "like", "rain"), Triple("i", "own", "tea"))
    tea, mud = (Triple("i", "like", "tea"),), (Triple("i", "like", "mud"),)
    # Of the second stack a line is missing.
    assert found == [tea, (), rain, tea, mud, ()]


def made_model(tokenizer: Any, **size: int) -> Any:
    return build_backbone(
        "llama",
        vocab_size=len(tokenizer),
        max_positions=512,
        bos_id=tokenizer.bos_token_id,
        eos_id=tokenizer.eos_token_id,
        pad_id=tokenizer.pad_token_id,
        seed=1,
        **size,
    )


def test_a_model_learns_to_write_the_facts_of_each_sentence(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    known = facts()
    tokenizer = train_bpe(
        [*(fact.text for fact in known), *OTHERS, "<i, like, tea>", "Facts:"], vocab_size=300
    )
    model = made_model(tokenizer, width=64, layers=2, heads=4)
    loaded = prepare(model, tokenizer, dtype="float32", device=torch.device("cpu"))
    prompter = FactPrompter(tokenizer)
    examples = [
        example
        for seed in range(30)
        for example in fact_examples(known, prompter, others=OTHERS, stacked=1, seed=seed)
    ]
    assert len(examples) == 30 * 34
    settings = StageSettings(
        learning_rate=5e-3, epochs=9, max_steps=350, batch_examples=16, warmup_steps=10, schedule="linear"
    )
    train_stage(
        loaded.model,
        grow(examples, budget=4096),
        settings=settings,
        folder=tmp_path,
        stage="facts",
        plan=loaded.plan,
    )
    extractor = GenerativeExtractor("made", loaded, stacked=1)
    texts = ["well , i like rain .", "hello .", "i hate dogs .", "", "i like bread .", "hello ."]
    assert extractor.triples(texts) == [
        (Triple("i", "like", "rain"),),
        (),
        (Triple("i", "hate", "dogs"),),
        (),
        (Triple("i", "like", "bread"),),
        (),
    ]
    assert extractor.triples([]) == []


def test_of_a_very_long_sentence_the_beginning_is_read() -> None:
    prompter = FactPrompter(train_bpe(["i like tea ."], vocab_size=280))
    long, short = "i like tea . " * 100, ("i like tea . " * 100)[:300]
    assert prompter.prompt([long, "tea"]) == prompter.prompt([short, "tea"])
    assert prompter.prompt([long[:299]]) != prompter.prompt([long])


def test_a_trained_folder_is_opened_by_its_name_and_reads_every_sentence(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    known = facts()
    tokenizer = train_bpe([fact.text for fact in known], vocab_size=280)
    model = made_model(tokenizer, width=16, layers=1, heads=2)
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    rows = [
        json.dumps({"text": fact.text, "triples": [[fact.subject, fact.relation, fact.object]]})
        for fact in known
    ]
    (tmp_path / "facts.jsonl").write_text("\n".join(rows))
    arguments = ["extract", "train", str(tmp_path / "facts.jsonl"), str(tmp_path / "out"), "--epochs", "2"]
    arguments += ["--model", str(tmp_path / "model"), "--learning-rate", "0.01", "--json"]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout.splitlines()[-1])
    assert record["rows"]["facts"] + record["rows"]["held-out facts"] == len(known)
    before, after = (
        load_file(tmp_path / name / "model.safetensors")["model.embed_tokens.weight"]
        for name in ("model", "out")
    )
    assert not torch.equal(before, after)
    opened = open_extractor(str(tmp_path / "out"), language="en")
    assert isinstance(opened, BySentence)
    assert isinstance(opened.extractor, GenerativeExtractor)
    assert (opened.name, opened.extractor.stacked) == ("out", generative.STACKED)
    again = CliRunner().invoke(
        app, ["extract", "eval", str(tmp_path / "out"), str(tmp_path / "facts.jsonl"), "--json"]
    )
    assert json.loads(again.stdout.splitlines()[-1])["gold"] == len(known)
    both = CliRunner().invoke(app, [*arguments, "--encoder", "some"])
    assert "name one of both" in both.output
    assert "exists; name another folder" in CliRunner().invoke(app, arguments).output
