"""What all schedulers of federated clients have in common: who is there, what is in hand, what waits.

A subclass says whom to give how much, and when to commit what; see `FederatedScheduler`. Every piece of work that is
handed out ends exactly once, committed or dropped with a reason.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from .clients import Client, Piece, Result, Silence
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

__all__ = ["GIVEN_UP", "Client", "FederatedScheduler", "Piece", "Result", "Silence"]

GIVEN_UP = "given up: "
"""How the reason of a drop begins where a client gets no more work, until it answers or begins anew."""


class FederatedScheduler:
    """A scheduler of federated clients: the books, without the policy.

    A subclass implements `on_ready`, `on_result`, and where it needs them the other hooks. In them it calls `give`,
    `commit`, `drop` and `wake_at`, whose commands are carried out in the order of the calls. Rules that the books keep
    for it:

    * Nothing is handed out before the first version is published; clients that joined earlier are ready then.
    * One event gives at most one `Commit` of training. The next version is published before any other event, and
      `on_published` is where clients that wait for it are given work.
    * `on_ready`, `on_result` and `on_tick` are called only while `ready`: what comes while a version is awaited is kept
      until it is there. So they may `give` and `commit`; after a `commit` they return.
    * A client has one piece of training in hand at most. An evaluation is a piece beside it.
    * A client that leaves, begins anew, falls silent or fails ends its work as dropped. Results that arrived stay.

    Time may not go back. A killed run is taken up in two steps: `restore` gives the state back exactly, in the attempt
    that wrote it, for the events since then to be told again; ``load_state_dict`` then carries it over into a new
    attempt. It leaves in hand what was in hand, and its clients where they were: who resumes publishes, and tells by
    `Left` whose work is lost.

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
        self._oldest_next = 0
        self._unready: dict[str, None] = {}
        self._untold: deque[tuple[Result, Piece]] = deque()
        self._deadlines: list[tuple[float, Token]] = []
        self._timers: list[float] = []
        self._told_wake = math.inf
        self._committed = False
        self._closed = False
        self._out: list[Command] = []

    # What a subclass says.

    def on_ready(self, client: Client) -> None:
        """A client joined, came back, or failed and may try again: it is free. A result of its may wait still."""
        raise NotImplementedError

    def on_result(self, client: Client, result: Result, piece: Piece) -> None:
        """Training arrived; it is in `waiting`, and the client's speed takes it in already.

        The client may have left meanwhile, or begun anew.
        """
        raise NotImplementedError

    def on_lost(self, client: Client, piece: Piece | None) -> None:
        """A client left, failed, fell silent or began anew; its training in hand was ``piece``, already dropped.

        A version may be awaited: what follows of the loss is for `on_tick`, at the end of this event or of `Published`.
        """

    def on_published(self) -> None:
        """A new version is there."""

    def on_tick(self) -> None:
        """Time has passed: called at the end of each event after which no version is awaited, timers or not."""

    def on_closing(self) -> None:
        """No more work is wanted. What is not committed here is dropped."""

    def extra_state(self) -> dict[str, Any]:
        """What the subclass knows beside the books, as JSON values."""
        return {}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """Take up `extra_state`; the books are loaded already."""

    # What a subclass calls.

    def give(self, client: Client, amount: int, *, rate_scale: float = 1.0, note: int | None = None) -> Piece:
        """Hand out training, with the newest version.

        Args:
            client: a free one.
            amount: local steps, at least 1.
            rate_scale: multiplies the client's own learning rate.
            note: stays with the piece, for the policy.
        """
        assert client.free, f"{client.name} is given work and is not free"
        assert self.ready, f"{client.name} is given work while a version is awaited"
        piece = client.training = self._hand_out(client, "train", amount, rate_scale)
        piece.note = note
        return piece

    def commit(self, entries: Iterable[tuple[Result, float]]) -> None:
        """Apply results that wait, each with its weight; in token order, so that sums do not hang on arrival."""
        assert not self._committed, "a second commit for one event"
        named = [(result.token, weight) for result, weight in entries]
        named.sort(key=lambda entry: entry[0].sequence)
        assert named, "a commit of nothing"
        for token, _ in named:
            del self.waiting[token]
        self._out.append(Commit(tuple(named)))
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
        """A client's share of all samples, ``n_i / N``, over all clients that ever joined."""
        return client.samples / self.total_samples

    @property
    def ready(self) -> bool:
        """Whether work can be given and committed: a version is there, and none is about to be published."""
        return self.version is not None and not self._committed and not self._closed

    def free_clients(self) -> list[Client]:
        """Those that can be given training, in the order of joining. It looks at every client there is."""
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
            case Arrived():
                self._handle_arrived(event)
            case Published():
                self._handle_published(event)
            case Joined():
                self._handle_joined(event)
            case Left():
                self._handle_left(event)
            case Failed():
                self._handle_failed(event.token, event.reason)
            case Demand():
                self._handle_demand(event.amount)
            case Closing():
                self._handle_closing()
            case Tick():
                pass
        self._tell_what_was_kept()
        self._pass_time()
        out, self._out = self._out, []
        return out

    def state_dict(self) -> dict[str, Any]:
        """The whole state, as JSON values."""
        return {
            "scheduler": self.name,
            "attempt": self.attempt,
            "sequence": self._sequence,
            "version": self.version if self.version is not None else self._oldest_next,
            "published": self.version is not None,
            "committed": self._committed,
            "closed": self._closed,
            "now": self.now,
            "clients": [client.state_dict() for client in self.clients.values()],
            "waiting": [result.state_dict() for result in self.waiting.values()],
            "unready": list(self._unready),
            "untold": [piece.state_dict() for _, piece in self._untold],
            "timers": sorted(self._timers),
            "extra": self.extra_state(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take up a state in a new attempt. What was in hand stays so until its client is told of, or its result.

        Raises:
            ValueError: the state is another scheduler's, or this attempt is not later than the state's, so that tokens
                could be named twice.
        """
        if self.attempt <= state["attempt"]:
            raise ValueError(f"attempt is {self.attempt}: it must be above {state['attempt']}, the saved state's")
        self._load(state)
        self.version, self._oldest_next = None, state["version"]
        self._committed = self._closed = False

    def restore(self, state: Mapping[str, Any]) -> None:
        """Be exactly as the scheduler was that gave this state, in the same attempt.

        Raises:
            ValueError: the state is another scheduler's, or another attempt's.
        """
        if self.attempt != state["attempt"]:
            raise ValueError(f"attempt is {self.attempt}: it must be {state['attempt']}, the saved state's")
        self._load(state)
        self.version = state["version"] if state["published"] else None
        self._oldest_next = state["version"] + state["published"]
        self._committed, self._closed = state["committed"], state["closed"]

    def waiting_tokens(self) -> list[Token]:
        """Of the results that wait for a commit."""
        return list(self.waiting)

    def _load(self, state: Mapping[str, Any]) -> None:
        if state.get("scheduler") != self.name:
            raise ValueError(f"scheduler state is of {state.get('scheduler')!r}, expected {self.name!r}")
        self._sequence = state["sequence"]
        self.now = state["now"]
        self.clients = {entry["name"]: Client.of(entry, self._speed_options) for entry in state["clients"]}
        self.total_samples = sum(client.samples for client in self.clients.values())
        self.waiting = {result.token: result for result in map(Result.of, state["waiting"])}
        self._unready = dict.fromkeys(state["unready"])
        self._untold = deque((self.waiting[piece.token], piece) for piece in map(Piece.of, state["untold"]))
        pieces = [piece for client in self.clients.values() for piece in client.pieces.values()]
        self._deadlines = [(piece.deadline, piece.token) for piece in pieces if piece.deadline < math.inf]
        heapq.heapify(self._deadlines)
        self._timers = list(state["timers"])
        self._told_wake = math.inf
        self.load_extra_state(state["extra"])

    def check_valid(self) -> None:
        """Assert the invariants: tokens are distinct and belong to their clients, nothing waits and is in hand."""
        pieces = [(name, piece) for name, client in self.clients.items() for piece in client.pieces.values()]
        sequences = [piece.token.sequence for _, piece in pieces] + [token.sequence for token in self.waiting]
        assert len(set(sequences)) == len(sequences), "two pieces share a sequence number"
        assert all(sequence < self._sequence for sequence in sequences), "a piece is numbered that was not handed out"
        assert all(piece.token.worker == name for name, piece in pieces)
        for client in self.clients.values():
            assert client.training is None or client.training.kind == "train"
            assert all(piece.kind == "evaluate" for piece in client.evaluations.values())
            assert not (client.pieces and (client.silent or not client.present)), f"{client.name} is gone and has work"
        assert not (self._untold and self.ready), "a result is kept from the policy"
        assert self.total_samples == sum(client.samples for client in self.clients.values())

    # The books.

    def _check(self, event: Event) -> None:
        if not event.time >= self.now:
            raise ValueError(f"time is {event.time}: it must not be below {self.now}, the last event's")
        match event:
            case Joined() if event.samples < 1:
                raise ValueError(f"{event.worker} joined with {event.samples} samples: it needs at least 1")
            case Published() if event.version < self._oldest_next:
                raise ValueError(f"version is {event.version}: it must be at least {self._oldest_next}, the next one")
            case Demand() if event.kind != "evaluate" or event.amount < 1:
                raise ValueError(
                    f"demand is for {event.amount} of {event.kind!r}: clients are asked to 'evaluate' only"
                )
            case Demand() if self.version is None:
                raise ValueError("demand is for an evaluation: no version is published yet")
            case _:
                pass

    def _handle_joined(self, event: Joined) -> None:
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
        self._unready[client.name] = None

    def _handle_left(self, event: Left) -> None:
        client = self.clients.get(event.worker)
        if client is not None and client.present:
            client.present = False
            self._end_pieces(client, f"client left: {event.reason}" if event.reason else "client left")

    def _end_pieces(self, client: Client, reason: str) -> None:
        self._out += [Drop(token, reason) for token in client.pieces]
        piece, client.training, client.evaluations = client.training, None, {}
        self.on_lost(client, piece)

    def _take_piece(self, token: Token) -> tuple[Client | None, Piece | None]:
        """The client that the token names and what it has in hand by it, which it has in hand no longer."""
        client = self.clients.get(token.worker)
        if client is None:
            return None, None
        piece = client.training
        if piece is None or piece.token != token:
            return client, client.evaluations.pop(token, None)
        client.training = None
        return client, piece

    def _handle_arrived(self, event: Arrived) -> None:
        token = event.token
        if token in self.waiting:
            return
        client, piece = self._take_piece(token)
        if client is None or piece is None:
            self._out.append(Drop(token, "not in hand: it was never handed out or has ended already"))
            self._hear_again(client)
            return
        if event.amount < 1 or event.version != piece.version:
            reason = f"{event.amount} steps from version {event.version} came of {piece.amount} from {piece.version}"
            self._end_as_failed(client, piece, reason)
            return
        client.failures = 0
        if piece.kind == "evaluate":
            self._begin_next(client, piece)
            self._out.append(Commit(((token, float(client.samples)),)))
            return
        elapsed = event.time - piece.begun
        client.speed.observe(elapsed, event.amount, event.compute_seconds, event.link_seconds)
        wait = max(elapsed - event.compute_seconds, 0.0)
        result = Result(token, client.name, event.amount, event.version, event.samples, event.time, wait)
        self.waiting[token] = result
        self._untold.append((result, piece))

    def _handle_failed(self, token: Token, reason: str) -> None:
        client, piece = self._take_piece(token)
        if client is not None and piece is not None:
            self._end_as_failed(client, piece, reason)
        else:
            self._hear_again(client)

    def _hear_again(self, client: Client | None) -> None:
        """A client that was given up answers after all, though too late."""
        if client is not None and client.silent and client.present:
            client.silent = False
            self._unready[client.name] = None

    def _end_as_failed(self, client: Client, piece: Piece, reason: str) -> None:
        if piece.kind == "evaluate":
            self._out.append(Drop(piece.token, reason))
            self._begin_next(client, piece)
            return
        client.failures += 1
        if client.failures < self._most_failures:
            self._out.append(Drop(piece.token, reason))
            self._unready[client.name] = None
        else:
            client.silent = True
            why = f"{GIVEN_UP}{client.name} failed {client.failures} times in a row, at last: {reason}"
            self._out += [Drop(token, why) for token in (piece.token, *client.evaluations)]
            client.evaluations = {}
        self.on_lost(client, piece)

    def _begin_next(self, client: Client, before: Piece) -> None:
        """A client does its pieces in order: training that was handed out after this evaluation begins now."""
        if client.training is not None and client.training.token.sequence > before.token.sequence:
            client.training.begun = self.now

    def _handle_published(self, event: Published) -> None:
        self.version, self._oldest_next = event.version, event.version + 1
        self._committed = False
        if not self._closed:
            self.on_published()

    def _tell_what_was_kept(self) -> None:
        while self.ready and (self._untold or self._unready):
            if self._untold:
                result, piece = self._untold.popleft()
                self.on_result(self.clients[result.worker], result, piece)
            else:
                client = self.clients[next(iter(self._unready))]
                del self._unready[client.name]
                if client.free:
                    self.on_ready(client)

    def _handle_demand(self, amount: int) -> None:
        for client in self.clients.values():
            if client.present and not client.silent:
                piece = self._hand_out(client, "evaluate", amount, 1.0)
                client.evaluations[piece.token] = piece

    def _handle_closing(self) -> None:
        if self.ready:
            self.on_closing()
        self._closed = True
        for client in self.clients.values():
            self._out += [Drop(token, "the run ends") for token in client.pieces]
            client.training, client.evaluations = None, {}
        for result in list(self.waiting.values()):
            self.drop(result, "the run ends")
        self._untold.clear()
        self._unready.clear()

    def _hand_out(self, client: Client, kind: WorkKind, amount: int, rate_scale: float) -> Piece:
        assert self.version is not None, "work is handed out before there is a version"
        assert amount >= 1, f"{client.name} is given {amount} steps"
        token = Token(self.attempt, client.name, self._sequence)
        self._sequence += 1
        piece = Piece(token, kind, amount, self.version, self.now)
        if self._silence is not None:
            piece.deadline = self._deadline_of(client, piece, self._silence)
            heapq.heappush(self._deadlines, (piece.deadline, token))
        self._out.append(Assign(client.name, token, kind, amount, self.version, rate_scale))
        return piece

    def _deadline_of(self, client: Client, piece: Piece, silence: Silence) -> float:
        """A client does its pieces in order, so a later one is given up after those before it."""
        before = max((other.deadline for other in client.pieces.values()), default=self.now)
        known = piece.kind == "train" and client.speed.known
        return before + silence.after(client.speed.duration(piece.amount) if known else None)

    def _pass_time(self) -> None:
        now = self.now
        while self._deadlines and self._deadlines[0][0] <= now:
            _, token = heapq.heappop(self._deadlines)
            if piece := self._in_hand(token):
                client = self.clients[token.worker]
                client.silent = True
                self._end_pieces(client, f"{GIVEN_UP}no answer from {client.name} for {now - piece.begun:.4g} s")
        while self._timers and self._timers[0] <= now:
            heapq.heappop(self._timers)
        if self.ready:
            self.on_tick()
        # Work that has ended leaves its deadline behind; nobody need be woken for it.
        while self._deadlines and not self._in_hand(self._deadlines[0][1]):
            heapq.heappop(self._deadlines)
        wake = self._timers[0] if self._timers else math.inf
        if self._deadlines:
            wake = min(wake, self._deadlines[0][0])
        if self._told_wake <= now:
            self._told_wake = math.inf
        if wake < self._told_wake:
            self._told_wake = wake
            self._out.append(WakeAt(max(wake, now)))

    def _in_hand(self, token: Token) -> Piece | None:
        return self.clients[token.worker].pieces.get(token)
