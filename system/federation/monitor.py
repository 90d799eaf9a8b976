"""What a federation tells while it goes on: metrics, rows of ``metrics.jsonl``, callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ..callbacks import Callback, Progress
from ..coordinate import Committed, Figures
from ..metrics import recorder as m
from ..metrics.recorder import MetricsRecorder
from .model_sink import ClientScores

if TYPE_CHECKING:
    from .server import Standing

_REPORT_SECONDS = 0.5
_MOST_GROUPS = 32
PHASE = "federation"
"""What callbacks are told as the phase."""


class ClientLabels:
    """The metrics' label of each client: its own name for the first few, and its group's for all others.

    There are at most ``most + 33`` labels: a group may be a single client, and so groups count too.

    Args:
        groups: each client's group, by the client's name.
        most: clients that keep their own name.
    """

    def __init__(self, groups: Mapping[str, str], most: int) -> None:
        self._groups = groups
        self._own = set(list(groups)[:most])
        self._known = set(list(dict.fromkeys(groups.values()))[:_MOST_GROUPS])

    def of(self, client: str) -> str:
        """A client's label; clients that nobody announced, and those of one group too many, share one."""
        if client in self._own:
            return client
        group = self._groups.get(client)
        return group if group is not None and group in self._known else "other"


class FederationMonitor:
    """Takes in what happens, and tells of it at a bounded rate.

    Args:
        recorder: of metrics.
        callbacks: told of progress, evaluations, and what went wrong.
        log: writes a row of metrics.
        labels: of clients.
        in_real_time: whether run seconds are seconds; off in a simulation, which tells of evaluations alone.
    """

    def __init__(
        self,
        recorder: MetricsRecorder,
        callbacks: Sequence[Callback],
        log: Callable[[Mapping[str, Any]], None],
        labels: ClientLabels,
        *,
        in_real_time: bool = True,
    ) -> None:
        self.in_real_time = in_real_time
        self._recorder = recorder
        self._callbacks = callbacks
        self._log = log
        self._labels = labels
        self._reported_at = 0.0
        self._restarts = 0
        self._dropped = 0
        self._late = 0
        self._refused = 0

    def say(self, text: str) -> None:
        """Tell a person one line."""
        for callback in self._callbacks:
            callback.on_message(text)

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count the time within as this phase's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._recorder.count(m.PHASE_SECONDS, time.perf_counter() - started, phase=phase)

    def applied(self, one: Committed) -> None:
        """An update was applied."""
        label = self._labels.of(one.token.worker)
        self._recorder.count(m.FEDERATION_UPDATES, 1, client_group=label)
        self._recorder.count(m.FEDERATION_STEPS, one.amount, client_group=label)
        self._recorder.observe(m.FEDERATION_STALENESS, max(one.staleness, 0))
        if (seconds := one.stats.get("seconds_per_step")) is not None:
            self._recorder.set(m.FEDERATION_STEP_SECONDS, seconds, client_group=label)

    def client_evaluated(self, scores: ClientScores) -> None:
        """A client evaluated the global model on its own data."""
        if "score" in scores.scores:
            self._recorder.set(m.CLIENT_SCORE, scores.scores["score"], client_group=self._labels.of(scores.worker))

    def evaluated(self, standing: Standing, scores: Mapping[str, float]) -> None:
        """The server, or all clients together, evaluated the global model."""
        self._recorder.set(m.FEDERATION_SCORE, scores["score"])
        row = {**self._row(standing, standing.share), "evaluation": dict(scores)}
        self._log({**row, "evaluated_version": standing.evaluated_version, "evaluated_at": standing.evaluated_at})
        for callback in self._callbacks:
            callback.on_evaluation(self._progress(standing), scores)

    def checkpointed(self, seconds: float) -> None:
        """A checkpoint was written in this time."""
        self._recorder.observe(m.CHECKPOINT_SECONDS, seconds)

    def report_if_due(self, standing: Standing, figures: Figures) -> None:
        """`report` at a bounded rate; never in a simulation."""
        if self.in_real_time and time.monotonic() - self._reported_at >= _REPORT_SECONDS:
            self.report(standing, figures)

    def report(self, standing: Standing, figures: Figures) -> None:
        """Export, log and tell where the federation stands."""
        self._reported_at = time.monotonic()
        self._recorder.set(m.FEDERATION_VERSION, standing.version)
        self._recorder.set(m.QUEUE_RESULTS, figures.results_waiting)
        self._recorder.set(m.ASSIGNMENTS_IN_FLIGHT, figures.in_flight)
        self._recorder.set(m.WORKERS, figures.workers)
        self._recorder.count(m.WORKER_RESTARTS, max(figures.worker_restarts - self._restarts, 0))
        self._recorder.count(m.RESULTS_DROPPED, max(figures.dropped - self._dropped, 0))
        self._recorder.count(m.RESULTS_LATE, max(figures.late_results - self._late, 0))
        self._restarts, self._dropped = figures.worker_restarts, figures.dropped
        self._recorder.count(m.RESULTS_REFUSED, max(figures.refused - self._refused, 0))
        self._late, self._refused = figures.late_results, figures.refused
        self._recorder.flush()
        self._log(self._row(standing, standing.share))
        for callback in self._callbacks:
            callback.on_progress(self._progress(standing))

    def state_dict(self) -> dict[str, Any]:
        """The totals, as JSON values."""
        return {"metrics": self._recorder.state_dict(), "dropped": self._dropped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the totals go on."""
        self._recorder.load_state_dict(state["metrics"])
        self._dropped = state["dropped"]

    def _row(self, standing: Standing, share: float) -> dict[str, Any]:
        where = {"step": standing.version, "seconds": round(standing.seconds, 3), "share": round(share, 5)}
        return {**where, **self._recorder.snapshot()}

    def _progress(self, standing: Standing) -> Progress:
        return Progress(
            share=standing.share,
            phase=PHASE,
            seconds=standing.seconds,
            updates=standing.updates,
            env_steps=standing.local_steps,
            version=standing.version,
            metrics=self._recorder.snapshot(),
        )
