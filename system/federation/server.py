"""The server's loop: hand out work, take in updates, evaluate, until the budget is used up.

Consumes: the pool's results, through the coordinator and its sink. Produces: versions of the global model, spans of the
timeline, scores, checkpoints. Waits for: the pool. Unblocked by: a result, a timer of the scheduler, or the time of the
next evaluation. Bounded: a client has one piece of training in hand, and what waits for a commit lies in the spool.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ...actors.federation.client import Model
from ...actors.pools.contract import PoolExhausted
from ..coordinate import Committed, Coordinator
from .config import FederationConfig
from .model_sink import ClientScores, GlobalModelSink
from .monitor import FederationMonitor

_WAIT_SECONDS = 0.5
_LAST_EVALUATION_SECONDS = 60.0


@dataclass
class Standing:
    """Where a federation stands; it is in every checkpoint.

    Attributes:
        seconds: run seconds, all attempts together.
        share: of the budget that is used, in [0, 1].
        version: of the global model.
        local_steps: clients' steps that were applied.
        updates: clients' updates that were applied.
        score: of the newest evaluation; None before the first.
        best_score: of all evaluations.
        target_seconds: run seconds when the target was reached; None before.
        evaluated_version: of the newest evaluation.
        evaluated_at: run seconds of it.
        clients_asked_at: run seconds when the clients were last asked to evaluate.
    """

    seconds: float = 0.0
    share: float = 0.0
    version: int = 1
    local_steps: int = 0
    updates: int = 0
    score: float | None = None
    best_score: float | None = None
    target_seconds: float | None = None
    evaluated_version: int = 0
    evaluated_at: float = -math.inf
    clients_asked_at: float = -math.inf

    def to_json(self) -> dict[str, Any]:
        """JSON values: None for what is not finite."""
        return {name: value if value is None or math.isfinite(value) else None for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, state: Mapping[str, Any]) -> Standing:
        """The inverse of `to_json`."""
        never = {name: -math.inf for name in ("evaluated_at", "clients_asked_at") if state[name] is None}
        return cls(**{**state, **never})


@dataclass
class FederationServer:
    """One attempt's loop.

    Attributes:
        config: the federation's.
        coordinator: hands work out.
        sink: holds the global model.
        evaluate: how good a model is by the server's own test data; empty where it has none.
        clock: run seconds.
        monitor: told of all that happens.
        standing: where it stands.
    """

    config: FederationConfig
    coordinator: Coordinator
    sink: GlobalModelSink
    evaluate: Callable[[Model], Mapping[str, float]]
    clock: Callable[[], float]
    monitor: FederationMonitor
    standing: Standing = field(default_factory=Standing)
    _server_evaluates: bool = True
    _work_seen: float = field(default_factory=time.monotonic)
    _client_scores: dict[str, ClientScores] = field(default_factory=dict)

    def run(self) -> None:
        """Work until the budget is used up. The newest version is published already.

        Raises:
            PoolExhausted: no client is left, or none has work any more.
        """
        self._work_seen = time.monotonic()
        self._evaluate_if_due()
        while not self._is_over():
            self._take_in(self.coordinator.step(self._patience()))
            self._evaluate_if_due()
            self._ask_clients_if_due()
            self._check_work()
            self.monitor.report_if_due(self.standing, self.coordinator.figures())

    def close(self) -> None:
        """Commit what waits, drop what is in hand, and evaluate what came of it."""
        self._take_in(self.coordinator.close_work())
        if self.standing.version != self.standing.evaluated_version:
            self._evaluate()
        if not self._server_evaluates:
            self._ask_all_clients()
        self.standing.share = 1.0
        self.monitor.report(self.standing, self.coordinator.figures())

    def _share(self) -> float:
        budget, standing = self.config.budget, self.standing
        limits = (
            (self.clock(), budget.seconds),
            (standing.version - 1, budget.versions),
            (standing.local_steps, budget.local_steps),
        )
        return min(max(done / limit for done, limit in limits if limit is not None), 1.0)

    def _is_over(self) -> bool:
        reached = self.config.budget.target is not None and self.standing.target_seconds is not None
        return reached or self.standing.share >= 1.0

    def _patience(self) -> float:
        """Seconds until something is due that is not the pool's; the clock may be virtual, and then nobody waits."""
        times = [self.clock() + _WAIT_SECONDS] if self.monitor.in_real_time else []
        if self.config.budget.seconds is not None:
            times.append(self.config.budget.seconds)
        every = self.config.evaluation.clients_every_seconds
        if every is not None and not self.coordinator.in_hand("evaluate"):
            times.append(self.standing.clients_asked_at + every)
        if not times:
            return math.inf
        return max(min(times) - self.clock(), 0.0)

    def refresh(self) -> None:
        """Bring `standing` up to what was committed."""
        standing = self.standing
        standing.seconds = self.clock()
        standing.version = self.sink.version
        standing.updates, standing.local_steps = self.coordinator.done("train")
        standing.share = self._share()

    def wait_for_clients(self) -> None:
        """Take clients in until enough are there to begin. Raises PoolExhausted where they do not come in time."""
        deadline = time.monotonic() + self.config.ray.start_timeout_seconds
        wanted, there = self.config.least_clients, self.coordinator.figures().workers
        while there < wanted:
            before = there
            self.coordinator.step(_WAIT_SECONDS)
            there = self.coordinator.figures().workers
            # In this process all that ever join do so at once.
            in_vain = there == before if self.config.pool == "in_process" else time.monotonic() >= deadline
            if there < wanted and in_vain:
                raise PoolExhausted(
                    f"{there} of {wanted} clients (least_clients) are there{self._in_vain()}: "
                    f"{self.coordinator.missing()}{self._or_wait()}"
                )

    def _or_wait(self) -> str:
        if self.config.pool == "in_process":
            return ""
        return "; or, if their processes are only slow to start, raise ray.start_timeout_seconds"

    def _in_vain(self) -> str:
        if self.config.pool == "in_process":
            return ""
        return f" after {self.config.ray.start_timeout_seconds:g} seconds (ray.start_timeout_seconds)"

    def _check_work(self) -> None:
        """Wait where nobody works, though not for ever. Raises PoolExhausted where nothing can come of it."""
        figures = self.coordinator.figures()
        if figures.in_flight or not self.monitor.in_real_time:
            self._work_seen = time.monotonic()
            return
        idle, wakes_at = time.monotonic() - self._work_seen, self.coordinator.wakes_at
        # In this process nobody joins later: only the scheduler's own time can go on, for which the pool does not wait.
        for_nothing = self.config.pool == "in_process" and wakes_at is None
        if not for_nothing and idle <= self.config.ray.start_timeout_seconds:
            if self.config.pool == "in_process" and wakes_at is not None:
                time.sleep(max(0.0, min(wakes_at - self.clock(), _WAIT_SECONDS)))
            return
        if figures.workers:
            raise PoolExhausted(
                f"{figures.workers} clients are there and none is given work{self._in_vain()}: either they failed too "
                "often (strategy.most_failures; the messages say at what), or the strategy waits for more of them "
                f"(strategy.least_clients); {self.coordinator.missing()}"
            )
        raise PoolExhausted(f"no client is there{self._in_vain()}: {self.coordinator.missing()}")

    def _take_in(self, committed: list[Committed]) -> None:
        self.refresh()
        for one in committed:
            if one.kind == "train":
                self.monitor.applied(one)
        while self.sink.evaluations:
            scores = self.sink.evaluations.pop(0)
            self.monitor.client_evaluated(scores)
            self._client_scores[scores.worker] = scores
        if not self._server_evaluates and self._client_scores and not self.coordinator.in_hand("evaluate"):
            self._score_by_clients()

    def _evaluate_if_due(self) -> None:
        due, standing = self.config.evaluation, self.standing
        if standing.version == standing.evaluated_version:
            return
        by_version = due.every_versions and standing.version - standing.evaluated_version >= due.every_versions
        by_time = due.every_seconds and self.clock() - standing.evaluated_at >= due.every_seconds
        if by_version or by_time:
            self._evaluate()

    def _evaluate(self) -> None:
        standing = self.standing
        standing.evaluated_version, standing.evaluated_at = standing.version, self.clock()
        with self.monitor.timed("evaluating"):
            scores = self.evaluate(self.sink.model)
        self._server_evaluates = bool(scores)
        if scores:
            self._score(scores)

    def _score_by_clients(self) -> None:
        """The clients' own scores, weighted by their samples, of the version that the first of them were asked for."""
        given, self._client_scores = list(self._client_scores.values()), {}
        total = sum(one.samples for one in given)
        names = set.intersection(*(set(one.scores) for one in given))
        scores = {name: sum(one.samples * one.scores[name] for one in given) / total for name in sorted(names)}
        self.standing.evaluated_version = min(one.version for one in given)
        self.standing.evaluated_at = self.standing.clients_asked_at
        self._score(scores)

    def _score(self, scores: Mapping[str, float]) -> None:
        standing, target = self.standing, self.config.budget.target
        standing.score = float(scores["score"])
        if not math.isfinite(standing.score):
            self.monitor.say(
                f"the score of version {standing.version} is {standing.score}: an update made the model useless; lower "
                "the clients' learning rate, or refuse such updates by server.most_norm"
            )
        else:
            standing.best_score = max(
                standing.score, standing.score if standing.best_score is None else standing.best_score
            )
        if target is not None and standing.target_seconds is None and target <= standing.score < math.inf:
            standing.target_seconds = standing.evaluated_at
        self.monitor.evaluated(standing, scores)

    def _ask_clients(self) -> None:
        self._client_scores = {}
        self.standing.clients_asked_at = self.clock()
        self.coordinator.demand(self.config.evaluation.episodes, "evaluate")

    def _ask_all_clients(self) -> None:
        """Have all clients evaluate the last version, and wait for them, though not for ever."""
        self._ask_clients()
        deadline = self.clock() + _LAST_EVALUATION_SECONDS
        try:
            while self.coordinator.in_hand("evaluate") and self.clock() < deadline:
                self._take_in(self.coordinator.step(deadline - self.clock()))
        except PoolExhausted as error:
            self.monitor.say(f"the last version is not evaluated by all clients: {error}")
        if self._client_scores:
            self._score_by_clients()

    def _ask_clients_if_due(self) -> None:
        every = self.config.evaluation.clients_every_seconds
        # As `_patience` adds it up, or rounding would have it wait for a moment that is there.
        if every is None or self.clock() < self.standing.clients_asked_at + every:
            return
        if not self.coordinator.in_hand("evaluate"):
            self._ask_clients()
