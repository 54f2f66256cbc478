"""Steps of a run: each leaves a marker when it is done, and is done again only when what decides it changed."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

from filelock import FileLock, Timeout

from personalign._files import read_json, remove_folder, remove_unfinished, write_json, write_text
from personalign._ranks import ALONE, Ranks
from personalign.errors import PersonalignError

PLAN = "plan.json"
_MOST_CHANGES_NAMED = 6
_LONGEST_VALUE = 40
_NOT_SET: Any = object()

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
    """`changes` names the settings of a changed step that differ from those it was done with."""

    step: Step
    fingerprint: str
    state: State
    changes: tuple[str, ...] = ()


def steps_of(advance: Advance) -> Callable[..., None]:
    """Turn calls with what is done by then, and whatever else, into advances."""
    seen = 0

    def progress(done: int, *_: Any) -> None:
        nonlocal seen
        advance(done - seen)
        seen = done

    return progress


def plan(steps: Sequence[Step], folder: Path) -> list[Planned]:
    """What each step would do in `folder`, in order; a step's fingerprint covers the steps that it builds on."""
    fingerprints: dict[str, str] = {}
    planned = []
    for step in steps:
        above = [fingerprints[name] for name in step.after]
        text = json.dumps([step.name, step.settings, above], sort_keys=True, default=str)
        fingerprints[step.name] = hashlib.sha256(text.encode()).hexdigest()
        record = read_record(folder, step.name)
        state: State = "new"
        changes: tuple[str, ...] = ()
        if record is not None and record["fingerprint"] == fingerprints[step.name]:
            state = "done"
        elif record is not None:
            changes = tuple(_changes(record["settings"], _plain(step.settings)))
            state = "changed" if changes else "after a changed step"
        planned.append(Planned(step, fingerprints[step.name], state, changes))
    return planned


def write_plan(folder: Path, planned: Sequence[Planned]) -> None:
    """What the folder's recipe asks for; until every step is done, the folder also holds what another recipe made."""
    write_json(folder / PLAN, {item.step.name: item.fingerprint for item in planned})


def undone(folder: Path) -> list[str]:
    """The steps of the folder's plan that are not done, or were done as another recipe asked; in order."""
    if not (folder / PLAN).is_file():
        return []
    asked: dict[str, str] = read_json(
        folder / PLAN, advice="remove it and give the command again: no work is lost"
    )
    records = {name: read_record(folder, name) for name in asked}
    return [
        name
        for name, fingerprint in asked.items()
        if (record := records[name]) is None or record["fingerprint"] != fingerprint
    ]


def run_steps(
    steps: Sequence[Step], folder: Path, *, reporter: Reporter, ranks: Ranks = ALONE
) -> dict[str, dict[str, Any]]:
    """Do what is not done, in order; return every record, by step.

    Of several processes each does every step's work, and the first keeps the records.
    """
    records: dict[str, dict[str, Any]] = {}
    planned = plan(steps, folder)
    ranks.wait()
    for item in planned:
        if item.state == "done":
            record = read_record(folder, item.step.name)
            assert record is not None
            records[item.step.name] = record["record"]
        else:
            if item.state != "new":
                reporter.say(f"{item.step.title}: done again, {_why(item)}")
            if ranks.main:
                _marker(folder, item.step.name).unlink(missing_ok=True)
            start = time.monotonic()
            result = item.step.work()
            result["seconds"] = round(time.monotonic() - start, 2)
            # A step is done when all processes have done it.
            ranks.wait()
            if ranks.main:
                write_json(
                    _marker(folder, item.step.name),
                    {
                        "fingerprint": item.fingerprint,
                        "settings": _plain(item.step.settings),
                        "record": result,
                    },
                )
            records[item.step.name] = result
        if ranks.main:
            # Not before the step counts as done: a kill in between would begin it anew. One after that leaves them.
            with suppress(OSError):
                remove_folder(unfinished(folder, item.step.name))
    return records


def read_record(folder: Path, name: str) -> dict[str, Any] | None:
    try:
        value: dict[str, Any] = read_json(
            _marker(folder, name), advice="remove it, and the step is done again"
        )
    except FileNotFoundError:
        # Not looked for first: another process may remove it in between.
        return None
    return value


def step_again(folder: Path, name: str) -> str:
    """What to do where a file that the step made is damaged."""
    return f"remove {_marker(folder, name)} and give the command again, which then does that step again"


@contextmanager
def alone_in(folder: Path, *, ranks: Ranks = ALONE) -> Iterator[None]:
    """Two runs in one folder would write over each other; the second is refused. What a killed one left is removed.

    The first process of several holds the lock for all.
    """
    if not ranks.main:
        yield
        return
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise PersonalignError(
            f"another process is running in {folder}; wait for it, or name another folder with --out"
        ) from None
    try:
        remove_unfinished(folder)
        yield
    finally:
        lock.release()


def checkpoint_folder(
    folder: Path,
    stage: str,
    fingerprint: str,
    *,
    resume: bool,
    say: Callable[[str], None],
    ranks: Ranks = ALONE,
) -> Path:
    """The folder of a stage's checkpoints, emptied unless it is to be resumed and this very recipe made them."""
    folder = unfinished(folder, stage)
    ranks.from_main(partial(_prepare_checkpoints, folder, stage, fingerprint, resume=resume, say=say))
    return folder


def _prepare_checkpoints(
    folder: Path, stage: str, fingerprint: str, *, resume: bool, say: Callable[[str], None]
) -> None:
    marker = folder / "fingerprint"
    made_by_this = marker.is_file() and marker.read_text(encoding="utf-8") == fingerprint
    if resume and made_by_this:
        return
    if made_by_this and any(folder.glob("checkpoint-*")):
        raise PersonalignError(
            f"{stage} was stopped before and {folder} holds where; add --resume to go on from there, or remove that "
            "folder to begin anew"
        )
    if resume and folder.exists():
        say(f"{stage}: begins anew, its checkpoint comes from another recipe")
    remove_folder(folder)
    write_text(marker, fingerprint)


def unfinished(folder: Path, name: str) -> Path:
    """The folder for what a step needs of itself to go on after an interruption; it goes when the step is done."""
    return folder / "checkpoints" / _file_name(name)


def _marker(folder: Path, name: str) -> Path:
    return folder / "steps" / f"{_file_name(name)}.json"


def _file_name(step: str) -> str:
    return step.replace(":", "-")


def _why(item: Planned) -> str:
    if item.state != "changed":
        return "a step before it changed"
    named = ", ".join(item.changes[:_MOST_CHANGES_NAMED])
    more = len(item.changes) - _MOST_CHANGES_NAMED
    return f"its settings changed: {named}" + (f" and {more} more" if more > 0 else "")


def _changes(before: Any, after: Any, place: str = "") -> Iterator[str]:
    """`key.key: old -> new` for every value that differs."""
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            where = f"{place}.{key}" if place else str(key)
            yield from _changes(before.get(key, _NOT_SET), after.get(key, _NOT_SET), where)
    elif before != after:
        old, new = _short(*(_written(value) for value in (before, after)))
        yield f"{place}: {old} -> {new}"


def _written(value: Any) -> str:
    return "not set" if value is _NOT_SET else json.dumps(value, ensure_ascii=False)


def _short(*texts: str) -> list[str]:
    """Long texts cut to where they begin to differ."""
    if all(len(text) <= _LONGEST_VALUE for text in texts):
        return list(texts)
    alike = next((at for at, signs in enumerate(zip(*texts, strict=False)) if len(set(signs)) > 1), 0)
    first = max(0, alike - _LONGEST_VALUE // 4)
    last = first + _LONGEST_VALUE
    return [
        ("..." if first else "") + text[first:last] + ("..." if len(text) > last else "") for text in texts
    ]


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value, sort_keys=True, default=str))
