import itertools
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertForSequenceClassification
from typer.testing import CliRunner

from personalign.cli.judge import app
from personalign.errors import PersonalignError
from personalign.evaluation.babble import HELD_OUT
from personalign.evaluation.judge_training import JudgeTraining, evaluate_judge, train_judge
from personalign.evaluation.nli_judge import NliJudge, load_judge
from personalign.evaluation.nli_rows import NliRow, read_nli_rows
from personalign.models import precision

RUNNER = CliRunner()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Liking one animal entails liking it, contradicts disliking it, and says nothing of another."""
    rows = []
    for verb, other, animal, creature in itertools.product(
        *[["like", "dislike"]] * 2, *[["dogs", "cats", "fish"]] * 2
    ):
        label = "neutral" if animal != creature else "positive" if verb == other else "negative"
        for end in (".", "always", "never"):
            premise, hypothesis = f"i {verb} {animal} {end}", f"i always {other} {creature}"
            rows.append({"premise": premise, "hypothesis": hypothesis, "label": label, "split": "train"})
        rows.append(
            {
                "premise": f"{verb} {animal}",
                "hypothesis": f"{other} {creature}",
                "label": label,
                "split": "valid",
            }
        )
    path = tmp_path / "nli.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def config(data: Path, tiny_encoder: Path, tmp_path: Path) -> JudgeTraining:
    return JudgeTraining(
        data=data,
        out=tmp_path / "judges" / "one",
        encoder=str(tiny_encoder),
        epochs=2,
        dev_share=0.0,
        babble=0,
        learning_rate=2e-3,
        batch_size=16,
        max_length=32,
    )


def test_a_judge_learns_and_what_was_saved_scores_as_recorded(config: JudgeTraining) -> None:
    told: list[tuple[int, int]] = []
    record = train_judge(replace(config, epochs=25), progress=lambda done, total: told.append((done, total)))
    assert told == [(done, 175) for done in range(1, 176)]
    assert record["valid"]["accuracy"] > 0.6
    judge = load_judge(config.out)
    rows = [row for row in read_nli_rows(config.data) if row.split == "valid"]
    assert evaluate_judge(judge, rows) == record["valid"]
    assert judge.model.config.id2label == {0: "entailment", 1: "neutral", 2: "contradiction"}
    saved = json.loads((config.out / "judge.json").read_text())
    assert saved == record
    assert saved["rows"]["train_rows"] == 108
    card = (config.out / "README.md").read_text()
    assert f"accuracy {record['valid']['accuracy']:.3f}" in card
    assert "nli.jsonl" in card
    assert str(config.data) not in card


def test_the_best_epoch_on_the_held_out_part_is_kept_and_calibrated(
    config: JudgeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Epochs are scored 0.2, 0.9, 0.4 whatever they learnt: the second one must be what is saved."""
    from personalign.evaluation import judge_training

    real, weights, left = judge_training.evaluate_judge, [], iter([0.2, 0.9, 0.4])

    def scored(judge: NliJudge, rows: Sequence[NliRow]) -> dict[str, Any]:
        if len(weights) == 3:
            return real(judge, rows)
        weights.append(judge.model.classifier.weight.detach().clone())
        return {"accuracy": next(left)}

    monkeypatch.setattr(judge_training, "evaluate_judge", scored)
    monkeypatch.setattr(judge_training, "FEWEST_TO_CALIBRATE", 1)
    record = train_judge(replace(config, epochs=3, dev_share=0.2, babble=6))
    judge = load_judge(config.out)
    assert torch.equal(judge.model.classifier.weight, weights[1])
    assert not torch.equal(weights[1], weights[2])
    assert record["dev_accuracy_per_epoch"] == [0.2, 0.9, 0.4]
    assert judge.temperature == record["temperature"] != 1.0
    assert record["rows"]["babble_rows"] == 6
    assert set(record["held_out_babble"]) == set(HELD_OUT)
    assert f"Divide the logits by {record['temperature']:.3f}" in (config.out / "README.md").read_text()


def test_a_handful_of_rows_sets_no_temperature(config: JudgeTraining) -> None:
    record = train_judge(replace(config, dev_share=0.2))
    assert 0 < record["rows"]["dev_rows"] < 100
    assert record["temperature"] == 1.0


def test_the_seed_decides_everything(config: JudgeTraining, tmp_path: Path) -> None:
    weights = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        torch.rand(3)
        train_judge(replace(config, out=tmp_path / name, seed=seed))
        weights.append(load_judge(tmp_path / name).model.classifier.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.allclose(weights[0], weights[2])


def test_a_saving_that_is_interrupted_leaves_nothing(
    config: JudgeTraining, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[Path] = []

    def interrupted(model: object, folder: Path) -> None:
        (folder / "config.json").write_text("{")
        begun.append(folder)
        raise KeyboardInterrupt

    monkeypatch.setattr(BertForSequenceClassification, "save_pretrained", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train_judge(replace(config, epochs=1))
    [folder] = begun
    assert folder.is_relative_to(config.out.parent)
    assert not list(config.out.parent.iterdir())


def test_a_folder_that_exists_is_not_overwritten(config: JudgeTraining) -> None:
    config.out.mkdir(parents=True)
    with pytest.raises(PersonalignError, match="name another folder"):
        train_judge(config)


def test_an_encoder_that_is_not_there_is_refused(config: JudgeTraining, tmp_path: Path) -> None:
    with pytest.raises(PersonalignError, match="cannot be loaded as an encoder"):
        train_judge(replace(config, encoder=str(tmp_path / "absent")))


def test_a_device_that_is_not_there_is_refused(config: JudgeTraining) -> None:
    with pytest.raises(PersonalignError, match="device: 'cuda:x' is unknown"):
        train_judge(replace(config, device="cuda:x"))
    for command in (
        ["train", str(config.data), str(config.out)],
        ["eval", str(config.encoder), str(config.data)],
    ):
        outcome = RUNNER.invoke(app, [*command, "--device", "tpu"])
        assert isinstance(outcome.exception, PersonalignError)
        assert "device: 'tpu' is unknown; write auto" in str(outcome.exception)


def test_the_chosen_precision_is_recorded(config: JudgeTraining, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "cpu_multiplies_bf16", lambda: False)
    with pytest.raises(PersonalignError, match="neither AMX nor"):
        train_judge(replace(config, dtype="bfloat16"))
    record = train_judge(replace(config, dtype="auto", epochs=1))
    assert record["settings"]["dtype"] == "float32"


def test_the_commands_train_and_evaluate(config: JudgeTraining, tmp_path: Path) -> None:
    excluded = tmp_path / "dialogues.jsonl"
    excluded.write_text(json.dumps({"persona": ["I like fish ."], "messages": []}) + "\n")
    trained = RUNNER.invoke(
        app,
        [
            *("train", str(config.data), str(config.out), "--encoder", str(config.encoder)),
            *("--exclude", str(excluded), "--epochs", "1", "--max-length", "32", "--part", "a", "--json"),
            *("--dev-share", "0", "--babble", "0"),
        ],
    )
    assert trained.exit_code == 0, trained.output
    result = json.loads(trained.stdout.splitlines()[-1])
    assert result["rows"]["dropped_excluded_files"] == 6
    assert result["settings"]["part"] == "a"
    evaluated = RUNNER.invoke(
        app, ["eval", str(config.out), str(config.data), "--max-length", "32", "--json"]
    )
    assert evaluated.exit_code == 0, evaluated.output
    scores = json.loads(evaluated.stdout.splitlines()[-1])["files"][str(config.data)]
    assert scores["accuracy"] == result["valid"]["accuracy"]
    assert scores["confusion"] == result["valid"]["confusion"]
    assert scores["rows"] == 36
    assert scores["kind"] == "labels"


def test_evaluating_on_a_split_that_is_not_there_names_those_that_are(config: JudgeTraining) -> None:
    train_judge(replace(config, epochs=1))
    outcome = RUNNER.invoke(app, ["eval", str(config.out), str(config.data), "--split", "test"])
    assert isinstance(outcome.exception, PersonalignError)
    assert "it has train, valid" in str(outcome.exception)


def test_pairs_are_scored_and_kept(
    config: JudgeTraining, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERSONALIGN_CACHE", str(tmp_path / "cache"))
    train_judge(config)
    rows = [
        {"persona": ["i like dogs", "i dislike cats"], "response": "i like fish", "id": 7},
        {"premise": "i like dogs", "hypothesis": "i like dogs"},
    ]
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for _ in range(2):
        outcome = RUNNER.invoke(
            app,
            [
                "score",
                str(config.out),
                str(pairs),
                str(tmp_path / "out.jsonl"),
                "--max-length",
                "32",
                "--force",
                "--json",
            ],
        )
        assert outcome.exit_code == 0, outcome.output
        judged = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
        assert [len(row["verdicts"]) for row in judged] == [2, 1]
        assert judged[0]["id"] == 7
        for verdict in (*judged[0]["verdicts"], *judged[1]["verdicts"]):
            shares = {label: verdict[label] for label in ("entailment", "neutral", "contradiction")}
            assert sum(shares.values()) == pytest.approx(1, abs=1e-5)
            assert verdict["label"] == max(shares, key=lambda label: shares[label])
    assert (tmp_path / "cache" / "verdicts.sqlite").is_file()
    pairs.write_text('{"persona": "x"}\n')
    outcome = RUNNER.invoke(app, ["score", str(config.out), str(pairs), str(tmp_path / "new.jsonl")])
    assert "line 1: expected {premise, hypothesis}" in str(outcome.exception)
