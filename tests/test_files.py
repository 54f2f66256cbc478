"""Files and folders are whole or absent, whatever happens while they are written."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from personalign._files import (
    atomic_path,
    check_regular,
    read_json,
    read_jsonl,
    read_whole_lines,
    remove_folder,
    remove_unfinished,
    whole_folder,
    write_json,
    write_jsonl,
    write_text,
)
from personalign.errors import PersonalignError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "new" / "file.txt") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "new" / "file.txt").exists()
    assert (tmp_path / "new" / "file.txt").read_text() == "whole"
    assert names(tmp_path / "new") == ["file.txt"]


def test_what_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    write_text(path, "old")

    def rows() -> object:
        yield {"a": 1}
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_jsonl(path, rows())  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file.txt"]


def test_others_may_read_what_is_written(tmp_path: Path) -> None:
    plain = tmp_path / "plain.txt"
    plain.write_text("as anybody writes it")
    write_text(tmp_path / "ours.txt", "text")
    assert stat.S_IMODE((tmp_path / "ours.txt").stat().st_mode) == stat.S_IMODE(plain.stat().st_mode)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz"])
def test_rows_come_back(tmp_path: Path, name: str) -> None:
    import gzip

    assert write_jsonl(tmp_path / name, [{"a": "größe"}, [1]]) == 2
    data = (tmp_path / name).read_bytes()
    text = (gzip.decompress(data) if name.endswith(".gz") else data).decode("utf-8")
    assert [json.loads(line) for line in text.splitlines()] == [{"a": "größe"}, [1]]
    assert "größe" in text


def test_a_folder_is_whole_or_absent(tmp_path: Path) -> None:
    def fail() -> None:
        with whole_folder(tmp_path / "out") as part:
            (part / "file").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == []
    with whole_folder(tmp_path / "out") as part:
        (part / "file").write_text("whole")
    assert (tmp_path / "out" / "file").read_text() == "whole"
    with pytest.raises(PersonalignError, match="exists already"), whole_folder(tmp_path / "out"):
        pass
    assert names(tmp_path / "out") == ["file"]


def test_a_folder_that_may_be_replaced_is_so_at_the_end(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    for number in ("1", "2"):
        with whole_folder(folder, replace=True) as part:
            assert names(part) == []
            (part / number).write_text(number)
            assert not (folder / number).exists()
    assert names(folder) == ["2"]

    def fail() -> None:
        with whole_folder(folder, replace=True) as part:
            (part / "3").write_text("3")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(folder) == ["2"]
    assert names(tmp_path) == ["model"]


def test_replacing_does_away_with_what_a_kill_left(tmp_path: Path) -> None:
    left = tmp_path / ".model.abc.part"
    left.mkdir()
    (left / "half").write_text("")
    with whole_folder(tmp_path / "model", replace=True) as part:
        (part / "whole").write_text("")
    assert names(tmp_path) == ["model"]
    assert names(tmp_path / "model") == ["whole"]


def test_rows_hold_signs_that_end_lines_elsewhere(tmp_path: Path) -> None:
    rows = [{"text": "a\u2028b\x85c"}, {"text": "d"}]
    write_jsonl(tmp_path / "rows.jsonl", rows)
    with open(tmp_path / "rows.jsonl", "a", encoding="utf-8") as stream:
        stream.write('{"text": "to')
    assert list(read_whole_lines(tmp_path / "rows.jsonl")) == rows


def test_a_folder_goes_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that dies while it removes one leaves no half of it under its name."""
    folder = tmp_path / "checkpoint-4"
    folder.mkdir()
    for name in ("complete.json", "model.safetensors"):
        (folder / name).write_text("{}")

    def dies_on_the_way(gone: Path, **_: object) -> None:
        next(gone.rglob("model.safetensors")).unlink()
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", dies_on_the_way)
        with pytest.raises(KeyboardInterrupt):
            remove_folder(folder)
    assert not folder.exists()
    assert list(tmp_path.rglob("complete.json"))
    remove_unfinished(tmp_path)
    assert not list(tmp_path.iterdir())
    remove_folder(folder)


@pytest.mark.parametrize("text", ["", '{"a": 1', "\x00\x00"])
def test_a_file_that_was_cut_off_is_named_with_what_to_do(tmp_path: Path, text: str) -> None:
    path = tmp_path / "steps.json"
    path.write_text(text)
    with pytest.raises(PersonalignError, match=r"steps\.json is damaged \(.*\); remove it"):
        read_json(path, advice="remove it")
    path.write_text(f'{{"a": 1}}\n{text}\n')
    with pytest.raises(PersonalignError, match=r"steps\.json, line 2, is damaged \(.*\); remove it"):
        read_jsonl(path, advice="remove it")


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    real, link, broken = tmp_path / "real" / "file.txt", tmp_path / "link.txt", tmp_path / "broken.txt"
    real.write_text("old")
    link.symlink_to(Path("real") / "file.txt")
    broken.symlink_to(tmp_path / "real" / "new.txt")
    write_text(link, "new")
    write_text(broken, "made")
    assert link.is_symlink()
    assert broken.is_symlink()
    assert (real.read_text(), (tmp_path / "real" / "new.txt").read_text()) == ("new", "made")
    assert names(tmp_path) == ["broken.txt", "link.txt", "real"]
    assert names(tmp_path / "real") == ["file.txt", "new.txt"]


def test_pipes_and_devices_are_not_replaced(tmp_path: Path) -> None:
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to(pipe)
    for path in (pipe, link):
        with pytest.raises(PersonalignError, match=f"{path}: a device or a pipe"):
            write_text(path, "text")
    assert stat.S_ISFIFO(pipe.lstat().st_mode)
    assert link.is_symlink()
    assert names(tmp_path) == ["link", "pipe"]
    # Asked and not written: a mistake here would take them from the whole machine.
    for name in ("/dev/null", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        with pytest.raises(PersonalignError, match=f"{name}: a device or a pipe"):
            check_regular(name)
    for path in (tmp_path, tmp_path / "new", Path("/dev/shm/no-such-file")):
        check_regular(path)
