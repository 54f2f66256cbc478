"""Steps of a run: each leaves a marker when it is done, and is done again only when what decides it changed."""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from personalign._files import write_json

Advance = Callable[[int], None]
State = Literal["done", "new", "changed", "after a changed step"]


class Reporter(Protocol):
    """How a run tells what it does: remarks, and tasks with a known size."""

    def say(self, text: str) -> None: ...

    def task(self, description: str, total: int) -> AbstractContextManager[Advance]: ...


class Interrupted(Exception):  # noqa: N818  (what happened, not an error)
    """Ctrl-C between steps of training: everything is kept, `--resume` goes on."""


@dataclass(frozen=True, slots=True)
class Step:
    """`settings` is everything of the recipe that decides the result; `work` returns the record that is kept."""

    name: str
    title: str
    after: tuple[str, ...]
    settings: Mapping[str, Any]
    work: Callable[[], dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Planned:
    step: Step
    fingerprint: str
    state: State


def plan(steps: Sequence[Step], folder: Path) -> list[Planned]:
    """What each step would do in `folder`, in order; a step's fingerprint covers the steps that it builds on."""
    fingerprints: dict[str, str] = {}
    states: dict[str, State] = {}
    planned = []
    for step in steps:
        above = [fingerprints[name] for name in step.after]
        text = json.dumps([step.name, step.settings, above], sort_keys=True, default=str)
        fingerprints[step.name] = hashlib.sha256(text.encode()).hexdigest()
        record = read_record(folder, step.name)
        state: State = "new"
        if record is not None and record["fingerprint"] == fingerprints[step.name]:
            state = "done"
        elif record is not None:
            redone = any(states[name] != "done" for name in step.after)
            state = (
                "after a changed step"
                if redone and record["settings"] == _plain(step.settings)
                else "changed"
            )
        states[step.name] = state
        planned.append(Planned(step, fingerprints[step.name], state))
    return planned


def run_steps(steps: Sequence[Step], folder: Path, *, reporter: Reporter) -> dict[str, dict[str, Any]]:
    """Do what is not done, in order; return every record, by step."""
    records: dict[str, dict[str, Any]] = {}
    for item in plan(steps, folder):
        if item.state == "done":
            record = read_record(folder, item.step.name)
            assert record is not None
            records[item.step.name] = record["record"]
        else:
            if item.state != "new":
                reporter.say(f"{item.step.title}: done again, {_why(item.state)}")
            _marker(folder, item.step.name).unlink(missing_ok=True)
            start = time.monotonic()
            result = item.step.work()
            result["seconds"] = round(time.monotonic() - start, 2)
            write_json(
                _marker(folder, item.step.name),
                {"fingerprint": item.fingerprint, "settings": _plain(item.step.settings), "record": result},
            )
            records[item.step.name] = result
    return records


def read_record(folder: Path, name: str) -> dict[str, Any] | None:
    marker = _marker(folder, name)
    if not marker.is_file():
        return None
    value: dict[str, Any] = json.loads(marker.read_text(encoding="utf-8"))
    return value


def _marker(folder: Path, name: str) -> Path:
    return folder / "steps" / f"{name.replace(':', '-')}.json"


def _why(state: State) -> str:
    return "its settings changed" if state == "changed" else "a step before it changed"


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True, default=str))
