"""What runs in a process that hosts workers for a pool."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable, Mapping

import torch

from ...schedulers.events import Assign
from ..work import PolicyState, WorkDoer, WorkResult


class WorkerHost:
    """One or more workers in a Ray actor; Ray calls each worker's methods in a thread of its own, in order.

    Its constructor does nothing that can fail: Ray would report a failure there as the actor's death, and here it is
    to come back as what it is, an exception of one worker's own code. So what makes a worker comes pickled.

    Args:
        makers: pickled callables, by worker.
        torch_threads: of each worker.
        processes_lost: how many processes of this actor were lost before this one.
    """

    def __init__(self, makers: Mapping[str, bytes], torch_threads: int, processes_lost: Callable[[], int]) -> None:
        self._makers = makers
        self._torch_threads = torch_threads
        self._processes_lost = processes_lost
        self._workers: dict[str, WorkDoer] = {}

    def begin(self, worker: str) -> tuple[int, int, int]:
        """Make a worker, a new one if there is one already.

        Returns:
            This process's id, how many processes of this actor were lost before it, and the worker's samples.
        """
        torch.set_num_threads(self._torch_threads)
        # The bytes come from the driver, which could have sent code just as well.
        self._workers[worker] = pickle.loads(self._makers[worker])()
        return os.getpid(), self._processes_lost(), self._workers[worker].samples

    def run(self, worker: str, assign: Assign, state: PolicyState) -> WorkResult:
        """Do one piece of work. A process that replaced a lost one unnoticed makes its worker first."""
        if worker not in self._workers:
            self.begin(worker)
        return self._workers[worker].run(assign, state)

    def reset(self, worker: str) -> None:
        """Make a worker begin anew with its next work."""
        if worker in self._workers:
            self._workers[worker].reset()

    def end(self, worker: str) -> None:
        """Close a worker that is not wanted any more."""
        if worker in self._workers:
            self._workers.pop(worker).close()
