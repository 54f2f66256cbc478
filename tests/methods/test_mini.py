"""The backbone that comes along: its size, what lies beside it, and that it does what it is for."""

import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from safetensors import safe_open
from tests.methods.made_runs import SilentReporter

from personalign import load, reply, select
from personalign._mini import MINI, shipped_model
from personalign.api import Model
from personalign.methods import step_run as run_module
from personalign.methods.pretrain_recipe import parse_pretrain_recipe
from personalign.methods.run import PalRun
from personalign.methods.shipped import load_pretrain_recipe, load_recipe
from personalign.models import load_tokenizer

FOLDER = Path(shipped_model(MINI))
PERSONA = [
    "I am a nurse.",
    "My dog is called Pedro.",
    "I live in a small town near the sea.",
    "I hate coffee.",
]


@pytest.fixture(scope="module")
def mini() -> Model:
    torch.set_num_threads(1)
    return load(MINI)


def test_it_is_small_and_stored_in_bf16() -> None:
    weights = FOLDER / "model.safetensors"
    assert weights.stat().st_size <= 25_000_000
    with safe_open(weights, "pt") as file:
        slices = [file.get_slice(name) for name in file.keys()]  # noqa: SIM118
    assert sum(math.prod(item.get_shape()) for item in slices) <= 12_000_000
    assert {item.get_dtype() for item in slices} == {"BF16"}


def test_the_recipe_beside_it_is_the_one_that_is_shipped() -> None:
    """Rebuilt by `personalign pretrain personalign-mini`: nothing was changed since."""
    path = FOLDER / "pretrain.yaml"
    made = parse_pretrain_recipe(yaml.safe_load(path.read_text(encoding="utf-8")), source=str(path))
    told = {"measured"}
    assert made.model_dump(exclude=told) == load_pretrain_recipe(MINI).model_dump(exclude=told)
    card = json.loads((FOLDER / "personalign.json").read_text(encoding="utf-8"))
    assert card["examples"] == [list(lines) for lines in made.examples]
    assert set(made.data.files) == {"synthetic_persona_chat_valid", "msc_valid_sessions"}


def test_its_card_and_its_loss_lie_beside_it() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert "CC BY 4.0" in card
    assert "losses.csv" in card
    rows = (FOLDER / "losses.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) > 100
    assert (FOLDER / "loss.svg").read_text(encoding="utf-8").startswith("<svg")


def test_its_name_opens_it_unless_a_folder_here_has_that_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(shipped_model(MINI)).samefile(FOLDER)
    assert shipped_model("another") == "another"
    Path(MINI).mkdir()
    assert shipped_model(MINI) == MINI


def test_an_adapter_finds_it_in_another_installation(tmp_path: Path) -> None:
    elsewhere = tmp_path / "gone" / "site-packages" / "personalign" / "mini"
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(elsewhere)}
    (tmp_path / "adapter_config.json").write_text(json.dumps(settings), encoding="utf-8")
    assert len(load_tokenizer(tmp_path)) == len(load_tokenizer(MINI))


def test_a_run_from_other_weights_is_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe("quickstart", [])
    first = PalRun(recipe, tmp_path, reporter=SilentReporter()).plan()
    monkeypatch.setattr(run_module, "mini_fingerprint", lambda: "other weights")
    second = PalRun(recipe, tmp_path, reporter=SilentReporter()).plan()
    changed = [
        one.step.name
        for one, other in zip(first, second, strict=True)
        if one.fingerprint != other.fingerprint
    ]
    assert changed == [item.step.name for item in first if item.step.name != "data"]


@pytest.mark.parametrize(
    ("question", "line"),
    [("What do you do for a living?", 0), ("Where do you live?", 2)],
)
def test_it_chooses_the_line_that_matters(mini: Model, question: str, line: int) -> None:
    choice = select(mini, PERSONA, [{"role": "user", "content": question}])
    assert choice.probabilities.index(max(choice.probabilities[:-1])) == line


def test_its_replies_are_those_of_the_person(mini: Model) -> None:
    messages = [{"role": "user", "content": "What do you do for a living?"}]
    said = {
        job: reply(mini, [f"I am a {job}.", *PERSONA[1:]], messages).text.lower()
        for job in ("nurse", "teacher")
    }
    assert all(job in text for job, text in said.items()), said
