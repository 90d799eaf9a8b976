"""Torso and value head as one module: what a learner trains and a policy acts with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

import numpy as np
import torch
from torch import nn

from ..batch import Observation
from ..encodings.custom import CheckedEncoding, EncodingConfig
from ..encodings.history import stacked_spec
from ..encodings.spec import EnvironmentSpec
from ..values.build import build_head
from ..values.config import ValueConfig
from ..values.forms import Hidden
from ..values.head import ValueHead
from ..values.kinds import HeadLoss, Target
from .config import (
    CustomNetworkConfig,
    LetterBeliefConfig,
    LetterTiedConfig,
    LetterUntiedConfig,
    MLPConfig,
    NetworkConfig,
    PictureNetworkConfig,
    WordNetworkConfig,
)
from .convolutional import PictureTorso
from .custom import CustomTorso, EncodedTorso
from .letter_belief import BeliefScorer, LetterBeliefTorso
from .letter_tied import LetterTiedTorso, WordScorer
from .letter_untied import LetterUntiedTorso
from .mlp import MLPTorso

Torso: TypeAlias = (
    LetterTiedTorso | LetterBeliefTorso | LetterUntiedTorso | MLPTorso | PictureTorso | CustomTorso | EncodedTorso
)

PlainNetworkConfig: TypeAlias = MLPConfig | PictureNetworkConfig | CustomNetworkConfig
PlainTorso: TypeAlias = MLPTorso | PictureTorso | CustomTorso


class ValueModule(nn.Module):
    """Q-values of observations. ``forward`` is the training pass, so that data-parallel training can wrap it.

    Attributes:
        torso: observations to hidden features.
        head: hidden features to values, and their loss.
        num_actions: A.
        half_products: whether a torso that gives features alone multiplies in bfloat16. The head stays in float32.
    """

    torso: Torso
    head: ValueHead

    def __init__(self, torso: Torso, head: ValueHead, num_actions: int) -> None:
        super().__init__()
        self.num_actions = num_actions
        self.half_products = False
        self.torso = torso
        self.head = head

    def encode(self, observation: Observation, legal: torch.Tensor | None = None) -> Hidden:
        """The torso's output; for acting a torso that reads the set of actions is told ``legal [B, A] bool``."""
        if isinstance(self.torso, LetterBeliefTorso):
            return self.torso(observation, legal)  # type: ignore[no-any-return]
        if not self.half_products:
            return self.torso(observation)  # type: ignore[no-any-return]
        device = next(iter(self.torso.parameters())).device.type
        with torch.autocast(device, dtype=torch.bfloat16):
            hidden = self.torso(observation)
        return hidden.float()  # type: ignore[no-any-return]

    def forward(
        self,
        observation: Observation,
        row: torch.Tensor,
        action: torch.Tensor,
        target: Target,
        weight: torch.Tensor | None = None,
        contrast: torch.Tensor | None = None,
    ) -> tuple[HeadLoss, torch.Tensor | None]:
        """The head's loss for pairs, and a conservative penalty where ``contrast [M]`` names actions to compare with.

        The penalty, ``[P]``, is CQL's ``log(sum_m exp Q(s, a_m)) - Q(s, a)`` (Kumar et al. 2020, eq. 4), where the sum
        goes over the contrast actions and the played one, each once. With all actions it is CQL(H) exactly. Where the
        head normalises, Q is in units of its scale here, so that the penalty weighs the same at rewards of any size.
        """
        hidden = self.encode(observation)
        loss = self.head.loss(hidden, row, action, target, weight)
        if self.training and isinstance(self.torso, LetterBeliefTorso):
            self.torso.learn(observation, row, action, target)
        if contrast is None:
            return loss, None
        played = self.head.kind.value(self.head.form.logits(hidden, row, action))[:, None]
        others = self.head.kind.value(self.head.form.logits_shared(hidden, contrast))[row]
        others = others.masked_fill(contrast == action[:, None], -torch.inf)
        return loss, torch.logsumexp(torch.cat([played, others], dim=1), dim=1) - played[:, 0]


def check_fit(what: str, tensors: Mapping[str, torch.Tensor | np.ndarray], own: Mapping[str, torch.Tensor]) -> None:
    """Check that tensors have the names and shapes of one's own, before any of them is taken over.

    Raises:
        ValueError: they are of another network; the message begins with ``what`` and names a difference.
    """
    if differing := sorted(tensors.keys() ^ own.keys()):
        raise ValueError(f"{what} of another network: {differing[0]!r} is not in both ({len(differing)} such)")
    for name, part in own.items():
        if tuple(tensors[name].shape) != tuple(part.shape):
            shapes = f"{list(tensors[name].shape)}, expected {list(part.shape)}"
            raise ValueError(f"{what} of another network: {name!r} is {shapes}")


def build_value_module(
    network: NetworkConfig,
    value: ValueConfig,
    spec: EnvironmentSpec,
    generator: torch.Generator,
    encoding: EncodingConfig | None = None,
    training_actions: np.ndarray | None = None,
) -> ValueModule:
    """The module that these configs describe, its first weights drawn from ``generator``.

    A network that reads the set of actions reads only ``training_actions [C] int64`` in training mode; None: all.

    Raises:
        ValueError: the network cannot read this environment, or the value config lacks something.
        PluginError: an own network or encoding is not what it must be.
    """
    spec = stacked_spec(spec)
    torso: Torso
    scorer: WordScorer | None
    if isinstance(network, WordNetworkConfig):
        if spec.action_words is None:
            raise ValueError(f"network {network.kind} reads words, and {spec.name} has none: use the network mlp")
        if value.form != "tilt":
            raise ValueError(f"network {network.kind} scores words, and value.form is {value.form}: it must be tilt")
    words = spec.action_words or ()
    match network:
        case LetterTiedConfig():
            torso, scorer = LetterTiedTorso(network, generator), WordScorer(network, words, generator)
        case LetterUntiedConfig():
            torso, scorer = LetterUntiedTorso(network, generator), WordScorer(network, words, generator)
        case LetterBeliefConfig():
            torso, scorer = (
                LetterBeliefTorso(network, words, generator, training_actions),
                BeliefScorer(network, words, generator),
            )
        case MLPConfig() | PictureNetworkConfig() | CustomNetworkConfig():
            torso, scorer = _build_torso(network, spec, generator, encoding), None
    head = build_head(value, torso.features, spec.num_actions, scorer=scorer, generator=generator)
    return ValueModule(torso, head, spec.num_actions)


def _build_torso(
    network: PlainNetworkConfig,
    spec: EnvironmentSpec,
    generator: torch.Generator,
    encoding: EncodingConfig | None,
) -> PlainTorso | EncodedTorso:
    if encoding is not None:
        checked = CheckedEncoding(encoding, spec)
        return EncodedTorso(checked, _plain_torso(network, checked.spec, generator))
    return _plain_torso(network, spec, generator)


def _plain_torso(network: PlainNetworkConfig, spec: EnvironmentSpec, generator: torch.Generator) -> PlainTorso:
    match network:
        case PictureNetworkConfig():
            return PictureTorso(network, spec, generator)
        case MLPConfig():
            return MLPTorso(network, spec, generator)
        case CustomNetworkConfig():
            return CustomTorso(network, spec, generator)
