"""Updates that wait: one suite for both spools, and what only a disk can do wrong."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest

from isogon.learners.compression import layout_of
from isogon.schedulers.events import Token
from isogon.system.federation.spool import DiskSpool, MemorySpool, Spool
from isogon.system.runs.errors import RunDirectoryInUse


def update_of(number: int) -> dict[str, np.ndarray]:
    return {"w": np.full((5, 3), number, np.float32), "n": np.array(number)}


LAYOUT = layout_of(update_of(0))
META = {"version": 3, "seconds": 0.5, "stats": {"loss": [1.0, None]}}
NAMES = ["silo-a", "a/b/../..", "/", "..", "grüße 本 🧭", "x" * 5000, "a\nb\0c", " "]


def no_damage(path: Path, error: ValueError) -> NoReturn:
    raise AssertionError(path) from error


def open_disk(folder: Path) -> DiskSpool:
    return DiskSpool(folder, LAYOUT, no_damage)


@pytest.fixture(params=["disk", "memory"])
def spool(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Spool]:
    spool: Spool = open_disk(tmp_path / "spool") if request.param == "disk" else MemorySpool(LAYOUT)
    yield spool
    spool.close()


def values(spool: Spool) -> list[int]:
    return [int(spool.load(entry)["n"]) for entry in spool.entries()]


def test_what_is_put_is_there_until_it_is_removed(spool: Spool) -> None:
    entries = [spool.put(Token(1, name, number), META, update_of(number)) for number, name in enumerate(NAMES)]
    assert spool.entries() == entries
    assert [entry.token.worker for entry in entries] == NAMES
    assert [entry.arrival for entry in entries] == list(range(len(NAMES)))
    for number, entry in enumerate(entries):
        assert (entry.meta, entry.nbytes) == (META, 5 * 3 * 4 + 8)
        for name, array in update_of(number).items():
            assert spool.load(entry)[name].tobytes() == array.tobytes()
    spool.remove(*entries[::2])
    spool.remove(entries[0])
    assert spool.entries() == entries[1::2]
    assert values(spool) == [1, 3, 5, 7]
    with pytest.raises(ValueError, match="update 1/silo-a/0 is not in the spool"):
        spool.load(entries[0])


def test_order_is_that_of_arrival_not_of_tokens(spool: Spool) -> None:
    for sequence in (5, 3, 11, 1):
        spool.put(Token(1, "a", sequence), {}, update_of(sequence))
    assert values(spool) == [5, 3, 11, 1]


def test_meta_is_what_json_makes_of_it(spool: Spool) -> None:
    assert spool.put(Token(1, "a", 0), {"pair": (1, 2)}, update_of(0)).meta == {"pair": [1, 2]}


@pytest.mark.parametrize(
    ("meta", "update", "message"),
    [
        ({"x": float("nan")}, update_of(1), "meta of update 1/b/1 is no JSON"),
        ({"x": object()}, update_of(1), "meta of update 1/b/1 is no JSON"),
        ({}, {"w": update_of(1)["w"]}, "tensor 'n' is not there"),
        (
            {},
            {**update_of(1), "w": np.zeros((3, 5), np.float32)},
            r"'w' is float32 \[3, 5\]: expected float32 \[5, 3\]",
        ),
    ],
)
def test_what_is_unfit_is_refused_whole(spool: Spool, meta: Any, update: Any, message: str) -> None:
    spool.put(Token(1, "a", 0), {}, update_of(0))
    with pytest.raises(ValueError, match=message):
        spool.put(Token(1, "b", 1), meta, update)
    with pytest.raises(ValueError, match="update 1/a/0 is in the spool already"):
        spool.put(Token(1, "a", 0), {}, update_of(1))
    assert values(spool) == [0]


def test_a_restart_finds_everything(tmp_path: Path) -> None:
    spool = open_disk(tmp_path)
    entries = [spool.put(Token(1, name, 10 - number), META, update_of(number)) for number, name in enumerate(NAMES)]
    spool.remove(entries[2])
    spool.close()
    again = open_disk(tmp_path)
    assert again.entries() == [*entries[:2], *entries[3:]]
    assert values(again) == [0, 1, 3, 4, 5, 6, 7]
    newest = again.put(Token(2, "late", 99), {}, update_of(8))
    assert newest.arrival == len(NAMES)
    again.close()


def test_a_folder_has_one_spool_at_a_time(tmp_path: Path) -> None:
    spool = open_disk(tmp_path)
    spool.put(Token(1, "a", 0), {}, update_of(0))
    with pytest.raises(RunDirectoryInUse, match="in use by another server"):
        open_disk(tmp_path)
    assert values(spool) == [0]
    spool.close()
    open_disk(tmp_path).close()


KILLED = """
import sys, time
from pathlib import Path
from isogon.system.federation import spool as module
from tests.federation.test_spool import Token, open_disk, update_of

spool = open_disk(Path(sys.argv[1]))
for number in range(3):
    spool.put(Token(1, "a", number), {}, update_of(number))
whole = module.encode

def half(update):
    yield from [frame[: len(frame) // 2] for frame in whole(update)]
    print("half", flush=True)
    time.sleep(60)

module.encode = half
module.write_atomically.__globals__["os"].fsync = lambda descriptor: None
spool.put(Token(1, "a", 3), {}, update_of(3))
"""


def test_a_server_killed_while_it_writes_leaves_what_it_acknowledged(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root / 'src'}:{root}"}
    command = [sys.executable, "-c", KILLED, str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"half\n"
        assert len(list(tmp_path.glob(".*.tmp"))) == 1
        with pytest.raises(RunDirectoryInUse):
            open_disk(tmp_path)
        process.send_signal(signal.SIGKILL)
    spool = open_disk(tmp_path)
    assert values(spool) == [0, 1, 2]
    assert sorted(path.suffix for path in tmp_path.iterdir() if path.name != ".lock") == [".update"] * 3
    spool.put(Token(1, "a", 3), {}, update_of(3))
    spool.close()


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 4
    path.write_bytes(data)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "checksum": lambda path: flip(path, 0),
    "line": lambda path: flip(path, 30),
    "frames": lambda path: flip(path, -1),
    "cut": lambda path: os.truncate(path, path.stat().st_size - 5),
    "cut before the frames": lambda path: os.truncate(path, path.read_bytes().index(b"\n") + 1),
    "cut in the line": lambda path: os.truncate(path, 20),
    "empty": lambda path: os.truncate(path, 0),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"x"),
    "another's update doubled": lambda path: path.write_bytes(min(path.parent.glob("*.update")).read_bytes()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_reported_and_set_aside(tmp_path: Path, damage: str) -> None:
    spool = open_disk(tmp_path)
    for number in range(3):
        spool.put(Token(1, "a", number), META, update_of(number))
    spool.close()
    middle = sorted(tmp_path.glob("*.update"))[1]
    DAMAGES[damage](middle)
    reports: list[tuple[Path, ValueError]] = []
    spool = DiskSpool(tmp_path, LAYOUT, lambda *report: reports.append(report))
    assert values(spool) == [0, 2]
    ((path, error),) = reports
    assert path == middle.with_name(f"{middle.name}.damaged")
    assert path.exists()
    assert not middle.exists()
    assert f"spool file {middle} is not as it was written: " in str(error)
    spool.close()
    open_disk(tmp_path).close()


def test_damage_done_while_an_update_waits_is_seen_when_it_is_loaded(tmp_path: Path) -> None:
    spool = open_disk(tmp_path)
    entry = spool.put(Token(1, "a", 0), {}, update_of(0))
    (path,) = tmp_path.glob("*.update")
    flip(path, -3)
    with pytest.raises(ValueError, match=r"spool file .* is not as it was written: frame 1 is damaged"):
        spool.load(entry)
    path.unlink()
    with pytest.raises(FileNotFoundError):
        spool.load(entry)
    spool.remove(entry)
    spool.close()


@pytest.mark.parametrize("call", ["fsync", "replace", "flush folder"])
def test_a_full_disk_leaves_nothing_and_the_spool_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    spool = open_disk(tmp_path)
    spool.put(Token(1, "a", 0), {}, update_of(0))
    before = sorted(tmp_path.iterdir())

    def full(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, "No space left on device")

    target = "isogon.system.runs.atomic_files.sync_folder" if call == "flush folder" else f"os.{call}"
    with monkeypatch.context() as patch:
        patch.setattr(target, full)
        with pytest.raises(OSError, match="No space left"):
            spool.put(Token(1, "a", 1), {}, update_of(1))
    assert sorted(tmp_path.iterdir()) == before
    spool.put(Token(1, "a", 1), {}, update_of(1))
    assert values(spool) == [0, 1]
    spool.close()


def test_an_update_is_on_the_disk_when_put_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = open_disk(tmp_path)
    flushed: list[str] = []
    fsync = os.fsync

    def traced(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        flushed.append("folder" if path == tmp_path else f"{path.suffix} {path.stat().st_size}")
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", traced)
    entry = spool.put(Token(1, "a", 0), {}, update_of(0))
    (path,) = tmp_path.glob("*.update")
    assert flushed == [f".tmp {path.stat().st_size}", "folder"]
    spool.remove(entry)
    assert flushed[2:] == ["folder"]
    spool.close()


def test_thousands_wait_in_little_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    wide = {"w": np.zeros(5_000, np.float32)}
    spool = DiskSpool(tmp_path, layout_of(wide), no_damage)
    tracemalloc.start()
    try:
        for number in range(2_000):
            spool.put(Token(1, f"client-{number % 100}", number), {}, wide)
        spool.close()
        again = DiskSpool(tmp_path, layout_of(wide), no_damage)
        assert tracemalloc.get_traced_memory()[1] < 2_000 * wide["w"].nbytes / 4
    finally:
        tracemalloc.stop()
    assert [entry.token.sequence for entry in again.entries()] == list(range(2_000))
    again.remove(*again.entries())
    assert again.entries() == []
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    again.close()


def test_what_is_no_update_is_left_alone(tmp_path: Path) -> None:
    for name in ("notes.txt", "x.update"):
        (tmp_path / name).write_text("mine")
    spool = open_disk(tmp_path)
    assert spool.entries() == []
    assert (tmp_path / "x.update").read_text() == "mine"
    spool.close()
