"""Steps: done once, done again when what decides them changed, and never half done."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.methods.made_runs import SilentReporter, dying_before_its_marker

from personalign.errors import PersonalignError
from personalign.methods.steps import Step, alone_in, plan, read_record, run_steps, undone, unfinished

SETTINGS: dict[str, dict[str, Any]] = {
    "data": {"size": 3},
    "train": {"rate": 0.1},
    "other": {},
    "predict:a": {"beams": 1},
}
AFTER = {"data": (), "train": ("data",), "other": ("data",), "predict:a": ("train",)}


def steps(done: list[str], *, fail: str | None = None, **changes: Mapping[str, Any]) -> list[Step]:
    def work(name: str) -> dict[str, Any]:
        if name == fail:
            raise RuntimeError(name)
        done.append(name)
        return {"made": name}

    return [
        Step(name, name.title(), AFTER[name], changes.get(name, settings), lambda name=name: work(name))  # type: ignore[misc]
        for name, settings in SETTINGS.items()
    ]


def states(folder: Path, **changes: Mapping[str, Any]) -> dict[str, str]:
    return {item.step.name: item.state for item in plan(steps([], **changes), folder)}


def run(folder: Path, *, fail: str | None = None, **changes: Mapping[str, Any]) -> Any:
    """What was done, what was said, and the records."""
    done: list[str] = []
    reporter = SilentReporter()
    records = run_steps(steps(done, fail=fail, **changes), folder, reporter=reporter)
    return done, reporter.said, records


def test_a_finished_step_is_not_run_again(tmp_path: Path) -> None:
    assert set(states(tmp_path).values()) == {"new"}
    done, said, records = run(tmp_path)
    assert done == list(SETTINGS)
    assert said == []
    again, said, same = run(tmp_path)
    assert again == said == []
    assert same == records
    assert records["train"]["made"] == "train"
    assert records["train"]["seconds"] >= 0


def test_a_changed_recipe_redoes_what_it_changes_and_says_so(tmp_path: Path) -> None:
    run(tmp_path)
    changed = {"train": {"rate": 0.2}}
    assert states(tmp_path, **changed) == {
        "data": "done",
        "train": "changed",
        "other": "done",
        "predict:a": "after a changed step",
    }
    done, said, _ = run(tmp_path, **changed)
    assert done == ["train", "predict:a"]
    assert said == [
        "Train: done again, its settings changed: rate: 0.1 -> 0.2",
        "Predict:A: done again, a step before it changed",
    ]
    assert set(states(tmp_path, **changed).values()) == {"done"}


def test_a_change_at_the_root_redoes_everything(tmp_path: Path) -> None:
    run(tmp_path)
    assert run(tmp_path, data={"size": 4})[0] == list(SETTINGS)


def test_what_both_changes_itself_and_comes_after_a_change_is_changed(tmp_path: Path) -> None:
    run(tmp_path)
    both = {"data": {"size": 4}, "train": {"rate": 0.2}}
    assert states(tmp_path, **both)["train"] == "changed"
    assert states(tmp_path, **both)["other"] == "after a changed step"


def test_the_order_and_kind_of_equal_settings_do_not_matter(tmp_path: Path) -> None:
    first = {"train": {"a": (1, 2), "b": None}}
    run(tmp_path, **first)
    assert set(states(tmp_path, train={"b": None, "a": [1, 2]}).values()) == {"done"}


def test_a_crash_leaves_no_marker(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError):
        run(tmp_path, fail="train")
    assert read_record(tmp_path, "data") is not None
    assert read_record(tmp_path, "train") is None
    assert run(tmp_path)[0] == ["train", "other", "predict:a"]


def test_a_step_whose_forerunner_was_redone_by_an_earlier_command_comes_after_a_changed_step(
    tmp_path: Path,
) -> None:
    run(tmp_path)
    changed = {"train": {"rate": 0.2}}
    run_steps(steps([], **changed)[:2], tmp_path, reporter=SilentReporter())
    assert states(tmp_path, **changed) == {
        "data": "done",
        "train": "done",
        "other": "done",
        "predict:a": "after a changed step",
    }


def test_every_setting_that_differs_is_named_by_its_place(tmp_path: Path) -> None:
    run(tmp_path, train={"stage": {"rate": 0.1, "epochs": 2}, "seed": 1, "judge": None})
    changed = {"stage": {"rate": 0.2, "epochs": 2}, "seed": 1, "judge": "x" * 100, "new": True}
    _, said, _ = run(tmp_path, train=changed)
    judge = '"' + "x" * 39 + "..."
    assert said[0] == (
        f"Train: done again, its settings changed: judge: null -> {judge}, stage.rate: 0.1 -> 0.2, new: not set -> true"
    )
    many = {f"key{number}": None if number else 0 for number in range(9)}
    _, said, _ = run(tmp_path, other=many)
    assert said[1].startswith("Other: done again, its settings changed: key0: not set -> 0, key1: ")
    assert said[1].endswith("key5: not set -> null and 3 more")


def test_long_settings_are_cut_to_where_they_differ(tmp_path: Path) -> None:
    folder = "/home/somebody/projects/data/"
    run(tmp_path, train={"file": f"{folder}train-first.jsonl"})
    _, said, _ = run(tmp_path, train={"file": f"{folder}train-second.jsonl"})
    assert said[0] == (
        "Train: done again, its settings changed: file: "
        '...ata/train-first.jsonl" -> ...ata/train-second.jsonl"'
    )


def test_a_crash_while_redoing_takes_the_old_marker_away(tmp_path: Path) -> None:
    """What is half overwritten must not count as done, even under the settings that made it first."""
    run(tmp_path)
    with pytest.raises(RuntimeError):
        run(tmp_path, fail="train", train={"rate": 0.2})
    assert read_record(tmp_path, "train") is None
    assert run(tmp_path)[0][0] == "train"


def test_what_a_killed_process_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "predictions" / ".model.x1.part").mkdir(parents=True)
    (tmp_path / "predictions" / ".model.x1.part" / "weights").write_text("half")
    (tmp_path / "predictions" / ".rows.jsonl.x2.part").write_text("half")
    (tmp_path / "predictions" / "whole.part").write_text("a file of somebody's")
    with alone_in(tmp_path):
        assert [path.name for path in (tmp_path / "predictions").iterdir()] == ["whole.part"]


def test_what_a_step_needs_to_go_on_is_kept_until_it_counts_as_done(tmp_path: Path) -> None:
    held = unfinished(tmp_path, "predict:a")
    held.mkdir(parents=True)

    with dying_before_its_marker("predict-a"):
        run(tmp_path)
    assert held.is_dir()
    run(tmp_path)
    assert not held.exists()
    # A process that died between the two.
    held.mkdir()
    assert run(tmp_path)[0] == []
    assert not held.exists()


def test_a_damaged_marker_is_named(tmp_path: Path) -> None:
    run(tmp_path)
    marker = tmp_path / "steps" / "train.json"
    marker.write_text(marker.read_text()[:10])
    with pytest.raises(
        PersonalignError, match=r"train\.json is damaged .*; remove it, and the step is done again"
    ):
        run(tmp_path)
    marker.unlink()
    assert run(tmp_path)[0] == ["train"]
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(PersonalignError, match=r"plan\.json is damaged .*; remove it"):
        undone(tmp_path)
