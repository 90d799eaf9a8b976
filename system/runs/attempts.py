"""Attempts: the processes that worked on a run, one after the other, and which of their work counts.

::

    attempts/<n>/attempt.json        which checkpoint the n-th started from, when and where
    attempts/<n>/metrics.jsonl       one line per row

What counts is the newest attempt's *line*: its own work, that of the attempt that it started from up to that
checkpoint, and so on. So an attempt that was believed dead and is not can write, and is never read.
"""

from __future__ import annotations

import json
import math
import os
import re
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..machine import describe_machine
from .atomic_files import create_numbered, sync_folder, write_atomically
from .checkpoints import CheckpointRef, installed_versions
from .errors import RunDirectoryDamaged


@dataclass(frozen=True)
class Attempt:
    """One process's work on a run.

    Attributes:
        number: 1, 2, ... in the order in which they were claimed.
        start: the checkpoint that it started from, None for the beginning.
        started: date and time in UTC, ISO 8601.
        host: where it runs.
        pid: its process there.
        versions: of isogon and of what it stands on, by name.
        machine: in words; empty where an older version wrote the attempt.
    """

    number: int
    start: CheckpointRef | None
    started: str
    host: str
    pid: int
    versions: dict[str, str]
    machine: str = ""


def claim_attempt(folder: Path, start: CheckpointRef | None) -> Attempt:
    """Begin an attempt in ``attempts/``. Its number is above all others, and no two processes get the same.

    Raises:
        OSError: it could not be written; a number without attempt.json may be left, which counts for nothing.
    """
    number, own = create_numbered(folder, "", max(_numbers(folder), default=0) + 1)
    sync_folder(folder)
    attempt = Attempt(
        number=number,
        start=start,
        started=datetime.now(UTC).isoformat(timespec="seconds"),
        host=socket.gethostname(),
        pid=os.getpid(),
        versions=installed_versions(),
        machine=describe_machine(),
    )
    content = {**vars(attempt), "start": start.name if start else None}
    write_atomically(own / "attempt.json", json.dumps(content, indent=1) + "\n")
    return attempt


def read_attempt(folder: Path, number: int) -> Attempt:
    """The attempt of this number in ``attempts/``.

    Raises:
        RunDirectoryDamaged: its attempt.json cannot be read.
    """
    path = folder / str(number) / "attempt.json"
    try:
        content = json.loads(path.read_bytes())
        start = CheckpointRef.parse(content["start"]) if content["start"] is not None else None
        if start is not None and start.attempt >= number:
            raise ValueError(f"it starts from {start.name}, a checkpoint of no earlier attempt")
        # A newer version may have written more than is known here.
        known = {field.name: content[field.name] for field in fields(Attempt) if field.name in content}
        return Attempt(**{**known, "start": start})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise RunDirectoryDamaged(
            f"{path} cannot be read ({error}): remove the folder {path.parent} to go on without that attempt"
        ) from error


def attempt_line(folder: Path) -> list[tuple[int, float]]:
    """The attempts whose work counts, newest first, each with the last step of it that does (infinity for all).

    An attempt that was killed before its attempt.json stood has done nothing, and is passed over.

    Raises:
        RunDirectoryDamaged: the line cannot be followed.
    """
    line: list[tuple[int, float]] = []
    number = max((n for n in _numbers(folder) if (folder / str(n) / "attempt.json").exists()), default=None)
    last = math.inf
    while number is not None:
        line.append((number, last))
        start = read_attempt(folder, number).start
        number, last = (start.attempt, start.step) if start else (None, last)
    return line


def append_row(folder: Path, number: int, row: Mapping[str, Any]) -> None:
    """Add one line to an attempt's metrics.jsonl.

    Raises:
        ValueError: ``row["step"]``, the learner updates so far, is no int.
    """
    if type(row.get("step")) is not int:
        raise ValueError(f"row has the step {row.get('step')!r}: expected the learner updates so far, an int")
    line = json.dumps(without_infinities(row), allow_nan=False) + "\n"
    with (folder / str(number) / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(line)


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows that count, oldest first, as if there had been one attempt. A torn line is left out.

    Raises:
        RunDirectoryDamaged: the line cannot be followed.
    """
    rows: list[dict[str, Any]] = []
    for number, last in reversed(attempt_line(folder)):
        rows += [row for row in _whole_rows(folder / str(number) / "metrics.jsonl") if row["step"] <= last]
    return rows


def without_infinities(value: Any) -> Any:
    """JSON values with None for each number that JSON has no form of: NaN and the infinities."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: without_infinities(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [without_infinities(item) for item in value]
    return value


def _numbers(folder: Path) -> list[int]:
    return [int(entry.name) for entry in folder.iterdir() if re.fullmatch(r"[1-9]\d*", entry.name, re.ASCII)]


def _whole_rows(path: Path) -> Iterator[dict[str, Any]]:
    if not path.exists():
        return
    for line in path.read_bytes().splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict) and type(row.get("step")) is int:
            yield row
