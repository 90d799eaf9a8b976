"""Everything that fixes a federation, and the simulation of one."""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, field_validator, model_validator

from ...actors.config import check_selector
from ...actors.federation.config import ClassifierConfig
from ...actors.federation.simulation_config import (
    DropoutsConfig,
    LinksConfig,
    PresenceConfig,
    QueuesConfig,
    SpeedsConfig,
    VirtualClockConfig,
)
from ...learners.plugins import PluginConfig
from ...learners.settings import Settings, may_change_on_resume
from ..config.run import MetricsConfig, RayConfig
from .server_rules import AverageConfig, WeightedSumConfig
from .strategies import FedCompassConfig, FedProxConfig, StrategyConfig, most_updates_in_a_commit, updates_in_a_commit
from .value_task_config import ValueTaskConfig

NAME_PATTERN = r"^[a-z0-9][a-z0-9_-]*$"


class CustomTaskConfig(PluginConfig):
    """A client of one's own: a class with `initial_model`, and instances that train and evaluate."""

    kind: Literal["custom"] = "custom"


TaskConfig: TypeAlias = Annotated[ClassifierConfig | ValueTaskConfig | CustomTaskConfig, Field(discriminator="kind")]


class ClientGroupConfig(Settings):
    """Clients that are alike. Metrics are kept by group, whatever the number of clients."""

    name: str = Field(pattern=NAME_PATTERN, description="of the client, or of the first part of its clients' names")
    count: int = Field(1, ge=1, description="clients in the group; several are called name-0, name-1, ...")
    per_process: int = Field(1, ge=1, description="clients that share a process on Ray, where they are small")
    num_cpus: float = Field(1.0, ge=0, description="CPUs of a node that each such process takes")
    seconds_per_step: float | None = Field(
        None,
        gt=0,
        description="a local step takes at least this long, to emulate a slow machine; None: as fast as it is",
    )
    label_selector: Annotated[dict[str, str], AfterValidator(check_selector)] = may_change_on_resume(
        {}, description="labels of the nodes where the group's clients may be, as in {silo: left}; {} is any node"
    )
    max_restarts: int = Field(10, ge=0, description="times that a lost process is replaced")

    def names(self) -> list[str]:
        """Of the group's clients."""
        return [self.name] if self.count == 1 else [f"{self.name}-{index}" for index in range(self.count)]


class FederationBudgetConfig(Settings):
    """When a federation is done: at the first limit that it reaches."""

    seconds: float | None = may_change_on_resume(None, gt=0, description="run seconds, standstills not counted")
    versions: int | None = may_change_on_resume(None, ge=1, description="versions of the global model")
    local_steps: int | None = may_change_on_resume(None, ge=1, description="clients' steps that were applied")
    target: float | None = may_change_on_resume(None, description="score of the global model")

    @model_validator(mode="after")
    def _check(self) -> FederationBudgetConfig:
        if self.seconds is None and self.versions is None and self.local_steps is None:
            raise ValueError("a budget needs at least one of seconds, versions, local_steps; target may never come")
        return self


class FederationEvaluationConfig(Settings):
    """How good the global model is, on the server's own test data or, where it has none, on the clients'."""

    every_versions: int | None = Field(1, ge=1, description="versions between two evaluations by the server")
    every_seconds: float | None = Field(None, gt=0, description="seconds between two evaluations by the server")
    clients_every_seconds: float | None = Field(
        None, gt=0, description="seconds between two evaluations by all clients on their own test data; None: none"
    )
    episodes: int = Field(20, ge=1, description="episodes in a client's evaluation, where it has episodes")


class ServerConfig(Settings):
    """What the server does with updates."""

    average: AverageConfig = WeightedSumConfig()
    most_norm: float | None = Field(None, gt=0, description="norm above which an update is refused; None: any is taken")
    durable: bool = Field(
        True,
        description="spool every update to disk before it is acknowledged, and write a checkpoint with each commit: a "
        "killed server then goes on where it was. false: faster, and a killed run is lost",
    )
    keep: int = may_change_on_resume(3, ge=1, description="newest checkpoints that are kept")
    client_metrics: int = Field(32, ge=0, description="clients whose figures are kept one by one; the rest by group")


class SilenceConfig(Settings):
    """When a client that does not answer is given up; it is taken in again when it does."""

    factor: float = Field(10.0, ge=1, description="times the duration that its work was expected to take")
    least_seconds: float = Field(60.0, gt=0, description="not before")


class SimulationConfig(Settings):
    """What a simulation emulates, and what it compares."""

    speeds: dict[str, SpeedsConfig] = Field(
        default_factory=dict, description="distributions of clients' speeds by name; each is simulated"
    )
    links: LinksConfig = LinksConfig()
    dropouts: DropoutsConfig = DropoutsConfig()
    queues: QueuesConfig = QueuesConfig()
    presence: PresenceConfig = PresenceConfig()
    seeds: int = Field(5, ge=1, description="seeds from the run's on, each of which is simulated")
    strategies: dict[str, StrategyConfig] = Field(
        default_factory=dict, description="strategies to compare, by name; {}: the run's own alone"
    )
    resident: int = Field(
        1_000, ge=1, description="clients kept in memory, those used last; any other is made anew for its next work"
    )
    reference: str = Field("fedcompass", description="the strategy that times are told relative to")

    @model_validator(mode="after")
    def _check(self) -> SimulationConfig:
        if not self.speeds:
            raise ValueError("speeds is empty: name at least one distribution, as in {normal: {kind: normal}}")
        return self

    def virtual_clock(self, speeds: str) -> VirtualClockConfig:
        """What the virtual clock is told under one of the distributions of speeds."""
        return VirtualClockConfig(
            speeds=self.speeds[speeds],
            links=self.links,
            dropouts=self.dropouts,
            queues=self.queues,
            presence=self.presence,
        )


class FederationConfig(Settings):
    """Everything that fixes a federation."""

    name: str = Field(pattern=NAME_PATTERN, description="of the preset; run directories are called after it")
    seed: int = Field(0, ge=0, description="of every random stream")
    task: TaskConfig
    clients: tuple[ClientGroupConfig, ...] = Field(min_length=1, description="who takes part, in groups")
    participants: tuple[str, ...] | None = Field(
        None, min_length=1, description="clients that take part, with their own data still; null: all"
    )
    least_clients: int = may_change_on_resume(
        1, ge=1, description="clients that must be there for the run, and its clock, to begin"
    )
    strategy: StrategyConfig = FedCompassConfig()
    server: ServerConfig = ServerConfig()
    silence: SilenceConfig | None = SilenceConfig()
    budget: FederationBudgetConfig
    evaluation: FederationEvaluationConfig = FederationEvaluationConfig()
    pool: Literal["ray", "in_process"] = Field(
        "ray", description="ray: clients in processes of their own; in_process: one after another in this one, no Ray"
    )
    torch_threads: int = may_change_on_resume(1, ge=1, description="of the server, and of each client's process")
    simulation: SimulationConfig | None = Field(None, description="what `isogon federate simulate` does")
    ray: RayConfig = RayConfig()
    metrics: MetricsConfig = MetricsConfig()

    @field_validator("clients")
    @classmethod
    def _check_names(cls, groups: tuple[ClientGroupConfig, ...]) -> tuple[ClientGroupConfig, ...]:
        names = Counter(name for group in groups for name in group.names())
        if twice := [name for name, number in names.items() if number > 1]:
            raise ValueError(f"two clients are called {twice[0]}: give their groups different names")
        return groups

    @model_validator(mode="after")
    def _check_participants(self) -> FederationConfig:
        names = self.client_names()
        if unknown := [name for name in self.participants or () if name not in names]:
            raise ValueError(
                f"participants has {unknown[0]}, and clients are {', '.join(names[:10])}: name some of them"
            )
        if self.least_clients > (there := len(self.participants or names)):
            raise ValueError(f"least_clients is {self.least_clients} and there are {there}: the run would never begin")
        return self

    @model_validator(mode="after")
    def _check_average(self) -> FederationConfig:
        strategies = {"strategy": self.strategy}
        if self.simulation is not None:
            strategies |= {f"simulation.strategies.{name}": s for name, s in self.simulation.strategies.items()}
        for where, strategy in strategies.items():
            sure = updates_in_a_commit(strategy, len(self.participants or self.client_names()))
            if sure is not None and (needed := self.server.average.least_updates) > sure:
                raise ValueError(
                    f"server.average is {self.server.average.kind}, which needs {needed} updates in every commit, and "
                    f"{where} {strategy.kind} is sure of {sure}: take a strategy with larger commits (fedavg with "
                    "least_clients and least_results, fedbuff with a larger buffer), or server.average weighted_sum"
                )
            most = most_updates_in_a_commit(strategy, len(self.participants or self.client_names()))
            if not isinstance(self.server.average, WeightedSumConfig) and most > self.server.average.most_updates:
                raise ValueError(
                    f"server.average takes at most {self.server.average.most_updates} updates in a commit "
                    f"(most_updates), and {where} {strategy.kind} may commit {most}: raise it, for they are in memory "
                    "all at once, or draw fewer clients for a round"
                )
        return self

    @model_validator(mode="after")
    def _check_simulation(self) -> FederationConfig:
        if self.simulation is not None and self.budget.seconds is None:
            raise ValueError(
                "simulation is set and budget.seconds is null: virtual time needs an end, for a simulated client may "
                "never answer"
            )
        return self

    @model_validator(mode="after")
    def _check_task(self) -> FederationConfig:
        if isinstance(self.strategy, FedProxConfig) and isinstance(self.task, CustomTaskConfig):
            raise ValueError(
                "strategy.kind is fedprox, whose pull is the client's: add it to your own client, and take fedavg"
            )
        if isinstance(self.task, ValueTaskConfig):
            wanted, there = self.task.silos.clients, len(self.client_names())
            if wanted is not None and wanted != there:
                raise ValueError(f"task.silos is for {wanted} clients and clients are {there}: they must be as many")
        return self

    def client_names(self) -> list[str]:
        """Of all clients, in order."""
        return [name for group in self.clients for name in group.names()]

    def group_of(self) -> dict[str, ClientGroupConfig]:
        """Each client's group, by the client's name."""
        return {name: group for group in self.clients for name in group.names()}


def as_one_run(config: FederationConfig, **changes: Any) -> FederationConfig:
    """The config of one run of a simulation: another seed or strategy, nothing to compare, nothing on disk."""
    server = config.server.model_copy(update={"durable": False})
    return config.model_copy(update={"server": server, **changes})
