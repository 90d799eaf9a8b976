"""Strategies by name: who works how much, what a result counts, and what the server makes of a commit.

A strategy is a scheduler together with the server's optimiser and, for FedProx, the clients' penalty.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from ...learners.plugins import PluginConfig
from ...learners.settings import Settings
from ...schedulers import staleness
from ...schedulers.asynchronous import FedAsync, FedBuff
from ...schedulers.clients import Silence
from ...schedulers.compass import Compass, CompassOptions
from ...schedulers.events import ReplayableScheduler
from ...schedulers.queue_aware import FedQueue
from ...schedulers.rounds import Rounds
from ...schedulers.speed import SpeedOptions
from ...schedulers.tiers import FedAT
from .server_rules import AdamConfig, AddConfig, MomentumConfig, OptimiserConfig, YogiConfig


class ConstantStaleness(Settings):
    """An old update counts as much as a new one."""

    kind: Literal["constant"] = "constant"


class PolynomialStaleness(Settings):
    """``(u + 1) ** -exponent``."""

    kind: Literal["polynomial"] = "polynomial"
    exponent: float = Field(0.5, ge=0, description="0 counts all alike, 1 halves what is one version old")


class HingeStaleness(Settings):
    """1 up to ``free`` versions, then ``1 / (slope * (u - free) + 1)``."""

    kind: Literal["hinge"] = "hinge"
    slope: float = Field(10.0, ge=0, description="how fast it falls")
    free: float = Field(4.0, ge=0, description="versions that cost nothing")


StalenessConfig: TypeAlias = Annotated[
    ConstantStaleness | PolynomialStaleness | HingeStaleness, Field(discriminator="kind")
]


class SpeedConfig(Settings):
    """How clients' speeds are estimated."""

    momentum: float = Field(0.9, gt=0, le=1, description="weight of the newest observation in the running mean")
    separate_link: bool = Field(
        False, description="estimate the link's time apart from the steps': it does not grow with their number"
    )
    median_of: int = Field(0, ge=0, description="take the median of the last so many instead; 0: the running mean")

    def build(self) -> SpeedOptions:
        """As the schedulers have it."""
        return SpeedOptions(**self.model_dump())


class _Strategy(Settings):
    speed: SpeedConfig = SpeedConfig()
    most_failures: int = Field(3, ge=1, description="pieces in a row that a client may fail at before it gets no more")


class _Rounds(_Strategy):
    steps: int = Field(100, ge=1, description="local steps of a piece of work")
    steps_by: Literal["equal", "samples"] = Field(
        "equal", description="equal: the same for all; samples: in proportion to a client's samples, steps at the mean"
    )
    clients_per_round: int | None = Field(None, ge=1, description="drawn for each round; None: all that are there")
    least_clients: int = Field(1, ge=1, description="clients that must be free for a round to begin")
    least_results: int = Field(1, ge=1, description="results that a commit must have; lower it for clients that die")
    round_seconds: float | None = Field(None, gt=0, description="a round's deadline; None: it waits for all")
    share: Literal["samples", "equal"] = Field("samples", description="what a result counts within its round")
    optimiser: OptimiserConfig = AddConfig()


class FedAvgConfig(_Rounds):
    """Synchronous rounds (McMahan et al. 2017)."""

    kind: Literal["fedavg"] = "fedavg"


class FedAvgMConfig(_Rounds):
    """Rounds, with momentum on the server (Hsu et al. 2019)."""

    kind: Literal["fedavgm"] = "fedavgm"
    optimiser: OptimiserConfig = MomentumConfig()


class FedProxConfig(_Rounds):
    """Rounds, with a pull of each client to the model that it was sent (Li et al. 2020)."""

    kind: Literal["fedprox"] = "fedprox"
    mu: float = Field(0.01, ge=0, description="strength of the pull")


class FedNovaConfig(_Rounds):
    """Rounds, with changes normalised by the number of local steps (Wang et al. 2020)."""

    kind: Literal["fednova"] = "fednova"
    steps_by: Literal["equal", "samples"] = Field(
        "samples",
        description="equal: the same for all; samples: in proportion to a client's samples, steps at the mean",
    )


class FedAdamConfig(_Rounds):
    """Rounds, with Adam on the server (Reddi et al. 2021)."""

    kind: Literal["fedadam"] = "fedadam"
    optimiser: OptimiserConfig = AdamConfig()


class FedYogiConfig(_Rounds):
    """Rounds, with Yogi on the server (Reddi et al. 2021)."""

    kind: Literal["fedyogi"] = "fedyogi"
    optimiser: OptimiserConfig = YogiConfig()


class _Asynchronous(_Strategy):
    steps: int = Field(100, ge=1, description="local steps of a piece of work")
    alpha: float = Field(0.9, gt=0, description="mixing: what a fresh update counts beside its share")
    staleness: StalenessConfig = PolynomialStaleness()
    most_staleness: int | None = Field(None, ge=0, description="an older update is dropped; None: none is")
    concurrency: int | None = Field(None, ge=1, description="clients that train at a time; None: all")
    optimiser: OptimiserConfig = AddConfig()


class FedAsyncConfig(_Asynchronous):
    """Every update is applied alone, as it comes (Xie et al. 2019)."""

    kind: Literal["fedasync"] = "fedasync"
    share: Literal["samples", "equal", "one"] = Field(
        "samples", description="samples: n_i / N; equal: 1 / clients; one: the paper's own mixing"
    )


class FedBuffConfig(_Asynchronous):
    """Updates are applied by the buffer (Nguyen et al. 2022)."""

    kind: Literal["fedbuff"] = "fedbuff"
    buffer: int = Field(3, ge=1, description="updates in a commit")
    share: Literal["samples", "equal", "mean"] = Field(
        "samples", description="samples: n_i / N; equal: 1 / clients; mean: the paper's own, 1 / buffer"
    )


class FedCompassConfig(_Strategy):
    """Work by the computing power, so that groups of clients arrive together (Li et al. 2024)."""

    kind: Literal["fedcompass"] = "fedcompass"
    q_min: int = Field(20, ge=1, description="fewest local steps of a piece of work")
    q_max: int = Field(100, ge=1, description="most local steps, and those of a client's first piece")
    latest_time_factor: float = Field(
        1.2,
        ge=1,
        description="a group waits for its latest until this many times its duration is over; the paper's lambda",
    )
    alpha: float = Field(0.9, gt=0, description="mixing: what a fresh update counts beside its share")
    staleness: StalenessConfig = PolynomialStaleness()
    share: Literal["samples", "equal"] = Field("samples", description="samples: n_i / N; equal: 1 / clients")
    rearm: bool = Field(False, description="give a group of which nobody came in time another term")
    step_normalised: bool = Field(
        False, description="count a change by the step, as FedNova does, so that fast clients do not lead"
    )
    optimiser: OptimiserConfig = AddConfig()

    @model_validator(mode="after")
    def _check(self) -> FedCompassConfig:
        if self.q_min > self.q_max:
            raise ValueError(f"q_min is {self.q_min} and q_max {self.q_max}: q_min must not be above q_max")
        return self


class FedATConfig(_Strategy):
    """Rounds in tiers of like speed; tiers do not wait for each other (Chai et al. 2021)."""

    kind: Literal["fedat"] = "fedat"
    steps: int = Field(100, ge=1, description="local steps of a piece of work")
    tiers: int = Field(3, ge=1, description="tiers of clients by their speed")
    clients_per_round: int | None = Field(None, ge=1, description="drawn of a tier for each round; None: all")
    least_clients: int = Field(1, ge=1, description="clients that must be free for the first round to begin")
    profile_seconds: float | None = Field(None, gt=0, description="deadline of the first round, which measures speeds")
    retier_rounds: int = Field(10, ge=1, description="rounds of the slowest tier after which tiers are made anew")
    share: Literal["samples", "equal"] = Field("samples", description="what a result counts within its round")
    optimiser: OptimiserConfig = AddConfig()


class FedQueueConfig(_Strategy):
    """Work budgeted by the predicted wait in each client's batch queue (arXiv 2605.02125)."""

    kind: Literal["fedqueue"] = "fedqueue"
    speed: SpeedConfig = SpeedConfig(momentum=0.5, separate_link=True)
    round_seconds: float = Field(100.0, gt=0, description="length of a round that clients are to fit into")
    least_steps: int = Field(20, ge=1, description="fewest local steps of a piece of work")
    most_steps: int | None = Field(None, ge=1, description="most local steps; None: as many as fit")
    safety: float = Field(0.1, ge=0, lt=1, description="part of the round that no work is planned for")
    admission: float = Field(0.2, ge=0, description="part of the round that a wait may exceed its prediction by")
    tolerance: float = Field(0.15, ge=0, description="part of the round that it may last longer")
    queue_momentum: float = Field(0.5, gt=0, le=1, description="weight of the newest wait in the prediction")
    first_wait: float = Field(0.0, ge=0, description="seconds that a client's first wait is predicted to be")
    staleness: StalenessConfig = PolynomialStaleness()
    least_clients: int = Field(1, ge=1, description="clients that must be free for the first round to begin")
    optimiser: OptimiserConfig = AddConfig()


class CustomStrategyConfig(PluginConfig):
    """A scheduler of one's own: a subclass of isogon.schedulers.federated.FederatedScheduler."""

    kind: Literal["custom"] = "custom"
    optimiser: OptimiserConfig = AddConfig()


ShippedStrategy: TypeAlias = (
    FedCompassConfig
    | FedAvgConfig
    | FedAvgMConfig
    | FedProxConfig
    | FedNovaConfig
    | FedAdamConfig
    | FedYogiConfig
    | FedAsyncConfig
    | FedBuffConfig
    | FedATConfig
    | FedQueueConfig
)
StrategyConfig: TypeAlias = Annotated[ShippedStrategy | CustomStrategyConfig, Field(discriminator="kind")]


def build_staleness(config: StalenessConfig) -> staleness.Staleness:
    """The factor by age that a config asks for."""
    match config:
        case ConstantStaleness():
            return staleness.constant()
        case PolynomialStaleness():
            return staleness.polynomial(config.exponent)
        case HingeStaleness():
            return staleness.hinge(config.slope, config.free)


_NOT_THE_SCHEDULERS = {"kind", "optimiser", "mu", "speed", "most_failures", "staleness"}


def build_strategy(config: ShippedStrategy, *, attempt: int, seed: int, silence: Silence | None) -> ReplayableScheduler:
    """The scheduler that a shipped strategy asks for.

    Raises:
        ValueError: numbers that do not go together.
    """
    books: dict[str, Any] = {
        "speed": config.speed.build(),
        "silence": silence,
        "most_failures": config.most_failures,
    }
    options = {name: getattr(config, name) for name in type(config).model_fields if name not in _NOT_THE_SCHEDULERS}
    if isinstance(config, FedCompassConfig | _Asynchronous | FedQueueConfig):
        options["staleness"] = build_staleness(config.staleness)
    match config:
        case FedCompassConfig():
            options["weights"] = options.pop("share")
            return Compass(attempt, CompassOptions(**options), **books)
        case FedAsyncConfig():
            return FedAsync(attempt, **options, **books)
        case FedBuffConfig():
            return FedBuff(attempt, **options, **books)
        case FedATConfig():
            return FedAT(attempt, seed=seed, **options, **books)
        case FedQueueConfig():
            return FedQueue(attempt, **options, **books)
        case _:
            return Rounds(attempt, seed=seed, normalise_steps=isinstance(config, FedNovaConfig), **options, **books)


def most_updates_in_a_commit(config: StrategyConfig, clients: int) -> int:
    """Updates that a commit of training may hold."""
    match config:
        case FedBuffConfig():
            return config.buffer
        case FedAsyncConfig():
            return 1
        case FedCompassConfig() | FedQueueConfig() | CustomStrategyConfig():
            return clients
        case _:
            return min(config.clients_per_round or clients, clients)


def updates_in_a_commit(config: StrategyConfig, clients: int) -> int | None:
    """Updates that every commit of training is sure to hold; None for a scheduler of one's own, for nobody can tell."""
    match config:
        case FedBuffConfig():
            # What is in the buffer at the end is committed as well, and may be less: it is dropped then, with a word.
            return config.buffer
        case FedCompassConfig() | FedAsyncConfig() | FedATConfig() | FedQueueConfig():
            return 1
        case CustomStrategyConfig():
            return None
        case _:
            return min(config.least_results, clients)
