"""Files that are either whole or absent, and text that may be compressed."""

import contextlib
import errno
import gzip
import io
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

from personalign.errors import PersonalignError


@contextlib.contextmanager
def disk_errors(path: Path | str) -> Iterator[None]:
    """PersonalignError where the block fails for a full disk, of which torch and safetensors tell in their own way."""
    try:
        yield
    except Exception as error:
        if not _is_of_a_full_disk(error):
            raise
        raise PersonalignError(
            f"{path}: no space is left on the disk; make room and give the command again (a run goes on with --resume)"
        ) from error


def _is_of_a_full_disk(error: Exception) -> bool:
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT)
    if isinstance(error, RuntimeError):
        # torch's archive writer, which cannot tell why a write fell short.
        return "inline_container.cc" in str(error)
    return type(error).__name__ == "SafetensorError" and f"os error {errno.ENOSPC}" in str(error)


@contextlib.contextmanager
def atomic_path(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `path`; rename it to `path` when the block succeeds.

    A block that raises, or a process that dies, leaves whatever stood at `path` before. A symbolic link stays one: what
    it points to is replaced. Raises PersonalignError for a device or a pipe, which cannot be replaced.
    """
    check_regular(path)
    # Else the link itself would be replaced, and what it points to stay as it was.
    path = Path(os.path.realpath(path))
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
    temporary = Path(name)
    try:
        with disk_errors(path):
            yield temporary
            # Else a machine that loses power may have the new name and none of the bytes.
            _to_disk(temporary)
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def check_regular(path: Path | str) -> None:
    """PersonalignError for what stands there and is neither a file nor a folder, such as /dev/stdout or a pipe."""
    path = Path(path)
    if _is_special(path):
        raise PersonalignError(
            f"{path}: a device or a pipe, which a whole file cannot take the place of; name a file"
        )


def _is_special(path: Path) -> bool:
    # Of what a process has open, such as /dev/stdout, even a file is none to put another in the place of.
    place = Path(os.path.abspath(path))
    opened = place.parent == Path("/dev") or any(map(place.is_relative_to, ("/dev/fd", "/proc")))
    return path.exists() and not path.is_dir() and (opened or not path.is_file())


def _to_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def whole_folder(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty folder beside `path`; it gets that name when the block succeeds, and goes when it fails.

    `replace` puts it in the place of what stands there. Raises PersonalignError where `path` exists already, is not an
    empty folder, and may not be replaced.
    """
    if not replace and path.exists() and not (path.is_dir() and not any(path.iterdir())):
        raise PersonalignError(f"'{path}' exists already; name a folder that does not")
    path.parent.mkdir(parents=True, exist_ok=True)
    if replace:
        for left in path.parent.glob(f".{path.name}.*.part"):
            shutil.rmtree(left, ignore_errors=True)  # by a process that was killed
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
    try:
        with disk_errors(path):
            yield temporary
        temporary.chmod(0o777 & ~_umask())
        if replace:
            remove_folder(path)
        os.replace(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_folder(folder: Path) -> None:
    """Remove a folder, whole or not at all: a process that dies meanwhile leaves none of its files under its name.

    What a process left half removed goes with the next `remove_unfinished`. No error where there is no such folder.
    """
    if not folder.exists():
        return
    gone = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".part", dir=folder.parent))
    os.replace(folder, gone / folder.name)
    shutil.rmtree(gone, ignore_errors=True)


def remove_unfinished(folder: Path) -> None:
    """What killed processes left in the middle of `atomic_path`, `whole_folder` and `remove_folder`, anywhere in it.

    For whoever alone writes there: a process that still writes would lose its file.
    """
    for left in [*folder.glob("**/.*.part")]:
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_text(path: Path | str, text: str) -> None:
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Numbers that JSON cannot write (NaN, infinities) become null."""
    write_text(path, json.dumps(_finite(value), ensure_ascii=False, indent=2, allow_nan=False) + "\n")


def _finite(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


def read_json(path: Path, *, advice: str) -> Any:
    """What `write_json` wrote; raises PersonalignError with the advice where something cut it off since."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PersonalignError(f"{path} is damaged ({error}); {advice}") from None


def read_jsonl(path: Path, *, advice: str) -> list[Any]:
    """What `write_jsonl` wrote, likewise."""
    rows = []
    with open(path, encoding="utf-8") as stream:
        try:
            for line in stream:
                rows.append(json.loads(line))
        except ValueError as error:
            raise PersonalignError(f"{path}, line {len(rows) + 1}, is damaged ({error}); {advice}") from None
    return rows


def write_jsonl(path: Path | str, rows: Iterable[Any]) -> int:
    """Write one JSON object per line, compressed when the name ends in `.gz`; return the number of rows."""
    count = 0
    with atomic_path(path) as temporary, _open_for_writing(temporary, compressed=_is_gzip(path)) as stream:
        for row in rows:
            stream.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    return count


def read_whole_lines(path: Path) -> Iterator[Any]:
    """The rows of JSON Lines that were appended to, but for one that a full disk or a lost machine cut off."""
    # Not splitlines, which cuts at signs that JSON leaves as they are, such as U+2028.
    for line in path.read_text(encoding="utf-8").split("\n"):
        with contextlib.suppress(json.JSONDecodeError):
            yield json.loads(line)


def _is_gzip(path: Path | str) -> bool:
    return str(path).endswith(".gz")


@contextlib.contextmanager
def _open_for_writing(path: Path, *, compressed: bool) -> Iterator[IO[str]]:
    with contextlib.ExitStack() as opened:
        if not compressed:
            yield opened.enter_context(open(path, "w", encoding="utf-8", newline="\n"))
            return
        # Without a name and a time in its head: equal rows make equal files.
        raw = opened.enter_context(open(path, "wb"))
        packed = opened.enter_context(gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0))
        yield opened.enter_context(io.TextIOWrapper(packed, encoding="utf-8", newline="\n"))
