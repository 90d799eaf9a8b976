from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from isogon.actors.environments.gymnasium_vector import UNLIMITED_EPISODE_STEPS, GymnasiumEnvironment, gymnasium_spec
from isogon.learners.encodings.spec import ArraySpec
from isogon.learners.randomness import stream

from .environment_suite import EnvironmentSuite

MIXED = "isogon-tests/Mixed-v0"
TUPLE = "isogon-tests/Tuple-v0"


class Mixed(gymnasium.Env[Any, Any]):
    """Counts to three, and shows the action it was given; actions begin at 5."""

    action_space = spaces.Discrete(3, start=5)
    observation_space: spaces.Space[Any] = spaces.Dict(
        {
            "pixels": spaces.Box(0, 255, (2, 2), np.uint8),
            "position": spaces.Box(-np.inf, np.inf, (1,), np.float64),
            "room": spaces.Discrete(4, start=-1),
        }
    )

    def __init__(self) -> None:
        self.count = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.count = 0
        return self._observe(0), {}

    def step(self, action: int) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action)
        self.count += 1
        return self._observe(int(action)), 0.5, False, self.count == 3, {}

    def _observe(self, action: int) -> dict[str, Any]:
        return {
            "pixels": np.full((2, 2), action, dtype=np.uint8),
            "position": self.np_random.normal(size=1),
            "room": self.count - 1,
        }


class TupleObservation(Mixed):
    observation_space = spaces.Tuple((spaces.Discrete(2), spaces.Discrete(2)))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register(MIXED, entry_point=lambda **kwargs: Mixed(**kwargs))
    gymnasium.register(TUPLE, entry_point=lambda **kwargs: TupleObservation(**kwargs))
    yield
    gymnasium.registry.pop(MIXED)
    gymnasium.registry.pop(TUPLE)


class TestCartPole(EnvironmentSuite):
    def make(self) -> GymnasiumEnvironment:
        return GymnasiumEnvironment("CartPole-v1", {}, 3)


class TestFrozenLake(EnvironmentSuite):
    def make(self) -> GymnasiumEnvironment:
        return GymnasiumEnvironment("FrozenLake-v1", {"is_slippery": True}, 4)


class TestMixed(EnvironmentSuite):
    def make(self) -> GymnasiumEnvironment:
        return GymnasiumEnvironment(MIXED, {}, 2)


def test_agrees_with_the_single_environment() -> None:
    environment = GymnasiumEnvironment("CartPole-v1", {}, 2)
    observation = environment.reset(stream(4, "environment"))
    seeds = stream(4, "environment").integers(2**31, size=2)
    single = gymnasium.make("CartPole-v1")
    expected, _ = single.reset(seed=int(seeds[1]))
    generator = stream(0, "actions")
    ended = False
    for _ in range(50):
        np.testing.assert_array_equal(observation["observation"][1], np.asarray(expected, dtype=np.float32))
        action = generator.integers(2, size=2)
        step = environment.step(action)
        if ended:
            expected, _ = single.reset()
            ended = False
        else:
            expected, reward, ended, _, _ = single.step(action[1])
            assert step.reward[1] == reward
        assert step.terminated[1] == ended
        observation = step.observation
    single.close()
    environment.close()


def test_fields_dtypes_one_hot_and_the_first_action() -> None:
    environment = GymnasiumEnvironment(MIXED, {}, 2)
    assert environment.spec == gymnasium_spec(MIXED, {})
    assert environment.spec.num_actions == 3
    assert dict(environment.spec.observation) == {
        "pixels": ArraySpec((2, 2), "uint8"),
        "position": ArraySpec((1,), "float32"),
        "room": ArraySpec((4,), "float32"),
    }
    first = environment.reset(stream(0, "environment"))
    np.testing.assert_array_equal(first["room"], [[1, 0, 0, 0]] * 2)
    steps = [environment.step(np.array([0, 2])) for _ in range(3)]
    np.testing.assert_array_equal(steps[0].observation["pixels"][:, 0, 0], [5, 7])
    np.testing.assert_array_equal(steps[1].observation["room"], [[0, 0, 1, 0]] * 2)
    assert steps[2].truncated.all()
    assert not steps[2].terminated.any()
    environment.close()


@pytest.mark.parametrize(
    ("env_id", "kwargs", "message"),
    [
        ("CartPoel-v1", {}, r"'CartPoel-v1' is not registered with Gymnasium: did you mean CartPole-v1\?"),
        ("CartPole-v77", {}, r"did you mean CartPole-v[01]\?"),
        ("qqqqq-v1", {}, r"'qqqqq-v1' is not registered with Gymnasium: Ids that a package registers"),
        ("not an id", {}, r"'not an id' with kwargs {} cannot be made: Malformed environment ID"),
        ("no_such_module:X-v0", {}, r"cannot be made: No module named 'no_such_module'"),
        ("a:b:c", {}, r"'a:b:c' with kwargs {} cannot be made"),
        ("CartPole-v1", {"wheels": 4}, r"with kwargs {'wheels': 4} cannot be made: .*unexpected keyword argument"),
        ("Pendulum-v1", {}, r"'gymnasium Pendulum-v1' has the action space Box.*: only Discrete is supported"),
        (TUPLE, {}, r"observation space Tuple.* is not supported: Box, Discrete or a Dict of those are"),
    ],
)
def test_what_cannot_be_played_is_refused_in_one_line(env_id: str, kwargs: dict[str, Any], message: str) -> None:
    for make in (lambda: GymnasiumEnvironment(env_id, kwargs, 2), lambda: gymnasium_spec(env_id, kwargs)):
        with pytest.raises(ValueError, match=message) as caught:
            make()
        assert "\n" not in str(caught.value)


def test_what_gymnasium_warns_of_is_shown_and_never_raised() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("error")
        assert gymnasium_spec("CartPole-v0", {}).num_actions == 2
    assert any("CartPole-v0 is out of date" in str(warning.message) for warning in shown)


def test_no_environments() -> None:
    with pytest.raises(ValueError, match="num_envs is 0"):
        GymnasiumEnvironment("CartPole-v1", {}, 0)


def test_an_episode_without_a_limit_is_cut_off() -> None:
    vector = GymnasiumEnvironment("CliffWalking-v1", {}, 1, max_episode_steps=7)
    vector.reset(stream(0, "test"))
    cut = [bool(vector.step(np.zeros(1, np.int64)).truncated[0]) for _ in range(8)]
    assert cut == [False] * 6 + [True, False]
    unlimited = GymnasiumEnvironment("CliffWalking-v1", {}, 1)
    unlimited.reset(stream(0, "test"))
    lengths = [bool(unlimited.step(np.zeros(1, np.int64)).truncated[0]) for _ in range(UNLIMITED_EPISODE_STEPS)]
    assert lengths.index(True) == UNLIMITED_EPISODE_STEPS - 1
    vector.close()
    unlimited.close()


class _Unfinished(gymnasium.Env[np.ndarray, np.int64]):
    def __init__(self) -> None:
        raise AssertionError("no floor yet")


class _Blank(gymnasium.Env[np.ndarray, np.int64]):
    observation_space = gymnasium.spaces.Box(0, 1, (0,))
    action_space = gymnasium.spaces.Discrete(2)


@pytest.mark.parametrize(
    ("kind", "message"), [(_Unfinished, "cannot be made: AssertionError: no floor yet"), (_Blank, "is empty")]
)
def test_the_users_own_faults_are_told_as_theirs(kind: Any, message: str) -> None:
    gymnasium.register("Own-v0", entry_point=kind)
    try:
        with pytest.raises(ValueError, match=message):
            GymnasiumEnvironment("Own-v0", {}, 1)
    finally:
        del gymnasium.registry["Own-v0"]
