"""What a stage does between two steps: write its journal, tell its progress, evaluate, stop on Ctrl-C."""

import json
import math
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from personalign._files import (
    disk_errors,
    read_json,
    read_whole_lines,
    remove_folder,
    write_json,
    write_jsonl,
)
from personalign._ranks import ALONE, Ranks
from personalign.errors import PersonalignError
from personalign.training.step import StageSettings, mean_losses
from personalign.training.weights import save_weights

COMPLETE = "complete.json"
EVALUATIONS = "evaluations.json"
# Two: where the newest turns out to be damaged, its predecessor is left.
_CHECKPOINTS_KEPT = 2
_CHECKPOINT = re.compile(r"checkpoint-([0-9]+)")
Progress = Callable[[int, int, dict[str, float]], None]


@dataclass(frozen=True, slots=True)
class Validated:
    """A score of the model, higher is better, and what else of it is worth a line of the journal."""

    score: float
    beside: Mapping[str, float] = field(default_factory=dict)


Validate = Callable[[nn.Module], Validated]


@dataclass(slots=True)
class Totals:
    """Sums over the steps since the last log line."""

    values: dict[str, float] = field(default_factory=dict)
    steps: int = 0

    def add(self, values: dict[str, float]) -> None:
        for name, value in values.items():
            self.values[name] = self.values.get(name, 0.0) + value
        self.steps += 1

    def means(self) -> dict[str, float]:
        return {name: value / max(1, self.steps) for name, value in self.values.items()}

    def drain(self) -> dict[str, float]:
        means = self.means()
        self.values, self.steps = {}, 0
        return means


@dataclass(frozen=True, slots=True)
class Marker:
    """What is written into a checkpoint last: one without it is not whole.

    `sums` and `steps` are of what was not yet written to the journal; `best_step` is that of the best evaluation by then;
    `files` are the others there, with their bytes.
    """

    step: int
    seconds: float
    sums: dict[str, float]
    steps: int
    best_step: int | None
    files: dict[str, int]


def checkpoints_of(folder: Path) -> list[tuple[int, Path]]:
    """Step and place of every checkpoint in a stage's folder, whole or not, the newest first."""
    matches = ((_CHECKPOINT.fullmatch(path.name), path) for path in folder.glob("checkpoint-*"))
    return sorted(((int(match[1]), path) for match, path in matches if match), reverse=True)


def _sizes(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}


def read_marker(checkpoint: Path, *, check: bool = True) -> Marker | None:
    """Raises PersonalignError where a file was damaged after the checkpoint had been complete, unless `check` is off."""
    advice = f"remove {checkpoint}, and --resume goes on from the checkpoint before it, or else begins the stage anew"
    try:
        marker = Marker(**json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError):
        raise PersonalignError(f"{checkpoint / COMPLETE} is damaged; {advice}") from None
    for name, size in marker.files.items() if check else ():
        path = checkpoint / name
        found = path.stat().st_size if path.is_file() else None
        if found != size:
            state = "is missing" if found is None else f"has {found} bytes of {size}"
            raise PersonalignError(f"{path} {state}: the checkpoint is damaged; {advice}")
    return marker


class Journal(TrainerCallback):  # type: ignore[misc]
    """Writes metrics.jsonl, tells the progress, stops on Ctrl-C between steps, and evaluates.

    Under `folder` it keeps the evaluations, the weights of the best one, and in each checkpoint a marker of completion.
    """

    def __init__(
        self,
        *,
        settings: StageSettings,
        totals: Totals,
        folder: Path,
        journal: Path | None,
        stage: str,
        progress: Progress | None,
        validate: Validate | None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.interrupted = False
        self._ranks = ranks
        self.best_step: int | None = None
        self.history: list[dict[str, float]] = []
        self._best_value = -math.inf
        self._worse = 0
        self._settings = settings
        self._totals = totals
        self._folder = folder
        self._journal = journal
        self._stage = stage
        self._progress = progress
        self._validate = validate if settings.evaluate_every else None
        self._evaluations: list[tuple[int, float]] = []
        self._start = time.monotonic()

    def begin(self, checkpoint: Path | None, *, step: int) -> None:
        """Take up the stage after `step`, 0 for the first: what lies behind it is forgotten."""
        if checkpoint is not None:
            done = read_marker(checkpoint)
            assert done is not None
            self._start -= done.seconds
            self._totals.values, self._totals.steps = done.sums, done.steps
            for at, value in _read(self._folder / EVALUATIONS, otherwise=[]):
                if at <= step:
                    self._judge(at, value)
        if self._ranks.main and self._journal is not None and self._journal.is_file():
            kept = [
                row
                for row in read_whole_lines(self._journal)
                if row["stage"] != self._stage or row["step"] <= step
            ]
            write_jsonl(self._journal, kept)

    @property
    def out_of_patience(self) -> bool:
        return self._settings.patience is not None and self._worse >= self._settings.patience

    @property
    def best_weights(self) -> Path | None:
        return self._weights_of(self.best_step)

    @property
    def seconds(self) -> float:
        """Since the stage began, without the pauses between its processes."""
        return time.monotonic() - self._start

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        model: nn.Module = kwargs["model"]
        step = state.global_step
        if self._progress is not None:
            self._progress(step, state.max_steps, mean_losses(self._totals.means()))
        if step % self._settings.log_every == 0 or step == state.max_steps:
            self._write({"step": step, **mean_losses(self._totals.drain())})
        every = self._settings.evaluate_every
        # The last step, too: else what came after the evaluation before it could never be kept.
        if self._validate is not None and every and (step % every == 0 or step == state.max_steps):
            self._evaluate(model, step, self._validate)
            if self.out_of_patience:
                control.should_training_stop = True
        # Ctrl-C may reach the processes between different steps.
        self.interrupted = self._ranks.any(self.interrupted)
        if self.interrupted:
            control.should_training_stop = True
            control.should_save = True
        return control

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        # Each process has left the states of its random numbers there.
        self._ranks.wait()
        if self._ranks.main:
            self._mark(self._folder / f"checkpoint-{state.global_step}", state.global_step)
            # Not before: a kill must find one that is whole.
            for _, older in checkpoints_of(self._folder)[_CHECKPOINTS_KEPT:]:
                remove_folder(older)
        self._ranks.wait()
        return control

    def _mark(self, checkpoint: Path, step: int) -> None:
        marker = Marker(
            step,
            self.seconds,
            self._totals.values,
            self._totals.steps,
            self.best_step,
            _sizes(checkpoint),
        )
        write_json(checkpoint / COMPLETE, asdict(marker))

    def _evaluate(self, model: nn.Module, step: int, validate: Validate) -> None:
        model.eval()
        # Whatever a process's own hardware rounds, all go by one score: they stop together, with the same best weights.
        found = self._ranks.agreed(validate(model))
        model.train()
        self._write({"step": step, "validation": found.score, **found.beside})
        before = self.best_weights
        better = self._judge(step, found.score)
        if self._ranks.main:
            self._keep(model, before, better=better)
        self._ranks.wait()

    def _keep(self, model: nn.Module, before: Path | None, *, better: bool) -> None:
        """The evaluations so far, and the weights of the best."""
        if better:
            assert self.best_weights is not None
            save_weights(model, self.best_weights)
        write_json(self._folder / EVALUATIONS, self._evaluations)
        # A kill may put the stage back to a checkpoint before this step, for which an earlier best still counts.
        kept = {before, self.best_weights}
        for _, checkpoint in checkpoints_of(self._folder):
            # One of them may be damaged and of no use any more, which is no reason to stop.
            marker = read_marker(checkpoint, check=False)
            kept.add(None if marker is None else self._weights_of(marker.best_step))
        for path in self._folder.glob("best-*.safetensors"):
            if path not in kept:
                path.unlink()

    def _weights_of(self, step: int | None) -> Path | None:
        return None if step is None else self._folder / f"best-{step}.safetensors"

    def _judge(self, step: int, value: float) -> bool:
        """Whether the evaluation is the best so far; the only place that changes the state of early stopping."""
        self._evaluations.append((step, value))
        better = value > self._best_value
        if better:
            self._best_value, self._worse, self.best_step = value, 0, step
        else:
            self._worse += 1
        return better

    def _write(self, row: dict[str, float]) -> None:
        self.history.append(row)
        if self._ranks.main and self._journal is not None:
            with disk_errors(self._journal), open(self._journal, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({"stage": self._stage, **row}) + "\n")


def _read(path: Path, *, otherwise: Any) -> Any:
    if not path.is_file():
        return otherwise
    return read_json(path, advice=f"remove {path.parent} and give the command again: the stage begins anew")


class between_steps:  # noqa: N801  (reads as a phrase: `with between_steps(callback)`)
    """Turn Ctrl-C into a request to stop after the step in hand; a second Ctrl-C stops at once."""

    def __init__(self, callback: Journal) -> None:
        self._callback = callback
        self._previous: Any = None

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._request)

    def _request(self, number: int, frame: Any) -> None:
        if self._callback.interrupted:
            raise KeyboardInterrupt
        self._callback.interrupted = True

    def __exit__(self, *error: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
