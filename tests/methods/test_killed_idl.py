"""A run of IDL that is killed goes on to the same files; what all runs share is killed in test_killed_runs."""

from pathlib import Path

import pytest
from tests.methods.dying import KILLED, Death, contents, run_apart, warm_up

SMALL = [
    "data.synthetic={train: 4, align: 4, test: 2, sessions: 6, exchanges: 2}",
    "backbone={scratch: {shape: llama, width: 16, layers: 1, heads: 2}, dtype: float32}",
    "prompts={max_tokens: 300, reserve: 20}",
    *(f"stages.{stage}.steps=3" for stage in ("finetuning", "gold", "stage1", "stage2")),
    *(f"stages.{stage}.save_every=1" for stage in ("finetuning", "gold", "stage1", "stage2")),
    "stages.stage2.batch_examples=4",
    "decoding.max_new_tokens=4",
    "compared={sessions: [1], out_of_cluster: true, attention: 2}",
    "evaluation.bootstrap=10",
]
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
    assert run_apart(SMALL, folder, recipe="idl-quickstart") == 0
    return contents(folder)


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_a_place(whole: dict[str, str], place: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run_apart(SMALL, folder, recipe="idl-quickstart", death=PLACES[place]) == KILLED
    assert run_apart(SMALL, folder, recipe="idl-quickstart", resume=True) == 0
    assert contents(folder) == whole
