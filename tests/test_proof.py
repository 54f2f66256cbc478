"""The list of runs behind the results: every one of them is a recipe that can be run, and follows what it needs."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from personalign.methods.recipe import Recipe
from personalign.methods.shipped import load_recipe

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "proof.py"


@pytest.fixture(scope="module")
def proof() -> ModuleType:
    return loaded("proof", SCRIPT)


def loaded(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_every_run_is_a_recipe_of_its_own(proof: ModuleType, tmp_path: Path) -> None:
    known = [arm for phase in proof.arms() for arm in phase]
    recipes: dict[str, Recipe] = {
        arm.name: load_recipe(proof.RECIPE, arm.assignments(tmp_path)) for arm in known
    }
    assert len(recipes) == len(known) == len({recipe.model_dump_json() for recipe in recipes.values()})
    assert {recipes[f"seed-{seed}"].seed for seed in (1, 2, 3)} == {1, 2, 3}
    assert recipes["seed-1"].backbone.scratch is not None
    assert recipes["seed-2"].backbone.name == str(tmp_path / "seed-1" / "models" / "backbone")
    assert recipes["seed-3-without_mix"].ablation == "without_mix"


def test_a_run_comes_after_the_one_it_begins_as_a_copy_of(proof: ModuleType) -> None:
    done: set[str] = set()
    for phase in proof.arms():
        assert all(arm.base is None or arm.base in done for arm in phase)
        # One with the backbone of seed 1 comes after seed 1.
        assert all(not arm.given_backbone or "seed-1" in done for arm in phase)
        assert all(arm.given_backbone for arm in phase if arm.seed != 1 or arm.name == "paper-template")
        done |= {arm.name for arm in phase}


def test_a_copy_is_whole_and_goes_on(
    proof: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[list[str]] = []
    monkeypatch.setattr(proof, "_logged", lambda command, log: asked.append(command) or len(asked) - 1)
    arm = proof.Arm("seed-1-made", 1, "seed-1", ("ablation=without_mix",))
    assert proof._run(arm, tmp_path) == 1
    assert not asked
    (tmp_path / "seed-1" / "steps").mkdir(parents=True)
    (tmp_path / "seed-1" / ".lock").touch()
    (tmp_path / "seed-1" / "steps" / "stage1.json").write_text("{}")
    (tmp_path / "seed-1" / "results.json").write_text("{}")
    (tmp_path / "seed-1" / "model").mkdir()
    (tmp_path / "seed-1-made.part").mkdir()
    assert proof._run(arm, tmp_path) == 1
    assert not asked
    (tmp_path / "seed-1" / "steps" / "results.json").write_text("{}")
    assert proof._run(arm, tmp_path) == 0
    place = tmp_path / "seed-1-made"
    assert sorted(path.name for path in place.rglob("*")) == ["stage1.json", "steps"]
    assert not (tmp_path / "seed-1-made.part").exists()
    (place / "kept").touch()
    assert proof._run(arm, tmp_path) == 1
    assert (place / "kept").exists()
    assert asked[0] == asked[1]
    assert asked[0][3:] == [
        "run", proof.RECIPE, "--out", str(place), "--resume", "--set", "seed=1", "--set", "ablation=without_mix",
    ]  # fmt: skip


def test_the_tables_are_of_what_is_finished(
    proof: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = loaded("proof_tables", SCRIPT.with_name("proof_tables.py"))
    for seed, bleu in ((1, 16.0), (2, 18.0)):
        finish(tmp_path / f"seed-{seed}", bleu)
    finish(tmp_path / "seed-1-without_mix", 12.5)
    # Begun again and not finished; a copy that is not finished has no results at all.
    finish(tmp_path / "seed-2-without_mix", 99.9)
    (tmp_path / "seed-2-without_mix" / "plan.json").write_text('{"results": "another"}')
    finish(tmp_path / "whole-alignment", 17.25)
    (tmp_path / "whole-alignment" / "metrics.jsonl").write_text(
        '{"stage": "stage2", "step": 10, "validation": 0.5, "bleu-1/coco": 15.25}\n'
    )
    monkeypatch.setattr(sys, "argv", ["proof_tables.py", str(tmp_path)])
    assert tables.main() == 0
    said = capsys.readouterr()
    rows = [line for line in said.out.splitlines() if line.startswith("| ")]
    assert "| PAL | - | - | 17.0 (16.0 to 18.0) | - | - | - | - | - |" in rows
    assert "| PAL | 0.400 | - | - | - | - |" in rows
    assert "| without mix, 1 seed | - | - | 12.5 | - | - | - | - | - |" in rows
    assert "| whole-alignment | - | - | 17.2 | - | - | - | - | - |" in rows
    assert "| 10 | 0.500 | 15.250 |" in rows
    assert "99.9" not in said.out
    assert "seed-2-without_mix is not finished" in said.err
    assert "seed-3 is not finished" in said.err


def finish(folder: Path, bleu: float) -> None:
    """A run as far as the tables read it."""
    figures = {
        "title": "PAL",
        "part": "test",
        "bleu-1/coco": bleu,
        "judge:a": {"recall": {"mean": 0.4, "low": None, "high": None}},
    }
    (folder / "steps").mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"pal_predicted": figures}))
    (folder / "metrics.jsonl").touch()
    (folder / "plan.json").write_text('{"results": "one"}')
    (folder / "steps" / "results.json").write_text('{"fingerprint": "one", "settings": {}, "record": {}}')
