"""The dueling form: a state's own stream, and one for what an action adds to it.

B states, A actions, W outputs of a pair, D features, U units of a stream.
"""

from __future__ import annotations

import math

import torch
from torch import nn

from ..networks.initialise import initialise_linear
from .forms import DEFAULT_SCALE, Hidden, Layer, LinearForm, features, normal
from .noise import factorised_noise, noisy


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
        noisy_sigma: of the `FactorisedNoise` that each stream's last map has; None: they have none.
    """

    def __init__(
        self,
        features: int,
        actions: int,
        width: int,
        generator: torch.Generator,
        units: int | None = None,
        scale: float = DEFAULT_SCALE,
        noisy_sigma: float | None = None,
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
        self.state_noise = factorised_noise((width,), inputs, noisy_sigma)
        self.action_noise = factorised_noise((actions, width), inputs, noisy_sigma)

    def layer(self, hidden: Hidden) -> Layer:
        """The streams' units, and the weight and bias that make all outputs of them; see `Form`."""
        state_weight, state_bias = noisy(self.state_noise, self.state_weight, self.state_bias)
        weight, bias = noisy(self.action_noise, self.action_weight, self.action_bias)
        weight, bias = weight - weight.mean(dim=0), state_bias + bias - bias.mean(dim=0)
        if self.streams is None:
            return features(hidden), state_weight + weight, bias
        return self.streams(features(hidden)), torch.cat([state_weight.expand_as(weight), weight], dim=2), bias
