"""FedQueue: rounds over clients that wait in batch queues, whose wait is predicted and taken off their work."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

from .events import Token
from .federated import Client, FederatedScheduler, Piece, Result, Silence
from .rounds import Round
from .speed import SpeedOptions
from .staleness import Staleness, polynomial

FEDQUEUE_SPEED = SpeedOptions(momentum=0.5, separate_link=True)
"""Seconds per step of the computation alone, as in FedQueue: the wait is predicted apart."""


_SQUARE_ROOT = polynomial(0.5)


class FedQueue(FederatedScheduler):
    """Rounds of fixed length over clients that wait in a batch queue before they compute.

    "FedQueue" (https://arxiv.org/abs/2605.02125). With ``t`` the round's length and ``q`` the client's predicted wait:

    * Budget: ``J = t - q - safety * t`` seconds; ``max(floor(J / seconds per step), least_steps)`` local steps, and
      ``least_steps`` while its speed is unknown. The learning rate is scaled by ``E_min / E``, the least steps of the
      round's clients over this client's, so that long work does not drift further than short work.
    * Wait: what passed between the assignment and the arrival beside the computation. Its running mean is ``q``.
    * Admission: a result counts in its round if the wait was at most ``q + admission * t``, with ``q`` as predicted
      before. If not, or if it comes when its round is over, it is late, and counts in the next commit of a later round
      than its own; in its own where nobody was in time.
    * A round ends when nobody is out any more or after ``(1 + tolerance) * t``, as soon as a result is there then.
    * A result's weight is ``staleness(u) * n_i / N``, scaled to sum 1 over the commit. Steps do not enter it.

    The authors' constants for the safety and for the least budget are in seconds (60 and 0.5); here the first is a part
    of the round's length and the second is not needed beside ``least_steps``. In their code a late client idles until
    its result is committed. Here it is given work at once: for the round that runs, where it is new to it and the rest
    of it holds at least ``least_steps``, otherwise with a budget to the end of the next one. So is who joins during a
    round.

    Args:
        attempt: of the run, at least 1.
        round_seconds: a round's length, ``t``.
        least_steps: fewest local steps of a piece of work.
        most_steps: most; None: as many as fit.
        safety: part of the round's length that no work is planned for, in [0, 1).
        admission: part of the round's length that a wait may exceed its prediction by.
        tolerance: part of the round's length that it may last longer.
        queue_momentum: weight of the newest wait in the running mean, in (0, 1].
        first_wait: seconds that a client's first wait is predicted to be.
        staleness: factor by the versions that were published since the client began.
        least_clients: so many must be free for the first round to begin.
        speed: how seconds per step are estimated; apart from the link.
        silence, most_failures: see `FederatedScheduler`.

    Raises:
        ValueError: a number out of its range, or a speed that takes the wait for computation.
    """

    name: ClassVar[str] = "fedqueue"

    def __init__(
        self,
        attempt: int,
        *,
        round_seconds: float,
        least_steps: int = 20,
        most_steps: int | None = None,
        safety: float = 0.1,
        admission: float = 0.2,
        tolerance: float = 0.15,
        queue_momentum: float = 0.5,
        first_wait: float = 0.0,
        staleness: Staleness = _SQUARE_ROOT,
        least_clients: int = 1,
        speed: SpeedOptions = FEDQUEUE_SPEED,
        silence: Silence | None = None,
        most_failures: int = 3,
    ) -> None:
        super().__init__(attempt, speed=speed, silence=silence, most_failures=most_failures)
        if not round_seconds > 0:
            raise ValueError(f"round_seconds is {round_seconds}: it must be above 0")
        for name, count in (("least_steps", least_steps), ("least_clients", least_clients)):
            if count < 1:
                raise ValueError(f"{name} is {count}: it must be at least 1")
        if most_steps is not None and most_steps < least_steps:
            raise ValueError(f"most_steps is {most_steps}: it must be at least {least_steps}, which is least_steps")
        for name, value in (("admission", admission), ("tolerance", tolerance), ("first_wait", first_wait)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is {value}: it must be at least 0")
        if not 0 <= safety < 1:
            raise ValueError(f"safety is {safety}: it must be at least 0 and below 1, a part of the round's length")
        if not 0 < queue_momentum <= 1:
            raise ValueError(f"queue_momentum is {queue_momentum}: it must be above 0 and at most 1")
        if not speed.separate_link:
            raise ValueError("speed has separate_link off: set it, the wait in the queue is predicted apart")
        self._round_seconds = round_seconds
        self._least_steps = least_steps
        self._most_steps = most_steps
        self._safety_seconds = safety * round_seconds
        self._admission_seconds = admission * round_seconds
        self._longest = (1.0 + tolerance) * round_seconds
        self._queue_momentum = queue_momentum
        self._first_wait = first_wait
        self._staleness = staleness
        self._least_clients = least_clients
        self._number = 0
        self._round: Round | None = None
        self._next: dict[Token, None] = {}
        self._counts_in: dict[Token, int] = {}
        self._idle: dict[str, None] = {}
        self._wait: dict[str, float] = {}
        self._last_round: dict[str, int] = {}
        self._fewest = least_steps

    def predicted_wait(self, client: Client) -> float:
        """Seconds that the client's next piece is expected to wait, there and back."""
        return self._wait.get(client.name, self._first_wait)

    def on_ready(self, client: Client) -> None:
        """It is given work at once, for this round or the next."""
        self._idle[client.name] = None

    def on_result(self, client: Client, result: Result, piece: Piece) -> None:
        """Take its wait in, and say in which round it counts."""
        predicted = self.predicted_wait(client)
        self._wait[client.name] = (1.0 - self._queue_momentum) * predicted + self._queue_momentum * result.wait
        late = int(result.wait > predicted + self._admission_seconds)
        if self._round is not None and result.token in self._round.out:
            self._round.arrive(result.token)
            self._counts_in[result.token] = self._number + late
            if not late:
                return
        elif result.token in self._next:
            del self._next[result.token]
            self._counts_in[result.token] = self._number + 1 + late
        else:
            self._counts_in[result.token] = self._number + (self._round is None)
        if client.free:
            self._idle[client.name] = None

    def on_lost(self, client: Client, piece: Piece | None) -> None:
        """No round waits for it any longer."""
        self._idle.pop(client.name, None)
        if piece is not None:
            self._next.pop(piece.token, None)
            if self._round is not None:
                self._round.out.pop(piece.token, None)

    def on_tick(self) -> None:
        """End the round if it is over, begin the next, give work to whoever is free meanwhile."""
        if self._round is not None and (not self._round.out or self.now >= self._round.deadline):
            self._end(self._round)
        if not self.ready:
            return
        if self._round is not None:
            self._give_meanwhile(self._round)
        elif len(self._idle) >= (1 if self._number else self._least_clients) or self._next:
            self._begin()

    def extra_state(self) -> dict[str, Any]:
        """The round that runs, which results count when, and what waits were seen."""
        return {
            "number": self._number,
            "round": None if self._round is None else self._round.state_dict(),
            "next": [str(token) for token in self._next],
            "counts_in": {str(token): number for token, number in self._counts_in.items()},
            "idle": list(self._idle),
            "wait": dict(self._wait),
            "last_round": dict(self._last_round),
            "fewest": self._fewest,
        }

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `extra_state`."""
        self._number = state["number"]
        self._round = None if state["round"] is None else Round.of(state["round"])
        self._next = dict.fromkeys(Token.parse(text) for text in state["next"])
        self._counts_in = {Token.parse(text): number for text, number in state["counts_in"].items()}
        self._idle = dict.fromkeys(state["idle"])
        self._wait = dict(state["wait"])
        self._last_round = dict(state["last_round"])
        self._fewest = state["fewest"]

    def check_valid(self) -> None:
        """Assert the invariants: what waits counts in some round, who is idle is free and has no reason to be."""
        super().check_valid()
        assert all(self.clients[name].free for name in self._idle), "a client is idle and not free"
        if not self.ready:
            return
        assert self._counts_in.keys() == self.waiting.keys(), "a result counts in no round"
        out = self._round.out if self._round is not None else {}
        assert all(token in self.clients[token.worker].pieces for token in [*out, *self._next])
        assert not out.keys() & self._next.keys(), "a piece is of two rounds"
        assert not (self._idle and self._number), "a client idles that could work"

    def _begin(self) -> None:
        self._number += 1
        self._round = Round(self._number, self.now, self.now + self._longest, self._next)
        self._next = {}
        self.wake_at(self._round.deadline)
        clients = [self.clients[name] for name in self._idle]
        steps = [self._steps_until(client, self.now + self._round_seconds) for client in clients]
        known = [count for client, count in zip(clients, steps, strict=True) if client.speed.known]
        self._fewest = min(known or steps, default=self._fewest)
        for client, count in zip(clients, steps, strict=True):
            self._give(client, count, self._round.out, self._number)

    def _give_meanwhile(self, current: Round) -> None:
        for client in [self.clients[name] for name in self._idle]:
            end = current.begun + self._round_seconds
            if self._last_round.get(client.name, 0) < self._number and self._fits(client, end):
                self._give(client, self._steps_until(client, end), current.out, self._number)
            else:
                end = max(end, self.now) + self._round_seconds
                self._give(client, self._steps_until(client, end), self._next, self._number + 1)

    def _give(self, client: Client, steps: int, where: dict[Token, None], number: int) -> None:
        del self._idle[client.name]
        self._last_round[client.name] = number
        where[self.give(client, steps, rate_scale=min(1.0, self._fewest / steps)).token] = None

    def _budget(self, client: Client, end: float) -> float:
        return end - self.now - self.predicted_wait(client) - self._safety_seconds

    def _fits(self, client: Client, end: float) -> bool:
        return client.speed.known and self._budget(client, end) >= self._least_steps * client.speed.step

    def _steps_until(self, client: Client, end: float) -> int:
        if not client.speed.known:
            return self._least_steps
        steps = max(math.floor(self._budget(client, end) / client.speed.step), self._least_steps)
        return steps if self._most_steps is None else min(steps, self._most_steps)

    def _end(self, current: Round) -> None:
        results = [result for token, result in self.waiting.items() if self._counts_in[token] <= current.number]
        results = results or list(self.waiting.values())
        if not results and current.out:
            return
        self._round = None
        for token in current.back:
            if self.clients[token.worker].free:
                self._idle[token.worker] = None
        if not results:
            return
        raw = [
            self._staleness(self.staleness_of(result.version)) * self.share_of(self.clients[result.worker])
            for result in results
        ]
        for result in results:
            del self._counts_in[result.token]
        self.commit([(result, weight / sum(raw)) for result, weight in zip(results, raw, strict=True)])
