"""The Z-loss: a function of the logits' standard scores."""

from __future__ import annotations

from typing import Literal, Unpack, overload

import torch

from ..reference import HLGaussStats
from ..support import Support
from .sample_losses import LossAndGradient, Options, distribution_loss, require


@overload
def z_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    a: float = ...,
    b: float = ...,
    eps: float = ...,
    return_stats: Literal[False] = ...,
    **options: Unpack[Options],
) -> torch.Tensor: ...
@overload
def z_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    a: float = ...,
    b: float = ...,
    eps: float = ...,
    return_stats: bool,
    **options: Unpack[Options],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]: ...
def z_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    a: float = 1.0,
    b: float = 1.0,
    eps: float = 1e-5,
    return_stats: bool = False,
    **options: Unpack[Options],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """``sum_k p_k log(1 + exp(a (b - z_k))) / a`` with the standard scores ``z_k = (f_k - mean f) / std f``.

    De Brébisson & Vincent 2016 ("The Z-loss: a shift and scale invariant classification loss belonging to the spherical
    family", arXiv 1604.08859), the loss of one class; std is over the row, with K in its denominator. Here its
    expectation over p. The paper's loss has no eps: with ``eps = 0`` it is unchanged by adding to the logits or
    multiplying them by a positive number, but undefined (NaN) where all are equal, as of a head that begins at 0; std
    is therefore ``sqrt(variance + eps)``, as in layer normalisation.

    With ``g_k = -p_k sigmoid(a (b - z_k))`` the gradient is ``(g_j - mean g - z_j mean(g z)) / std f``.

    Scores rank the bins and say nothing of probability: the scale of the logits is not learnt, so a value must not be
    read off softmax(f) unless something else sets that scale. Arithmetic is in float64, since squares of large logits
    overflow float32. A logit of minus infinity makes its sample's loss NaN.

    Args:
        logits: as in the package's docstring, like target and support.
        target: likewise.
        support: likewise.
        a: above 0: how sharply the loss turns from a straight line to 0.
        b: the score at which it does. Scores are at most ``sqrt(K - 1)``.
        eps: at least 0, in squared units of logits.
        return_stats: see the package's docstring.
        **options: see the package's docstring.
    """
    require("a", a, 0, above=True)
    require("b", b, -torch.inf)
    require("eps", eps, 0)

    def losses(f: torch.Tensor, p: torch.Tensor) -> LossAndGradient:
        centred = f.double() - f.double().mean(-1, keepdim=True)
        std = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
        z, mass = centred / std, p.double()
        loss = (mass * torch.nn.functional.softplus(a * (b - z))).sum(-1) / a
        g = -mass * torch.sigmoid(a * (b - z))
        gradient = (g - g.mean(-1, keepdim=True) - z * (g * z).mean(-1, keepdim=True)) / std
        return loss.to(f.dtype), gradient.to(f.dtype)

    return distribution_loss(logits, target, support, losses, return_stats, **options)
