"""Atari: the vector of emulators, and the traps of it."""

from __future__ import annotations

import numpy as np
import pytest
from ale_py.vector_env import AtariVectorEnv

from isogon.actors.environments import AtariConfig, VectorEnvironment, build_environment, environment_spec
from isogon.actors.environments.atari import AtariEnvironment
from isogon.actors.environments.limits import episode_limit
from isogon.actors.environments.screens import HasScreen
from isogon.learners.randomness import stream

from ..actors.environment_suite import EnvironmentSuite

FIRE = 1


def played(environment: VectorEnvironment, steps: int, seed: int = 0, actions: int = 5) -> list[np.ndarray]:
    frames = [environment.reset(stream(seed, "environment"))["observation"]]
    generator = stream(actions, "actions")
    for _ in range(steps):
        action = generator.integers(environment.spec.num_actions, size=environment.num_envs)
        frames.append(environment.step(action).observation["observation"])
    return frames


class TestAtari(EnvironmentSuite):
    def make(self) -> VectorEnvironment:
        return build_environment(AtariConfig(game="pong", max_episode_frames=100), "train", 3)


def test_a_spec_is_of_one_frame_and_a_history_of_four() -> None:
    spec = environment_spec(AtariConfig(game="breakout"))
    assert (spec.observation["observation"].shape, spec.observation["observation"].dtype) == ((84, 84), "uint8")
    assert (spec.num_actions, spec.history, spec.has_legal) == (4, 4, False)
    assert environment_spec(AtariConfig(game="breakout", full_action_space=True)).num_actions == 18


def test_frames_are_those_of_the_emulators_own_stack() -> None:
    """Single frames, put together by us, are what the emulator would have stacked itself."""
    environment = AtariEnvironment(AtariConfig(game="pong", sticky_actions=0.0), 2)
    frames = played(environment, 30)
    stacked = AtariVectorEnv(
        "pong", 2, stack_num=4, noop_max=0, reward_clipping=False, use_fire_reset=False, num_threads=1
    )
    seen: np.ndarray
    seen, _ = stacked.reset(seed=stream(0, "environment").integers(2**31 - 1, size=2))
    generator = stream(5, "actions")
    for step in range(30):
        seen, *_ = stacked.step(generator.integers(6, size=2))
        if step >= 4:
            np.testing.assert_array_equal(seen, np.stack(frames[step - 2 : step + 2], axis=1))


def test_rewards_are_not_clipped() -> None:
    """The emulator clips by default; a pellet of Ms. Pac-Man is worth ten points."""
    environment = build_environment(AtariConfig(game="ms_pacman"), "train", 2)
    environment.reset(stream(0, "environment"))
    generator = stream(0, "actions")
    rewards = [environment.step(generator.integers(9, size=2)).reward for _ in range(120)]
    assert np.max(rewards) >= 10


def test_actions_stick_by_default() -> None:
    sticky, exact = (
        np.stack(played(AtariEnvironment(AtariConfig(game="pong", **how), 4), 40))
        for how in ({}, {"sticky_actions": 0.0})
    )
    assert (sticky != exact).any()


def test_lives_and_no_ops_change_nothing_unless_asked_for() -> None:
    """With Dopamine's protocol an episode of Breakout lasts over lost lives; without fire nothing moves."""
    config = AtariConfig(game="breakout", sticky_actions=0.0)
    for lives_end, ends in ((False, 1), (True, 5)):
        environment = AtariEnvironment(config.model_copy(update={"episodic_life": lives_end}), 1)
        environment.reset(stream(0, "environment"))
        ended = 0
        for _ in range(1500):
            step = environment.step(np.array([FIRE]))
            ended += int(step.terminated[0])
            if ended == ends:
                break
        assert ended == ends
        assert not step.truncated[0]


def test_an_episode_that_is_cut_off_is_truncated_after_its_frames() -> None:
    config = AtariConfig(game="pong", max_episode_frames=42)
    environment = AtariEnvironment(config, 2)
    environment.reset(stream(0, "environment"))
    steps = [environment.step(np.zeros(2, np.int64)) for _ in range(24)]
    assert [bool(step.truncated[0]) for step in steps].index(True) == 10
    assert not any(step.terminated.any() for step in steps)
    assert episode_limit(config).steps == 11
    assert episode_limit(AtariConfig(game="pong")).steps == 27_000


def test_threads_do_not_change_what_is_played() -> None:
    one, two = (
        np.stack(played(AtariEnvironment(AtariConfig(game="pong", threads=threads), 5), 60)) for threads in (1, 3)
    )
    np.testing.assert_array_equal(one, two)


def test_the_screen_shows_what_is_played() -> None:
    """The other emulator goes along with environment 0: its picture in grey, made small, is the observation."""
    environment = AtariEnvironment(AtariConfig(game="breakout", max_episode_frames=200), 3, with_screen=True)
    assert isinstance(environment, HasScreen)
    with pytest.raises(ValueError, match="no screen to show"):
        environment.screen()
    frame = environment.reset(stream(3, "environment"))["observation"][0]
    generator = stream(0, "actions")
    for _ in range(120):
        screen = environment.screen()
        assert (screen.shape, screen.dtype.name) == ((210, 160, 3), "uint8")
        grey = screen @ np.array([0.2989, 0.587, 0.114])
        # The mean brightness of parts of the screen: the emulator makes it small by areas.
        large = grey[: 210 // 7 * 7].reshape(7, 30, 4, 40).mean(axis=(1, 3))
        small = frame.reshape(7, 12, 4, 21).mean(axis=(1, 3))
        np.testing.assert_allclose(large, small, atol=3.0)
        frame = environment.step(generator.integers(4, size=3)).observation["observation"][0]
    assert len(np.unique(screen.reshape(-1, 3), axis=0)) > 4


@pytest.mark.parametrize(
    ("game", "message"),
    [("pnog", "did you mean pong"), ("Breakout", "did you mean breakout"), ("chess", "is not a game of ale-py's")],
)
def test_an_unknown_game_is_refused_and_the_nearest_offered(game: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        environment_spec(AtariConfig(game=game))


def test_no_environments_are_refused() -> None:
    with pytest.raises(ValueError, match="num_envs is 0"):
        AtariEnvironment(AtariConfig(game="pong"), 0)
