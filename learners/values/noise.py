"""Noise on a linear map, of a size that is learnt: exploration by weights.

D inputs; a map's outputs may have any shape, such as [A, W].
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn


class FactorisedNoise(nn.Module):
    """What a noisy linear map adds to its ``weight [*outputs, D]`` and ``bias [*outputs]``.

    Fortunato et al. 2018 (https://arxiv.org/abs/1706.10295), equations 9 to 11: to a weight ``sigma f(e_out) f(e_in)``,
    to a bias ``sigma f(e_out)``, with one standard normal e for each input and output and f(x) = sign(x) sqrt|x|.
    Sigmas are parameters. What is drawn is neither parameter nor buffer, so that no state, no published weights and no
    average carries it; before the first `draw` there is none.

    Args:
        outputs: shape of the map's outputs.
        inputs: D.
        sigma: sigmas begin as ``sigma / sqrt(D)``; 0.5 in the paper, section 3.2.
    """

    def __init__(self, outputs: tuple[int, ...], inputs: int, sigma: float) -> None:
        super().__init__()
        first = sigma / math.sqrt(inputs)
        self.weight_sigma = nn.Parameter(torch.full((*outputs, inputs), first))
        self.bias_sigma = nn.Parameter(torch.full(outputs, first))
        self._drawn: tuple[torch.Tensor, torch.Tensor] | None = None

    def draw(self, generator: np.random.Generator | None) -> None:
        """Draw noise anew, which stays until the next call; None: no noise."""
        if generator is None:
            self._drawn = None
            return
        of_inputs = self._factor(self.weight_sigma.shape[-1:], generator)
        self._drawn = of_inputs, self._factor(self.bias_sigma.shape, generator)

    def forward(self, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Weight and bias with the noise that was drawn last."""
        if self._drawn is None:
            return weight, bias
        of_inputs, of_outputs = self._drawn
        return (
            torch.addcmul(weight, self.weight_sigma, of_outputs.unsqueeze(-1) * of_inputs),
            torch.addcmul(bias, self.bias_sigma, of_outputs),
        )

    def _factor(self, shape: torch.Size, generator: np.random.Generator) -> torch.Tensor:
        normal = generator.standard_normal(tuple(shape), np.float32)
        return torch.from_numpy(np.copysign(np.sqrt(np.abs(normal)), normal)).to(self.weight_sigma)


def factorised_noise(outputs: tuple[int, ...], inputs: int, sigma: float | None) -> FactorisedNoise | None:
    """The noise of a map; None for a map without."""
    return None if sigma is None else FactorisedNoise(outputs, inputs, sigma)


def noisy(noise: FactorisedNoise | None, weight: torch.Tensor, bias: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Weight and bias with their noise, if they have one."""
    return (weight, bias) if noise is None else noise(weight, bias)
