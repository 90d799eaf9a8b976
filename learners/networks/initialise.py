"""First weights, drawn from a given generator."""

from __future__ import annotations

import torch
from torch import nn


def initialise_linear(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every linear and convolutional layer in ``module`` as torch does: uniform in +-1/sqrt(inputs)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d):
            bound = layer.weight[0].numel() ** -0.5
            assert layer.bias is not None
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
