"""Run directories: claimed once, held by one process, and read along the newest attempt's line."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
import torch

from isogon.system.runs.attempts import Attempt, claim_attempt
from isogon.system.runs.checkpoints import CheckpointRef, save_checkpoint
from isogon.system.runs.directory import (
    RunDirectory,
    RunDirectoryDamaged,
    RunDirectoryExists,
    RunDirectoryInUse,
    RunDirectoryMissing,
    RunDirectoryUnwritable,
)

T = TypeVar("T")


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunDirectory]:
    directory = RunDirectory.create(tmp_path / "run")
    directory.write_config({"name": "test"})
    with directory.hold():
        yield directory


def save(run: RunDirectory, attempt: Attempt, *steps: int) -> None:
    for step in steps:
        run.save_checkpoint(attempt, step, {"learner": {"step": step, "weight": torch.full((9,), float(step))}}, {})


def names(refs: list[CheckpointRef]) -> list[str]:
    return [ref.name for ref in refs]


def silent(text: str) -> None:
    pytest.fail(f"a warning came: {text}")


def in_threads(work: Callable[[], T]) -> list[T]:
    """The results of five calls in each of four threads that begin together."""
    barrier = threading.Barrier(4)

    def several(_: int) -> list[T]:
        barrier.wait()
        return [work() for _ in range(5)]

    with ThreadPoolExecutor(4) as pool:
        return [result for results in pool.map(several, range(4)) for result in results]


def damage(run: RunDirectory, name: str) -> None:
    os.truncate(run.path / "checkpoints" / name / "learner.safetensors", 10)


def test_a_new_directory_is_made_with_the_folders_above_it(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    RunDirectory.create(path).write_config({"x": 1})
    assert RunDirectory.open(path).path == path
    assert sorted(os.listdir(path)) == ["attempts", "checkpoints", "config.yaml"]


@pytest.mark.parametrize("left", [(), ("attempts",), ("attempts", "checkpoints")])
def test_a_folder_without_a_run_is_made_one(left: tuple[str, ...], tmp_path: Path) -> None:
    for name in ("", *left):
        (tmp_path / "run" / name).mkdir()
    directory = RunDirectory.create(tmp_path / "run")
    assert sorted(path.name for path in directory.path.iterdir()) == ["attempts", "checkpoints"]
    (directory.path / "attempts" / "1").mkdir()
    with pytest.raises(RunDirectoryExists):
        RunDirectory.create(tmp_path / "run")


@pytest.mark.parametrize("there", ["folder", "file"])
def test_what_is_there_is_not_taken_over(there: str, tmp_path: Path) -> None:
    path = tmp_path / "run"
    if there == "folder":
        path.mkdir()
        (path / "notes.txt").touch()
    else:
        path.touch()
    with pytest.raises(RunDirectoryExists, match=r"run is there already: resume .* or name another"):
        RunDirectory.create(path)


def test_the_first_free_number_is_taken(tmp_path: Path) -> None:
    (tmp_path / "runs" / "wordle-2").mkdir(parents=True)
    found = [RunDirectory.create_next(tmp_path / "runs", "wordle").path.name for _ in range(3)]
    assert found == ["wordle-1", "wordle-3", "wordle-4"]


def test_starters_at_once_get_directories_of_their_own(tmp_path: Path) -> None:
    made = in_threads(lambda: RunDirectory.create_next(tmp_path / "runs", "x").path.name)
    assert sorted(made) == sorted(f"x-{k}" for k in range(1, 21))


def test_only_run_directories_are_opened(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryMissing, match="none is not there"):
        RunDirectory.open(tmp_path / "none")
    with pytest.raises(RunDirectoryMissing, match=r"has no config\.yaml"):
        RunDirectory.open(tmp_path)
    (tmp_path / "config.yaml").touch()
    with pytest.raises(RunDirectoryDamaged, match="has no folder attempts"):
        RunDirectory.open(tmp_path)


@pytest.mark.parametrize("below", ["file/run", "file/a/b/run"])
def test_a_file_in_the_way_is_named(below: str, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunDirectoryUnwritable, match="name a") as caught:
        RunDirectory.create(tmp_path / below)
    assert str(tmp_path / "file") in str(caught.value)
    with pytest.raises(RunDirectoryUnwritable, match="name a"):
        RunDirectory.create_next(tmp_path / below, "x")
    with pytest.raises(RunDirectoryUnwritable, match="file is a file"):
        RunDirectory.create_next(tmp_path / "file", "x")


def test_a_read_only_disk_is_named(mount_disk: Callable[[str], Path]) -> None:
    disk = mount_disk("ro")
    for make in (partial(RunDirectory.create, disk / "a"), partial(RunDirectory.create_next, disk, "a")):
        with pytest.raises(RunDirectoryUnwritable, match="Read-only file system: name a directory where you may"):
            make()


def test_a_full_disk_is_no_matter_of_permissions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "mkdir", full)
    with pytest.raises(OSError, match="No space left"):
        RunDirectory.create(tmp_path / "run")


def test_a_second_starter_is_told_who_holds_it(run: RunDirectory) -> None:
    other = RunDirectory.open(run.path)
    with pytest.raises(RunDirectoryInUse, match=f"in use by process {os.getpid()} on "), other.hold():
        pytest.fail("held twice")
    with pytest.raises(RuntimeError, match="is not held"):
        other.claim_attempt(None)


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    path = tmp_path / "run"
    RunDirectory.create(path).write_config({})
    program = (
        "import sys, pathlib, time; from isogon.system.runs.directory import RunDirectory\n"
        "with RunDirectory.open(pathlib.Path(sys.argv[1])).hold():\n    print('held', flush=True); time.sleep(60)"
    )
    holder = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    run = RunDirectory.open(path)
    with pytest.raises(RunDirectoryInUse, match=f"process {holder.pid} on "), run.hold():
        pytest.fail("held twice")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    with run.hold():
        assert run.claim_attempt(None).number == 1
    with run.hold():
        assert run.claim_attempt(None).number == 2
    assert not (path / ".holder.json").exists()


def test_an_exception_lets_go(run: RunDirectory, tmp_path: Path) -> None:
    other = RunDirectory.create(tmp_path / "other")
    with pytest.raises(KeyError), other.hold():
        raise KeyError
    with other.hold():
        pass


def test_an_attempt_records_where_it_comes_from(run: RunDirectory) -> None:
    first = run.claim_attempt(None)
    save(run, first, 100)
    second = run.claim_attempt(CheckpointRef(1, 100))
    assert (first.number, first.start) == (1, None)
    assert (second.number, second.start, second.pid) == (2, CheckpointRef(1, 100), os.getpid())
    content = json.loads((run.path / "attempts" / "2" / "attempt.json").read_text())
    assert content["start"] == "1-100"
    assert content["versions"]["torch"]


def test_an_attempt_starts_from_a_checkpoint_that_is_there(run: RunDirectory) -> None:
    with pytest.raises(ValueError, match="1-100, which is not in"):
        run.claim_attempt(CheckpointRef(1, 100))


def test_the_line_goes_back_through_the_starts(run: RunDirectory) -> None:
    one = run.claim_attempt(None)
    save(run, one, 9, 10, 100, 200)
    assert names(run.checkpoint_line()) == ["1-200", "1-100", "1-10", "1-9"]
    two = run.claim_attempt(CheckpointRef(1, 100))
    assert names(run.checkpoint_line()) == ["1-100", "1-10", "1-9"]
    save(run, two, 150, 300)
    three = run.claim_attempt(CheckpointRef(2, 150))
    save(run, three, 160)
    assert names(run.checkpoint_line()) == ["3-160", "2-150", "1-100", "1-10", "1-9"]
    found = run.latest_checkpoint(silent)
    assert found is not None
    assert found.ref == CheckpointRef(3, 160)
    assert found.parts["learner"]["step"] == 160


def test_a_stale_attempt_writes_and_is_not_read(run: RunDirectory) -> None:
    stale = run.claim_attempt(None)
    save(run, stale, 100)
    run.append_metrics(stale, {"step": 100})
    newest = run.claim_attempt(CheckpointRef(1, 100))
    save(run, stale, 1000)
    run.append_metrics(stale, {"step": 1000})
    assert names(run.checkpoint_line()) == ["1-100"]
    save(run, newest, 150)
    run.append_metrics(newest, {"step": 150})
    assert names(run.checkpoint_line()) == ["2-150", "1-100"]
    assert run.read_metrics() == [{"step": 100}, {"step": 150}]


def test_a_new_beginning_ends_the_line(run: RunDirectory) -> None:
    save(run, run.claim_attempt(None), 100)
    run.claim_attempt(None)
    assert run.checkpoint_line() == []
    assert run.latest_checkpoint(silent) is None


def test_an_attempt_that_was_killed_while_claiming_does_not_count(run: RunDirectory) -> None:
    save(run, run.claim_attempt(None), 100)
    (run.path / "attempts" / "2").mkdir()
    assert names(run.checkpoint_line()) == ["1-100"]
    assert run.claim_attempt(CheckpointRef(1, 100)).number == 3
    assert names(run.checkpoint_line()) == ["1-100"]


@pytest.mark.parametrize("content", ["{", "{}", '{"start": "2-5"}', '{"start": null, "x": 1}', '{"start": 7}', "[]"])
def test_a_damaged_attempt_is_named_with_the_remedy(content: str, run: RunDirectory) -> None:
    run.claim_attempt(None)
    run.claim_attempt(None)
    (run.path / "attempts" / "2" / "attempt.json").write_text(content)
    for read in (run.checkpoint_line, run.read_metrics):
        with pytest.raises(RunDirectoryDamaged, match=r"2/attempt\.json cannot be read .* remove the folder"):
            read()


def test_damaged_checkpoints_are_passed_over_with_a_warning_each(run: RunDirectory) -> None:
    attempt = run.claim_attempt(None)
    save(run, attempt, 1, 2, 3, 4)
    damage(run, "1-4")
    (run.path / "checkpoints" / "1-3" / "manifest.json").unlink()
    os.rename(run.path / "checkpoints" / "1-1", run.path / "checkpoints" / "1-5")
    warnings: list[str] = []
    found = run.latest_checkpoint(warnings.append)
    assert found is not None
    assert found.ref == CheckpointRef(1, 2)
    assert [warning.partition(":")[0] for warning in warnings] == [
        f"checkpoint 1-{step} is passed over" for step in (5, 4, 3)
    ]
    assert not any("\n" in warning for warning in warnings)
    assert "it calls itself 1-1" in warnings[0]


def test_foreign_entries_are_no_checkpoints(run: RunDirectory) -> None:
    save(run, run.claim_attempt(None), 1)
    for foreign in ("best", "1-2.bak", ".1-3.abc.tmp"):
        (run.path / "checkpoints" / foreign).mkdir()
    assert names(run.checkpoint_line()) == ["1-1"]


def test_leftovers_go_with_the_next_claim(run: RunDirectory) -> None:
    first = run.claim_attempt(None)
    save(run, first, 1)
    for leftover in (".config.yaml.00.tmp", "attempts/1/.attempt.json.00.tmp", "checkpoints/.1-2.00.tmp/learner.json"):
        path = run.path / leftover
        path.parent.mkdir(exist_ok=True)
        path.touch()
    run.claim_attempt(CheckpointRef(1, 1))
    assert not [path for path in run.path.rglob("*.tmp")]
    assert names(run.checkpoint_line()) == ["1-1"]


def test_pruning_keeps_the_newest_whole_ones(run: RunDirectory) -> None:
    attempt = run.claim_attempt(None)
    save(run, attempt, 1, 2, 3, 4, 5)
    fresh = RunDirectory.open(run.path)
    damage(run, "1-4")
    assert names(fresh.prune_checkpoints(keep=2)) == ["1-2", "1-1"]
    assert names(fresh.checkpoint_line()) == ["1-5", "1-4", "1-3"]
    assert fresh.prune_checkpoints(keep=2) == []
    assert not [path for path in run.path.rglob("*.tmp")]
    with pytest.raises(ValueError, match="keep is 0"):
        run.prune_checkpoints(keep=0)


def test_pruning_keeps_the_start_until_there_is_a_newer_one(run: RunDirectory) -> None:
    save(run, run.claim_attempt(None), 1, 2, 3)
    second = run.claim_attempt(CheckpointRef(1, 2))
    assert names(run.prune_checkpoints(keep=1)) == ["1-1"]
    assert names(run.checkpoint_line()) == ["1-2"]
    save(run, second, 4)
    assert names(run.prune_checkpoints(keep=1)) == ["1-2"]
    assert names(run.checkpoint_line()) == ["2-4"]


def test_rows_are_joined_along_the_line(run: RunDirectory) -> None:
    one = run.claim_attempt(None)
    for step in (10, 20, 30):
        run.append_metrics(one, {"step": step, "loss": step / 10})
    save(run, one, 20)
    two = run.claim_attempt(CheckpointRef(1, 20))
    run.append_metrics(two, {"step": 25, "loss": math.nan, "nested": [math.inf, 1.0]})
    assert run.read_metrics() == [
        {"step": 10, "loss": 1.0},
        {"step": 20, "loss": 2.0},
        {"step": 25, "loss": None, "nested": [None, 1.0]},
    ]
    lines = (run.path / "attempts" / "2" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line, parse_constant=pytest.fail) for line in lines] == run.read_metrics()[2:]


@pytest.mark.parametrize("torn", ['{"step": 3', '{"step": 3, "name": "\ud83d', "[3]", '{"loss": 1}', "\x00\x00"])
def test_torn_rows_are_left_out(torn: str, run: RunDirectory) -> None:
    attempt = run.claim_attempt(None)
    run.append_metrics(attempt, {"step": 1})
    run.append_metrics(attempt, {"step": 2})
    with (run.path / "attempts" / "1" / "metrics.jsonl").open("ab") as file:
        file.write(torn.encode(errors="surrogatepass"))
    assert run.read_metrics() == [{"step": 1}, {"step": 2}]


@pytest.mark.parametrize("row", [{}, {"step": 1.0}, {"step": True}, {"step": None}])
def test_rows_need_their_step(row: dict[str, Any], run: RunDirectory) -> None:
    with pytest.raises(ValueError, match="row has the step"):
        run.append_metrics(run.claim_attempt(None), row)
    assert run.read_metrics() == []


def test_config_and_summary_come_back(run: RunDirectory) -> None:
    config = {"name": "wordle", "b": {"x": [1, 2.5, None, True]}, "a": "é: yes"}
    run.write_config(config)
    assert run.read_config() == config
    assert list(run.read_config()) == ["name", "b", "a"]
    assert run.read_summary() is None
    run.write_summary({"return": -3.5, "low": math.nan, "seeds": [0, 1]})
    assert run.read_summary() == {"return": -3.5, "low": None, "seeds": [0, 1]}


def test_damaged_files_are_named(run: RunDirectory) -> None:
    (run.path / "summary.json").write_text("{")
    with pytest.raises(RunDirectoryDamaged, match=r"summary\.json is not JSON"):
        run.read_summary()
    for content, message in (("a: [", "cannot be read"), ("- 1", "holds no mapping"), ("!!python/name:os.x", "cannot")):
        (run.path / "config.yaml").write_text(content)
        with pytest.raises(RunDirectoryDamaged, match=message) as caught:
            run.read_config()
        assert "\n" not in str(caught.value)


WORKER = """
import sys
from pathlib import Path
import torch
from isogon.system.runs.directory import RunDirectory
run = RunDirectory.open(Path(sys.argv[1]))
with run.hold():
    checkpoint = run.latest_checkpoint(lambda text: sys.exit(text))
    attempt = run.claim_attempt(checkpoint.ref if checkpoint else None)
    step = checkpoint.step if checkpoint else 0
    assert not [path for path in run.path.rglob("*.tmp")]
    print(step, flush=True)
    while True:
        step += 1
        run.append_metrics(attempt, {"step": step})
        run.save_checkpoint(attempt, step, {"learner": {"w": torch.full((30_000,), float(step))}}, {})
        run.prune_checkpoints(keep=2)
"""


def test_killed_at_any_moment_a_run_goes_on_from_a_whole_checkpoint(tmp_path: Path) -> None:
    run = RunDirectory.create(tmp_path / "run")
    run.write_config({})
    newest = 0
    for moment in (0.11, 0.17, 0.29):
        worker = subprocess.Popen([sys.executable, "-c", WORKER, str(run.path)], stdout=subprocess.PIPE, text=True)
        assert worker.stdout is not None
        assert int(worker.stdout.readline()) == newest
        time.sleep(moment)
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        checkpoint = run.latest_checkpoint(silent)
        assert checkpoint is not None
        assert checkpoint.step > newest
        newest = checkpoint.step
        assert torch.equal(checkpoint.parts["learner"]["w"], torch.full((30_000,), float(newest)))
        assert 2 <= len(run.checkpoint_line()) <= 3
        steps = [row["step"] for row in run.read_metrics()]
        assert steps[:newest] == list(range(1, newest + 1))
        assert len(steps) <= newest + 1
    with run.hold():
        run.claim_attempt(CheckpointRef(3, newest))
    assert not [path for path in run.path.rglob("*.tmp")]


def test_attempts_at_once_get_numbers_of_their_own(run: RunDirectory) -> None:
    assert sorted(in_threads(lambda: claim_attempt(run.path / "attempts", None).number)) == list(range(1, 21))


def test_a_checkpoint_of_a_newer_format_is_passed_over(run: RunDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    attempt = run.claim_attempt(None)
    save(run, attempt, 1)
    with monkeypatch.context() as patch:
        patch.setattr("isogon.system.runs.checkpoints.FORMAT_VERSION", 2)
        save_checkpoint(run.checkpoint_folder(CheckpointRef(1, 2)), {"learner": {}}, step=2, attempt=1, info={})
    warnings: list[str] = []
    found = run.latest_checkpoint(warnings.append)
    assert found is not None
    assert found.step == 1
    assert len(warnings) == 1
    assert "upgrade isogon" in warnings[0]
    save(run, attempt, 3, 4)
    assert names(run.prune_checkpoints(keep=3)) == []


def test_the_best_is_kept_however_old_and_damage_is_named(run: RunDirectory) -> None:
    with run.hold():
        attempt = run.claim_attempt(None)
        for step, score in ((1, 0.5), (2, 2.0), (3, 2.0), (4, -1.0), (5, None)):
            ref = run.save_checkpoint(attempt, step, {"learner": {"step": step}}, {})
            if score is not None:
                run.record_score(ref, score)
    assert run.find_checkpoint("best", pytest.fail).step == 3, "among equals the newest"
    spare = CheckpointRef(1, 1)
    assert names(run.prune_checkpoints(keep=1, keep_best=1, spare=spare)) == ["1-4", "1-2"]
    assert names(run.checkpoint_line()) == ["1-5", "1-3", "1-1"]
    assert run.find_checkpoint("1-1", pytest.fail).step == 1
    (run.path / "scores.json").write_text("[]")
    with pytest.raises(RunDirectoryDamaged, match=r"scores.json cannot be read .*: remove it"):
        run.find_checkpoint("best", pytest.fail)
    assert run.find_checkpoint("last", pytest.fail).step == 5
