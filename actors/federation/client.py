"""The contract of a federated client and of the task that its federation works on.

A client has data that nobody else sees. It is given the global model, trains on its data for a number of local steps,
and answers with the model it came to. What crosses the link is made of that by `actors.federation.worker`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from ...learners.learner import AverageKind

Model: TypeAlias = Mapping[str, np.ndarray]
"""Named arrays: the global model, or a client's. Whoever is given one does not write into it."""


@dataclass(frozen=True)
class Silo:
    """Which client of the federation this is.

    Attributes:
        name: unique in the federation.
        index: from 0, in the order of the config.
        clients: how many there are.
        seed: the run's.
    """

    name: str
    index: int
    clients: int
    seed: int


@dataclass(frozen=True)
class LocalWork:
    """One assignment to train, as a client sees it.

    Attributes:
        steps: local steps (optimiser updates) to make, at least 1.
        version: of the global model that it starts from.
        rate_scale: multiplies the client's own learning rate.
        generator: the stream of everything random in this assignment, named by seed, client and sequence number.
        after_step: to be called after each local step; a throttled client sleeps in it.
    """

    steps: int
    version: int
    generator: np.random.Generator
    rate_scale: float = 1.0
    after_step: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class LocalModel:
    """What training came to.

    Attributes:
        tensors: the client's model now: names, shapes and dtypes of the global one.
        steps: local steps made.
        stats: plain numbers by name, such as ``loss``; they are kept beside the run's metrics.
    """

    tensors: Model
    steps: int
    stats: dict[str, float] = field(default_factory=dict)


class FederatedClient(Protocol):
    """Own data and own training. One piece of work at a time."""

    @property
    def samples(self) -> int:
        """Size of its data set, at least 1: what the federation weighs it by."""
        ...

    def train(self, model: Model, work: LocalWork) -> LocalModel:
        """Train from the global model on its own data."""
        ...

    def evaluate(self, model: Model, amount: int, generator: np.random.Generator) -> Mapping[str, float]:
        """How good the global model is on its own test data, by name; ``score`` is the figure that counts.

        ``amount`` is in episodes, where there are episodes.
        """
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class FederatedTask(Protocol):
    """What a federation works on. It is sent to other processes: it must be picklable and small."""

    def initial_model(self) -> Model:
        """The global model at its beginning, the same at every call."""
        ...

    def kinds(self) -> Mapping[str, AverageKind]:
        """How each tensor of the model is averaged."""
        ...

    def make_client(self, silo: Silo) -> FederatedClient:
        """A client, made where it runs. Raises ValueError where it has no data."""
        ...

    def evaluate(self, model: Model) -> Mapping[str, float]:
        """How good a model is by the server's own test data; ``score`` is the figure that counts.

        Empty where the server has none: then the clients are asked.
        """
        ...

    def evaluate_final(self, model: Model) -> Mapping[str, float]:
        """What is to be said of the last model; may take longer than `evaluate`, and need not have a ``score``."""
        ...
