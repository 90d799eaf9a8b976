"""An environment of one's own: a `gymnasium.Env`, or a vectorised one, checked before it is used and while it is.

N is the number of environments in the vector, A of actions.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np

from ...learners.encodings.spec import ArraySpec, EnvironmentSpec
from ...learners.plugins import Plugin
from ...learners.randomness import stream
from .config import CustomEnvironmentConfig, Purpose
from .contract import Observation, Step, VectorEnvironment, check_action
from .gymnasium_vector import UNLIMITED_EPISODE_STEPS, GymnasiumCopies, space_fields

_METHODS = ("reset", "step", "legal", "close")
_TRIED_OUT = 2
"""Environments in the vector of a try-out: with one of them a mistaken shape might pass."""


class CheckedEnvironment:
    """A vectorised environment of own code: what it raises names it, and what it gives is held against its spec."""

    def __init__(self, plugin: Plugin, environment: VectorEnvironment) -> None:
        self._plugin = plugin
        self._environment = environment
        self._spec = self._checked_spec()
        self._num_envs = self._checked_num_envs()
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
        """See `VectorEnvironment`. Raises PluginError, as every method here."""
        with self._plugin.running("reset"):
            observation = self._environment.reset(stream)
        self._plugin.check_arrays("reset", observation, self._spec.observation, self._num_envs)
        self._ended = np.zeros(self._num_envs, bool)
        return observation

    def step(self, action: np.ndarray) -> Step:
        """See `VectorEnvironment`."""
        check_action(action, self._spec.num_actions, self._ended)
        with self._plugin.running("step"):
            step = self._environment.step(action)
        if not isinstance(step, Step):
            raise self._plugin.error(
                f"step gave a {type(step).__name__}, expected isogon.actors.environments.Step("
                "observation, reward, terminated, truncated)"
            )
        self._plugin.check_arrays("step", step.observation, self._spec.observation, self._num_envs)
        for name, dtype in (("reward", "float32"), ("terminated", "bool"), ("truncated", "bool")):
            self._plugin.check_array(f"step gave {name} as", getattr(step, name), (self._num_envs,), dtype)
        self._ended = step.terminated | step.truncated
        return step

    def legal(self) -> np.ndarray | None:
        """See `VectorEnvironment`."""
        with self._plugin.running("legal"):
            legal = self._environment.legal()
        if self._spec.has_legal:
            self._plugin.check_array("legal gave", legal, (self._num_envs, self._spec.num_actions), "bool")
        elif legal is not None:
            raise self._plugin.error("legal gave something, expected None: its spec says has_legal=False")
        return legal

    def close(self) -> None:
        """See `VectorEnvironment`."""
        with self._plugin.running("close"):
            self._environment.close()

    def try_out(self) -> None:
        """Begin an episode in each environment and take one step."""
        self.reset(stream(0, "try-out"))
        legal = self.legal()
        self.step(np.zeros(self._num_envs, np.int64) if legal is None else legal.argmax(axis=1))

    def _checked_spec(self) -> EnvironmentSpec:
        with self._plugin.running("spec"):
            spec = getattr(self._environment, "spec", None)
        if not isinstance(spec, EnvironmentSpec):
            raise self._plugin.error(
                f"its attribute spec is a {type(spec).__name__}, expected isogon.learners.encodings.EnvironmentSpec("
                "name, observation, num_actions)"
            )
        fields = spec.observation
        if not isinstance(fields, Mapping) or not fields or not all(isinstance(a, ArraySpec) for a in fields.values()):
            raise self._plugin.error(
                'spec.observation must tell shape and dtype of each field, as in {"cell": ArraySpec((4, 4), "uint8")}'
            )
        if type(spec.num_actions) is not int or spec.num_actions < 1:
            raise self._plugin.error(f"spec.num_actions is {spec.num_actions!r}, expected an int, at least 1")
        return spec

    def _checked_num_envs(self) -> int:
        with self._plugin.running("num_envs"):
            num_envs = getattr(self._environment, "num_envs", None)
        if type(num_envs) is not int or num_envs < 1:
            raise self._plugin.error(f"its attribute num_envs is {num_envs!r}, expected an int, at least 1")
        return num_envs


def build_custom(config: CustomEnvironmentConfig, purpose: Purpose, num_envs: int) -> CheckedEnvironment:
    """The vector that a config names.

    A class that is no `gymnasium.Env` is a `VectorEnvironment`, called with ``num_envs``, ``purpose`` and the config's
    kwargs. A `gymnasium.Env` class, and any function, gives one environment a call, called with the kwargs alone;
    copies of it make the vector.

    Raises:
        PluginError: it cannot be made, or is not what it must be.
    """
    plugin = Plugin("environment", config.class_)
    made = plugin.load()
    if inspect.isclass(made) and not issubclass(made, gymnasium.Env):
        plugin.require(made, _METHODS)
        if config.max_episode_steps is not None:
            raise plugin.error(
                "environment.max_episode_steps is for a gymnasium.Env: a VectorEnvironment truncates itself"
            )
        return CheckedEnvironment(plugin, plugin.make(num_envs=num_envs, purpose=purpose, **config.kwargs))
    make = partial(_make_copy, plugin, config)
    with plugin.running("its construction"):
        copies = GymnasiumCopies(plugin.name, make, num_envs)
    return CheckedEnvironment(plugin, copies)


def custom_spec(config: CustomEnvironmentConfig) -> EnvironmentSpec:
    """The spec of a small vector, after trying it out for a step. Raises PluginError as `build_custom`."""
    environment = build_custom(config, "train", _TRIED_OUT)
    environment.try_out()
    spec = environment.spec
    environment.close()
    return spec


def _make_copy(plugin: Plugin, config: CustomEnvironmentConfig) -> gymnasium.Env[Any, Any]:
    env = plugin.make(**config.kwargs)
    if not isinstance(env, gymnasium.Env):
        raise plugin.error(f"it gave a {type(env).__name__}, expected a gymnasium.Env")
    for name in ("reset", "step"):
        if getattr(type(env), name) is getattr(gymnasium.Env, name):
            raise plugin.error(f"it lacks the method {name}: expected reset, step")
    for name in ("observation_space", "action_space"):
        if not isinstance(getattr(env, name, None), gymnasium.Space):
            raise plugin.error(f"its attribute {name} must be one of gymnasium.spaces")
    limit = config.max_episode_steps or UNLIMITED_EPISODE_STEPS
    return gymnasium.wrappers.TimeLimit(_CheckedEnv(plugin, env), limit)


class _CheckedEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One copy, whose answers are checked before they are put among the others'."""

    def __init__(self, plugin: Plugin, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self._plugin = plugin
        self._expected = space_fields(env.observation_space)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        with self._plugin.running("reset"):
            answer = self.env.reset(seed=seed, options=options)
        if not (isinstance(answer, tuple) and len(answer) == 2):
            raise self._plugin.error(f"reset gave {_told(answer)}, expected (observation, info)")
        self._check("reset", answer[0])
        return answer

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        with self._plugin.running("step"):
            answer = self.env.step(action)
        if not (isinstance(answer, tuple) and len(answer) == 5):
            raise self._plugin.error(
                f"step gave {_told(answer)}, expected (observation, reward, terminated, truncated, info)"
            )
        observation, reward, terminated, truncated, info = answer
        self._check("step", observation)
        if not np.isscalar(reward) or isinstance(reward, str | bytes | complex):
            raise self._plugin.error(f"step gave the reward {reward!r}, expected a number")
        for name, flag in (("terminated", terminated), ("truncated", truncated)):
            if not isinstance(flag, bool | np.bool_):
                raise self._plugin.error(f"step gave {name} as {flag!r}, expected a bool")
        return observation, reward, bool(terminated), bool(truncated), info

    def _check(self, what: str, observation: Any) -> None:
        if not isinstance(self.observation_space, gymnasium.spaces.Dict):
            self._check_field(f"{what} gave an observation that is", observation, self.observation_space)
            return
        if not isinstance(observation, Mapping) or observation.keys() != self._expected.keys():
            raise self._plugin.error(
                f"{what} gave an observation that is {_told(observation)}, expected a dict with the keys of "
                f"observation_space: {', '.join(self._expected)}"
            )
        for name, space in self._expected.items():
            self._check_field(f"{what} gave {name!r} as", observation[name], space)

    def _check_field(self, what: str, given: Any, space: gymnasium.Space[Any]) -> None:
        if isinstance(space, gymnasium.spaces.Box):
            array = np.asarray(given)
            # Gymnasium itself turns float64 into the float32 of a Box; what would lose more than digits is a mistake.
            fits = array.shape == space.shape and np.can_cast(array.dtype, np.dtype(space.dtype), "same_kind")
        else:
            fits = space.contains(given)
        if not fits:
            raise self._plugin.error(f"{what} {_told(given)}, expected one of its observation_space {space}")


def _told(given: Any) -> str:
    """What was given: arrays by dtype and shape, tuples by their length, else the thing itself."""
    if isinstance(given, np.ndarray):
        return f"{given.dtype}{list(given.shape)}"
    if isinstance(given, tuple):
        return f"a tuple of {len(given)}"
    if isinstance(given, Mapping):
        return f"a dict with {', '.join(map(str, given)) or 'nothing'}"
    text = repr(given)
    return text if len(text) <= 60 else f"a {type(given).__name__}"
