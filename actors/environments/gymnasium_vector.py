"""Any Gymnasium environment with discrete actions, by its id."""

from __future__ import annotations

import difflib
import warnings
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ...learners.encodings.spec import ArraySpec, EnvironmentSpec
from . import cartpole_dynamics  # noqa: F401 - importing it registers its id
from .contract import Observation, Step, check_action

PLAIN_FIELD = "observation"
"""The field of an observation that is not a `Dict`."""
UNLIMITED_EPISODE_STEPS = 1_000
"""Where an environment has no limit of its own and none is given, its episodes are cut off after so many steps."""


class GymnasiumCopies:
    """N copies of a `gymnasium.Env` in this process, a `VectorEnvironment`.

    Observations: a ``Box`` is one field, ``"observation"``, as float32 (uint8 stays uint8); a ``Discrete`` is that
    field one-hot; a ``Dict`` of those has its keys as fields. Actions are 0..A-1 whatever the space starts from.

    Args:
        name: for messages and the spec.
        make: makes one copy, with a limit of steps on its episodes.
        num_envs: N.

    Raises:
        ValueError: an action space that is not ``Discrete``, or an observation space other than the above.
    """

    def __init__(self, name: str, make: Callable[[], gymnasium.Env[Any, Any]], num_envs: int) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs is {num_envs}: there must be at least one environment")
        first = make()
        try:
            self._spec, self._first_action = spec_of(name, first)
        except ValueError:
            first.close()
            raise
        made = [first, *(make() for _ in range(num_envs - 1))]
        self._num_envs = num_envs
        # Its types differ from one version of Gymnasium to another.
        self._vector: Any = SyncVectorEnv(
            [partial(_same, env) for env in made], copy=False, autoreset_mode=AutoresetMode.NEXT_STEP
        )
        self._spaces = space_fields(self._vector.single_observation_space)
        self._ended: npt.NDArray[np.bool_] | None = None

    @property
    def spec(self) -> EnvironmentSpec:
        """Shapes and names."""
        return self._spec

    @property
    def num_envs(self) -> int:
        """N."""
        return self._num_envs

    def reset(self, stream: np.random.Generator) -> Observation:
        """Begin N new episodes, each copy seeded from ``stream``; a copy's later episodes go on from its seed."""
        seeds: list[int | None] = [int(seed) for seed in stream.integers(2**31, size=self._num_envs)]
        observation, _ = self._vector.reset(seed=seeds)
        self._ended = np.zeros(self._num_envs, dtype=np.bool_)
        return self._encode(observation)

    def step(self, action: npt.NDArray[np.int64]) -> Step:
        """Take ``action [N] int64`` in 0..A-1; an environment whose episode has ended begins a new one instead.

        Raises:
            ValueError: wrong shape or dtype, an action out of range, or no episode was begun.
        """
        check_action(action, self._spec.num_actions, self._ended)
        observation, reward, terminated, truncated, _ = self._vector.step(action + self._first_action)
        self._ended = terminated | truncated
        return Step(self._encode(observation), reward.astype(np.float32), terminated, truncated)

    def legal(self) -> None:
        """None: every action always is."""
        return

    def close(self) -> None:
        """Close every copy."""
        self._vector.close()

    def _encode(self, observation: Any) -> Observation:
        """Arrays of our own: the vector environment writes its next observation over its last one."""
        fields = observation if isinstance(observation, Mapping) else {PLAIN_FIELD: observation}
        return {name: _encode_field(space, fields[name]) for name, space in self._spaces.items()}


class GymnasiumEnvironment(GymnasiumCopies):
    """N copies of a registered environment.

    Args:
        env_id: a registered id such as ``CartPole-v1``, or ``module:id``, which imports the module first.
        kwargs: passed to `gymnasium.make`.
        num_envs: N.
        max_episode_steps: episodes are truncated after so many; None keeps the environment's own limit, or takes
            `UNLIMITED_EPISODE_STEPS` where it has none.

    Raises:
        ValueError: no such id (the nearest one is named), arguments that the environment refuses, a package that it
            lacks; spaces as in `GymnasiumCopies`.
    """

    def __init__(
        self, env_id: str, kwargs: Mapping[str, Any], num_envs: int, *, max_episode_steps: int | None = None
    ) -> None:
        super().__init__(_named(env_id), partial(_make, env_id, kwargs, max_episode_steps), num_envs)


def _same(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
    return env


def gymnasium_spec(env_id: str, kwargs: Mapping[str, Any]) -> EnvironmentSpec:
    """The spec of an id, from one copy that is closed again. Raises ValueError as `GymnasiumEnvironment` does."""
    env = _make(env_id, kwargs, None)
    try:
        return spec_of(_named(env_id), env)[0]
    finally:
        env.close()


def gymnasium_episode_steps(env_id: str, kwargs: Mapping[str, Any], max_episode_steps: int | None) -> int:
    """Steps after which an episode is cut off. Raises ValueError as `GymnasiumEnvironment` does."""
    if max_episode_steps is not None:
        return max_episode_steps
    env = _make(env_id, kwargs, None)
    try:
        own = env.spec.max_episode_steps if env.spec is not None else None
        return UNLIMITED_EPISODE_STEPS if own is None else own
    finally:
        env.close()


def _named(env_id: str) -> str:
    return f"gymnasium {env_id}"


def _make(env_id: str, kwargs: Mapping[str, Any], max_episode_steps: int | None) -> gymnasium.Env[Any, Any]:
    # What Gymnasium has to say about an id is shown and not raised, also where warnings are errors.
    with warnings.catch_warnings():
        warnings.simplefilter("default")
        try:
            env = gymnasium.make(env_id, disable_env_checker=True, max_episode_steps=max_episode_steps, **kwargs)
        except gymnasium.error.UnregisteredEnv as error:
            near = difflib.get_close_matches(env_id, list(gymnasium.registry), n=1)
            nearest = f"did you mean {near[0]}? " if near else ""
            remedy = f"{nearest}Ids that a package registers are written module:id"
            raise ValueError(f"environment.id {env_id!r} is not registered with Gymnasium: {remedy}") from error
        except Exception as error:  # The constructor is the user's: it may raise anything.
            plain = isinstance(error, gymnasium.error.Error | ImportError | TypeError | ValueError)
            what = ("" if plain else f"{type(error).__name__}: ") + " ".join(str(error).split())
            raise ValueError(f"environment.id {env_id!r} with kwargs {dict(kwargs)} cannot be made: {what}") from error
    # Without a limit a greedy policy that goes in circles would never end its evaluation.
    limited = env.spec is not None and env.spec.max_episode_steps is not None
    return env if limited else gymnasium.wrappers.TimeLimit(env, UNLIMITED_EPISODE_STEPS)


def spec_of(name: str, env: gymnasium.Env[Any, Any]) -> tuple[EnvironmentSpec, int]:
    """The spec, and the action that the space calls its first. Raises ValueError for spaces that are not supported."""
    actions = env.action_space
    if not isinstance(actions, gymnasium.spaces.Discrete):
        raise ValueError(f"environment {name!r} has the action space {actions}: only Discrete is supported")
    try:
        observation = {name: _field_spec(space) for name, space in space_fields(env.observation_space).items()}
    except ValueError as error:
        raise ValueError(f"environment {name!r}: {error}") from error
    return EnvironmentSpec(name, observation, int(actions.n)), int(actions.start)


def space_fields(space: gymnasium.Space[Any]) -> dict[str, gymnasium.Space[Any]]:
    """The spaces of an observation's fields."""
    return dict(space.spaces) if isinstance(space, gymnasium.spaces.Dict) else {PLAIN_FIELD: space}


def _field_spec(space: gymnasium.Space[Any]) -> ArraySpec:
    match space:
        case gymnasium.spaces.Box() if 0 in space.shape:
            raise ValueError(f"observation space {space} is empty: there is nothing to learn from")
        case gymnasium.spaces.Box():
            return ArraySpec(space.shape, "uint8" if space.dtype == np.uint8 else "float32")
        case gymnasium.spaces.Discrete():
            return ArraySpec((int(space.n),), "float32")
    raise ValueError(
        f"observation space {space} is not supported: Box, Discrete or a Dict of those are; "
        "register the environment with gymnasium.wrappers.FlattenObservation around it"
    )


def _encode_field(space: gymnasium.Space[Any], values: np.ndarray) -> np.ndarray:
    if isinstance(space, gymnasium.spaces.Discrete):
        index = values - int(space.start)
        if ((index < 0) | (index >= space.n)).any():
            raise ValueError(f"an observation holds {values[(index < 0) | (index >= space.n)][0]}, outside {space}")
        return np.asarray(np.eye(int(space.n), dtype=np.float32)[index])
    return values.copy() if values.dtype == np.uint8 else values.astype(np.float32)
