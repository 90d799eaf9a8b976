"""Federated classification: whose data, and how clients train on it."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, model_validator

from ...learners.plugins import PluginConfig
from ...learners.settings import Settings


class _Partition(Settings):
    least_samples: int = Field(
        0,
        ge=0,
        description="samples a client has at least: who has fewer is given some of whoever has most; 0 changes nothing "
        "and refuses a client without data",
    )


class EvenPartitionConfig(_Partition):
    """Every client has as many samples, drawn regardless of their classes."""

    kind: Literal["even"] = "even"


class ClassPartitionConfig(_Partition):
    """Every client has a few of the classes."""

    kind: Literal["classes"] = "classes"
    fewest: int = Field(3, ge=1, description="classes that a client has at least")
    most: int = Field(5, ge=1, description="and at most")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fewest > self.most:
            raise ValueError(f"fewest is {self.fewest} and most {self.most}: fewest must not be above most")
        return self


class DualDirichletPartitionConfig(_Partition):
    """Clients' sizes from one Dirichlet distribution, their mixes of classes from another."""

    kind: Literal["dual_dirichlet"] = "dual_dirichlet"
    size_alpha: float | None = Field(
        None, gt=0, description="concentration of sizes, over all clients together; None: the number of clients"
    )
    class_alpha: float = Field(0.5, gt=0, description="concentration of classes, over all classes together")


PartitionConfig: TypeAlias = Annotated[
    EvenPartitionConfig | ClassPartitionConfig | DualDirichletPartitionConfig, Field(discriminator="kind")
]


class DigitsConfig(Settings):
    """1,797 handwritten digits of 8 x 8 pixels, which come with Isogon."""

    kind: Literal["digits"] = "digits"
    train_share: float = Field(0.8, gt=0, lt=1, description="share that clients have; the server tests on the rest")
    split_seed: int = Field(0, ge=0, description="which samples those are; apart from the run's seed")
    partition: PartitionConfig = Field(
        default_factory=DualDirichletPartitionConfig, description="how the clients' share is dealt to them"
    )


class SyntheticDataConfig(Settings):
    """Gaussian clouds around one centre for each class: for any number of clients."""

    kind: Literal["synthetic"] = "synthetic"
    features: int = Field(32, ge=1, description="numbers in a sample")
    classes: int = Field(10, ge=2, description="how many there are")
    separation: float = Field(
        3.5, gt=0, description="of the classes' centres from the origin, in standard deviations of a feature's noise"
    )
    samples: int = Field(100, ge=1, description="that a client has, the median over clients")
    samples_sigma: float = Field(
        0.5, ge=0, description="of the log-normal distribution of clients' sizes; 0: all have as many"
    )
    class_alpha: float = Field(
        1.0, gt=0, description="concentration of a client's Dirichlet mix of classes, over all classes together"
    )
    test_samples: int = Field(1000, ge=1, description="that the server tests on")


class CustomDataConfig(PluginConfig):
    """Data of one's own: a class that gives each silo's samples."""

    kind: Literal["custom"] = "custom"


DataConfig: TypeAlias = Annotated[DigitsConfig | SyntheticDataConfig | CustomDataConfig, Field(discriminator="kind")]


class ClassifierConfig(Settings):
    """A small classifier: fully connected layers with ReLU, softmax cross-entropy, SGD, in numpy."""

    kind: Literal["classifier"] = "classifier"
    data: DataConfig = Field(default_factory=DigitsConfig, description="what clients train on")
    hidden: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (32,), description="widths of the hidden layers; [] is logistic regression"
    )
    learning_rate: float = Field(0.02, gt=0, description="of a client's SGD")
    batch_size: int = Field(32, ge=1, description="samples in one local step")
    proximal: float = Field(
        0.0, ge=0, description="FedProx's mu: pulls a client's model back to the global one that it began with"
    )
    test_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of its own samples that a client is tested on and never trains on; 0: it is tested on those "
        "that it trains on",
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.learning_rate * self.proximal > 1:
            raise ValueError(
                f"learning_rate * proximal is {self.learning_rate * self.proximal:g}: above 1 a step overshoots the "
                "global model; lower one of them"
            )
        return self
