"""`personalign run` and `quickstart`, from nothing to a table: what is written, kept, done again, and refused."""

import json
import os
import re
import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
import yaml
from filelock import FileLock
from safetensors.torch import load_file
from tests.methods.made_runs import shrunken
from typer.testing import CliRunner, Result

from personalign.cli.main import app
from personalign.cli.run import interruptible, resuming
from personalign.data.formats import read_dialogues
from personalign.evaluation.metrics import METRICS
from personalign.methods import pretraining as pretraining_module
from personalign.methods import run as pal_module
from personalign.methods import step_run as run_module
from personalign.methods.shipped import shipped_recipes
from personalign.prompts import Prompter, PromptSettings
from personalign.training.trainer import train_stage

STEPS = [
    "data",
    "backbone",
    "finetuning",
    "stage1",
    "rejected",
    "stage2",
    "predict:finetuning",
    "predict:stage1",
    "predict:pal_predicted",
    "predict:pal_random",
    "predict:pal_unselected",
    "predict:pal_oracle",
    "predict:finetuning_unseen",
    "predict:pal_unseen",
    "predict:pal_swapped",
    "predict:pal_shuffled",
    "results",
]


def personalign(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "120"})


def quickstart(folder: Path, *options: object, command: str = "run", **changes: Any) -> Result:
    name = ["run", "quickstart-scratch"] if command == "run" else ["quickstart", "--from-scratch"]
    settings = [item for assignment in shrunken(**changes) for item in ("--set", assignment)]
    return personalign(*name, "--out", folder, *settings, *options)


def last_json(result: Result) -> Any:
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.splitlines()[-1])


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("runs") / "quickstart"
    result = quickstart(folder, "--json", command="quickstart")
    assert result.exit_code == 0, result.output
    return folder, result


def markers(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in (folder / "steps").iterdir()}


def test_it_ends_with_a_sample_a_table_and_one_json_object(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    assert "A person whom the model never met:" in result.stdout
    assert "states" in result.stdout
    assert f"personalign chat {folder}" in result.stdout.replace("\n", "")
    printed = last_json(result)
    assert printed["run"] == str(folder)
    assert list(printed["steps"]) == STEPS
    assert printed["results"] == json.loads((folder / "results.json").read_text())


def test_the_run_folder_holds_what_was_computed(finished: tuple[Path, Result]) -> None:
    folder, result = finished
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text())
    assert (recipe["name"], recipe["data"]["synthetic"]["train"], recipe["seed"]) == (
        "quickstart-scratch",
        12,
        1,
    )
    assert {"python", "torch", "transformers", "personalign"} <= json.loads(
        (folder / "versions.json").read_text()
    ).keys()
    records = last_json(result)["steps"]
    for part in ("train", "align", "stop", "test", "unseen"):
        assert (
            len(read_dialogues(str(folder / "data" / f"{part}.jsonl.gz")))
            == records["data"][part]["dialogues"]
        )
        assert records["data"][part]["fingerprint"]
    assert {row["stage"] for row in read_rows(folder / "metrics.jsonl")} >= {"finetuning", "stage1", "stage2"}
    card = (folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: personalign\n")
    assert "seed: 1" in card
    assert "| PAL |" in (folder / "table.md").read_text()
    assert not list((folder / "checkpoints").iterdir())


def test_one_prediction_per_test_turn(finished: tuple[Path, Result]) -> None:
    folder, _ = finished
    parts = {
        "finetuning_unseen": "unseen", "pal_unseen": "unseen", "pal_swapped": "swapped", "pal_shuffled": "shuffled",
    }  # fmt: skip
    for step in (name for name in STEPS if name.startswith("predict:")):
        system = step.removeprefix("predict:")
        dialogues = read_dialogues(str(folder / "data" / f"{parts.get(system, 'test')}.jsonl.gz"))
        rows = read_rows(folder / "predictions" / f"{system}.jsonl")
        assert [(row["dialogue"], row["turn"]) for row in rows] == [
            (dialogue.id, turn) for dialogue in dialogues for turn in dialogue.reply_indices()
        ]
        assert {row["system"] for row in rows} == {system}
        selects = not system.startswith("finetuning") and system != "pal_unselected"
        assert all(row["selects"] == selects for row in rows)


def test_results_go_by_named_metrics(finished: tuple[Path, Result]) -> None:
    results = json.loads((finished[0] / "results.json").read_text())
    assert list(results) == [
        "gold",
        *(name.removeprefix("predict:") for name in STEPS if name.startswith("predict:")),
    ]
    for system in results.values():
        plain = {name for name in system if not name.startswith("judge:")}
        assert plain - {"title", "part", "turns", "old_persona"} <= METRICS.keys()
        judged = {name.rsplit("/", 1)[0] for name in system["judge:oracle"] if "/" in name}
        assert judged == {"c_score/max", "c_score/sum", "entail_rate", "contradict_rate"}
    assert results["gold"]["judge:oracle"]["recall"]["mean"] == 1.0
    assert results["gold"]["judge:oracle"]["contradict_rate/all"]["mean"] == 0.0
    assert results["pal_oracle"]["selection/accuracy"] == 1.0
    assert set(results["pal_swapped"]["old_persona"]) == {"oracle"}


def test_stage_2_starts_at_ln_2(finished: tuple[Path, Result]) -> None:
    record = last_json(finished[1])["steps"]["stage2"]
    assert record["start"]["loss"] == pytest.approx(0.693147, abs=1e-5)
    assert record["start"]["pairs"] > 0
    assert record["largest_log_ratio"] <= 1e-4
    assert record["end"]["loss"] != record["start"]["loss"]
    assert record["best_step"] in (2, 4)


def test_a_second_run_does_nothing(finished: tuple[Path, Result]) -> None:
    folder, first = finished
    before = markers(folder)
    result = quickstart(folder, "--resume", "--json")
    assert markers(folder) == before
    assert result.stderr.count(": done before") == len(STEPS)
    assert last_json(result)["results"] == last_json(first)["results"]
    assert last_json(result)["steps"] == last_json(first)["steps"]


def test_what_is_to_be_typed_next_can_be_typed_as_it_is(
    finished: tuple[Path, Result], tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(finished[0], tmp_path / "[/draft] it's :dog:"))
    result = quickstart(folder, "--resume")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert f"Every metric with its interval: {folder / 'table.md'}" in lines
    for label, command in (("Look at every turn: ", "report"), ("Chat with it: ", "chat")):
        [typed] = [line.removeprefix(label) for line in lines if line.startswith(label)]
        assert shlex.split(typed)[1:] == [command, str(folder)]


def test_the_command_that_goes_on_is_printed_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    def stop() -> dict[str, Any]:
        raise KeyboardInterrupt

    again = resuming("run", "[/x] a.yaml", out=Path("it's :dog:"), set_=None, json=False)
    with pytest.raises(typer.Exit):
        interruptible(stop, again=again)
    typed = shlex.split(capsys.readouterr().err.splitlines()[-1])
    assert typed[1:] == ["run", "[/x] a.yaml", "--out", "it's :dog:", "--resume"]


def test_the_published_model_is_complete(finished: tuple[Path, Result]) -> None:
    folder, _ = finished
    card = json.loads((folder / "model" / "personalign.json").read_text())
    records = last_json(finished[1])["steps"]
    assert card["none_bias"] == records["predict:pal_predicted"]["none_bias"]
    assert len(card["examples"]) == 3
    from personalign.models import load_tokenizer

    settings = PromptSettings(**card["prompts"])
    assert Prompter(load_tokenizer(folder / "model"), settings).hash == card["prompt_hash"]
    published, trained = (
        load_file(folder / place / "model.safetensors") for place in ("model", "models/stage2")
    )
    assert all(torch.equal(value, trained[name]) for name, value in published.items())


def copied(finished: tuple[Path, Result], tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished[0], tmp_path / "copy"))


def test_a_changed_recipe_says_what_it_redoes(finished: tuple[Path, Result], tmp_path: Path) -> None:
    folder = copied(finished, tmp_path)
    before = markers(folder)
    result = quickstart(folder, evaluation__bootstrap=30)
    assert result.exit_code == 0, result.output
    assert "Results: done again, its settings changed: bootstrap: 20 -> 30" in result.stderr
    redone = {name for name, time in markers(folder).items() if before[name] != time}
    assert redone == {"results.json"}


def test_a_dry_run_says_what_a_changed_recipe_would_redo(finished: tuple[Path, Result]) -> None:
    folder, _ = finished
    before = sorted(path for path in folder.rglob("*"))
    printed = last_json(quickstart(folder, "--dry-run", "--json", stages__stage2__beta=0.3))
    states = {step["step"]: step["state"] for step in printed["steps"]}
    assert list(states) == STEPS
    assert {name: state for name, state in states.items() if state != "done"} == {
        "stage2": "changed",
        **{f"predict:pal_{name}": "after a changed step" for name in
           ("predicted", "random", "unselected", "oracle", "unseen", "swapped", "shuffled")},
        "results": "after a changed step",
    }  # fmt: skip
    assert sorted(path for path in folder.rglob("*")) == before


def test_a_dry_run_prints_sizes_and_writes_nothing(tmp_path: Path) -> None:
    result = quickstart(tmp_path / "run", "--dry-run", "--json")
    printed = last_json(result)
    assert not (tmp_path / "run").exists()
    assert {step["state"] for step in printed["steps"]} == {"new"}
    stages = printed["estimate"]["stages"]
    assert list(stages) == ["finetuning", "stage1", "stage2"]
    assert (stages["stage1"]["examples"], stages["stage1"]["steps"]) == (12 * 3, 4)
    for stage in stages.values():
        assert 0 < stage["tree_tokens"] < stage["sequence_tokens"]
        assert stage["minutes"] > 0
    parameters = printed["estimate"]["parameters"]
    assert printed["estimate"]["weights_and_optimizer_bytes"] == 16 * parameters
    assert "as trees" in result.stdout
    assert "36 of 36 training prompts share the trunk of their dialogue" in result.stdout
    windowed = quickstart(tmp_path / "run", "--dry-run", "--json", prompts__history=3)
    assert last_json(windowed)["estimate"]["turns_on_a_trunk"] < 36


def test_a_stage_that_ends_within_its_warm_up_is_remarked_on(tmp_path: Path) -> None:
    remark = "stage1: its 4 steps end within the warm-up of 4, so the learning rate is never reached"
    short = {"stages__stage1__warmup_steps": 4, "stages__stage1__steps": 4}
    assert remark in quickstart(tmp_path / "dry", "--dry-run", **short).stdout
    assert remark in quickstart(tmp_path / "run", "--until", "stage1", **short).stderr
    long_enough = {**short, "stages__stage1__warmup_steps": 3}
    assert "stage1: its" not in quickstart(tmp_path / "dry", "--dry-run", **long_enough).stdout


def test_a_dry_run_goes_as_far_as_it_is_told(tmp_path: Path) -> None:
    result = quickstart(tmp_path / "run", "--dry-run", "--until", "stage1", "--json")
    assert [step["step"] for step in last_json(result)["steps"]][-1] == "stage1"
    result = quickstart(tmp_path / "run", "--dry-run", "--until", "stag1")
    assert result.exit_code == 1
    assert "--until stag1: there is no such step" in result.stderr
    assert result.stdout == ""


def test_a_dry_run_that_cannot_work_prints_the_reason_alone(tmp_path: Path) -> None:
    result = quickstart(tmp_path / "run", "--dry-run", evaluation__judges="[nobody]")
    assert "there is no judge 'nobody'" in result.stderr
    assert result.stdout == ""


def test_a_dry_run_counts_every_stage_that_a_run_would_train(tmp_path: Path) -> None:
    changes = {
        "stages__pretrain": "{learning_rate: 0.01, batch_examples: 4, epochs: 2, copy_every: 4}",
        "stages__finetuning_longer": "{learning_rate: 0.01, batch_examples: 12, steps: 3}",
        "ablation": "only_generation",
    }
    result = quickstart(tmp_path / "run", "--dry-run", "--json", **changes)
    printed = last_json(result)
    stages = printed["estimate"]["stages"]
    assert list(stages) == ["pretrain", "finetuning", "finetuning_longer", "stage1", "stage2"]
    # 12 dialogues and a copy exercise for every fourth, 4 a step, twice.
    assert (stages["pretrain"]["examples"], stages["pretrain"]["steps"]) == (15, 8)
    assert stages["finetuning_longer"]["steps"] == 3
    # One task alone makes as many tokens as the baseline, up to the selected line in the prompt.
    mixed = last_json(quickstart(tmp_path / "run", "--dry-run", "--json"))["estimate"]["stages"]["stage1"]
    assert stages["stage1"]["sequence_tokens"] < 0.6 * mixed["sequence_tokens"]
    # Pairs of labelled turns alone.
    assert 0 < stages["stage2"]["examples"] < 4 * 3
    assert stages["stage2"]["dropped"]["labelled none"] > 0
    told = re.findall(r"Estimating (\w+) \((\d) of (\d)\)", result.stderr)
    assert [name for name, _, _ in told] == [name for name in stages if name != "pretrain"]
    assert [(number, of) for _, number, of in told] == [(str(at), "4") for at in range(1, 5)]
    assert printed["estimate"]["most_copying_steps"] == 2
    assert 0 < printed["estimate"]["most_copying_minutes"] < 1


def test_a_dry_run_tells_what_is_left_and_why(finished: tuple[Path, Result]) -> None:
    folder, _ = finished
    result = quickstart(folder, "--dry-run", "--json")
    assert {step["state"] for step in last_json(result)["steps"]} == {"done"}
    assert "No training is left to do." in result.stdout
    result = quickstart(folder, "--dry-run", "--json", stages__stage2__beta=0.2)
    changed = {step["step"]: step for step in last_json(result)["steps"]}
    assert changed["stage2"]["changes"] == ["stage.beta: 0.1 -> 0.2"]
    assert changed["stage1"]["state"] == "done"
    assert "minutes of training that are left; rejected" in result.stdout


def test_a_dry_run_counts_turns_that_lose_messages(tmp_path: Path) -> None:
    result = quickstart(tmp_path / "run", "--dry-run", "--json", prompts__max_tokens=150, prompts__reserve=40)
    trimmed = last_json(result)["estimate"]["trimmed"]
    assert trimmed["train"]["turns"] == 36
    lost = trimmed["test"]["oldest messages trimmed"]
    assert 0 < lost < trimmed["test"]["turns"]
    assert (
        f"{lost} of {trimmed['test']['turns']} turns of part 'test' lose their oldest messages"
        in result.stdout
    )


def test_a_missing_judge_is_told_before_anything_is_computed(tmp_path: Path) -> None:
    for options in ((), ("--dry-run",)):
        result = quickstart(tmp_path / "run", *options, evaluation__judges="[oracle, judge-c]")
        assert result.exit_code == 1
        assert "there is no judge 'judge-c'" in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_dry_run_refuses_dialogues_that_a_run_would_refuse(tmp_path: Path) -> None:
    result = quickstart(tmp_path, "--dry-run", prompts__max_tokens=41, prompts__reserve=40)
    assert result.exit_code == 1
    assert (
        "data: part 'align': dialogue 'align-00000-0', message 1: the persona and the last" in result.stderr
    )
    assert "prompts.max_tokens (41); raise it" in result.stderr


def test_until_stops_there_and_ctrl_c_is_resumed(
    finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    last_json(quickstart(folder, "--until", "backbone", "--json"))
    assert set(markers(folder)) == {"data.json", "backbone.json"}

    def interrupted(*arguments: Any, progress: Any, **rest: Any) -> Any:
        def then_stop(step: int, total: int, values: dict[str, float]) -> None:
            if (rest["stage"], step) == ("stage1", 3):
                os.kill(os.getpid(), signal.SIGINT)

        return train_stage(*arguments, progress=then_stop, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "train_stage", interrupted)
        result = quickstart(folder, "--until", "stage1")
    assert result.exit_code == 130
    assert "stopped in stage1, which is kept like all before it. Go on with:\n  " in result.stderr
    assert "personalign run quickstart-scratch --out" in result.stderr
    assert result.stderr.rstrip().endswith("--until stage1 --resume")
    assert set(markers(folder)) == {"data.json", "backbone.json", "finetuning.json"}
    assert (folder / "checkpoints" / "stage1" / "checkpoint-3").is_dir()
    forgotten = quickstart(folder, "--until", "stage1")
    assert forgotten.exit_code == 1
    assert "stage1 was stopped before" in forgotten.stderr
    assert "add --resume to go on from there" in forgotten.stderr
    steps: list[int] = []

    def watched(*arguments: Any, progress: Any, **rest: Any) -> Any:
        return train_stage(*arguments, progress=lambda step, total, values: steps.append(step), **rest)

    monkeypatch.setattr(run_module, "train_stage", watched)
    printed = last_json(quickstart(folder, "--until", "stage1", "--resume", "--json"))
    # What was done before is told first.
    assert steps == [3, 4]
    assert printed["results"] == {}
    assert list(printed["steps"]) == STEPS[:4]
    whole, resumed = (load_file(place / "models/stage1/model.safetensors") for place in (finished[0], folder))
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_ctrl_c_outside_training_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*arguments: Any, **rest: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(pal_module, "label_parts", stopped)
    folder = tmp_path / "my run"
    result = personalign("quickstart", "--out", folder, "--set", "decoding.beams=2", "--json")
    assert result.exit_code == 130
    said, command = result.stderr.splitlines()[-2:]
    assert said == "interrupted; what was finished before is kept. Go on with:"
    arguments = f"quickstart --out '{folder}' --set decoding.beams=2 --json --resume"
    assert re.fullmatch(rf"  (\S*/)?personalign {re.escape(arguments)}", command)


@pytest.mark.parametrize(
    ("options", "name"), [([], "quickstart"), (["--from-scratch"], "quickstart-scratch")]
)
def test_either_quickstart_has_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], name: str
) -> None:
    """The one that `personalign run` would use, so that neither replaces the other's model."""

    def stopped(*arguments: Any, **rest: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(pal_module, "label_parts", stopped)
    monkeypatch.chdir(tmp_path)
    result = personalign("quickstart", *options, "--set", "data.synthetic.train=4")
    assert result.exit_code == 130
    assert [path.name for path in (tmp_path / "runs").iterdir()] == [name]
    assert result.stderr.splitlines()[-1].endswith(
        " ".join(["quickstart", *options, "--set data.synthetic.train=4 --resume"])
    )


def test_a_folder_that_another_process_runs_in_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with FileLock(folder / ".lock"):
        result = quickstart(folder)
    assert result.exit_code == 1
    assert f"error: another process is running in {folder}; wait for it" in result.stderr
    assert not (folder / "recipe.yaml").exists()


def test_without_judges_the_table_has_no_empty_columns(tmp_path: Path) -> None:
    result = quickstart(
        tmp_path / "run",
        evaluation__judges="[]",
        stages__stage2__evaluate_every="null",
        stages__stage2__patience="null",
    )
    assert result.exit_code == 0, result.output
    assert "states" not in result.stdout
    assert "selects: share of all turns on which the right line, or rightly none, was chosen" in result.stdout
    assert "Measuring" in result.stderr
    assert "Judging" not in result.stderr


def test_a_checkpoint_of_another_recipe_is_not_resumed(
    finished: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(finished, tmp_path)

    def interrupted(*arguments: Any, progress: Any, **rest: Any) -> Any:
        def stop(step: int, total: int, values: dict[str, float]) -> None:
            os.kill(os.getpid(), signal.SIGINT)

        return train_stage(*arguments, progress=stop, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(run_module, "train_stage", interrupted)
        assert quickstart(folder, "--until", "stage1", stages__stage1__learning_rate=0.5).exit_code == 130
    result = quickstart(folder, "--until", "stage1", "--resume", stages__stage1__learning_rate=0.25)
    assert result.exit_code == 0, result.output
    assert "stage1: begins anew, its checkpoint comes from another recipe" in result.stderr
    first = json.loads((folder / "steps" / "stage1.json").read_text())["record"]
    assert first["steps"] == 4
    # The journal tells of the stage once, as it was trained last.
    rows = read_rows(folder / "metrics.jsonl")
    assert [row["step"] for row in rows if row["stage"] == "stage1"] == [4]
    assert [row["step"] for row in rows if row["stage"] == "finetuning"] == [2]


def test_pretraining_is_resumed_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = "{learning_rate: 0.01, batch_examples: 4, steps: 5}"
    options = {"stages__pretrain": stage, "stages__finetuning": "null"}
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    last_json(quickstart(whole, "--until", "backbone", "--json", **options))
    steps: list[int] = []
    stop_at = 3

    def stopping(*arguments: Any, progress: Any, **rest: Any) -> Any:
        def watched(step: int, total: int, values: dict[str, float]) -> None:
            steps.append(step)
            if step == stop_at:
                os.kill(os.getpid(), signal.SIGINT)

        return train_stage(*arguments, progress=watched, **rest)

    monkeypatch.setattr(pretraining_module, "train_stage", stopping)
    assert "stopped in pretraining, which is kept" in quickstart(cut, "--until", "backbone", **options).stderr
    stop_at = 0
    last_json(quickstart(cut, "--until", "backbone", "--resume", "--json", **options))
    # What was done before is told first.
    assert steps == [1, 2, 3, 3, 4, 5]
    first, second = (load_file(folder / "models/backbone/model.safetensors") for folder in (whole, cut))
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not list((cut / "checkpoints").iterdir())


@pytest.mark.slow
def test_chinese_works_end_to_end(tmp_path: Path) -> None:
    check_chinese(tmp_path, *STEPS[-1:])


def test_chinese_trains_and_selects(tmp_path: Path) -> None:
    check_chinese(tmp_path, "predict:stage1")


def check_chinese(folder: Path, until: str) -> None:
    changes = {"language": "zh", "stages__finetuning": "null", "stages__stage2__evaluate_every": "null"}
    printed = last_json(quickstart(folder, "--until", until, "--json", **changes))
    assert list(printed["steps"])[-1] == until
    rows = read_rows(folder / "predictions" / "stage1.jsonl")
    assert len(rows) == 9
    assert all(any("\u4e00" <= letter <= "\u9fff" for letter in row["gold"]) for row in rows)


# Mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["run", "quickstrat"],
            "'quickstrat' is neither a file nor a shipped recipe (did you mean quickstart?); shipped are "
            + ", ".join(shipped_recipes()),
        ),
        (
            ["run", "quickstart", "--set", "stages.stge1.epochs=1"],
            "no key `stages.stge1`; did you mean `stages.stage1`?",
        ),
        (["run", "quickstart", "--set", "data.synthetic.tests=1"], "did you mean `data.synthetic.test`?"),
        (["quickstart", "--set", "sed=1"], "no key `sed`; did you mean `seed`?"),
        (["run", "quickstart", "--set", "seed"], "--set seed: write --set key.key=value"),
        (["run", "quickstart", "--set", "seed=[1"], "--set seed=[1: the value is not YAML"),
        (
            ["run", "quickstart", "--until", "stage3"],
            "--until stage3: there is no such step; write one of data, backbone",
        ),
        (
            ["run", "quickstart", "--set", "data.files={train: a, test: b}"],
            "data: give either `synthetic` or `files`",
        ),
        (["recipes", "show", "pal"], "there is no recipe 'pal'; the shipped ones are"),
    ],
)
def test_mistakes_end_with_one_message(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = personalign(*arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("error: ") == 1
    assert "Traceback" not in result.output
    assert not list(tmp_path.iterdir())


def test_a_missing_data_file_is_named_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PERSONALIGN_DATA", raising=False)
    result = personalign("run", "pal-personachat-small", "--out", tmp_path / "run")
    assert result.exit_code == 1
    assert "PERSONALIGN_DATA" in result.stderr
    assert "Traceback" not in result.output
    assert not (tmp_path / "run").exists()
