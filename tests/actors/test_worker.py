from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest

from isogon.actors.environments import Observation
from isogon.actors.work import PolicyState
from isogon.actors.worker import Worker, WorkerSpec, epsilon_exponents
from isogon.learners.learner import GREEDY, Exploration
from isogon.schedulers.events import Assign, Token, WorkKind

from .toys import ACTIONS, Corridor, Shift, corridor_spec, weights

SPEC = corridor_spec()


def piece(sequence: int, amount: int = 30, kind: WorkKind = "rollout", version: int = 1) -> Assign:
    return Assign("env-0", Token(1, "env-0", sequence), kind, amount, version)


def test_an_evaluation_is_greedy_and_leaves_the_rollouts_alone() -> None:
    plain, interrupted = Worker(0, SPEC), Worker(0, SPEC)
    plain.run(piece(0), weights(1))
    interrupted.run(piece(0), weights(1))
    scores = interrupted.run(piece(1, 40, "evaluate"), weights(1, epsilon=1.0))
    greedy = Worker(9, SPEC).run(piece(1, 40, "evaluate"), PolicyState(1, weights(1).tensors, GREEDY))
    for name in ("return", "length"):
        np.testing.assert_array_equal(scores.payload[name], greedy.payload[name])
    following = plain.run(piece(2), weights(1)).payload
    for name, array in interrupted.run(piece(2), weights(1)).payload.items():
        np.testing.assert_array_equal(array, following[name], err_msg=name)


def test_an_evaluation_strays_as_its_spec_says() -> None:
    straying = replace(SPEC, evaluation_exploration=Exploration(epsilon=0.5))
    greedy, strayed = (Worker(0, spec).run(piece(1, 40, "evaluate"), weights(1)) for spec in (SPEC, straying))
    assert (greedy.payload["return"] != strayed.payload["return"]).mean() > 0.5


def test_what_is_played_hangs_on_the_seed_the_worker_and_the_work_alone() -> None:
    def reward(worker: int, sequence: int, seed: int = 7) -> list[float]:
        spec = replace(SPEC, seed=seed)
        return np.ravel(Worker(worker, spec).run(piece(sequence), weights(1)).payload["reward"]).tolist()

    games = [reward(0, 0), reward(1, 0), reward(0, 1), reward(0, 0, seed=8)]
    assert reward(0, 0) == games[0]
    assert all(games[i] != games[j] for i in range(4) for j in range(i))
    returns = [Worker(0, SPEC).run(piece(s, 20, "evaluate"), weights(1)).payload["return"].tolist() for s in (0, 1)]
    assert returns[0] != returns[1]


def test_stats_sum_up_the_episodes_that_ended() -> None:
    worker = Worker(0, SPEC)
    results = [worker.run(piece(sequence, 60), weights(1)) for sequence in range(3)]
    ended = sum(int((r.payload["terminated"] | r.payload["truncated"]).sum()) for r in results)
    assert sum(r.stats["episodes"] for r in results) == ended > 10
    assert all(0 <= r.stats["seconds_acting"] <= r.compute_seconds for r in results)
    scores = worker.run(piece(3, 11, "evaluate"), weights(1))
    assert scores.stats["episodes"] == 11
    assert scores.stats["return_sum"] == pytest.approx(float(scores.payload["return"].sum()), rel=1e-5)
    assert scores.stats["length_sum"] == scores.payload["length"].sum()


def test_episode_numbers_are_not_used_again_after_a_new_beginning() -> None:
    worker = Worker(0, SPEC)
    first = worker.run(piece(0), weights(1)).payload["episode"]
    worker.reset()
    second = worker.run(piece(1), weights(1)).payload["episode"]
    assert second.min() > first.max()


def test_legal_actions_are_recorded_when_asked_for() -> None:
    spec = replace(corridor_spec(has_legal=True), record_legal=True)
    assert Worker(0, spec).run(piece(0), weights(1)).payload["legal"].shape == (11, 3, 4)


def test_environments_are_made_for_their_purpose_and_closed() -> None:
    made: list[tuple[str, int, Corridor]] = []

    def make(purpose: str, envs: int) -> Corridor:
        made.append((purpose, envs, Corridor(envs)))
        return made[-1][2]

    worker = Worker(0, WorkerSpec(make, Shift, num_envs=2, seed=0, evaluation_envs=5, evaluation_purpose="seen"))
    for sequence in range(2):
        worker.run(piece(sequence, kind="evaluate"), weights(1))
    assert [(purpose, envs) for purpose, envs, _ in made] == [("train", 2), ("seen", 5)]
    worker.close()
    assert all(environment.closed for _, _, environment in made)


def test_what_it_refuses() -> None:
    worker = Worker(0, SPEC)
    with pytest.raises(ValueError, match="asks for version 2, and the weights are 1's"):
        worker.run(piece(0, version=2), weights(1))
    with pytest.raises(ValueError, match="of kind 'train'"):
        worker.run(piece(0, kind="train"), weights(1))
    with pytest.raises(ValueError, match="num_envs is 0"):
        replace(SPEC, num_envs=0)


def test_each_piece_is_played_with_the_version_it_asks_for() -> None:
    """The toy's weights say which action it takes: the position plus the version."""
    worker = Worker(0, SPEC)
    for version in (1, 2, 3):
        columns = worker.run(piece(version, version=version), weights(version, epsilon=0.0)).payload
        position = columns["observation/position"][:-1, :, 0].astype(np.int64)
        expected = (position + version) % ACTIONS
        np.testing.assert_array_equal(columns["action"][columns["valid"]], expected[columns["valid"]])
        assert (columns["version"] == version).all()


def test_a_slow_machine_is_emulated_for_the_worker_that_it_is_meant_for() -> None:
    spec = replace(SPEC, seconds_per_step=(0.0, 0.01))
    seconds = [Worker(index, spec).run(piece(0, 40), weights(1)).compute_seconds for index in range(3)]
    assert seconds[1] >= 0.4
    assert max(seconds[0], seconds[2]) < 0.4


class Recording(Shift):
    """Plays, and notes how far from greedy it is asked to play."""

    seen: ClassVar[list[float]] = []

    def act(
        self,
        observation: Observation,
        legal: np.ndarray | None,
        exploration: Exploration,
        generator: np.random.Generator,
    ) -> np.ndarray:
        Recording.seen.append(exploration.epsilon)
        return super().act(observation, legal, exploration, generator)


def test_workers_explore_by_powers_of_one_epsilon() -> None:
    assert epsilon_exponents(3, 7.0) == (1.0, 4.5, 8.0)
    assert epsilon_exponents(1, 7.0) == (1.0,)
    spec = replace(SPEC, policy=Recording, epsilon_exponents=(1.0, 3.0))
    for index, expected in enumerate((0.5, 0.125, 0.5)):
        worker = Worker(index, spec)
        Recording.seen.clear()
        worker.run(piece(0), weights(1, epsilon=0.5))
        assert set(Recording.seen) == {expected}
        Recording.seen.clear()
        worker.run(piece(1, 4, "evaluate"), weights(1, epsilon=0.5))
        assert set(Recording.seen) == {0.0}
