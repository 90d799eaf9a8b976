"""Players in virtual time, for schedulers of rollouts."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from isogon.schedulers.events import Arrived, Assign, Command, Commit, Demand, Joined, Published, Scheduler


@dataclass(frozen=True)
class Brought:
    """A rollout that was committed: when, whose, how much, and how many versions old."""

    time: float
    worker: str
    amount: int
    age: int


class VirtualPlayers:
    """Each does its pieces in order, and has always enough of them in demand. A version is published every second.

    Args:
        scheduler: under test.
        step_seconds: by worker, seconds of a step at a time.
        quantum: steps are made in so many at once.
    """

    def __init__(
        self, scheduler: Scheduler, step_seconds: Mapping[str, Callable[[float], float]], quantum: int = 1
    ) -> None:
        self.scheduler = scheduler
        self.step_seconds = step_seconds
        self.quantum = quantum
        self.brought: list[Brought] = []
        self.version = 1
        self._free_at = dict.fromkeys(step_seconds, 0.0)
        self._coming: list[tuple[float, int, Arrived]] = []
        self._out: dict[object, Assign] = {}
        for worker in step_seconds:
            self._carry_out(0.0, scheduler.handle(Joined(0.0, worker)))
        self._carry_out(0.0, scheduler.handle(Demand(0.0, 10**9)))
        self._carry_out(0.0, scheduler.handle(Published(0.0, self.version)))

    def play(self, until: float) -> list[Brought]:
        """What was brought up to this time."""
        while self._coming[0][0] <= until:
            time, _, arrived = heapq.heappop(self._coming)
            while self.version < int(time) + 1:
                self.version += 1
                self._carry_out(
                    float(self.version - 1), self.scheduler.handle(Published(self.version - 1, self.version))
                )
            self._carry_out(time, self.scheduler.handle(arrived))
        return self.brought

    def _carry_out(self, now: float, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Assign():
                    begin = max(now, self._free_at[command.worker])
                    amount = -(-command.amount // self.quantum) * self.quantum
                    seconds = amount * self.step_seconds[command.worker](begin)
                    self._free_at[command.worker] = end = begin + seconds
                    arrived = Arrived(
                        end, command.worker, command.token, command.version, amount, amount, 8 * amount, seconds, 0.0
                    )
                    self._out[command.token] = command
                    heapq.heappush(self._coming, (end, command.token.sequence, arrived))
                case Commit():
                    for token, _ in command.entries:
                        assign = self._out.pop(token)
                        self.brought.append(Brought(now, token.worker, assign.amount, self.version - assign.version))
