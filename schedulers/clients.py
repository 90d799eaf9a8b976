"""What a scheduler of federated clients writes down of each: who it is, what it has in hand, what came of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .events import Token, WorkKind
from .speed import Speed, SpeedOptions


@dataclass(frozen=True)
class Silence:
    """When a client that does not answer is given up.

    Its work is dropped, and it gets no more until it answers or begins anew.

    Attributes:
        factor: times the duration that its work was expected to take.
        least_seconds: not before; and where nothing is known of its speed, after ``factor`` times this.
    """

    factor: float = 10.0
    least_seconds: float = 60.0

    def __post_init__(self) -> None:
        if not (self.factor >= 1 and self.least_seconds > 0):
            raise ValueError(
                f"factor is {self.factor} and least_seconds {self.least_seconds}: "
                "they must be at least 1 and above 0, or work on time would be given up"
            )

    def after(self, expected: float | None) -> float:
        """Seconds until work is given up that is expected to take so long; None: nothing is known of it."""
        expected = self.least_seconds if expected is None else expected
        return max(self.factor * expected, self.least_seconds)


@dataclass(slots=True)
class Piece:
    """Work in hand.

    Attributes:
        token, kind, amount, version: as assigned.
        begun: when it was handed out, in run seconds.
        deadline: when it is given up; infinite where it never is.
    """

    token: Token
    kind: WorkKind
    amount: int
    version: int
    begun: float
    deadline: float = math.inf

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "token": str(self.token),
            "kind": self.kind,
            "amount": self.amount,
            "version": self.version,
            "begun": self.begun,
            "deadline": self.deadline if self.deadline < math.inf else None,
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Piece:
        """The inverse of `state_dict`."""
        deadline = math.inf if state["deadline"] is None else state["deadline"]
        return cls(**{**state, "token": Token.parse(state["token"]), "deadline": deadline})


@dataclass(slots=True)
class Result:
    """Training that arrived and waits to be committed or dropped.

    Attributes:
        token, worker, amount, version, samples: as it arrived.
        time: of the arrival, in run seconds.
        wait: seconds that passed beside the client's computation, on the link or in a queue.
    """

    token: Token
    worker: str
    amount: int
    version: int
    samples: int
    time: float
    wait: float

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "token": str(self.token),
            "worker": self.worker,
            "amount": self.amount,
            "version": self.version,
            "samples": self.samples,
            "time": self.time,
            "wait": self.wait,
        }

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Result:
        """The inverse of `state_dict`."""
        return cls(**{**state, "token": Token.parse(state["token"])})


@dataclass(slots=True)
class Client:
    """One client, as a scheduler sees it.

    Attributes:
        name: of its worker.
        samples: size of its own data set.
        labels: as it joined with.
        present: whether it is there. One that left keeps its place in the books, and its weight.
        silent: whether it was given up; it is present then, as far as anybody knows.
        failures: pieces of work in a row that failed.
        answered: when it last answered, in run seconds: a piece that was handed out before is begun then.
        speed: what is known of it.
        pieces: work in hand, by token.
        training: the piece among them that is training.
    """

    name: str
    samples: int
    labels: dict[str, str] = field(default_factory=dict)
    present: bool = True
    silent: bool = False
    failures: int = 0
    answered: float = 0.0
    speed: Speed = field(default_factory=Speed)
    pieces: dict[Token, Piece] = field(default_factory=dict)
    training: Piece | None = None

    @property
    def free(self) -> bool:
        """Whether it can be given training: it is there, answers, and has none in hand."""
        return self.training is None and self.present and not self.silent

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "name": self.name,
            "samples": self.samples,
            "labels": dict(self.labels),
            "present": self.present,
            "silent": self.silent,
            "failures": self.failures,
            "answered": self.answered,
            "speed": self.speed.state_dict(),
            "pieces": [piece.state_dict() for piece in self.pieces.values()],
        }

    @classmethod
    def of(cls, state: Mapping[str, Any], speed: SpeedOptions) -> Client:
        """The inverse of `state_dict`; how speeds are estimated is told, not stored."""
        pieces = {piece.token: piece for piece in map(Piece.of, state["pieces"])}
        training = next((piece for piece in pieces.values() if piece.kind == "train"), None)
        return cls(**{**state, "speed": Speed.of(state["speed"], speed), "pieces": pieces}, training=training)
