"""The newest observations of an episode, seen together: one rule for whoever acts and for whoever replays.

N is the number of environments in a vector, H ``spec.history``. A network sees each field as ``[H, *shape]``, oldest
first; at an episode's beginning its first observation stands for those before it. With H = 1 there is no such axis.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from .spec import ArraySpec, EnvironmentSpec


def stacked_spec(spec: EnvironmentSpec) -> EnvironmentSpec:
    """What a network is built from: ``spec`` with whole histories for observations."""
    if spec.history == 1:
        return spec
    fields = {name: ArraySpec((spec.history, *one.shape), one.dtype) for name, one in spec.observation.items()}
    return replace(spec, observation=fields, history=1)


class History:
    """What N environments' players see, step by step.

    Args:
        spec: of one environment.
        num_envs: N.
    """

    def __init__(self, spec: EnvironmentSpec, num_envs: int) -> None:
        self._length = spec.history
        self._seen = {
            name: np.zeros((num_envs, spec.history, *one.shape), one.dtype) for name, one in spec.observation.items()
        }

    def add(self, observation: Mapping[str, np.ndarray], begins: np.ndarray) -> Mapping[str, np.ndarray]:
        """Take in each environment's newest observation.

        Args:
            observation: field to ``[N, *shape]``.
            begins: ``[N] bool``: the observation is the first of an episode.

        Returns:
            Field to ``[N, H, *shape]``, new arrays; with H = 1 ``observation`` itself.
        """
        if self._length == 1:
            return observation
        for name, newest in observation.items():
            # A copy, not a shift in place: whoever acts on another thread may still hold the last one.
            seen = np.empty_like(self._seen[name])
            seen[:, :-1] = self._seen[name][:, 1:]
            seen[:, -1] = newest
            seen[begins] = newest[begins][:, None]
            self._seen[name] = seen
        return dict(self._seen)
