"""The journal: every event since the last checkpoint, on disk, so that a killed server knows what it had heard.

A scheduler is a state machine: told the same events again, it says what it said before. One file a checkpoint, one
line an event, which a checksum begins. It is there before its checkpoint is, so one that is missing was lost. A line
torn by a kill is the last one, and nobody was told of its event.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable
from io import FileIO
from pathlib import Path
from typing import cast, get_args

from ...schedulers.events import Arrived, Command, Event, event_from_json, event_to_json
from ..runs.atomic_files import sync_folder
from ..runs.checkpoints import CheckpointRef

_EVENTS: tuple[type, ...] = get_args(Event)


class Journal:
    """Journals of a run, in a folder of their own.

    Args:
        folder: made where it is missing.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._file: FileIO | None = None

    def prepare(self, checkpoint: CheckpointRef) -> None:
        """Make the journal of what will follow this checkpoint, which is not written yet."""
        self._path(checkpoint).touch()
        sync_folder(self._folder)

    def begin(self, checkpoint: CheckpointRef) -> None:
        """Write on in the journal of this checkpoint, and forget the older ones: the checkpoint holds them."""
        self.close()
        path = self._path(checkpoint)
        self._file = path.open("r+b", buffering=0)
        for other in self._folder.glob("*.jsonl"):
            if other != path:
                other.unlink()

    def observe(self, time: float, what: Event | Command) -> None:
        """Write an event down. An arrival is on disk when this returns: what is acknowledged after it is not lost.

        Raises:
            OSError: it could not be written. What was written before it stands.
        """
        if self._file is None or not isinstance(what, _EVENTS):
            return
        line = memoryview(_sealed(json.dumps(event_to_json(cast(Event, what))).encode()))
        while line:
            line = line[self._file.write(line) :]
        if isinstance(what, Arrived):
            os.fsync(self._file.fileno())

    def read(self, checkpoint: CheckpointRef, warn: Callable[[str], None]) -> tuple[list[Event], bool]:
        """The events since a checkpoint; none where its journal is gone, and only those before a damaged line.

        Args:
            checkpoint: which.
            warn: is told in one line where something is missing.

        Returns:
            The events, and whether that is all of them.
        """
        path = self._path(checkpoint)
        events: list[Event] = []
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            warn(f"{path} is missing: what happened since checkpoint {checkpoint.name} is lost")
            return events, False
        for number, line in enumerate(lines[:-1], 1):
            try:
                events.append(event_from_json(json.loads(_opened(line))))
            except ValueError as error:
                warn(f"{path}, line {number} cannot be read ({error}): what happened from there on is lost")
                return events, False
        return events, True

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _path(self, checkpoint: CheckpointRef) -> Path:
        return self._folder / f"{checkpoint.name}.jsonl"


def _sealed(content: bytes) -> bytes:
    return b"%08x %s\n" % (zlib.crc32(content), content)


def _opened(line: bytes) -> bytes:
    checksum, _, content = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(content):
        raise ValueError("it is not as it was written")
    return content
