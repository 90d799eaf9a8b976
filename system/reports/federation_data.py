"""What a report knows of a federation: its run directory, read once, whatever state it is in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..federation.span_log import read_spans
from ..federation.timeline import Span
from ..metrics.recorder import FEDERATION_STEPS
from ..runs.attempts import Attempt
from ..runs.directory import RunDirectory, RunDirectoryDamaged, RunDirectoryMissing
from .curves import Curve, number
from .run_data import State, state_of


@dataclass(frozen=True, eq=False)
class FederationRun:
    """One federation.

    Attributes:
        path: of its directory.
        settings: the content of config.yaml.
        rows: of metrics, oldest first.
        summary: the content of summary.json; None while the run is not done.
        state: whether the run is done, still going, or ended before its end.
        attempts: whose work counts, oldest first.
        spans: the pieces of training that have ended, of all those attempts, oldest first.
        notes: what a reader must know of it, as sentences.
    """

    path: Path
    settings: Mapping[str, Any]
    rows: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any] | None
    state: State
    attempts: Sequence[Attempt]
    spans: Sequence[Span]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the directory."""
        return self.path.resolve().name

    @property
    def newest(self) -> Mapping[str, Any]:
        """The last row of metrics; empty where there is none."""
        return self.rows[-1] if self.rows else {}

    @property
    def seconds(self) -> float:
        """Run seconds so far, as far as is known."""
        told = [number(self.newest, "seconds"), number(self.summary or {}, "federation_seconds")]
        return max(
            [*(second for second in told if second is not None), *(span.ended for span in self.spans)], default=0.0
        )


def read_federation(path: Path) -> FederationRun:
    """Read a federation's run directory. What of it is damaged is left out, and the notes say so.

    Raises:
        RunDirectoryMissing: it is none, or of a training run.
        RunDirectoryDamaged: which attempts count, or what they were to do, cannot be told.
    """
    directory = RunDirectory.open(path)
    settings = directory.read_config()
    if not directory.is_federation:
        raise RunDirectoryMissing(f"run directory {path} is of no federation: its config.yaml has no key strategy")
    attempts = directory.read_attempts()
    summary, damaged = _summary(directory)
    state, note = state_of(directory, summary, attempts, "federate run")
    rows = directory.read_metrics()
    spans, lost = read_spans(directory)
    notes = [note, damaged, *lost]
    if not spans:
        notes.append("No piece of training has ended yet, so nothing is shown of who worked when.")
    elif state != "done":
        notes.append("Who worked when is shown up to the newest checkpoint.")
    return FederationRun(
        path=path,
        settings=settings,
        rows=rows,
        summary=summary if state == "done" else None,
        state=state,
        attempts=attempts,
        spans=spans,
        notes=tuple(filter(None, notes)),
    )


def score_curve(run: FederationRun) -> Curve | None:
    """Scores over run seconds; None before the first evaluation."""
    return _curve([(number(row, "evaluated_at"), _score(row)) for row in run.rows])


def score_over_steps(run: FederationRun) -> Curve | None:
    """Scores over local steps of all clients that were applied; None before the first evaluation."""
    return _curve([(_local_steps(row), _score(row)) for row in run.rows])


def last_score(run: FederationRun) -> float | None:
    """The newest score; None before the first."""
    scores = [score for row in run.rows if (score := _score(row)) is not None]
    return scores[-1] if scores else None


def best_score(run: FederationRun) -> float | None:
    """The best score so far; None before the first."""
    return max((score for row in run.rows if (score := _score(row)) is not None), default=None)


def client_count(settings: Mapping[str, Any]) -> int | None:
    """How many clients take part; None where the config does not tell."""
    participants, groups = settings.get("participants"), settings.get("clients")
    if isinstance(participants, list):
        return len(participants)
    if not isinstance(groups, list):
        return None
    counts = [group.get("count", 1) for group in groups if isinstance(group, Mapping)]
    return sum(count for count in counts if isinstance(count, int)) or None


def _summary(directory: RunDirectory) -> tuple[Mapping[str, Any] | None, str | None]:
    try:
        summary = directory.read_summary()
    except RunDirectoryDamaged as error:
        return None, f"Its summary is left out: {error}."
    if summary is not None and not isinstance(summary, Mapping):
        return None, "Its summary is left out: summary.json holds no mapping."
    return summary, None


def _curve(points: Sequence[tuple[float | None, float | None]]) -> Curve | None:
    known = [(place, score) for place, score in points if place is not None and score is not None]
    if not known:
        return None
    places, scores = np.array(known, np.float64).T
    return Curve(np.maximum.accumulate(places), scores)


def _score(row: Mapping[str, Any]) -> float | None:
    scores = row.get("evaluation")
    return number(scores, "score") if isinstance(scores, Mapping) else None


def _local_steps(row: Mapping[str, Any]) -> float | None:
    counted = [number(row, key) for key in row if key.partition("{")[0] == FEDERATION_STEPS.name]
    return sum(steps for steps in counted if steps is not None) if "evaluation" in row else None
