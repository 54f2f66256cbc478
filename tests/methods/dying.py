"""Runs in processes of their own that are killed (SIGKILL) where or when a test says."""

import functools
import importlib
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

from personalign.methods.run import PalRun
from personalign.methods.shipped import load_recipe


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
    resume: bool = False,
    death: Death | None = None,
    seconds: float | None = None,
) -> int:
    """Run the quickstart, so changed, in a process; its exit status, negative where a signal ended it.

    `death` kills it at a place of the code, `seconds` after that time.
    """
    process = _context().Process(target=_run, args=(tuple(assignments), folder, resume, death))
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


def _run(assignments: tuple[str, ...], folder: Path, resume: bool, death: Death | None) -> None:
    torch.set_num_threads(1)
    if death is not None:
        _plant(death)
    recipe = load_recipe("quickstart-scratch", assignments)
    PalRun(recipe, folder, reporter=SilentReporter(), resume=resume).run()


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
