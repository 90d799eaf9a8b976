"""Who worked when: one row for each piece of work that has ended, and who was there."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeAlias

from ...schedulers.events import Arrived, Assign, Commit, Drop, Event, Published, Token, event_from_json, event_to_json
from ...schedulers.events import Command as SchedulerCommand

TIMELINE = "timeline.jsonl"
"""In an attempt's folder: a row for each piece of training that ended in it; see `system.federation.span_log`."""

Outcome: TypeAlias = Literal["applied", "dropped"]

_TIMES = ("begun", "arrived", "ended", "compute_seconds", "link_seconds")


@dataclass(slots=True)
class Span:
    """One piece of training.

    Attributes:
        worker: who did it.
        begun: run seconds when it was handed out.
        arrived: when its result came; None where none came.
        ended: when it was committed or dropped.
        amount: local steps made; where nothing came, those asked for.
        version: of the model that it began from.
        outcome: how it ended.
        reason: why it was dropped.
        weight: as it was committed with; 0 where it was dropped.
        staleness: versions between the one it began from and the newest at its commit.
        compute_seconds: in the client; 0 where nothing came.
        link_seconds: on the link, there and back.
        nbytes: of the update.
        token: names the piece, once and for ever.
    """

    worker: str
    begun: float
    arrived: float | None
    ended: float
    amount: int
    version: int
    outcome: Outcome
    reason: str = ""
    weight: float = 0.0
    staleness: int = 0
    compute_seconds: float = 0.0
    link_seconds: float = 0.0
    nbytes: int = 0
    token: str = ""

    def to_json(self) -> dict[str, Any]:
        """JSON values, times to the microsecond."""
        values = asdict(self)
        values |= {name: round(values[name], 6) for name in _TIMES if values[name] is not None}
        return {"span": values.pop("worker"), **values}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Span:
        """The inverse of `to_json`."""
        return cls(worker=row["span"], **{name: value for name, value in row.items() if name != "span"})


class Timeline:
    """An observer of a coordinator that keeps what is in hand, and gives each piece away when it has ended.

    Its state goes into checkpoints: a resumed federation tells of pieces that were in hand as if it had never stopped.

    Args:
        write: is given each span. In memory stay only the pieces in hand.
    """

    def __init__(self, write: Callable[[Span], None]) -> None:
        self._write = write
        self._assigns: dict[Token, tuple[float, Assign]] = {}
        self._arrivals: dict[Token, Arrived] = {}
        self._version = 0

    def observe(self, time: float, what: Event | SchedulerCommand) -> None:
        """Take one event or command in."""
        match what:
            case Assign(kind="train"):
                self._assigns[what.token] = (time, what)
            case Arrived():
                if what.token in self._assigns:
                    self._arrivals[what.token] = what
            case Published():
                self._version = what.version
            case Commit():
                for token, weight in what.entries:
                    self._end(time, token, "applied", "", weight)
            case Drop():
                self._end(time, what.token, "dropped", what.reason, 0.0)
            case _:
                pass

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {
            "version": self._version,
            "assigns": [
                [time, str(assign.token), assign.amount, assign.version] for time, assign in self._assigns.values()
            ],
            "arrivals": [event_to_json(arrived) for arrived in self._arrivals.values()],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state of `state_dict`."""
        self._version = state["version"]
        for time, name, amount, version in state["assigns"]:
            token = Token.parse(name)
            self._assigns[token] = (time, Assign(token.worker, token, "train", amount, version))
        for values in state["arrivals"]:
            arrived = event_from_json(values)
            assert isinstance(arrived, Arrived)
            self._arrivals[arrived.token] = arrived

    def _end(self, time: float, token: Token, outcome: Outcome, reason: str, weight: float) -> None:
        if token not in self._assigns:
            return
        begun, assign = self._assigns.pop(token)
        span = Span(
            worker=assign.worker,
            begun=begun,
            arrived=None,
            ended=time,
            amount=assign.amount,
            version=assign.version,
            outcome=outcome,
            reason=reason,
            weight=weight,
            staleness=self._version - assign.version,
            token=str(token),
        )
        if (arrived := self._arrivals.pop(token, None)) is not None:
            span.arrived, span.amount = arrived.time, arrived.amount
            span.compute_seconds, span.link_seconds = arrived.compute_seconds, arrived.link_seconds
            span.nbytes = arrived.nbytes
        self._write(span)


@dataclass
class ClientTotals:
    """What a client did, over pieces that have ended.

    Attributes:
        applied, dropped: pieces.
        steps: local steps applied.
        busy_seconds: from the assignment to the arrival.
        link_seconds: of them on the link.
        staleness: summed over applied pieces.
        weight: summed over applied pieces.
    """

    applied: int = 0
    dropped: int = 0
    steps: int = 0
    busy_seconds: float = 0.0
    link_seconds: float = 0.0
    staleness: int = 0
    weight: float = 0.0


class Totals:
    """Sums over the spans of a timeline, by client. Memory grows with the number of clients, not of pieces."""

    def __init__(self) -> None:
        self.clients: dict[str, ClientTotals] = {}

    def take(self, span: Span) -> None:
        """Take one span in."""
        client = self.clients.setdefault(span.worker, ClientTotals())
        if span.arrived is not None:
            client.busy_seconds += span.arrived - span.begun
            client.link_seconds += span.link_seconds
        if span.outcome == "dropped":
            client.dropped += 1
            return
        client.applied += 1
        client.steps += span.amount
        client.staleness += span.staleness
        client.weight += span.weight

    def state_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {name: asdict(client) for name, client in self.clients.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state of `state_dict`."""
        self.clients = {name: ClientTotals(**figures) for name, figures in state.items()}

    def mean_staleness(self) -> float | None:
        """In versions, over applied pieces; None before the first."""
        applied = sum(client.applied for client in self.clients.values())
        return sum(client.staleness for client in self.clients.values()) / applied if applied else None

    def utilisation(self, clients: int, seconds: float) -> float | None:
        """Share of the clients' time that they worked; None where no time has passed."""
        busy = sum(client.busy_seconds for client in self.clients.values())
        return busy / (clients * seconds) if clients and seconds > 0 else None
