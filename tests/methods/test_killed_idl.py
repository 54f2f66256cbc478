"""A run of IDL that is killed goes on to the same files; what all runs share is killed in test_killed_runs."""

from pathlib import Path

import pytest
from tests.methods.dying import KILLED, Death, contents, run_apart, warm_up
from tests.methods.made_runs import SMALL_IDL

RUN = "personalign.methods.idl_run"
PLACES = {
    "triples": Death(f"{RUN}:write_jsonl", nth=1, when="before"),
    "a step of DPOC": Death("personalign.training.step:dpoc", nth=2, when="after"),
    "decoding": Death(f"{RUN}:respond", nth=3, when="after"),
    "attention": Death(f"{RUN}:picture", nth=1, when="after"),
    "tested turns": Death(f"{RUN}:write_dialogues", nth=1, when="after"),
    "results": Death(f"{RUN}:idl_card", nth=1, when="before"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """What a run leaves that nothing stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    warm_up()
    assert run_apart(SMALL_IDL, folder, recipe="idl-quickstart") == 0
    return contents(folder)


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_a_place(whole: dict[str, str], place: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run_apart(SMALL_IDL, folder, recipe="idl-quickstart", death=PLACES[place]) == KILLED
    assert run_apart(SMALL_IDL, folder, recipe="idl-quickstart", resume=True) == 0
    assert contents(folder) == whole
