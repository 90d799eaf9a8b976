"""Losses for noisy value targets, beside `isogon.kernels.hl_gauss_loss` and of the same interface.

A sample is a row of K logits f with a scalar target y. ``p = target_probabilities(y, support, projection)`` is its
target distribution, ``q = softmax(f)`` the predicted one.

Most of these losses were published for one right class. Where the paper gives the loss ``l(f, k)`` of class k only, the
loss here is its expectation ``sum_k p_k l(f, k)``: linear in p, so that the loss averaged over random targets is the
loss of their averaged distribution, as for cross-entropy, and the paper's own loss where p is one-hot. Such an
expectation need not be least at ``q = p``. Each function says where it is least, because a value is read off q.

Options, everywhere as of `isogon.kernels.hl_gauss_loss`, with the same errors:

    logits: ``[..., K]`` floating. Arithmetic is in float64 for float64 logits and in float32 otherwise, under autocast
        too; a gradient is formed there and rounded once.
    target: ``[...]`` floating, in units of value; a constant.
    support: the bins.
    projection: of the target onto the bins; `mse_loss` and `huber_loss` project nothing and have no such option.
    weight: ``[...]`` or None.
    reduction: ``"mean"``, ``"sum"``, ``"weighted_mean"`` or ``"none"``.
    out_of_range: ``"clamp"`` or ``"error"``.
    return_stats: also give `isogon.kernels.HLGaussStats`, whose ``loss`` is then this loss.

A parameter outside its range is a ``ValueError`` that names it. These are plain torch with gradients by hand, not fused
kernels. A second derivative is refused.
"""

from .comp_sum import comp_sum_loss, generalised_cross_entropy_loss
from .cross_entropies import label_smoothed_loss, symmetric_cross_entropy_loss
from .distributional import aldr_kl_loss, ldr_kl_loss
from .expectation import huber_loss, mse_loss
from .z_loss import z_loss

__all__ = [
    "aldr_kl_loss",
    "comp_sum_loss",
    "generalised_cross_entropy_loss",
    "huber_loss",
    "label_smoothed_loss",
    "ldr_kl_loss",
    "mse_loss",
    "symmetric_cross_entropy_loss",
    "z_loss",
]
