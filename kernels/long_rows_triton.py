"""The Triton kernel for rows that do not fit into registers; see `isogon.kernels.rows_triton`."""

from __future__ import annotations

import triton
import triton.language as tl

from .dense_rows_triton import target_tile
from .row_parts_triton import (
    bin_moment,
    exp,
    first_of_run,
    load_logits,
    next_of_run,
    rounded,
    sample_scale,
    store_stats,
    times_log,
)


@triton.jit(do_not_specialize=["samples"])
def long_rows(
    logits,
    index,
    order,
    target,
    reward,
    discount,
    weight,
    upstream,
    centres,
    loss,
    gradient,
    stats,
    samples: tl.int64,
    row_stride,
    bin_stride,
    target_stride,
    target_bin_stride,
    upstream_stride,
    coefficient: tl.float32,
    low: tl.float64,
    high: tl.float64,
    origin: tl.float64,
    width: tl.float64,
    inverse_width: tl.float64,
    inverse_sigma: tl.float32,
    KIND: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK_R: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The same as `dense_rows`, whose docstring has the torch expression, in pieces of B bins.

    A program reads its row once for the logarithm of the sum of exponentials, which it brings up to date at each piece,
    once for each sample's loss and stats, and once for the gradient, whose pieces it completes one by one with all
    samples of the run.
    """
    place, first, sample, row = first_of_run(index, order, samples, BLOCK_R)
    active, scale = sample_scale(sample, first & (row >= 0), weight, upstream, upstream_stride, coefficient)
    x_row = logits + row * row_stride

    top = tl.full([BLOCK_R], -float("inf"), dtype=tl.float32)
    total = tl.zeros([BLOCK_R], dtype=tl.float32)
    for start in range(0, BINS, BLOCK_K):
        x = load_logits(x_row, active, start + tl.arange(0, BLOCK_K), bin_stride, BINS)
        higher = tl.maximum(top, tl.max(x, 1))
        base = tl.where(higher == -float("inf"), 0.0, higher)
        total = total * exp(top - base) + tl.sum(exp(x - base[:, None]), 1)
        top = higher
    log_total = tl.log(total)
    inverse_total = 1.0 / total

    if loss is not None or stats is not None:
        turn = first
        of_turn = sample
        counts = active
        step = 0
        while tl.max(turn.to(tl.int32), 0) > 0:
            nats = tl.zeros([BLOCK_R], dtype=tl.float32)
            mass = tl.zeros([BLOCK_R], dtype=tl.float32)
            target_mean = tl.zeros([BLOCK_R], dtype=tl.float32)
            spread = tl.zeros([BLOCK_R], dtype=tl.float32)
            mean = tl.zeros([BLOCK_R], dtype=tl.float64)
            for start in range(0, BINS, BLOCK_K):
                k = start + tl.arange(0, BLOCK_K)
                x = load_logits(x_row, active, k, bin_stride, BINS) - top[:, None]
                p = target_tile(
                    of_turn, counts, k, target, target_stride, target_bin_stride, reward, discount,
                    low, high, origin, width, inverse_width, inverse_sigma, KIND, BINS,
                )  # fmt: skip
                nats += tl.sum(times_log(p, log_total[:, None] - x), 1)
                mass += tl.sum(p, 1)
                if stats is not None:
                    exponential = exp(x)
                    target_mean += tl.sum(p * k.to(tl.float32)[None, :], 1)
                    spread += tl.sum(times_log(exponential, x), 1)
                    mean += bin_moment(k, exponential, centres, BINS).to(tl.float64)
            if loss is not None:
                tl.store(loss + of_turn, tl.where(counts, nats, 0.0), mask=turn)
            if stats is not None:
                # Triton 3.6 fails to compile loops whose sums are used more than once afterwards.
                poison = mass * 0.0
                entropy = log_total - spread * inverse_total + poison
                mean = mean * inverse_total + poison
                store_stats(stats, samples, of_turn, turn, counts, mean, entropy, top + log_total + poison)
                if KIND == "given" or KIND == "moved":
                    tl.store(stats + 3 * samples + of_turn, target_mean, mask=turn)
            step += 1
            if order is None:
                turn = turn & (step < 0)
            else:
                turn, of_turn = next_of_run(index, order, samples, place, step, row, turn)
                counts, _ = sample_scale(of_turn, turn, weight, upstream, upstream_stride, coefficient)
    if gradient is not None:
        written = first if index is None else active
        for start in range(0, BINS, BLOCK_K):
            k = start + tl.arange(0, BLOCK_K)
            x = load_logits(x_row, active, k, bin_stride, BINS) - top[:, None]
            q = exp(x) * inverse_total[:, None]
            of_row = tl.zeros([BLOCK_R, BLOCK_K], dtype=tl.float32)
            turn = first
            of_turn = sample
            counts = active
            by = scale
            step = 0
            while tl.max(turn.to(tl.int32), 0) > 0:
                mass = tl.zeros([BLOCK_R], dtype=tl.float32)
                for piece in range(0, BINS, BLOCK_K):
                    p = target_tile(
                        of_turn, counts, piece + tl.arange(0, BLOCK_K), target, target_stride, target_bin_stride,
                        reward, discount, low, high, origin, width, inverse_width, inverse_sigma, KIND, BINS,
                    )  # fmt: skip
                    mass += tl.sum(p, 1)
                p = target_tile(
                    of_turn, counts, k, target, target_stride, target_bin_stride, reward, discount,
                    low, high, origin, width, inverse_width, inverse_sigma, KIND, BINS,
                )  # fmt: skip
                of_row += tl.where(counts[:, None], by[:, None] * (q * mass[:, None] - p), 0.0)
                step += 1
                if order is None:
                    turn = turn & (step < 0)
                else:
                    turn, of_turn = next_of_run(index, order, samples, place, step, row, turn)
                    counts, by = sample_scale(of_turn, turn, weight, upstream, upstream_stride, coefficient)
            into = gradient + row[:, None] * BINS + k[None, :]
            tl.store(into, rounded(of_row, gradient.dtype.element_ty), mask=written[:, None] & (k < BINS)[None, :])
