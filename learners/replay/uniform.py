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
        self._fields: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {}
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
            self._fields = {name: (part.dtype, part.shape[1:]) for name, part in transitions.items()}
            self._ring = {
                name: np.zeros((self.capacity, *_packed(part[:1]).shape[1:]), _packed(part[:1]).dtype)
                for name, part in transitions.items()
            }
        kept = min(count, self.capacity)
        slots = (self._next_slot + np.arange(count - kept, count)) % self.capacity
        for name, part in transitions.items():
            self._ring[name][slots] = _packed(part[count - kept :])
        self._next_slot = (self._next_slot + count) % self.capacity
        self._filled = min(self._filled + count, self.capacity)
        self.inserted += count

    def next_batch(self) -> Batch:
        """A batch as `learners.batch` describes it, with ``index`` the slots of the ring."""
        if not len(self):
            raise ValueError("replay is empty: insert transitions before asking for a batch")
        index = self._generator.integers(len(self), size=self.batch_size)
        flat = self._rows(index)
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
            "mask_widths": {name: shape[-1] for name, (dtype, shape) in self._fields.items() if _is_mask(dtype, shape)},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state of `state_dict`, of a ring of any capacity; a smaller ring keeps the newest transitions."""
        widths = state["mask_widths"]
        transitions = {
            name: _unpacked(part, widths[name]) if name in widths else part
            for name, part in state["transitions"].items()
        }
        self._ring, self._fields, self._filled, self._next_slot = {}, {}, 0, 0
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
        fields = self._fields or {name: (part.dtype, part.shape[1:]) for name, part in transitions.items()}
        if transitions.keys() != fields.keys():
            raise ValueError(f"transitions have fields {sorted(transitions)}, the replay has {sorted(fields)}")
        count = len(transitions["action_tm1"])
        for name, part in transitions.items():
            dtype, shape = fields[name]
            if part.shape != (count, *shape) or part.dtype != dtype:
                raise ValueError(
                    f"transitions' {name} is {part.dtype}{list(part.shape)}, expected {dtype}{[count, *shape]}"
                )
        return count

    def _rows(self, index: np.ndarray) -> dict[str, np.ndarray]:
        rows = {}
        for name, part in self._ring.items():
            dtype, shape = self._fields[name]
            rows[name] = part[index]
            if _is_mask(dtype, shape):
                rows[name] = _unpacked(rows[name], shape[-1])
        return rows


def _is_mask(dtype: np.dtype[Any], shape: tuple[int, ...]) -> bool:
    return dtype == np.bool_ and len(shape) > 0


def _packed(part: np.ndarray) -> np.ndarray:
    """Masks as bits, eight in a byte: which of two thousand words are legal is most of a transition otherwise."""
    return np.packbits(part, axis=-1) if _is_mask(part.dtype, part.shape[1:]) else part


def _unpacked(part: np.ndarray, width: int) -> np.ndarray:
    return np.unpackbits(part, axis=-1, count=width).view(np.bool_)


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
