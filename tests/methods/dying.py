"""Runs in processes of their own that are killed (SIGKILL) where or when a test says."""

import functools
import hashlib
import importlib
import json
import multiprocessing
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any, Literal

import torch
from tests.methods.made_runs import SilentReporter

from personalign.methods.runs import make_run
from personalign.methods.shipped import load_run_recipe

KILLED = -9


@dataclass(frozen=True, slots=True)
class Death:
    """At the `nth` call, from 1, of `module:name` or `module:class.name`, before or after what it does."""

    place: str
    nth: int = 1
    when: Literal["before", "after"] = "before"


def run_apart(
    assignments: Sequence[str],
    folder: Path,
    *,
    recipe: str = "quickstart-scratch",
    resume: bool = False,
    death: Death | None = None,
    seconds: float | None = None,
) -> int:
    """Run a shipped recipe, so changed, in a process; its exit status, negative where a signal ended it.

    `death` kills it at a place of the code, `seconds` after that time.
    """
    process = _context().Process(target=_run, args=(recipe, tuple(assignments), folder, resume, death))
    process.start()
    process.join(seconds)
    if process.is_alive():
        process.kill()
        process.join()
    assert process.exitcode is not None
    return process.exitcode


def warm_up() -> None:
    """Wait until the process that others are forked from has imported everything."""
    process = _context().Process(target=_nothing)
    process.start()
    process.join()


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, "transformers.trainer", "peft"])
    return context


def _nothing() -> None:
    pass


def _run(name: str, assignments: tuple[str, ...], folder: Path, resume: bool, death: Death | None) -> None:
    torch.set_num_threads(1)
    if death is not None:
        _plant(death)
    recipe = load_run_recipe(name, assignments)
    make_run(recipe, folder, reporter=SilentReporter(), resume=resume).run()


def _plant(death: Death) -> None:
    module, _, path = death.place.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    real = getattr(owner, name)
    calls = 0

    @functools.wraps(real)
    def deadly(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == death.nth and death.when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments, **named)
        if calls == death.nth:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def contents(folder: Path) -> dict[str, str]:
    """Every file that a run leaves; of what holds times, places or the order of a set, the rest."""
    left = {}
    for path in sorted(item for item in folder.rglob("*") if item.is_file() and item.name != ".lock"):
        data = path.read_bytes().replace(bytes(folder), b"RUN")
        if path.parent.name == "steps":
            data = json.dumps(_without_times(json.loads(data)), sort_keys=True).encode()
        elif path.name == "adapter_config.json":
            values = json.loads(data)
            data = json.dumps(values | {"target_modules": sorted(values["target_modules"])}).encode()
        left[str(path.relative_to(folder))] = hashlib.sha256(data).hexdigest()
    return left


def _without_times(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_times(item) for key, item in value.items() if not key.endswith("seconds")}
    return value
