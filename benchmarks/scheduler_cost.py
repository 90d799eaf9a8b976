"""What a scheduler of clients costs, with clients that take no time: ``python benchmarks/scheduler_cost.py``."""

from __future__ import annotations

import gc
import heapq
import math
import time
from collections.abc import Callable

import numpy as np

from isogon.schedulers import Compass
from isogon.schedulers.events import Arrived, Assign, Commit, Event, Joined, Published, Tick, Token, WakeAt
from isogon.schedulers.federated import FederatedScheduler


class Run:
    """A federation in virtual time whose watch runs while the scheduler works, and at no other time.

    Clients have exponentially distributed seconds per step, and 5 % of noise in each piece. The heap of answers, the
    making of events and the noise are not timed.

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
        self._answers: list[tuple[float, int, str, int, int]] = []
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
                self.now, sequence, name, amount, version = heapq.heappop(self._answers)
                token = Token(1, name, sequence)
                self._tell(Arrived(self.now, name, token, version, amount, 100, 4096, 1e-3 * amount, 1e-3))
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
                answer = (event.time + seconds, command.token.sequence, command.worker, command.amount, command.version)
                heapq.heappush(self._answers, answer)
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
    clients: int,
    assignments: int,
    seed: int,
    *,
    scheduler: Callable[[], FederatedScheduler] = lambda: Compass(1),
    collect_garbage: bool = False,
) -> float:
    """Microseconds of processor time that a scheduler, `Compass` if nothing else is said, takes for an assignment.

    All events of the run count: joining, answers, commits, versions, ticks. The garbage collector is off, as in
    `timeit`: a scheduler makes no cycles, so the collector frees nothing of its, and what a collection costs hangs on
    all objects of the process. ``collect_garbage`` leaves it on, with those of the scheduler and of this module.

    Args:
        clients: how many take part.
        assignments: how many are made in all, the first of each client with them.
        seed: of speeds and noise.
        scheduler: makes the one to measure.
        collect_garbage: whether the garbage collector is on.
    """
    was_on = gc.isenabled()
    gc.collect()
    if not collect_garbage:
        gc.disable()
    try:
        run = Run(scheduler(), clients, seed)
        run.start()
        run.until(assignments)
    finally:
        if was_on:
            gc.enable()
    return 1e6 * run.spent / run.assignments


if __name__ == "__main__":
    for on in (False, True):
        print(f"garbage collector {'on' if on else 'off'}")
        for count in (100, 10_000, 100_000):
            spent = measure(count, 1_000_000, 0, collect_garbage=on)
            print(f"{count:>9,} clients, 1,000,000 assignments: {spent:6.2f} us each", flush=True)
