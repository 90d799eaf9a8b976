"""What the virtual clock is told of clients: their speeds and links, when they wait, drop out, come late or leave."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from ...learners.settings import Settings


class _Speeds(Settings):
    jitter: float = Field(
        0.05,
        ge=0,
        le=0.5,
        description="standard deviation of a client's seconds per step from piece to piece, relative to their mean",
    )


class HomogeneousSpeedsConfig(_Speeds):
    """All clients are as fast."""

    kind: Literal["homogeneous"] = "homogeneous"
    seconds_per_step: float = Field(1.0, gt=0, description="virtual seconds that a local step takes")


class NormalSpeedsConfig(_Speeds):
    """Clients' seconds per step are normally distributed."""

    kind: Literal["normal"] = "normal"
    seconds_per_step: float = Field(1.0, gt=0, description="virtual seconds that a local step takes, on average")
    spread: float = Field(0.3, gt=0, description="standard deviation over clients, relative to the mean")
    least: float = Field(0.05, gt=0, lt=1, description="no client takes less, relative to the mean")


class ExponentialSpeedsConfig(_Speeds):
    """Clients' seconds per step are exponentially distributed: a few clients are very slow."""

    kind: Literal["exponential"] = "exponential"
    seconds_per_step: float = Field(1.0, gt=0, description="virtual seconds that a local step takes, on average")
    least: float = Field(0.05, gt=0, lt=1, description="no client takes less, relative to the mean")


class ListedSpeedsConfig(_Speeds):
    """Each client's seconds per step, in the order of clients."""

    kind: Literal["listed"] = "listed"
    seconds_per_step: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        min_length=1, description="virtual seconds that a local step takes, one for each client"
    )


SpeedsConfig: TypeAlias = Annotated[
    HomogeneousSpeedsConfig | NormalSpeedsConfig | ExponentialSpeedsConfig | ListedSpeedsConfig,
    Field(discriminator="kind"),
]


class LinksConfig(Settings):
    """Clients' links to the server, the same both ways."""

    bytes_per_second: float | None = Field(
        None, gt=0, description="bandwidth, the median over clients; None: models and updates take no time"
    )
    bandwidth_sigma: float = Field(
        0.0, ge=0, description="of the log-normal distribution of bandwidths over clients; 0: all have the same"
    )
    latency: float = Field(0.0, ge=0, description="seconds before the first byte, each way, the median over clients")
    latency_sigma: float = Field(
        0.0, ge=0, description="of the log-normal distribution of latencies over clients; 0: all have the same"
    )


class QueuesConfig(Settings):
    """Batch queues, in which a piece of work waits before it is trained."""

    mean_seconds: float = Field(0.0, ge=0, description="mean wait, over clients and pieces")
    sigma: float = Field(
        0.4, ge=0, description="of the log-normal distribution of one client's waits; 0: always as long"
    )
    client_sigma: float = Field(
        0.0, ge=0, description="of the log-normal distribution of mean waits over clients; 0: all have the same"
    )


class DropoutsConfig(Settings):
    """Work that never comes back."""

    probability: float = Field(
        0.0, ge=0, le=1, description="that a piece of work is lost, for its client drops out at some moment of it"
    )
    away_seconds: float = Field(
        100.0, ge=0, description="mean of the exponentially distributed time until such a client is back"
    )
    gone_probability: float = Field(0.0, ge=0, le=1, description="that a client that drops out never comes back")
    hang_probability: float = Field(
        0.0, ge=0, le=1, description="that a piece of work hangs: its client is there, and never answers it"
    )


class PresenceConfig(Settings):
    """Clients that are not there from the beginning to the end."""

    late_share: float = Field(0.0, ge=0, le=1, description="probability that a client joins late")
    late_seconds: float = Field(0.0, ge=0, description="until which such clients join, uniformly from the beginning")
    leaving_share: float = Field(0.0, ge=0, le=1, description="probability that a client leaves for good")
    leaving_seconds: float = Field(0.0, ge=0, description="within which such clients leave, uniformly after joining")

    @model_validator(mode="after")
    def _check(self) -> Self:
        for what in ("late", "leaving"):
            if getattr(self, f"{what}_share") and not getattr(self, f"{what}_seconds"):
                raise ValueError(
                    f"{what}_share is {getattr(self, f'{what}_share')}: {what}_seconds must be above 0 then"
                )
        return self


class VirtualClockConfig(Settings):
    """How long everything takes on the virtual clock."""

    speeds: SpeedsConfig = Field(default_factory=HomogeneousSpeedsConfig, description="of clients")
    links: LinksConfig = Field(default_factory=LinksConfig, description="of clients")
    queues: QueuesConfig = Field(default_factory=QueuesConfig, description="that clients' work waits in")
    dropouts: DropoutsConfig = Field(default_factory=DropoutsConfig, description="of clients at work")
    presence: PresenceConfig = Field(default_factory=PresenceConfig, description="who joins late or leaves")
