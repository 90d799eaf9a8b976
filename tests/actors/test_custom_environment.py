"""Environments of own code: both kinds keep the contract, and what breaks it is named before anything is trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from isogon.actors.environments import CustomEnvironmentConfig, VectorEnvironment, build_environment, environment_spec
from isogon.learners.encodings.spec import ArraySpec
from isogon.learners.plugins import PluginError
from isogon.learners.randomness import stream

from .environment_suite import EnvironmentSuite

GYM = """
import gymnasium
import numpy as np

class Env(gymnasium.Env):
    def __init__(self, length=3):
        self.length = length
        self.observation_space = gymnasium.spaces.Dict(
            {"at": gymnasium.spaces.Box(0, 9, (2,), np.float32), "door": gymnasium.spaces.Discrete(2)}
        )
        self.action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.count = 0
        self.noise = self.np_random.random()
        return self.observe(), {}

    def step(self, action):
        self.count += 1
        return self.observe(), float(action), self.count == self.length, False, {}

    def observe(self):
        return {"at": np.array([self.count, self.noise], np.float32), "door": self.count % 2}

def make(**kwargs):
    return gymnasium.wrappers.TransformReward(Env(**kwargs), lambda reward: 2 * reward)
"""
VECTOR = """
import numpy as np
from isogon.actors.environments import Step
from isogon.learners.encodings import ArraySpec, EnvironmentSpec

class Env:
    def __init__(self, num_envs, purpose, length=3):
        self.num_envs = num_envs
        self.length = length
        self.spec = EnvironmentSpec("walk", {"at": ArraySpec((2,), "float32")}, 3, has_legal=True)

    def reset(self, stream):
        self.stream = stream
        self.count = np.zeros(self.num_envs, np.int64)
        self.ended = np.zeros(self.num_envs, bool)
        return self.observe()

    def step(self, action):
        live = ~self.ended
        self.count = np.where(live, self.count + 1, 0)
        self.ended = self.count == self.length
        return Step(self.observe(), (action * live).astype(np.float32), self.ended, np.zeros(self.num_envs, bool))

    def legal(self):
        return np.stack([np.ones(self.num_envs, bool), self.count % 2 == 0, self.count > 0], axis=1)

    def close(self):
        pass

    def observe(self):
        return {"at": np.stack([self.count, self.stream.random(self.num_envs)], axis=1).astype(np.float32)}
"""
COUNT = iter(range(1000))


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)

    def own(text: str, name: str = "Env", **more: Any) -> CustomEnvironmentConfig:
        module = f"own_env_{next(COUNT)}"
        (tmp_path / f"{module}.py").write_text(text)
        return CustomEnvironmentConfig(class_=f"{module}:{name}", **more)

    return own


class TestOwnGymnasiumEnv(EnvironmentSuite):
    @pytest.fixture(autouse=True)
    def write(self, own: Any) -> None:
        self.config = own(GYM)

    def make(self) -> VectorEnvironment:
        return build_environment(self.config, "train", 3)


class TestOwnVectorEnvironment(EnvironmentSuite):
    @pytest.fixture(autouse=True)
    def write(self, own: Any) -> None:
        self.config = own(VECTOR)

    def make(self) -> VectorEnvironment:
        return build_environment(self.config, "train", 3)


def play(environment: VectorEnvironment, steps: int) -> None:
    environment.reset(stream(0, "environment"))
    for _ in range(steps):
        legal = environment.legal()
        action = np.zeros(environment.num_envs, np.int64) if legal is None else legal.argmax(1)
        environment.step(action)


def test_a_function_gives_copies_and_kwargs_arrive(own: Any) -> None:
    config = own(GYM, "make", kwargs={"length": 2}, max_episode_steps=5)
    environment = build_environment(config, "train", 2)
    environment.reset(stream(0, "environment"))
    step = environment.step(np.array([1, 2]))
    assert step.reward.tolist() == [2.0, 4.0]
    assert environment.step(np.array([1, 2])).terminated.all()
    assert environment_spec(config) == environment.spec
    assert environment.spec.observation == {"at": ArraySpec((2,), "float32"), "door": ArraySpec((2,), "float32")}


def test_episodes_without_an_end_are_cut_off(own: Any) -> None:
    environment = build_environment(own(GYM, kwargs={"length": 10**6}, max_episode_steps=4), "train", 1)
    play(environment, 3)
    assert environment.step(np.array([0])).truncated.all()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def step", "def stride", "it lacks the method step: expected reset, step"),
        ("self.action_space = ", "self.actions = ", "its attribute action_space must be one of gymnasium.spaces"),
        ("Discrete(3)", "Box(0, 1, (2,))", "its construction raised ValueError: .*only Discrete is supported"),
        ("Box(0, 9, (2,), np.float32)", "Text(3)", "its construction raised ValueError: .*Text.*not supported"),
        ("return self.observe(), {}", "return self.observe()", r"reset gave a dict with at, door, expected \(obs"),
        ("self.observe(), float(action)", "float(action)", r"step gave a tuple of 4, expected \(observation, reward"),
        (
            "self.noise]",
            "self.noise, 0]",
            r"reset gave 'at' as float32\[3\], expected one of its observation_space Box",
        ),
        ("], np.float32)", "], complex)", r"reset gave 'at' as complex128\[2\], expected one of its observation_space"),
        ("self.count % 2", "self.count + 2", r"reset gave 'door' as 2, expected one of its observation_space Discrete"),
        ('"door": self.count', '"dor": self.count', "reset gave an observation that is a dict with at, dor, expected"),
        ("float(action)", "'much'", "step gave the reward 'much', expected a number"),
        ("self.count == self.length", "None", "step gave terminated as None, expected a bool"),
        ("self.count += 1", "self.cuont += 1", r"step raised AttributeError: .*cuont.*\(own_env_\d+.py:20\)"),
        ("(self, length=3)", "(self, lenght)", r"it is called with \(\) and takes \(lenght\): missing"),
    ],
)
def test_a_gymnasium_env_that_breaks_the_contract_is_refused(own: Any, old: str, new: str, message: str) -> None:
    assert old in GYM
    with pytest.raises(PluginError, match=rf"environment.class own_env_\d+:Env: {message}") as caught:
        environment_spec(own(GYM.replace(old, new)))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("def legal", "def allowed", "it lacks the method legal: expected reset, step, legal, close"),
        ("self.spec = ", "self.specs = ", "its attribute spec is a NoneType, expected .*EnvironmentSpec"),
        ("self.num_envs = num_envs", "self.num_envs = 2.0", "its attribute num_envs is 2.0, expected an int"),
        (
            "purpose, length=3",
            "length=3",
            r"called with \(num_envs=..., purpose=...\) and takes \(num_envs, length=3\)",
        ),
        ("(2,)", "(3,)", r"reset gave 'at' as float32\[2, 2\], expected float32\[2, 3\]"),
        ("float32)}", "float64)}", r"reset gave 'at' as float64\[2, 2\], expected float32\[2, 2\]"),
        ('{"at": np.stack', '{"on": np.stack', "reset gave the field 'on', expected the field 'at'"),
        ("return Step(", "return (", "step gave a tuple, expected isogon.actors.environments.Step"),
        (").astype(np.float32), self.ended", "), self.ended", r"step gave reward as int64\[2\], expected float32\[2\]"),
        (
            "self.ended, np.zeros(self.num_envs, bool))",
            "self.ended, False)",
            r"truncated as a bool, expected bool\[2\]",
        ),
        ("return np.stack([np.ones", "return np.array([np.ones", r"legal gave bool\[3, 2\], expected bool\[2, 3\]"),
        (", has_legal=True", "", "legal gave something, expected None: its spec says has_legal=False"),
    ],
)
def test_a_vector_that_breaks_the_contract_is_refused(own: Any, old: str, new: str, message: str) -> None:
    text = VECTOR.replace(old, new).replace("> 0], axis=1)", "> 0])" if "np.array([np.ones" in new else "> 0], axis=1)")
    text = text.replace("np.float32)}", "np.float64)}") if "float64" in new else text
    with pytest.raises(PluginError, match=rf"environment.class own_env_\d+:Env: .*{message}") as caught:
        environment_spec(own(text))
    assert "\n" not in str(caught.value)


def test_a_vector_cuts_its_episodes_off_itself(own: Any) -> None:
    with pytest.raises(PluginError, match=r"max_episode_steps is for a gymnasium\.Env"):
        environment_spec(own(VECTOR, max_episode_steps=3))


@pytest.mark.parametrize("text", [GYM, VECTOR])
def test_what_breaks_later_is_named_too(own: Any, text: str) -> None:
    """The try-out takes one step; this one goes wrong at the third."""
    later = text.replace("    def observe(self):\n", "    def observe(self):\n        1 / (3 - np.max(self.count))\n")
    config = own(later.replace("import numpy as np\n", "import numpy as np\nnp.seterr(divide='raise')\n"))
    environment_spec(config)
    with pytest.raises(PluginError, match=r"step raised (ZeroDivision|FloatingPoint)Error: .*own_env_\d+.py:\d+\)"):
        play(build_environment(config, "train", 2), 5)
