"""What tests of whole runs share."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.methods.made_adapted import recipe, write_sources
from tests.methods.made_runs import SilentReporter

from personalign.methods.run import PalRun


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sources")
    write_sources(folder)
    return folder


@pytest.fixture(scope="module")
def finished(sources: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[PalRun, dict[str, Any]]:
    torch.set_num_threads(1)
    pal_run = PalRun(recipe(sources), tmp_path_factory.mktemp("runs") / "adapted", reporter=SilentReporter())
    return pal_run, pal_run.run()
