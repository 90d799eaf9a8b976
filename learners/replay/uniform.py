"""A ring of transitions, sampled uniformly with replacement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..batch import Batch
from ..randomness import restore_stream, stream_state


class UniformReplay:
    """Keeps the newest ``capacity`` transitions; a `Source` of batches.

    Fields, their shapes and dtypes are those of the first transitions inserted; nested observations are named
    ``observation_tm1/<field>``. Not thread-safe: one loop inserts and samples.

    Attributes:
        inserted: transitions inserted so far.
    """

    def __init__(
        self, capacity: int, batch_size: int, generator: np.random.Generator, *, merge_equal: bool = False
    ) -> None:
        """Make an empty ring.

        Args:
            capacity: transitions kept, >= 1.
            batch_size: transitions in a batch, >= 1.
            generator: stream of the samples.
            merge_equal: give pairs (``row``, ``action``, ``target``) over the distinct observations of a batch. Only
                for returns that need no bootstrapping; it saves the encoding of equal states.
        """
        if capacity < 1 or batch_size < 1:
            raise ValueError(f"capacity is {capacity} and batch_size {batch_size}: both must be at least 1")
        self.capacity = capacity
        self.batch_size = batch_size
        self.merge_equal = merge_equal
        self.inserted = 0
        self._generator = generator
        self._ring: dict[str, np.ndarray] = {}
        self._filled = 0
        self._next_slot = 0

    def __len__(self) -> int:
        return self._filled

    def insert(self, transitions: Mapping[str, np.ndarray]) -> None:
        """Add transitions, oldest first; each array is ``[M, ...]``.

        Raises:
            ValueError: other fields, shapes or dtypes than before, or arrays of unequal length.
        """
        count = self._check(transitions)
        if not self._ring:
            self._ring = {
                name: np.zeros((self.capacity, *part.shape[1:]), part.dtype) for name, part in transitions.items()
            }
        kept = min(count, self.capacity)
        slots = (self._next_slot + np.arange(count - kept, count)) % self.capacity
        for name, part in transitions.items():
            self._ring[name][slots] = part[count - kept :]
        self._next_slot = (self._next_slot + count) % self.capacity
        self._filled = min(self._filled + count, self.capacity)
        self.inserted += count

    def next_batch(self) -> Batch:
        """A batch as `learners.batch` describes it, with ``index`` the slots of the ring."""
        if not len(self):
            raise ValueError("replay is empty: insert transitions before asking for a batch")
        index = self._generator.integers(len(self), size=self.batch_size)
        flat = {name: part[index] for name, part in self._ring.items()}
        batch = _merged(flat) if self.merge_equal else flat
        return _nested(batch) | {"index": torch.from_numpy(index)}

    def update_priorities(self, index: torch.Tensor, td_error: torch.Tensor) -> None:
        """Uniform replay has no priorities."""

    def state_dict(self) -> dict[str, Any]:
        """The ring in order of age, and where the stream stands."""
        order = (self._next_slot + np.arange(-len(self), 0)) % self.capacity
        return {
            "inserted": self.inserted,
            "next_slot": self._next_slot,
            "stream": stream_state(self._generator),
            "transitions": {name: part[order] for name, part in self._ring.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state of `state_dict`, of a ring of any capacity; a smaller ring keeps the newest transitions."""
        transitions = state["transitions"]
        self._ring, self._filled, self._next_slot = {}, 0, 0
        if transitions:
            count = len(transitions["action_tm1"])
            if count >= self.capacity:
                # The same transitions in the same slots: sampling goes on exactly as it would have.
                self._next_slot = (state["next_slot"] - count) % self.capacity
            self.insert(transitions)
        self.inserted = state["inserted"]
        self._generator = restore_stream(state["stream"])

    def check_valid(self) -> None:
        """Assert the invariants of the ring."""
        assert 0 <= self._filled <= min(self.inserted, self.capacity)
        assert 0 <= self._next_slot < self.capacity
        assert self._filled == self.capacity or self._next_slot == self._filled
        assert all(len(part) == self.capacity for part in self._ring.values())
        assert bool(self._ring) or self._filled == 0
        for name in ("reward_t", "discount_t"):
            if name in self._ring:
                assert np.isfinite(self._ring[name]).all()

    def _check(self, transitions: Mapping[str, np.ndarray]) -> int:
        if missing := sorted({"action_tm1", "reward_t", "discount_t"} - transitions.keys()):
            raise ValueError(f"transitions lack {', '.join(missing)}; they have the fields {sorted(transitions)}")
        ring = self._ring or transitions
        if transitions.keys() != ring.keys():
            raise ValueError(f"transitions have fields {sorted(transitions)}, the replay has {sorted(ring)}")
        count = len(transitions["action_tm1"])
        for name, part in transitions.items():
            wanted = (count, *ring[name].shape[1:])
            if part.shape != wanted or part.dtype != ring[name].dtype:
                raise ValueError(
                    f"transitions' {name} is {part.dtype}{list(part.shape)}, expected {ring[name].dtype}{list(wanted)}"
                )
        return count


def distinct_rows(arrays: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Which rows to keep, and for each row which kept one equals it in all arrays: ``first [U], inverse [B]``."""
    rows = len(next(iter(arrays.values())))
    joined = np.concatenate(
        [np.ascontiguousarray(part).reshape(rows, -1).view(np.uint8).reshape(rows, -1) for part in arrays.values()],
        axis=1,
    )
    keys = np.ascontiguousarray(joined).view(np.dtype((np.void, joined.shape[1])))[:, 0]
    _, first, inverse = np.unique(keys, return_index=True, return_inverse=True)
    return first, inverse


def _merged(flat: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if flat["discount_t"].any():
        raise ValueError("merge_equal needs returns without bootstrapping, and some discount_t is not 0")
    observation = {name: part for name, part in flat.items() if name.startswith("observation_tm1/")}
    first, inverse = distinct_rows(observation)
    pairs = {"row": inverse, "action": flat["action_tm1"], "target": flat["reward_t"]}
    return pairs | {name: part[first] for name, part in observation.items()}


def _nested(flat: Mapping[str, np.ndarray]) -> dict[str, Any]:
    batch: dict[str, Any] = {}
    for name, part in flat.items():
        outer, _, inner = name.partition("/")
        tensor = torch.from_numpy(part)
        if inner:
            batch.setdefault(outer, {})[inner] = tensor
        else:
            batch[outer] = tensor
    return batch
