import os

# Before anything imports huggingface_hub, which reads it once: no test may reach for the network.
os.environ["HF_HUB_OFFLINE"] = "1"

import random
import sys
from pathlib import Path

import pytest
from hypothesis import settings

# A busy machine is no failure.
settings.register_profile("personalign", deadline=None)
settings.load_profile("personalign")

SEED = 20250


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu"):
        import torch

        if not torch.cuda.is_available():
            pytest.skip("needs a CUDA device, and torch sees none here")


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """Seed what is already imported, so that the tests of light modules stay free of torch."""
    random.seed(SEED)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(SEED)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(SEED)
        sys.modules["torch"].set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_verdicts(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Verdicts of judges that tests make are no user's."""
    os.environ["PERSONALIGN_CACHE"] = str(tmp_path_factory.mktemp("verdicts"))


@pytest.fixture(scope="session")
def personalign_data() -> Path:
    """The folder of real dialogue files."""
    folder = os.environ.get("PERSONALIGN_DATA")
    if not folder:
        pytest.skip("PERSONALIGN_DATA is unset; set it to the folder of the real dialogue files")
    path = Path(folder)
    if not path.is_dir():
        pytest.fail(f"PERSONALIGN_DATA is {folder!r}, which is not a folder")
    return path
