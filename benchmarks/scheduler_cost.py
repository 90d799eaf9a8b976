"""What a scheduler of clients costs, with clients that take no time: ``python benchmarks/scheduler_cost.py``."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable

import numpy as np

from isogon.schedulers import Compass
from isogon.schedulers.events import Arrived, Assign, Commit, Event, Joined, Published, Tick, WakeAt
from isogon.schedulers.federated import FederatedScheduler


class Run:
    """A federation in virtual time whose clock stops the scheduler's time alone.

    Clients have exponentially distributed seconds per step, and 5 % of noise in each piece. What is not the scheduler's
    (the heap of answers, the making of events, the noise) is not timed. The garbage collector is left on, as in a run:
    what it does while the scheduler works is the scheduler's cost, and it also looks at the heap of this class.

    Args:
        scheduler: with no client yet.
        clients: how many join.
        seed: of speeds and noise.
    """

    def __init__(self, scheduler: FederatedScheduler, clients: int, seed: int) -> None:
        self._scheduler = scheduler
        self._random = np.random.default_rng(seed)
        self._names = [f"client-{index}" for index in range(clients)]
        self._seconds = dict(zip(self._names, np.maximum(self._random.exponential(size=clients), 0.05), strict=True))
        self._answers: list[tuple[float, int, Assign]] = []
        self._noise: list[float] = []
        self._wake = math.inf
        self._version = 0
        self.now = 0.0
        self.spent = 0.0
        self.assignments = 0

    def start(self) -> None:
        """All join; each is given its first work."""
        for name in self._names:
            self._tell(Joined(0.0, name, 100))
        self._tell(Published(0.0, 0))

    def until(self, assignments: int) -> None:
        """Go on until so many assignments were made in all."""
        while self.assignments < assignments:
            if self._answers[0][0] < self._wake:
                self.now, _, assign = heapq.heappop(self._answers)
                took = 1e-3 * assign.amount
                self._tell(
                    Arrived(self.now, assign.worker, assign.token, assign.version, assign.amount, 100, 4096, took, 1e-3)
                )
            else:
                self.now, self._wake = self._wake, math.inf
                self._tell(Tick(self.now))

    def _tell(self, event: Event) -> None:
        begun = time.thread_time()
        commands = self._scheduler.handle(event)
        self.spent += time.thread_time() - begun
        train = False
        for command in commands:
            if isinstance(command, Assign):
                self.assignments += 1
                seconds = command.amount * self._seconds[command.worker] * self._draw()
                heapq.heappush(self._answers, (event.time + seconds, command.token.sequence, command))
            elif isinstance(command, Commit):
                train = True
            elif isinstance(command, WakeAt):
                self._wake = min(self._wake, command.time)
        if train:
            self._version += 1
            self._tell(Published(event.time, self._version))

    def _draw(self) -> float:
        if not self._noise:
            self._noise = list(np.maximum(1.0 + 0.05 * self._random.standard_normal(4096), 0.05))
        return self._noise.pop()


def measure(
    clients: int, assignments: int, seed: int, scheduler: Callable[[], FederatedScheduler] = lambda: Compass(1)
) -> float:
    """Microseconds of scheduler time per assignment, of `Compass` if nothing else is said.

    Joining and everybody's first piece are not counted, nor are the answers to it, which are applied one by one: after
    them each client is asked what it is in the long run.

    Args:
        clients: how many take part.
        assignments: how many are counted, beyond two for each client.
        seed: of speeds and noise.
        scheduler: makes the one to measure.
    """
    run = Run(scheduler(), clients, seed)
    run.start()
    run.until(2 * clients)
    before, begun = run.spent, run.assignments
    run.until(begun + assignments)
    return 1e6 * (run.spent - before) / (run.assignments - begun)


if __name__ == "__main__":
    for count, pieces in ((100, 100_000), (10_000, 1_000_000), (100_000, 1_000_000)):
        print(f"{count:>7,} clients, {pieces:>9,} assignments: {measure(count, pieces, 0):6.2f} us each")
