"""The contract of a vectorised environment with discrete actions. N is the number of environments in the vector."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeAlias

import numpy as np

from ...learners.encodings.spec import EnvironmentSpec
from ...learners.learner import Exploration

Observation: TypeAlias = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Step:
    """What one step gave.

    Attributes:
        observation: field to ``[N, ...]``; of an episode that just ended, its last observation.
        reward: ``[N] float32``.
        terminated: ``[N] bool``: the episode ended, nothing can follow.
        truncated: ``[N] bool``: the episode was cut off, and its last state still has a value.
    """

    observation: Observation
    reward: np.ndarray
    terminated: np.ndarray
    truncated: np.ndarray


class VectorEnvironment(Protocol):
    """N copies of one environment, stepped together.

    Reset is on the *next* step, as Gymnasium's ``AutoresetMode.NEXT_STEP``: the step after an episode's end ignores
    that environment's action, gives reward 0 and the first observation of a new episode.
    """

    @property
    def spec(self) -> EnvironmentSpec:
        """Shapes and names."""
        ...

    @property
    def num_envs(self) -> int:
        """N."""
        ...

    def reset(self, stream: np.random.Generator) -> Observation:
        """Begin N new episodes. All later randomness of the environment comes from ``stream``."""
        ...

    def step(self, action: np.ndarray) -> Step:
        """Take ``action [N] int64``. Raises ValueError for an action outside the action set."""
        ...

    def legal(self) -> np.ndarray | None:
        """``[N, A] bool``, the actions allowed now, or None where all always are."""
        ...

    def close(self) -> None:
        """Free what the environment holds."""
        ...


def check_action(action: np.ndarray, num_actions: int, ended: np.ndarray | None) -> None:
    """Check what an environment is asked to do.

    Args:
        action: ``[N]``.
        num_actions: A.
        ended: ``[N] bool``, whose action is ignored; None before the first reset.

    Raises:
        ValueError: wrong shape or dtype, an action out of range, or no episode was begun.
    """
    if ended is None:
        raise ValueError("step before reset: begin the episodes with reset(stream)")
    if action.shape != ended.shape or action.dtype != np.int64:
        raise ValueError(f"action is {action.dtype}{list(action.shape)}, expected int64[{ended.size}]")
    outside = ((action < 0) | (action >= num_actions)) & ~ended
    if outside.any():
        where = int(np.flatnonzero(outside)[0])
        raise ValueError(f"action[{where}] is {action[where]}: it must be in 0..{num_actions - 1}")


class Player(Protocol):
    """Whatever chooses actions: a learnt `Policy`, or a player that needs no weights."""

    def act(
        self,
        observation: Observation,
        legal: np.ndarray | None,
        exploration: Exploration,
        generator: np.random.Generator,
    ) -> np.ndarray:
        """Actions ``[N] int64`` for observations ``{field: [N, ...]}`` and, where there is one, ``legal [N, A]``."""
        ...
