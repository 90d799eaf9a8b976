"""The fused losses as operators of `torch.library`: what `torch.compile` puts into its graph.

Imported while something is compiled, and only then: in eager mode an operator written in Python costs twice the time of
an autograd function. Backward makes the gradient in a pass of its own, so that a graph holds nothing between the two.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Literal, cast

import torch

from .backends import Impl, choose
from .cross_entropy import OutOfRange
from .projections import Projection
from .rows import DistributionTargets, RowTargets, scalar_targets
from .selection import check_rows
from .support import Support


@torch.library.custom_op("isogon::row_losses", mutates_args=())
def _row_losses(
    logits: torch.Tensor,
    index: torch.Tensor | None,
    target: torch.Tensor | None,
    probs: torch.Tensor | None,
    reward: torch.Tensor | None,
    discount: torch.Tensor | None,
    weight: torch.Tensor | None,
    support: Sequence[float],
    choices: str,
    stats: bool,
) -> list[torch.Tensor]:
    projection, out_of_range, validate, impl = choices.split()
    kernels = choose(cast(Impl, impl), logits)
    bins = support_of(tuple(support))
    if target is not None and (validate == "True" or logits.device.type == "cpu"):
        from .hl_gauss import check_values

        check_values(target, weight, bins, cast(OutOfRange, out_of_range))
    if index is not None and (validate == "True" or logits.device.type == "cpu"):
        check_rows(index, logits.shape[0])
    targets = _targets(target, probs, reward, discount, bins, cast(Projection, projection))
    centres = bins.centres(dtype=torch.float64, device=logits.device) if bins.transform == "symexp" else None
    result = kernels.forward(logits, index, targets, weight, 1.0, gradient=False, stats=stats, centres=centres)
    seen = result.stats
    assert result.loss is not None
    return [result.loss] if seen is None else [result.loss, *(part for part in seen if part is not None)]


@_row_losses.register_fake
def _(
    logits: torch.Tensor, index: torch.Tensor | None, target: torch.Tensor | None, *others: Any
) -> list[torch.Tensor]:
    stats = others[-1]
    samples = logits.shape[0] if index is None else index.shape[0]
    parts = 1 if not stats else 4 if target is not None else 5
    dtype = torch.float64 if logits.dtype == torch.float64 else torch.float32
    return [logits.new_empty(samples, dtype=dtype) for _ in range(parts)]


@torch.library.custom_op("isogon::row_gradient", mutates_args=())
def _row_gradient(
    logits: torch.Tensor,
    index: torch.Tensor | None,
    target: torch.Tensor | None,
    probs: torch.Tensor | None,
    reward: torch.Tensor | None,
    discount: torch.Tensor | None,
    weight: torch.Tensor | None,
    support: Sequence[float],
    choices: str,
    upstream: torch.Tensor,
) -> torch.Tensor:
    projection, _, _, impl = choices.split()
    targets = _targets(target, probs, reward, discount, support_of(tuple(support)), cast(Projection, projection))
    # The upstream gradient is that of losses without weights, so that it brings them along.
    used = None if weight is None else (weight != 0).to(upstream.dtype)
    return choose(cast(Impl, impl), logits).gradient(logits, index, targets, used, upstream)


@_row_gradient.register_fake
def _(logits: torch.Tensor, *others: Any) -> torch.Tensor:
    return logits.new_empty(logits.shape)


def _keep(ctx: Any, inputs: tuple[Any, ...], output: list[torch.Tensor]) -> None:
    *tensors, support, choices, _ = inputs
    ctx.given = [tensor is not None for tensor in tensors]
    ctx.save_for_backward(*(tensor for tensor in tensors if tensor is not None))
    ctx.constants = support, choices


def _go_back(ctx: Any, upstream: list[torch.Tensor]) -> tuple[torch.Tensor | None, ...]:
    saved = iter(ctx.saved_tensors)
    tensors = [next(saved) if given else None for given in ctx.given]
    gradient = torch.ops.isogon.row_gradient(*tensors, *ctx.constants, upstream[0].contiguous())
    return (gradient, *[None] * 9)


_row_losses.register_autograd(_go_back, setup_context=_keep)


def compiled_row_losses(
    logits: torch.Tensor,
    index: torch.Tensor | None,
    targets: tuple[torch.Tensor | None, torch.Tensor | None, torch.Tensor | None, torch.Tensor | None],
    weight: torch.Tensor | None,
    support: Support,
    choices: tuple[Projection, OutOfRange, bool, Impl],
    stats: bool,
) -> list[torch.Tensor]:
    """Losses ``[P]``, weights not applied, and if asked the parts of `rows.RowStats`.

    Args:
        logits: ``[N, K]``.
        index: see `rows`.
        targets: scalar targets, or None and probabilities, rewards, discounts.
        weight: ``[P]`` or None.
        support: the bins.
        choices: projection, out_of_range, validate and impl.
        stats: whether they are wanted.
    """
    flat = [*flat_support(support)]
    loss, *seen = torch.ops.isogon.row_losses(
        logits, index, *targets, weight, flat, " ".join(str(choice) for choice in choices), stats
    )
    return [loss, *(part.detach() for part in seen)]


_ANCHORS: tuple[Literal["edges", "atoms"], ...] = ("edges", "atoms")
_TRANSFORMS: tuple[Literal["symlog", "symexp"] | None, ...] = (None, "symlog", "symexp")


def flat_support(support: Support) -> tuple[float, ...]:
    """A support as numbers, which operators take."""
    return (
        support.vmin,
        support.vmax,
        float(support.bins),
        support.sigma_ratio,
        float(_ANCHORS.index(support.anchor)),
        float(_TRANSFORMS.index(support.transform)),
    )


@lru_cache(maxsize=64)
def support_of(flat: tuple[float, ...]) -> Support:
    """The support that `flat_support` made numbers of."""
    vmin, vmax, bins, sigma_ratio, anchor, transform = flat
    return Support(vmin, vmax, int(bins), sigma_ratio, _ANCHORS[int(anchor)], _TRANSFORMS[int(transform)])


def _targets(
    target: torch.Tensor | None,
    probs: torch.Tensor | None,
    reward: torch.Tensor | None,
    discount: torch.Tensor | None,
    support: Support,
    projection: Projection,
) -> RowTargets:
    if target is not None:
        return scalar_targets(target, support, projection)
    assert probs is not None
    return DistributionTargets(probs, support.bins, reward, discount, support.first_centre, support.width)
