"""The list of runs behind the results: every one of them is a recipe that can be run, and follows what it needs."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from personalign.methods.recipe import Recipe
from personalign.methods.shipped import load_recipe

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "proof.py"


@pytest.fixture(scope="module")
def proof() -> ModuleType:
    spec = importlib.util.spec_from_file_location("proof_script", SCRIPT)
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
