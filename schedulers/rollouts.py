"""What all schedulers of rollouts have in common: what is wanted, who is there, what is in hand.

A subclass says how many steps a piece has; see `RolloutScheduler`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from .events import (
    Arrived,
    Assign,
    Closing,
    Command,
    Commit,
    Demand,
    Drop,
    Event,
    Failed,
    Joined,
    Left,
    Published,
    Tick,
    Token,
    WorkKind,
)

_FIRST_COME = 1.0
_OF_ROLLOUTS = ("equal_split", "compass_split")
"""A run may go on with the other one: what is wanted is the same, and speeds are measured anew."""


@dataclass(frozen=True, slots=True)
class _Piece:
    kind: WorkKind
    amount: int


class RolloutScheduler:
    """A scheduler of players: the books, without the amounts. Each result is committed alone as soon as it arrives.

    A demand for rollouts is handed out in pieces to whoever has fewest in hand, in the order of joining where that is a
    tie, and never more than ``in_flight`` to one worker. What the last piece overshoots is credit towards the next
    demand, and so is what a worker plays beyond its piece. A demand for an evaluation is one piece, handed out before
    any rollout and not counted against ``in_flight``. Nothing is handed out before the first version is published.

    With at most ``in_flight`` pieces a worker, worked on in order, a committed result is at most as many versions old
    as were published while its worker did ``in_flight`` pieces.

    Args:
        attempt: of the run, at least 1; part of every token.
        in_flight: rollouts that a worker has in hand at most; 2 hides the way there and back.
    """

    name: ClassVar[str]

    def __init__(self, attempt: int, *, in_flight: int = 1) -> None:
        for label, value in (("attempt", attempt), ("in_flight", in_flight)):
            if value < 1:
                raise ValueError(f"{label} is {value}: it must be at least 1")
        self._attempt = attempt
        self._in_flight = in_flight
        self._sequence = 0
        self._version: int | None = None
        self._demanded = 0
        self._done = 0
        self._wanted = 0
        self._evaluations: list[int] = []
        self._workers: dict[str, dict[Token, _Piece]] = {}

    # What a subclass says.

    def amount_for(self, worker: str, now: float) -> int:
        """Steps of the rollout that this worker is given next, at least 1."""
        raise NotImplementedError

    def on_assigned(self, worker: str, amount: int, now: float) -> None:
        """A rollout was handed out, of what `amount_for` said last."""

    def on_arrived(self, arrived: Arrived) -> None:
        """A rollout that was in hand is here."""

    def on_lost(self, worker: str) -> None:
        """All that this worker had in hand is lost; it has left, or begins anew."""

    def handle(self, event: Event) -> list[Command]:
        """Take one event in, give the commands that follow.

        Raises:
            ValueError: a demand for another kind than ``rollout`` and ``evaluate`` or for less than one unit, or a
                version that is not above the last one.
        """
        commands: list[Command] = []
        match event:
            case Joined():
                commands += self._lose(event.worker, "worker began anew")
                self._workers[event.worker] = {}
            case Left():
                commands += self._lose(event.worker, f"worker left: {event.reason}" if event.reason else "worker left")
            case Arrived():
                commands.append(self._finish(event))
            case Failed():
                commands += self._give_up(event)
            case Closing():
                for worker in list(self._workers):
                    commands += self._lose(worker, "the run ends")
                self._demanded -= self._wanted
                self._wanted = 0
                self._evaluations = []
            case Published():
                if self._version is not None and event.version <= self._version:
                    raise ValueError(f"version is {event.version}: it must be above {self._version}, the last one")
                self._version = event.version
            case Demand():
                self._want(event)
            case Tick():
                pass
        return commands + self._hand_out(event.time)

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as JSON values."""
        open_pieces = {
            str(token): [piece.kind, piece.amount]
            for pieces in self._workers.values()
            for token, piece in pieces.items()
        }
        return {
            "scheduler": self.name,
            "attempt": self._attempt,
            "sequence": self._sequence,
            "demanded": self._demanded,
            "done": self._done,
            "wanted": self._wanted,
            "evaluations": list(self._evaluations),
            "open": open_pieces,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state in a new attempt: workers are gone, and what they had in hand is wanted again.

        Raises:
            ValueError: the state is another scheduler's, or this attempt is not later than the state's, so that tokens
                could be named twice.
        """
        if state.get("scheduler") not in _OF_ROLLOUTS:
            raise ValueError(
                f"scheduler state is of {state.get('scheduler')!r}, expected one of {', '.join(_OF_ROLLOUTS)}"
            )
        if self._attempt <= state["attempt"]:
            raise ValueError(f"attempt is {self._attempt}: it must be above {state['attempt']}, the saved state's")
        pieces = [_Piece(kind, amount) for kind, amount in state["open"].values()]
        self._sequence = state["sequence"]
        self._version = None
        self._demanded = state["demanded"]
        self._done = state["done"]
        self._wanted = state["wanted"] + sum(piece.amount for piece in pieces if piece.kind == "rollout")
        self._evaluations = [piece.amount for piece in pieces if piece.kind == "evaluate"] + list(state["evaluations"])
        self._workers = {}

    def check_valid(self) -> None:
        """Assert the invariants: tokens are this attempt's and distinct, and every step demanded is somewhere."""
        rollouts = [self._rollouts(worker) for worker in self._workers]
        tokens = [token for pieces in self._workers.values() for token in pieces]
        assert all(count <= self._in_flight for count in rollouts), "a worker has more in hand than in_flight"
        assert len({token.sequence for token in tokens}) == len(tokens), "two open pieces share a sequence number"
        assert all(token.attempt == self._attempt and token.sequence < self._sequence for token in tokens)
        assert all(token.worker == worker for worker, pieces in self._workers.items() for token in pieces)
        assert self._demanded == self._done + self._open_steps() + self._wanted, "demanded steps went astray"
        ready = self._version is not None and bool(self._workers)
        assert not (ready and self._evaluations), "an evaluation waits although a worker could do it"
        assert not (ready and self._wanted > 0 and min(rollouts) < self._in_flight), "a worker idles in spite of demand"

    def _want(self, demand: Demand) -> None:
        if demand.amount < 1:
            raise ValueError(f"demand is for {demand.amount}: it must be at least 1")
        if demand.kind == "rollout":
            self._demanded += demand.amount
            self._wanted += demand.amount
        elif demand.kind == "evaluate":
            self._evaluations.append(demand.amount)
        else:
            raise ValueError(f"demand is for {demand.kind!r}: players are given 'rollout' and 'evaluate'")

    def _finish(self, arrived: Arrived) -> Command:
        piece = self._workers.get(arrived.token.worker, {}).pop(arrived.token, None)
        if piece is None:
            return Drop(arrived.token, "not open: it was never handed out or has ended already")
        if piece.kind == "rollout":
            self._done += arrived.amount
            self._wanted -= arrived.amount - piece.amount
            self.on_arrived(arrived)
        return Commit(((arrived.token, _FIRST_COME),))

    def _give_up(self, failed: Failed) -> list[Command]:
        piece = self._workers.get(failed.token.worker, {}).pop(failed.token, None)
        if piece is None:
            return []
        if piece.kind == "rollout":
            self._wanted += piece.amount
        else:
            self._evaluations.insert(0, piece.amount)
        return [Drop(failed.token, failed.reason)]

    def _lose(self, worker: str, reason: str) -> list[Command]:
        lost = self._workers.get(worker, {})
        self._wanted += sum(piece.amount for piece in lost.values() if piece.kind == "rollout")
        self._evaluations[:0] = [piece.amount for piece in lost.values() if piece.kind == "evaluate"]
        commands: list[Command] = [Drop(token, reason) for token in lost]
        if self._workers.pop(worker, None) is not None:
            self.on_lost(worker)
        return commands

    def _hand_out(self, now: float) -> list[Command]:
        commands: list[Command] = []
        if self._version is None or not self._workers:
            return commands
        while self._evaluations:
            worker = self._least_loaded(list(self._workers))
            commands.append(self._assign(worker, "evaluate", self._evaluations.pop(0), self._version))
        while self._wanted > 0:
            free = [worker for worker in self._workers if self._rollouts(worker) < self._in_flight]
            if not free:
                break
            worker = self._least_loaded(free)
            amount = self.amount_for(worker, now)
            commands.append(self._assign(worker, "rollout", amount, self._version))
            self._wanted -= amount
            self.on_assigned(worker, amount, now)
        return commands

    def _assign(self, worker: str, kind: WorkKind, amount: int, version: int) -> Assign:
        token = Token(self._attempt, worker, self._sequence)
        self._sequence += 1
        self._workers[worker][token] = _Piece(kind, amount)
        return Assign(worker, token, kind, amount, version)

    def _least_loaded(self, workers: list[str]) -> str:
        return min(workers, key=lambda worker: len(self._workers[worker]))

    def _rollouts(self, worker: str) -> int:
        return sum(piece.kind == "rollout" for piece in self._workers[worker].values())

    def _open_steps(self) -> int:
        pieces = [piece for pieces in self._workers.values() for piece in pieces.values()]
        return sum(piece.amount for piece in pieces if piece.kind == "rollout")
