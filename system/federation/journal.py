"""The journal: every event since the last checkpoint, on disk, so that a killed server knows what it had heard.

A scheduler is a state machine: told the same events again, it says what it said before. One file a checkpoint, one
JSON line an event. A line torn by a kill is the last one, and nobody was told of its event.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast, get_args

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
        self._file: BinaryIO | None = None

    def begin(self, checkpoint: CheckpointRef) -> None:
        """Begin the journal of what follows this checkpoint, and forget the older ones: the checkpoint holds them."""
        self.close()
        path = self._path(checkpoint)
        self._file = path.open("wb")
        sync_folder(self._folder)
        for other in self._folder.glob("*.jsonl"):
            if other != path:
                other.unlink()

    def observe(self, time: float, what: Event | Command) -> None:
        """Write an event down. An arrival is on disk when this returns: what is acknowledged after it is not lost."""
        if self._file is None or not isinstance(what, _EVENTS):
            return
        self._file.write(json.dumps(event_to_json(cast(Event, what))).encode() + b"\n")
        self._file.flush()
        if isinstance(what, Arrived):
            os.fsync(self._file.fileno())

    def read(self, checkpoint: CheckpointRef, warn: Callable[[str], None]) -> list[Event]:
        """The events since a checkpoint; none where its journal is gone, or from a damaged line on.

        Args:
            checkpoint: which.
            warn: is told in one line where something is missing.
        """
        path = self._path(checkpoint)
        events: list[Event] = []
        try:
            lines = path.read_bytes().split(b"\n")
        except FileNotFoundError:
            warn(f"{path} is missing: what happened since checkpoint {checkpoint.name} is lost")
            return events
        for number, line in enumerate(lines[:-1], 1):
            try:
                events.append(event_from_json(json.loads(line)))
            except (ValueError, AttributeError) as error:
                warn(f"{path}, line {number} cannot be read ({error}): what happened from there on is lost")
                break
        return events

    def close(self) -> None:
        """Close the file. May be called twice."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def _path(self, checkpoint: CheckpointRef) -> Path:
        return self._folder / f"{checkpoint.name}.jsonl"
