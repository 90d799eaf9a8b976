"""FedProx: a penalty on how far a client strays from the model that it was given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import torch
from torch import nn

Penalty: TypeAlias = Callable[[nn.Module], torch.Tensor]
"""A differentiable scalar of a module's weights, to be added to its loss."""


def proximal_penalty(start: Mapping[str, torch.Tensor], mu: float) -> Penalty:
    """``mu / 2 * ||w - w_start||^2`` over all trained parameters.

    Li et al. 2020, "Federated Optimization in Heterogeneous Networks", eq. 2.

    Args:
        start: the parameters by name, as they were given; they are copied.
        mu: weight of the penalty, at least 0.

    Raises:
        ValueError: ``mu`` is below 0.
    """
    if not mu >= 0:
        raise ValueError(f"mu is {mu}: it must be at least 0, or the penalty would drive the client away")
    kept = {name: part.detach().clone() for name, part in start.items()}

    def penalty(module: nn.Module) -> torch.Tensor:
        strayed = [
            (parameter - kept[name]).square().sum()
            for name, parameter in module.named_parameters()
            if parameter.requires_grad
        ]
        return 0.5 * mu * torch.stack(strayed).sum()

    return penalty
