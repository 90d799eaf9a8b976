"""A worker: environments and a policy in one place, doing one piece of work after another."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from ..learners.learner import GREEDY, Exploration, Policy
from ..learners.randomness import stream
from ..schedulers.events import Assign
from .columns import check_columns
from .environments.config import Purpose
from .environments.contract import VectorEnvironment
from .evaluation import play_episodes
from .rollout import Rollout
from .work import PolicyState, Scores, WorkResult

_EPISODES_PER_BEGINNING = 2**32
"""Room for episode numbers between two beginnings of a worker."""


@dataclass(frozen=True)
class WorkerSpec:
    """Everything that a worker is made from.

    It is sent to other processes: the callables must be picklable, such as `functools.partial` of functions at the top
    of a module.

    Attributes:
        environment: makes a vector for a purpose with this many environments; for evaluation it may have another
            number, such as one for each word.
        policy: makes the policy, whose weights are then taken from published versions.
        num_envs: environments in the vector that rollouts play.
        evaluation_envs: environments asked for in the vector that evaluations play.
        seed: the run's.
        evaluation_purpose: what evaluations play.
        torch_threads: of a worker in a process of its own; in the learner's process the learner's setting holds.
        record_legal: whether rollouts write down which actions were legal.
        evaluation_exploration: how far evaluations stray from the greedy action.
        seconds_per_step: by worker's index, least seconds that a step of its rollouts takes: a slow machine, emulated.
            Workers beyond it are as fast as they are.
        epsilon_exponents: by worker's index, the power to which the rollouts' epsilon is raised; 1 beyond it.
    """

    environment: Callable[[Purpose, int], VectorEnvironment]
    policy: Callable[[], Policy]
    num_envs: int
    seed: int
    evaluation_envs: int = 16
    evaluation_purpose: Purpose = "validation"
    torch_threads: int = 1
    record_legal: bool = False
    evaluation_exploration: Exploration = GREEDY
    seconds_per_step: tuple[float, ...] = ()
    epsilon_exponents: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        for name in ("num_envs", "evaluation_envs", "torch_threads"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        if any(seconds < 0 for seconds in self.seconds_per_step):
            raise ValueError(f"seconds_per_step is {self.seconds_per_step}: none may be negative")


@dataclass
class _Playing:
    """Rollouts since a worker's last beginning: which beginning, and how many vector steps ago."""

    stream: int
    rollout: Rollout
    explore: np.random.Generator
    steps: int = 0


class Worker:
    """Does rollouts and evaluations, one at a time.

    Rollouts continue one another. At the first one after a beginning (construction or `reset`) the environments start
    anew, with streams named by the worker and by that work's sequence number: what is played depends on nothing else,
    so that a worker begun anew plays alike in this process and in one that took the run up later. An evaluation is
    named by its own sequence number and leaves the rollouts as they are.

    Args:
        index: which worker of its pool, from 0.
        spec: what it is made from.
    """

    def __init__(self, index: int, spec: WorkerSpec) -> None:
        self._index = index
        self._spec = spec
        self._seconds_per_step = spec.seconds_per_step[index] if index < len(spec.seconds_per_step) else 0.0
        self._epsilon_exponent = spec.epsilon_exponents[index] if index < len(spec.epsilon_exponents) else 1.0
        self._policy = spec.policy()
        self._version: int | None = None
        # Made now, so that a worker that cannot play says so before it is given any work.
        self._environment: VectorEnvironment | None = spec.environment("train", spec.num_envs)
        self._evaluation_environment: VectorEnvironment | None = None
        self._playing: _Playing | None = None

    @property
    def samples(self) -> int:
        """None of its own: what it plays is made as it plays."""
        return 0

    def run(self, assign: Assign, state: PolicyState) -> WorkResult:
        """Do one piece of work with these weights.

        Raises:
            ValueError: the weights are of another version than the work asks for, or do not fit the policy; the kind
                of work is ``train``; the environment gave what is no number.
            Exception: whatever else the environment raises. The next work begins with new environments.
        """
        started = time.perf_counter()
        if assign.version != state.version:
            raise ValueError(f"{assign.token} asks for version {assign.version}, and the weights are {state.version}'s")
        if self._version != state.version:
            self._policy.load_tensors(state.tensors)
            self._version = state.version
        if assign.kind not in ("rollout", "evaluate"):
            raise ValueError(f"{assign.token} is of kind {assign.kind!r}: a worker does 'rollout' and 'evaluate'")
        try:
            return (
                self._roll_out(assign, state, started) if assign.kind == "rollout" else self._evaluate(assign, started)
            )
        except Exception:
            # Whatever state the environments are in, nobody knows what they would play from it.
            self._give_up_environments()
            raise

    def reset(self) -> None:
        """Begin anew with the next rollout."""
        self._playing = None

    def close(self) -> None:
        """Free what the environments hold."""
        for environment in (self._environment, self._evaluation_environment):
            if environment is not None:
                environment.close()

    def _give_up_environments(self) -> None:
        """The next work makes them anew."""
        self.reset()
        with suppress(Exception):
            self.close()
        self._environment = self._evaluation_environment = None

    def _roll_out(self, assign: Assign, state: PolicyState, started: float) -> WorkResult:
        if self._playing is None:
            self._playing = self._begin(assign.token.sequence)
        playing = self._playing
        self._policy.draw_noise(playing.explore)
        exploration = replace(state.exploration, epsilon=state.exploration.epsilon**self._epsilon_exponent)
        columns = playing.rollout.run(
            self._policy.act, assign.amount, exploration, playing.explore, version=state.version
        )
        missing = self._seconds_per_step * columns["action"].size - (time.perf_counter() - started)
        if missing > 0:
            time.sleep(missing)
        assert self._environment is not None
        check_columns(columns, self._environment.spec)
        first_step = playing.steps
        playing.steps += len(columns["action"])
        totals = playing.rollout.totals
        stats = {
            "episodes": float(totals.count),
            "return_sum": totals.return_sum,
            "length_sum": float(totals.length_sum),
            "seconds_acting": totals.seconds_acting,
        }
        return WorkResult(
            token=assign.token,
            kind="rollout",
            version=state.version,
            amount=columns["action"].size,
            samples=int(columns["valid"].sum()),
            payload=columns,
            compute_seconds=time.perf_counter() - started,
            stats=stats,
            stream=playing.stream,
            first_step=first_step,
        )

    def _begin(self, sequence: int) -> _Playing:
        if self._environment is None:
            self._environment = self._spec.environment("train", self._spec.num_envs)
        rollout = Rollout(
            self._environment,
            stream(self._spec.seed, "rollout", self._index, sequence),
            first_episode=sequence * _EPISODES_PER_BEGINNING,
            record_legal=self._spec.record_legal,
        )
        return _Playing(sequence, rollout, stream(self._spec.seed, "explore", self._index, sequence))

    def _evaluate(self, assign: Assign, started: float) -> WorkResult:
        if self._evaluation_environment is None:
            self._evaluation_environment = self._spec.environment(
                self._spec.evaluation_purpose, self._spec.evaluation_envs
            )
        self._policy.draw_noise(None)
        scores: Scores = play_episodes(
            self._evaluation_environment,
            self._policy.act,
            assign.amount,
            stream(self._spec.seed, "evaluate", assign.token.sequence),
            exploration=self._spec.evaluation_exploration,
        )
        stats = {
            "episodes": float(assign.amount),
            "return_sum": float(scores["return"].sum(dtype=np.float64)),
            "length_sum": float(scores["length"].sum()),
        }
        return WorkResult(
            token=assign.token,
            kind="evaluate",
            version=assign.version,
            amount=assign.amount,
            samples=assign.amount,
            payload=scores,
            compute_seconds=time.perf_counter() - started,
            stats=stats,
        )


def epsilon_exponents(workers: int, spread: float) -> tuple[float, ...]:
    """Of each worker, ``1 + spread i / (N - 1)``: Horgan et al. 2018 (https://arxiv.org/abs/1803.00933), section 4.

    A lone worker's is 1.
    """
    return tuple(1.0 + spread * index / max(1, workers - 1) for index in range(workers))


def worker_factories(spec: WorkerSpec, workers: int) -> dict[str, Callable[[], Worker]]:
    """What makes each of a pool's workers, by name: ``env-0``, ``env-1``, ... Raises ValueError for less than one."""
    if workers < 1:
        raise ValueError(f"workers is {workers}: it must be at least 1")
    return {f"env-{index}": partial(Worker, index, spec) for index in range(workers)}
