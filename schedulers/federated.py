"""What all schedulers of federated clients have in common: who is there, what is in hand, what waits.

A subclass says whom to give how much, and when to commit what; see `FederatedScheduler`. Every piece of work that is
handed out ends exactly once, committed or dropped with a reason.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
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
    WakeAt,
    WorkKind,
)
from .speed import FEDCOMPASS_SPEED, Speed, SpeedOptions


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
        if self.factor < 1 or self.least_seconds <= 0:
            raise ValueError(
                f"factor is {self.factor} and least_seconds {self.least_seconds}: "
                "they must be at least 1 and above 0, or work on time would be given up"
            )


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


@dataclass(slots=True)
class Result:
    """Training that arrived and waits to be committed or dropped.

    Attributes:
        token, worker, amount, version, samples: as it arrived.
        time: of the arrival, in run seconds.
    """

    token: Token
    worker: str
    amount: int
    version: int
    samples: int
    time: float


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
        speed: what is known of it.
        pieces: work in hand, by token.
    """

    name: str
    samples: int
    labels: dict[str, str] = field(default_factory=dict)
    present: bool = True
    silent: bool = False
    failures: int = 0
    speed: Speed = field(default_factory=Speed)
    pieces: dict[Token, Piece] = field(default_factory=dict)

    @property
    def free(self) -> bool:
        """Whether it can be given training: it is there, answers, and has none in hand."""
        return self.present and not self.silent and not any(p.kind == "train" for p in self.pieces.values())


class FederatedScheduler:
    """A scheduler of federated clients: the books, without the policy.

    A subclass implements `on_ready`, `on_result`, and where it needs them the other hooks. In them it calls `give`,
    `commit`, `drop` and `wake_at`, whose commands are carried out in the order of the calls. Rules that the books keep
    for it:

    * Nothing is handed out before the first version is published; clients that joined earlier are ready then.
    * One event gives at most one `Commit` of training. The next version is published before any other event, and
      `on_published` is where clients that wait for it are given work.
    * A client has one piece of training in hand at most. An evaluation is a piece beside it.
    * A client that leaves, begins anew, falls silent or fails ends its work as dropped. Results that arrived stay.

    Time may not go back. ``load_state_dict`` keeps what was in hand in hand: its results may be in a spool; whoever
    resumes tells by `Left` whose work is lost.

    Args:
        attempt: of the run, at least 1; part of every token.
        speed: how clients' speeds are estimated.
        silence: when a client is given up; None: never.
        most_failures: pieces in a row that a client may fail at before it gets no more.
    """

    name: ClassVar[str]

    def __init__(
        self,
        attempt: int,
        *,
        speed: SpeedOptions = FEDCOMPASS_SPEED,
        silence: Silence | None = None,
        most_failures: int = 3,
    ) -> None:
        for label, value in (("attempt", attempt), ("most_failures", most_failures)):
            if value < 1:
                raise ValueError(f"{label} is {value}: it must be at least 1")
        self.attempt = attempt
        self.version: int | None = None
        self.now = 0.0
        self.clients: dict[str, Client] = {}
        self.total_samples = 0
        self.waiting: dict[Token, Result] = {}
        self._speed_options = speed
        self._silence = silence
        self._most_failures = most_failures
        self._sequence = 0
        self._unready: list[str] = []
        self._deadlines: list[tuple[float, Token]] = []
        self._timers: list[float] = []
        self._told_wake = math.inf
        self._committed = False
        self._closed = False
        self._out: list[Command] = []

    # What a subclass says.

    def on_ready(self, client: Client) -> None:
        """A client joined, came back, or failed and may try again: it is free, and a version is there."""
        raise NotImplementedError

    def on_result(self, client: Client, result: Result, piece: Piece) -> None:
        """Training arrived; it is in `waiting`, and the client's speed takes it in already."""
        raise NotImplementedError

    def on_lost(self, client: Client, piece: Piece | None) -> None:
        """A client left, failed or fell silent; ``piece`` is the training that it had in hand, already dropped."""

    def on_published(self) -> None:
        """A new version is there."""

    def on_tick(self) -> None:
        """Time has passed; called at the end of each event, timers or not."""

    def on_closing(self) -> None:
        """No more work is wanted. What is not committed here is dropped."""

    def extra_state(self) -> dict[str, Any]:
        """What the subclass knows beside the books, as JSON values."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take up `extra_state`; the books are loaded already."""

    # What a subclass calls.

    def give(self, client: Client, amount: int, *, rate_scale: float = 1.0) -> Piece:
        """Hand out training, with the newest version.

        Args:
            client: a free one.
            amount: local steps, at least 1.
            rate_scale: multiplies the client's own learning rate.
        """
        assert client.free, f"{client.name} is given work and is not free"
        return self._assign(client, "train", amount, rate_scale)

    def commit(self, entries: Iterable[tuple[Result, float]]) -> None:
        """Apply results that wait, each with its weight; in token order, so that sums do not hang on arrival."""
        entries = sorted(entries, key=lambda entry: entry[0].token.sequence)
        assert entries, "a commit of nothing"
        assert not self._committed, "a second commit for one event"
        for result, _ in entries:
            del self.waiting[result.token]
        self._out.append(Commit(tuple((result.token, weight) for result, weight in entries)))
        self._committed = True

    def drop(self, result: Result, reason: str) -> None:
        """End a result that waits without applying it."""
        del self.waiting[result.token]
        self._out.append(Drop(result.token, reason))

    def wake_at(self, time: float) -> None:
        """Have `on_tick` called at this time at the latest, even if nothing happens."""
        heapq.heappush(self._timers, time)

    def staleness_of(self, version: int) -> int:
        """Versions between this one and the newest."""
        assert self.version is not None
        return self.version - version

    def share_of(self, client: Client) -> float:
        """A client's share of all samples, ``n_i / N``, over all clients that ever joined and were not removed."""
        return client.samples / self.total_samples

    @property
    def ready(self) -> bool:
        """Whether a version is there and none is about to be published."""
        return self.version is not None and not self._committed and not self._closed

    def free_clients(self) -> list[Client]:
        """Those that can be given training, in the order of joining."""
        return [client for client in self.clients.values() if client.free]

    # The contract of a scheduler.

    def handle(self, event: Event) -> list[Command]:
        """Take one event in, give the commands that follow, in the order in which they are to be carried out.

        Raises:
            ValueError: time goes back, a version does not go up, a client without samples, a demand for something else
                than evaluations. The state is as it was then.
        """
        self._check(event)
        self.now = event.time
        self._out = []
        match event:
            case Joined():
                self._join(event)
            case Left():
                self._leave(event)
            case Arrived():
                self._arrive(event)
            case Failed():
                self._fail(event)
            case Published():
                self._publish(event)
            case Demand():
                self._evaluate(event.amount)
            case Closing():
                self._close()
            case Tick():
                pass
        self._pass_time()
        out, self._out = self._out, []
        return out

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as JSON values."""
        return {
            "scheduler": self.name,
            "attempt": self.attempt,
            "sequence": self._sequence,
            "now": self.now,
            "clients": [_client_state(client) for client in self.clients.values()],
            "waiting": [{**asdict(result), "token": str(result.token)} for result in self.waiting.values()],
            "timers": sorted(self._timers),
            "extra": self.extra_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state in a new attempt. What was in hand stays so until its client is told of, or its result.

        Raises:
            ValueError: the state is another scheduler's, or this attempt is not later than the state's, so that tokens
                could be named twice.
        """
        if state.get("scheduler") != self.name:
            raise ValueError(f"scheduler state is of {state.get('scheduler')!r}, expected {self.name!r}")
        if self.attempt <= state["attempt"]:
            raise ValueError(f"attempt is {self.attempt}: it must be above {state['attempt']}, the saved state's")
        self._sequence = state["sequence"]
        self.now = state["now"]
        self.version = None
        self.clients = {client["name"]: _client_of(client) for client in state["clients"]}
        self.total_samples = sum(client.samples for client in self.clients.values())
        self.waiting = {}
        for entry in state["waiting"]:
            token = Token.parse(entry["token"])
            self.waiting[token] = Result(**{**entry, "token": token})
        pieces = [piece for client in self.clients.values() for piece in client.pieces.values()]
        self._deadlines = [(piece.deadline, piece.token) for piece in pieces if piece.deadline < math.inf]
        heapq.heapify(self._deadlines)
        self._timers = list(state["timers"])
        self._told_wake = math.inf
        self.load_extra_state(state["extra"])

    def waiting_tokens(self) -> list[Token]:
        """Of the results that wait for a commit."""
        return list(self.waiting)

    def check_valid(self) -> None:
        """Assert the invariants: tokens are distinct and belong to their clients, nothing waits and is in hand."""
        pieces = [(name, piece) for name, client in self.clients.items() for piece in client.pieces.values()]
        sequences = [piece.token.sequence for _, piece in pieces] + [token.sequence for token in self.waiting]
        assert len(set(sequences)) == len(sequences), "two pieces share a sequence number"
        assert all(sequence < self._sequence for sequence in sequences), "a piece is numbered that was not handed out"
        assert all(piece.token.worker == name for name, piece in pieces)
        assert all(sum(p.kind == "train" for p in c.pieces.values()) <= 1 for c in self.clients.values())
        assert all(not c.pieces for c in self.clients.values() if c.silent), "a silent client has work in hand"
        assert self.total_samples == sum(client.samples for client in self.clients.values())

    # The books.

    def _check(self, event: Event) -> None:
        if event.time < self.now:
            raise ValueError(f"time is {event.time}: it must not be below {self.now}, the last event's")
        match event:
            case Joined() if event.samples < 1:
                raise ValueError(f"{event.worker} joined with {event.samples} samples: it needs at least 1")
            case Published() if self.version is not None and event.version <= self.version:
                raise ValueError(f"version is {event.version}: it must be above {self.version}, the last one")
            case Demand() if event.kind != "evaluate" or event.amount < 1:
                raise ValueError(
                    f"demand is for {event.amount} of {event.kind!r}: clients are asked to 'evaluate' only"
                )
            case _:
                pass

    def _join(self, event: Joined) -> None:
        client = self.clients.get(event.worker)
        if client is None:
            client = Client(event.worker, event.samples, dict(event.labels), speed=Speed(self._speed_options))
            self.clients[event.worker] = client
            self.total_samples += event.samples
        else:
            self._end_pieces(client, "client began anew")
            self.total_samples += event.samples - client.samples
            client.samples, client.labels = event.samples, dict(event.labels)
        client.present, client.silent, client.failures = True, False, 0
        self._make_ready(client)

    def _make_ready(self, client: Client) -> None:
        if self._closed:
            return
        if self.version is None:
            if client.name not in self._unready:
                self._unready.append(client.name)
        else:
            self.on_ready(client)

    def _leave(self, event: Left) -> None:
        client = self.clients.get(event.worker)
        if client is None:
            return
        client.present = False
        self._end_pieces(client, f"client left: {event.reason}" if event.reason else "client left")

    def _end_pieces(self, client: Client, reason: str) -> None:
        pieces, client.pieces = list(client.pieces.values()), {}
        self._out += [Drop(piece.token, reason) for piece in pieces]
        self.on_lost(client, next((piece for piece in pieces if piece.kind == "train"), None))

    def _arrive(self, event: Arrived) -> None:
        client = self.clients.get(event.token.worker)
        piece = client.pieces.pop(event.token, None) if client else None
        if client is None or piece is None:
            self._out.append(Drop(event.token, "not in hand: it was never handed out or has ended already"))
            if client is not None and client.silent:
                client.silent = False
                self._make_ready(client)
            return
        client.failures = 0
        if piece.kind == "evaluate":
            self._out.append(Commit(((event.token, float(client.samples)),)))
            return
        client.speed.observe(event.time - piece.begun, event.amount, event.compute_seconds, event.link_seconds)
        result = Result(event.token, client.name, event.amount, event.version, event.samples, event.time)
        self.waiting[event.token] = result
        self.on_result(client, result, piece)

    def _fail(self, event: Failed) -> None:
        client = self.clients.get(event.token.worker)
        piece = client.pieces.pop(event.token, None) if client else None
        if client is None or piece is None:
            return
        self._out.append(Drop(event.token, event.reason))
        if piece.kind == "evaluate":
            return
        self.on_lost(client, piece)
        client.failures += 1
        if client.failures < self._most_failures and client.present:
            self._make_ready(client)
        else:
            client.silent = True

    def _publish(self, event: Published) -> None:
        self.version = event.version
        self._committed = False
        if self._closed:
            return
        ready, self._unready = self._unready, []
        self.on_published()
        for name in ready:
            if self.clients[name].free and not self._committed:
                self.on_ready(self.clients[name])

    def _evaluate(self, amount: int) -> None:
        if self.version is None:
            raise ValueError("demand is for an evaluation: no version is published yet")
        for client in self.clients.values():
            if client.present and not client.silent:
                self._assign(client, "evaluate", amount, 1.0)

    def _close(self) -> None:
        self.on_closing()
        self._closed = True
        for client in self.clients.values():
            self._out += [Drop(piece.token, "the run ends") for piece in client.pieces.values()]
            client.pieces = {}
        for result in list(self.waiting.values()):
            self.drop(result, "the run ends")

    def _assign(self, client: Client, kind: WorkKind, amount: int, rate_scale: float) -> Piece:
        assert self.version is not None, "work is handed out before there is a version"
        assert amount >= 1, f"{client.name} is given {amount} steps"
        token = Token(self.attempt, client.name, self._sequence)
        self._sequence += 1
        piece = Piece(token, kind, amount, self.version, self.now, self._deadline(client, amount))
        if piece.deadline < math.inf:
            heapq.heappush(self._deadlines, (piece.deadline, token))
        client.pieces[token] = piece
        self._out.append(Assign(client.name, token, kind, amount, self.version, rate_scale))
        return piece

    def _deadline(self, client: Client, amount: int) -> float:
        if self._silence is None:
            return math.inf
        expected = client.speed.duration(amount) if client.speed.known else self._silence.least_seconds
        return self.now + max(self._silence.factor * expected, self._silence.least_seconds)

    def _pass_time(self) -> None:
        while self._deadlines and self._deadlines[0][0] <= self.now:
            _, token = heapq.heappop(self._deadlines)
            client = self.clients[token.worker]
            if token in client.pieces:
                client.silent = True
                waited = self.now - client.pieces[token].begun
                self._end_pieces(client, f"given up: no answer from {client.name} for {waited:.4g} s")
        while self._timers and self._timers[0] <= self.now:
            heapq.heappop(self._timers)
        if self.ready:
            self.on_tick()
        # Work that has ended leaves its deadline behind; nobody need be woken for it.
        while self._deadlines and not self._in_hand(self._deadlines[0][1]):
            heapq.heappop(self._deadlines)
        wake = min(
            self._timers[0] if self._timers else math.inf, self._deadlines[0][0] if self._deadlines else math.inf
        )
        if wake < math.inf and (wake != self._told_wake or self._told_wake <= self.now):
            self._out.append(WakeAt(wake))
        self._told_wake = wake

    def _in_hand(self, token: Token) -> bool:
        return token in self.clients[token.worker].pieces


def _client_state(client: Client) -> dict[str, Any]:
    return {
        "name": client.name,
        "samples": client.samples,
        "labels": client.labels,
        "present": client.present,
        "silent": client.silent,
        "failures": client.failures,
        "speed": client.speed.state_dict(),
        "pieces": [
            {
                **asdict(piece),
                "token": str(piece.token),
                "deadline": None if piece.deadline == math.inf else piece.deadline,
            }
            for piece in client.pieces.values()
        ],
    }


def _client_of(state: Mapping[str, Any]) -> Client:
    pieces = {}
    for entry in state["pieces"]:
        token = Token.parse(entry["token"])
        deadline = math.inf if entry["deadline"] is None else entry["deadline"]
        pieces[token] = Piece(**{**entry, "token": token, "deadline": deadline})
    return Client(**{**state, "speed": Speed.of(state["speed"]), "pieces": pieces})
