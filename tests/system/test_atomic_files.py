"""Files are whole or not there, and nothing temporary stays."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from isogon.system.runs.atomic_files import (
    create_numbered,
    remove_atomically,
    remove_leftovers,
    temporary_sibling,
    write_atomically,
    write_durably,
)


def test_bytes_and_text_replace_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"\x00one")
    assert path.read_bytes() == b"\x00one"
    write_atomically(path, "zwei é")
    assert path.read_text(encoding="utf-8") == "zwei é"
    assert os.listdir(tmp_path) == ["file"]


def test_file_modes_follow_the_umask(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"")
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_the_order_is_write_flush_rename_flush(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def traced_fsync(descriptor: int) -> None:
        target = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        calls.append("flush folder" if target == tmp_path else f"flush {target.read_text()}")
        fsync(descriptor)

    def traced_replace(old: Path, new: Path) -> None:
        calls.append("rename")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", traced_fsync)
    monkeypatch.setattr(os, "replace", traced_replace)
    write_atomically(tmp_path / "file", "data")
    assert calls == ["flush data", "rename", "flush folder"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_failure_leaves_the_old_file_and_nothing_else(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    write_atomically(path, "old")

    def fail(*_: object) -> None:
        raise OSError(5, "no luck")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, fail)
        with pytest.raises(OSError, match="no luck"):
            write_atomically(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["file"]


def test_a_missing_folder_is_an_os_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        write_atomically(tmp_path / "missing" / "file", "data")


def test_durable_writes_replace_nothing(tmp_path: Path) -> None:
    write_durably(tmp_path / "file", "one")
    with pytest.raises(FileExistsError):
        write_durably(tmp_path / "file", "two")
    assert (tmp_path / "file").read_text() == "one"


def test_leftovers_are_removed_and_named_and_nothing_else(tmp_path: Path) -> None:
    folder, file = temporary_sibling(tmp_path / "1-5"), temporary_sibling(tmp_path / "config.yaml")
    folder.mkdir()
    (folder / "learner.json").write_text("{}")
    file.write_text("x")
    for kept in ("1-5", ".lock", "x.tmp"):
        (tmp_path / kept).write_text("kept")
    assert remove_leftovers(tmp_path) == sorted([folder, file])
    assert sorted(os.listdir(tmp_path)) == [".lock", "1-5", "x.tmp"]


def test_a_folder_is_renamed_before_it_is_emptied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "1-5"
    folder.mkdir()
    (folder / "file").write_text("x")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.rmtree", lambda path: None)
        remove_atomically(folder)
    assert not folder.exists()
    (leftover,) = remove_leftovers(tmp_path)
    assert leftover.name.startswith(".1-5.")
    assert os.listdir(tmp_path) == []


def test_numbers_are_claimed_once(tmp_path: Path) -> None:
    (tmp_path / "run-2").mkdir()
    claimed: list[int] = []
    barrier = threading.Barrier(8)

    def claim() -> None:
        barrier.wait()
        for _ in range(10):
            number, folder = create_numbered(tmp_path, "run-", 1)
            assert folder == tmp_path / f"run-{number}"
            claimed.append(number)

    threads = [threading.Thread(target=claim) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == [1, *range(3, 82)]
