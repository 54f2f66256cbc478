"""`personalign pretrain`: from dialogue text to a folder that loads, chats, and says what it was made of."""

import csv
import json
import math
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.methods.made_runs import SilentReporter, baker, greeter

from personalign.data.formats import read_dialogues, write_dialogues
from personalign.data.split import conversation_of, split_by_persona
from personalign.errors import PersonalignError
from personalign.methods.opening import open_model
from personalign.methods.pretrain_recipe import parse_pretrain_recipe
from personalign.methods.pretrain_run import PretrainRun
from personalign.methods.recipe import parse_recipe
from personalign.methods.shipped import load_recipe


def values(folder: Path, **changes: Any) -> dict[str, Any]:
    """A recipe of seconds on two files and the synthetic corpus; the test part shares a dialogue with them."""
    people = [
        replace(baker(f"baker-{at}"), persona=(f"i have {at} dogs .", *baker().persona[1:]))
        for at in range(8)
    ]
    partnered = [
        replace(item, partner_persona=("i like tea .",), relevant=None, person=item.id) for item in people
    ]
    write_dialogues(folder / "talks.jsonl", partnered)
    write_dialogues(folder / "tested.jsonl", [greeter()])
    made: dict[str, Any] = {
        "name": "made",
        "method": "pretrain",
        "data": {
            "files": [str(folder / "talks.jsonl"), str(folder / "tested.jsonl")],
            "tested": [str(folder / "tested.jsonl")],
            "both_sides": True,
            "synthetic": {"people": 10, "exchanges": 2},
            "held_out": 0.2,
        },
        "backbone": {
            "scratch": {
                "width": 16,
                "layers": 1,
                "heads": 2,
                "tokenizer": "bpe",
                "vocabulary": 300,
                "lowercase": True,
            },
            "dtype": "float32",
            "device": "cpu",
        },
        "prompts": {"max_tokens": 400, "reserve": 30},
        "tasks": "persona",
        "copying": {"max_steps": 2, "batch": 2},
        "pretrain": {"learning_rate": 1e-2, "batch_examples": 8, "steps": 6, "warmup_steps": 0},
        "decoding": {"max_new_tokens": 6},
        "weights": "bfloat16",
    }
    return made | changes


def run(folder: Path, reporter: SilentReporter | None = None, **changes: Any) -> dict[str, Any]:
    recipe = parse_pretrain_recipe(values(folder, **changes), source="made.yaml")
    return PretrainRun(recipe, folder / "run", reporter=reporter or SilentReporter()).run()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("pretraining")
    record = run(folder)
    return folder, record


def test_the_folder_chats_with_its_own_prompts_and_bias(made: tuple[Path, dict[str, Any]]) -> None:
    model = open_model(made[0] / "run" / "model")
    assert model.selection.strategy == "predicted"
    assert 0 < model.selection.share_of_none < 1
    assert model.prompter.settings.max_tokens == 400
    assert model.decoding.max_new_tokens == 6
    assert all(model.examples)
    tokens = model.loaded.tokenizer
    assert tokens.encode("I have a DOG .") == tokens.encode("i have a dog .")


def test_no_checkpoint_stays(made: tuple[Path, dict[str, Any]]) -> None:
    assert not list((made[0] / "run").rglob("checkpoints/*"))


def test_weights_are_stored_as_asked(made: tuple[Path, dict[str, Any]]) -> None:
    stored = load_file(made[0] / "run" / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.bfloat16}


def test_nothing_that_is_tested_is_read_and_all_is_counted(made: tuple[Path, dict[str, Any]]) -> None:
    counts = made[1]["data"]
    # The greeter's "i like tea ." is also what every baker's partner is, hence all files are left out.
    assert counts["dialogues dropped for a test persona line"] == 8 + 1
    assert counts["dialogues"] == counts["train"] + counts["held_out"] == 10


def test_both_sides_are_read(tmp_path: Path) -> None:
    one, both = (
        PretrainRun(
            parse_pretrain_recipe(
                values(
                    tmp_path,
                    data={"files": [str(tmp_path / "talks.jsonl")], "both_sides": both, "held_out": 0.2},
                ),
                source="made.yaml",
            ),
            tmp_path,
            reporter=SilentReporter(),
        )._dialogues()[0]
        for both in (False, True)
    )
    assert (len(one), len(both)) == (8, 16)
    assert [item.persona for item in both[8:]] == [("i like tea .",)] * 8
    assert both[8].messages[0].role == "assistant"
    assert all(item.relevant is not None for item in both)


def test_what_is_held_out_is_not_learnt_from_its_other_side(tmp_path: Path) -> None:
    changes = values(tmp_path, data={"files": [str(tmp_path / "talks.jsonl")], "both_sides": True})
    nameless = [
        replace(talk, person=None, partner_persona=(f"i like {at} teas .",))
        for at, talk in enumerate(read_dialogues(str(tmp_path / "talks.jsonl")))
    ]
    write_dialogues(tmp_path / "talks.jsonl", nameless)
    recipe = parse_pretrain_recipe(changes, source="made.yaml")
    dialogues, _ = PretrainRun(recipe, tmp_path, reporter=SilentReporter())._dialogues()
    parts = split_by_persona(dialogues, {"train": 0.5, "held_out": 0.5}, seed=1)
    learnt, held_out = ({conversation_of(item) for item in parts[name]} for name in ("train", "held_out"))
    assert len(dialogues) == 16
    assert len(learnt | held_out) == len(nameless)
    assert None not in learnt
    assert not learnt & held_out


def test_a_backbone_is_made_anew_when_a_file_is_another(tmp_path: Path) -> None:
    recipe = parse_pretrain_recipe(values(tmp_path), source="made.yaml")

    def fingerprint() -> str:
        return PretrainRun(recipe, tmp_path / "run", reporter=SilentReporter()).plan()[0].fingerprint

    before = fingerprint()
    assert fingerprint() == before
    write_dialogues(tmp_path / "tested.jsonl", [greeter(), baker()])
    assert fingerprint() != before


def test_the_curve_and_the_card_are_those_of_the_run(made: tuple[Path, dict[str, Any]]) -> None:
    folder, record = made
    rows = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss_reply"] for row in rows if "loss_reply" in row]
    with open(folder / "run" / "model" / "losses.csv", encoding="utf-8") as stream:
        written = list(csv.DictReader(stream))
    assert [float(row["loss_reply"]) for row in written if row["loss_reply"]] == losses
    kinds = {name for name in written[0] if name.startswith("loss_")}
    assert kinds == {"loss_reply", "loss_selection", "loss_trunk", "loss_copy"}
    drawing = ElementTree.parse(folder / "run" / "model" / "loss.svg").getroot()
    drawn = drawing.findall("{http://www.w3.org/2000/svg}polyline")
    assert len(drawn) == len(kinds)
    assert max(len(line.attrib["points"].split()) for line in drawn) == len(written)
    card = (folder / "run" / "model" / "README.md").read_text(encoding="utf-8")
    assert f"| ppl/token | {record['held_out']['ppl/token']:.3f} |" in card
    assert "talks.jsonl" in card
    assert math.isfinite(record["held_out"]["ppl/token"])
    assert 0 <= record["held_out"]["selection/recall@1"] <= 1


def test_it_is_done_once(made: tuple[Path, dict[str, Any]]) -> None:
    before = (made[0] / "run" / "model" / "model.safetensors").stat().st_mtime_ns
    assert run(made[0]) == made[1]
    assert (made[0] / "run" / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_text_alone_learns_no_selection(tmp_path: Path) -> None:
    record = run(tmp_path, tasks="text", weights="float32")
    assert "selection/recall@1" not in record["held_out"]
    stored = load_file(tmp_path / "run" / "model" / "model.safetensors")
    assert {tensor.dtype for tensor in stored.values()} == {torch.float32}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": {"held_out": 0.1}}, "data: give `files`, `synthetic`, or both"),
        ({"data": {"files": ["a"], "held_out": 0}}, "data.held_out is 0; write a share between 0 and 1"),
        ({"data": {"files": ["a"], "fill_in": {"(": ["b"]}}}, "data.fill_in: '(' is no regular expression"),
        ({"data": {"files": ["a"], "fill_in": {"b": []}}}, "data.fill_in: 'b' has nothing to put in"),
        ({"data": {"synthetic": {"words": 0.5}}}, "data.synthetic.words takes words of English `files`"),
        ({"data": {"fils": ["a"]}}, "there is no key `data.fils`; did you mean `data.files`?"),
        ({"backbone": {"name": "gpt2"}}, "backbone: give `scratch` alone"),
        ({"backbone": {"scratch": {}}}, "knows the words of the synthetic corpus alone; write bpe"),
        ({"pretrain": {"learning_rate": 1.0, "patience": 2}}, "pretrain.patience has no meaning here"),
        ({"pretrain": {"learning_rate": 1.0, "reply_weight": 0.5}}, "pretrain.reply_weight has no meaning"),
        ({"tasks": "text", "text_weight": 0.5}, "text_weight weighs text against PAL's tasks"),
        ({"method": "pal"}, "takes recipes whose method is pretrain; give this one to `personalign run`"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PersonalignError, match=r"made\.yaml: ") as caught:
        parse_pretrain_recipe(values(tmp_path, **changes), source="made.yaml")
    assert message in str(caught.value)


def test_a_run_sends_it_to_its_own_command(tmp_path: Path) -> None:
    with pytest.raises(PersonalignError, match="give it to `personalign pretrain` instead"):
        parse_recipe(values(tmp_path), source="made.yaml")
    with pytest.raises(PersonalignError, match="give it to `personalign pretrain` instead"):
        load_recipe("personalign-mini")
