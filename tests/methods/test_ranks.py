"""A run in two processes leaves what a run in one does: the same replies, and figures to 1e-4."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tests.methods.made_runs import SMALL_IDL, SilentReporter, shrunken
from tests.training.made_ranks import on_ranks

from personalign._ranks import ALONE, find_ranks
from personalign.methods.runs import make_run
from personalign.methods.shipped import load_run_recipe

PAL, IDL = "quickstart-scratch", "idl-quickstart"
KINDS = {
    "full": (PAL, shrunken(stages__stage2__evaluate_every=2, stages__stage1__save_every=2)),
    "lora": (PAL, shrunken(backbone__lora__r=2, stages__finetuning="null")),
    "idl": (IDL, SMALL_IDL),
}


def run(kind: str, folder: Path) -> None:
    name, assignments = KINDS[kind]
    recipe = load_run_recipe(name, assignments)
    make_run(recipe, folder, reporter=SilentReporter(), ranks=find_ranks()).run()


@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_leave_what_one_does(tmp_path: Path, kind: str) -> None:
    run(kind, tmp_path / "one")
    on_ranks(run, kind, tmp_path / "two")
    files = [
        {str(path.relative_to(tmp_path / name)) for path in (tmp_path / name).rglob("*") if path.is_file()}
        for name in ("one", "two")
    ]
    assert files[0] == files[1]
    for path in sorted(files[0]):
        one, two = tmp_path / "one" / path, tmp_path / "two" / path
        if path.endswith(".safetensors"):
            first, second = load_file(one), load_file(two)
            assert first.keys() == second.keys()
            for name, value in first.items():
                assert (value - second[name]).abs().max() < 1e-4, (path, name)
        elif path.endswith(("rejected.jsonl", "triples.jsonl")) or path.startswith("data/"):
            assert one.read_bytes() == two.read_bytes(), path
    for path in sorted(files[0]):
        if path.startswith("predictions/"):
            rows = [
                [json.loads(line) for line in (tmp_path / name / path).read_text().splitlines()]
                for name in ("one", "two")
            ]
            assert [row["response"] for row in rows[0]] == [row["response"] for row in rows[1]], path
            assert [row["selected"] for row in rows[0]] == [row["selected"] for row in rows[1]], path
    close(*(json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two")))


def close(one: Any, two: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == two.keys()
        for name in one:
            close(one[name], two[name])
    elif isinstance(one, float):
        assert two == pytest.approx(one, rel=1e-3, abs=1e-4)
    else:
        assert one == two


def test_without_a_launcher_a_process_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    ranks = find_ranks()
    assert ranks == ALONE
    assert ranks.main
    assert ranks.share("abc") == ranks.merged("abc") == ["a", "b", "c"]
    assert ranks.from_main(lambda: 3) == 3
    assert (ranks.any(True), ranks.any(False)) == (True, False)
