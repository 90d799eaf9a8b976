"""Cross-entropies of changed targets: label-smoothed, and symmetric."""

from __future__ import annotations

from typing import Literal, Unpack, overload

import torch

from ..reference import HLGaussStats
from ..support import Support
from .sample_losses import LossAndGradient, Options, distribution_loss, masked_sum, require


@overload
def label_smoothed_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    epsilon: float = ...,
    return_stats: Literal[False] = ...,
    **options: Unpack[Options],
) -> torch.Tensor: ...
@overload
def label_smoothed_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    epsilon: float = ...,
    return_stats: bool,
    **options: Unpack[Options],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]: ...
def label_smoothed_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    epsilon: float = 0.1,
    return_stats: bool = False,
    **options: Unpack[Options],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """``-sum_k p'_k log q_k`` with ``p'_k = (1 - epsilon) p_k + epsilon / K``.

    Szegedy et al. 2016 ("Rethinking the Inception architecture for computer vision"), section 7, with p in the place of
    their one-hot distribution. Its gradient is ``q - p'``.

    ``epsilon = 0`` is `isogon.kernels.hl_gauss_loss`. The least loss is at ``q = p'``, whose mean lies by the share
    epsilon closer to the mean of the bins: values read off q shrink towards it. A logit of minus infinity makes the
    loss infinite for epsilon above 0.

    Args:
        logits: as in the package's docstring, like target and support.
        target: likewise.
        support: likewise.
        epsilon: from 0 to 1, the mass that is spread evenly.
        return_stats: see the package's docstring.
        **options: see the package's docstring.
    """
    require("epsilon", epsilon, 0, 1)

    def losses(f: torch.Tensor, p: torch.Tensor) -> LossAndGradient:
        smoothed = (1 - epsilon) * p + epsilon / p.shape[-1]
        log_q = torch.log_softmax(f, -1)
        return -masked_sum(smoothed, log_q), log_q.exp() - smoothed

    return distribution_loss(logits, target, support, losses, return_stats, **options)


@overload
def symmetric_cross_entropy_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    alpha: float = ...,
    beta: float = ...,
    log_zero: float = ...,
    return_stats: Literal[False] = ...,
    **options: Unpack[Options],
) -> torch.Tensor: ...
@overload
def symmetric_cross_entropy_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    alpha: float = ...,
    beta: float = ...,
    log_zero: float = ...,
    return_stats: bool,
    **options: Unpack[Options],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]: ...
def symmetric_cross_entropy_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    alpha: float = 0.1,
    beta: float = 1.0,
    log_zero: float = -4.0,
    return_stats: bool = False,
    **options: Unpack[Options],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """``-alpha sum_k p_k log q_k - beta sum_k q_k a_k`` with ``a_k = max(log p_k, log_zero)``.

    Wang et al. 2019 ("Symmetric cross entropy for robust learning with noisy labels", arXiv 1908.06112), section 4: the
    second, reverse cross-entropy has the roles of target and prediction exchanged, and ``log 0`` is a negative constant
    A there. Both are defined for distributions, so no expectation is taken; but the tails of a Gaussian come as close
    to 0 as one likes, and so A is a floor here: for a one-hot p that is the paper's definition.

    Its gradient is ``alpha (q_j - p_j) + beta q_j (sum_k q_k a_k - a_j)``.

    ``alpha = 1, beta = 0`` is `isogon.kernels.hl_gauss_loss`. With ``alpha = 0`` a one-hot p gives
    ``-log_zero beta (1 - q_k)``: `comp_sum_loss` with ``tau = 2``, scaled. The reverse term is least with all mass
    at the mode of p, so that q becomes sharper than p the larger ``beta / alpha`` is.

    Args:
        logits: as in the package's docstring, like target and support.
        target: likewise.
        support: likewise.
        alpha: of the cross-entropy, at least 0.
        beta: of the reverse cross-entropy, at least 0.
        log_zero: the paper's A, below 0.
        return_stats: see the package's docstring.
        **options: see the package's docstring.
    """
    require("alpha", alpha, 0)
    require("beta", beta, 0)
    if not -torch.inf < log_zero < 0:
        raise ValueError(f"log_zero is {log_zero}: it must be finite and below 0")

    def losses(f: torch.Tensor, p: torch.Tensor) -> LossAndGradient:
        log_q = torch.log_softmax(f, -1)
        q = log_q.exp()
        a = p.log().clamp(min=log_zero)
        reverse = -(q * a).sum(-1)
        loss = beta * reverse - (alpha * masked_sum(p, log_q) if alpha else 0.0)
        return loss, alpha * (q - p) - beta * q * (a + reverse.unsqueeze(-1))

    return distribution_loss(logits, target, support, losses, return_stats, **options)
