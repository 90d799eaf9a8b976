"""Rounds of a federation: those of Isogon's server, and bare Ray calls that move the same payload."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any
from unittest import mock

import ray
from federation_clients import BareAnswer, model_of

from isogon import Callback
from isogon.system.federation.attempt import FederationAttempt
from isogon.system.federation.builder import build_pool, build_rule, build_scheduler, build_spool, build_task
from isogon.system.federation.config import FederationConfig
from isogon.system.federation.model_sink import GlobalModelSink
from isogon.system.federation.monitor import ClientLabels, FederationMonitor
from isogon.system.federation.recovery import RecoverableCoordinator
from isogon.system.federation.server import FederationServer
from isogon.system.metrics.exporters import RayExporter
from isogon.system.metrics.recorder import MetricsRecorder
from isogon.system.runs.directory import RunDirectory
from isogon.system.training.clock import RunClock

_ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    # As Isogon starts Ray: workers are not to yield to the server.
    "RAY_worker_niceness": "0",
}


@dataclass(frozen=True)
class Size:
    """Of a federation.

    Attributes:
        clients: how many, each in a process of its own.
        nbytes: of the model.
        rounds: that are measured.
        warmup: rounds before them.
    """

    clients: int
    nbytes: int
    rounds: int
    warmup: int = 3

    def mb_per_second(self, seconds: float) -> float:
        """There and back, all clients together."""
        return 2e-6 * self.nbytes * self.clients / seconds


def config_of(size: Size, *, durable: bool, pool: str = "ray") -> FederationConfig:
    """FedAvg of clients that answer at once."""
    return FederationConfig.model_validate(
        {
            "name": "benchmark",
            "task": {"kind": "custom", "class": "federation_clients:AnswersAtOnce", "kwargs": {"nbytes": size.nbytes}},
            "clients": [{"name": "client", "count": size.clients}],
            "strategy": {"kind": "fedavg", "steps": 1, "least_clients": size.clients},
            "server": {"durable": durable},
            "budget": {"versions": size.warmup + size.rounds},
            "evaluation": {"every_versions": None},
            "pool": pool,
        }
    )


@contextmanager
def local_ray(clients: int) -> Iterator[None]:
    """A Ray of this machine in which as many clients and as many bare actors have a process each."""
    with mock.patch.dict(os.environ, _ENVIRONMENT):
        ray.init(
            address="local",
            num_cpus=2 * clients,
            object_store_memory=2**30,
            include_dashboard=False,
            log_to_driver=False,
        )
        try:
            yield
        finally:
            ray.shutdown()


class BareCalls:
    """As many actors as there are clients: the model into the object store, a call each, all answers out of it.

    Args:
        size: of the federation whose payload it moves.
    """

    def __init__(self, size: Size) -> None:
        actor: Any = ray.remote(num_cpus=1)(BareAnswer)
        self._model = model_of(size.nbytes)
        self._actors = [actor.remote(size.nbytes) for _ in range(size.clients)]

    def round(self) -> float:
        """Seconds of one."""
        begun = time.perf_counter()
        model = ray.put(self._model)
        ray.get([actor.answer.remote(model) for actor in self._actors])
        return time.perf_counter() - begun

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)


def in_turns(size: Size, rivals: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Median seconds of a round: of ``isogon`` with durability off, and of rivals, a round of each between two of its.

    Args:
        size: of the federation.
        rivals: by name; a call makes a round and gives its seconds.
    """
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    names = list(rivals)

    def between() -> None:
        names.append(names.pop(0))
        for name in names:
            seconds[name].append(rivals[name]())

    seconds["isogon"] = isogon_rounds(config_of(size, durable=False), between)
    return {name: statistics.median(taken[size.warmup :]) for name, taken in seconds.items()}


def isogon_rounds(config: FederationConfig, between: Callable[[], None]) -> list[float]:
    """Seconds of each round of a federation whose server keeps updates in memory: its whole loop, metrics too.

    A round lasts from the publishing of a version to the next version that came of it. ``between`` is called then,
    when nothing is in hand, and its time is not counted.
    """
    seconds: list[float] = []
    begun = 0.0

    def after_commit() -> None:
        nonlocal begun
        sink.forget_committed()
        seconds.append(time.perf_counter() - begun)
        between()
        begun = time.perf_counter()

    with ExitStack() as stack:
        task, clock = build_task(config), RunClock()
        spool = build_spool(config, task, Path("unused"), print)
        stack.callback(spool.close)
        sink = GlobalModelSink(task.initial_model(), task.kinds(), build_rule(config), spool)
        pool = build_pool(config, task, clock.seconds)
        stack.callback(pool.close)
        coordinator = RecoverableCoordinator(
            build_scheduler(config, 1), pool, sink, clock.seconds, before_publishing=after_commit, say=print
        )
        recorder = MetricsRecorder(config.name, RayExporter())
        stack.callback(recorder.close)
        labels = ClientLabels(dict.fromkeys(config.client_names(), "client"), config.server.client_metrics)
        monitor = FederationMonitor(recorder, [], lambda row: None, labels)
        clock.start()
        begun = time.perf_counter()
        coordinator.publish(sink.state())
        FederationServer(config, coordinator, sink, task.evaluate, clock.seconds, monitor).run()
    return seconds


def durable_rounds(config: FederationConfig, folder: Path) -> list[float]:
    """Seconds of each round with durability on, from checkpoint to checkpoint: a whole attempt, as `isogon.federate`.

    Args:
        config: of the federation.
        folder: that is made for it.
    """
    times: list[float] = []

    class Stopwatch(Callback):
        def on_checkpoint(self, path: Path) -> None:
            times.append(time.perf_counter())

    directory = RunDirectory.create(folder)
    with directory.hold():
        attempt = directory.claim_attempt(None)
        FederationAttempt(config, build_task(config), directory, attempt, [Stopwatch()]).run(None)
    return [end - begin for begin, end in pairwise(times)]
