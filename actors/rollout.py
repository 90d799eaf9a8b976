"""Playing: an environment vector and whoever acts in it, written down as columns.

T is the number of vector steps, N of environments in the vector, A of actions.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..learners.encodings.history import History
from ..learners.learner import GREEDY, Exploration
from .columns import Columns
from .environments.contract import Observation, Step, VectorEnvironment

Act: TypeAlias = Callable[[Observation, np.ndarray | None, Exploration, np.random.Generator], np.ndarray]
"""`Policy.act`, or a player's: ``(observation {field: [n, ...]}, legal [n, A] | None, exploration, generator)`` to
actions ``[n] int64``."""


@dataclass(frozen=True)
class EpisodeTotals:
    """The episodes that ended in a rollout, wherever they began.

    Attributes:
        count: how many.
        return_sum: of their undiscounted returns.
        length_sum: of their lengths in steps.
        seconds_acting: time spent in the policy during the rollout; the rest is the environment's and ours.
    """

    count: int
    return_sum: float
    length_sum: int
    seconds_acting: float


def choose_actions(
    act: Act,
    environment: VectorEnvironment,
    observation: Observation,
    live: np.ndarray,
    exploration: Exploration,
    generator: np.random.Generator,
    *,
    act_on_all: bool,
) -> np.ndarray:
    """Actions ``[N] int64``: chosen where ``live [N] bool``, and elsewhere some action that is allowed.

    A policy without memory sees the live environments alone. One that keeps something for each environment needs its
    row to stay its row: with ``act_on_all`` it sees the whole vector, and what it says of the others is ignored.
    """
    legal = environment.legal()
    action = np.zeros(live.size, np.int64) if legal is None else legal.argmax(axis=1)
    if act_on_all or live.all():
        return np.where(live, act(observation, legal, exploration, generator), action)
    if live.any():
        rows = np.flatnonzero(live)
        seen = {name: array[rows] for name, array in observation.items()}
        action[rows] = act(seen, None if legal is None else legal[rows], exploration, generator)
    return action


class Rollout:
    """An environment vector that is played on and on: each `run` begins where the last one stopped.

    Args:
        environment: reset here.
        stream: all randomness of the environment.
        first_episode: number of environment 0's first episode; the count goes up from there. Numbers far apart for
            each new beginning keep a reader of the columns from joining two episodes that are not one.
        act_on_all: see `choose_actions`.
        record_legal: whether `run` gives the column ``legal``.

    Raises:
        ValueError: legal actions are to be recorded of an environment that has none.
    """

    def __init__(
        self,
        environment: VectorEnvironment,
        stream: np.random.Generator,
        *,
        first_episode: int = 0,
        act_on_all: bool = False,
        record_legal: bool = False,
    ) -> None:
        if record_legal and not environment.spec.has_legal:
            raise ValueError(f"record_legal is True, but in {environment.spec.name} every action is always legal")
        envs = environment.num_envs
        self._environment = environment
        self._act_on_all = act_on_all
        self._record_legal = record_legal
        self._history = History(environment.spec, envs)
        self._observation = environment.reset(stream)
        self._seen = self._history.add(self._observation, np.ones(envs, bool))
        self._ended = np.zeros(envs, bool)
        self._episode = first_episode + np.arange(envs, dtype=np.int64)
        self._next_episode = first_episode + envs
        self._return = np.zeros(envs)
        self._length = np.zeros(envs, np.int64)
        self.totals = EpisodeTotals(0, 0.0, 0, 0.0)
        """Of the last `run`."""

    def run(
        self, act: Act, steps: int, exploration: Exploration, generator: np.random.Generator, version: int
    ) -> Columns:
        """Play ``T = ceil(steps / N)`` vector steps.

        Args:
            act: who plays.
            steps: environment steps, at least 1; auto-reset rows count among them.
            exploration: handed on to ``act``.
            generator: all randomness of ``act``.
            version: of the weights that act, written into the columns.

        Returns:
            The columns (see `actors.columns`), newly allocated.

        Raises:
            ValueError: ``steps`` is less than 1, or the environment refuses an action.
        """
        if steps < 1:
            raise ValueError(f"steps is {steps}: it must be at least 1")
        rows = math.ceil(steps / self._environment.num_envs)
        columns = self._allocate(rows, version)
        self.totals = EpisodeTotals(0, 0.0, 0, 0.0)
        for row in range(rows):
            self._write_state(columns, row)
            live = ~self._ended
            started = time.perf_counter()
            action = choose_actions(
                act, self._environment, self._seen, live, exploration, generator, act_on_all=self._act_on_all
            )
            acting = time.perf_counter() - started
            step = self._environment.step(action)
            columns["action"][row] = action
            columns["valid"][row] = live
            columns["episode"][row] = self._episode
            columns["reward"][row] = step.reward
            columns["terminated"][row] = step.terminated
            columns["truncated"][row] = step.truncated
            self._advance(step, live, acting)
        self._write_state(columns, rows)
        return columns

    def _allocate(self, rows: int, version: int) -> Columns:
        envs, spec = self._environment.num_envs, self._environment.spec
        columns: Columns = {
            f"observation/{name}": np.empty((rows + 1, envs, *array.shape), array.dtype)
            for name, array in spec.observation.items()
        }
        columns["action"] = np.empty((rows, envs), np.int64)
        columns["reward"] = np.empty((rows, envs), np.float32)
        for name in ("terminated", "truncated", "valid"):
            columns[name] = np.empty((rows, envs), bool)
        columns["episode"] = np.empty((rows, envs), np.int64)
        columns["version"] = np.full((rows, envs), version, np.int64)
        if self._record_legal:
            columns["legal"] = np.empty((rows + 1, envs, spec.num_actions), bool)
        return columns

    def _write_state(self, columns: Columns, row: int) -> None:
        for name, array in self._observation.items():
            columns[f"observation/{name}"][row] = array
        if self._record_legal:
            columns["legal"][row] = self._environment.legal()

    def _advance(self, step: Step, live: np.ndarray, acting: float) -> None:
        begun = ~live
        self._episode[begun] = self._next_episode + np.arange(begun.sum())
        self._next_episode += int(begun.sum())
        self._return += step.reward
        self._length += live
        ended = step.terminated | step.truncated
        self.totals = EpisodeTotals(
            self.totals.count + int(ended.sum()),
            self.totals.return_sum + float(self._return[ended].sum()),
            self.totals.length_sum + int(self._length[ended].sum()),
            self.totals.seconds_acting + acting,
        )
        self._return[ended] = 0
        self._length[ended] = 0
        self._observation = step.observation
        self._seen = self._history.add(step.observation, begun)
        self._ended = ended


def record(
    environment: VectorEnvironment,
    player: Act,
    steps: int,
    stream: np.random.Generator,
    *,
    record_legal: bool = False,
) -> Columns:
    """Let a player play an offline data set of ``ceil(steps / N)`` vector steps; version 0 acts.

    The environment and the player draw from the same stream in turn. The player sees the whole vector each time, also
    environments whose episode has just ended.

    Raises:
        ValueError: ``steps`` is less than 1, or the environment refuses an action.
    """
    rollout = Rollout(environment, stream, act_on_all=True, record_legal=record_legal)
    return rollout.run(player, steps, GREEDY, stream, version=0)
