"""The run directory: what a run keeps on disk, and which of it counts.

::

    config.yaml                      the resolved config
    attempts/<n>/                    see `system.runs.attempts`
    checkpoints/<attempt>-<step>/    see `system.runs.checkpoints`
    scores.json                      validation returns of the checkpoints that were evaluated, by their names
    summary.json                     the result

It lies on a POSIX path. One process at a time works in it, as an attempt; others may read. Temporary names (see
`system.runs.atomic_files`), ``.lock`` and ``.holder.json`` are the machinery's.
"""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any

import filelock

from ...learners.state import StateTree
from ..config.yaml_text import read_yaml, write_yaml
from .atomic_files import create_numbered, remove_atomically, remove_leftovers, sync_folder, write_atomically
from .attempts import (
    Attempt,
    append_row,
    attempt_line,
    claim_attempt,
    read_attempt,
    read_rows,
    without_infinities,
)
from .checkpoints import (
    Checkpoint,
    CheckpointInvalid,
    CheckpointRef,
    load_checkpoint,
    save_checkpoint,
    verify_checkpoint,
)
from .errors import (
    RunDirectoryDamaged,
    RunDirectoryExists,
    RunDirectoryInUse,
    RunDirectoryMissing,
    RunDirectoryUnwritable,
)
from .scores import add_score, best_first, read_scores

__all__ = [
    "RunDirectory",
    "RunDirectoryDamaged",
    "RunDirectoryExists",
    "RunDirectoryInUse",
    "RunDirectoryMissing",
    "RunDirectoryUnwritable",
]

LAST, BEST = "last", "best"
"""What a checkpoint is called that need not be named: the newest, and the one with the best validation return."""

_UNWRITABLE = frozenset(
    {errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}
)


class RunDirectory:
    """A run directory that is there. `create`, `create_next` and `open` give one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = filelock.FileLock(path / ".lock", timeout=0, thread_local=False)
        self._known_valid: set[CheckpointRef] = set()

    @classmethod
    def create(cls, path: Path) -> RunDirectory:
        """A new run directory at ``path``, and the folders above it where they are missing.

        An empty folder will do, and one that a start left which was killed before the run had a config.

        Raises:
            RunDirectoryExists: there is something already.
            RunDirectoryUnwritable: it may not be made there.
        """
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                path.mkdir()
            except FileExistsError as error:
                if _holds_no_run(path):
                    return cls._furnish(path)
                raise RunDirectoryExists(
                    f"run directory {path} is there already: resume the run in it, or name another directory"
                ) from error
            return cls._furnish(path)

    @classmethod
    def create_next(cls, parent: Path, name: str) -> RunDirectory:
        """A new run directory ``parent/<name>-<k>`` with the first k >= 1 that is free, also among several at once.

        Raises:
            RunDirectoryUnwritable: it may not be made there.
        """
        with _explained(parent):
            parent.mkdir(parents=True, exist_ok=True)
            return cls._furnish(create_numbered(parent, f"{name}-", 1)[1])

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """The run directory at ``path``.

        Raises:
            RunDirectoryMissing: there is none, or it has no config.yaml.
            RunDirectoryDamaged: one of its folders is missing.
        """
        if not (path / "config.yaml").is_file():
            what = "is a file" if path.is_file() else "is not there"
            what = "has no config.yaml, so it is no run directory" if path.is_dir() else what
            raise RunDirectoryMissing(f"run directory {path} {what}: name the directory of a run that was started")
        for name in ("attempts", "checkpoints"):
            if not (path / name).is_dir():
                raise RunDirectoryDamaged(
                    f"run directory {path} has no folder {name}: restore it from where it was copied"
                )
        return cls(path)

    @classmethod
    def _furnish(cls, path: Path) -> RunDirectory:
        (path / "attempts").mkdir(exist_ok=True)
        (path / "checkpoints").mkdir(exist_ok=True)
        sync_folder(path)
        sync_folder(path.parent)
        return cls(path)

    @property
    def _attempts(self) -> Path:
        return self.path / "attempts"

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be the one process at work here. The operating system lets go when the process ends, however it ends.

        Raises:
            RunDirectoryInUse: another process, or another `RunDirectory` of this one, is at work.
            RunDirectoryUnwritable: the lock file cannot be made.
        """
        holder = self.path / ".holder.json"
        with _explained(self.path):
            try:
                self._lock.acquire()
            except filelock.Timeout as error:
                raise RunDirectoryInUse(
                    f"run directory {self.path} is in use by {_holder_name(holder)}: "
                    "wait until it is done, end it, or name another directory"
                ) from error
        try:
            write_atomically(holder, json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
            yield
        finally:
            holder.unlink(missing_ok=True)
            self._lock.release()

    def holder(self) -> str | None:
        """Who is at work here, as far as can be told without getting in the way; None where nobody seems to be."""
        path = self.path / ".holder.json"
        try:
            holder = json.loads(path.read_bytes())
            if holder["host"] == socket.gethostname():
                os.kill(holder["pid"], 0)
        except PermissionError:
            # The process is there, and another user's.
            pass
        except (OSError, ValueError, KeyError, TypeError, OverflowError):
            return None
        return _holder_name(path)

    def claim_attempt(self, start: CheckpointRef | None) -> Attempt:
        """Begin an attempt: from now on its line is the one that counts. Removes what killed processes left half-done.

        Args:
            start: the checkpoint that it starts from, None for the beginning.

        Raises:
            RuntimeError: not within `hold`.
            ValueError: there is no such checkpoint.
        """
        if not self._lock.is_locked:
            raise RuntimeError(f"run directory {self.path} is not held: claim an attempt within hold()")
        if start is not None and not self.checkpoint_folder(start).is_dir():
            raise ValueError(f"start is the checkpoint {start.name}, which is not in {self._checkpoints}")
        for folder in (self.path, self._checkpoints, *self._attempts.iterdir()):
            remove_leftovers(folder)
        return claim_attempt(self._attempts, start)

    def checkpoint_folder(self, ref: CheckpointRef) -> Path:
        """Where the checkpoint of this name is, or would be."""
        return self._checkpoints / ref.name

    def save_checkpoint(
        self, attempt: Attempt, step: int, parts: Mapping[str, StateTree], info: Mapping[str, Any]
    ) -> CheckpointRef:
        """Write a checkpoint of this attempt; arguments and errors as `system.runs.checkpoints.save_checkpoint`."""
        ref = CheckpointRef(attempt.number, step)
        save_checkpoint(self.checkpoint_folder(ref), parts, step=step, attempt=attempt.number, info=info)
        self._known_valid.add(ref)
        return ref

    def checkpoint_line(self) -> list[CheckpointRef]:
        """The checkpoints that count, newest first, whether or not they are whole.

        Raises:
            RunDirectoryDamaged: the line cannot be followed.
        """
        steps: dict[int, list[int]] = {}
        for entry in self._checkpoints.iterdir():
            with suppress(ValueError):
                ref = CheckpointRef.parse(entry.name)
                steps.setdefault(ref.attempt, []).append(ref.step)
        return [
            CheckpointRef(number, step)
            for number, last in attempt_line(self._attempts)
            for step in sorted(steps.get(number, ()), reverse=True)
            if step <= last
        ]

    def latest_checkpoint(self, warn: Callable[[str], None]) -> Checkpoint | None:
        """The newest checkpoint of the line that is whole, None where there is none.

        Args:
            warn: is told in one line of each one that is passed over.

        Raises:
            RunDirectoryDamaged: the line cannot be followed.
        """
        return self._first_whole(self.checkpoint_line(), warn)

    def find_checkpoint(self, which: str, warn: Callable[[str], None]) -> Checkpoint:
        """The checkpoint of the line that is asked for, and whole.

        Args:
            which: ``last``; ``best``, by validation return, of those that are still there; or a name, ``1-5000``.
            warn: is told in one line of each one that is passed over.

        Raises:
            RunDirectoryMissing: there is no such checkpoint.
            CheckpointInvalid: the one that is named is not whole.
            RunDirectoryDamaged: the line or the scores cannot be read.
        """
        line = self.checkpoint_line()
        if which not in (LAST, BEST):
            refs = [ref for ref in line if ref.name == which]
            if not refs:
                there = ", ".join(ref.name for ref in line) or "none"
                raise RunDirectoryMissing(
                    f"run directory {self.path} has no checkpoint {which}: name last, best or one of {there}"
                )
            return load_checkpoint(self.checkpoint_folder(refs[0]))
        checkpoint = self._first_whole(line if which == LAST else best_first(self.path, line), warn)
        if checkpoint is None and which == BEST and line:
            raise RunDirectoryMissing(
                f"run directory {self.path} has no checkpoint that was evaluated: wait for its first evaluation, "
                "or take the last one"
            )
        if checkpoint is None:
            raise RunDirectoryMissing(
                f"run directory {self.path} has no whole checkpoint yet: wait for its first one, or resume the run"
            )
        return checkpoint

    def record_score(self, ref: CheckpointRef, validation_return: float) -> None:
        """Write down how good a checkpoint is, whether or not it is there yet. On disk when this returns."""
        add_score(self.path, ref, validation_return, self.checkpoint_line())

    def read_scores(self) -> dict[str, float]:
        """Validation returns by the names of checkpoints, which may be gone.

        Raises:
            RunDirectoryDamaged: scores.json is not as it was written.
        """
        return read_scores(self.path)

    def prune_checkpoints(
        self, keep: int, keep_best: int = 0, spare: CheckpointRef | None = None
    ) -> list[CheckpointRef]:
        """Remove the line's checkpoints that are older than its ``keep``-th newest whole one, and say which.

        The ``keep_best`` whole ones with the best validation returns stay, however old, and so does ``spare``, whose
        score is not known yet. A checkpoint that cannot be
        read does not count, and stays while it is newer than that one. So the checkpoint that an attempt started from
        stays until there are newer ones.

        Raises:
            ValueError: ``keep`` is less than 1, or ``keep_best`` less than 0.
        """
        if keep < 1 or keep_best < 0:
            raise ValueError(f"keep is {keep} and keep_best {keep_best}: they must be at least 1 and 0")
        best = set(islice(filter(self._is_valid, best_first(self.path, self.checkpoint_line())), keep_best))
        removed = []
        kept = 0
        for ref in self.checkpoint_line():
            if kept == keep:
                if ref in best or ref == spare:
                    continue
                remove_atomically(self.checkpoint_folder(ref))
                removed.append(ref)
            elif self._is_valid(ref):
                kept += 1
        return removed

    def _first_whole(self, refs: list[CheckpointRef], warn: Callable[[str], None]) -> Checkpoint | None:
        for ref in refs:
            try:
                checkpoint = load_checkpoint(self.checkpoint_folder(ref))
                if checkpoint.ref != ref:
                    raise CheckpointInvalid(f"it calls itself {checkpoint.ref.name}")
            except CheckpointInvalid as error:
                warn(f"checkpoint {ref.name} is passed over: {error}")
                continue
            self._known_valid.add(ref)
            return checkpoint
        return None

    def _is_valid(self, ref: CheckpointRef) -> bool:
        if ref not in self._known_valid:
            try:
                verify_checkpoint(self.checkpoint_folder(ref))
            except CheckpointInvalid:
                return False
            self._known_valid.add(ref)
        return True

    def append_metrics(self, attempt: Attempt, row: Mapping[str, Any]) -> None:
        """Add one line to the attempt's metrics.jsonl. Numbers that are not finite are written as null.

        Args:
            attempt: whose row it is.
            row: JSON values by name; ``step``, the learner updates so far, is one of them.

        Raises:
            ValueError: the row has no whole ``step``.
        """
        append_row(self._attempts, attempt.number, row)

    def read_metrics(self) -> list[dict[str, Any]]:
        """The rows that count, oldest first, as if there had been one attempt. A torn line is left out.

        Raises:
            RunDirectoryDamaged: the line cannot be followed.
        """
        return read_rows(self._attempts)

    def read_attempts(self) -> list[Attempt]:
        """The attempts whose work counts, oldest first.

        Raises:
            RunDirectoryDamaged: the line cannot be followed.
        """
        return [read_attempt(self._attempts, number) for number, _ in reversed(attempt_line(self._attempts))]

    def log_path(self, attempt: Attempt) -> Path:
        """Where the details stand of what ended an attempt, if something did."""
        return self._attempts / str(attempt.number) / "log.txt"

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.yaml, whole or not at all. Raises yaml.YAMLError for what YAML has no plain form of."""
        write_atomically(self.path / "config.yaml", write_yaml(dict(config)))

    @property
    def is_federation(self) -> bool:
        """Whether it is a federation's and no training run's: only the former have a strategy. As `read_config`."""
        return "strategy" in self.read_config()

    def check_trained(self) -> None:
        """Raises RunDirectoryMissing where it is a federation's."""
        if self.is_federation:
            raise RunDirectoryMissing(
                f"run directory {self.path} is a federation's: isogon report shows it, and isogon federate run "
                "--resume goes on with it"
            )

    def read_config(self) -> dict[str, Any]:
        """The content of config.yaml.

        Raises:
            RunDirectoryDamaged: it is not YAML, or no mapping.
        """
        path = self.path / "config.yaml"
        try:
            content = read_yaml(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunDirectoryDamaged(f"{path} cannot be read: {' '.join(str(error).split())}") from error
        if not isinstance(content, dict):
            raise RunDirectoryDamaged(f"{path} holds no mapping: restore the config that the run was started with")
        return content

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Write summary.json, whole or not at all. Numbers that are not finite are written as null."""
        write_atomically(
            self.path / "summary.json", json.dumps(without_infinities(summary), indent=1, allow_nan=False) + "\n"
        )

    def read_summary(self) -> dict[str, Any] | None:
        """The content of summary.json, None where the run is not done.

        Raises:
            RunDirectoryDamaged: it is not JSON.
        """
        path = self.path / "summary.json"
        try:
            content: dict[str, Any] = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise RunDirectoryDamaged(f"{path} is not JSON ({error}): resume the run, which writes it again") from error
        return content


def _holds_no_run(path: Path) -> bool:
    if not path.is_dir() or not {entry.name for entry in path.iterdir()} <= {"attempts", "checkpoints", ".lock"}:
        return False
    return not any(any((path / name).glob("*")) for name in ("attempts", "checkpoints"))


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say which run directory cannot be written, and what to do. Other errors, such as a full disk's, pass."""
    try:
        yield
    except FileExistsError as error:
        raise RunDirectoryUnwritable(
            f"run directory {path}: {error.filename} is a file: name another directory"
        ) from error
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        raise RunDirectoryUnwritable(
            f"run directory {path} cannot be written: {error.strerror}: name a directory where you may write"
        ) from error


def _holder_name(path: Path) -> str:
    try:
        holder = json.loads(path.read_bytes())
        return f"process {holder['pid']} on {holder['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
