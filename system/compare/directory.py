"""The directory of a comparison: its settings, its runs, and what each came to.

::

    comparison.json        the settings
    sessions.json          how long it was worked on, and how many runs were made in that time
    results/<trial>.json   what a run came to, once it is done
    runs/<trial>/          its run directory
    compare.json           the tables, once all is done
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import filelock
from pydantic import ValidationError

from ..config.files import ResumeRefused
from ..config.problems import shown
from ..reports.groups import flatten
from ..runs.atomic_files import create_numbered, remove_leftovers, write_atomically
from ..runs.attempts import without_infinities
from ..runs.checkpoints import installed_versions
from ..runs.errors import RunDirectoryDamaged, RunDirectoryExists, RunDirectoryInUse
from .config import CompareConfig
from .plan import Result, Trial

_FORMAT = 1
_SETTINGS = "comparison.json"
_MAY_DIFFER = (["ray"], ["metrics"])
"""Parts of the tables' bases that do not change what runs come to."""
_MOST_CHANGES = 5


class ComparisonDirectory:
    """A comparison's directory that is there. `begin_or_continue` gives one."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def begin_or_continue(cls, path: Path, config: CompareConfig) -> ComparisonDirectory:
        """A new one at ``path``, or the one that is there.

        Raises:
            RunDirectoryExists: there is something else.
            RunDirectoryDamaged: its settings cannot be read.
            ResumeRefused: its settings are others.
            OSError: it cannot be made there.
        """
        settings = path / _SETTINGS
        if settings.exists():
            _check_same(settings, config)
        elif path.exists() and (not path.is_dir() or any(entry.name != ".lock" for entry in path.iterdir())):
            raise RunDirectoryExists(f"{path} is there already and holds no comparison: name another directory")
        path.mkdir(parents=True, exist_ok=True)
        # The settings first: a directory without them, left by a full disk or a kill, could not be begun in again.
        if not settings.exists():
            content = {
                "format": _FORMAT,
                "versions": installed_versions(),
                "settings": config.model_dump(mode="json"),
            }
            write_atomically(settings, json.dumps(content, indent=1) + "\n")
        for name in ("results", "runs"):
            (path / name).mkdir(exist_ok=True)
        return cls(path)

    @classmethod
    def begin_next(cls, parent: Path, config: CompareConfig) -> ComparisonDirectory:
        """A new one at the first ``parent/compare-<k>`` that is free."""
        parent.mkdir(parents=True, exist_ok=True)
        return cls.begin_or_continue(create_numbered(parent, "compare-", 1)[1], config)

    @contextmanager
    def hold(self) -> Iterator[None]:
        """Be the one process at work here. Raises RunDirectoryInUse where another one is."""
        lock = filelock.FileLock(self.path / ".lock", timeout=0, thread_local=False)
        try:
            lock.acquire()
        except filelock.Timeout as error:
            raise RunDirectoryInUse(
                f"{self.path} is in use by another comparison: wait until it is done, or name another directory"
            ) from error
        try:
            remove_leftovers(self.path)
            remove_leftovers(self.path / "results")
            yield
        finally:
            lock.release()

    def changed_versions(self) -> list[str]:
        """What is installed in another version than when the comparison began: ``name: then -> now``."""
        now: Mapping[str, str] = installed_versions()
        then: Mapping[str, str] = _read(self.path / _SETTINGS)["versions"]
        names = sorted(now.keys() | then.keys())
        return [
            f"{name}: {then.get(name, 'none')} -> {now.get(name, 'none')}"
            for name in names
            if now.get(name) != then.get(name)
        ]

    def run_dir(self, trial: Trial) -> Path:
        """Where a run is, or would be."""
        return self.path / "runs" / trial.name

    def result(self, trial: Trial) -> Result | None:
        """What a run came to, None where it is not done.

        Raises:
            RunDirectoryDamaged: the file is not as it was written.
        """
        path = self._result_file(trial)
        if not path.exists():
            return None
        content = _read(path)
        try:
            return Result(**{**content, "never_seen_returns": tuple(content["never_seen_returns"])})
        except (KeyError, TypeError) as error:
            raise RunDirectoryDamaged(f"{path} holds no result: remove it, and its run is made again") from error

    def write_result(self, trial: Trial, result: Result) -> None:
        """Write what a run came to, whole or not at all."""
        write_atomically(self._result_file(trial), json.dumps(asdict(result)) + "\n")

    def sessions(self) -> list[dict[str, float]]:
        """``seconds, runs`` of each time that the comparison was worked on, up to its last result."""
        path = self.path / "sessions.json"
        sessions: list[dict[str, float]] = _read(path)["sessions"] if path.exists() else []
        return sessions

    def write_sessions(self, sessions: Sequence[Mapping[str, float]]) -> None:
        """Write what `sessions` gives."""
        write_atomically(self.path / "sessions.json", json.dumps({"sessions": list(sessions)}) + "\n")

    def write_outcome(self, outcome: Mapping[str, Any]) -> Path:
        """Write compare.json, whole or not at all, and say where it is."""
        path = self.path / "compare.json"
        write_atomically(path, json.dumps(without_infinities(outcome), indent=1, allow_nan=False) + "\n")
        return path

    def _result_file(self, trial: Trial) -> Path:
        return self.path / "results" / f"{trial.name}.json"


def _check_same(settings: Path, config: CompareConfig) -> None:
    content = _read(settings)
    try:
        if content["format"] != _FORMAT:
            raise RunDirectoryDamaged(f"{settings} is of another version of Isogon: begin a new comparison")
        before = CompareConfig.model_validate(content["settings"])
    except (KeyError, ValidationError) as error:
        raise RunDirectoryDamaged(f"{settings} is not as it was written: begin a new comparison") from error
    then, now = (flatten(one.model_dump(mode="json")) for one in (before, config))
    changed = [
        f"{key}: {shown(then.get(key))} -> {shown(now.get(key))}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key) != now.get(key) and key.split(".")[2:3] not in _MAY_DIFFER
    ]
    if changed:
        raise ResumeRefused(
            f"{settings.parent} holds a comparison with other settings, and {'; '.join(changed[:_MOST_CHANGES])}: "
            "leave that as it was, or name another directory"
        )


def _read(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunDirectoryDamaged(f"{path} is not JSON ({error}): remove it, or begin a new comparison") from error
    if not isinstance(content, dict):
        raise RunDirectoryDamaged(f"{path} holds no mapping: remove it, or begin a new comparison")
    return content
