"""What a scheduler hears and what it answers: the vocabulary of work.

A piece of work is named once and for ever by its `Token`. It ends applied (`Commit`) or dropped (`Drop`), exactly
once, whatever is lost or retried in between. All times are run seconds: seconds since the run began, without the time
that it stood still between attempts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

WorkKind: TypeAlias = Literal["rollout", "train", "evaluate"]
"""What a worker is asked to do. It fixes the unit of an amount: environment steps for a rollout, local steps (optimiser
updates) for training, episodes for an evaluation (or passes over the worker's own test data, where it has no episodes).
"""


class Token(NamedTuple):
    """The name of one piece of work: the run's attempt, the worker, and the how-manieth piece the run handed out."""

    attempt: int
    worker: str
    sequence: int

    def __str__(self) -> str:
        return f"{self.attempt}/{self.worker}/{self.sequence}"

    @classmethod
    def parse(cls, text: str) -> Token:
        """The inverse of ``str(token)``. Raises ValueError for anything else."""
        attempt, separator, rest = text.partition("/")
        worker, second, sequence = rest.rpartition("/")
        if not (separator and second and worker and attempt.isdigit() and sequence.isdigit()):
            raise ValueError(f"token is {text!r}: expected 'attempt/worker/sequence', as in '1/env-0/17'")
        return cls(int(attempt), worker, int(sequence))


@dataclass(frozen=True, slots=True)
class Joined:
    """A worker is ready for work. ``samples`` is the size of its own data set, 0 for an environment actor."""

    time: float
    worker: str
    samples: int = 0
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Left:
    """A worker is gone, and with it the work it had in hand."""

    time: float
    worker: str
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A result is here, whole and valid, and waits to be committed or dropped."""

    time: float
    worker: str
    token: Token
    version: int
    amount: int
    samples: int
    nbytes: int
    compute_seconds: float
    link_seconds: float


@dataclass(frozen=True, slots=True)
class Failed:
    """A piece of work came back unfit, or its worker's code raised. The worker is there and can do other work."""

    time: float
    worker: str
    token: Token
    reason: str


@dataclass(frozen=True, slots=True)
class Published:
    """Weights of this version are there for workers to start from."""

    time: float
    version: int


@dataclass(frozen=True, slots=True)
class Demand:
    """Somebody wants this much more work done, in the kind's unit."""

    time: float
    amount: int
    kind: WorkKind = "rollout"


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has passed and nothing else happened."""

    time: float


@dataclass(frozen=True, slots=True)
class Closing:
    """No more work is wanted: what waits is to be committed or dropped now, and what is in hand dropped."""

    time: float


Event: TypeAlias = Joined | Left | Arrived | Failed | Published | Demand | Tick | Closing


def _fields_of(event: Event) -> dict[str, Any]:
    values = {item.name: getattr(event, item.name) for item in fields(event)}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}


_EVENTS: dict[str, type[Event]] = {
    kind.__name__: kind for kind in (Joined, Left, Arrived, Failed, Published, Demand, Tick, Closing)
}


def event_to_json(event: Event) -> dict[str, Any]:
    """An event as JSON values."""
    values = {name: str(value) if isinstance(value, Token) else value for name, value in _fields_of(event).items()}
    return {"event": type(event).__name__, **values}


def event_from_json(values: Mapping[str, Any]) -> Event:
    """The inverse of `event_to_json`. Raises ValueError for anything else."""
    rest = dict(values)
    kind = _EVENTS.get(rest.pop("event", ""))
    if kind is None:
        raise ValueError(f"event is {values.get('event')!r}: expected one of {', '.join(_EVENTS)}")
    if "token" in rest:
        rest["token"] = Token.parse(rest["token"])
    try:
        return kind(**rest)
    except TypeError as error:
        raise ValueError(f"event {kind.__name__} has other fields than it should: {error}") from error


@dataclass(frozen=True, slots=True)
class Assign:
    """Give this worker this amount of work, to be done with the weights of ``version``.

    ``rate_scale`` multiplies the worker's own learning rate, for training only.
    """

    worker: str
    token: Token
    kind: WorkKind
    amount: int
    version: int
    rate_scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Commit:
    """Apply these results together, each with its weight.

    Where they are updates, a new version of the weights comes of it, and `Published` is the next event.
    """

    entries: tuple[tuple[Token, float], ...]


@dataclass(frozen=True, slots=True)
class Drop:
    """This piece of work will not be applied, now or later."""

    token: Token
    reason: str


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Send a `Tick` at this time at the latest."""

    time: float


Command: TypeAlias = Assign | Commit | Drop | WakeAt


class Scheduler(Protocol):
    """A pure state machine over events. No clock, no threads, no I/O: time comes with the events."""

    def handle(self, event: Event) -> list[Command]:
        """Take one event in, give the commands that follow, in the order in which they are to be carried out."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state of `state_dict` in a new attempt, in which no worker has joined yet.

        Each scheduler says what becomes of work that was in hand: its results are gone, or may be in a spool.
        """
        ...

    def check_valid(self) -> None:
        """Assert the invariants of the state."""
        ...


class ReplayableScheduler(Scheduler, Protocol):
    """A scheduler whose work outlives its process: a journal of events brings its state back."""

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be exactly as the scheduler was that gave this state, in the same attempt."""
        ...

    def waiting_tokens(self) -> list[Token]:
        """Of the pieces whose results arrived and wait for a commit."""
        ...
