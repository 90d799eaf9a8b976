"""The loop of one learner rank: ask for play, take it in, learn, publish, evaluate, checkpoint.

Consumes: pool results, through the coordinator and its sink. Produces: weights, versions of them for the players,
checkpoints, metrics. Waits for: data, where there is not enough for an update that is due. Unblocked by: a result that
arrives, or the coordinator's timeout. Everything in it is bounded: work in hand by the pace, results by the pool, the
replay by its capacity.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ...actors.pools.contract import PoolExhausted
from ...actors.work import PolicyState
from ...learners.learner import Exploration, Learner, Policy
from ...learners.replay.replay import Replay
from ..callbacks import Progress
from ..config.run import RunConfig
from ..coordinate import Coordinator
from ..runs.checkpoints import CheckpointInvalid
from .clock import RunClock
from .monitor import RunMonitor
from .pacing import Pace, budget_share
from .rollout_sink import RolloutSink

_WAIT_SECONDS = 0.1
_DRAIN_SECONDS = 600.0
_UPDATES_PER_POLL = 4


@dataclass
class Counters:
    """Where a run stands; it is in every checkpoint.

    Attributes:
        seconds: of training, all attempts together.
        updates: learner updates.
        env_steps: environment steps committed.
        version: newest published version.
        paced_updates: updates when actors began to play and the first update was possible; None before.
        paced_steps: environment steps at that moment.
        evaluations: evaluations asked for.
    """

    seconds: float = 0.0
    updates: int = 0
    env_steps: int = 0
    version: int = 0
    paced_updates: int | None = None
    paced_steps: int = 0
    evaluations: int = 0


def load_learner(learner: Learner, parts: Mapping[str, Any]) -> None:
    """Let a learner take up its part of a checkpoint. Raises CheckpointInvalid where it is of another network."""
    try:
        learner.load_state_dict(parts["learner"])
    except (KeyError, ValueError) as error:
        raise CheckpointInvalid(f"the checkpoint does not fit the run's config: {error}") from error


class Rank:
    """One learner with its replay and its pool of players.

    Args:
        config: the run's.
        learner: what is trained.
        replay: where batches come from.
        sink: takes the pool's results in.
        coordinator: hands work out.
        monitor: told of all that happens.
        clock: of run seconds; started here.
        evaluation_episodes: episodes of one evaluation.
        save: writes a checkpoint of the parts given, named by the number of updates.
        score: told which checkpoint, by its number of updates, is being evaluated (None), then its validation return;
            None where no checkpoint is kept for being the best.
    """

    def __init__(
        self,
        config: RunConfig,
        *,
        learner: Learner,
        replay: Replay,
        sink: RolloutSink,
        coordinator: Coordinator,
        monitor: RunMonitor,
        clock: RunClock,
        evaluation_episodes: int,
        save: Callable[[int, Mapping[str, Any]], None],
        score: Callable[[int, float | None], None] | None = None,
    ) -> None:
        self._config = config
        self._learner = learner
        self._replay = replay
        self._sink = sink
        self._coordinator = coordinator
        self.monitor = monitor
        self._clock = clock
        self._evaluation_episodes = evaluation_episodes
        self._save = save
        self._score = score
        self._evaluated_at: dict[int, int] = {}
        actors = config.actors
        self._pace = Pace(
            actors.updates_per_step,
            actors.steps_per_assignment,
            actors.steps_per_assignment * actors.workers * actors.assignments_in_flight,
        )
        self.counters = Counters()
        self._published_at = 0
        self._checkpoint_at: tuple[int | None, float] = (None, 0.0)
        self._workers_seen = 0.0

    def run(self) -> None:
        """Train until the budget is used up."""
        self._clock.start()
        self._workers_seen = time.monotonic()
        self._checkpoint_at = (self._checkpoint_at[0], self._clock.seconds())
        self._publish()
        # An evaluation that was in hand when the run was killed is done again, with the checkpoint's weights.
        self._evaluated_at = {self.counters.version: self.counters.updates}
        while (share := self.share()) < 1.0:
            self._ask()
            due = self._update_is_due()
            # Asking a pool costs some of an update's time: a learner that has work asks now and then.
            if not due or self.counters.updates % _UPDATES_PER_POLL == 0:
                with self.monitor.timed("waiting"):
                    self.monitor.arrived(self._coordinator.step(0.0 if due else _WAIT_SECONDS))
                self._take_in()
            if due:
                self._update(share)
            self._evaluate_if_due(share)
            self._checkpoint_if_due()
            if self.monitor.report_is_due():
                self._report(share)
        self._report(1.0)

    def share(self) -> float:
        """Share of the budget that is used."""
        counters = self.counters
        return budget_share(
            self._config.budget, seconds=self._clock.seconds(), updates=counters.updates, env_steps=counters.env_steps
        )

    def phase(self) -> str:
        """``"offline"`` while the data policy's games are all there is, then ``"online"``."""
        offline = self._config.offline
        return "offline" if offline and self.share() < offline.budget_share else "online"

    def policy(self) -> Policy:
        """The acting half, as it is now."""
        return self._learner.policy()

    def state_dict(self) -> dict[str, Any]:
        """All parts of a checkpoint by name."""
        self.counters.seconds = self._clock.seconds()
        parts: dict[str, Any] = {
            "learner": self._learner.state_dict(),
            "run": {
                "counters": asdict(self.counters),
                "coordinator": self._coordinator.state_dict(),
                "monitor": self.monitor.state_dict(),
            },
        }
        if self._config.replay.keep_in_checkpoint:
            parts["replay"] = self._replay.state_dict()
        return parts

    def load_state_dict(self, parts: Mapping[str, Any]) -> None:
        """Take up a checkpoint's parts. Raises CheckpointInvalid where they are of another network."""
        load_learner(self._learner, parts)
        run = parts["run"]
        self.counters = Counters(**run["counters"])
        self._clock.base = self.counters.seconds
        self._sink.env_steps = self.counters.env_steps
        self._coordinator.load_state_dict(run["coordinator"])
        self.monitor.load_state_dict(run["monitor"])
        self._checkpoint_at = (self.counters.updates, 0.0)
        if "replay" in parts:
            self._replay.load_state_dict(parts["replay"])
        else:
            # The replay is filled anew: until it is, nobody keeps pace with anybody.
            self.counters.paced_updates = None

    def checkpoint(self) -> None:
        """Write a checkpoint, unless nothing was learnt since the last one.

        A deterministic run then begins its players anew, as one that resumes here does.
        """
        if self._checkpoint_at[0] == self.counters.updates:
            return
        started = time.perf_counter()
        with self.monitor.timed("checkpoint"):
            if self._config.deterministic:
                self.monitor.arrived(self._coordinator.drain(_DRAIN_SECONDS))
                self._take_in()
                self._coordinator.reset_workers()
                self._sink.forget_unfinished()
            self._save(self.counters.updates, self.state_dict())
            self._checkpoint_at = (self.counters.updates, self._clock.seconds())
            if self._config.deterministic:
                self._publish()
        self.monitor.checkpointed(time.perf_counter() - started)

    def _ask(self) -> None:
        if self.phase() == "offline":
            return
        outstanding = self._coordinator.outstanding("rollout")
        for _ in range(self._pace.pieces_wanted(*self._paced(), outstanding)):
            self._coordinator.demand(self._pace.piece, "rollout")

    def _paced(self) -> tuple[int, int]:
        counters = self.counters
        if counters.paced_updates is None:
            return 0, 0
        return counters.updates - counters.paced_updates, counters.env_steps - counters.paced_steps

    def _update_is_due(self) -> bool:
        if len(self._replay) < self._config.replay.min_size:
            return False
        if self.phase() == "offline":
            return True
        if self.counters.paced_updates is None:
            self.counters.paced_updates, self.counters.paced_steps = self.counters.updates, self.counters.env_steps
        return self._pace.may_update(*self._paced())

    def _take_in(self) -> None:
        played = self._sink.env_steps - self.counters.env_steps
        self.counters.env_steps = self._sink.env_steps
        self.monitor.played(played, *self._sink.take_finished())
        while self._sink.evaluations:
            version, scores = self._sink.evaluations.pop(0)
            self.monitor.evaluated(self._standing(self.share()), version, scores)
            if self._score and (updates := self._evaluated_at.pop(version, None)) is not None:
                self._score(updates, float(scores["return"].mean()))

    def _update(self, share: float) -> None:
        with self.monitor.timed("sampling"):
            batch = self._replay.next_batch(share)
        with self.monitor.timed("learning"):
            stats = self._learner.update(batch, share)
        if "index" in batch and stats.td_error.shape == batch["index"].shape:
            self._replay.update_priorities(batch["index"], stats.td_error)
        self.counters.updates += 1
        self.monitor.updated(stats)
        if self.phase() == "online" and self.counters.updates - self._published_at >= (
            self._config.actors.publish_every_updates
        ):
            self._publish_in_bounds()

    def _publish_in_bounds(self) -> bool:
        """Publish, unless that would make play that is in hand older than it may be; whether it was done.

        With S versions allowed and P pieces of play in hand at most, what is in hand is never of more than S + 1
        versions, (S + 1) P pieces.
        """
        allowed, oldest = self._config.actors.max_versions_behind, self._coordinator.oldest_version("rollout")
        if allowed is not None and oldest is not None and self.counters.version + 1 - oldest > allowed:
            return False
        self._publish()
        return True

    def _publish(self) -> None:
        share = self.share()
        with self.monitor.timed("publishing"):
            self.counters.version += 1
            exploration = Exploration(self._config.actors.epsilon.at(share), self._config.actors.temperature.at(share))
            self._coordinator.publish(PolicyState(self.counters.version, self._learner.policy_tensors(), exploration))
        self._published_at = self.counters.updates
        self.monitor.published(self.counters.version)

    def _evaluate_if_due(self, share: float) -> None:
        due = share >= (self.counters.evaluations + 1) * self._config.evaluation.every_share
        # One at a time: the checkpoint of a second one would take the first one's place before its scores are in.
        if due and not self._coordinator.outstanding("evaluate") and self._publish_in_bounds():
            self.counters.evaluations += 1
            self._coordinator.demand(self._evaluation_episodes, "evaluate")
            if self._score:
                # What is being evaluated may turn out the best: it is kept, whole, before the next update changes it.
                self._evaluated_at = {self.counters.version: self.counters.updates}
                self._score(self.counters.updates, None)
                self.checkpoint()

    def _checkpoint_if_due(self) -> None:
        config = self._config.checkpoints
        updates, seconds = self._checkpoint_at
        by_updates = config.every_updates and self.counters.updates - (updates or 0) >= config.every_updates
        by_time = config.every_seconds and self._clock.seconds() - seconds >= config.every_seconds
        if by_updates or by_time:
            self.checkpoint()

    def _report(self, share: float) -> None:
        figures = self._coordinator.figures()
        self._check_workers(figures.workers)
        self.monitor.report(self._standing(share), figures, self._replay)

    def _check_workers(self, workers: int) -> None:
        now = time.monotonic()
        if workers:
            self._workers_seen = now
        elif now - self._workers_seen > self._config.ray.start_timeout_seconds:
            raise PoolExhausted(
                f"no worker is there after {self._config.ray.start_timeout_seconds:g} seconds "
                f"(ray.start_timeout_seconds): {self._coordinator.missing()}"
            )

    def _standing(self, share: float) -> Progress:
        counters = self.counters
        return Progress(
            share=share,
            phase=self.phase(),
            seconds=self._clock.seconds(),
            updates=counters.updates,
            env_steps=counters.env_steps,
            version=counters.version,
        )
