"""Returns and the assembler against a slow reading, episode by episode."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.learners.replay.transitions import Arrays, TransitionAssembler, n_step_returns


def make_columns(steps: int, envs: int, seed: int) -> Arrays:
    """Made-up rollouts with auto-reset rows; each observation is unique: transitions tell where they are from."""
    rng = np.random.default_rng(seed)
    ended = np.zeros(envs, bool)
    columns: Arrays = {
        "observation/x": np.arange((steps + 1) * envs, dtype=np.float32).reshape(steps + 1, envs, 1),
        "action": rng.integers(5, size=(steps, envs)),
        "reward": rng.normal(size=(steps, envs)).astype(np.float32),
        "terminated": np.zeros((steps, envs), bool),
        "truncated": np.zeros((steps, envs), bool),
        "valid": np.zeros((steps, envs), bool),
    }
    for t in range(steps):
        columns["valid"][t] = ~ended
        columns["reward"][t][ended] = 0
        chance = rng.random(envs)
        columns["terminated"][t] = ~ended & (chance < 0.2)
        columns["truncated"][t] = ~ended & (chance > 0.9)
        ended = columns["terminated"][t] | columns["truncated"][t]
    return columns


def slow_transitions(columns: Arrays, n: int | None, discount: float) -> dict[float, tuple[float, float, float]]:
    """First observation to (return, discount after it, last observation), straight from the definition."""
    steps, envs = columns["valid"].shape
    found = {}
    for env in range(envs):
        for t in range(steps):
            if not columns["valid"][t, env]:
                continue
            total, power, k, ended = 0.0, 1.0, t, False
            while k < steps and not ended and (n is None or k - t < n):
                total += power * float(columns["reward"][k, env])
                power *= 0.0 if columns["terminated"][k, env] else discount
                ended = bool(columns["terminated"][k, env] | columns["truncated"][k, env])
                k += 1
            complete = (ended and power == 0) if n is None else (ended or k - t == n)
            if complete:
                first, last = columns["observation/x"][t, env, 0], columns["observation/x"][k, env, 0]
                found[float(first)] = (total, power, float(last))
    return found


@pytest.mark.parametrize("n", [1, 2, 5, None])
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(1, 11), max_size=4))
@settings(max_examples=40, deadline=None)
def test_pieces_give_each_transition_once_and_right(n: int | None, seed: int, cuts: list[int]) -> None:
    columns = make_columns(12, 3, seed)
    assembler = TransitionAssembler(n, 0.9)
    given_out: dict[float, tuple[float, float, float]] = {}
    bounds = sorted({0, 12, *cuts})
    for start, stop in pairwise(bounds):
        piece = {
            name: part[start : stop + 1] if name.startswith("observation") else part[start:stop]
            for name, part in columns.items()
        }
        transitions = assembler.add(piece, continues=start > 0)
        for row, first in enumerate(transitions["observation_tm1/x"][:, 0].tolist()):
            assert first not in given_out, "a row was given twice"
            last = float("nan") if n is None else float(transitions["observation_t/x"][row, 0])
            given_out[first] = (float(transitions["reward_t"][row]), float(transitions["discount_t"][row]), last)
    expected = slow_transitions(columns, n, 0.9)
    assert given_out.keys() == expected.keys()
    for first, (total, power, last) in expected.items():
        np.testing.assert_allclose(given_out[first][:2], (total, power), rtol=1e-5, atol=1e-6)
        if n is not None:
            assert given_out[first][2] == last


def test_a_rollout_that_does_not_continue_forgets_what_was_open() -> None:
    columns = make_columns(4, 1, 0)
    columns["terminated"][:] = columns["truncated"][:] = False
    columns["valid"][:] = True
    assembler = TransitionAssembler(None, 1.0)
    assert len(assembler.add(columns, continues=False)["action_tm1"]) == 0
    columns["terminated"][3] = True
    assert len(assembler.add(columns, continues=False)["action_tm1"]) == 4


def test_open_rows_are_bounded_by_the_longest_open_episode() -> None:
    columns = make_columns(6, 2, 3)
    columns["terminated"][:] = columns["truncated"][:] = False
    columns["valid"][:] = True
    columns["truncated"][-1] = True
    assembler = TransitionAssembler(None, 1.0)
    assembler.add(columns, continues=False)
    assert all(len(part) <= 1 for part in assembler._columns.values()), "truncated rows are never known: do not wait"


def test_truncation_bootstraps_from_the_last_observation() -> None:
    columns = make_columns(3, 1, 0)
    columns["valid"][:] = [[True], [True], [False]]
    columns["terminated"][:] = False
    columns["truncated"][:] = [[False], [True], [False]]
    returns = n_step_returns(columns, 3, 0.5)
    assert returns.known[:, 0].tolist() == [True, True, False]
    assert returns.discount[:2, 0].tolist() == [0.25, 0.5]
    assert returns.after[:2, 0].tolist() == [2, 2]
