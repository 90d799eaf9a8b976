"""An environment that stumbles, as often as a file says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np


class Stumbling(gymnasium.Env[np.ndarray, np.int64]):
    """Ten steps an episode, a reward for each. Once in a while it raises, or its reward is no number.

    Args:
        folder: for each time that it may stumble it takes one file from here.
        how: ``raise``, ``reward`` or ``observation``.
    """

    def __init__(self, folder: str, how: str) -> None:
        self.observation_space = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self._folder, self._how, self._step = Path(folder), how, 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        self._step = 0
        return np.zeros(2, np.float32), {}

    def step(self, action: np.int64) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        self._step += 1
        observation, reward = np.full(2, self._step / 10, np.float32), 1.0
        if self._step == 7 and (left := sorted(self._folder.iterdir())):
            left[0].unlink()
            match self._how:
                case "raise":
                    raise OSError("the emulator lost its way")
                case "reward":
                    reward = float("nan")
                case "observation":
                    observation[1] = np.inf
        return observation, reward, self._step == 10, False, {}
