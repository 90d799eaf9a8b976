"""First weights, drawn from a given generator."""

from __future__ import annotations

import torch
from torch import nn


def initialise_linear(module: nn.Module, generator: torch.Generator) -> None:
    """Draw every linear layer in ``module`` from ``generator`` as torch does: uniform in +-1/sqrt(inputs)."""
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            bound = layer.in_features**-0.5
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
