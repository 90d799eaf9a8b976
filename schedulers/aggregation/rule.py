"""The server's rule: a commit in, the next model out."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np

from .average import BLOCK, Average, Change, blocks
from .optimisers import ServerOptimiser
from .tensors import AverageKind, Tensors, check_kinds

Side: TypeAlias = Callable[[Callable[[slice], None], Iterable[slice]], Iterable[None]]
"""`map`, or what calls the function for several slices at once, such as an executor's ``map``."""


class ServerRule(Protocol):
    """Makes the next global model of the last one and a commit's updates."""

    @property
    def least_updates(self) -> int:
        """That a commit must hold."""
        ...

    @property
    def most_updates(self) -> int | None:
        """That a commit may hold; None: any number."""
        ...

    def apply(
        self, model: Tensors, updates: Iterable[tuple[Tensors, float]], kinds: Mapping[str, AverageKind]
    ) -> dict[str, np.ndarray]:
        """The next model, in the shapes and dtypes of the last one, which is not written into.

        The same updates in the same order give the same bits, on the same machine. Where ``most_updates`` is None,
        ``updates`` is asked for the next one when no more than a few of the last are held any more.

        Args:
            model: the global model.
            updates: in the order of the commit, each with its weight: changes of the ``mean`` tensors, values of the
                others. They passed `check_update`.
            kinds: of the model's tensors.

        Raises:
            ValueError: fewer updates than ``least_updates`` or more than ``most_updates``; a tensor is missing, of
                another shape or dtype, or of none that goes with its kind; a weight is negative; the next model would
                not be finite. The state is as it was.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """All that later steps hang on: JSON values and arrays."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a `state_dict`. Raises ValueError where it is of another rule."""
        ...


class AveragedStep:
    """Combines the updates, and lets a server optimiser step along the change that comes of it.

    The optimiser has to do with ``mean`` tensors alone; what is measured or counted is as the average has it. Its slots
    are stored in the tensor's dtype, and at least in float32.

    Args:
        average: combines a commit's updates.
        optimiser: makes the step.
        parts: in how many a large tensor is worked on. The numbers do not hang on it.
        side_by_side: works on parts; `map` does one after another.

    Raises:
        ValueError: ``parts`` is less than 1.
    """

    def __init__(
        self, average: Average, optimiser: ServerOptimiser, *, parts: int = 1, side_by_side: Side = map
    ) -> None:
        if parts < 1:
            raise ValueError(f"parts is {parts}: it must be at least 1")
        self.average = average
        self.optimiser = optimiser
        self._parts = parts
        self._side_by_side = side_by_side
        self._slots: dict[str, dict[str, np.ndarray]] = {}

    @property
    def least_updates(self) -> int:
        """See `ServerRule`."""
        return self.average.least_updates

    @property
    def most_updates(self) -> int | None:
        """See `ServerRule`."""
        return self.average.most_updates

    def apply(
        self, model: Tensors, updates: Iterable[tuple[Tensors, float]], kinds: Mapping[str, AverageKind]
    ) -> dict[str, np.ndarray]:
        """See `ServerRule.apply`."""
        check_kinds(model, kinds)
        all_slots = {}
        new_model = {}
        # What overflows is refused by its name.
        with np.errstate(over="ignore", invalid="ignore"):
            combined = self.average.of(model, updates, kinds)
            for name, old in model.items():
                if name in combined.changes:
                    new_model[name], slots = self._moved(name, old, combined.changes[name])
                    if slots:
                        all_slots[name] = slots
                else:
                    new_model[name] = np.asarray(combined.values[name]).astype(old.dtype)
                    _check_finite(name, new_model[name])
        self._slots = all_slots
        return new_model

    def _moved(self, name: str, old: np.ndarray, change: Change) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """The tensor after the optimiser's step and the slots after it, made block by block."""
        slots = self._slots_of(name, old)
        stored = np.result_type(old.dtype, np.float32)
        new = np.empty(old.shape, old.dtype)
        new_slots = {slot: np.empty(old.shape, stored) for slot in slots}
        flat_old, flat_new = old.reshape(-1), new.reshape(-1)
        flat_slots = {slot: (array.reshape(-1), new_slots[slot].reshape(-1)) for slot, array in slots.items()}

        def move(part: slice) -> None:
            numbers, wide = change(), np.empty(min(BLOCK, part.stop - part.start))
            # Threads have error states of their own.
            with np.errstate(over="ignore", invalid="ignore"):
                for block in blocks(part.stop, start=part.start):
                    step, after = self.optimiser.step(
                        numbers(block), {slot: before[block] for slot, (before, _) in flat_slots.items()}
                    )
                    moved = wide[: block.stop - block.start]
                    np.copyto(moved, flat_old[block])
                    moved += step
                    np.copyto(flat_new[block], moved, casting="same_kind")
                    _check_finite(name, flat_new[block])
                    for slot, (_, into) in flat_slots.items():
                        into[block] = after[slot]

        parts = list(blocks(old.size, max(BLOCK, math.ceil(old.size / self._parts))))
        # All are waited for, and the first error is raised.
        list((self._side_by_side if len(parts) > 1 else map)(move, parts))
        return new, new_slots

    def _slots_of(self, name: str, old: np.ndarray) -> Mapping[str, np.ndarray]:
        first = self.optimiser.first
        slots = self._slots.get(name) or {slot: np.full(old.shape, value) for slot, value in first.items()}
        for slot, array in slots.items():
            if array.shape != old.shape:
                raise ValueError(
                    f"{slot} of {name!r} has the shape {list(array.shape)} and the model's tensor {list(old.shape)}: "
                    "the rule's state is of another model"
                )
        return slots

    def state_dict(self) -> dict[str, Any]:
        """See `ServerRule.state_dict`: the optimiser's name, and by tensor and slot its arrays."""
        return {"optimiser": self.optimiser.name, "slots": {name: dict(slots) for name, slots in self._slots.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """See `ServerRule.load_state_dict`."""
        if state["optimiser"] != self.optimiser.name:
            raise ValueError(
                f"state is of the server optimiser {state['optimiser']!r} and this one is {self.optimiser.name!r}: "
                "a run keeps the one that it began with"
            )
        for name, slots in state["slots"].items():
            if slots.keys() != self.optimiser.first.keys():
                raise ValueError(f"state of {name!r} has the slots {sorted(slots)}: not those of {self.optimiser.name}")
        self._slots = {name: dict(slots) for name, slots in state["slots"].items()}


def _check_finite(name: str, array: np.ndarray) -> None:
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise ValueError(
            f"the next model would not be finite in {name!r}: the updates or the server's rate are too large, or the "
            "model was not finite before"
        )
