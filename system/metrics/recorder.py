"""Every metric of Isogon, defined once, and how the figures get out.

Names are ``isogon_<subsystem>_<thing>_<unit>[_total]`` in base units; labels come from a bounded set. Lower floors
return plain numbers; a `MetricsRecorder` takes them in, at the price of an addition, and hands them to an exporter when
it is flushed (see `system.metrics.exporters`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

LABELS = ("run", "phase", "role", "client_group")
"""All labels that there are. Each takes few values; ``run`` is the recorder's and on every metric."""


@dataclass(frozen=True, eq=False)
class Metric:
    """One metric. Two are never the same.

    Attributes:
        name: for Prometheus and in ``metrics.jsonl``; a counter's ends in ``_total``.
        kind: a counter only goes up, a gauge is as it was last set, a histogram counts values by size.
        unit: in the plural; ``"1"`` for a plain number.
        help: what it says, for a person, in one line.
        labels: that each figure of it has beside ``run``.
        boundaries: of a histogram's buckets, in its unit, increasing and above 0.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    unit: str
    help: str
    labels: tuple[str, ...] = ()
    boundaries: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        """Check that the names keep the rules. Raises ValueError."""
        if not re.fullmatch(r"isogon(_[a-z]+)+", self.name) or self.name.endswith("_total") != (self.kind == "counter"):
            raise ValueError(
                f"metric {self.name!r}: expected isogon_..., and _total at the end of a counter's name only"
            )
        if not set(self.labels) <= set(LABELS[1:]):
            raise ValueError(f"metric {self.name!r} has the labels {self.labels}: expected some of {LABELS[1:]}")
        rising = all(low < high for low, high in zip((0.0, *self.boundaries), self.boundaries, strict=False))
        if bool(self.boundaries) != (self.kind == "histogram") or not rising:
            raise ValueError(
                f"metric {self.name!r} has the boundaries {self.boundaries}: a histogram's, from above 0 up"
            )


ENV_STEPS = Metric("isogon_env_steps_total", "counter", "steps", "Environment steps that actors played")
EPISODES = Metric("isogon_episodes_total", "counter", "episodes", "Episodes that actors finished")
EPISODE_RETURN = Metric("isogon_episode_return", "gauge", "1", "Mean return of the newest finished episodes")
EPISODE_LENGTH = Metric("isogon_episode_length_steps", "gauge", "steps", "Mean length of the newest finished episodes")
EVALUATION_RETURN = Metric("isogon_evaluation_return", "gauge", "1", "Mean return of the newest evaluation, greedy")

LEARNER_UPDATES = Metric("isogon_learner_updates_total", "counter", "updates", "Optimiser steps")
LEARNER_LOSS = Metric("isogon_learner_loss_nats", "gauge", "nats", "Loss of the newest update")
GRADIENT_NORM = Metric("isogon_learner_gradient_norm", "gauge", "1", "Norm of the newest gradient, before clipping")
LEARNING_RATE = Metric("isogon_learner_learning_rate", "gauge", "1", "Learning rate of the newest update")
TARGETS_CLIPPED = Metric(
    "isogon_learner_targets_clipped_total", "counter", "targets", "Targets outside the support, moved to its edge"
)

TARGETS = Metric("isogon_learner_targets_total", "counter", "targets", "Targets learnt from")
TARGETS_CLIPPED_RATIO = Metric(
    "isogon_learner_targets_clipped_ratio",
    "gauge",
    "1",
    "Share of the targets since the last report that were outside the support",
)

REPLAY_SIZE = Metric("isogon_replay_size_transitions", "gauge", "transitions", "Transitions held for sampling")

SAMPLES_PER_INSERT = Metric(
    "isogon_replay_samples_per_insert", "gauge", "1", "Samples given for each transition inserted, in the whole run"
)

WORKERS = Metric("isogon_pool_workers", "gauge", "workers", "Workers that are up")
WORKER_RESTARTS = Metric(
    "isogon_pool_worker_restarts_total", "counter", "restarts", "Workers that were lost and replaced"
)
QUEUE_RESULTS = Metric("isogon_pool_queue_results", "gauge", "results", "Results that wait to be taken in")
ASSIGNMENTS_IN_FLIGHT = Metric(
    "isogon_pool_assignments_in_flight", "gauge", "assignments", "Work handed out, not yet back"
)
RESULTS_DROPPED = Metric("isogon_pool_results_dropped_total", "counter", "results", "Results that were not applied")
PIECES_FAILED = Metric(
    "isogon_pool_pieces_failed_total", "counter", "pieces", "Pieces of work at which an environment or a policy raised"
)
RESULTS_LATE = Metric(
    "isogon_pool_results_late_total", "counter", "results", "Results of work that had ended already, discarded"
)

POLICY_VERSION = Metric("isogon_policy_version", "gauge", "1", "Newest published version of the weights")
POLICY_STALENESS = Metric(
    "isogon_policy_staleness_versions", "gauge", "versions", "Versions between the newest and the one that last acted"
)

ROLLOUT_AGE_MEAN = Metric(
    "isogon_rollout_age_mean_versions",
    "gauge",
    "versions",
    "Versions published while a step was on its way to the learner, mean over the steps since the last report",
)
ROLLOUT_AGE_MAX = Metric(
    "isogon_rollout_age_max_versions", "gauge", "versions", "The same, the oldest step since the last report"
)

RESULTS_REFUSED = Metric(
    "isogon_pool_results_refused_total", "counter", "results", "Results that were not fit to be applied"
)
FEDERATION_VERSION = Metric("isogon_federation_version", "gauge", "1", "Version of the global model")
FEDERATION_SCORE = Metric(
    "isogon_federation_score", "gauge", "1", "Score of the global model at its newest evaluation by the server"
)
FEDERATION_STALENESS = Metric(
    "isogon_federation_staleness_versions",
    "histogram",
    "versions",
    "Versions between the one that an applied update began from and the newest",
    boundaries=(1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0),
)
FEDERATION_UPDATES = Metric(
    "isogon_federation_updates_applied_total", "counter", "updates", "Clients' updates applied", ("client_group",)
)
FEDERATION_STEPS = Metric(
    "isogon_federation_local_steps_total", "counter", "steps", "Clients' local steps applied", ("client_group",)
)
FEDERATION_STEP_SECONDS = Metric(
    "isogon_federation_step_seconds", "gauge", "seconds", "Time of a client for a local step, newest", ("client_group",)
)
CLIENT_SCORE = Metric(
    "isogon_federation_client_score", "gauge", "1", "Score of the global model on clients' own data", ("client_group",)
)

PHASE_SECONDS = Metric(
    "isogon_phase_seconds_total", "counter", "seconds", "Wall-clock time of the learner's rank, by phase", ("phase",)
)
CHECKPOINT_SECONDS = Metric(
    "isogon_checkpoint_seconds",
    "histogram",
    "seconds",
    "Time to write a checkpoint",
    boundaries=(0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0),
)

METRICS: Mapping[str, Metric] = {
    metric.name: metric for metric in list(globals().values()) if isinstance(metric, Metric)
}
"""All metrics by name."""


class Exporter(Protocol):
    """Where figures go. ``labels`` are the metric's, with ``run``."""

    def count(self, metric: Metric, labels: Mapping[str, str], amount: float) -> None:
        """A counter went up by ``amount`` > 0."""
        ...

    def set(self, metric: Metric, labels: Mapping[str, str], value: float) -> None:
        """A gauge is now at ``value``."""
        ...

    def observe(self, metric: Metric, labels: Mapping[str, str], values: Sequence[float]) -> None:
        """A histogram got ``values``."""
        ...

    def close(self) -> None:
        """Nothing more will come. May be called twice."""
        ...


@dataclass(slots=True)
class _Series:
    metric: Metric
    labels: dict[str, str]
    total: float = 0.0
    observations: int = 0
    pending: float = 0.0
    pending_values: list[float] = field(default_factory=list)
    changed: bool = False

    @property
    def key(self) -> str:
        inner = ",".join(f'{name}="{self.labels[name]}"' for name in self.metric.labels)
        return f"{self.metric.name}{{{inner}}}" if inner else self.metric.name


class MetricsRecorder:
    """Takes figures in, keeps a run's totals, and exports when told to. For one thread.

    Args:
        run: the run's name, the label ``run`` of all figures.
        exporter: where they go.
    """

    def __init__(self, run: str, exporter: Exporter) -> None:
        self._run = run
        self._exporter = exporter
        self._series: dict[tuple[Any, ...], _Series] = {}

    def count(self, metric: Metric, amount: float = 1.0, **labels: str) -> None:
        """Make a counter go up.

        Raises:
            ValueError: the metric is not declared here, no counter, or has other labels; ``amount`` is negative or not
                finite.
        """
        series = self._find(metric, "counter", labels)
        if not 0 <= amount < math.inf:
            raise ValueError(f"{metric.name} cannot go up by {amount}: amount must be finite and at least 0")
        series.total += float(amount)
        series.pending += float(amount)

    def set(self, metric: Metric, value: float, **labels: str) -> None:
        """Set a gauge; NaN says that there is no value. Raises ValueError as `count`."""
        series = self._find(metric, "gauge", labels)
        series.total = float(value)
        series.changed = True

    def observe(self, metric: Metric, value: float, **labels: str) -> None:
        """Give a histogram a value. Raises ValueError as `count`."""
        series = self._find(metric, "histogram", labels)
        if not math.isfinite(value):
            raise ValueError(f"{metric.name} cannot observe {value}: value must be finite")
        series.total += float(value)
        series.observations += 1
        series.pending_values.append(float(value))

    def flush(self) -> None:
        """Export what changed since the last flush. Called at a bounded rate, it bounds the price of exporting."""
        for series in self._series.values():
            labels = {"run": self._run, **series.labels}
            if series.pending:
                self._exporter.count(series.metric, labels, series.pending)
                series.pending = 0.0
            if series.changed:
                self._exporter.set(series.metric, labels, series.total)
                series.changed = False
            if series.pending_values:
                self._exporter.observe(series.metric, labels, series.pending_values)
                series.pending_values = []

    def snapshot(self) -> dict[str, float]:
        """The newest figures by name, counters as the run's totals over all attempts.

        A metric with labels has one for each that it took, as in ``name{phase="learning"}``; a histogram has
        ``name_sum`` and ``name_count``.
        """
        figures: dict[str, float] = {}
        for series in self._series.values():
            if series.metric.kind == "histogram":
                name, brace, inner = series.key.partition("{")
                figures[f"{name}_sum{brace}{inner}"] = series.total
                figures[f"{name}_count{brace}{inner}"] = float(series.observations)
            else:
                figures[series.key] = series.total
        return figures

    def close(self) -> None:
        """Flush, and close the exporter."""
        self.flush()
        self._exporter.close()

    def state_dict(self) -> dict[str, Any]:
        """The counters' totals, as JSON values."""
        return {
            "counters": [
                {"name": series.metric.name, "labels": dict(series.labels), "total": series.total}
                for series in self._series.values()
                if series.metric.kind == "counter"
            ]
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Let the totals go on from a state of `state_dict`.

        Only `snapshot` shows it: what is exported counts this process's work, as Prometheus wants a counter to begin at
        0 with its process, so that rates are right across a resume. Counters that are no longer declared are left out.
        """
        for entry in state["counters"]:
            if entry["name"] in METRICS:
                self._find(METRICS[entry["name"]], "counter", entry["labels"]).total = float(entry["total"])

    def _find(self, metric: Metric, kind: str, labels: Mapping[str, str]) -> _Series:
        key = (metric, *sorted(labels.items()))
        series = self._series.get(key)
        if series is None:
            if METRICS.get(metric.name) is not metric:
                raise ValueError(f"metric {metric.name} is not declared in system/metrics/recorder.py")
            if labels.keys() != set(metric.labels):
                raise ValueError(f"{metric.name} has the labels {metric.labels}: got {tuple(labels)}")
            series = _Series(metric, dict(labels))
            self._series[key] = series
        if metric.kind != kind:
            raise ValueError(f"{metric.name} is a {metric.kind}, no {kind}")
        return series
