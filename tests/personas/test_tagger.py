"""The tagger: what it is taught, that it learns it, and that it comes back from its folder."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

from personalign.cli.extract import app
from personalign.data.dialogue import Dialogue, Turn
from personalign.data.formats import write_dialogues
from personalign.errors import PersonalignError
from personalign.evaluation.nli_triples import Fact
from personalign.personas.extraction import Triple
from personalign.personas.tagger import NONE, best_span, load_tagger
from personalign.personas.tagger_training import TaggerTraining, places_of, train_tagger


@pytest.mark.parametrize(
    ("text", "subject", "thing", "expected"),
    [
        ("i have two dogs .", "i", "two dogs", ((0,), (2, 3))),
        ("My MOM , a vet", "my mom", "vet", ((0, 1), (4,))),
        # The shortest stretch that has all words, those in between left out.
        ("my hair is long , my long brown hair", "my", "long hair", ((0,), (6, 8))),
        ("i love rock'n'roll !", "i", "rock n roll", ((0,), (2,))),
        ("I have dogs, and a Cat.", "i", "cat", ((0,), (6,))),
        ("i have dogs", "i", "cats", None),
        ("have dogs", "i", "dogs", None),
        ("i have dogs", "i", "", None),
    ],
)
def test_where_subject_and_object_lie(text: str, subject: str, thing: str, expected: Any) -> None:
    assert places_of(Fact(text, subject, "have", thing)) == expected


def test_the_best_span_is_in_order_and_short() -> None:
    logits = torch.full((3, 12, 2), -5.0)
    # Each end apart would be the last word before the first.
    logits[0, 6, 0] = logits[0, 2, 1] = 4.0
    logits[0, 7, 1] = 3.0
    logits[1, 3, 0] = logits[1, 3, 1] = 4.0
    # Eleven words are too many.
    logits[2, 0, 0] = logits[2, 11, 1] = 4.0
    logits[2, 5, 0] = 3.0
    best, first, last = best_span(logits)
    assert list(zip(first.tolist(), last.tolist(), strict=True)) == [(6, 7), (3, 3), (5, 11)]
    log_probs = logits.log_softmax(1)
    assert float(best[1]) == pytest.approx(float(log_probs[1, 3, 0] + log_probs[1, 3, 1]))


def facts(path: Path) -> Path:
    """Who likes what, in the few words that the encoder knows."""
    rows = []
    for end in ("", " always", " never", " never always"):
        for begin in ("", "always ", "never ", "never never "):
            for thing in ("dogs", "cats", "fish"):
                for verb in ("like", "dislike"):
                    text = f"{begin}i {verb} {thing}{end}"
                    rows.append({"text": text, "triples": [["i", f"{verb}_animal", thing]]})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def trained(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("extraction")
    talk = [Dialogue(f"{at}", (), (Turn("user", f"never {'. ' * at}dogs"),)) for at in range(30)]
    write_dialogues(folder / "talk.jsonl", talk)
    config = TaggerTraining(
        facts=facts(folder / "facts.jsonl"),
        out=folder / "tagger",
        dialogues=folder / "talk.jsonl",
        encoder=str(tiny_encoder),
        epochs=40,
        learning_rate=3e-3,
        head_factor=1.0,
        batch_size=8,
        dtype="float32",
        max_length=36,
    )
    return folder, train_tagger(config)


def test_it_learns_relations_and_objects(trained: tuple[Path, dict[str, Any]]) -> None:
    record = trained[1]
    assert record["held_out"]["gold"] == 10
    assert record["held_out"]["exact_match"] >= 0.9
    assert record["rows"]["sentences without a fact"] == 17
    assert record["loss_per_epoch"][-1] < record["loss_per_epoch"][0] / 4


def test_it_comes_back_from_its_folder(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, record = trained
    tagger = load_tagger(folder / "tagger")
    assert tagger.max_length == 36
    assert set(tagger.relations) == {"like_animal", "dislike_animal", NONE}
    # A full stop that leans on its word is no part of it.
    assert (
        tagger.triples(["i like dogs."])
        == tagger.triples(["i like dogs ."])
        == [(Triple("i", "like_animal", "dogs"),)]
    )
    texts = ["i like dogs", "never . . dogs", "", "i dislike fish always", "i like dogs"]
    found = tagger.triples(texts)
    assert found[0] == found[4] == (Triple("i", "like_animal", "dogs"),)
    assert found[3] == (Triple("i", "dislike_animal", "fish"),)
    assert found[1] == found[2] == ()
    # Alone as in a batch.
    assert [tagger.triples([text])[0] for text in texts] == found
    assert json.loads((folder / "tagger" / "extractor.json").read_text())["held_out"] == record["held_out"]
    assert "exact match" in (folder / "tagger" / "README.md").read_text()


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_the_commands(trained: tuple[Path, dict[str, Any]], tiny_encoder: Path, tmp_path: Path) -> None:
    folder = trained[0]
    result = run("eval", folder / "tagger", folder / "facts.jsonl", "--json")
    assert json.loads(result.stdout.splitlines()[-1])["gold"] == 96
    assert "exact match" in run("eval", folder / "tagger", folder / "facts.jsonl").stdout
    said = Dialogue("d", (), (Turn("user", "i like fish"), Turn("assistant", "i like dogs .")), person="ann")
    write_dialogues(tmp_path / "said.jsonl", [said])
    shown = run("show", folder / "tagger", tmp_path / "said.jsonl").stdout
    assert "ann: i | like_animal | dogs    <- i like dogs ." in shown
    assert "1 facts in 1 messages" in shown
    assert (
        "0 facts in 0 messages"
        in run("show", folder / "tagger", tmp_path / "said.jsonl", "--person", "ben").stdout
    )
    # A terminal obeys nothing of it.
    write_dialogues(tmp_path / "loud.jsonl", [replace(said, person="ann\x1b[31m")])
    assert "ann[31m: i | like_animal" in run("show", folder / "tagger", tmp_path / "loud.jsonl").stdout
    trained_anew = run(
        "train", folder / "facts.jsonl", tmp_path / "new", "--encoder", tiny_encoder, "--epochs", 1, "--json"
    )
    printed = json.loads(trained_anew.stdout.splitlines()[-1])
    assert printed["rows"]["facts"] == 86
    assert load_tagger(tmp_path / "new").relations == ("dislike_animal", "like_animal")


def test_mistakes_are_named(trained: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    folder = trained[0]
    with pytest.raises(PersonalignError, match=r"tagger exists; name another folder"):
        train_tagger(TaggerTraining(facts=folder / "facts.jsonl", out=folder / "tagger"))
    with pytest.raises(PersonalignError, match=r"is no extractor: it has no extractor\.json"):
        load_tagger(tmp_path)
    for name, damage in (("extractor.json", b"{"), ("extractor.json", b"{}"), ("heads.safetensors", b"x")):
        copy = tmp_path / "copy"
        shutil.copytree(folder / "tagger", copy)
        (copy / name).write_bytes(damage)
        with pytest.raises(PersonalignError, match="is a damaged extractor"):
            load_tagger(copy)
        shutil.rmtree(copy)
    shutil.copytree(folder / "tagger", tmp_path / "lacking")
    weights = load_file(tmp_path / "lacking" / "heads.safetensors")
    save_file({"relation.bias": weights["relation.bias"]}, tmp_path / "lacking" / "heads.safetensors")
    with pytest.raises(PersonalignError, match="does not have the weights of this network"):
        load_tagger(tmp_path / "lacking")
    chinese = tmp_path / "chinese.jsonl"
    chinese.write_text(
        "".join(
            json.dumps({"text": text, "triples": [["我", "有", "狗"]]}) + "\n"
            for text in ("我有狗", "我有只狗")
        ),
        encoding="utf-8",
    )
    with pytest.raises(PersonalignError, match="none has its words in its sentence"):
        train_tagger(TaggerTraining(facts=chinese, out=tmp_path / "x"))
    with pytest.raises(PersonalignError, match=r"cannot be loaded as an encoder|there is no folder"):
        train_tagger(
            TaggerTraining(facts=folder / "facts.jsonl", out=tmp_path / "x", encoder=str(tmp_path / "no"))
        )
    assert not (tmp_path / "x").exists()
