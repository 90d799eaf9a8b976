"""A small environment and a small policy whose games are known in closed form."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from isogon.actors.environments.config import Purpose
from isogon.actors.environments.contract import Observation, Step
from isogon.actors.work import PolicyState
from isogon.actors.worker import WorkerSpec
from isogon.learners.encodings.spec import ArraySpec, EnvironmentSpec
from isogon.learners.learner import Exploration

ACTIONS = 4


class Corridor:
    """Each environment walks a corridor of drawn length, 1 to ``longest``.

    A step's reward is its action plus a tenth of a drawn digit, and every third episode is cut off at its last step
    instead of ending there.

    ``lengths`` fixes the corridor of each environment instead.
    """

    def __init__(self, num_envs: int, longest: int = 5, lengths: tuple[int, ...] = (), has_legal: bool = False) -> None:
        self._envs = num_envs
        self._longest = longest
        self._lengths = np.array(lengths, np.int64)
        self.spec = EnvironmentSpec(
            "corridor",
            {"position": ArraySpec((1,), "float32"), "length": ArraySpec((), "int64")},
            ACTIONS,
            has_legal,
        )
        self.closed = False
        self.actions: list[np.ndarray] = []

    @property
    def num_envs(self) -> int:
        return self._envs

    def reset(self, stream: np.random.Generator) -> Observation:
        self._stream = stream
        self._position = np.zeros(self._envs, np.int64)
        self._length = np.zeros(self._envs, np.int64)
        self._ended = np.ones(self._envs, bool)
        self._count = np.zeros(self._envs, np.int64)
        self._begin()
        return self._observe()

    def step(self, action: np.ndarray) -> Step:
        if action.shape != (self._envs,) or action.min() < 0 or action.max() >= ACTIONS:
            raise ValueError(f"action is {action}")
        legal = self.legal()
        live = ~self._ended
        assert legal is None or legal[np.arange(self._envs), action][live].all()
        self.actions.append(action.copy())
        noise = self._stream.integers(10, size=self._envs) / 10
        reward = np.where(live, action + noise, 0).astype(np.float32)
        self._position += live
        self._begin()
        self._ended = live & (self._position == self._length)
        cut = self._count % 3 == 2
        return Step(self._observe(), reward, self._ended & ~cut, self._ended & cut)

    def legal(self) -> np.ndarray | None:
        if not self.spec.has_legal:
            return None
        legal = np.ones((self._envs, ACTIONS), bool)
        legal[:, 0] = self._position % 2 == 1
        return legal

    def close(self) -> None:
        self.closed = True

    def _begin(self) -> None:
        drawn = self._stream.integers(1, self._longest + 1, size=self._envs)
        fresh = self._lengths if self._lengths.size else drawn
        self._length = np.where(self._ended, fresh, self._length)
        self._position[self._ended] = 0
        self._count += self._ended
        self._ended[:] = False

    def _observe(self) -> Observation:
        return {"position": self._position[:, None].astype(np.float32), "length": self._length.copy()}


@dataclass
class Shift:
    """Plays position plus ``shift`` modulo the actions; strays with probability epsilon."""

    shift: int = 0
    batches: list[int] = field(default_factory=list)

    def act(
        self,
        observation: Observation,
        legal: np.ndarray | None,
        exploration: Exploration,
        generator: np.random.Generator,
    ) -> np.ndarray:
        position = observation["position"][:, 0].astype(np.int64)
        assert (position < observation["length"]).all(), "asked to act in an episode that has ended"
        self.batches.append(position.size)
        action = (position + self.shift) % ACTIONS
        if exploration.epsilon:
            stray = generator.random(position.size) < exploration.epsilon
            action = np.where(stray, generator.integers(ACTIONS, size=position.size), action)
        if legal is not None:
            assert legal.shape == (position.size, ACTIONS)
            action = np.where(legal[np.arange(position.size), action], action, ACTIONS - 1)
        return action

    def load_tensors(self, tensors: Mapping[str, np.ndarray]) -> None:
        if set(tensors) != {"shift"}:
            raise ValueError(f"tensors are {sorted(tensors)}, expected shift")
        self.shift = int(tensors["shift"])

    def draw_noise(self, generator: np.random.Generator | None) -> None:
        """Its layers have none."""


def make_corridor(purpose: Purpose, num_envs: int, **arguments: Any) -> Corridor:
    return Corridor(num_envs, **arguments)


def break_at_once(purpose: Purpose, num_envs: int) -> Corridor:
    raise OSError("no corridor today")


def make_mortal_corridor(folder: Path, deaths: int, purpose: Purpose, num_envs: int) -> Corridor:
    """The process that makes it dies, as often as told; ``folder`` counts."""
    if (already := len(list(folder.iterdir()))) < deaths:
        (folder / str(already)).touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return Corridor(num_envs)


class HangingCorridor(Corridor):
    """Its fifth step never ends, as often as there are files in a folder; each time it takes one."""

    def __init__(self, folder: Path, num_envs: int) -> None:
        super().__init__(num_envs)
        self._folder = folder

    def step(self, action: np.ndarray) -> Step:
        if len(self.actions) == 4 and (left := sorted(self._folder.iterdir())):
            left[0].unlink()
            time.sleep(600)
        return super().step(action)


def make_hanging_corridor(folder: Path, purpose: Purpose, num_envs: int) -> Corridor:
    return HangingCorridor(folder, num_envs)


class BrokenCorridor(Corridor):
    """Raises on its fifth step."""

    def step(self, action: np.ndarray) -> Step:
        if len(self.actions) == 4:
            raise ArithmeticError("the floor gave way")
        return super().step(action)


def make_broken_corridor(purpose: Purpose, num_envs: int) -> Corridor:
    return BrokenCorridor(num_envs)


def corridor_spec(num_envs: int = 3, seed: int = 7, **arguments: Any) -> WorkerSpec:
    return WorkerSpec(
        environment=partial(make_corridor, **arguments), policy=Shift, num_envs=num_envs, seed=seed, evaluation_envs=4
    )


def weights(version: int, epsilon: float = 0.3) -> PolicyState:
    return PolicyState(version, {"shift": np.array(version)}, Exploration(epsilon=epsilon))
