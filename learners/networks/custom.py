"""A network of one's own before the value head, and any network behind an encoding of one's own."""

from __future__ import annotations

import torch
from torch import nn

from ..batch import Observation
from ..encodings.custom import CheckedEncoding, zeros
from ..encodings.spec import EnvironmentSpec
from ..plugins import Plugin
from .config import CustomNetworkConfig
from .convolutional import PictureTorso
from .mlp import MLPTorso


class CustomTorso(nn.Module):
    """A module of the user's: observations to features ``[B, D]``.

    It is constructed as ``Class(spec, **kwargs)``, is an ``nn.Module``, and has ``features``, its D. What it draws from
    torch's generator when it is constructed is drawn from ``generator``'s stream: the same seed gives the same weights,
    and the caller's generator is left as it was.

    Raises:
        PluginError: it cannot be made, is no module, does not tell its width, or gives something else than ``[B, D]``.
    """

    observations_repeat = False

    def __init__(self, config: CustomNetworkConfig, spec: EnvironmentSpec, generator: torch.Generator) -> None:
        super().__init__()
        self._plugin = Plugin("network", config.class_)
        seed = int(torch.randint(2**63 - 1, (), generator=generator))
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            torso = self._plugin.make(spec, **config.kwargs)
        if not isinstance(torso, nn.Module):
            raise self._plugin.error(f"it gave a {type(torso).__name__}, expected a torch.nn.Module")
        self.features = self._width(torso)
        self.module = torso
        self._try_out(spec)

    def forward(self, observation: Observation) -> torch.Tensor:
        """Features ``[B, D] float32``. Raises PluginError where the module raises or gives something else."""
        with self._plugin.running("forward"):
            features: torch.Tensor = self.module(observation)
        rows = len(next(iter(observation.values())))
        self._plugin.check_array("forward gave", features, (rows, self.features), "float32")
        return features

    def _width(self, torso: nn.Module) -> int:
        features = getattr(torso, "features", None)
        if type(features) is not int or features < 1:
            what = "lacks the attribute features" if features is None else f"has features {features!r}"
            raise self._plugin.error(f"it {what}: expected an int, the width D of what forward gives, [B, D]")
        return features

    def _try_out(self, spec: EnvironmentSpec) -> None:
        """One forward pass, which leaves running averages and other state of training as they are."""
        modes = {module: module.training for module in self.modules()}
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            self.eval()(zeros(spec, 2))
        for module, training in modes.items():
            module.training = training


class EncodedTorso(nn.Module):
    """A torso behind an encoding."""

    def __init__(self, encoding: CheckedEncoding, torso: MLPTorso | PictureTorso | CustomTorso) -> None:
        super().__init__()
        self.observations_repeat = torso.observations_repeat
        self.features = torso.features
        self.encoding = encoding
        self.torso = torso

    def forward(self, observation: Observation) -> torch.Tensor:
        """Features ``[B, D]``."""
        features: torch.Tensor = self.torso(self.encoding(observation))
        return features
