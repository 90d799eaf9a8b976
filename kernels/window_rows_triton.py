"""The Triton kernel for scalar targets whose mass lies in a few bins; see `isogon.kernels.rows_triton`."""

from __future__ import annotations

import triton
import triton.language as tl

from .projections_triton import scalar_position, window_probabilities
from .row_parts_triton import bin_moment, exp, load_logits, rounded, sample_scale, store_stats, times_log


@triton.jit(do_not_specialize=["samples", "half"])
def window_rows(
    logits,
    target,
    weight,
    upstream,
    centres,
    loss,
    gradient,
    stats,
    samples: tl.int64,
    row_stride,
    bin_stride,
    upstream_stride,
    coefficient: tl.float32,
    low: tl.float64,
    high: tl.float64,
    origin: tl.float64,
    width: tl.float64,
    inverse_width: tl.float64,
    inverse_sigma: tl.float32,
    half: tl.int32,
    PROJECTION: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """Sample i reads row i. With ``p = target_probabilities(target, support, projection)`` and ``x = logits.float()``::

        loss = -torch.where(p == 0, 0, p * torch.log_softmax(x, -1)).sum(-1)
        gradient = (coefficient * weight * upstream).unsqueeze(-1) * (torch.softmax(x, -1) - p)

    A program has R whole rows in registers. It stores their scaled softmax, as if p were 0; then it reads the logits of
    the W bins around each target again, from the cache, and writes over the gradient there. So a target costs work for
    W bins, not for K.
    """
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    inside = row < samples
    active, scale = sample_scale(row, inside, weight, upstream, upstream_stride, coefficient)
    value = tl.load(target + row, mask=active, other=0.0)
    cell, fraction = scalar_position(value, low, high, origin, width, inverse_width, PROJECTION)
    poison = fraction - fraction

    k = tl.arange(0, BLOCK_K)
    place = logits + row * row_stride
    x = load_logits(place, active, k, bin_stride, BINS)
    top = tl.max(x, 1)
    x = x - top[:, None]
    exponential = exp(x)
    total = tl.sum(exponential, 1)
    inverse_total = 1.0 / total
    log_total = tl.log(total)
    if stats is not None:
        mean = bin_moment(k, exponential, centres, BINS) * inverse_total
        entropy = log_total - tl.sum(times_log(exponential, x), 1) * inverse_total
        store_stats(stats, samples, row, inside, active, mean + poison, entropy + poison, top + log_total + poison)
    if gradient is not None:
        plain = exponential * tl.where(active, scale * inverse_total + poison, 0.0)[:, None]
        plain = rounded(plain, gradient.dtype.element_ty)
        tl.store(gradient + row[:, None] * BINS + k[None, :], plain, mask=inside[:, None] & (k < BINS)[None, :])
        tl.debug_barrier()

    bins, p = window_probabilities(cell, fraction, inverse_sigma, half, PROJECTION, BINS, BLOCK_W)
    held = active[:, None] & (bins >= 0) & (bins < BINS)
    y = tl.load(place[:, None] + bins.to(tl.int64) * bin_stride, mask=held, other=0.0).to(tl.float32) - top[:, None]
    if loss is not None:
        nats = tl.sum(tl.where(held, times_log(p, log_total[:, None] - y), 0.0), 1)
        tl.store(loss + row, tl.where(active, nats, 0.0), mask=inside)
    if gradient is not None:
        exact = scale[:, None] * (exp(y) * inverse_total[:, None] - p)
        tl.store(gradient + row[:, None] * BINS + bins, rounded(exact, gradient.dtype.element_ty), mask=held)
