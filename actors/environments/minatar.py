"""MinAtar: five Atari games on a 10 x 10 board (Young and Tian 2019, https://arxiv.org/abs/1903.03176)."""

from __future__ import annotations

import logging
from importlib import import_module
from typing import Any

import numpy as np

from ...learners.encodings.spec import ArraySpec, EnvironmentSpec
from .config import MinAtarConfig
from .contract import Observation, Step, check_action

FIELD = "observation"
_PIXELS = 16
"""Of a board's cell on the screen."""


class MinAtarEnvironment:
    """N copies of one game, a `VectorEnvironment`. An observation is ``uint8 [C, 10, 10]``: what is where, 0 or 1.

    Args:
        config: which game, and how.
        num_envs: N.

    Raises:
        ValueError: MinAtar is not installed, or the game has more planes than the config.
    """

    def __init__(self, config: MinAtarConfig, num_envs: int) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}: there must be at least one environment")
        self._games = [_make(config) for _ in range(num_envs)]
        self._actions = _actions(config, self._games[0])
        self._spec = _spec(config, self._games[0])
        self._most_steps = config.max_episode_steps
        self._steps = np.zeros(num_envs, np.int64)
        self._ended: np.ndarray | None = None

    @property
    def spec(self) -> EnvironmentSpec:
        """Shapes and names."""
        return self._spec

    @property
    def num_envs(self) -> int:
        """N."""
        return len(self._games)

    def reset(self, stream: np.random.Generator) -> Observation:
        """Begin N new episodes, each copy seeded from ``stream``; a copy's later episodes go on from its seed."""
        for game, seed in zip(self._games, stream.integers(2**31, size=self.num_envs).tolist(), strict=True):
            game.seed(seed)
            _begin(game)
        self._steps[:] = 0
        self._ended = np.zeros(self.num_envs, np.bool_)
        return self._observe()

    def step(self, action: np.ndarray) -> Step:
        """Take ``action [N] int64``; an environment whose episode has ended begins a new one instead.

        Raises:
            ValueError: wrong shape or dtype, an action out of range, or no episode was begun.
        """
        ended = self._ended
        check_action(action, self._spec.num_actions, ended)
        assert ended is not None
        reward = np.zeros(self.num_envs, np.float32)
        terminated = np.zeros(self.num_envs, np.bool_)
        for index, game in enumerate(self._games):
            if ended[index]:
                _begin(game)
                self._steps[index] = 0
            else:
                reward[index], terminated[index] = game.act(self._actions[action[index]])
                self._steps[index] += 1
        truncated = (self._steps >= self._most_steps) & ~terminated & ~ended
        self._ended = terminated | truncated
        return Step(self._observe(), reward, terminated, truncated)

    def legal(self) -> None:
        """None: every action always is."""
        return

    def screen(self) -> np.ndarray:
        """See `HasScreen`: ``uint8 [160, 160, 3]``, each kind of thing in a colour of its own."""
        if self._ended is None:
            raise ValueError("there is no screen to show: begin the episodes with reset(stream)")
        board = self._games[0].state()
        # The channel that is last wins where two things are in one cell, as in MinAtar's own display.
        kind = (board * (1 + np.arange(board.shape[2]))).max(axis=2)
        screen: np.ndarray = _colours(board.shape[2])[kind].repeat(_PIXELS, 0).repeat(_PIXELS, 1)
        return screen

    def close(self) -> None:
        """Nothing is held outside this process's memory."""

    def _observe(self) -> Observation:
        boards = np.zeros((self.num_envs, *self._spec.observation[FIELD].shape), np.uint8)
        for board, game in zip(boards, self._games, strict=True):
            state = game.state()
            board[: state.shape[2]] = state.transpose(2, 0, 1)
        return {FIELD: boards}


def minatar_spec(config: MinAtarConfig) -> EnvironmentSpec:
    """What a network is told of the game. Raises ValueError as `MinAtarEnvironment`."""
    return _spec(config, _make(config))


def _spec(config: MinAtarConfig, game: Any) -> EnvironmentSpec:
    height, width, own = game.state_shape()
    planes = config.planes or own
    if planes < own:
        raise ValueError(f"environment.planes is {planes}, and {config.game} has {own}: 10 are enough for every game")
    observation = {FIELD: ArraySpec((planes, height, width), "uint8")}
    return EnvironmentSpec(f"minatar {config.game}", observation, len(_actions(config, game)))


def _actions(config: MinAtarConfig, game: Any) -> list[int]:
    return list(range(game.num_actions())) if config.full_action_space else list(game.minimal_action_set())


def _begin(game: Any) -> None:
    game.reset()
    # A new episode repeats no action of the last one.
    game.last_action = 0


def _make(config: MinAtarConfig) -> Any:
    # It tells the root logger where matplotlib, which nobody needs here, is not installed.
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        module = import_module("minatar.environment")
    except ImportError as error:
        raise ValueError(
            "environment.kind minatar needs MinAtar, which is not installed: pip install isogon[minatar]"
        ) from error
    finally:
        logging.disable(disabled)
    return module.Environment(config.game, config.sticky_actions, config.difficulty_ramping)


def _colours(kinds: int) -> np.ndarray:
    """``uint8 [kinds + 1, 3]``: black for nothing, then from blue over green to red."""
    place = np.linspace(0.0, 1.0, kinds)
    red, green, blue = np.clip(2 * place - 0.6, 0, 1), 1 - np.abs(2 * place - 1), np.clip(1.2 - 2 * place, 0.1, 1)
    shades = np.stack([red, 0.25 + 0.75 * green, blue], axis=1)
    return np.concatenate([np.zeros((1, 3)), 255 * shades]).astype(np.uint8)
