"""The dueling form: a state's own stream, and one for what an action adds to it.

B states, A actions, W outputs of a pair, D features, U units of a stream.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from ..networks.initialise import initialise_linear
from .forms import DEFAULT_SCALE, Hidden, Layer, LinearForm, features, normal


class Dueling(LinearForm):
    """Outputs ``V(s) + A(s, a) - mean_b A(s, b)``, for each of the W outputs by itself.

    Wang et al. 2016 (https://arxiv.org/abs/1511.06581), equation 9, over distributions as in Rainbow (Hessel et al.
    2018). The mean goes over actions. One over bins, or a state's stream that has one number for all bins, would leave
    the state's stream without a gradient: softmax does not see what all bins have in common.

    Both streams end in linear maps, so that what they come to is one linear map of the two streams' units side by side:
    the fused kernels work on it as on a `FullMap`.

    Args:
        features: D.
        actions: A.
        width: W.
        generator: of the initial weights.
        units: U of each stream's ReLU layer; None: both streams are linear in the features.
        scale: see `DEFAULT_SCALE`.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        width: int,
        generator: torch.Generator,
        units: int | None = None,
        scale: float = DEFAULT_SCALE,
    ) -> None:
        super().__init__()
        self.width = width
        self.streams = None if units is None else nn.Sequential(nn.Linear(features, 2 * units), nn.ReLU())
        if self.streams is not None:
            initialise_linear(self.streams, generator)
        inputs = features if units is None else units
        self.state_weight = nn.Parameter(normal((width, inputs), scale / math.sqrt(inputs), generator))
        self.state_bias = nn.Parameter(torch.zeros(width))
        self.action_weight = nn.Parameter(normal((actions, width, inputs), scale / math.sqrt(inputs), generator))
        self.action_bias = nn.Parameter(torch.zeros(actions, width))

    def layer(self, hidden: Hidden) -> Layer:
        """The streams' units, and the weight and bias that make all outputs of them; see `Form`."""
        weight = self.action_weight - self.action_weight.mean(dim=0)
        bias = self.state_bias + self.action_bias - self.action_bias.mean(dim=0)
        if self.streams is None:
            return features(hidden), self.state_weight + weight, bias
        state = self.state_weight.expand_as(weight)
        return self.streams(features(hidden)), torch.cat([state, weight], dim=2), bias
