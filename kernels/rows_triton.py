"""The row kernels on CUDA, in Triton: `isogon.kernels.rows.RowKernels`.

A row is loaded once. One pass gives loss, stats and gradient, and writes the gradient once; targets are projected in
registers. Nothing is atomic and no host waits, so the same input gives the same bits.

* `window_rows`: scalar targets whose mass lies in a few bins;
* `dense_rows`: distributions, wide Gaussians, and samples that choose their rows;
* `long_rows`: rows of more than 4096 bins, in pieces.

Under ``TRITON_INTERPRET=1`` all of it runs on CPU tensors, slowly: that is how it is tested without a GPU.
"""

from __future__ import annotations

import contextlib
import math
from typing import Any

import torch
import triton

from .dense_rows_triton import dense_rows
from .long_rows_triton import long_rows
from .rows import DistributionTargets, RowResult, RowStats, RowTargets, ScalarTargets
from .scale_triton import SCALE_BLOCK, scale_in_place
from .window_rows_triton import window_rows

LONGEST_TILE = 4096
"""Bins of the longest row that is held in registers."""
PIECE = 2048
"""Bins of the pieces of longer ones."""
_SMALLEST_SIGMA_RATIO = 1e-30
"""Smaller ones give the same distributions, and this one's inverse is a float32."""


def forward(
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
    """See `isogon.kernels.rows.RowKernels`. There is no total, and targets are not counted.

    Samples of weight 0 are not read, and their stats are 0.
    """
    samples = logits.shape[0] if index is None else index.shape[0]
    loss = logits.new_empty(samples, dtype=torch.float32)
    seen = logits.new_empty((4, samples), dtype=torch.float32) if stats else None
    into = _gradient_like(logits, index) if gradient else None
    _launch(logits, index, targets, weight, None, coefficient, loss=loss, gradient=into, stats=seen, centres=centres)
    if seen is None:
        return RowResult(loss, into, None)
    target_mean = seen[3] if isinstance(targets, DistributionTargets) else None
    return RowResult(loss, into, RowStats(seen[0], seen[1], seen[2], target_mean))


def gradient(
    logits: torch.Tensor,
    index: torch.Tensor | None,
    targets: RowTargets,
    weight: torch.Tensor | None,
    upstream: torch.Tensor,
) -> torch.Tensor:
    """See `isogon.kernels.rows.RowKernels`."""
    into = _gradient_like(logits, index)
    _launch(logits, index, targets, weight, upstream, 1.0, loss=None, gradient=into, stats=None, centres=None)
    return into


def scale_(gradient: torch.Tensor, upstream: torch.Tensor) -> None:
    """See `isogon.kernels.rows.RowKernels`."""
    blocks = triton.cdiv(gradient.numel(), SCALE_BLOCK)
    if blocks == 0:
        return
    with _device(gradient):
        # Programs stride over the tensor, so that few start where the factor is 1 and there is nothing to do.
        scale_in_place[(min(blocks, 2048),)](
            gradient, upstream, gradient.numel(), BLOCK=SCALE_BLOCK, enable_fp_fusion=True
        )


def window_tile(bins: int) -> dict[str, int]:
    """The layout of `window_rows`: rows a program, bins a tile, and options. 1024 logits a warp, 32 a thread."""
    return _tile(bins, 1024)


def dense_tile(bins: int) -> dict[str, int]:
    """That of `dense_rows` and `long_rows`: 512 logits a warp, as each has its target beside it in registers.

    Without ``maxnreg`` ptxas aims at 128 registers a thread and spills a few bytes for it.
    """
    return {**_tile(bins if bins <= LONGEST_TILE else PIECE, 512), "maxnreg": 255}


def window(targets: ScalarTargets) -> tuple[int, int]:
    """``(half, width)`` of the window of bins around a target outside which float32 has no mass.

    It goes from ``half`` bins below the target's to as many above it, at least 5.6 standard deviations, where a tail is
    1e-8; the width is the next power of two.
    """
    if targets.projection != "hl_gauss":
        return 0, 2
    half = math.ceil(5.6 * targets.sigma_ratio) + 1
    return half, triton.next_power_of_2(2 * half + 1)


def fits_window(targets: ScalarTargets) -> bool:
    """Whether `window_rows` does less work for such targets than `dense_rows`, and can."""
    return targets.bins <= LONGEST_TILE and 2 * window(targets)[1] <= window_tile(targets.bins)["BLOCK_K"]


def scalar_arguments(targets: ScalarTargets) -> dict[str, float]:
    """The float arguments of the kernels: see `isogon.kernels.projections_triton.scalar_position`."""
    low = (targets.lowest - targets.origin) / targets.width
    high = (targets.highest - targets.origin) / targets.width
    if targets.projection == "one_hot":
        low, high = math.ceil(low) - 1.0, math.ceil(high) - 1.0
    last = targets.bins if targets.projection == "hl_gauss" else targets.bins - 1
    return {
        "low": float(min(max(low, 0.0), last)),
        "high": float(min(max(high, 0.0), last)),
        "origin": float(targets.origin),
        "width": float(targets.width),
        "inverse_width": 1.0 / targets.width,
        "inverse_sigma": 1.0 / max(targets.sigma_ratio, _SMALLEST_SIGMA_RATIO),
    }


def _tile(bins: int, logits_per_warp: int) -> dict[str, int]:
    # A row of up to logits_per_warp lies in one warp, and its sums need no barrier. The layout depends on nothing but K
    # and the kernel, so that a row's result does not depend on how many rows there are.
    block = max(16, triton.next_power_of_2(bins))
    return {
        "BLOCK_R": max(1, logits_per_warp // max(block, 128)),
        "BLOCK_K": block,
        "num_warps": max(1, block // logits_per_warp),
        "enable_fp_fusion": True,
    }


def _launch(
    logits: torch.Tensor,
    index: torch.Tensor | None,
    targets: RowTargets,
    weight: torch.Tensor | None,
    upstream: torch.Tensor | None,
    coefficient: float,
    *,
    loss: torch.Tensor | None,
    gradient: torch.Tensor | None,
    stats: torch.Tensor | None,
    centres: torch.Tensor | None,
) -> None:
    samples = logits.shape[0] if index is None else index.shape[0]
    if samples == 0:
        return
    arguments: dict[str, Any] = {
        "logits": logits,
        "weight": None if weight is None else weight.contiguous(),
        "upstream": upstream,
        "centres": None if centres is None else centres.contiguous(),
        "loss": loss,
        "gradient": gradient,
        "stats": stats,
        "samples": samples,
        "row_stride": logits.stride(0),
        "bin_stride": logits.stride(1),
        "upstream_stride": 0 if upstream is None or upstream.dim() == 0 else upstream.stride(0),
        "coefficient": coefficient,
        "BINS": targets.bins,
    }
    with _device(logits):
        if isinstance(targets, ScalarTargets) and index is None and fits_window(targets):
            half, wide = window(targets)
            shape = window_tile(targets.bins)
            window_rows[(triton.cdiv(samples, shape["BLOCK_R"]),)](
                **arguments,
                **scalar_arguments(targets),
                **shape,
                target=targets.target.contiguous(),
                half=half,
                PROJECTION=targets.projection,
                BLOCK_W=wide,
            )
            return
        order = None
        if index is not None and gradient is not None:
            index, order = _runs(index, weight, logits.shape[0])
        shape = dense_tile(targets.bins)
        kernel = dense_rows if targets.bins <= LONGEST_TILE else long_rows
        kernel[(triton.cdiv(samples, shape["BLOCK_R"]),)](
            **arguments,
            **_target_arguments(targets),
            **shape,
            index=None if index is None else index.contiguous(),
            order=order,
        )


def _target_arguments(targets: RowTargets) -> dict[str, Any]:
    if isinstance(targets, ScalarTargets):
        return {
            **scalar_arguments(targets),
            "target": targets.target.contiguous(),
            "target_stride": 1,
            "target_bin_stride": 0,
            "reward": None,
            "discount": None,
            "KIND": targets.projection,
        }
    moved = targets.reward is not None and targets.discount is not None
    return {
        "low": 0.0,
        "high": 0.0,
        "origin": float(targets.origin),
        "width": float(targets.width),
        "inverse_width": 1.0 / targets.width,
        "inverse_sigma": 1.0,
        "target": targets.probs,
        "target_stride": targets.probs.stride(0),
        "target_bin_stride": targets.probs.stride(1),
        "reward": None if targets.reward is None else targets.reward.contiguous(),
        "discount": None if targets.discount is None else targets.discount.contiguous(),
        "KIND": "moved" if moved else "given",
    }


def _runs(index: torch.Tensor, weight: torch.Tensor | None, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows that samples read, sorted, and the samples in that order; -1 for samples that read none."""
    read = index if weight is None else torch.where(weight.float() == 0, -1, index)
    if rows < 2**31:
        read = read.to(torch.int32)  # A radix sort of half the digits takes half the time.
    read, order = torch.sort(read, stable=True)
    return read, order


def _gradient_like(logits: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
    make = logits.new_empty if index is None else logits.new_zeros
    return make(logits.shape)


def _device(tensor: torch.Tensor) -> contextlib.AbstractContextManager[object]:
    return torch.cuda.device(tensor.device) if tensor.is_cuda else contextlib.nullcontext()
