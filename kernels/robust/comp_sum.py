"""Comp-sum losses, of which cross-entropy and generalised cross-entropy are members."""

from __future__ import annotations

from typing import Literal, Unpack, overload

import torch

from ..reference import HLGaussStats
from ..support import Support
from .sample_losses import LossAndGradient, Options, distribution_loss, masked_sum, require


@overload
def comp_sum_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    tau: float = ...,
    return_stats: Literal[False] = ...,
    **options: Unpack[Options],
) -> torch.Tensor: ...
@overload
def comp_sum_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    tau: float = ...,
    return_stats: bool,
    **options: Unpack[Options],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]: ...
def comp_sum_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    tau: float = 1.5,
    return_stats: bool = False,
    **options: Unpack[Options],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """``sum_k p_k [q_k^(tau - 1) - 1] / (1 - tau)``, and ``-sum_k p_k log q_k`` for ``tau = 1``.

    Mao, Mohri & Zhong 2023 ("Cross-entropy loss functions: theoretical analysis and applications", arXiv 2304.07288),
    section 2: class k has the loss ``Phi(sum_{j != k} exp(f_j - f_k))`` with ``Phi(u) = [(1 + u)^(1 - tau) - 1] /
    (1 - tau)``, ``log(1 + u)`` for ``tau = 1``; and ``1 + u = 1 / q_k``. Here its expectation over p.

    Its gradient is ``q_j sum_k r_k - r_j`` with ``r_k = p_k q_k^(tau - 1)``.

    ``tau = 0`` is the sum-exponential loss, 1 is `isogon.kernels.hl_gauss_loss`, ``1 < tau < 2`` is
    `generalised_cross_entropy_loss`, 2 is ``1 - sum_k p_k q_k``, which for one class is half the absolute difference of
    the distributions. Above 1 the loss of a sample is at most ``1 / (tau - 1)``, and samples that fit badly pull less.

    The least loss is at ``q_k proportional to p_k^(1 / (2 - tau))``: sharper than p for tau above 1 and flatter below
    it, with the same mean where p is symmetric; for ``tau = 2`` all mass is at the mode of p.

    Args:
        logits: as in the package's docstring, like target and support.
        target: likewise.
        support: likewise.
        tau: from 0 to 2. Below 1 a bin of q_k below ``exp(-88 / (1 - tau))`` overflows float32: the loss is then
            infinite and the gradient not finite.
        return_stats: see the package's docstring.
        **options: see the package's docstring.
    """
    require("tau", tau, 0, 2)
    return distribution_loss(logits, target, support, lambda f, p: _comp_sum(f, p, tau), return_stats, **options)


@overload
def generalised_cross_entropy_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    q: float = ...,
    return_stats: Literal[False] = ...,
    **options: Unpack[Options],
) -> torch.Tensor: ...
@overload
def generalised_cross_entropy_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    q: float = ...,
    return_stats: bool,
    **options: Unpack[Options],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]: ...
def generalised_cross_entropy_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    q: float = 0.7,
    return_stats: bool = False,
    **options: Unpack[Options],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """``sum_k p_k (1 - softmax(f)_k^q) / q``: `comp_sum_loss` with ``tau = 1 + q``.

    Zhang & Sabuncu 2018 ("Generalized cross entropy loss for training deep neural networks with noisy labels"), section
    3.2, the L_q loss of one class; 0.7 is the paper's choice. Here its expectation over p. ``q = 0``, the limit, is
    `isogon.kernels.hl_gauss_loss`; ``q = 1`` is ``1 - sum_k p_k softmax(f)_k``.

    Args:
        logits: as in the package's docstring, like target and support.
        target: likewise.
        support: likewise.
        q: from 0 to 1.
        return_stats: see the package's docstring.
        **options: see the package's docstring.
    """
    require("q", q, 0, 1)
    return distribution_loss(logits, target, support, lambda f, p: _comp_sum(f, p, 1 + q), return_stats, **options)


def _comp_sum(f: torch.Tensor, p: torch.Tensor, tau: float) -> LossAndGradient:
    log_q = torch.log_softmax(f, -1)
    if tau == 1:
        loss, r = -masked_sum(p, log_q), p
    else:
        # expm1 keeps the loss exact for tau close to 1, where both terms of the formula approach 1 / (1 - tau).
        loss = masked_sum(p, torch.expm1((tau - 1) * log_q)) / (1 - tau)
        r = torch.where(p == 0, 0.0, p * torch.exp((tau - 1) * log_q))
    return loss, log_q.exp() * r.sum(-1, keepdim=True) - r
