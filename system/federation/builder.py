"""From a federation's config to its parts. Runs and simulations are built by the same functions."""

from __future__ import annotations

import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from ...actors.federation.classification import ClassifierTask
from ...actors.federation.client import FederatedTask, Silo
from ...actors.federation.config import ClassifierConfig
from ...actors.federation.durations import ClientDurations
from ...actors.federation.throttle import Throttle
from ...actors.federation.worker import ClientWorker
from ...actors.pools.contract import Pool
from ...actors.pools.in_process import InProcessPool
from ...actors.pools.virtual import VirtualPool, VirtualWorker
from ...learners.compression import Layout, layout_of
from ...learners.plugins import PluginError
from ...schedulers.aggregation import AveragedStep, ServerRule
from ...schedulers.clients import Silence
from ...schedulers.events import ReplayableScheduler
from ..config.files import ConfigError
from ..machine import usable_cores
from .config import CustomTaskConfig, FederationConfig
from .custom_strategy import build_custom_strategy
from .custom_task import CustomTask
from .server_rules import build_average, build_optimiser
from .spool import DiskSpool, MemorySpool, Spool
from .strategies import CustomStrategyConfig, FedProxConfig, build_strategy
from .value_task import ValueTask

_MOST_COMMIT_THREADS = 4
"""More would wait for the memory: sums read each number once."""


def build_task(config: FederationConfig) -> FederatedTask:
    """What the federation works on.

    Raises:
        ConfigError: one network cannot serve the environments of all clients.
        PluginError: own code cannot be used.
    """
    task = config.task
    if isinstance(task, CustomTaskConfig):
        return CustomTask(task, config.seed)
    pull = config.strategy.mu if isinstance(config.strategy, FedProxConfig) else None
    if isinstance(task, ClassifierConfig):
        return ClassifierTask(task if pull is None else task.model_copy(update={"proximal": pull}), config.seed)
    if pull is not None:
        task = task.model_copy(update={"client": task.client.model_copy(update={"proximal": pull})})
    values = ValueTask(task, config.seed)
    try:
        values.check_silos()
    except ValueError as error:
        raise ConfigError(f"task.{error}") from error
    return values


def build_scheduler(config: FederationConfig, attempt: int) -> ReplayableScheduler:
    """The strategy's scheduler, for one attempt.

    Raises:
        ConfigError: numbers that do not go together.
        PluginError: own code that cannot be used.
    """
    silence = None if config.silence is None else Silence(**config.silence.model_dump())
    if isinstance(config.strategy, CustomStrategyConfig):
        return build_custom_strategy(config.strategy, attempt=attempt, silence=silence)
    try:
        return build_strategy(config.strategy, attempt=attempt, seed=config.seed, silence=silence)
    except ValueError as error:
        raise ConfigError(f"strategy {config.strategy.kind}: {error}") from error


def build_rule(config: FederationConfig) -> ServerRule:
    """What the server makes of a commit."""
    threads = min(_MOST_COMMIT_THREADS, usable_cores())
    return AveragedStep(
        build_average(config.server.average),
        build_optimiser(config.strategy.optimiser),
        parts=threads,
        side_by_side=ThreadPoolExecutor(threads, thread_name_prefix="commit").map,
    )


def build_spool(config: FederationConfig, task: FederatedTask, folder: Path, say: Callable[[str], None]) -> Spool:
    """Where updates wait: on disk where the server is durable."""
    layout = model_layout(task)
    if not config.server.durable:
        return MemorySpool(layout)
    return DiskSpool(
        folder, layout, lambda path, error: say(f"{path.name} in the spool is damaged ({error}): left out")
    )


def model_layout(task: FederatedTask) -> Layout:
    """Names, shapes and dtypes of the task's model."""
    return layout_of(task.initial_model())


def silos(config: FederationConfig) -> list[Silo]:
    """The clients that take part, in order. Who does not keeps its number, and its data."""
    names = config.client_names()
    everybody = [Silo(name, index, len(names), config.seed) for index, name in enumerate(names)]
    return [silo for silo in everybody if config.participants is None or silo.name in config.participants]


def check_clients(config: FederationConfig) -> None:
    """Make every client once. Only for data that are here.

    Raises:
        ConfigError: a client has no data, or not enough. Others would start without it, and nobody would see.
        PluginError: own code that cannot be used.
    """
    task = build_task(config)
    for silo in silos(config):
        try:
            task.make_client(silo).close()
        except PluginError:
            raise
        except ValueError as error:
            raise ConfigError(f"with seed {config.seed}: {error}") from error


def make_worker(task: FederatedTask, silo: Silo, seconds_per_step: float | None) -> ClientWorker:
    """A client's worker, made where the client is."""
    return ClientWorker(task, silo, throttle=None if seconds_per_step is None else Throttle(seconds_per_step))


def cpus_wanted(config: FederationConfig) -> int:
    """CPUs that all clients' processes take together: what a Ray of this machine is started with."""
    return max(
        1, math.ceil(sum(group.num_cpus * math.ceil(group.count / group.per_process) for group in config.clients))
    )


def build_pool(config: FederationConfig, task: FederatedTask, clock: Callable[[], float]) -> Pool:
    """The pool of clients that the config asks for. A Ray pool needs a Ray that is initialised."""
    groups = config.group_of()
    makers = {silo.name: partial(make_worker, task, silo, groups[silo.name].seconds_per_step) for silo in silos(config)}
    if config.pool == "in_process":
        return InProcessPool(makers, clock=clock, failures="tell")
    # Ray is loaded only by runs that use it.
    from ...actors.pools.hosts import HostSpec
    from ...actors.pools.ray_pool import RayPool

    hosts = [
        HostSpec(
            workers={name: makers[name] for name in names},
            num_cpus=group.num_cpus,
            label_selector=group.label_selector,
            max_restarts=group.max_restarts,
            torch_threads=config.torch_threads,
            setting="clients.label_selector",
        )
        for group in config.clients
        for names in _batches([name for name in group.names() if name in makers], group.per_process)
    ]
    return RayPool(hosts, clock=clock, failures="tell")


def _batches(names: list[str], size: int) -> list[list[str]]:
    return [names[first : first + size] for first in range(0, len(names), size)]


def build_virtual_pool(config: FederationConfig, task: FederatedTask, speeds: str) -> VirtualPool:
    """Clients on the virtual clock, under one of the simulation's distributions of speeds."""
    assert config.simulation is not None
    durations = ClientDurations(config.simulation.virtual_clock(speeds), config.seed)
    workers = {}
    for silo in silos(config):
        client = durations.client(silo.index)
        workers[silo.name] = VirtualWorker(partial(make_worker, task, silo, None), client.joins, client.leaves)
    return VirtualPool(workers, durations, failures="tell", resident=config.simulation.resident)
