"""The contract of the fused row kernels: what every backend takes, and what it gives back.

A *sample* is one row of K logits with one target. The target is projected onto the bins inside the kernel, row by row,
so that target distributions never exist as a tensor. P samples read rows of ``logits [N, K]``: sample i reads row
``index[i]``, or row i where there is no index (then P = N).

Three modules implement the contract: `rows_triton` (CUDA), `rows_native` (C), `rows_torch` (any device and dtype). One
test suite holds all three to the plain reference of `reference`, Triton on a GPU (its interpreter gets through a part).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple, Protocol, TypeAlias

import torch

from .projections import Projection, bin_position
from .support import Support


class ScalarTargets(NamedTuple):
    """Scalar targets, ready to be projected: everything that a kernel must know of a `Support`.

    The *position* of a target, in bins, is ``(clamp(target, lowest, highest) - origin) / width`` in float64, again
    clamped to ``[0, last]``. With ``projection``

    * ``"hl_gauss"``: positions count from the first edge, bin k lies between k and k + 1, ``last`` is K, and bin k has
      the mass of a Gaussian of standard deviation ``sigma_ratio`` around the position, renormalised to ``[0, K]``;
    * ``"two_hot"``: positions count from the first centre, ``last`` is K - 1, and bin k has mass
      ``max(0, 1 - |position - k|)``;
    * ``"one_hot"``: positions count from the first edge, and all mass is in bin
      ``clamp(ceil(position) - 1, 0, K - 1)``.

    Attributes:
        target: ``[P]`` floating. Of transformed supports the float64 positions themselves, with origin 0 and width 1.
        projection: as above.
        bins: K.
        sigma_ratio: in bin widths; above 0.
        lowest: targets are clamped to it first.
        highest: likewise.
        origin: of positions, in units of target.
        width: of a bin, in units of target.
    """

    target: torch.Tensor
    projection: Projection
    bins: int
    sigma_ratio: float
    lowest: float
    highest: float
    origin: float
    width: float


class DistributionTargets(NamedTuple):
    """Target distributions, and optionally the Bellman update that moves them first (C51).

    Without ``reward`` the targets are ``probs`` themselves. With it bin k's mass goes to position
    ``clamp((reward + discount * (origin + k * width) - origin) / width, 0, K - 1)``, in float64, and is shared by the
    two nearest bins by distance (Bellemare et al. 2017, equation 7).

    Attributes:
        probs: ``[P, K]`` floating.
        bins: K.
        reward: ``[P]`` floating or None.
        discount: ``[P]`` floating, given where reward is.
        origin: centre of bin 0, in units of value.
        width: of a bin, in units of value.
    """

    probs: torch.Tensor
    bins: int
    reward: torch.Tensor | None = None
    discount: torch.Tensor | None = None
    origin: float = 0.0
    width: float = 1.0


RowTargets: TypeAlias = ScalarTargets | DistributionTargets


def scalar_targets(target: torch.Tensor, support: Support, projection: Projection) -> ScalarTargets:
    """Targets ``[P]`` in units of value, made ready for a kernel.

    Targets of a transformed support become positions here: kernels know equal widths alone.
    """
    if support.transform:
        position = bin_position(target, support, projection)
        return ScalarTargets(
            position, projection, support.bins, support.sigma_ratio, 0.0, float(support.bins), 0.0, 1.0
        )
    return ScalarTargets(target, projection, *_grid(support, projection))


@lru_cache(maxsize=256)
def _grid(support: Support, projection: Projection) -> tuple[int, float, float, float, float, float]:
    origin = support.first_centre if projection == "two_hot" else support.first_centre - support.width / 2
    return support.bins, support.sigma_ratio, support.lowest, support.highest, origin, support.width


class RowStats(NamedTuple):
    """What a pass over the rows sees besides the loss: float32 ``[P]``, weights not applied; 0 where the weight is 0.

    Attributes:
        mean: of the predicted distribution q, ``sum_k q_k (k - (K - 1) / 2)``, in bins from the middle of the range;
            or, where the caller gave float64 ``centres [K]``, ``sum_k q_k centres_k``, accumulated in float64.
        entropy: of the predicted distribution, in nats.
        logsumexp: of the logits.
        target_mean: of the projected target, in bins from bin 0 (for `DistributionTargets`; None for scalars).
    """

    mean: torch.Tensor
    entropy: torch.Tensor
    logsumexp: torch.Tensor
    target_mean: torch.Tensor | None = None


class RowResult(NamedTuple):
    """What a forward pass gives.

    Attributes:
        loss: float32 ``[P]``: the cross-entropy of each sample in nats, weights **not** applied; 0 where the weight is
            0. ``-sum_k p_k log q_k`` where ``p_k = 0`` counts 0, also for a logit of minus infinity. May be None where
            only the total was wanted.
        gradient: None, or the gradient of ``sum_i coefficient * weight_i * loss_i``, in the logits' dtype and shape:
            rows ``coefficient * weight_i * (q - p)``, formed in float32 and rounded once. With an index, rows that
            nobody reads are 0, and rows read by several samples have the sum of theirs, added in the order of samples.
            Exactly 0 where the weight is 0, whatever the logits and targets are.
        stats: None, or as asked.
        total: None, or 0-d float32: ``coefficient * sum_i weight_i * loss_i``, the same whatever the number of threads.
        clipped: scalars with non-zero weight outside ``[lowest, highest]``; -1 where the backend does not count.
        nan: scalars with non-zero weight that are NaN; -1 where the backend does not count.
    """

    loss: torch.Tensor | None
    gradient: torch.Tensor | None
    stats: RowStats | None
    total: torch.Tensor | None = None
    clipped: int = -1
    nan: int = -1


class RowKernels(Protocol):
    """A backend: a module with these functions.

    NaN in a sample's logits or target makes that sample's loss and gradient NaN, and no stats finite that are made of
    it. It touches no other: results of a sample do not depend, to the bit, on the other samples, on its place among
    them or on the number of threads. A logit of minus infinity masks its bin. float64 is `rows_torch`'s alone; the
    others take float32, bfloat16 and float16 logits, and compute in float32, positions in float64. Tensors lie on one
    device; logits may have any strides (stride 0 too), and a gradient is contiguous. Indices are int64 and trusted:
    whoever calls has checked them, and a negative one (a sample to leave out) comes with weight 0 and is not read.
    """

    def forward(
        self,
        logits: torch.Tensor,
        index: torch.Tensor | None,
        targets: RowTargets,
        weight: torch.Tensor | None,
        coefficient: float,
        gradient: bool,
        stats: bool,
        only_total: bool = False,
        centres: torch.Tensor | None = None,
    ) -> RowResult:
        """Loss, and if asked gradient and stats, in one pass.

        ``weight``: ``[P]`` floating. ``only_total``: whether a backend that gives a total may leave out the losses.
        """
        ...

    def gradient(
        self,
        logits: torch.Tensor,
        index: torch.Tensor | None,
        targets: RowTargets,
        weight: torch.Tensor | None,
        upstream: torch.Tensor,
    ) -> torch.Tensor:
        """The gradient of ``sum_i upstream_i * weight_i * loss_i`` anew; ``upstream`` is ``[P]`` or 0-d float32.

        For a second backward pass over the same graph, and for a reduction of ``"none"``.
        """
        ...

    def scale_(self, gradient: torch.Tensor, upstream: torch.Tensor) -> None:
        """Multiply a gradient in place by a 0-d factor: no memory is touched where it is 1, and no host ever waits."""
        ...
