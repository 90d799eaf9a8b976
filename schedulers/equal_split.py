"""The plain scheduler: every worker is given pieces of the same amount, whatever its speed."""

from __future__ import annotations

from typing import ClassVar

from .rollouts import RolloutScheduler


class EqualSplit(RolloutScheduler):
    """Equal pieces for equal workers.

    Args:
        attempt, in_flight: see `RolloutScheduler`.
        piece: environment steps in one rollout, at least 1.
    """

    name: ClassVar[str] = "equal_split"

    def __init__(self, attempt: int, piece: int, in_flight: int = 1) -> None:
        super().__init__(attempt, in_flight=in_flight)
        if piece < 1:
            raise ValueError(f"piece is {piece}: it must be at least 1")
        self._piece = piece

    def amount_for(self, worker: str, now: float) -> int:
        """Always the same."""
        return self._piece
