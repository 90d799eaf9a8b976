"""The timeline on disk: rows of ``timeline.jsonl`` in an attempt's folder, and which of them count.

Spans are kept until the next checkpoint and written just before it, each with the checkpoint's step. What ended after
the last checkpoint ends again when its journal is replayed, and is told of then; so a row counts where the line of
attempts goes through a checkpoint of its step or a later one, as a row of metrics does.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

from ..runs.attempts import Attempt
from ..runs.directory import RunDirectory
from .timeline import TIMELINE, Span


class SpanLog:
    """Spans on their way to an attempt's timeline.

    Args:
        path: of the file; appended to.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spans: list[Span] = []

    def take(self, span: Span) -> None:
        """Keep a span until `write`."""
        self._spans.append(span)

    def write(self, step: int) -> None:
        """Write what was taken since the last call, as of the checkpoint of this step.

        Raises:
            OSError: it could not be written.
        """
        spans, self._spans = self._spans, []
        with self._path.open("ab") as file:
            file.write(b"".join(json.dumps({**span.to_json(), "step": step}).encode() + b"\n" for span in spans))
            file.flush()
            os.fsync(file.fileno())


def read_spans(directory: RunDirectory) -> tuple[list[Span], list[str]]:
    """The pieces that have ended, each once, in the order of their beginning.

    Returns:
        The spans, and in a sentence for each file what of it cannot be read. What a kill tore off does not count.

    Raises:
        RunDirectoryDamaged: which attempts count cannot be told.
    """
    attempts: Sequence[Attempt] = directory.read_attempts()
    found: dict[str, Span] = {}
    notes = []
    for attempt, follower in zip_longest(attempts, attempts[1:]):
        path = directory.log_path(attempt).with_name(TIMELINE)
        last = follower.start.step if follower is not None and follower.start is not None else math.inf
        rows, spoilt = _read_rows(path)
        found |= {span.token: span for step, span in rows if step <= last}
        if spoilt:
            notes.append(f"{spoilt:,} of {spoilt + len(rows):,} lines of {path} cannot be read and are left out.")
    return sorted(found.values(), key=lambda span: span.begun), notes


def _read_rows(path: Path) -> tuple[list[tuple[int, Span]], int]:
    """Steps and spans, and how many lines are neither."""
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
    except FileNotFoundError:
        return [], 0
    rows = [row for line in lines if (row := _row(line)) is not None]
    return rows, len(lines) - len(rows)


def _row(line: bytes) -> tuple[int, Span] | None:
    try:
        values: dict[str, Any] = json.loads(line)
        step, span = values.pop("step"), Span.from_json(values)
        times = [span.begun, span.ended] if span.arrived is None else [span.begun, span.arrived, span.ended]
        counts = (step, span.amount, span.version, span.staleness)
        sound = (
            all(map(math.isfinite, [*times, span.weight, span.compute_seconds, span.link_seconds]))
            and times == sorted(times)
            and isinstance(span.worker, str)
            and isinstance(span.token, str)
            and all(type(count) is int and count >= 0 for count in counts)
            and span.outcome in ("applied", "dropped")
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return (step, span) if sound else None
