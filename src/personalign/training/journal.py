"""What a stage does between two steps: write its journal, tell its progress, evaluate, stop on Ctrl-C."""

import json
import math
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from personalign._files import write_json
from personalign.training.step import StageSettings, mean_losses
from personalign.training.weights import save_weights

Progress = Callable[[int, int, dict[str, float]], None]


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


class Journal(TrainerCallback):  # type: ignore[misc]
    """Writes metrics.jsonl, tells the progress, stops on Ctrl-C between steps, and evaluates."""

    def __init__(
        self,
        *,
        settings: StageSettings,
        totals: Totals,
        journal: Path | None,
        stage: str,
        progress: Progress | None,
        validate: Callable[[nn.Module], float] | None,
        best: Path | None,
        history: list[dict[str, float]],
    ) -> None:
        self.interrupted = False
        self.best_step: int | None = None
        self._best_value = -math.inf
        self._worse = 0
        self._settings = settings
        self._totals = totals
        self._journal = journal
        self._stage = stage
        self._progress = progress
        self._validate = validate
        self._best = best
        self._history = history
        self._evaluations: list[tuple[int, float]] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        if self._best is not None and state.global_step:
            for step, value in _read_evaluations(self._best):
                if step <= state.global_step:
                    self._judge(step, value)
        return control

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        model: nn.Module = kwargs["model"]
        latest = self._totals.means()
        if self._progress is not None:
            self._progress(state.global_step, state.max_steps, mean_losses(latest))
        if state.global_step % self._settings.log_every == 0 or state.global_step == state.max_steps:
            self._write({"step": state.global_step, **mean_losses(self._totals.drain())})
        every = self._settings.evaluate_every
        if self._validate is not None and every and state.global_step % every == 0:
            self._evaluate(model, state, control)
        if self.interrupted:
            control.should_training_stop = True
            control.should_save = True
        return control

    def _evaluate(self, model: nn.Module, state: TrainerState, control: TrainerControl) -> None:
        assert self._validate is not None
        model.eval()
        value = self._validate(model)
        model.train()
        self._write({"step": state.global_step, "validation": value})
        better = self._judge(state.global_step, value)
        if self._best is not None:
            if better:
                save_weights(model, self._best)
            write_json(_evaluations_beside(self._best), self._evaluations)
        if self._settings.patience is not None and self._worse >= self._settings.patience:
            control.should_training_stop = True

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
        self._history.append(row)
        if self._journal is not None:
            with open(self._journal, "a", encoding="utf-8") as stream:
                stream.write(json.dumps({"stage": self._stage, **row}) + "\n")


def _evaluations_beside(best: Path) -> Path:
    return best.with_suffix(".json")


def _read_evaluations(best: Path) -> list[tuple[int, float]]:
    """What a stage that is resumed measured before: pairs of step and value."""
    path = _evaluations_beside(best)
    if not path.is_file():
        return []
    return [(step, value) for step, value in json.loads(path.read_text(encoding="utf-8"))]


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
