"""The launcher's settings that come along, and a run that accelerate starts."""

import os
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from tests.methods.made_runs import shrunken

SETTINGS = files("personalign") / "recipes" / "accelerate"


@pytest.mark.parametrize(("name", "machines"), [("one-node", 1), ("several-nodes", 2)])
def test_accelerate_reads_the_settings(name: str, machines: int) -> None:
    config = load_config_from_file(str(SETTINGS / f"{name}.yaml"))
    assert config.num_machines == machines
    assert config.num_processes == 8 * machines
    assert config.distributed_type == "MULTI_GPU"
    # A recipe's dtype decides; the launcher would wrap the model in its own.
    assert config.mixed_precision == "no"


def test_accelerate_starts_a_run_that_one_process_writes_and_tells_of(tmp_path: Path) -> None:
    launched = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"]
    launched += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no"]
    launched += ["-m", "personalign", "run", "quickstart-scratch", "--out", str(tmp_path / "run")]
    launched += [word for assignment in shrunken() for word in ("--set", assignment)]
    done = subprocess.run(
        launched,
        capture_output=True,
        text=True,
        timeout=300,
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Look at every turn") == 1
    assert done.stderr.count("Rejected replies: 12/12") == 1
    assert (tmp_path / "run" / "table.md").is_file()
