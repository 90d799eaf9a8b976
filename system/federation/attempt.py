"""One attempt at a federation: put the parts together, work to the end of the budget, lose nothing when killed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from ...actors.federation.client import FederatedTask
from ...schedulers.events import Command, Drop, Event
from ...schedulers.federated import GIVEN_UP
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
from .span_log import SpanLog
from .timeline import TIMELINE, Span, Timeline, Totals

MESSAGES = "messages.txt"
"""In an attempt's folder: what was told in words, each line with its date and time in UTC."""


@dataclass(frozen=True)
class Outcome:
    """What an attempt came to.

    Attributes:
        model: the global model.
        standing: where the federation stands.
        totals: of the pieces that have ended, all attempts together.
        dropped: pieces that were not applied, likewise.
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
        clock: run seconds, which go on where an earlier attempt was.
    """

    config: FederationConfig
    task: FederatedTask
    directory: RunDirectory
    attempt: Attempt
    callbacks: Sequence[Callback]
    clock: RunClock = field(default_factory=RunClock)
    _totals: Totals = field(default_factory=Totals)

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
            self._spans = SpanLog(self._folder / TIMELINE)
            self._timeline = Timeline(self._take_span)
            carried = self._take_up(checkpoint) if checkpoint is not None else None
            server = self._build_server(stack)
            if checkpoint is not None:
                server.standing = Standing.from_json(checkpoint.parts["run"]["standing"])
            self._begin(server, carried)
            server.run()
            server.close()
            self._end(server)
            return Outcome(self._sink.model, server.standing, self._totals, self._coordinator.figures().dropped)

    def say(self, text: str) -> None:
        """One line for whoever watches, and for the attempt's messages."""
        for callback in self.callbacks:
            callback.on_message(text)
        # A message is not worth the run, on a full disk least of all.
        with suppress(OSError), (self._folder / MESSAGES).open("a", encoding="utf-8") as file:
            file.write(f"{datetime.now(UTC).isoformat(timespec='seconds')} {text}\n")

    @property
    def _folder(self) -> Path:
        return self.directory.log_path(self.attempt).parent

    def _take_up(self, checkpoint: Checkpoint) -> RecoverableCoordinator:
        """The work as the killed server had it: its checkpoint, and what it heard since."""
        run = checkpoint.parts["run"]
        self._sink.load_state_dict(checkpoint.parts["server"])
        self._monitor.load_state_dict(run["monitor"])
        self._timeline.load_state_dict(run["timeline"])
        self._totals.load_state_dict(run["totals"])
        self.clock.base = run["standing"]["seconds"]
        old = build_scheduler(self.config, run["coordinator"]["scheduler"]["attempt"])
        coordinator = RecoverableCoordinator(
            old, Nobody(), self._sink, self.clock.seconds, observer=self._timeline.observe, say=self.say
        )
        results = self._sink.recover()
        events, is_whole = self._journal.read(checkpoint.ref, self.say)
        for one in coordinator.replay(run["coordinator"], events, results):
            if one.kind == "train":
                self._monitor.applied(one)
        # Their scores were taken in when they came.
        self._sink.evaluations.clear()
        for result in results.values():
            self._sink.discard(result)
        if results and not is_whole:
            self.say(
                f"{len(results)} updates that had arrived since then are dropped: nobody knows their work any more"
            )
        self.clock.base = max([self.clock.base, *(event.time for event in events)])
        waiting = sum(result is not None for result in coordinator.waiting.values())
        self.say(
            f"took up checkpoint {checkpoint.ref.name} with {len(events)} events since then; {waiting} updates in the "
            "spool wait for their commit"
        )
        return coordinator

    def _build_server(self, stack: ExitStack) -> FederationServer:
        pool = build_pool(self.config, self.task, self.clock.seconds)
        stack.callback(pool.close)
        self._coordinator = RecoverableCoordinator(
            build_scheduler(self.config, self.attempt.number),
            pool,
            self._sink,
            self.clock.seconds,
            observer=self._observe,
            before_publishing=lambda: self._save(server),
            say=self.say,
        )
        server = FederationServer(
            self.config, self._coordinator, self._sink, self.task.evaluate, self.clock.seconds, self._monitor
        )
        return server

    def _begin(self, server: FederationServer, carried: RecoverableCoordinator | None) -> None:
        if carried is not None:
            self._coordinator.carry_over(carried.state_dict(), carried.waiting)
        self._save(server)
        if carried is not None:
            self._coordinator.give_up_gone()
        server.wait_for_clients()
        self.clock.start()
        self._coordinator.publish(self._sink.state())

    def _end(self, server: FederationServer) -> None:
        ref = CheckpointRef(self.attempt.number, self._sink.version)
        if self.config.server.durable and self.directory.checkpoint_folder(ref).exists():
            # A commit has written this version's. What ended since then is in its journal, for whoever goes on.
            self._spans.write(ref.step)
        else:
            self._save(server)

    def _observe(self, time: float, what: Event | Command) -> None:
        self._journal.observe(time, what)
        self._timeline.observe(time, what)
        if isinstance(what, Drop) and what.reason.startswith(GIVEN_UP):
            self.say(f"{what.token.worker}'s {what.token} is {what.reason}")

    def _take_span(self, span: Span) -> None:
        self._totals.take(span)
        self._spans.take(span)

    def _save(self, server: FederationServer) -> None:
        """Write a checkpoint of all that was committed, and only then forget the updates that it holds."""
        started = time.perf_counter()
        ref = CheckpointRef(self.attempt.number, self._sink.version)
        self._spans.write(ref.step)
        if not self.config.server.durable:
            self._sink.forget_committed()
            return
        server.refresh()
        run = {
            "standing": server.standing.to_json(),
            "coordinator": self._coordinator.state_dict(),
            "monitor": self._monitor.state_dict(),
            "timeline": self._timeline.state_dict(),
            "totals": self._totals.state_dict(),
        }
        self._journal.prepare(ref)
        self.directory.save_checkpoint(self.attempt, ref.step, {"server": self._sink.state_dict(), "run": run}, {})
        self._journal.begin(ref)
        self._sink.forget_committed()
        self.directory.prune_checkpoints(self.config.server.keep)
        self._monitor.checkpointed(time.perf_counter() - started)
        for callback in self.callbacks:
            callback.on_checkpoint(self.directory.checkpoint_folder(ref))

    def _log(self, row: Mapping[str, Any]) -> None:
        self.directory.append_metrics(self.attempt, row)


def _build_exporter(config: FederationConfig) -> Exporter:
    if config.pool == "ray":
        return RayExporter()
    return NullExporter() if config.metrics.port is None else PrometheusExporter(port=config.metrics.port)
