"""Triton device functions that the row kernels share: R is the samples or rows of a tile, B its bins."""

from __future__ import annotations

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(triton.knobs.runtime.interpret)


@triton.jit
def exp(x):
    """``exp(x)`` in float32 in two instructions: `triton.language.exp` adds three for results below 1e-38."""
    return tl.exp2(x * 1.4426950408889634)


@triton.jit
def times_log(p, log_q):
    """``p log q``, and 0 where p is 0."""
    return p * tl.where(p == 0.0, 0.0, log_q)


@triton.jit
def rounded(x, dtype: tl.constexpr):
    """Float32 to ``dtype``, to the nearest, ties to even."""
    if INTERPRETED and dtype == tl.bfloat16:
        # Triton's interpreter cuts the lower half of the bits off: round them into the upper half first.
        bits = x.to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    return x.to(dtype)


@triton.jit
def load_logits(row, read, k, bin_stride, BINS: tl.constexpr):
    """Logits ``[R, B]`` in float32 of the rows that ``row [R]`` points to, at the bins ``k [B]``.

    Minus infinity beyond the last bin, and 0 in rows that are not to be read.
    """
    in_row = (k < BINS)[None, :]
    unread = tl.where(in_row, 0.0, -float("inf")).to(row.dtype.element_ty)
    place = row[:, None] + k.to(tl.int64)[None, :] * bin_stride
    return tl.load(place, mask=read[:, None] & in_row, other=unread).to(tl.float32)


@triton.jit
def sample_scale(sample, mask, weight, upstream, upstream_stride, coefficient):
    """Which of the samples ``[R]`` count (``weight != 0``), and what each one's gradient is multiplied by."""
    scale = tl.zeros(sample.shape, dtype=tl.float32) + coefficient
    if weight is not None:
        w = tl.load(weight + sample, mask=mask, other=0.0).to(tl.float32)
        mask = mask & (w != 0.0)
        scale = scale * w
    if upstream is not None:
        scale = scale * tl.load(upstream + sample * upstream_stride, mask=mask, other=0.0).to(tl.float32)
    return mask, scale


@triton.jit
def bin_moment(k, exponential, centres, BINS: tl.constexpr):
    """``sum_k exponential_k c_k`` over the bins ``k [B]``: c the bin from the middle, or in float64 the centres."""
    if centres is None:
        return tl.sum(exponential * (k.to(tl.float32) - (BINS - 1) * 0.5)[None, :], 1)
    else:
        value = tl.load(centres + k, mask=k < BINS, other=0.0)
        return tl.sum(exponential.to(tl.float64) * value[None, :], 1)


@triton.jit
def store_stats(stats, samples, sample, mask, active, mean, entropy, logsumexp):
    """Rows 0, 1 and 2 of ``stats [4, P]``; 0 of samples that are not active."""
    tl.store(stats + sample, tl.where(active, mean.to(tl.float32), 0.0), mask=mask)
    tl.store(stats + samples + sample, tl.where(active, entropy, 0.0), mask=mask)
    tl.store(stats + 2 * samples + sample, tl.where(active, logsumexp, 0.0), mask=mask)


@triton.jit
def first_of_run(index, order, samples, BLOCK_R: tl.constexpr):
    """For R places: the place, whether it is one to start from, its sample, and the row that this reads; -1 for none.

    Without ``order`` sample i is at place i, and reads row ``index[i]`` or i. With it ``index`` is sorted and ``order``
    has its samples: places to start from are then the first of each run of equal rows, and every negative index.
    """
    place = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    turn = place < samples
    row = place
    sample = place
    if index is not None:
        row = tl.load(index + place, mask=turn, other=-1).to(tl.int64)
    if order is not None:
        before = tl.load(index + place - 1, mask=turn & (place > 0), other=-1)
        turn = turn & ((row < 0) | (row != before))
        sample = tl.load(order + place, mask=turn, other=0)
    return place, turn, sample, row


@triton.jit
def next_of_run(index, order, samples, place, step, row, turn):
    """Whether the places ``step`` further on belong to the same runs, and their samples."""
    turn = turn & (row >= 0) & (place + step < samples)
    turn = turn & (tl.load(index + place + step, mask=turn, other=-1) == row)
    return turn, tl.load(order + place + step, mask=turn, other=0)
