"""The virtual clock: work is really done, and only how long it takes is simulated."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Duration:
    """How long one piece of training takes, in virtual seconds, each at least 0.

    A part that is infinite is a client that hangs: its work never comes back.

    Attributes:
        down: the model's way to the client.
        wait: in the client's batch queue, before training begins.
        compute: of training.
        up: the update's way back.
        lost: whether the client drops out at the end of these seconds, instead of answering.
        back_after: seconds from there until it joins again; infinite where it never does.
    """

    down: float
    wait: float
    compute: float
    up: float
    lost: bool = False
    back_after: float = 0.0

    def __post_init__(self) -> None:
        for name in ("down", "wait", "compute", "up", "back_after"):
            if not (value := getattr(self, name)) >= 0:
                raise ValueError(f"{name} is {value}: a duration is at least 0 seconds")

    @property
    def link(self) -> float:
        """All of it that is not training: what a scheduler is told as the link's seconds."""
        return self.down + self.wait + self.up

    @property
    def total(self) -> float:
        """From the submission to the answer."""
        return self.down + self.wait + self.compute + self.up

    @property
    def hangs(self) -> bool:
        """Whether no answer ever comes."""
        return math.isinf(self.total)


class DurationModel(Protocol):
    """How fast clients and their links are.

    A pure function of its arguments and of what it was made with: the order of calls must not matter, so that a run is
    the same however its events fall.
    """

    def train(self, index: int, sequence: int, amount: int, nbytes_down: int, nbytes_up: int) -> Duration:
        """The duration of one piece of training.

        Args:
            index: which worker of the pool, from 0.
            sequence: of the work's token: which piece of the run.
            amount: local steps.
            nbytes_down: bytes of the model.
            nbytes_up: bytes of the update.
        """
        ...
