"""How well the players without learning do: what a learnt player's returns are compared with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ....learners.learner import GREEDY
from ..contract import Player
from .environment import WordleEnvironment
from .players import FilteringPlayer, MixturePlayer
from .vocabulary import MAX_GUESSES, Indices, Vocabulary

_BOARDS_AT_ONCE = 512


def play_returns(
    player: Player, vocabulary: Vocabulary, answers: Indices, games: int, stream: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Returns ``[answers, games] float32`` of a player that plays each answer ``games`` times, any word allowed.

    Raises:
        ValueError: ``games`` is less than 1.
    """
    if games < 1:
        raise ValueError(f"games is {games}: every answer must be played at least once")
    played = np.repeat(answers, games)
    returns = np.empty(len(played), dtype=np.float32)
    for start in range(0, len(played), _BOARDS_AT_ONCE):
        chunk = played[start : start + _BOARDS_AT_ONCE]
        returns[start : start + len(chunk)] = _play_once(player, WordleEnvironment(vocabulary, chunk), stream)
    return returns.reshape(len(answers), games)


def filter_returns(
    vocabulary: Vocabulary, answers: Indices, games: int, stream: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Returns ``[answers, games] float32`` of perfect filtering, which knows the whole list."""
    return play_returns(FilteringPlayer(vocabulary), vocabulary, answers, games, stream)


def data_policy_returns(
    vocabulary: Vocabulary, answers: Indices, games: int, smart_share: float, stream: np.random.Generator
) -> npt.NDArray[np.float32]:
    """Returns ``[answers, games] float32`` of the mixture that offline games come from, knowing the whole list here."""
    return play_returns(MixturePlayer(vocabulary, smart_share), vocabulary, answers, games, stream)


def _play_once(player: Player, environment: WordleEnvironment, stream: np.random.Generator) -> npt.NDArray[np.float32]:
    observation = environment.reset(stream)
    returns = np.zeros(environment.num_envs, dtype=np.float32)
    running = np.ones(environment.num_envs, dtype=np.bool_)
    for _ in range(MAX_GUESSES):
        step = environment.step(player.act(observation, environment.legal(), GREEDY, stream))
        observation = step.observation
        returns += np.where(running, step.reward, np.float32(0))
        running &= ~step.terminated
        if not running.any():
            break
    return returns
