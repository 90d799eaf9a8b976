"""FedCompass for players: unequal workers get unequal amounts of play, so that their rollouts arrive together.

In FedCompass (Li et al. 2024, https://arxiv.org/abs/2309.14675, algorithm 1) a client that comes back joins a group
whose arrival it can meet with between ``q_min`` and ``q_max`` steps, or makes a group of its own. A rollout changes no
weights and is committed alone, so nobody has to wait for a group here, and its arrival time is all that is left of it:
groups become beats of a clock. The fastest worker does nearly ``q_max`` steps from one beat to the next; everybody else
does what fits. So every rollout is as old as a beat is long, where with equal pieces those of a worker that is eight
times slower are eight times older.
"""

from __future__ import annotations

import math
from typing import ClassVar

from .events import Arrived
from .rollouts import RolloutScheduler
from .speed import Speed, SpeedOptions

_SPEED = SpeedOptions(separate_link=True, median_of=5)
_ROOM = 0.95
"""Of ``q_max``, what the fastest worker is asked for: else one that came too early could never be given more."""


class CompassSplit(RolloutScheduler):
    """Pieces that end on a common beat.

    A worker is asked for as many steps as it is expected to do until the first beat that leaves it time for ``q_min``,
    never more than ``q_max``. What it came too late or too early is made good by its next piece, which begins where the
    last one ended and ends on a beat again. A worker of which nothing is known does ``q_min`` steps. Speeds are medians
    of the last five pieces: one hiccup moves nothing.

    Args:
        attempt, in_flight: see `RolloutScheduler`.
        q_min: least steps of a piece, at least 1.
        q_max: most steps of a piece. Workers up to ``0.95 q_max / q_min`` times slower than the fastest meet every
            beat; slower ones meet every second one, or third.
        quantum: amounts are multiples of it, as far as ``q_max`` allows: a worker plays its environments in step.

    Raises:
        ValueError: a number is below 1, ``q_min`` above ``q_max``, or ``quantum`` above ``q_max``.
    """

    name: ClassVar[str] = "compass_split"

    def __init__(self, attempt: int, q_min: int, q_max: int, *, quantum: int = 1, in_flight: int = 1) -> None:
        super().__init__(attempt, in_flight=in_flight)
        if not 1 <= q_min <= q_max:
            raise ValueError(f"q_min is {q_min} and q_max {q_max}: they must be at least 1, and q_min at most q_max")
        if not 1 <= quantum <= q_max:
            raise ValueError(f"quantum is {quantum}: it must be from 1 to q_max, {q_max}")
        self._quantum = quantum
        self._q_min = math.ceil(q_min / quantum) * quantum
        self._q_max = max(q_max // quantum * quantum, self._q_min)
        self._speeds: dict[str, Speed] = {}
        self._busy_until: dict[str, float] = {}
        self._beat = -math.inf
        self._period = 0.0

    def amount_for(self, worker: str, now: float) -> int:
        """What fits between the worker's last piece and a beat."""
        speed = self._speeds.get(worker)
        if speed is None:
            return self._q_min
        self._keep_time(now)
        begin = max(now, self._busy_until.get(worker, now))
        least = begin + speed.duration(self._q_min - self._quantum // 2)
        beats = max(0, math.ceil((least - self._beat) / self._period))
        steps = (self._beat + beats * self._period - begin - speed.link) / speed.step
        return min(max(round(steps / self._quantum) * self._quantum, self._q_min), self._q_max)

    def on_assigned(self, worker: str, amount: int, now: float) -> None:
        """It is busy for as long as that is expected to take."""
        if worker in self._speeds:
            begin = max(now, self._busy_until.get(worker, now))
            self._busy_until[worker] = begin + self._speeds[worker].duration(amount)

    def on_arrived(self, arrived: Arrived) -> None:
        """Its speed is known better, and what it has in hand is expected to begin now."""
        speed = self._speeds.setdefault(arrived.worker, Speed(_SPEED))
        speed.observe(0.0, arrived.amount, arrived.compute_seconds, arrived.link_seconds)
        in_hand = [piece.amount for piece in self._workers[arrived.worker].values() if piece.kind == "rollout"]
        self._busy_until[arrived.worker] = arrived.time + sum(speed.duration(amount) for amount in in_hand)

    def on_lost(self, worker: str) -> None:
        """A worker that comes back may be on another machine."""
        self._speeds.pop(worker, None)
        self._busy_until.pop(worker, None)

    def _keep_time(self, now: float) -> None:
        """Let the next beat be one that is to come. It lasts as long as the fastest worker's long piece."""
        if now < self._beat:
            return
        self._period = min(speed.duration(round(_ROOM * self._q_max)) for speed in self._speeds.values())
        missed = 0 if self._beat == -math.inf else math.floor((now - self._beat) / self._period)
        self._beat = (now if self._beat == -math.inf else self._beat) + (missed + 1) * self._period
