"""`personalign pretrain`: what is printed, and that an interruption costs nothing."""

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from tests.cli.test_run import last_json, personalign
from tests.methods.test_pretrain_run import values

from personalign.errors import PersonalignError
from personalign.methods import pretraining as pretraining_module
from personalign.methods.opening import open_model
from personalign.training.trainer import train_stage


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    torch.set_num_threads(1)
    path = tmp_path / "made.yaml"
    path.write_text(yaml.safe_dump(values(tmp_path)), encoding="utf-8")
    return path


def test_it_says_what_it_made_and_that_loads(recipe: Path, tmp_path: Path) -> None:
    result = personalign("pretrain", recipe, "--out", tmp_path / "out", "--json")
    printed = last_json(result)
    assert printed["model"] == str(tmp_path / "out" / "model")
    held_out = printed["record"]["held_out"]
    assert f"held out, ppl/token: {held_out['ppl/token']:.3f}" in result.stdout
    assert open_model(tmp_path / "out").source == str(tmp_path / "out")
    result = personalign("pretrain", recipe, "--out", tmp_path / "out", "--set", "seed=2", "--json")
    assert "its settings changed: seed: 1 -> 2" in result.stderr


def test_an_interrupted_training_goes_on_to_the_same_model(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    last_json(personalign("pretrain", recipe, "--out", tmp_path / "whole", "--json"))
    steps: list[int] = []
    stop_at = 4

    def stopping(*arguments: Any, progress: Any, **rest: Any) -> Any:
        def watched(step: int, total: int, told: dict[str, float]) -> None:
            steps.append(step)
            if step == stop_at:
                os.kill(os.getpid(), signal.SIGINT)

        return train_stage(*arguments, progress=watched, **rest)

    monkeypatch.setattr(pretraining_module, "train_stage", stopping)
    stopped = personalign("pretrain", recipe, "--out", tmp_path / "cut")
    assert stopped.exit_code == 130
    assert "stopped in pretraining, which is kept" in stopped.stderr
    assert f"pretrain {recipe} --out {tmp_path / 'cut'} --resume" in stopped.stderr
    refused = personalign("pretrain", recipe, "--out", tmp_path / "cut")
    assert refused.exit_code == 1
    assert "add --resume to go on from there" in refused.stderr
    with pytest.raises(
        PersonalignError, match="not finished: model is to be done; go on with `personalign pretrain "
    ):
        open_model(tmp_path / "cut")
    stop_at = 0

    def again(*_: Any, **__: Any) -> None:
        raise AssertionError("the checkpoint has what the copy warm-up made")

    monkeypatch.setattr(pretraining_module, "copy_warmup", again)
    last_json(personalign("pretrain", recipe, "--out", tmp_path / "cut", "--resume", "--json"))
    # What was done before is told first, once.
    assert steps == [1, 2, 3, 4, 4, 5, 6]
    records = [json.loads((tmp_path / run / "steps" / "model.json").read_text()) for run in ("whole", "cut")]
    assert records[0]["record"]["copying"]["steps"] == records[1]["record"]["copying"]["steps"]
    for name in ("model.safetensors", "losses.csv", "personalign.json"):
        whole, cut = ((tmp_path / run / "model" / name).read_bytes() for run in ("whole", "cut"))
        assert whole == cut, name


def test_mistakes_end_with_a_message(recipe: Path, tmp_path: Path) -> None:
    wrong = personalign("pretrain", recipe, "--set", "data.fils=[a]")
    assert (wrong.exit_code, "Traceback" in wrong.stderr) == (1, False)
    assert "did you mean `data.files`?" in wrong.stderr
    other = personalign("pretrain", "quickstart")
    assert "give this one to `personalign run`" in other.stderr
    assert "give it to `personalign pretrain`" in personalign("run", recipe).stderr
    missing = personalign("pretrain", recipe, "--set", "data.files=[nowhere]", "--out", tmp_path / "none")
    assert "'nowhere' is no file here" in missing.stderr
    assert not list((tmp_path / "none").glob("steps/*"))
