"""A ring of transitions, sampled uniformly or by priority, with replacement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from ..batch import Batch
from ..randomness import restore_stream, stream_state
from ..schedules import Schedule
from .frames import FRAME, FrameStore
from .priorities import Priorities

_TAIL = 4096
_FULL = Schedule(start=1.0)
_FRAME_FIELDS = (f"observation_tm1/{FRAME}", f"observation_t/{FRAME}")


class Replay:
    """Keeps the newest ``capacity`` transitions; a `Source` of batches.

    Fields, their shapes and dtypes are those of the first transitions inserted; nested observations are named
    ``observation_tm1/<field>``. Where frames are kept apart, transitions have their numbers for observations
    (see `frames`), and batches the stacks. Not thread-safe: one loop inserts and samples.

    Attributes:
        inserted: transitions inserted so far.
        sampled: samples given so far.
    """

    def __init__(
        self,
        capacity: int,
        batch_size: int,
        generator: np.random.Generator,
        *,
        merge_equal: bool = False,
        frames: FrameStore | None = None,
        frames_in_hand: int = 0,
        priority_exponent: float | None = None,
        importance_exponent: Schedule = _FULL,
    ) -> None:
        """Make an empty ring.

        Args:
            capacity: transitions kept, >= 1.
            batch_size: transitions in a batch, >= 1.
            generator: stream of the samples.
            merge_equal: give pairs (``row``, ``action``, ``target``) over the distinct observations of a batch. Only
                for returns that need no bootstrapping; it saves the encoding of equal states.
            frames: where observations are kept, one frame each; None: in the transitions.
            frames_in_hand: how many frames players may add between a transition's oldest one and the transition. One
                that comes later is left out, and one whose frames may be overwritten soon goes.
            priority_exponent: of `Priorities`; None: samples are uniform.
            importance_exponent: of `Priorities.weights`, over the run.
        """
        if capacity < 1 or batch_size < 1:
            raise ValueError(f"capacity is {capacity} and batch_size {batch_size}: both must be at least 1")
        if frames is not None and frames_in_hand >= frames.capacity:
            raise ValueError(
                f"frames_in_hand is {frames_in_hand} and there is room for {frames.capacity} frames: no transition "
                "would last"
            )
        self.capacity = capacity
        self.batch_size = batch_size
        self.merge_equal = merge_equal
        self.frames = frames
        self.inserted = 0
        self.sampled = 0
        self._frames_in_hand = frames_in_hand
        self._frames_before = np.zeros(capacity if frames else 0, np.int64)
        self._generator = generator
        self._priorities = None if priority_exponent is None else Priorities(capacity, priority_exponent)
        self._importance_exponent = importance_exponent
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
        if self.frames is not None:
            in_time = self._in_time(transitions[_FRAME_FIELDS[0]])
            transitions = {name: part[in_time] for name, part in transitions.items()}
            count = int(in_time.sum())
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
        if self._priorities is not None:
            self._priorities.add(slots)
        if self.frames is not None:
            self._frames_before[slots] = self.frames.added
        self._next_slot = (self._next_slot + count) % self.capacity
        self._filled = min(self._filled + count, self.capacity)
        self.inserted += count
        self._let_go()

    def next_batch(self, progress: float = 0.0) -> Batch:
        """A batch as `learners.batch` describes it, with ``index`` the samples' numbers in the order of insertion.

        Args:
            progress: share of the run that is done, in [0, 1].
        """
        if not len(self):
            raise ValueError("replay is empty: insert transitions before asking for a batch")
        if self._priorities is None:
            slots = self._generator.integers(len(self), size=self.batch_size)
            if len(self) < self.capacity:
                slots = (self._tail() + slots) % self.capacity
            batch = self._rows(slots)
        else:
            slots = self._priorities.sample(self.batch_size, self._generator)
            weight = self._priorities.weights(slots, self._importance_exponent.at(progress))
            batch = self._rows(slots) | {"weight": weight}
        self.sampled += self.batch_size
        # Slots count from the newest one back.
        number = self.inserted - 1 - (self._next_slot - 1 - slots) % self.capacity
        batch = _merged(batch) if self.merge_equal else batch
        return _nested(batch) | {"index": torch.from_numpy(number)}

    def update_priorities(self, index: torch.Tensor, td_error: torch.Tensor) -> None:
        """Tell how wrong the learner found samples ``index [B]``. Those that are not here any more are passed over."""
        if self._priorities is None:
            return
        number = index.cpu().numpy()
        here = number >= self.inserted - len(self)
        slots = (self._next_slot - (self.inserted - number[here])) % self.capacity
        self._priorities.update(slots, td_error.detach().float().cpu().numpy()[here])

    def state_dict(self) -> dict[str, Any]:
        """The ring in order of age, and where the stream stands."""
        order = self._order()
        state = {
            "inserted": self.inserted,
            "sampled": self.sampled,
            "next_slot": self._next_slot,
            "stream": stream_state(self._generator),
            "transitions": {name: part[order] for name, part in self._ring.items()},
            "mask_widths": {name: shape[-1] for name, (dtype, shape) in self._fields.items() if _is_mask(dtype, shape)},
        }
        if self._priorities is not None:
            state["priorities"] = self._priorities.state_dict(order)
        if self.frames is not None:
            state["frames"] = self.frames.state_dict() | {"at_insertion": self._frames_before[order]}
        return state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state of `state_dict`, of a ring of any capacity; a smaller ring keeps the newest transitions."""
        widths = state["mask_widths"]
        transitions = {
            name: _unpacked(part, widths[name]) if name in widths else part
            for name, part in state["transitions"].items()
        }
        if self._priorities is not None:
            self._priorities.remove(np.arange(self.capacity))
        self._ring, self._fields, self._filled, self._next_slot = {}, {}, 0, 0
        frames, self.frames = self.frames, None
        if transitions:
            count = len(transitions["action_tm1"])
            # The same transitions in the same slots, where they fit: sampling goes on exactly as it would have.
            self._next_slot = (state["next_slot"] - count) % self.capacity
            self.insert(transitions)
        self.inserted, self.sampled = state["inserted"], state["sampled"]
        self._generator = restore_stream(state["stream"])
        if self._priorities is not None and "priorities" in state:
            self._priorities.load_state_dict(state["priorities"], self._order())
        self.frames = frames
        if self.frames is not None and "frames" in state:
            self.frames.load_state_dict(state["frames"])
            at_insertion = state["frames"]["at_insertion"]
            self._frames_before[self._order()] = at_insertion[len(at_insertion) - len(self) :]
            self._let_go()

    def check_valid(self) -> None:
        """Assert the invariants of the ring."""
        assert 0 <= self._filled <= min(self.inserted, self.capacity)
        assert 0 <= self._next_slot < self.capacity
        assert all(len(part) == self.capacity for part in self._ring.values())
        assert bool(self._ring) or self._filled == 0
        for name in ("reward_t", "discount_t"):
            if name in self._ring:
                assert np.isfinite(self._ring[name]).all()
        if self._priorities is not None:
            self._priorities.check_valid(self._order())
        if self.frames is not None:
            self.frames.check_valid()
            for name in self._frame_fields():
                windows = self.frames.windows(self._ring[name][self._order()])
                assert ((windows >= self.frames.oldest) & (windows < self.frames.added)).all()

    def _tail(self) -> int:
        """The slot of the oldest transition."""
        return (self._next_slot - self._filled) % self.capacity

    def _order(self) -> np.ndarray:
        """The filled slots, oldest first."""
        return (self._next_slot + np.arange(-len(self), 0)) % self.capacity

    def _in_time(self, number: np.ndarray) -> np.ndarray:
        assert self.frames is not None
        newest_lost = self.frames.added - self._frames_in_hand
        here = number >= newest_lost
        if here.any():
            here[here] = self.frames.windows(number[here])[:, 0] >= newest_lost
        return here

    def _let_go(self) -> None:
        """Forget transitions of which a frame may be overwritten. They are forgotten in the order of insertion."""
        if self.frames is None or not self.frames.oldest:
            return
        least = self.frames.oldest + self._frames_in_hand
        while self._filled:
            slots = (self._tail() + np.arange(min(_TAIL, self._filled))) % self.capacity
            gone = int((self._frames_before[slots] < least).sum())
            if self._priorities is not None:
                self._priorities.remove(slots[:gone])
            self._filled -= gone
            if gone < len(slots):
                return

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
        if self.frames is not None:
            for name in self._frame_fields():
                outer = name.partition("/")[0]
                rows |= {f"{outer}/{field}": part for field, part in self.frames.stacks(rows.pop(name)).items()}
        return rows

    def _frame_fields(self) -> list[str]:
        return [name for name in _FRAME_FIELDS if name in self._ring]


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
