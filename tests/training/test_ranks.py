"""Two processes train as one does: the same batches, the same losses, the same weights."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.training.made_examples import pairs, supervised, tiny_model
from tests.training.made_ranks import on_ranks
from tests.training.test_trainer import SETTINGS, with_reference

from personalign._ranks import find_ranks
from personalign.errors import PersonalignError
from personalign.training.examples import grow
from personalign.training.journal import Validated
from personalign.training.step import StageSettings
from personalign.training.trainer import TreeTrainer, train_stage


def trained(folder: Path, settings: StageSettings) -> None:
    """One stage; every rank leaves its history, its weights, and which trees each of its steps was given."""
    model: Any = tiny_model()
    trees = grow(supervised(dialogues=9), budget=200)
    if settings.objective == "dpo":
        trees = with_reference(grow(pairs(dialogues=9), budget=200))
    number = {id(tree): index for index, tree in enumerate(trees)}
    shares: list[list[int]] = []
    really = TreeTrainer.training_step

    def noted(self: Any, model: Any, inputs: Any, *rest: Any) -> Any:
        shares.append(sorted(number[id(tree)] for tree in inputs["trees"]))
        return really(self, model, inputs, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TreeTrainer, "training_step", noted)
        result = train_stage(model, trees, settings=settings, folder=folder / "checkpoints", stage="made")
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    (folder / f"history-{rank}.json").write_text(json.dumps(result.history), encoding="utf-8")
    (folder / f"shares-{rank}.json").write_text(json.dumps(shares), encoding="utf-8")
    torch.save(model.state_dict(), folder / f"weights-{rank}.pt")


@pytest.mark.parametrize("objective", ["nll", "dpo"])
@pytest.mark.parametrize("budget", [200, 10_000])
@pytest.mark.parametrize("batch", [4, 1])
def test_two_processes_are_as_one(tmp_path: Path, objective: Any, budget: int, batch: int) -> None:
    settings = replace(SETTINGS, objective=objective, token_budget=budget, batch_examples=batch)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    trained(tmp_path / "one", settings)
    on_ranks(trained, tmp_path / "two", settings)
    alone, first, second = (
        torch.load(tmp_path / path) for path in ("one/weights-0.pt", "two/weights-0.pt", "two/weights-1.pt")
    )
    for name, value in alone.items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, atol=1e-4, rtol=0)
    expected, *others = (
        json.loads((tmp_path / path).read_text())
        for path in ("one/history-0.json", "two/history-0.json", "two/history-1.json")
    )
    assert len(expected) == SETTINGS.max_steps
    batches, mine, theirs = (
        json.loads((tmp_path / path).read_text())
        for path in ("one/shares-0.json", "two/shares-0.json", "two/shares-1.json")
    )
    assert [sorted(one + other) for one, other in zip(mine, theirs, strict=True)] == batches
    for rows in others:
        for row, wanted in zip(rows, expected, strict=True):
            assert row == pytest.approx(wanted, abs=1e-4)


def keeping(folder: Path, settings: StageSettings, stop: int | None, resume: bool) -> None:
    """A stage with a journal, checkpoints and evaluations; Ctrl-C reaches one of the processes at step `stop`."""
    rank = (
        torch.distributed.get_rank() if torch.distributed.is_initialized() else int(os.environ.get("RANK", 0))
    )
    model: Any = tiny_model()

    def progress(step: int, total: int, values: dict[str, float]) -> None:
        if step == stop and rank == 1:
            os.kill(os.getpid(), signal.SIGINT)

    result = train_stage(
        model,
        grow(supervised(dialogues=9), budget=200),
        settings=settings,
        folder=folder / "checkpoints",
        stage="made",
        journal=folder / "metrics.jsonl",
        progress=progress,
        validate=lambda model: Validated(-float(next(model.parameters()).detach().abs().sum())),
        resume=resume,
    )
    assert result.interrupted == (stop is not None)
    torch.save(model.state_dict(), folder / f"weights-{rank}.pt")
    (folder / f"best-{rank}.json").write_text(json.dumps([result.steps, result.best_step]))


def test_two_processes_keep_one_journal_and_resume_together(tmp_path: Path) -> None:
    settings = replace(SETTINGS, save_every=2, evaluate_every=2, log_every=1)
    for name in ("one", "two", "cut"):
        (tmp_path / name).mkdir()
    keeping(tmp_path / "one", settings, None, False)
    on_ranks(keeping, tmp_path / "two", settings, None, False)
    on_ranks(keeping, tmp_path / "cut", settings, 3, False)
    on_ranks(keeping, tmp_path / "cut", settings, None, True)
    ends = [
        (tmp_path / path).read_text() for path in ("one/best-0.json", "two/best-0.json", "two/best-1.json")
    ]
    assert len(set(ends)) == 1
    one, two, cut = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two", "cut")
    )
    assert len(one) == len(two) == SETTINGS.max_steps + SETTINGS.max_steps // 2
    for row, wanted in zip(two, one, strict=True):
        assert row.pop("stage") == wanted.pop("stage")
        assert row == pytest.approx(wanted, abs=1e-4)
    assert [{key: row[key] for key in row if key != "stage"} for row in cut] == two
    weights = [torch.load(tmp_path / run / f"weights-{rank}.pt") for run in ("two", "cut") for rank in (0, 1)]
    for name, value in weights[0].items():
        assert all(torch.equal(value, other[name]) for other in weights[1:]), name


def disagreeing(folder: Path, settings: StageSettings) -> None:
    """A stage whose processes score the model otherwise, as two machines may round."""
    rank = int(os.environ["RANK"])
    model: Any = tiny_model()
    scores = iter([[1.0, 0.9, 0.8], [1.0, 1.1, 1.2]][rank] + [0.0] * 20)
    result = train_stage(
        model,
        grow(supervised(dialogues=9), budget=200),
        settings=settings,
        folder=folder / "checkpoints",
        stage="made",
        validate=lambda model: Validated(next(scores)),
    )
    (folder / f"end-{rank}.json").write_text(json.dumps([result.steps, result.best_step]))
    torch.save(model.state_dict(), folder / f"weights-{rank}.pt")


def test_processes_that_score_otherwise_stop_together(tmp_path: Path) -> None:
    on_ranks(disagreeing, tmp_path, replace(SETTINGS, evaluate_every=1, patience=2))
    # By the first one's scores.
    assert [json.loads((tmp_path / f"end-{rank}.json").read_text()) for rank in (0, 1)] == [[3, 1], [3, 1]]
    first, second = (torch.load(tmp_path / f"weights-{rank}.pt") for rank in (0, 1))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


def patience(folder: Path) -> None:
    find_ranks()
    import torch.distributed as distributed

    group = distributed.group.WORLD
    seconds = group._get_backend(torch.device("cpu")).options._timeout.total_seconds()
    (folder / os.environ["RANK"]).write_text(str(seconds))


def test_processes_wait_longer_for_each_other_than_any_step_takes(tmp_path: Path) -> None:
    on_ranks(patience, tmp_path)
    assert all(float((tmp_path / rank).read_text()) >= 24 * 3600 for rank in ("0", "1"))


@pytest.mark.parametrize("variable", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_a_launcher_that_shards_is_refused(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "true")
    with pytest.raises(PersonalignError, match=f"{variable} is set: .* data parallelism alone"):
        find_ranks()
    monkeypatch.setenv(variable, "false")
    find_ranks()
