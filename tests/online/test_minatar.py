from __future__ import annotations

import numpy as np
import pytest
from minatar import Environment

from isogon.actors.environments import MinAtarConfig, VectorEnvironment, build_environment, environment_spec
from isogon.actors.environments.limits import episode_limit
from isogon.actors.environments.minatar import MinAtarEnvironment
from isogon.actors.environments.screens import HasScreen
from isogon.learners.randomness import stream

from ..actors.environment_suite import EnvironmentSuite

GAMES = {"asterix": (4, 5), "breakout": (4, 3), "freeway": (7, 3), "seaquest": (10, 6), "space_invaders": (6, 4)}
"""Channels, and actions that do something (Young and Tian 2019)."""


class TestBreakout(EnvironmentSuite):
    def make(self) -> VectorEnvironment:
        return build_environment(MinAtarConfig(game="breakout"), "train", 3)


class TestFreewayCutOff(EnvironmentSuite):
    def make(self) -> VectorEnvironment:
        return build_environment(MinAtarConfig(game="freeway", max_episode_steps=20), "train", 2)


@pytest.mark.parametrize("game", GAMES)
def test_channels_and_actions(game: str) -> None:
    channels, actions = GAMES[game]
    spec = environment_spec(MinAtarConfig(game=game))
    assert spec.observation["observation"].shape == (channels, 10, 10)
    assert (spec.observation["observation"].dtype, spec.num_actions, spec.history) == ("uint8", actions, 1)
    assert environment_spec(MinAtarConfig(game=game, full_action_space=True)).num_actions == 6


def test_it_is_minatar_itself() -> None:
    """The same games as MinAtar's own environment gives, over several episodes, sticky actions and all."""
    environment = MinAtarEnvironment(MinAtarConfig(game="breakout"), 2)
    environment.reset(stream(4, "environment"))
    seeds = stream(4, "environment").integers(2**31, size=2).tolist()
    own = [Environment("breakout", sticky_action_prob=0.1) for _ in seeds]
    for game, seed in zip(own, seeds, strict=True):
        game.seed(seed)
        game.reset()
    generator = stream(0, "actions")
    ended = np.zeros(2, bool)
    endings = 0
    for _ in range(300):
        action = generator.integers(3, size=2)
        step = environment.step(action)
        for index, game in enumerate(own):
            if ended[index]:
                game.reset()
                game.last_action = 0
                reward, over = 0, False
            else:
                reward, over = game.act([0, 1, 3][action[index]])
            assert (step.reward[index], step.terminated[index]) == (reward, over)
            np.testing.assert_array_equal(step.observation["observation"][index], game.state().transpose(2, 0, 1))
        ended = step.terminated
        endings += int(ended.sum())
    assert endings > 4


def test_long_episodes_are_cut_off() -> None:
    config = MinAtarConfig(game="freeway", max_episode_steps=30)
    environment = MinAtarEnvironment(config, 1)
    environment.reset(stream(0, "environment"))
    cut = [bool(environment.step(np.zeros(1, np.int64)).truncated[0]) for _ in range(62)]
    assert [index for index, each in enumerate(cut) if each] == [29, 60]
    assert episode_limit(config).steps == 30


def test_the_screen_has_a_colour_for_each_kind_of_thing() -> None:
    environment = MinAtarEnvironment(MinAtarConfig(game="breakout"), 1)
    assert isinstance(environment, HasScreen)
    with pytest.raises(ValueError, match="no screen to show"):
        environment.screen()
    board = environment.reset(stream(0, "environment"))["observation"][0]
    screen = environment.screen()
    assert (screen.shape, screen.dtype.name) == ((160, 160, 3), "uint8")
    cells = screen[::16, ::16]
    np.testing.assert_array_equal(cells.any(axis=2), board.any(axis=0))
    kinds = (board * (1 + np.arange(4))[:, None, None]).max(axis=0)
    assert len(np.unique(cells.reshape(-1, 3), axis=0)) == len(np.unique(kinds))


def test_an_unknown_game_is_refused() -> None:
    with pytest.raises(ValueError, match="game"):
        MinAtarConfig(game="pong")


def test_games_with_other_planes_look_alike_when_they_are_filled_up() -> None:
    narrow, wide = (MinAtarEnvironment(MinAtarConfig(game="asterix", planes=planes), 2) for planes in (None, 10))
    assert wide.spec.observation["observation"].shape == (10, 10, 10)
    own, filled = (each.reset(stream(0, "environment"))["observation"] for each in (narrow, wide))
    np.testing.assert_array_equal(filled[:, :4], own)
    assert not filled[:, 4:].any()
    with pytest.raises(ValueError, match=r"environment.planes is 4, and seaquest has 10"):
        environment_spec(MinAtarConfig(game="seaquest", planes=4))
