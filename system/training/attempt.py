"""One attempt at a run: put the parts together, train to the end of the budget, leave checkpoints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ...actors.columns import Columns
from ...actors.environments.config import WordleConfig
from ...actors.pools.contract import PoolExhausted, WorkFailed
from ...learners.encodings.spec import EnvironmentSpec
from ...learners.learner import Policy, UpdateFailed
from ...learners.values.config import ValueConfig
from ...learners.values.presets import support_of
from ..builder import (
    build_intake,
    build_learner,
    build_pool,
    build_replay,
    build_scheduler,
    build_spec,
    evaluation_episodes,
    needs_legal,
)
from ..callbacks import Callback
from ..config.files import ConfigError
from ..config.run import RunConfig
from ..coordinate import Coordinator
from ..metrics.exporters import NullExporter, PrometheusExporter, RayExporter
from ..metrics.recorder import Exporter, MetricsRecorder
from ..runs.attempts import Attempt
from ..runs.checkpoints import Checkpoint, CheckpointInvalid, CheckpointRef
from ..runs.directory import RunDirectory
from .clock import RunClock
from .first_games import clipping_advice, find_range
from .memory import check_memory
from .monitor import RunMonitor
from .offline_games import record_offline_games
from .rank import Rank
from .ray_session import ray_session, where
from .rollout_sink import RolloutSink

ENVIRONMENT = "environment"
"""What a checkpoint's info calls the fingerprint of the environment that it was trained on."""


RANGE = "value_range"
"""What a checkpoint's info calls the range of values that it was trained with."""


def range_of(value: ValueConfig) -> list[float] | None:
    """Lowest and highest value without clipping, in units of return, or of its scale; None where any value is."""
    support = support_of(value)
    return None if support is None else [support.lowest, support.highest]


def check_range_kept(checkpoint: Checkpoint, value: ValueConfig) -> None:
    """Refuse to read a checkpoint's outputs off other bins than it was trained with. Raises CheckpointInvalid."""
    trained, now = checkpoint.info.get(RANGE), range_of(value)
    if RANGE in checkpoint.info and trained != now:
        raise CheckpointInvalid(
            f"checkpoint {checkpoint.ref.name} was trained with values in {trained}, and config.yaml says {now}: "
            "restore value.vmin, value.vmax and value.found_range as the run had them"
        )


def check_environment(checkpoint: Checkpoint, spec: EnvironmentSpec) -> None:
    """Refuse an environment, and so a word list, that is another than the checkpoint was trained on.

    A changed list moves words from the trained to the never-seen ones, silently. Raises CheckpointInvalid.
    """
    if checkpoint.info.get(ENVIRONMENT) != spec.fingerprint():
        raise CheckpointInvalid(
            f"checkpoint {checkpoint.ref.name} was trained on another {spec.name} than there is now (its word list, "
            "actions or observations differ): restore what it was trained on, or begin a new run"
        )


@dataclass(frozen=True)
class Outcome:
    """What an attempt came to: the policy, and how much was done in all attempts together.

    Attributes:
        config: the run's, with the range that was found, if it was to be.
        policy: the acting half.
        seconds: of training.
        updates: learner updates.
        env_steps: environment steps.
        targets_clipped: share of all targets that were outside the range; None before the first one.
    """

    config: RunConfig
    policy: Policy
    seconds: float
    updates: int
    env_steps: int
    targets_clipped: float | None


@dataclass
class TrainingAttempt:
    """One process's work on a run.

    Attributes:
        config: the run's.
        directory: held by this process.
        attempt: claimed.
        callbacks: told what happens.
    """

    config: RunConfig
    directory: RunDirectory
    attempt: Attempt
    callbacks: Sequence[Callback]
    _clock: RunClock = field(default_factory=RunClock)
    _fingerprint: str = ""
    _being_evaluated: CheckpointRef | None = None

    def run(self, checkpoint: Checkpoint | None) -> Outcome:
        """Train from ``checkpoint``, or from the beginning, until the budget is used up.

        What goes wrong for good ends the attempt; a run that is not deterministic writes a last checkpoint then, so
        that nothing computed is lost. A deterministic one goes on from its last regular checkpoint, as the same run
        uninterrupted would have.

        Raises:
            WorkFailed, PoolExhausted: see `actors.pools.contract`.
            UpdateFailed: see `learners.learner`.
            ConfigError: the offline games are fewer than the first update needs, or the first games give no range.
            OSError: a checkpoint or a row of metrics could not be written.
        """
        config = self.config
        spec = build_spec(config)
        self._fingerprint = spec.fingerprint()
        offline = None
        if config.value.awaits_range:
            offline = self._record_offline(spec) if config.offline else None
            config = self.config = find_range(config, spec, offline, self.say)
            self.directory.write_config(config.model_dump(mode="json"))
        with ExitStack() as stack:
            if config.actors.pool == "ray":
                self.say(where(config.ray))
                stack.enter_context(ray_session(config.ray, config.actors.workers, config.metrics.port))
            rank = self._build_rank(spec, checkpoint, stack, offline)
            try:
                rank.run()
            except (KeyboardInterrupt, SystemExit, WorkFailed, PoolExhausted, UpdateFailed):
                if not config.deterministic:
                    rank.checkpoint()
                raise
            rank.checkpoint()
            counters = rank.counters
            clipped = rank.monitor.share_clipped()
            return Outcome(
                self.config, rank.policy(), self._clock.seconds(), counters.updates, counters.env_steps, clipped
            )

    def say(self, text: str) -> None:
        """One line for whoever watches."""
        for callback in self.callbacks:
            callback.on_message(text)

    def _build_rank(
        self, spec: EnvironmentSpec, checkpoint: Checkpoint | None, stack: ExitStack, games: Columns | None
    ) -> Rank:
        config = self.config
        check_memory(config, spec, config.actors.workers)
        learner, replay = build_learner(config, spec), build_replay(config, spec, config.actors.workers)
        observe = learner.observe_episode if config.value.normalise_returns else None
        sink = RolloutSink(spec, partial(build_intake, config, replay, observe))
        pool = build_pool(config, spec, self._clock.seconds)
        stack.callback(pool.close)
        scheduler = build_scheduler(config, self.attempt.number)
        recorder = MetricsRecorder(config.name, _build_exporter(config))
        stack.callback(recorder.close)
        rank = Rank(
            config,
            learner=learner,
            replay=replay,
            sink=sink,
            coordinator=Coordinator(
                scheduler,
                pool,
                sink,
                self._clock.seconds,
                say=self.say,
                most_failures=config.actors.max_failures,
            ),
            monitor=RunMonitor(recorder, self.callbacks, self._log, clipping_advice(config)),
            clock=self._clock,
            evaluation_episodes=evaluation_episodes(config),
            save=self._save,
            score=self._score if config.checkpoints.keep_best else None,
        )
        if checkpoint is not None:
            check_environment(checkpoint, spec)
            check_range_kept(checkpoint, config.value)
            rank.load_state_dict(checkpoint.parts)
        # Workers start meanwhile.
        if config.offline and len(replay) == 0 and rank.phase() == "offline":
            sink.insert_recorded(games or self._record_offline(spec))
            if len(replay) < config.replay.min_size:
                raise ConfigError(
                    f"offline.steps is {config.offline.steps} and gives {len(replay)} transitions, fewer than "
                    f"replay.min_size {config.replay.min_size}: no update would ever come; "
                    "set offline.steps higher or replay.min_size lower"
                )
        return rank

    def _record_offline(self, spec: EnvironmentSpec) -> Columns:
        offline, environment = self.config.offline, self.config.environment
        assert offline is not None
        assert isinstance(environment, WordleConfig)
        self.say(f"recording {offline.steps:,} steps of the data policy's games")
        return record_offline_games(environment, offline, self.config.seed, record_legal=needs_legal(self.config, spec))

    def _save(self, updates: int, parts: Mapping[str, Any]) -> None:
        info = {ENVIRONMENT: self._fingerprint, RANGE: range_of(self.config.value)}
        ref = self.directory.save_checkpoint(self.attempt, updates, parts, info)
        self._prune()
        for callback in self.callbacks:
            callback.on_checkpoint(self.directory.checkpoint_folder(ref))

    def _score(self, updates: int, validation_return: float | None) -> None:
        # The run may have resumed just there: the checkpoint then is an earlier attempt's.
        start = self.attempt.start
        ref = start if start and start.step == updates else CheckpointRef(self.attempt.number, updates)
        if validation_return is None:
            self._being_evaluated = ref
        else:
            self.directory.record_score(ref, validation_return)
            self._prune()

    def _prune(self) -> None:
        kept = self.config.checkpoints
        self.directory.prune_checkpoints(kept.keep, kept.keep_best, spare=self._being_evaluated)

    def _log(self, row: Mapping[str, Any]) -> None:
        self.directory.append_metrics(self.attempt, row)


def _build_exporter(config: RunConfig) -> Exporter:
    if config.actors.pool == "ray":
        return RayExporter()
    return NullExporter() if config.metrics.port is None else PrometheusExporter(port=config.metrics.port)
