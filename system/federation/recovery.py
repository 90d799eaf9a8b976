"""How a killed server goes on where it was: the last checkpoint, the journal since then, and the spool."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ...actors.pools.contract import Pool, PoolEvent
from ...actors.work import PolicyState, WorkResult
from ...schedulers.events import Arrived, Assign, Event, Left, ReplayableScheduler, Token
from ..coordinate import Committed, Coordinator, Observer, Sink


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
    def waiting(self) -> Mapping[Token, WorkResult | None]:
        """Results that wait for the scheduler's word, by token; None where one is gone from the spool."""
        return self._waiting

    def replay(
        self, state: Mapping[str, Any], journal: Iterable[Event], results: dict[Token, WorkResult]
    ) -> list[Committed]:
        """Bring the work to where a killed run had it. The scheduler is of the attempt that wrote the state.

        The scheduler hears every event again and says what it said then, even of a result that is gone: that one is
        dropped when it was to be applied. A commit that had not been saved is made now.

        Args:
            state: of `state_dict`.
            journal: the events since, in order.
            results: admitted by the sink and uncommitted, by token; those that are needed are taken out.

        Returns:
            What went to the sink.

        Raises:
            ValueError: it is another scheduler's state.
        """
        self._load_ledger(state)
        self._workers = set(state["workers"])
        self._replayable.restore(state["scheduler"])
        self._waiting = {token: self._found(token, results) for token in self._replayable.waiting_tokens()}
        for event in journal:
            if isinstance(event, Arrived) and (assign := self._open.get(event.token)) is not None:
                self._waiting[event.token] = (
                    self._found(event.token, results) if assign.kind == "train" else _evaluated(event)
                )
            self._tell(event)
        return self._reported()

    def carry_over(self, state: Mapping[str, Any], waiting: Mapping[Token, WorkResult | None]) -> None:
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

    def give_up_gone(self) -> None:
        """Give up what was in hand of workers that are gone. Follows `carry_over`, before anything is published."""
        for worker in self._gone:
            self._tell(Left(self._told, worker, "the run was taken up without it"))
        self._gone = []

    def _found(self, token: Token, results: dict[Token, WorkResult]) -> WorkResult | None:
        if token not in results:
            self._say(f"{token} had arrived and is gone from the spool: it cannot be applied")
        return results.pop(token, None)

    def _load_ledger(self, state: Mapping[str, Any]) -> None:
        self._load_sums(state)
        self._told = state["told"]
        assigns = [Assign(Token.parse(name).worker, Token.parse(name), *rest) for name, *rest in state["open"]]
        self._open = {assign.token: assign for assign in assigns}
        self._kinds_open = Counter(assign.kind for assign in assigns)
        self._dropped -= len(assigns)


def _evaluated(event: Arrived) -> WorkResult:
    """What is left of an evaluation that was taken in when it came: that it came."""
    return WorkResult(event.token, "evaluate", event.version, event.amount, event.samples, {}, event.compute_seconds)


class Nobody:
    """A pool without workers, for a replay: what is handed out was handed out long ago."""

    restarts = 0
    last_error = None

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
