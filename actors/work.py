"""What a worker is given and what it gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np

from ..learners.learner import Exploration
from ..schedulers.events import Token, WorkKind
from .columns import Columns

Scores: TypeAlias = dict[str, np.ndarray]
"""An evaluation's result, one row an episode: ``return [E] float32``, ``length [E] int64``."""


@dataclass(frozen=True)
class PolicyState:
    """One published version of the weights: what workers act with.

    Attributes:
        version: counts up from 1.
        tensors: by name, as `Learner.policy_tensors` gives them.
        exploration: how far rollouts stray from greedy; evaluations are greedy.
    """

    version: int
    tensors: Mapping[str, np.ndarray]
    exploration: Exploration


@dataclass(frozen=True)
class WorkResult:
    """One piece of work, done.

    Attributes:
        token: names the work.
        kind: what was asked.
        version: of the weights that it was done with.
        amount: how much was done, in the kind's unit.
        samples: how many usable samples came of it.
        payload: `Columns` of a rollout, `Scores` of an evaluation.
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
    payload: Columns | Scores
    compute_seconds: float
    stats: dict[str, float] = field(default_factory=dict)
    stream: int = 0
    first_step: int = 0


def payload_nbytes(result: WorkResult) -> int:
    """Bytes of the payload's arrays."""
    return sum(array.nbytes for array in result.payload.values())
