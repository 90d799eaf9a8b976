"""Evaluation: a fixed number of whole episodes from each environment of a vector.

N is the number of environments in the vector, E of episodes.
"""

from __future__ import annotations

import numpy as np

from ..learners.encodings.history import History
from ..learners.learner import GREEDY, Exploration
from .environments.contract import VectorEnvironment
from .rollout import Act, choose_actions
from .work import Scores


def play_episodes(
    environment: VectorEnvironment,
    act: Act,
    episodes: int,
    generator: np.random.Generator,
    *,
    exploration: Exploration = GREEDY,
    act_on_all: bool = False,
) -> Scores:
    """Play ``episodes`` episodes to their ends.

    Episode i is the ``i // N``-th of environment ``i % N``. Which episodes count is thus fixed before the first step,
    so that short ones, of which there are more in the same time, weigh no more than long ones; and in a vector that
    plays a fixed task in each environment, row i of the scores belongs to task i.

    Args:
        environment: reset here; plays as long as its longest-lived environment needs.
        act: who plays.
        episodes: E, at least 1.
        generator: all randomness of the environment and of ``act``, which draw from it in turn.
        exploration: how far ``act`` strays from its greedy action.
        act_on_all: whether ``act`` sees the whole vector each time (see `rollout.choose_actions`).

    Returns:
        ``return [E] float32`` (undiscounted), ``length [E] int64`` (steps).

    Raises:
        ValueError: ``episodes`` is less than 1, or the environment refuses an action.
    """
    if episodes < 1:
        raise ValueError(f"episodes is {episodes}: it must be at least 1")
    envs = environment.num_envs
    slots = np.arange(envs)
    to_play = (episodes - slots + envs - 1) // envs
    scores: Scores = {"return": np.zeros(episodes, np.float32), "length": np.zeros(episodes, np.int64)}
    played = np.zeros(envs, np.int64)
    returns = np.zeros(envs)
    lengths = np.zeros(envs, np.int64)
    ended = np.zeros(envs, bool)
    history = History(environment.spec, envs)
    seen = history.add(environment.reset(generator), np.ones(envs, bool))
    while (playing := played < to_play).any():
        live = playing & ~ended
        action = choose_actions(act, environment, seen, live, exploration, generator, act_on_all=act_on_all)
        step = environment.step(action)
        returns += step.reward
        lengths += live
        seen = history.add(step.observation, ended)
        # Every environment that ended resets with the next step, whether its episodes still count or not.
        ended = step.terminated | step.truncated
        finished = ended & live
        rows = played[finished] * envs + slots[finished]
        scores["return"][rows] = returns[finished]
        scores["length"][rows] = lengths[finished]
        played += finished
        returns[finished] = 0
        lengths[finished] = 0
    return scores
