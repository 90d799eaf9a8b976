"""The data contract between replay, data sets and learners.

B is the number of encoded states, P of (state, action) pairs. A batch is a flat mapping of tensors with the field's
names, in one of two forms:

* transitions, P = B: ``observation_tm1, action_tm1 [B] int64, reward_t [B] float32, discount_t [B] float32``, and,
  unless every ``discount_t`` is 0, ``observation_t`` and perhaps ``legal_t [B, A] bool``;
* pairs, where one encoded state serves many actions: ``observation_tm1, row [P] int64, action [P] int64,
  target [P] float32``.

Both may have ``weight`` (float32, importance weights) and ``index`` (int64, where the samples came from). An
observation is a mapping from field name to tensor ``[B, ...]``. With n-step returns ``reward_t`` is the discounted sum
of n rewards and ``discount_t`` the discount of the state after them; a Monte-Carlo return is a ``reward_t`` whose
``discount_t`` is 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

import torch

Observation: TypeAlias = Mapping[str, torch.Tensor]
Batch: TypeAlias = Mapping[str, Any]
"""Field name to tensor, or to an `Observation` for the two observation fields."""


class Source(Protocol):
    """Where batches come from: replay and data sets alike."""

    def next_batch(self) -> Batch:
        """The next batch. Raises ValueError when there is nothing to sample from."""
        ...

    def update_priorities(self, index: torch.Tensor, td_error: torch.Tensor) -> None:
        """Tell how wrong the learner found samples ``index [P]``; a uniform source ignores it."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Everything that is needed to go on: JSON values and arrays, nested."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state of `state_dict`."""
        ...

    def check_valid(self) -> None:
        """Assert the invariants of the state."""
        ...
