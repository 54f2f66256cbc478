"""A run that is killed (SIGKILL) at any moment and taken up again ends as one that nothing stopped, bit for bit."""

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.methods.dying import KILLED, Death, contents, run_apart, warm_up
from tests.methods.made_runs import shrunken

SAVING = {
    "stages__finetuning__save_every": 1,
    "stages__stage1__save_every": 1,
    "stages__stage2__save_every": 1,
    "stages__stage2__patience": 3,
    "stages__stage2__evaluate_every": 1,
}
KINDS = {"full": shrunken(**SAVING), "lora": shrunken(**SAVING, backbone__lora__r=2)}

TRAINER = "personalign.training.trainer:TreeTrainer"
PLACES = {
    "a checkpoint's weights": Death(f"{TRAINER}.save_model", nth=3, when="after"),
    "a checkpoint's optimizer": Death(f"{TRAINER}._save_optimizer_and_scheduler", nth=4, when="before"),
    "a checkpoint's random states": Death(f"{TRAINER}._save_rng_state", nth=5, when="before"),
    "a checkpoint's state": Death(
        "transformers.trainer_callback:TrainerState.save_to_json", nth=2, when="after"
    ),
    "an old checkpoint's removal": Death("personalign.training.journal:remove_folder", nth=2, when="before"),
    "a checkpoint's marker": Death("personalign.training.journal:Journal.on_save", nth=8, when="after"),
    "a step of stage 1": Death("personalign.training.trainer:step_loss", nth=5, when="before"),
    "rejected replies": Death("personalign.methods.run:without_persona", nth=1, when="after"),
    "the reference": Death("personalign.methods.pal:with_reference", nth=1, when="after"),
    "held-out pairs": Death("personalign.methods.pal:measure_pairs", nth=1, when="before"),
    "a step of DPO": Death("personalign.training.step:dpo", nth=3, when="after"),
    "an evaluation": Death("personalign.training.journal:Journal._evaluate", nth=2, when="before"),
    "the best weights": Death("personalign.training.journal:save_weights", nth=1, when="after"),
    "a finished stage": Death("personalign.methods.models:ModelStore.save", nth=2, when="before"),
    "a stage's checkpoints": Death("personalign.methods.steps:remove_folder", nth=3, when="before"),
    "the rest of one": Death("shutil:rmtree", nth=9, when="before"),
    "decoding": Death("personalign.methods.run:predict", nth=3, when="after"),
    "results": Death("personalign.methods.run:results_table", nth=1, when="before"),
    "publishing": Death("personalign.methods.models:ModelStore.publish", nth=1, when="after"),
}


@dataclass(frozen=True, slots=True)
class Whole:
    """A run that nothing stopped: what it was given, what it left, and the seconds that it took."""

    assignments: list[str]
    left: dict[str, str]
    seconds: float


@pytest.fixture(scope="module", params=list(KINDS))
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole") / "run"
    assignments = KINDS[request.param]
    warm_up()
    start = time.monotonic()
    assert run_apart(assignments, folder) == 0
    return Whole(assignments, contents(folder), time.monotonic() - start)


@pytest.mark.parametrize("place", PLACES)
def test_killed_at_a_place(whole: Whole, place: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run_apart(whole.assignments, folder, death=PLACES[place]) == KILLED
    assert run_apart(whole.assignments, folder, resume=True) == 0
    assert contents(folder) == whole.left


@pytest.mark.parametrize("share", [0.2, 0.45, 0.7])
def test_killed_at_a_moment(whole: Whole, share: float, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    # Twice; on a machine that has become quicker it may have ended before.
    assert run_apart(whole.assignments, folder, seconds=share * whole.seconds) in (KILLED, 0)
    assert run_apart(whole.assignments, folder, resume=True, seconds=share * whole.seconds) in (KILLED, 0)
    assert run_apart(whole.assignments, folder, resume=True) == 0
    assert contents(folder) == whole.left
