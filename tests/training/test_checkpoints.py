"""Checkpoints: whole or passed over, kept two at a time, and enough to go on from wherever a stage ended."""

import itertools
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.training.test_trainer import SETTINGS, assert_identical, norm, scripted, train
from torch import nn

from personalign.errors import PersonalignError


def test_a_torn_checkpoint_is_passed_over(tmp_path: Path) -> None:
    settings = replace(SETTINGS, save_every=2)
    _, whole = train(tmp_path / "whole", settings=settings)
    train(tmp_path / "cut", settings=settings, interrupt_after=5)
    torn = tmp_path / "cut" / "checkpoints" / "checkpoint-6"
    torn.mkdir()
    (torn / "model.safetensors").write_bytes(b"half")
    resumed, weights = train(tmp_path / "cut", settings=settings, resume=True)
    assert resumed.steps == 8
    assert_identical(weights, whole)


def test_a_checkpoint_without_its_marker_is_passed_over(tmp_path: Path) -> None:
    settings = replace(SETTINGS, save_every=2)
    _, whole = train(tmp_path / "whole", settings=settings)
    train(tmp_path / "cut", settings=settings, interrupt_after=5)
    newest = tmp_path / "cut" / "checkpoints" / "checkpoint-5"
    (newest / "complete.json").unlink()
    # Were it loaded, training would go on from these.
    shutil.copy(tmp_path / "cut" / "checkpoints" / "checkpoint-4" / "model.safetensors", newest)
    resumed, weights = train(tmp_path / "cut", settings=settings, resume=True)
    assert [row["step"] for row in resumed.history] == [5, 6, 7, 8]
    assert_identical(weights, whole)


@pytest.mark.parametrize("damage", ["truncated", "missing"])
def test_a_damaged_checkpoint_is_named(tmp_path: Path, damage: str) -> None:
    settings = replace(SETTINGS, save_every=2)
    _, whole = train(tmp_path / "whole", settings=settings)
    train(tmp_path / "cut", settings=settings, interrupt_after=5)
    newest = tmp_path / "cut" / "checkpoints" / "checkpoint-5"
    hurt = newest / "optimizer.pt"
    if damage == "truncated":
        os.truncate(hurt, 1000)
    else:
        hurt.unlink()
    with pytest.raises(PersonalignError, match=r"optimizer.pt .*damaged; remove .*checkpoint-5"):
        train(tmp_path / "cut", settings=settings, resume=True)
    shutil.rmtree(newest)
    resumed, weights = train(tmp_path / "cut", settings=settings, resume=True)
    assert resumed.history[0]["step"] == 5
    assert_identical(weights, whole)


def test_the_best_of_a_kept_checkpoint_is_kept_with_it(tmp_path: Path) -> None:
    """What is repeated may come out otherwise, on another machine: then an earlier evaluation is the best again."""
    settings = replace(SETTINGS, evaluate_every=1, save_every=4)

    def killed(model: nn.Module) -> float:
        raise MemoryError

    rising = scripted([0.1, 0.2, 0.3, 0.5, 0.6, 0.7])
    evaluations = itertools.chain([rising] * 6, [killed])
    with pytest.raises(MemoryError):
        train(tmp_path, settings=settings, validate=lambda model: next(evaluations)(model))
    resumed, weights = train(tmp_path, settings=settings, validate=scripted([0.0] * 4), resume=True)
    assert resumed.best_step == 4
    assert_identical(weights, train(tmp_path / "four", settings=replace(SETTINGS, max_steps=4))[1])


@pytest.mark.parametrize("lost", ["optimizer.pt", "complete.json"])
def test_a_kill_while_an_old_checkpoint_goes_leaves_one_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    settings = replace(SETTINGS, save_every=1, evaluate_every=1)
    _, whole = train(tmp_path / "whole", settings=settings, validate=norm)
    really, seen = shutil.rmtree, list[Path]()

    def dies_on_the_way(folder: Any, *rest: Any, **options: Any) -> None:
        held = list(Path(folder).rglob(lost))
        seen.extend(held)
        if held and len(seen) == 2:
            held[0].unlink()
            raise MemoryError
        really(folder, *rest, **options)

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", dies_on_the_way)
        with pytest.raises(MemoryError):
            train(tmp_path / "cut", settings=settings, validate=norm)
    resumed, weights = train(tmp_path / "cut", settings=settings, validate=norm, resume=True)
    # The fourth was whole when the second went.
    assert resumed.history[0]["step"] == 5
    assert_identical(weights, whole)


def test_a_damaged_checkpoint_that_nothing_needs_stops_nothing(tmp_path: Path) -> None:
    settings = replace(SETTINGS, save_every=2, evaluate_every=1)
    _, whole = train(tmp_path / "whole", settings=settings, validate=norm)
    train(tmp_path / "cut", settings=settings, validate=norm, interrupt_after=5)
    (tmp_path / "cut" / "checkpoints" / "checkpoint-4" / "optimizer.pt").unlink()
    _, weights = train(tmp_path / "cut", settings=settings, validate=norm, resume=True)
    assert_identical(weights, whole)


def test_two_checkpoints_are_kept(tmp_path: Path) -> None:
    train(tmp_path, settings=replace(SETTINGS, save_every=1, max_steps=11))
    assert {path.name for path in (tmp_path / "checkpoints").iterdir()} == {"checkpoint-10", "checkpoint-11"}


def test_damaged_evaluations_are_named(tmp_path: Path) -> None:
    settings = replace(SETTINGS, save_every=2, evaluate_every=1)
    train(tmp_path, settings=settings, validate=norm, interrupt_after=5)
    os.truncate(tmp_path / "checkpoints" / "evaluations.json", 3)
    with pytest.raises(
        PersonalignError, match=r"evaluations\.json is damaged .*; remove .*checkpoints and give"
    ):
        train(tmp_path, settings=settings, validate=norm, resume=True)


def test_checkpoints_without_a_marker_are_removed(tmp_path: Path) -> None:
    settings = replace(SETTINGS, save_every=2)
    train(tmp_path, settings=settings, interrupt_after=5)
    checkpoints = tmp_path / "checkpoints"
    (checkpoints / "checkpoint-5" / "complete.json").unlink()
    (checkpoints / "checkpoint-4-copy").mkdir()
    train(tmp_path, settings=settings, resume=True, interrupt_after=6)
    assert not (checkpoints / "checkpoint-5").exists()
    assert (checkpoints / "checkpoint-4-copy").exists()
    (checkpoints / "checkpoint-6" / "complete.json").write_text("{}")
    with pytest.raises(PersonalignError, match=r"complete.json is damaged; remove .*checkpoint-6"):
        train(tmp_path, settings=settings, resume=True)
