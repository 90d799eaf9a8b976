"""Regression of the expected value, as a baseline: the bins only parametrise it."""

from __future__ import annotations

from typing import Literal, Unpack, overload

import torch

from ..reference import HLGaussStats
from ..support import Support
from .sample_losses import LossAndGradient, ScalarOptions, require, scalar_loss


@overload
def mse_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    return_stats: Literal[False] = ...,
    **options: Unpack[ScalarOptions],
) -> torch.Tensor: ...
@overload
def mse_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    return_stats: bool,
    **options: Unpack[ScalarOptions],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]: ...
def mse_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    return_stats: bool = False,
    **options: Unpack[ScalarOptions],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """``(v - y)^2``, where ``v = support.expectation(q)`` and y is the target, clamped to the range.

    The "mean-squared error with softmax" of Farebrother et al. 2024, section 4.2: what is left of classification if
    only the parametrisation is kept. Its gradient is ``2 (v - y) dv/df``; without a transform ``dv/df_j = q_j (c_j -
    v)`` with the bins' centres c. Each bin's gradient carries q_j, so a prediction that is certain and wrong hardly
    moves.

    Args:
        logits: as in the package's docstring, like target and support.
        target: likewise.
        support: likewise. v and y are in units of value, also with a transform.
        return_stats: see the package's docstring.
        **options: see the package's docstring.
    """

    def losses(f: torch.Tensor, y: torch.Tensor) -> LossAndGradient:
        value, slope = _expectation(f, support)
        error = value - y.to(f.dtype).clamp(support.lowest, support.highest)
        return error.square(), (2 * error).unsqueeze(-1) * slope

    return scalar_loss(logits, target, support, losses, return_stats, **options)


@overload
def huber_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    delta: float = ...,
    return_stats: Literal[False] = ...,
    **options: Unpack[ScalarOptions],
) -> torch.Tensor: ...
@overload
def huber_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    delta: float = ...,
    return_stats: bool,
    **options: Unpack[ScalarOptions],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]: ...
def huber_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    delta: float = 1.0,
    return_stats: bool = False,
    **options: Unpack[ScalarOptions],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """``(v - y)^2 / 2`` up to an error of delta, ``delta (|v - y| - delta / 2)`` beyond; v and y as in `mse_loss`.

    Huber 1964 ("Robust estimation of a location parameter"), as `torch.nn.functional.huber_loss`; Mnih et al. 2015
    clip the error of DQN so, with ``delta = 1``. Its gradient is ``clamp(v - y, -delta, delta) dv/df``. For a delta
    larger than every error it is half of `mse_loss`.

    Args:
        logits: as in the package's docstring, like target and support.
        target: likewise.
        support: likewise.
        delta: above 0, in units of value.
        return_stats: see the package's docstring.
        **options: see the package's docstring.
    """
    require("delta", delta, 0, above=True)

    def losses(f: torch.Tensor, y: torch.Tensor) -> LossAndGradient:
        value, slope = _expectation(f, support)
        error = value - y.to(f.dtype).clamp(support.lowest, support.highest)
        clipped = error.clamp(-delta, delta)
        return clipped * (error - clipped / 2), clipped.unsqueeze(-1) * slope

    return scalar_loss(logits, target, support, losses, return_stats, **options)


def _expectation(f: torch.Tensor, support: Support) -> tuple[torch.Tensor, torch.Tensor]:
    """The expected value ``[...]``, and its derivative by the logits ``[..., K]``."""
    q = torch.softmax(f, -1)
    value = support.expectation(q)
    if support.transform != "symlog":
        return value, q * (support.centres(dtype=f.dtype, device=f.device) - value.unsqueeze(-1))
    # The mean is taken on the grid and then expanded: symexp has the slope exp(|mean|) = 1 + |value|.
    grid = support.grid_centres(dtype=f.dtype, device=f.device)
    mean = (q @ grid).unsqueeze(-1)
    return value, (1 + value.abs()).unsqueeze(-1) * q * (grid - mean)
