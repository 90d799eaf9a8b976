"""Asynchronous training: nobody waits for anybody. FedAsync and FedBuff."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any, ClassVar, Literal, TypeAlias

from .events import Token
from .federated import Client, FederatedScheduler, Piece, Result, Silence
from .speed import FEDCOMPASS_SPEED, SpeedOptions
from .staleness import Staleness, polynomial

BufferShare: TypeAlias = Literal["samples", "equal", "mean"]
"""What a result counts before alpha and staleness: its client's share ``n_i / N`` of all samples, one in the number
``n`` of all clients, or one in the number of results in a commit."""


_SQUARE_ROOT = polynomial(0.5)


class FedBuff(FederatedScheduler):
    """Asynchronous training with a buffer: every ``buffer`` results make one commit.

    Nguyen et al. 2022, "Federated learning with buffered asynchronous aggregation"
    (https://arxiv.org/abs/2106.06639), algorithm 1. A client is started again at once, with the newest version, while
    its result waits. A result counts ``alpha * staleness(u) * share``; alpha is the paper's server learning rate. At
    the run's end what is in the buffer is committed with the same weights.

    Args:
        attempt: of the run, at least 1.
        steps: local steps of a piece of work.
        buffer: results in a commit; the paper's K, and its default.
        alpha: mixing, above 0.
        staleness: factor by the versions that were published since the client began.
        share: ``"mean"`` is the paper's: the commit moves the model by the buffer's mean.
        most_staleness: an older result is dropped; None: none is.
        concurrency: clients that train at a time, the paper's M: one is started whenever one ends, who has been idle
            longest first. None: all.
        speed, silence, most_failures: see `FederatedScheduler`.

    Raises:
        ValueError: a number below its least, or an unknown word.
    """

    name: ClassVar[str] = "fedbuff"

    def __init__(
        self,
        attempt: int,
        *,
        steps: int = 100,
        buffer: int = 10,
        alpha: float = 0.9,
        staleness: Staleness = _SQUARE_ROOT,
        share: BufferShare = "mean",
        most_staleness: int | None = None,
        concurrency: int | None = None,
        speed: SpeedOptions = FEDCOMPASS_SPEED,
        silence: Silence | None = None,
        most_failures: int = 3,
    ) -> None:
        super().__init__(attempt, speed=speed, silence=silence, most_failures=most_failures)
        for name, value in (("steps", steps), ("buffer", buffer), ("concurrency", concurrency)):
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        if most_staleness is not None and most_staleness < 0:
            raise ValueError(f"most_staleness is {most_staleness}: it must be at least 0, or None for no bound")
        if not alpha > 0:
            raise ValueError(f"alpha is {alpha}: it must be above 0, or no update counted")
        if share not in ("samples", "equal", "mean"):
            raise ValueError(f"share is {share!r}: expected 'samples', 'equal' or 'mean'")
        self._steps = steps
        self._buffer = buffer
        self._alpha = alpha
        self._staleness = staleness
        self._share = share
        self._most_staleness = most_staleness
        self._concurrency = concurrency
        self._training: dict[Token, None] = {}
        self._idle: dict[str, None] = {}

    def on_ready(self, client: Client) -> None:
        """It is started as soon as another may train."""
        self._idle[client.name] = None

    def on_result(self, client: Client, result: Result, piece: Piece) -> None:
        """Into the buffer, unless it is too old; its client may start anew."""
        del self._training[result.token]
        if client.free:
            self._idle[client.name] = None
        self._drop_if_stale(result)

    def on_lost(self, client: Client, piece: Piece | None) -> None:
        """Another may train in its place."""
        self._idle.pop(client.name, None)
        if piece is not None:
            del self._training[piece.token]

    def on_published(self) -> None:
        """Results that wait are a version older."""
        for result in list(self.waiting.values()):
            self._drop_if_stale(result)

    def on_tick(self) -> None:
        """Commit a full buffer; otherwise start whoever may train."""
        if len(self.waiting) >= self._buffer:
            self._commit_oldest()
            return
        while self._idle and (self._concurrency is None or len(self._training) < self._concurrency):
            name = next(iter(self._idle))
            del self._idle[name]
            self._training[self.give(self.clients[name], self._steps).token] = None

    def on_closing(self) -> None:
        """Commit what is in the buffer."""
        if self.waiting:
            self._commit_oldest()

    def extra_state(self) -> dict[str, Any]:
        """Who trains, and who is idle, the longest first."""
        return {"training": [str(token) for token in self._training], "idle": list(self._idle)}

    def load_extra_state(self, state: Mapping[str, Any]) -> None:
        """The inverse of `extra_state`."""
        self._idle = dict.fromkeys(state["idle"])
        self._training = dict.fromkeys(Token.parse(text) for text in state["training"])

    def check_valid(self) -> None:
        """Assert the invariants: the buffer is not full, no more train than may, and nobody idles who could."""
        super().check_valid()
        assert all(self.clients[name].free for name in self._idle), "a client is idle and not free"
        if not self.ready:
            return
        in_hand = {client.training.token for client in self.clients.values() if client.training is not None}
        assert self._training.keys() == in_hand, "who trains is not who has work in hand"
        assert self._concurrency is None or len(in_hand) <= self._concurrency
        assert len(self.waiting) < self._buffer, "a full buffer waits"
        assert not self._idle or len(in_hand) == self._concurrency, "a client idles that could train"

    def _drop_if_stale(self, result: Result) -> None:
        if self._most_staleness is None or self.version is None:
            return
        staleness = self.staleness_of(result.version)
        if staleness > self._most_staleness:
            self.drop(result, f"stale: {staleness} versions old, at most {self._most_staleness} are taken")

    def _commit_oldest(self) -> None:
        entries = list(islice(self.waiting.values(), self._buffer))
        self.commit([(result, self._weight(result)) for result in entries])

    def _weight(self, result: Result) -> float:
        factor = self._alpha * self._staleness(self.staleness_of(result.version))
        if self._share == "samples":
            return factor * self.share_of(self.clients[result.worker])
        return factor / (self._buffer if self._share == "mean" else len(self.clients))


class FedAsync(FedBuff):
    """Asynchronous training without a buffer: every result is committed alone, and its client starts anew from it.

    Xie et al. 2019, "Asynchronous federated optimization" (https://arxiv.org/abs/1903.03934), algorithm 1. The paper
    mixes models, ``w <- (1 - a) w + a w_i`` with ``a = alpha * staleness(u)``. Here the *change* since the version that
    the client began from is added, ``w <- w + a * share * (w_i - w_start)``: the same where ``u = 0`` and the share is
    1, and without the pull back to an old model where it is not.

    Args:
        attempt: of the run, at least 1.
        steps: local steps of a piece of work.
        alpha: mixing, above 0.
        staleness: factor by the versions that were published since the client began.
        share: what a result counts beside alpha and staleness: ``"samples"``: ``n_i / N`` of all samples; ``"equal"``:
            one in the number of all clients; ``"one"``: 1, as in the paper.
        most_staleness, concurrency, speed, silence, most_failures: see `FedBuff`.

    Raises:
        ValueError: a number below its least, or an unknown word.
    """

    name: ClassVar[str] = "fedasync"

    def __init__(
        self,
        attempt: int,
        *,
        steps: int = 100,
        alpha: float = 0.9,
        staleness: Staleness = _SQUARE_ROOT,
        share: Literal["samples", "equal", "one"] = "samples",
        most_staleness: int | None = None,
        concurrency: int | None = None,
        speed: SpeedOptions = FEDCOMPASS_SPEED,
        silence: Silence | None = None,
        most_failures: int = 3,
    ) -> None:
        if share not in ("samples", "equal", "one"):
            raise ValueError(f"share is {share!r}: expected 'samples', 'equal' or 'one'")
        super().__init__(
            attempt,
            steps=steps,
            buffer=1,
            alpha=alpha,
            staleness=staleness,
            share="mean" if share == "one" else share,
            most_staleness=most_staleness,
            concurrency=concurrency,
            speed=speed,
            silence=silence,
            most_failures=most_failures,
        )
