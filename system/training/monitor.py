"""What a run tells while it goes on: metrics, rows of ``metrics.jsonl``, callbacks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from ...actors.work import Scores
from ...learners.learner import UpdateStats
from ...learners.replay import Replay
from ..callbacks import Callback, Progress
from ..coordinate import Committed, Figures
from ..metrics import recorder as m
from ..metrics.recorder import MetricsRecorder

_REPORT_SECONDS = 0.5
_SILENCE_SECONDS = 60.0
_MUCH_CLIPPED = 0.05
"""Share of the targets between two reports above which the range is said to be wrong."""


class RunMonitor:
    """Takes in what happens, and tells of it at a bounded rate.

    Args:
        recorder: of metrics.
        callbacks: told of progress and evaluations.
        log: writes a row of metrics.
        clipping_advice: told once, after their share, when many targets are outside the range.
    """

    def __init__(
        self,
        recorder: MetricsRecorder,
        callbacks: Sequence[Callback],
        log: Callable[[Mapping[str, Any]], None],
        clipping_advice: str = "are outside the range",
    ) -> None:
        self._recorder = recorder
        self._callbacks = callbacks
        self._log = log
        self._reported_at = 0.0
        self._restarts = self._failed = 0
        self._last_result = (0, time.monotonic())
        self._dropped = 0
        self._clipping_advice = clipping_advice
        self._clipping_told = False
        self._targets = np.zeros(2)
        self._targets_reported = np.zeros(2)
        self._ages = np.zeros(2)
        self._oldest = 0

    @contextmanager
    def timed(self, phase: str) -> Iterator[None]:
        """Count the time within as this phase's."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._recorder.count(m.PHASE_SECONDS, time.perf_counter() - started, phase=phase)

    def played(self, steps: int, episodes: int, return_sum: float, length_sum: float) -> None:
        """Steps were committed, and among them the ends of so many episodes."""
        self._recorder.count(m.ENV_STEPS, steps)
        if episodes:
            self._recorder.count(m.EPISODES, episodes)
            self._recorder.set(m.EPISODE_RETURN, return_sum / episodes)
            self._recorder.set(m.EPISODE_LENGTH, length_sum / episodes)

    def arrived(self, committed: Iterable[Committed]) -> None:
        """Results went to the sink."""
        for each in committed:
            if each.kind == "rollout":
                self._ages += (each.samples, each.samples * each.staleness)
                self._oldest = max(self._oldest, each.staleness)

    def updated(self, stats: UpdateStats) -> None:
        """The learner made an update."""
        self._recorder.count(m.LEARNER_UPDATES, 1)
        self._recorder.count(m.TARGETS, stats.stats["targets"])
        self._recorder.count(m.TARGETS_CLIPPED, stats.stats["targets_clipped"])
        self._targets += stats.stats["targets"], stats.stats["targets_clipped"]
        self._recorder.set(m.LEARNER_LOSS, stats.stats["loss"])
        self._recorder.set(m.GRADIENT_NORM, stats.gradient_norm)
        self._recorder.set(m.LEARNING_RATE, stats.learning_rate)

    def published(self, version: int) -> None:
        """A version of the weights went out."""
        self._recorder.set(m.POLICY_VERSION, version)

    def checkpointed(self, seconds: float) -> None:
        """A checkpoint was written in this time."""
        self._recorder.observe(m.CHECKPOINT_SECONDS, seconds)

    def evaluated(self, standing: Progress, version: int, scores: Scores) -> None:
        """An evaluation of this version is in. ``standing`` needs no metrics, here and below."""
        told = {"mean_return": float(scores["return"].mean()), "mean_length": float(scores["length"].mean())}
        self._recorder.set(m.EVALUATION_RETURN, told["mean_return"])
        self._log({**self._row(standing), "evaluation": told, "evaluated_version": version})
        for callback in self._callbacks:
            callback.on_evaluation(self._with_metrics(standing), told)

    def report_is_due(self) -> bool:
        """Whether it is time for `report`."""
        return time.monotonic() - self._reported_at >= _REPORT_SECONDS

    def report(self, standing: Progress, figures: Figures, replay: Replay) -> None:
        """Export, log and tell where the run stands."""
        self._reported_at = time.monotonic()
        self._recorder.set(m.REPLAY_SIZE, len(replay))
        if replay.inserted:
            self._recorder.set(m.SAMPLES_PER_INSERT, replay.sampled / replay.inserted)
        if self._ages[0]:
            self._recorder.set(m.ROLLOUT_AGE_MEAN, self._ages[1] / self._ages[0])
            self._recorder.set(m.ROLLOUT_AGE_MAX, self._oldest)
            self._ages, self._oldest = np.zeros(2), 0
        self._recorder.set(m.QUEUE_RESULTS, figures.results_waiting)
        self._recorder.set(m.ASSIGNMENTS_IN_FLIGHT, figures.in_flight)
        self._recorder.set(m.POLICY_STALENESS, figures.staleness)
        self._recorder.set(m.WORKERS, figures.workers)
        self._recorder.count(m.WORKER_RESTARTS, figures.worker_restarts - self._restarts)
        self._recorder.count(m.PIECES_FAILED, figures.failed - self._failed)
        self._failed = figures.failed
        self._recorder.count(m.RESULTS_DROPPED, figures.dropped - self._dropped)
        if figures.worker_restarts > self._restarts:
            self._say(f"a worker was lost and is replaced ({figures.worker_restarts} so far): its work is done again")
        self._restarts, self._dropped = figures.worker_restarts, figures.dropped
        self._watch(figures)
        self._watch_targets()
        self._recorder.flush()
        self._log(self._row(standing))
        for callback in self._callbacks:
            callback.on_progress(self._with_metrics(standing))

    def _watch(self, figures: Figures) -> None:
        committed, since = self._last_result
        silent = time.monotonic() - since
        if figures.committed != committed or not figures.in_flight:
            self._last_result = (figures.committed, time.monotonic())
        elif silent >= _SILENCE_SECONDS:
            self._say(f"no result for {silent:.0f} s from work that is in hand: an environment may hang")
            self._last_result = (committed, time.monotonic())

    def share_clipped(self) -> float | None:
        """Share of all targets so far that were outside the range, in [0, 1]; None where there were none."""
        return float(self._targets[1] / self._targets[0]) if self._targets[0] else None

    def _watch_targets(self) -> None:
        targets, clipped = self._targets - self._targets_reported
        if not targets:
            return
        self._targets_reported = self._targets.copy()
        self._recorder.set(m.TARGETS_CLIPPED_RATIO, clipped / targets)
        if clipped > _MUCH_CLIPPED * targets and not self._clipping_told:
            self._clipping_told = True
            self._say(f"{clipped / targets:.1%} of the targets {self._clipping_advice}")

    def _say(self, text: str) -> None:
        for callback in self._callbacks:
            callback.on_message(text)

    def state_dict(self) -> dict[str, Any]:
        """The totals, as JSON values."""
        return {
            "metrics": self._recorder.state_dict(),
            "dropped": self._dropped,
            "targets": self._targets.tolist(),
            "clipping_told": self._clipping_told,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the totals go on."""
        self._recorder.load_state_dict(state["metrics"])
        self._dropped = state["dropped"]
        # Checkpoints of earlier versions count none.
        self._targets = np.array(state.get("targets", [0.0, 0.0]))
        self._targets_reported = self._targets.copy()
        self._clipping_told = state.get("clipping_told", False)

    def _row(self, standing: Progress) -> dict[str, Any]:
        where = {"step": standing.updates, "seconds": round(standing.seconds, 3), "share": round(standing.share, 5)}
        return {**where, **self._recorder.snapshot()}

    def _with_metrics(self, standing: Progress) -> Progress:
        return replace(standing, metrics=self._recorder.snapshot())
