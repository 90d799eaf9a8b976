"""A multi-layer perceptron over any numeric observation."""

from __future__ import annotations

import itertools
import math

import torch
from torch import nn

from ..batch import Observation
from ..encodings.spec import EnvironmentSpec
from .config import MLPConfig
from .initialise import initialise_linear


class MLPTorso(nn.Module):
    """The observation's fields, flattened and joined in the order of their names, to features ``[B, D]``."""

    observations_repeat = False

    def __init__(self, config: MLPConfig, spec: EnvironmentSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.fields = tuple(sorted(spec.observation))
        widths = [sum(math.prod(spec.observation[name].shape) for name in self.fields), *config.hidden]
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(widths):
            layers += [nn.Linear(before, after), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.features = widths[-1]
        initialise_linear(self, generator)

    def forward(self, observation: Observation) -> torch.Tensor:
        """Features ``[B, D]``."""
        # A field may be one number: the dimension added here is flattened away where it is not.
        fields = [observation[name].unsqueeze(-1).flatten(1).float() for name in self.fields]
        features: torch.Tensor = self.layers(torch.cat(fields, dim=1))
        return features
