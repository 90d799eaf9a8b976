"""The budget's share, and the pace that players and learner keep: simulated loops must neither stall nor run away."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.system.config.run import BudgetConfig
from isogon.system.training.pacing import Pace, budget_share


def test_the_nearest_limit_counts() -> None:
    budget = BudgetConfig(seconds=10, updates=1000, env_steps=None)
    assert budget_share(budget, seconds=5, updates=100, env_steps=10**9) == 0.5
    assert budget_share(budget, seconds=1, updates=900, env_steps=0) == 0.9
    assert budget_share(budget, seconds=50, updates=0, env_steps=0) == 1.0


def test_a_budget_without_limits_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        BudgetConfig()


@given(
    ratio=st.sampled_from([0.125, 1 / 3, 1.0, 2.0]),
    piece=st.integers(1, 64),
    pieces_full=st.integers(1, 4),
    late=st.integers(0, 3),
    lost=st.integers(0, 5),
)
@settings(max_examples=100, deadline=None)
def test_the_ratio_is_kept_and_nothing_stalls(ratio: float, piece: int, pieces_full: int, late: int, lost: int) -> None:
    """``late`` turns pass between a request and its result, which brings ``lost`` steps fewer than asked for."""
    pace = Pace(ratio, piece, piece * pieces_full)
    updates, steps = 0, 0
    coming: list[int] = []
    for turn in range(400):
        outstanding = piece * len(coming)
        coming += [turn + late] * pace.pieces_wanted(updates, steps, outstanding)
        assert piece * len(coming) <= pace.full
        steps += sum(max(piece - lost, 1) for due in coming if due <= turn)
        coming = [due for due in coming if due > turn]
        while pace.may_update(updates, steps):
            updates += 1
        assert updates <= ratio * steps
        assert steps - updates / ratio <= pace.full + 1 / ratio
    assert steps >= 50 * max(piece - lost, 1), "the loop stalled"
    assert updates > ratio * steps - 1


def test_a_learner_that_is_behind_holds_the_players_back() -> None:
    pace = Pace(0.5, 10, 20)
    assert pace.pieces_wanted(updates=0, steps=0, outstanding=0) == 2
    assert pace.pieces_wanted(updates=0, steps=20, outstanding=0) == 0
    assert pace.pieces_wanted(updates=5, steps=20, outstanding=0) == 1
    assert pace.pieces_wanted(updates=5, steps=20, outstanding=10) == 0


def test_without_a_ratio_everyone_is_kept_busy() -> None:
    pace = Pace(None, 10, 40)
    assert pace.may_update(10**9, 0)
    assert pace.pieces_wanted(updates=0, steps=10**9, outstanding=15) == 2
