"""The contract of a pool: who does the work.

In-process, Ray, the virtual clock and gRPC silos are four pools behind this one face; ``tests/actors/pool_suite.py``
runs on each. A lost worker is an event, not an exception. A worker whose *code* fails is a fault of the program or of
the user's environment. With ``failures="raise"`` the pool ends by `WorkFailed`: a deterministic run could not go on as
it would have. With ``"retry"`` a worker that cannot start ends it so, for that will not get better, and of work that
fails the pool tells by `Failed`: an emulator may stumble once in a million games. With ``"tell"``, in a federation,
where one client's fault is not the others', a worker that cannot even start is left out: the pool tells of it by a
`Left` with the reason, as it does of one that is gone for good before it ever joined.
"""

from __future__ import annotations

from typing import Literal, Protocol, TypeAlias

from ...schedulers.events import Arrived, Assign, Failed, Joined, Left, Token
from ..work import PolicyState, WorkResult

PoolEvent: TypeAlias = Joined | Left | Arrived | Failed

Failures: TypeAlias = Literal["raise", "retry", "tell"]
"""What becomes of a worker whose code raises: the pool ends by `WorkFailed`, only where it cannot start, or never."""


class WorkFailed(RuntimeError):
    """A worker's own code raised. The message names the worker, the work and what was raised."""


class PoolExhausted(RuntimeError):
    """No worker is left and none will come back. The message tells why the last one went."""


class Pool(Protocol):
    """Workers that take `Assign` and answer with `Arrived`; results wait in the pool until they are taken."""

    @property
    def restarts(self) -> int:
        """How many times the process of a lost worker was replaced, also of one that was lost while it started."""
        ...

    @property
    def last_error(self) -> BaseException | None:
        """What the last work that failed raised, with its traceback; None where none failed."""
        ...

    def missing(self) -> str:
        """What workers that are not there wait for, in words that name the remedy; and which were left out, and why."""
        ...

    def publish(self, state: PolicyState) -> None:
        """Make a version of the weights available to work submitted from now on.

        Older versions may be forgotten once no submitted work needs them.
        """
        ...

    def submit(self, assign: Assign) -> None:
        """Hand out work. Raises ValueError for an unknown version or worker.

        Work for a worker whose `Left` the last call of `events` gave is taken and comes to nothing: the caller may not
        have read so far.
        """
        ...

    def events(self, timeout: float) -> list[PoolEvent]:
        """What happened, in order; waits up to ``timeout`` seconds for the first.

        Raises `WorkFailed`, `PoolExhausted`.
        """
        ...

    def take(self, token: Token) -> WorkResult:
        """The result that `Arrived` told of; it is the caller's from now on. Raises KeyError for any other token."""
        ...

    def acknowledge(self, token: Token) -> None:
        """The result that was taken is safe with whoever took it: nobody needs to keep a copy any longer.

        Until then the pool may keep one. Said twice, or of a token that is not known, it means nothing.
        """
        ...

    def reset_workers(self) -> None:
        """Make every worker begin anew (environments, streams) with its next work; only where nothing is in hand.

        A deterministic run does this at each checkpoint, so that a resumed one continues alike.
        """
        ...

    def close(self) -> None:
        """Stop the workers and free what they hold. May be called twice."""
        ...


def raised(error: BaseException) -> str:
    """What was raised, in one phrase."""
    return f"{type(error).__name__}: {error}"
