import json
import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from tests.decoding.tiny_chat_models import chat_model, publish
from tests.methods.test_trained_selector import WordEncoder

from personalign._files import write_json
from personalign.decoding.generation import DecodingSettings
from personalign.decoding.respond import Selection
from personalign.errors import PersonalignError
from personalign.methods.opening import Model, open_model
from personalign.methods.selector_network import LineRanker
from personalign.methods.trained_selector import TrainedScorer
from personalign.prompts import PromptSettings


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish(tmp_path_factory.mktemp("opening") / "published", chat_model(), none_bias=-1.5)


@pytest.fixture
def copy(published: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(published, tmp_path / "copy"))


def change(folder: Path, **values: Any) -> None:
    path = folder / "personalign.json"
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | values)


def test_a_published_model_brings_what_it_needs(published: Path) -> None:
    model = open_model(published, seed=7)
    assert model.prompter.settings == PromptSettings(max_tokens=256, reserve=32)
    assert model.selection == Selection("predicted", scorer=None, none_bias=-1.5, share_of_none=0.4, seed=7)
    assert model.decoding == DecodingSettings("greedy", max_new_tokens=12, seed=7)
    assert model.examples == (("i have a cat .", "i work at night ."), ("i like parrot .",))
    assert model.source == str(published)


@pytest.mark.parametrize(
    ("recipe", "command"),
    [("name: mine", "run"), ("method: pretrain", "pretrain"), ("method: learn", "learn")],
)
def test_the_command_that_goes_on_can_be_typed_as_it_is(tmp_path: Path, recipe: str, command: str) -> None:
    run = tmp_path / "it's my [run]"
    run.mkdir()
    (run / "recipe.yaml").write_text(recipe + "\n")
    with pytest.raises(PersonalignError) as caught:
        open_model(run)
    [told] = re.findall("go on with `(.*)`", str(caught.value))
    what = ["EXPORT", "--person", "NAME"] if command == "learn" else [str(run / "recipe.yaml")]
    assert shlex.split(told) == ["personalign", command, *what, "--out", str(run), "--resume"]


def test_of_a_folder_with_runs_the_runs_are_named(tmp_path: Path) -> None:
    for name in ("second", "first"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "recipe.yaml").write_text("name: mine\n")
    with pytest.raises(
        PersonalignError, match=r"folder with runs; write one of them: \S+/first, \S+/second$"
    ):
        open_model(tmp_path)


def test_a_run_is_opened_by_its_folder(copy: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("name: mine\n")
    with pytest.raises(PersonalignError, match=r"no model yet: it is not finished.*--resume"):
        open_model(run)
    copy.rename(run / "model")
    assert open_model(run).selection.none_bias == -1.5


def test_a_model_of_somebody_else_gets_the_defaults(copy: Path) -> None:
    (copy / "personalign.json").unlink()
    model = open_model(str(copy))
    assert model.prompter.settings == PromptSettings(max_tokens=512, reserve=64)
    assert (model.selection, model.decoding, model.examples) == (Selection(), DecodingSettings(), ())


def test_a_model_for_other_prompts_is_refused(copy: Path) -> None:
    change(copy, prompt_hash="0" * 64)
    with pytest.raises(
        PersonalignError, match=r"prompt_hash is 0{12}\.\.\., but .* trained on other prompts"
    ):
        open_model(copy)


def test_changed_settings_change_the_hash(copy: Path, published: Path) -> None:
    prompts = json.loads((published / "personalign.json").read_text(encoding="utf-8"))["prompts"]
    change(copy, prompts=prompts | {"numbered": True})
    with pytest.raises(PersonalignError, match="trained on other prompts"):
        open_model(copy)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"none_bias": "much"}, r"personalign.json: none_bias: Input should be a valid number"),
        ({"decoding": {"strategy": "guess"}}, r"personalign.json: decoding.strategy: "),
        ({"bias": 3}, r"personalign.json: bias: Extra inputs"),
    ],
)
def test_a_damaged_card_is_refused(values: dict[str, Any], message: str, copy: Path) -> None:
    change(copy, **values)
    with pytest.raises(PersonalignError, match=message):
        open_model(copy)


def test_a_card_that_is_no_json_is_refused(copy: Path) -> None:
    (copy / "personalign.json").write_text("{")
    with pytest.raises(PersonalignError, match="is not JSON"):
        open_model(copy)


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(PersonalignError, match="neither a folder nor a hub id"):
        open_model("./nowhere")


def test_a_hub_model_brings_its_card_from_the_cache(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `huggingface_hub` lays a download out; no test reaches for the network."""
    repository = tmp_path / "models--somebody--chatty"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    shutil.copytree(published, repository / "snapshots" / ("0" * 40))
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert opened_from_hub("somebody/chatty").selection.none_bias == -1.5
    (repository / "snapshots" / ("0" * 40) / "personalign.json").unlink()
    assert opened_from_hub("somebody/chatty").selection.none_bias == 0.0


def test_a_hub_model_brings_its_trained_selector(
    published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = tmp_path / "models--somebody--choosy" / "snapshots" / ("0" * 40)
    (tmp_path / "models--somebody--choosy" / "refs").mkdir(parents=True)
    (tmp_path / "models--somebody--choosy" / "refs" / "main").write_text("0" * 40)
    shutil.copytree(published, snapshot)
    change(snapshot, selector={"kind": "trained"})
    TrainedScorer(WordEncoder(), [LineRanker(11).eval()], {"dog": 0.5}, "en").save(snapshot)
    monkeypatch.setattr("transformers.utils.hub.constants.HF_HUB_CACHE", str(tmp_path))
    scorer = opened_from_hub("somebody/choosy").selection.scorer
    assert isinstance(scorer, TrainedScorer)
    assert scorer.words == {"dog": 0.5}


def opened_from_hub(name: str) -> Model:
    model = open_model(name)
    assert model.source == name
    return model
