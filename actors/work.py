"""What a worker is given and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np

from ..learners.learner import GREEDY, Exploration
from ..schedulers.events import Assign, Token, WorkKind
from .columns import Columns

Scores: TypeAlias = dict[str, np.ndarray]
"""An evaluation's result, one row an episode: ``return [E] float32``, ``length [E] int64``."""

Update: TypeAlias = dict[str, np.ndarray]
"""What training came to, as it crosses the link: for a tensor that is averaged as a ``mean`` the change since the
version it started from, for any other its value."""


@dataclass(frozen=True)
class PolicyState:
    """One published version of the weights: what workers act with, or train from.

    Attributes:
        version: counts up from 1.
        tensors: by name, as `Learner.policy_tensors` or `Learner.shared` gives them.
        exploration: how far rollouts stray from greedy; evaluations are greedy.
    """

    version: int
    tensors: Mapping[str, np.ndarray]
    exploration: Exploration = GREEDY


@dataclass(frozen=True)
class WorkResult:
    """One piece of work, done.

    Attributes:
        token: names the work.
        kind: what was asked.
        version: of the weights that it was done with.
        amount: how much was done, in the kind's unit.
        samples: how many usable samples came of it.
        payload: `Columns` of a rollout, `Scores` of an evaluation, `Update` of training.
        compute_seconds: time in the worker.
        stats: plain numbers by name.
        stream: of a rollout: the sequence number of the work with which its environments began.
        first_step: of a rollout: how many vector steps they had taken since then. With ``stream`` it tells whether a
            rollout goes on where another one stopped, whatever was lost in between.
    """

    token: Token
    kind: WorkKind
    version: int
    amount: int
    samples: int
    payload: Columns | Scores | Update
    compute_seconds: float
    stats: dict[str, float] = field(default_factory=dict)
    stream: int = 0
    first_step: int = 0


class WorkDoer(Protocol):
    """Whatever does work for a pool, one piece at a time: a `Worker` with environments, or a federated client's."""

    @property
    def samples(self) -> int:
        """Size of its own data set; 0 where that means nothing."""
        ...

    def run(self, assign: Assign, state: PolicyState) -> WorkResult:
        """Do one piece of work with these weights. What it raises is a fault of its own code or data."""
        ...

    def reset(self) -> None:
        """Begin anew with the next piece."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


def payload_nbytes(result: WorkResult) -> int:
    """Bytes of the payload's arrays."""
    return sum(array.nbytes for array in result.payload.values())
