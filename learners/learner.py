"""The contract of a learner and of the policy that it gives to actors.

A learner knows nothing of Ray, of pools or of the clock: it runs in a plain loop.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import torch

from ..schedulers.aggregation import AverageKind
from .batch import Batch, Observation

SharedTensors: TypeAlias = dict[str, tuple[torch.Tensor, AverageKind]]
"""What crosses a link, by name, and how it averages over learners."""


class UpdateFailed(RuntimeError):
    """An update cannot be made, and the weights are as they were before it.

    The gradient is not finite, or targets lie outside the support and the config says that this is an error. Trying
    again would fail again: rewards, ranges or the learning rate must change.
    """


@dataclass(frozen=True)
class Loss:
    """A differentiable loss, with what was seen on the way.

    Attributes:
        value: scalar; its backward pass gives the gradients.
        td_error: ``[B or P]``, expected value minus target, detached.
        stats: plain numbers by name, such as ``targets_clipped``.
    """

    value: torch.Tensor
    td_error: torch.Tensor
    stats: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class UpdateStats:
    """One update in numbers: the loss, the gradient's norm before clipping, the learning rate, and the loss's stats."""

    loss: float
    gradient_norm: float
    learning_rate: float
    td_error: torch.Tensor
    stats: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Exploration:
    """How far an actor strays from its greedy action.

    Attributes:
        epsilon: probability of a uniformly drawn legal action.
        temperature: of a softmax over the best actions' values, in units of value, or of their scale where returns
            are normalised; 0 acts greedily.
    """

    epsilon: float = 0.0
    temperature: float = 0.0


GREEDY = Exploration()


class Policy(Protocol):
    """The acting half of a learner. Tensors and arrays are on the CPU."""

    def act(
        self,
        observation: Mapping[str, np.ndarray],
        legal: np.ndarray | None,
        exploration: Exploration,
        generator: np.random.Generator,
    ) -> np.ndarray:
        """Actions ``[N] int64`` for observations ``{field: [N, ...]}`` and, if there is one, ``legal [N, A] bool``."""
        ...

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Take over weights that a learner published. Raises ValueError for other names or shapes."""
        ...

    def draw_noise(self, generator: np.random.Generator | None) -> None:
        """Draw the noise of noisy layers anew, if there are any; it stays until the next call. None: play without.

        Whoever plays says so, since a policy cannot tell a rollout from an evaluation.
        """
        ...


class Learner(Protocol):
    """Turns batches into better weights."""

    def loss(self, batch: Batch) -> Loss:
        """The loss of a batch, through the module that data-parallel training may have wrapped."""
        ...

    def update(self, batch: Batch, progress: float) -> UpdateStats:
        """One step: loss, backward, clipping, optimiser, averages. ``progress`` in [0, 1] drives the schedules.

        Raises `UpdateFailed`.
        """
        ...

    def policy(self) -> Policy:
        """The acting half, with the weights as they are now (averaged ones where the learner keeps them)."""
        ...

    def policy_tensors(self) -> dict[str, np.ndarray]:
        """The weights that actors play with, by name: a copy that later updates do not change."""
        ...

    def shared(self) -> SharedTensors:
        """What crosses a link."""
        ...

    def load_shared(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Take over what crossed a link."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything: module, target, averages, optimiser, step, streams. JSON values and tensors, nested."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state of `state_dict`."""
        ...


__all__ = [
    "GREEDY",
    "AverageKind",
    "Exploration",
    "Learner",
    "Loss",
    "Observation",
    "Policy",
    "SharedTensors",
    "UpdateFailed",
    "UpdateStats",
]
