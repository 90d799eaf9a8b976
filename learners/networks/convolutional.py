"""Networks that read pictures: Atari's two and MinAtar's.

Weights begin as torch's convolutions do, uniform in +-1/sqrt(inputs), as in DQN (Mnih et al. 2015).
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional

from ..batch import Observation
from ..encodings.spec import EnvironmentSpec
from .config import ImpalaConfig, MinAtarNetworkConfig, NatureConfig, PictureNetworkConfig
from .initialise import initialise_linear

_WHITE = 255.0


class PictureTorso(nn.Module):
    """A picture to features ``[B, D]``: convolutions, then a linear layer.

    The observation has one field, ``[B, H, h, w]`` with a history, ``[B, C, h, w]`` with channels, or both,
    ``[B, H, C, h, w]``: all before the height are channels. A ``[B, h, w]`` picture has one channel.

    Args:
        config: which network.
        spec: of what it sees, histories and all (see `encodings.history.stacked_spec`).
        generator: of the first weights.

    Raises:
        ValueError: the observation is no picture, or too small a one.
    """

    observations_repeat = False

    def __init__(self, config: PictureNetworkConfig, spec: EnvironmentSpec, generator: torch.Generator) -> None:
        super().__init__()
        self.field, shape = _picture(config, spec)
        self._channels = math.prod(shape[:-2])
        # One multiplication of the small numbers that come out of a picture in bytes.
        self._scale = 1.0 / _WHITE if config.grey_levels else 1.0
        self.convolutions = _convolutions(config, self._channels)
        try:
            with torch.no_grad():
                out = self.convolutions(torch.zeros(1, self._channels, *shape[-2:]))
        except RuntimeError as error:
            raise ValueError(
                f"network {config.kind} reads larger pictures than {shape[-2]} x {shape[-1]}, as {spec.name} has them: "
                "use the network minatar or mlp"
            ) from error
        self.linear = nn.Linear(out.numel(), config.hidden)
        self.features = config.hidden
        initialise_linear(self, generator)

    def forward(self, observation: Observation) -> torch.Tensor:
        """Features ``[B, D]``."""
        picture = observation[self.field]
        assert isinstance(picture, torch.Tensor)
        planes = picture.reshape(len(picture), self._channels, *picture.shape[-2:]).to(self.linear.weight.dtype)
        features: torch.Tensor = functional.relu(self.linear(self.convolutions(planes * self._scale).flatten(1)))
        return features


class ResidualBlock(nn.Module):
    """``x + conv(relu(conv(relu(x))))``."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the class says."""
        changed: torch.Tensor = self.second(functional.relu(self.first(functional.relu(x))))
        return x + changed


def _convolutions(config: PictureNetworkConfig, channels: int) -> nn.Sequential:
    match config:
        case NatureConfig():
            layers: list[nn.Module] = []
            for before, (after, size, stride) in zip(
                (channels, 32, 64), ((32, 8, 4), (64, 4, 2), (64, 3, 1)), strict=True
            ):
                layers += [nn.Conv2d(before, after, size, stride), nn.ReLU()]
            return nn.Sequential(*layers)
        case ImpalaConfig():
            layers = []
            for before, after in pairwise((channels, *(config.width * wide for wide in (16, 32, 32)))):
                layers += [
                    nn.Conv2d(before, after, 3, padding=1),
                    nn.MaxPool2d(3, stride=2, padding=1),
                    ResidualBlock(after),
                    ResidualBlock(after),
                ]
            return nn.Sequential(*layers, nn.ReLU())
        case MinAtarNetworkConfig():
            return nn.Sequential(nn.Conv2d(channels, config.filters, 3), nn.ReLU())
    raise AssertionError(f"network {config.kind}")


def _picture(config: PictureNetworkConfig, spec: EnvironmentSpec) -> tuple[str, tuple[int, ...]]:
    fields = spec.observation
    if len(fields) != 1:
        raise ValueError(f"network {config.kind} reads one picture, and {spec.name} has {', '.join(fields)}: use mlp")
    ((name, field),) = fields.items()
    if not 2 <= len(field.shape) <= 4:
        raise ValueError(
            f"network {config.kind} reads pictures, and {name!r} of {spec.name} is {field.dtype}{list(field.shape)}: "
            "use mlp"
        )
    if config.grey_levels and field.dtype != "uint8":
        raise ValueError(
            f"network {config.kind} reads pictures in bytes, and {name!r} of {spec.name} is {field.dtype}: "
            "use the network minatar or mlp"
        )
    return name, field.shape
