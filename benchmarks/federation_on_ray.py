"""Rounds of federations on Ray: Isogon's server, and bare actor calls that move the same payload."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import ray
from federation_clients import BareAnswer, model_of

from isogon.system.federation.builder import build_pool, build_rule, build_scheduler, build_spool, build_task
from isogon.system.federation.config import FederationConfig
from isogon.system.federation.model_sink import GlobalModelSink
from isogon.system.federation.monitor import ClientLabels, FederationMonitor
from isogon.system.federation.recovery import RecoverableCoordinator
from isogon.system.federation.server import FederationServer
from isogon.system.metrics.exporters import RayExporter
from isogon.system.metrics.recorder import MetricsRecorder
from isogon.system.training.clock import RunClock


def config_of(clients: int, nbytes: int, rounds: int, *, durable: bool = False) -> FederationConfig:
    """FedAvg with each client in a process of its own."""
    return FederationConfig.model_validate(
        {
            "name": "benchmark",
            "task": {"kind": "custom", "class": "federation_clients:AnswersAtOnce", "kwargs": {"nbytes": nbytes}},
            "clients": [{"name": "client", "count": clients}],
            "strategy": {"kind": "fedavg", "steps": 1, "least_clients": clients},
            "server": {"durable": durable},
            "budget": {"versions": rounds},
            "evaluation": {"every_versions": None},
        }
    )


def isogon_rounds(config: FederationConfig, between: Callable[[], None]) -> list[float]:
    """Seconds of each round of a federation whose server keeps updates in memory.

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
        labels = ClientLabels({name: group.name for name, group in config.group_of().items()}, 32)
        monitor = FederationMonitor(recorder, [], lambda row: None, labels)
        clock.start()
        begun = time.perf_counter()
        coordinator.publish(sink.state())
        FederationServer(config, coordinator, sink, task.evaluate, clock.seconds, monitor).run()
    return seconds


class BareCalls:
    """As many actors as there are clients: the model into the object store, a call each, all answers out of it.

    Args:
        clients: how many.
        nbytes: of the model.
    """

    def __init__(self, clients: int, nbytes: int) -> None:
        actor: Any = ray.remote(num_cpus=1)(BareAnswer)
        self._actors = [actor.remote(nbytes) for _ in range(clients)]
        self._model = model_of(nbytes)
        self.round()

    def round(self) -> list[dict[str, np.ndarray]]:
        model = ray.put(self._model)
        return list(ray.get([actor.answer.remote(model) for actor in self._actors]))

    def close(self) -> None:
        for actor in self._actors:
            ray.kill(actor)
