"""The Triton kernel for targets with mass in all bins, and for samples that choose their rows.

See `isogon.kernels.rows_triton`.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .projections_triton import moved_probabilities, scalar_position, scalar_probabilities
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


@triton.jit
def target_tile(
    sample,
    active,
    k,
    target,
    target_stride,
    target_bin_stride,
    reward,
    discount,
    low,
    high,
    origin,
    width,
    inverse_width,
    inverse_sigma,
    KIND: tl.constexpr,
    BINS: tl.constexpr,
):
    """Target probabilities ``[R, B]`` of samples ``[R]`` at the bins ``k [B]``; 0 beyond the last bin.

    ``KIND``: a projection of scalars; ``"given"``: ``target`` has the distributions; ``"moved"``: likewise, and
    ``reward`` and ``discount`` move them first.
    """
    if KIND == "given":
        place = target + (sample * target_stride)[:, None] + k.to(tl.int64)[None, :] * target_bin_stride
        return tl.load(place, mask=active[:, None] & (k < BINS)[None, :], other=0.0).to(tl.float32)
    elif KIND == "moved":
        return moved_probabilities(
            k,
            target + sample * target_stride,
            target_bin_stride,
            tl.load(reward + sample, mask=active, other=0.0),
            tl.load(discount + sample, mask=active, other=0.0),
            active,
            origin,
            inverse_width,
            BINS,
        )
    else:
        value = tl.load(target + sample, mask=active, other=0.0)
        cell, fraction = scalar_position(value, low, high, origin, width, inverse_width, KIND)
        return scalar_probabilities(k, cell, fraction, inverse_sigma, KIND, BINS)


@triton.jit
def sample_pass(
    p, x, q, log_total, sample, turn, active, scale,
    loss, stats, samples, mean, entropy, logsumexp, k, KIND: tl.constexpr,
):  # fmt: skip
    """Store losses and stats of the samples whose ``turn [R]`` it is, and return their gradients ``[R, B]``.

    ``x`` is the logits less their maximum, ``q`` their softmax.
    """
    mass = tl.sum(p, 1)
    if loss is not None:
        nats = tl.sum(times_log(p, log_total[:, None] - x), 1)
        tl.store(loss + sample, tl.where(active, nats, 0.0), mask=turn)
    if stats is not None:
        poison = tl.where(mass == mass, 0.0, mass)
        store_stats(stats, samples, sample, turn, active, mean + poison, entropy + poison, logsumexp + poison)
        if KIND == "given" or KIND == "moved":
            target_mean = tl.sum(p * k.to(tl.float32)[None, :], 1)
            tl.store(stats + 3 * samples + sample, target_mean, mask=turn)
    return tl.where(active[:, None], scale[:, None] * (q * mass[:, None] - p), 0.0)


@triton.jit(do_not_specialize=["samples"])
def dense_rows(
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
    """With ``p`` the target probabilities, ``x = logits[index].float()``, ``g = torch.zeros_like(logits)``::

        loss = -torch.where(p == 0, 0, p * torch.log_softmax(x, -1)).sum(-1)
        g.index_add_(0, index, (coefficient * weight * upstream).unsqueeze(-1) * (torch.softmax(x, -1) * p.sum(-1) - p))

    but for the order of additions, which is the samples', and for rounding, which comes last. ``index`` may be None.

    A program has R whole rows in registers, and the targets of their samples beside them. With ``order``, ``index`` is
    sorted: the place where a run of equal rows begins does all samples of the run one after the other, and writes their
    gradient once; the run's other places do nothing.
    """
    place, turn, sample, row = first_of_run(index, order, samples, BLOCK_R)
    active, scale = sample_scale(sample, turn & (row >= 0), weight, upstream, upstream_stride, coefficient)
    k = tl.arange(0, BLOCK_K)
    x = load_logits(logits + row * row_stride, active, k, bin_stride, BINS)
    top = tl.max(x, 1)
    x = x - top[:, None]
    q = exp(x)
    total = tl.sum(q, 1)
    log_total = tl.log(total)
    logsumexp = top + log_total
    mean = total
    entropy = total
    if stats is not None:
        mean = (bin_moment(k, q, centres, BINS) / total).to(tl.float32)
        entropy = log_total - tl.sum(times_log(q, x), 1) / total
    q = q * (1.0 / total)[:, None]
    p = target_tile(
        sample, active, k, target, target_stride, target_bin_stride, reward, discount,
        low, high, origin, width, inverse_width, inverse_sigma, KIND, BINS,
    )  # fmt: skip
    of_row = sample_pass(
        p, x, q, log_total, sample, turn, active, scale, loss, stats, samples, mean, entropy, logsumexp, k, KIND
    )
    written = turn if index is None else active
    if order is not None:
        step = 1
        again, sample = next_of_run(index, order, samples, place, step, row, turn)
        while tl.max(again.to(tl.int32), 0) > 0:
            counts, scale = sample_scale(sample, again, weight, upstream, upstream_stride, coefficient)
            p = target_tile(
                sample, counts, k, target, target_stride, target_bin_stride, reward, discount,
                low, high, origin, width, inverse_width, inverse_sigma, KIND, BINS,
            )  # fmt: skip
            of_row += sample_pass(
                p, x, q, log_total, sample, again, counts, scale,
                loss, stats, samples, mean, entropy, logsumexp, k, KIND,
            )  # fmt: skip
            step += 1
            again, sample = next_of_run(index, order, samples, place, step, row, again)
    if gradient is not None:
        into = gradient + row[:, None] * BINS + k[None, :]
        tl.store(into, rounded(of_row, gradient.dtype.element_ty), mask=written[:, None] & (k < BINS)[None, :])
