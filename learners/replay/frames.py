"""Single frames, each kept once, and the stacks of them that a network sees.

M is a number of frames, B of samples, H the environment's history, T of steps, N of environments. A frame's number
counts up from 0 over all that were ever added, so that it names the frame for good.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from ..encodings.spec import EnvironmentSpec

FRAME = "frame"
"""The field that stands for an observation's fields where frames are kept apart: their number, int64."""
_PREFIX = "observation/"
_NONE = -1


class FrameStore:
    """A ring of the newest frames. Each knows which one came before it in its episode.

    Args:
        capacity: frames kept, at least 1.
        spec: of one frame and of the history H.

    Attributes:
        added: frames that were ever added, the number of the next one.
    """

    def __init__(self, capacity: int, spec: EnvironmentSpec) -> None:
        if capacity < 1:
            raise ValueError(f"capacity is {capacity} frames: it must be at least 1")
        self.capacity = capacity
        self.history = spec.history
        self.added = 0
        # Pages that nobody has written to yet cost nothing.
        self._frames = {
            name: np.zeros((capacity, *one.shape), one.dtype) for name, one in sorted(spec.observation.items())
        }
        self._before = np.full(capacity, _NONE, np.int64)

    @property
    def oldest(self) -> int:
        """Number of the oldest frame that is here; `added` where none is."""
        return max(0, self.added - self.capacity)

    def add(self, frames: Mapping[str, np.ndarray], before: np.ndarray) -> np.ndarray:
        """Take frames in, over the oldest ones.

        Args:
            frames: field to ``[M, *shape]``.
            before: ``[M] int64``, for each the number of the one before it in its episode, which may be among these;
                -1 for an episode's first.

        Returns:
            Their numbers ``[M] int64``, which count up.
        """
        numbers = self.added + np.arange(len(before))
        kept = slice(max(0, len(before) - self.capacity), None)
        slots = numbers[kept] % self.capacity
        for name, ring in self._frames.items():
            ring[slots] = frames[name][kept]
        self._before[slots] = before[kept]
        self.added += len(before)
        return numbers

    def windows(self, number: np.ndarray) -> np.ndarray:
        """``[B, H] int64``: the numbers of what is seen with frame ``number [B]``, oldest first.

        At an episode's beginning its first frame stands for those before it, and so it does where the one before is not
        here any more.
        """
        windows = np.empty((len(number), self.history), np.int64)
        windows[:, -1] = number
        for back in range(self.history - 2, -1, -1):
            after = windows[:, back + 1]
            before = self._before[after % self.capacity]
            windows[:, back] = np.where(before < self.oldest, after, before)
        return windows

    def stacks(self, number: np.ndarray) -> dict[str, np.ndarray]:
        """Field to ``[B, H, *shape]``, new arrays: what is seen with frame ``number [B]``, which must be here."""
        slots = self.windows(number) % self.capacity
        return {name: ring[slots] for name, ring in self._frames.items()}

    def state_dict(self) -> dict[str, Any]:
        """The frames in order of age."""
        slots = np.arange(self.oldest, self.added) % self.capacity
        return {
            "added": self.added,
            "before": self._before[slots],
            "frames": {name: ring[slots] for name, ring in self._frames.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state of a store of any capacity; a smaller one keeps the newest frames, under their numbers."""
        self.added = int(state["added"]) - len(state["before"])
        self.add(state["frames"], state["before"])

    def check_valid(self) -> None:
        """Assert that every frame comes after the one before it."""
        numbers = np.arange(self.oldest, self.added)
        before = self._before[numbers % self.capacity]
        assert ((before == _NONE) | ((before >= 0) & (before < numbers))).all()


class FrameIntake:
    """Puts one player's observations into a store, rollout after rollout.

    Args:
        store: where frames go.
    """

    def __init__(self, store: FrameStore) -> None:
        self._store = store
        self._last: np.ndarray | None = None

    def add(self, columns: Mapping[str, np.ndarray], continues: bool) -> dict[str, np.ndarray]:
        """The columns, with frames' numbers ``[T + 1, N]`` for observations.

        Args:
            columns: as `actors.columns` describes them.
            continues: whether row 0 is the last row of the rollout before, which is there already.
        """
        valid = columns["valid"]
        rows, envs = len(valid) + 1, valid.shape[1]
        number = np.empty((rows, envs), np.int64)
        known = 0
        if continues and self._last is not None:
            number[0], known = self._last, 1
        number[known:] = self._store.added + np.arange((rows - known) * envs).reshape(rows - known, envs)
        before = np.full((rows, envs), _NONE)
        # The step that is not valid begins an episode: what follows on it is the first that is seen of it.
        before[1:] = np.where(valid, number[:-1], _NONE)
        frames = {
            name.removeprefix(_PREFIX): part[known:].reshape(-1, *part.shape[2:])
            for name, part in columns.items()
            if name.startswith(_PREFIX)
        }
        self._store.add(frames, before[known:].reshape(-1))
        self._last = number[-1]
        others = {name: part for name, part in columns.items() if not name.startswith(_PREFIX)}
        return others | {_PREFIX + FRAME: number}
