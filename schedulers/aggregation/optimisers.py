"""Server optimisers: what a commit's combined change, taken as a negative gradient, does to the model.

Each works on a block of a tensor's numbers at a time, in float64, each number by itself, and is pure: it takes slots
(as many numbers that it remembers, by name) and gives new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol, TypeAlias

import numpy as np

Slots: TypeAlias = Mapping[str, np.ndarray]


class ServerOptimiser(Protocol):
    """Makes a step of a change."""

    @property
    def name(self) -> str:
        """Of its kind; a state of another kind is refused."""
        ...

    @property
    def first(self) -> Mapping[str, float]:
        """By name, the value that each slot begins with everywhere."""
        ...

    def step(self, change: np.ndarray, slots: Slots) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """What is added to the numbers, and the new slots.

        Args:
            change: float64, of any shape; it is used for other numbers after the new ones are stored.
            slots: as ``first`` names them, of the same shape.
        """
        ...


@dataclass(frozen=True)
class Add:
    """The change itself: ``x += D``."""

    name: ClassVar[str] = "add"
    first: ClassVar[Mapping[str, float]] = {}

    def step(self, change: np.ndarray, slots: Slots) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """See `ServerOptimiser.step`."""
        return change, {}


@dataclass(frozen=True)
class Momentum:
    """``v = beta v + D; x += rate v``: FedAvgM, Hsu et al. 2019 (https://arxiv.org/abs/1909.06335), section 4.3.

    Attributes:
        beta: how much of the last step's velocity goes on, in [0, 1).
        rate: server learning rate, above 0. In the long run a constant change moves the model by ``rate / (1 - beta)``
            times itself.
    """

    beta: float = 0.9
    rate: float = 1.0

    name: ClassVar[str] = "momentum"
    first: ClassVar[Mapping[str, float]] = {"velocity": 0.0}

    def __post_init__(self) -> None:
        _check_fractions(beta=self.beta)
        _check_positive(rate=self.rate)

    def step(self, change: np.ndarray, slots: Slots) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """See `ServerOptimiser.step`."""
        velocity = self.beta * slots["velocity"] + change
        return self.rate * velocity, {"velocity": velocity}


@dataclass(frozen=True)
class Adam:
    """FedAdam: Reddi et al. 2021 (https://arxiv.org/abs/2003.00295), algorithm 2, with its constants.

    ::

        m = beta1 m + (1 - beta1) D
        v = beta2 v + (1 - beta2) D^2
        x += rate m / (sqrt(v) + tau)

    There is no bias correction; v begins as tau^2, m as 0.

    Attributes:
        rate: server learning rate, above 0: about the most that a number moves in one step. The paper tunes it for
            each task, in powers of the square root of 10.
        beta1: decay of the first moment, in [0, 1).
        beta2: decay of the second moment, in [0, 1).
        tau: how adaptive it is, above 0: changes far below it are not scaled up.
    """

    rate: float
    beta1: float = 0.9
    beta2: float = 0.99
    tau: float = 1e-3

    name: ClassVar[str] = "adam"

    def __post_init__(self) -> None:
        _check_fractions(beta1=self.beta1, beta2=self.beta2)
        _check_positive(rate=self.rate, tau=self.tau)

    @property
    def first(self) -> Mapping[str, float]:
        """See `ServerOptimiser`."""
        return {"m": 0.0, "v": self.tau**2}

    def step(self, change: np.ndarray, slots: Slots) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """See `ServerOptimiser.step`."""
        m = self.beta1 * slots["m"] + (1.0 - self.beta1) * change
        v = self._second_moment(slots["v"], np.square(change))
        return self.rate * m / (np.sqrt(v) + self.tau), {"m": m, "v": v}

    def _second_moment(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        return self.beta2 * v + (1.0 - self.beta2) * square


@dataclass(frozen=True)
class Yogi(Adam):
    """FedYogi, of the same algorithm: ``v -= (1 - beta2) D^2 sign(v - D^2)``.

    So v comes down as slowly as it goes up, and a stretch of small changes does not make steps large.
    """

    name: ClassVar[str] = "yogi"

    def _second_moment(self, v: np.ndarray, square: np.ndarray) -> np.ndarray:
        return np.asarray(v - (1.0 - self.beta2) * square * np.sign(v - square))


def _check_fractions(**values: float) -> None:
    for name, value in values.items():
        if not 0 <= value < 1:
            raise ValueError(f"{name} is {value}: it must be at least 0 and below 1")


def _check_positive(**values: float) -> None:
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise ValueError(f"{name} is {value}: it must be above 0 and finite")
