"""One attempt at a federation: put the parts together, work to the end of the budget, lose nothing when killed."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ...actors.federation.client import FederatedTask
from ...schedulers.events import Command, Event
from ..callbacks import Callback
from ..metrics.exporters import NullExporter, PrometheusExporter, RayExporter
from ..metrics.recorder import Exporter, MetricsRecorder
from ..runs.attempts import Attempt
from ..runs.checkpoints import Checkpoint, CheckpointRef
from ..runs.directory import RunDirectory
from ..training.clock import RunClock
from ..training.ray_session import ray_session, where
from .builder import build_pool, build_rule, build_scheduler, build_spool, cpus_wanted
from .config import FederationConfig
from .journal import Journal
from .model_sink import GlobalModelSink
from .monitor import ClientLabels, FederationMonitor
from .recovery import Nobody, RecoverableCoordinator
from .server import FederationServer, Standing
from .timeline import TIMELINE, Span, Timeline, Totals


@dataclass(frozen=True)
class Outcome:
    """What an attempt came to.

    Attributes:
        model: the global model.
        standing: where the federation stands.
        totals: of the pieces that ended in this attempt.
        dropped: pieces that were not applied, all attempts together.
    """

    model: dict[str, np.ndarray]
    standing: Standing
    totals: Totals
    dropped: int


@dataclass
class FederationAttempt:
    """One process's work on a federation.

    Attributes:
        config: the federation's.
        task: what it works on.
        directory: held by this process.
        attempt: claimed.
        callbacks: told what happens.
    """

    config: FederationConfig
    task: FederatedTask
    directory: RunDirectory
    attempt: Attempt
    callbacks: Sequence[Callback]
    _clock: RunClock = field(default_factory=RunClock)
    _totals: Totals = field(default_factory=lambda: Totals())

    def run(self, checkpoint: Checkpoint | None) -> Outcome:
        """Work from ``checkpoint`` and what was heard since, or from the beginning, until the budget is used up.

        Raises:
            PoolExhausted: no client is left.
            OSError: the spool, the journal or a checkpoint could not be written.
        """
        config = self.config
        with ExitStack() as stack:
            if config.pool == "ray":
                self.say(where(config.ray))
                stack.enter_context(ray_session(config.ray, cpus_wanted(config), config.metrics.port))
            recorder = MetricsRecorder(config.name, _build_exporter(config))
            stack.callback(recorder.close)
            labels = ClientLabels(
                {name: group.name for name, group in config.group_of().items()}, config.server.client_metrics
            )
            self._monitor = FederationMonitor(recorder, self.callbacks, self._log, labels)
            spool = build_spool(config, self.task, self.directory.path / "spool", self.say)
            stack.callback(spool.close)
            self._sink = GlobalModelSink(
                self.task.initial_model(),
                self.task.kinds(),
                build_rule(config),
                spool,
                most_norm=config.server.most_norm,
            )
            self._journal = Journal(self.directory.path / "journal")
            stack.callback(self._journal.close)
            rows = stack.enter_context((self._folder / TIMELINE).open("a", encoding="utf-8"))

            def write(span: Span) -> None:
                self._totals.take(span)
                rows.write(json.dumps(span.to_json()) + "\n")
                rows.flush()

            self._timeline = Timeline(write)
            carried = self._replay(checkpoint) if checkpoint is not None else None
            server = self._build_server(stack)
            if checkpoint is not None:
                server.standing = Standing.from_json(checkpoint.parts["run"]["standing"])
                self._monitor.load_state_dict(checkpoint.parts["run"]["monitor"])
            self._begin(server, carried)
            server.run()
            server.close()
            if config.server.durable:
                self._save_last(server)
            return Outcome(self._sink.model, server.standing, self._totals, self._coordinator.figures().dropped)

    def say(self, text: str) -> None:
        """One line for whoever watches."""
        for callback in self.callbacks:
            callback.on_message(text)

    @property
    def _folder(self) -> Path:
        return self.directory.log_path(self.attempt).parent

    def _replay(self, checkpoint: Checkpoint) -> RecoverableCoordinator:
        """The work as the killed server had it: its checkpoint, and what it heard since."""
        state = checkpoint.parts["run"]["coordinator"]
        self._sink.load_state_dict(checkpoint.parts["server"])
        self._clock.base = checkpoint.parts["run"]["standing"]["seconds"]
        old = build_scheduler(self.config, state["scheduler"]["attempt"])
        coordinator = RecoverableCoordinator(old, Nobody(), self._sink, self._clock.seconds, say=self.say)
        results = self._sink.recover()
        spooled = len(results)
        events = self._journal.read(checkpoint.ref, self.say)
        coordinator.replay(state, events, results)
        for result in results.values():
            self._sink.discard(result)
        self._clock.base = max([self._clock.base, *(event.time for event in events)])
        if events:
            self.say(
                f"took up checkpoint {checkpoint.ref.name} with {len(events)} events since then and "
                f"{spooled} updates from the spool"
            )
        return coordinator

    def _build_server(self, stack: ExitStack) -> FederationServer:
        pool = build_pool(self.config, self.task, self._clock.seconds)
        stack.callback(pool.close)
        self._coordinator = RecoverableCoordinator(
            build_scheduler(self.config, self.attempt.number),
            pool,
            self._sink,
            self._clock.seconds,
            observer=self._observe,
            before_publishing=lambda: self._save(server),
            say=self.say,
        )
        server = FederationServer(
            self.config, self._coordinator, self._sink, self.task.evaluate, self._clock.seconds, self._monitor
        )
        return server

    def _begin(self, server: FederationServer, carried: RecoverableCoordinator | None) -> None:
        if carried is not None:
            self._coordinator.carry_over(carried.state_dict(), carried.waiting)
        self._save(server)
        if carried is not None:
            self._coordinator.give_up_gone()
        server.wait_for_clients()
        self._clock.start()
        self._coordinator.publish(self._sink.state())

    def _observe(self, time: float, what: Event | Command) -> None:
        self._journal.observe(time, what)
        self._timeline.observe(time, what)

    def _save(self, server: FederationServer) -> None:
        """Write a checkpoint of all that was committed, and only then forget the updates that it holds."""
        if not self.config.server.durable:
            self._sink.forget_committed()
            return
        started = time.perf_counter()
        server.refresh()
        parts = {
            "server": self._sink.state_dict(),
            "run": {
                "standing": server.standing.to_json(),
                "coordinator": self._coordinator.state_dict(),
                "monitor": self._monitor.state_dict(),
            },
        }
        ref = self.directory.save_checkpoint(self.attempt, self._sink.version, parts, {})
        self._journal.begin(ref)
        self._sink.forget_committed()
        self.directory.prune_checkpoints(self.config.server.keep)
        self._monitor.checkpointed(time.perf_counter() - started)
        for callback in self.callbacks:
            callback.on_checkpoint(self.directory.checkpoint_folder(ref))

    def _save_last(self, server: FederationServer) -> None:
        # A commit at the end has written this version's already.
        if not self.directory.checkpoint_folder(CheckpointRef(self.attempt.number, self._sink.version)).exists():
            self._save(server)

    def _log(self, row: Mapping[str, Any]) -> None:
        self.directory.append_metrics(self.attempt, row)


def _build_exporter(config: FederationConfig) -> Exporter:
    if config.pool == "ray":
        return RayExporter()
    return NullExporter() if config.metrics.port is None else PrometheusExporter(port=config.metrics.port)
