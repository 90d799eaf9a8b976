"""How a killed server goes on where it was: the last checkpoint, the journal since then, and the spool."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...actors.pools.contract import Pool, PoolEvent
from ...actors.work import PolicyState, WorkResult
from ...schedulers.events import Arrived, Assign, Event, Failed, Left, ReplayableScheduler, Token
from ..coordinate import Coordinator, Observer, Sink


class RecoverableCoordinator(Coordinator):
    """A coordinator whose work in hand outlives its process."""

    def __init__(
        self,
        scheduler: ReplayableScheduler,
        pool: Pool,
        sink: Sink,
        clock: Callable[[], float],
        *,
        observer: Observer | None = None,
        before_publishing: Callable[[], None] | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        super().__init__(scheduler, pool, sink, clock, observer=observer, before_publishing=before_publishing, say=say)
        self._replayable = scheduler
        self._gone: list[str] = []

    @property
    def waiting(self) -> Mapping[Token, WorkResult]:
        """Results that wait for the scheduler's word, by token."""
        return self._waiting

    def replay(self, state: Mapping[str, Any], journal: Iterable[Event], results: dict[Token, WorkResult]) -> None:
        """Bring the work to where a killed run had it. The scheduler is of the attempt that wrote the state.

        The scheduler hears every event again and says what it said then. A commit that had not been saved is made now.

        Args:
            state: of `state_dict`.
            journal: the events since, in order.
            results: admitted by the sink and uncommitted, by token; those that are needed are taken out.

        Raises:
            ValueError: it is another scheduler's state.
        """
        self._load_ledger(state)
        self._workers = set(state["workers"])
        self._replayable.restore(state["scheduler"])
        self._waiting = {token: results.pop(token) for token in self._replayable.waiting_tokens() if token in results}
        for event in journal:
            if isinstance(event, Arrived) and event.token in self._open:
                if event.token in results:
                    self._waiting[event.token] = results.pop(event.token)
                else:
                    gone = "its result is gone from the spool"
                    self._say(f"{event.token} had arrived, and {gone}: it counts as failed")
                    event = Failed(event.time, event.worker, event.token, gone)
            self._tell(event)

    def carry_over(self, state: Mapping[str, Any], waiting: Mapping[Token, WorkResult]) -> None:
        """Take the work over into a new attempt, before its first step.

        Args:
            state: of the `state_dict` of an earlier attempt.
            waiting: results that wait for their commit, by token.

        Raises:
            ValueError: it is another scheduler's state.
        """
        self._load_ledger(state)
        self._replayable.load_state_dict(state["scheduler"])
        self._waiting = dict(waiting)
        self._gone = list(state["workers"])

    def go_on(self, published: PolicyState) -> None:
        """Give up what was in hand of workers that are gone, and publish the newest version. Follows `carry_over`."""
        for worker in self._gone:
            self._tell(Left(self._told, worker, "the run was taken up without it"))
        self._gone = []
        self._tell(self._send_out(published))

    def _load_ledger(self, state: Mapping[str, Any]) -> None:
        self._load_sums(state)
        self._told = state["told"]
        assigns = [Assign(Token.parse(name).worker, Token.parse(name), *rest) for name, *rest in state["open"]]
        self._open = {assign.token: assign for assign in assigns}
        self._dropped -= len(assigns)


class Nobody:
    """A pool without workers, for a replay: what is handed out was handed out long ago."""

    restarts = 0

    def missing(self) -> str:
        """There never was anybody."""
        return "no worker takes part in a replay"

    def publish(self, state: PolicyState) -> None:
        """Nobody is given it."""

    def submit(self, assign: Assign) -> None:
        """Nobody is given it."""

    def events(self, timeout: float) -> list[PoolEvent]:
        """Nothing happens."""
        return []

    def take(self, token: Token) -> WorkResult:
        """Raises KeyError: nobody has a result."""
        raise KeyError(token)

    def acknowledge(self, token: Token) -> None:
        """Nobody waits for it."""

    def reset_workers(self) -> None:
        """Nobody begins anew."""

    def close(self) -> None:
        """Nothing is open."""
