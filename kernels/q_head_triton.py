"""A Q-head's loss, gradient and values in Triton, for CUDA: a grouped matrix product with the loss in its epilogue.

B states, A actions, P pairs, D features, K bins. Pairs are sorted by action on the device, so each block of weights is
read once in a pass, and each block of their gradient is written once. Nothing makes the host wait, but for the number
of blocks of a sparse gradient.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

from .hl_gauss import centres_for, value_of_mean
from .pairs import Pairs
from .projections import Projection
from .q_head_backend import Best, Gradients, PairLosses, Wanted, best_of, row_sparse
from .q_head_kernels_triton import action_values, hidden_gradient, pair_rows, sum_by_state, weight_gradient
from .rows import RowKernels, ScalarTargets, scalar_targets
from .rows_triton import scalar_arguments
from .support import Support

_DTYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16, torch.float16: tl.float16}

_NO_TARGETS = dict.fromkeys(("low", "high", "origin", "width", "inverse_width", "inverse_sigma"), 0.0)
"""Instead of `scalar_arguments`, where values alone are wanted."""

_PROGRAMS = 1024
"""Programs among which the actions' values are shared out: several for each of a GPU's 132 processors."""


class Tiling(NamedTuple):
    """Sizes of a kernel's tiles, and how its programs run."""

    samples: int
    bins: int
    features: int
    warps: int
    stages: int

    def options(self) -> dict[str, int]:
        """Of a launch."""
        return {"num_warps": self.warps, "num_stages": self.stages, "enable_fp_fusion": True}


def pair_tiling(samples: int, bins: int, weight: torch.dtype, compute: torch.dtype) -> Tiling:
    """Tiles of `pair_rows`, for about this many pairs of an action. Larger ones spill registers."""
    block_k = max(16, triton.next_power_of_2(bins))
    most = 16 if compute.itemsize == 4 or block_k > 128 else 64
    block_d = 16 if block_k > 256 else 32 if block_k > 128 or weight.itemsize == 4 else 64
    warps = 16 if block_k > 256 else 8 if block_k > 128 or _rows(samples, most) * block_k > 4096 else 4
    return Tiling(_rows(samples, most), block_k, block_d, warps, 3 if block_k <= 256 else 2)


def action_tiling(states: int, bins: int, weight: torch.dtype, compute: torch.dtype) -> Tiling:
    """Tiles of `action_values`. Larger ones spill registers."""
    block_k = max(16, triton.next_power_of_2(bins))
    most = 32 if compute.itemsize == 4 else 64 if weight.itemsize == 4 else 128
    block = _rows(states, max(16, min(most, (4096 if compute.itemsize == 4 else 16384) // block_k)))
    block_d = 16 if block_k > 256 else 32 if block_k > 128 or weight.itemsize == 4 else 64
    warps = 16 if block_k > 256 else 8 if block * block_k >= 4096 else 4
    return Tiling(block, block_k, block_d, warps, 3 if block_k <= 256 else 2)


def gradient_tiling(samples: int, bins: int, features: int, compute: torch.dtype) -> Tiling:
    """Tiles of gradients, which need not hold whole rows."""
    narrow = compute.itemsize == 4
    block_k = min(max(16, triton.next_power_of_2(bins)), 64)
    block_d = min(max(16, triton.next_power_of_2(features)), 32 if narrow else 128)
    return Tiling(_rows(samples, 32 if narrow else 64), block_k, block_d, 8 if block_k * block_d >= 4096 else 4, 2)


def _rows(samples: int, most: int) -> int:
    return min(max(16, int(triton.next_power_of_2(samples))), most)


def pair_losses(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pairs: Pairs,
    target: torch.Tensor,
    support: Support,
    projection: Projection,
    compute: torch.dtype,
    *,
    kernels: RowKernels,
    gradient: bool,
    stats: bool,
) -> PairLosses:
    """The contract is `q_head_backend.QHeadBackend`'s."""
    size = target.shape[0]
    loss = hidden.new_zeros(size, dtype=torch.float32)
    rows = hidden.new_empty((size, support.bins), dtype=torch.float32) if gradient else None
    seen = hidden.new_zeros((3, size), dtype=torch.float32) if stats else None
    targets = scalar_targets(target, support, projection)
    _pair_rows(hidden, weight, bias, pairs, targets, support, compute, loss, rows, seen)
    if seen is None:
        return PairLosses(loss, rows, None, None, None)
    return PairLosses(loss, rows, _left_out_are_zero(value_of_mean(seen[0], support), pairs), seen[1], seen[2])


def gradients(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pairs: Pairs,
    rows: torch.Tensor,
    upstream: torch.Tensor,
    compute: torch.dtype,
    wanted: Wanted,
) -> Gradients:
    """The contract is `q_head_backend.QHeadBackend`'s."""
    factor = None
    if compute == torch.float16:
        # Divided by the number of samples, float16 gradients would vanish before they are summed.
        factor = upstream.abs().amax() if upstream.numel() else upstream.new_ones(())
        factor = torch.where((factor > 0) & factor.isfinite(), factor, 1.0)
        upstream = upstream / factor
    given = hidden.contiguous(), _inner_contiguous(weight), rows, pairs, upstream, factor, compute
    of_hidden = _hidden_gradient(*given) if wanted.hidden else None
    of_weight = of_bias = None
    if wanted.weight or wanted.bias:
        of_weight, of_bias = _weight_gradient(*given, bias, wanted)
    return Gradients(of_hidden, of_weight, of_bias)


def pair_values(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pairs: Pairs,
    support: Support,
    compute: torch.dtype,
) -> torch.Tensor:
    """The contract is `q_head_backend.QHeadBackend`'s."""
    seen = hidden.new_zeros((3, pairs.order.shape[0]), dtype=torch.float32)
    _pair_rows(hidden, weight, bias, pairs, None, support, compute, None, None, seen)
    return _left_out_are_zero(value_of_mean(seen[0], support), pairs)


def all_values(
    hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, support: Support, compute: torch.dtype
) -> torch.Tensor:
    """The contract is `q_head_backend.QHeadBackend`'s."""
    values = hidden.new_empty((hidden.shape[0], weight.shape[0]), dtype=torch.float32)
    _action_values(hidden, weight, bias, None, support, compute, values)
    return value_of_mean(values, support)


def best_values(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    support: Support,
    legal: torch.Tensor | None,
    compute: torch.dtype,
) -> Best:
    """The contract is `q_head_backend.QHeadBackend`'s."""
    best, which = _action_values(hidden, weight, bias, legal, support, compute, None)
    found = best_of(best.t())
    action = which.gather(0, found.action.clamp(min=0).unsqueeze(0)).squeeze(0).to(torch.int64)
    none = found.action < 0
    return Best(
        torch.where(none, -torch.inf, value_of_mean(found.value, support)),
        torch.where(none, -1, action),
    )


def tiles_of(pairs: Pairs, actions: int, block: int) -> torch.Tensor:
    """Action, first pair and end of every program's tile, ``[3, programs]`` int64; empty ones at the end.

    How many tiles there are is known to the device only, so there are as many programs as there can be tiles.
    """
    size = pairs.action.shape[0]
    programs = triton.cdiv(size, block) + min(actions, size)
    offsets = pairs.offsets(actions)
    tiles = (offsets.diff() + (block - 1)).div(block, rounding_mode="floor")
    ends = tiles.cumsum(0)
    program = torch.arange(programs, device=offsets.device)
    action = torch.searchsorted(ends, program, right=True)
    last = action.clamp(max=actions - 1)
    start = offsets[last] + (program - ends[last] + tiles[last]) * block
    stop = torch.where(action < actions, torch.minimum(start + block, offsets[last + 1]), start)
    return torch.stack((last, start, stop))


def _pair_rows(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    pairs: Pairs,
    targets: ScalarTargets | None,
    support: Support,
    compute: torch.dtype,
    loss: torch.Tensor | None,
    rows: torch.Tensor | None,
    stats: torch.Tensor | None,
) -> None:
    actions, bins, features = weight.shape
    size = pairs.order.shape[0]
    if size == 0:
        return
    hidden, weight = hidden.contiguous(), _inner_contiguous(weight)
    tiling = pair_tiling(size // min(size, actions), bins, weight.dtype, compute)
    tiles = tiles_of(pairs, actions, tiling.samples)
    with _device(hidden):
        pair_rows[(tiles.shape[1],)](
            hidden,
            weight,
            None if bias is None else bias.contiguous(),
            pairs.state,
            pairs.order,
            None if targets is None else targets.target.contiguous(),
            tiles,
            tiles.shape[1],
            centres_for(support, hidden.device),
            loss,
            rows,
            stats,
            size,
            hidden.stride(0),
            weight.stride(0),
            weight.stride(1),
            **(_NO_TARGETS if targets is None else scalar_arguments(targets)),
            PROJECTION="hl_gauss" if targets is None else targets.projection,
            FEATURES=features,
            BINS=bins,
            BLOCK_P=tiling.samples,
            BLOCK_K=tiling.bins,
            BLOCK_D=tiling.features,
            **_arithmetic(compute),
            **tiling.options(),
        )


def _weight_gradient(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    rows: torch.Tensor,
    pairs: Pairs,
    upstream: torch.Tensor,
    factor: torch.Tensor | None,
    compute: torch.dtype,
    bias: torch.Tensor | None,
    wanted: Wanted,
) -> tuple[torch.Tensor | None, torch.Tensor | None]:
    actions, bins, features = weight.shape
    used = torch.unique(pairs.without_left_out().action) if wanted.sparse else None
    blocks = actions if used is None else used.shape[0]
    of_weight = weight.new_empty((blocks, bins, features)) if wanted.weight else None
    of_bias = bias.new_empty((blocks, bins)) if wanted.bias and bias is not None else None
    size = pairs.order.shape[0]
    tiling = gradient_tiling(size // max(min(size, actions), 1), bins, features, compute)
    if blocks:
        width = triton.cdiv(features, tiling.features) if wanted.weight else 1
        with _device(hidden):
            weight_gradient[(blocks, width, triton.cdiv(bins, tiling.bins))](
                hidden,
                rows,
                pairs.state,
                pairs.order,
                upstream,
                factor,
                used,
                pairs.offsets(actions),
                of_weight,
                of_bias,
                hidden.stride(0),
                upstream.stride(0),
                FEATURES=features,
                BINS=bins,
                BLOCK_P=tiling.samples,
                BLOCK_K=tiling.bins,
                BLOCK_D=tiling.features,
                **_arithmetic(compute),
                **tiling.options(),
            )
    if used is None:
        return of_weight, of_bias
    return (
        None if of_weight is None else row_sparse(used, of_weight, weight.shape),
        None if of_bias is None else row_sparse(used, of_bias, weight.shape[:2]),
    )


def _hidden_gradient(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    rows: torch.Tensor,
    pairs: Pairs,
    upstream: torch.Tensor,
    factor: torch.Tensor | None,
    compute: torch.dtype,
) -> torch.Tensor:
    actions, bins, features = weight.shape
    size = pairs.order.shape[0]
    if size == 0:
        return torch.zeros_like(hidden)
    tiling = gradient_tiling(size // min(size, actions), bins, features, compute)
    tiles = tiles_of(pairs, actions, tiling.samples)
    # Where no state has two pairs, each pair's gradient is its state's; states without a pair keep their zeros.
    of_hidden = torch.zeros_like(hidden) if pairs.unique_states else torch.empty_like(hidden)
    by_pair = None if pairs.unique_states else hidden.new_empty((size, features), dtype=torch.float32)
    with _device(hidden):
        hidden_gradient[(tiles.shape[1], triton.cdiv(features, tiling.features))](
            weight,
            rows,
            pairs.state,
            pairs.order,
            upstream,
            factor,
            tiles,
            tiles.shape[1],
            of_hidden,
            by_pair,
            weight.stride(0),
            weight.stride(1),
            upstream.stride(0),
            FEATURES=features,
            BINS=bins,
            BLOCK_P=tiling.samples,
            BLOCK_K=min(tiling.bins, 64),
            BLOCK_D=tiling.features,
            **_arithmetic(compute),
            **tiling.options(),
        )
        if by_pair is not None and hidden.shape[0]:
            state, place = torch.sort(torch.where(pairs.action < 0, -1, pairs.state), stable=True)
            offsets = torch.searchsorted(state, torch.arange(hidden.shape[0] + 1, device=hidden.device))
            block = min(triton.next_power_of_2(features), 512)
            sum_by_state[(hidden.shape[0], triton.cdiv(features, block))](
                by_pair, place, offsets, of_hidden, FEATURES=features, BLOCK_D=block
            )
    return of_hidden


def _action_values(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None,
    legal: torch.Tensor | None,
    support: Support,
    compute: torch.dtype,
    values: torch.Tensor | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill ``values [B, A]``, or give the best means and their actions, ``[parts, B]``, for parts of the actions."""
    actions, bins, features = weight.shape
    states = hidden.shape[0]
    hidden, weight = hidden.contiguous(), _inner_contiguous(weight)
    tiling = action_tiling(states, bins, weight.dtype, compute)
    blocks = triton.cdiv(states, tiling.samples)
    per_program = triton.cdiv(actions, min(actions, triton.cdiv(_PROGRAMS, max(blocks, 1))))
    parts = triton.cdiv(actions, per_program)
    best = hidden.new_empty((parts, states), dtype=torch.float32)
    which = hidden.new_empty((parts, states), dtype=torch.int32)
    if states == 0:
        return best, which
    if legal is not None and legal.stride(1) != 1:
        legal = legal.contiguous()
    with _device(hidden):
        action_values[(blocks, parts)](
            hidden,
            weight,
            None if bias is None else bias.contiguous(),
            None if legal is None else legal.view(torch.uint8),
            centres_for(support, hidden.device),
            values,
            best,
            which,
            states,
            actions,
            per_program,
            hidden.stride(0),
            weight.stride(0),
            weight.stride(1),
            0 if legal is None else legal.stride(0),
            FEATURES=features,
            BINS=bins,
            BLOCK_B=tiling.samples,
            BLOCK_K=tiling.bins,
            BLOCK_D=tiling.features,
            **_arithmetic(compute),
            **tiling.options(),
        )
    return best, which


def _left_out_are_zero(value: torch.Tensor, pairs: Pairs) -> torch.Tensor:
    return value.index_put_((pairs.order,), torch.where(pairs.action < 0, 0, value[pairs.order]))


def _inner_contiguous(weight: torch.Tensor) -> torch.Tensor:
    return weight if weight.stride(-1) == 1 else weight.contiguous()


def _arithmetic(compute: torch.dtype) -> dict[str, Any]:
    exact = compute != torch.float32 or not torch.backends.cuda.matmul.allow_tf32
    return {"COMPUTE": _DTYPES[compute], "PRECISION": "ieee" if exact else "tf32"}


def _device(tensor: torch.Tensor) -> torch.cuda.device_of:
    return torch.cuda.device_of(tensor)  # type: ignore[no-untyped-call]
