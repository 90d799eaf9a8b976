"""Federations in virtual time: training is real, only durations are simulated, so that strategies can be compared.

A run is one strategy under one distribution of speeds with one seed. Runs do not know of one another: they may be done
in any number of processes, and come to the same.
"""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing import active_children, get_context
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from ...actors.pools.contract import WorkFailed
from ..callbacks import Callback, Progress
from ..metrics.exporters import NullExporter
from ..metrics.recorder import MetricsRecorder
from .builder import build_rule, build_scheduler, build_task, build_virtual_pool, model_layout, silos
from .config import FederationConfig, SimulationConfig, as_one_run
from .model_sink import GlobalModelSink
from .monitor import ClientLabels, FederationMonitor
from .recovery import RecoverableCoordinator
from .server import FederationServer
from .spool import MemorySpool
from .strategies import StrategyConfig
from .timeline import Span, Timeline, Totals


@dataclass(frozen=True)
class RunKey:
    """Which run of a simulation."""

    strategy: str
    speeds: str
    seed: int


@dataclass(frozen=True)
class SimulatedRun:
    """What one run came to. All times are virtual seconds.

    Attributes:
        key: which run.
        target_seconds: when the target was reached; None where it was not.
        score: of the last version.
        seconds: how long the run was.
        versions, updates, local_steps: applied.
        dropped: pieces that were not applied.
        staleness: mean, in versions, over applied pieces.
        utilisation: share of the clients' time that they worked.
        curve: ``(seconds, score)`` of each evaluation.
        spans: who worked when; empty unless asked for.
    """

    key: RunKey
    target_seconds: float | None
    score: float
    seconds: float
    versions: int
    updates: int
    local_steps: int
    dropped: int
    staleness: float | None
    utilisation: float | None
    curve: tuple[tuple[float, float], ...] = ()
    spans: tuple[Span, ...] = ()


@dataclass
class _Curve(Callback):
    """Notes the scores."""

    points: list[tuple[float, float]] = field(default_factory=list)
    score: float = math.nan

    def on_evaluation(self, progress: Progress, scores: Any) -> None:
        self.score = float(scores["score"])
        self.points.append((progress.seconds, self.score))


def run_keys(simulation: SimulationConfig, seed: int) -> list[RunKey]:
    """Every run of a simulation: all strategies under one distribution and seed after the other."""
    return [
        RunKey(strategy, speeds, seed + offset)
        for speeds in simulation.speeds
        for offset in range(simulation.seeds)
        for strategy in simulation.strategies
    ]


def simulate_run(config: FederationConfig, key: RunKey, *, keep_spans: bool = False) -> SimulatedRun:
    """Simulate one run to the end of its budget, in one thread: layers are small, and processes are many.

    Args:
        config: with a simulation.
        key: which of its runs.
        keep_spans: whether every piece of work is kept, for a Gantt chart.
    """
    assert config.simulation is not None
    strategy: StrategyConfig = config.simulation.strategies[key.strategy]
    one = as_one_run(config, seed=key.seed, strategy=strategy)
    torch.set_num_threads(config.torch_threads)
    with threadpool_limits(1, "blas"):
        return _simulate(one, key, keep_spans)


def _simulate(one: FederationConfig, key: RunKey, keep_spans: bool) -> SimulatedRun:
    task = build_task(one)
    pool = build_virtual_pool(one, task, key.speeds)
    totals, spans, curve = Totals(), [], _Curve()

    def take(span: Span) -> None:
        totals.take(span)
        if keep_spans:
            spans.append(span)

    timeline = Timeline(take)
    sink = GlobalModelSink(
        task.initial_model(),
        task.kinds(),
        build_rule(one),
        MemorySpool(model_layout(task)),
        most_norm=one.server.most_norm,
    )
    coordinator = RecoverableCoordinator(
        build_scheduler(one, 1),
        pool,
        sink,
        pool.clock,
        observer=timeline.observe,
        before_publishing=sink.forget_committed,
    )
    monitor = FederationMonitor(
        MetricsRecorder(one.name, NullExporter()), [curve], lambda row: None, ClientLabels({}, 0), in_real_time=False
    )
    server = FederationServer(one, coordinator, sink, task.evaluate, pool.clock, monitor)
    try:
        coordinator.publish(sink.state())
        server.run()
        seconds = pool.clock()
        server.close()
    finally:
        pool.close()
    clients = len(silos(one))
    return SimulatedRun(
        key=key,
        target_seconds=server.standing.target_seconds,
        score=curve.score,
        seconds=seconds,
        versions=server.standing.version - 1,
        updates=server.standing.updates,
        local_steps=server.standing.local_steps,
        dropped=coordinator.figures().dropped,
        staleness=totals.mean_staleness(),
        utilisation=totals.utilisation(clients, seconds),
        curve=tuple(curve.points),
        spans=tuple(spans),
    )


def simulate_all(
    config: FederationConfig, keys: Sequence[RunKey], jobs: int, with_spans: Callable[[RunKey], bool]
) -> Iterator[SimulatedRun]:
    """Simulate runs in ``jobs`` processes, and give each as soon as it and all before it are done.

    Raises:
        WorkFailed: a process was killed.
    """
    if jobs == 1:
        for key in keys:
            yield simulate_run(config, key, keep_spans=with_spans(key))
        return
    others = set(active_children())
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as executor:
        with _without_ctrl_c():
            futures = [executor.submit(simulate_run, config, key, keep_spans=with_spans(key)) for key in keys]
        try:
            for future in futures:
                yield future.result()
        except BrokenProcessPool as error:
            raise WorkFailed(
                f"one of the simulation's {jobs} processes was killed: where memory is short, take fewer (--jobs) or "
                "keep fewer clients in memory (simulation.resident)"
            ) from error
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            # Nobody wants what they are at, and it may take minutes.
            for process in set(active_children()) - others:
                process.terminate()
            raise


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Processes that are started meanwhile never see Ctrl-C, which a terminal sends to all; this one sees it after."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
