from __future__ import annotations

import numpy as np
import pytest

from isogon.actors.evaluation import play_episodes
from isogon.actors.rollout import Rollout
from isogon.learners.learner import GREEDY, Exploration
from isogon.learners.randomness import stream

from .toys import Corridor, Shift


def test_row_i_is_the_task_of_environment_i() -> None:
    lengths = (3, 1, 4, 2, 5)
    scores = play_episodes(Corridor(5, lengths=lengths), Shift().act, 5, stream(0, "evaluate"))
    assert scores["length"].tolist() == list(lengths)
    assert scores["return"].dtype == np.float32
    # Shift plays 0, 1, 2, ... in turn, and less than one comes on top of each.
    least = np.array([sum(step % 4 for step in range(length)) for length in lengths])
    assert ((scores["return"] >= least) & (scores["return"] < least + np.array(lengths))).all()


@pytest.mark.parametrize("episodes", [1, 2, 3, 7, 12])
def test_short_episodes_weigh_no_more_than_long_ones(episodes: int) -> None:
    lengths = (1, 9, 3)
    scores = play_episodes(Corridor(3, lengths=lengths), Shift().act, episodes, stream(0, "evaluate"))
    assert scores["length"].tolist() == [lengths[episode % 3] for episode in range(episodes)]


@pytest.mark.parametrize("act_on_all", [False, True])
def test_scores_are_those_of_the_same_games_in_a_rollout(act_on_all: bool) -> None:
    episodes, envs = 17, 4

    def always_three(observation: dict[str, np.ndarray], *_: object) -> np.ndarray:
        return np.full(len(observation["length"]), 3)

    environment = Corridor(envs, has_legal=True)
    scores = play_episodes(environment, always_three, episodes, stream(3, "games"), act_on_all=act_on_all)  # type: ignore[arg-type]
    rollout = Rollout(Corridor(envs, has_legal=True), stream(3, "games"))
    columns = rollout.run(always_three, 400, GREEDY, stream(3, "unused"), 1)  # type: ignore[arg-type]
    returns: list[list[float]] = [[] for _ in range(envs)]
    for slot in range(envs):
        ends = np.flatnonzero(columns["terminated"][:, slot] | columns["truncated"][:, slot])
        totals = np.cumsum(columns["reward"][:, slot], dtype=np.float64)[ends]
        returns[slot] = np.diff(totals, prepend=0).tolist()
    expected = [returns[episode % envs][episode // envs] for episode in range(episodes)]
    np.testing.assert_allclose(scores["return"], expected, rtol=1e-6)


def test_it_strays_as_it_is_told_and_otherwise_not_at_all() -> None:
    def returns(epsilon: float) -> np.ndarray:
        exploration = Exploration(epsilon=epsilon)
        # One state, in which Shift plays 0 and a drawn action is 1.5 on the average.
        environment = Corridor(50, lengths=(1,) * 50)
        return play_episodes(environment, Shift().act, 2000, stream(0, "e"), exploration=exploration)["return"]

    assert returns(0.0).max() < 1
    strayed = (returns(0.4) >= 1).mean()
    # Three of four drawn actions are not 0; four standard deviations.
    assert strayed == pytest.approx(0.3, abs=4 * (0.3 * 0.7 / 2000) ** 0.5)


def test_it_wants_an_episode() -> None:
    with pytest.raises(ValueError, match="episodes is 0"):
        play_episodes(Corridor(2), Shift().act, 0, stream(0, "evaluate"))
