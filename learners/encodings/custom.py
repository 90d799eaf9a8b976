"""An encoding of one's own: a fixed map from what an environment shows to what a network reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch

from ..batch import Observation
from ..plugins import Plugin, PluginConfig
from .spec import ArraySpec, EnvironmentSpec


class EncodingConfig(PluginConfig):
    """An encoding of one's own between environment and network: constructed with (spec, **kwargs)."""


class Encoding(Protocol):
    """What own code provides. Constructed as ``Class(spec, **kwargs)`` with the `EnvironmentSpec`.

    It stands in front of the network, wherever that is: replay holds observations as the environment shows them, often
    small ones, and what comes out here is made anew for each batch, on the learner's device. It has no weights.

    Attributes:
        observation: the fields that come out, which the network is built for.
    """

    observation: Mapping[str, ArraySpec]

    def __call__(self, observation: Observation) -> Observation:
        """Tensors ``[B, ...]`` by field, as the environment's spec says, to tensors ``[B, ...]`` by field."""
        ...


class CheckedEncoding:
    """An own encoding, whose every answer is held against its own word.

    Attributes:
        spec: of the environment as the network sees it.

    Raises:
        PluginError: it cannot be made, does not tell what comes out of it, or gives something else.
    """

    def __init__(self, config: EncodingConfig, spec: EnvironmentSpec) -> None:
        self._plugin = Plugin("encoding", config.class_)
        self._encoding = self._plugin.make(spec, **config.kwargs)
        self._plugin.require(self._encoding, ("__call__",))
        fields = getattr(self._encoding, "observation", None)
        if not isinstance(fields, Mapping) or not fields or not all(isinstance(a, ArraySpec) for a in fields.values()):
            raise self._plugin.error(
                "its attribute observation must tell the fields that come out of it, as in "
                '{"cell": ArraySpec((16,), "float32")}'
            )
        self.spec = replace(spec, observation=dict(fields))
        self(zeros(spec, 2))

    def __call__(self, observation: Observation) -> Observation:
        """See `Encoding`. Raises PluginError where it raises, or gives other fields, shapes or dtypes than it says."""
        with self._plugin.running("encoding a batch"):
            encoded: Observation = self._encoding(observation)
        size = len(next(iter(observation.values())))
        self._plugin.check_arrays("it", encoded, self.spec.observation, size)
        return encoded


def zeros(spec: EnvironmentSpec, batch: int) -> dict[str, torch.Tensor]:
    """A batch of observations, all zero, to try a network with."""
    return {
        name: torch.from_numpy(np.zeros((batch, *array.shape), array.dtype)) for name, array in spec.observation.items()
    }
