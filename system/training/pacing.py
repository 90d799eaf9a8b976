"""How far a run has come, and how players and learner keep pace with each other: pure arithmetic on counters."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.run import BudgetConfig


def budget_share(budget: BudgetConfig, *, seconds: float, updates: int, env_steps: int) -> float:
    """Share in [0, 1] of the limit that is nearest to being reached."""
    shares = [
        done / limit
        for done, limit in ((seconds, budget.seconds), (updates, budget.updates), (env_steps, budget.env_steps))
        if limit is not None
    ]
    return min(max(shares), 1.0)


@dataclass(frozen=True)
class Pace:
    """Updates for each environment step, as a limit on both sides.

    Consumes: steps that arrived. Produces: permission to update, and pieces of work to ask for. A learner that is
    ahead waits for steps; players that are ahead get no work until the learner has used what they brought. With
    ``full`` steps in hand every worker is busy, so at most ``full`` steps wait to be used, and as many are being
    played: weights are never older than that much play.

    Attributes:
        updates_per_step: None lets both run freely.
        piece: steps in a piece of work.
        full: steps in hand when all workers have their fill; at least ``piece``.
    """

    updates_per_step: float | None
    piece: int
    full: int

    def may_update(self, updates: int, steps: int) -> bool:
        """Whether one more update is due. Both count from when the first update was possible."""
        return self.updates_per_step is None or updates + 1 <= self.updates_per_step * steps

    def pieces_wanted(self, updates: int, steps: int, outstanding: int) -> int:
        """How many pieces to ask for now, with ``outstanding`` steps asked for and not yet there."""
        room = self.full - outstanding
        if self.updates_per_step is not None:
            unused = steps - updates / self.updates_per_step
            starved = outstanding == 0 and not self.may_update(updates, steps)
            room = max(min(room, self.full - outstanding - int(unused)), self.piece if starved else 0)
        return max(room // self.piece, 0)
