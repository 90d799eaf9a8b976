"""Label-distributionally robust losses: the worst case over the label's distribution, with a temperature."""

from __future__ import annotations

import math
from typing import Literal, Unpack, overload

import torch

from ..reference import HLGaussStats
from ..support import Support
from .sample_losses import LossAndGradient, Options, distribution_loss, masked_sum, require


@overload
def ldr_kl_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    temperature: float = ...,
    margin: float = ...,
    return_stats: Literal[False] = ...,
    **options: Unpack[Options],
) -> torch.Tensor: ...
@overload
def ldr_kl_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    temperature: float = ...,
    margin: float = ...,
    return_stats: bool,
    **options: Unpack[Options],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]: ...
def ldr_kl_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    temperature: float = 1.0,
    margin: float = 0.0,
    return_stats: bool = False,
    **options: Unpack[Options],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """``sum_y p_y T log((1 / K) sum_k exp((f_k - f_y + margin [k != y]) / T))`` with the temperature T.

    LDR-KL of Zhu, Ying & Yang 2023 ("Label distributionally robust losses for multi-class classification: consistency,
    robustness and adaptivity", ICML, arXiv 2112.14869): for class y ``max_d sum_k d_k (f_k - f_y + margin [k != y]) -
    T KL(d, 1 / K)`` over all distributions d of the label. Here its expectation over p. The paper's networks divide f
    by the mean of its absolute values first; here logits are taken as they come.

    With w(y) the softmax of ``(f_k + margin [k != y]) / T`` the gradient is ``sum_y p_y w(y)_j - p_j``.

    ``temperature = 1, margin = 0`` is `isogon.kernels.hl_gauss_loss` less ``log K``. As the temperature goes to 0 class
    y has the loss of Crammer and Singer, ``max_k f_k - f_y + margin [k != y]``, and as it grows
    ``mean_k f_k - f_y + margin [k != y]``.

    Without a margin the least loss is at ``softmax(f / T) = p``, so that q is proportional to ``p^T``: sharper than p
    for T above 1. A margin also holds between neighbouring bins that share a target's mass, hence 0 by default.

    Args:
        logits: as in the package's docstring, like target and support.
        target: likewise.
        support: likewise.
        temperature: above 0, in units of logits.
        margin: at least 0, in units of logits.
        return_stats: see the package's docstring.
        **options: see the package's docstring.
    """
    require("temperature", temperature, 0, above=True)
    require("margin", margin, 0)

    def losses(f: torch.Tensor, p: torch.Tensor) -> LossAndGradient:
        return _ldr_kl(f, p, f.new_full(f.shape[:-1], temperature), margin)

    return distribution_loss(logits, target, support, losses, return_stats, **options)


@overload
def aldr_kl_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    temperature: float = ...,
    alpha: float = ...,
    margin: float = ...,
    steps: int = ...,
    return_stats: Literal[False] = ...,
    **options: Unpack[Options],
) -> torch.Tensor: ...
@overload
def aldr_kl_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    temperature: float = ...,
    alpha: float = ...,
    margin: float = ...,
    steps: int = ...,
    return_stats: bool,
    **options: Unpack[Options],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]: ...
def aldr_kl_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    support: Support,
    *,
    temperature: float = 1.0,
    alpha: float = 2.0,
    margin: float = 0.0,
    steps: int = 10,
    return_stats: bool = False,
    **options: Unpack[Options],
) -> torch.Tensor | tuple[torch.Tensor, HLGaussStats]:
    """`ldr_kl_loss` with a temperature T of each sample's own, less ``alpha log K (T - T0)^2 / (2 T0)``.

    ALDR-KL of Zhu, Ying & Yang 2023 (see `ldr_kl_loss`): the maximum is taken over T as well, with that penalty. It
    is attained where ``T = T0 (1 - KL(softmax(f / T), 1 / K) / (alpha log K))``: from T0 for a flat prediction down to
    ``T0 (1 - 1 / alpha)`` for a certain one.

    The paper keeps T for each training example, and makes one such step from its last value at each visit. Samples of
    replay have no such identity, so here `steps` are made at once, from T0, with the margin left out as in the paper's
    code; they fall towards the largest solution. T is then a constant: the gradient is that of `ldr_kl_loss` at T,
    which is also the gradient through T once the steps have converged and there is no margin.

    ``steps = 0``, or alpha to infinity, is `ldr_kl_loss`. The expectation over p and where the loss is least are as
    there, with the sample's own T.

    Args:
        logits: as in the package's docstring, like target and support.
        target: likewise.
        support: likewise.
        temperature: T0, above 0, in units of logits.
        alpha: above 1, so that temperatures stay above 0.
        margin: at least 0, in units of logits.
        steps: towards the sample's own temperature, at least 0.
        return_stats: see the package's docstring.
        **options: see the package's docstring.
    """
    require("temperature", temperature, 0, above=True)
    require("alpha", alpha, 1, above=True)
    require("margin", margin, 0)
    require("steps", steps, 0)

    def losses(f: torch.Tensor, p: torch.Tensor) -> LossAndGradient:
        stiffness = alpha * math.log(f.shape[-1])
        own = f.new_full(f.shape[:-1], temperature)
        for _ in range(steps):
            own = temperature * (1 - _divergence_from_uniform(f / own.unsqueeze(-1)) / stiffness)
        loss, gradient = _ldr_kl(f, p, own, margin)
        return loss - stiffness * (own - temperature).square() / (2 * temperature), gradient

    return distribution_loss(logits, target, support, losses, return_stats, **options)


def _divergence_from_uniform(f: torch.Tensor) -> torch.Tensor:
    """``KL(softmax(f), 1 / K)``, ``[...]``."""
    log_q = torch.log_softmax(f, -1)
    return masked_sum(log_q.exp(), log_q) + math.log(f.shape[-1])


def _ldr_kl(f: torch.Tensor, p: torch.Tensor, temperature: torch.Tensor, margin: float) -> LossAndGradient:
    """LDR-KL at temperatures ``[...]`` in O(K), without ever raising anything to a positive power.

    Written with s = softmax(f / T) and the odds against class y, since
    ``sum_k exp((f_k - f_y + margin [k != y]) / T) = 1 + exp(margin / T) (1 - s_y) / s_y``. For the largest s_y the
    complement ``1 - s_y`` is summed from the others, where subtracting would leave nothing.
    """
    t = temperature.unsqueeze(-1)
    log_s = torch.log_softmax(f / t, -1)
    top = torch.zeros_like(log_s, dtype=torch.bool).scatter_(-1, log_s.argmax(-1, keepdim=True), True)
    others = log_s.masked_fill(top, -torch.inf).logsumexp(-1, keepdim=True)
    log_complement = torch.where(top, others, torch.log1p(-log_s.exp().masked_fill(top, 0.0)))
    per_class = torch.nn.functional.softplus(margin / t + log_complement - log_s) - math.log(f.shape[-1])
    # log(1 - s_y + s_y exp(-margin / T)), by which class y's softmax with a margin differs from s
    log_scale = torch.logaddexp(log_complement, log_s - margin / t)
    share = (p * torch.exp(-log_scale)).masked_fill(top, 0.0)
    from_top = p.masked_fill(~top, 0.0).sum(-1, keepdim=True)
    log_scale_of_top = log_scale.masked_fill(~top, 0.0).sum(-1, keepdim=True)
    beside_top = torch.where(top, 0.0, from_top * torch.exp(log_s - log_scale_of_top))
    pulled = p * torch.exp(log_complement - log_scale)
    gradient = log_s.exp() * (share.sum(-1, keepdim=True) - share) + beside_top - pulled
    return temperature * masked_sum(p, per_class), gradient
