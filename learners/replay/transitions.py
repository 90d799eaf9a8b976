"""Rollout columns to transitions with their returns: pure functions and a small state machine.

T steps, N environments. The columns are those of `actors.columns`: time-major, auto-reset rows not valid, and the
observation in an auto-reset row is the last one of the episode that ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Returns:
    """For each row ``[T, N]``: what followed it.

    Attributes:
        known: the rewards up to the horizon, or to the episode's end, are all there.
        reward: discounted sum of those rewards, float32.
        discount: of the state after them; 0 where the episode terminated. float32.
        after: row ``0..T`` of that state's observation.
    """

    known: np.ndarray
    reward: np.ndarray
    discount: np.ndarray
    after: np.ndarray


def n_step_returns(columns: Mapping[str, np.ndarray], n: int | None, discount: float) -> Returns:
    """Returns over n steps (Sutton & Barto 2018, eq. 7.1), or over the whole episode where n is None.

    A truncated episode's last state keeps its discount: something would have followed. Rows that are not valid are
    never known.
    """
    terminated, truncated, valid = columns["terminated"], columns["truncated"], columns["valid"]
    steps, envs = valid.shape
    reward = np.zeros((steps, envs), np.float32)
    power = np.ones((steps, envs), np.float32)
    after = np.repeat(np.arange(steps)[:, None], envs, axis=1)
    going = valid.copy()
    if n is None:
        return _episode_returns(columns, discount)
    for k in range(n):
        # Row t adds the reward of row t + k as long as its episode goes on and the columns reach that far.
        here = going.copy()
        here[max(steps - k, 0) :] = False
        source = np.minimum(np.arange(steps) + k, steps - 1)
        reward += np.where(here, power * columns["reward"][source], 0.0).astype(np.float32)
        power = np.where(here, power * discount, power).astype(np.float32)
        after = np.where(here, after + 1, after)
        ended = terminated[source] | truncated[source]
        power = np.where(here & terminated[source], 0.0, power).astype(np.float32)
        going &= ~(here & ended)
    last = np.clip(after - 1, 0, steps - 1)
    columns_index = np.arange(envs)[None, :]
    finished = terminated[last, columns_index] | truncated[last, columns_index]
    full = after - np.arange(steps)[:, None] == n
    return Returns(valid & (full | (finished & (after > np.arange(steps)[:, None]))), reward, power, after)


def _episode_returns(columns: Mapping[str, np.ndarray], discount: float) -> Returns:
    terminated, valid = columns["terminated"], columns["valid"]
    steps, envs = valid.shape
    known = np.zeros((steps, envs), bool)
    reward = np.zeros((steps, envs), np.float32)
    after = np.zeros((steps, envs), np.int64)
    following, end, there = np.zeros(envs, np.float32), np.zeros(envs, np.int64), np.zeros(envs, bool)
    for t in range(steps - 1, -1, -1):
        ends = terminated[t] & valid[t]
        following = np.where(ends, 0.0, following * discount).astype(np.float32) + columns["reward"][t]
        end = np.where(ends, t + 1, end)
        # A truncated episode never shows its whole return: none of its rows is ever known.
        there = np.where(valid[t], (there | ends) & ~columns["truncated"][t], False)
        known[t], reward[t], after[t] = there, following, end
    return Returns(known, reward, np.zeros((steps, envs), np.float32), after)


@dataclass
class TransitionAssembler:
    """Puts one worker's rollouts end to end and gives each transition as soon as what followed it is known.

    Attributes:
        n: steps of return, None for whole episodes (Monte-Carlo; truncated episodes then give nothing).
        discount: of one step.
    """

    n: int | None
    discount: float
    _columns: Arrays = field(default_factory=dict)
    _given: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))

    def add(self, columns: Mapping[str, np.ndarray], continues: bool) -> Arrays:
        """Take a rollout in, give the transitions that are complete now, each row once.

        Args:
            columns: as `actors.columns` describes them.
            continues: whether row 0 follows on the last rollout; otherwise what was unfinished is forgotten.

        Returns:
            ``observation_tm1/<field> [M, ...], action_tm1 [M] int64, reward_t, discount_t [M] float32``, and, unless
            returns are Monte-Carlo, ``observation_t/<field>`` and perhaps ``legal_t``. M may be 0.
        """
        steps, envs = columns["action"].shape
        if continues and self._columns:
            # The open last observation of the columns before is row 0 of these.
            joined = {
                name: np.concatenate([self._columns[name][: self._given.shape[0]], part])
                for name, part in columns.items()
            }
            given = np.concatenate([self._given, np.zeros((steps, envs), bool)])
        else:
            joined, given = dict(columns), np.zeros((steps, envs), bool)
        returns = n_step_returns(joined, self.n, self.discount)
        transitions = self._gather(joined, returns, returns.known & ~given)
        # A truncated episode's rows are never known to Monte-Carlo, so that they must not be waited for.
        given |= returns.known | ~joined["valid"]
        if self.n is None:
            given |= _truncated_rows(joined)
        waiting = np.flatnonzero(~given.all(axis=1))
        first = int(waiting[0]) if waiting.size else given.shape[0]
        self._columns = {name: part[first:] for name, part in joined.items()}
        self._given = given[first:]
        return transitions

    def _gather(self, columns: Mapping[str, np.ndarray], returns: Returns, mask: np.ndarray) -> Arrays:
        step, env = np.nonzero(mask)
        after = returns.after[step, env]
        transitions = {
            "action_tm1": columns["action"][step, env],
            "reward_t": returns.reward[step, env],
            "discount_t": returns.discount[step, env],
        }
        for name, part in columns.items():
            if name.startswith("observation/"):
                transitions["observation_tm1" + name[len("observation") :]] = part[step, env]
                if self.n is not None:
                    transitions["observation_t" + name[len("observation") :]] = part[after, env]
        if self.n is not None and "legal" in columns:
            transitions["legal_t"] = columns["legal"][after, env]
        return transitions


def _truncated_rows(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    steps, envs = columns["valid"].shape
    rows = np.zeros((steps, envs), bool)
    cut = np.zeros(envs, bool)
    for t in range(steps - 1, -1, -1):
        cut = (cut | columns["truncated"][t]) & columns["valid"][t] & ~columns["terminated"][t]
        rows[t] = cut
    return rows
