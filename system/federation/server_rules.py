"""How the server makes the next model of a commit: which average, which optimiser. Configs, and what they build."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field

from ...learners.settings import Settings
from ...schedulers.aggregation import (
    Adam,
    Add,
    Average,
    Krum,
    Median,
    Momentum,
    ServerOptimiser,
    TrimmedMean,
    WeightedSum,
    Yogi,
)


class WeightedSumConfig(Settings):
    """The plain one: updates by their weights. One update is in memory at a time."""

    kind: Literal["weighted_sum"] = "weighted_sum"

    @property
    def least_updates(self) -> int:
        """That a commit must hold."""
        return 1


class _Robust(Settings):
    most_updates: int = Field(100, ge=3, description="updates in a commit at most: all of them are in memory at once")


class MedianConfig(_Robust):
    """The coordinate-wise median (Yin et al. 2018): holds against less than half of the clients."""

    kind: Literal["median"] = "median"

    @property
    def least_updates(self) -> int:
        """That a commit must hold."""
        return 3


class TrimmedMeanConfig(_Robust):
    """The coordinate-wise trimmed mean (Yin et al. 2018)."""

    kind: Literal["trimmed_mean"] = "trimmed_mean"
    trim: int = Field(1, ge=1, description="values cut off at each end: as many faulty clients are borne")

    @property
    def least_updates(self) -> int:
        """That a commit must hold."""
        return 2 * self.trim + 1


class KrumConfig(_Robust):
    """Krum, or with keep above 1 multi-Krum (Blanchard et al. 2017)."""

    kind: Literal["krum"] = "krum"
    faulty: int = Field(1, ge=0, description="faulty clients that are borne")
    keep: int = Field(1, ge=1, description="updates that are averaged in the end")

    @property
    def least_updates(self) -> int:
        """That a commit must hold."""
        return max(2 * self.faulty + 3, self.faulty + self.keep)


AverageConfig: TypeAlias = Annotated[
    WeightedSumConfig | MedianConfig | TrimmedMeanConfig | KrumConfig, Field(discriminator="kind")
]


class AddConfig(Settings):
    """The change is added as it is."""

    kind: Literal["add"] = "add"


class MomentumConfig(Settings):
    """Momentum on the server (FedAvgM, Hsu et al. 2019)."""

    kind: Literal["momentum"] = "momentum"
    rate: float = Field(1.0, gt=0, description="server learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="share of the last step that goes on")


class _Adaptive(Settings):
    rate: float = Field(0.01, gt=0, description="server learning rate")
    beta1: float = Field(0.9, ge=0, lt=1, description="decay of the first moment")
    beta2: float = Field(0.99, ge=0, lt=1, description="decay of the second moment")
    tau: float = Field(1e-3, gt=0, description="added to the root of the second moment")


class AdamConfig(_Adaptive):
    """FedAdam (Reddi et al. 2021, algorithm 2)."""

    kind: Literal["adam"] = "adam"


class YogiConfig(_Adaptive):
    """FedYogi (Reddi et al. 2021, algorithm 2)."""

    kind: Literal["yogi"] = "yogi"


OptimiserConfig: TypeAlias = Annotated[
    AddConfig | MomentumConfig | AdamConfig | YogiConfig, Field(discriminator="kind")
]


def build_average(config: AverageConfig) -> Average:
    """The average that a config asks for."""
    match config:
        case WeightedSumConfig():
            return WeightedSum()
        case MedianConfig():
            return Median(config.most_updates)
        case TrimmedMeanConfig():
            return TrimmedMean(config.trim, config.most_updates)
        case KrumConfig():
            return Krum(config.faulty, config.keep, config.most_updates)


def build_optimiser(config: OptimiserConfig) -> ServerOptimiser:
    """The server optimiser that a config asks for."""
    match config:
        case AddConfig():
            return Add()
        case MomentumConfig():
            return Momentum(config.momentum, config.rate)
        case AdamConfig():
            return Adam(config.rate, config.beta1, config.beta2, config.tau)
        case YogiConfig():
            return Yogi(config.rate, config.beta1, config.beta2, config.tau)
