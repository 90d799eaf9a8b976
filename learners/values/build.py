"""From a config to a value head."""

from __future__ import annotations

import torch

from ...kernels import Support
from .config import ValueConfig
from .dueling import Dueling
from .forms import DEFAULT_SCALE, Form, FullMap, LinearScorer, Scorer, Tilt
from .head import ValueHead
from .kinds import C51, Categorical, Kind, MeanSquared, SoftmaxMeanSquared
from .presets import support_of


def build_head(
    config: ValueConfig,
    features: int,
    num_actions: int,
    *,
    scorer: Scorer | None = None,
    generator: torch.Generator,
) -> ValueHead:
    """The head that a config asks for, with float32 weights on the CPU.

    Initial values lie near the middle of the range (mse: near 0). Bins spaced by symexp begin exactly uniform, because
    their centres turn small differences into huge values (DreamerV3 does so too). How a given scorer begins is its own
    affair.

    Args:
        config: kind, form and bins.
        features: D, the torso's output.
        num_actions: A.
        scorer: gives the tilt form its scores; None takes a `LinearScorer`.
        generator: of the initial weights.

    Raises:
        ValueError: the config gives no support, a scorer is given to another form than tilt, noise is asked for over
            bins spaced by symexp, or a size is below 1.
    """
    if features < 1 or num_actions < 1:
        raise ValueError(f"features is {features} and num_actions {num_actions}: both must be at least 1")
    support = support_of(config)
    scale = 0.0 if support and support.transform == "symexp" else DEFAULT_SCALE
    if support and support.transform == "symexp" and config.noisy_sigma is not None:
        raise ValueError(
            f"value.noisy_sigma is {config.noisy_sigma:g} and value.transform symexp, whose centres turn little noise "
            "into huge values: set value.transform to none or symlog, or value.noisy_sigma to null"
        )
    form: Form
    width = support.bins if support else 1
    if config.form != "tilt" and scorer is not None:
        raise ValueError(
            f"scorer is a {type(scorer).__name__} and value.form {config.form!r}: only 'tilt' takes a scorer"
        )
    if config.form == "full":
        form = FullMap(features, num_actions, width, generator, scale, config.noisy_sigma)
    elif config.form == "dueling":
        form = Dueling(features, num_actions, width, generator, config.stream_units, scale, config.noisy_sigma)
    else:
        if scorer is None:
            gain = 2 / (support.vmax - support.vmin) if support else 1.0
            scorer = LinearScorer(features, num_actions, generator, scale, gain)
        form = Tilt(features, support, scorer, generator, scale)
    return ValueHead(form, _kind(config, support), normalise=config.normalise_returns)


def _kind(config: ValueConfig, support: Support | None) -> Kind:
    if support is None:
        return MeanSquared()
    match config.kind:
        case "hl_gauss" | "two_hot":
            return Categorical(support, config.kind, config.out_of_range)
        case "c51":
            return C51(support, out_of_range=config.out_of_range)
        case "mse_softmax":
            return SoftmaxMeanSquared(support, config.out_of_range)
    raise AssertionError(f"kind {config.kind} with a support")
