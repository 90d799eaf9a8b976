"""Atari games by the Arcade Learning Environment's vector of emulators, which is in C++ (`ale_py.AtariVectorEnv`).

The defaults are the protocol of Machado et al. 2018 (https://arxiv.org/abs/1709.06009) as Dopamine has it: sticky
actions, no random no-ops, no episode's end at a lost life, 30 minutes of play at most, rewards as the game gives them.
"""

from __future__ import annotations

import difflib
import warnings
from typing import Any

import numpy as np

from ...learners.encodings.spec import ArraySpec, EnvironmentSpec
from .config import AtariConfig
from .contract import Observation, Step, check_action

FIELD = "observation"
_SIZE = 84
_HISTORY = 4
_SCREEN = (210, 160)


class AtariEnvironment:
    """N copies of one game, a `VectorEnvironment`. An observation is one frame, ``uint8 [84, 84]`` in grey.

    A network sees the last four (``spec.history``): the emulator is asked for single frames, so that whoever keeps them
    keeps each once. Rewards are never clipped here.

    Args:
        config: which game, and how.
        num_envs: N.
        with_screen: run another emulator beside environment 0, for `screen`: it doubles that environment's cost.

    Raises:
        ValueError: no such game (the nearest one is named), or ale-py is not installed.
    """

    def __init__(self, config: AtariConfig, num_envs: int, *, with_screen: bool = False) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}: there must be at least one environment")
        self._spec = atari_spec(config)
        self._num_envs = num_envs
        self._vector = _emulators(config, num_envs, img_height=_SIZE, img_width=_SIZE)
        self._in_colours = (
            _emulators(config, 1, img_height=_SCREEN[0], img_width=_SCREEN[1], grayscale=False) if with_screen else None
        )
        self._screen: np.ndarray | None = None
        self._ended: np.ndarray | None = None

    @property
    def spec(self) -> EnvironmentSpec:
        """Shapes and names."""
        return self._spec

    @property
    def num_envs(self) -> int:
        """N."""
        return self._num_envs

    def reset(self, stream: np.random.Generator) -> Observation:
        """Begin N new episodes, each emulator seeded from ``stream``; its later episodes go on from its seed."""
        seeds = stream.integers(2**31 - 1, size=self._num_envs)
        frames, _ = self._vector.reset(seed=seeds)
        if self._in_colours is not None:
            self._screen = self._in_colours.reset(seed=seeds[:1])[0][0, 0]
        self._ended = np.zeros(self._num_envs, np.bool_)
        return {FIELD: frames[:, 0]}

    def step(self, action: np.ndarray) -> Step:
        """Take ``action [N] int64``; an environment whose episode has ended begins a new one instead.

        Raises:
            ValueError: wrong shape or dtype, an action out of range, or no episode was begun.
        """
        ended = self._ended
        check_action(action, self._spec.num_actions, ended)
        assert ended is not None
        # The emulator is asked for an action also where it will begin anew.
        action = np.where(ended, 0, action)
        frames, reward, terminated, truncated, _ = self._vector.step(action)
        if self._in_colours is not None:
            self._screen = self._in_colours.step(action[:1])[0][0, 0]
        self._ended = terminated | truncated
        return Step({FIELD: frames[:, 0]}, reward.astype(np.float32), terminated, truncated & ~terminated)

    def legal(self) -> None:
        """None: every action always is."""
        return

    def screen(self) -> np.ndarray:
        """See `HasScreen`: ``uint8 [210, 160, 3]``. Raises ValueError where it was made without a screen."""
        if self._screen is None:
            raise ValueError("there is no screen to show: make the environment with_screen and reset it")
        return self._screen

    def close(self) -> None:
        """Free the emulators."""
        self._vector.close()
        if self._in_colours is not None:
            self._in_colours.close()


def atari_spec(config: AtariConfig) -> EnvironmentSpec:
    """What a network is told of the game. Raises ValueError as `AtariEnvironment`."""
    actions = 18 if config.full_action_space else len(_emulators(config, 1).ale.get_action_set())
    return EnvironmentSpec(
        f"atari {config.game}", {FIELD: ArraySpec((_SIZE, _SIZE), "uint8")}, actions, history=_HISTORY
    )


def _emulators(config: AtariConfig, num_envs: int, **picture: Any) -> Any:
    try:
        from ale_py import roms
        from ale_py.vector_env import AtariVectorEnv
    except ImportError as error:
        raise ValueError(
            "environment.kind atari needs ale-py, which is not installed: pip install isogon[atari]"
        ) from error
    games = roms.get_all_rom_ids()
    if config.game not in games:
        near = difflib.get_close_matches(config.game.lower(), games, n=1, cutoff=0.4)
        nearest = f"did you mean {near[0]}? " if near else ""
        raise ValueError(
            f"environment.game {config.game!r} is not a game of ale-py's: {nearest}Names are as in ms_pacman; "
            f"there are {len(games)}"
        )
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        return AtariVectorEnv(
            config.game,
            num_envs,
            num_threads=config.threads,
            max_num_frames_per_episode=config.max_episode_frames,
            repeat_action_probability=config.sticky_actions,
            full_action_space=config.full_action_space,
            stack_num=1,
            frameskip=config.frame_skip,
            noop_max=config.noop_max,
            episodic_life=config.episodic_life,
            reward_clipping=False,
            use_fire_reset=config.fire_reset,
            **picture,
        )
