"""The Triton kernels of `isogon.kernels.q_head_triton`.

B states, A actions, P pairs, D features, K bins. Pairs are sorted by action; a *tile* is up to BLOCK_P pairs of one
action, so that a program reads one block ``weight[a] [K, D]``. Products are of operands rounded to COMPUTE and summed
in float32. Every output is written by one program, in a fixed order: there are no atomics. Arguments that are None
leave their part out at compile time. Targets and what is summed along a row come from the device functions of the row
kernels; softmax over a tile that a product left in registers is written here.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .projections_triton import scalar_position, scalar_probabilities
from .row_parts_triton import INTERPRETED, bin_moment, rounded, store_stats, times_log


@triton.jit
def operand(x, COMPUTE: tl.constexpr):
    """An operand of a product. The interpreter multiplies half-precision numbers wrongly: there it is of float32."""
    return rounded(x.to(tl.float32), COMPUTE).to(tl.float32) if INTERPRETED else x.to(COMPUTE)


@triton.jit
def linear(
    hidden,
    weight,
    bias,
    k,
    mask,
    bin_stride,
    FEATURES: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK_D: tl.constexpr,
    COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``hidden[i] @ weight.T + bias`` as ``[R, B]`` float32, and minus infinity beyond the last bin.

    ``hidden [R]`` points to rows, read where ``mask [R]`` is; weight and bias to one action's block.
    """
    total = tl.zeros([mask.shape[0], k.shape[0]], dtype=tl.float32)
    in_row = k < BINS
    for first in range(0, FEATURES, BLOCK_D):
        d = first + tl.arange(0, BLOCK_D)
        inside = d < FEATURES
        h = tl.load(hidden[:, None] + d[None, :], mask=mask[:, None] & inside[None, :], other=0.0)
        place = weight + k[:, None] * bin_stride + d[None, :]
        w = tl.load(place, mask=in_row[:, None] & inside[None, :], other=0.0)
        h = operand(h, COMPUTE)
        w = operand(w, COMPUTE)
        total = tl.dot(h, tl.trans(w), total, input_precision=PRECISION)
    if bias is not None:
        total += operand(tl.load(bias + k, mask=in_row, other=0.0), COMPUTE).to(tl.float32)[None, :]
    return tl.where(in_row[None, :], total, -float("inf"))


@triton.jit
def softmax(x):
    """``x - max``, its exponential, and that one's sum, along the rows of a tile ``[R, B]``."""
    below_top = x - tl.max(x, 1)[:, None]
    # Not `exp` of the rows' kernels: beside a product's registers it spills on sm_100.
    exponential = tl.exp(below_top)
    return below_top, exponential, tl.sum(exponential, 1)


@triton.jit
def pair_rows(
    hidden,
    weight,
    bias,
    state,
    order,
    target,
    tiles,
    programs,
    centres,
    loss,
    rows,
    stats,
    samples,
    state_stride,
    action_stride,
    bin_stride,
    low: tl.float64,
    high: tl.float64,
    origin: tl.float64,
    width: tl.float64,
    inverse_width: tl.float64,
    inverse_sigma: tl.float32,
    PROJECTION: tl.constexpr,
    FEATURES: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Losses of a tile's pairs, gradients of its logits, and stats; whatever of these is not None.

    With x = hidden[state_i] @ weight[a].T + bias[a] and p the projection of target[order_i]:

        loss[order_i] = -(p * torch.log_softmax(x, -1)).sum(-1)
        rows[i] = torch.softmax(x, -1) - p
    """
    tile = tl.program_id(0)
    action = tl.load(tiles + tile)
    start = tl.load(tiles + programs + tile)
    stop = tl.load(tiles + 2 * programs + tile)
    if start >= stop:
        return
    pair = start + tl.arange(0, BLOCK_P)
    mask = pair < stop
    k = tl.arange(0, BLOCK_K)
    in_row = k < BINS
    sample = tl.load(order + pair, mask=mask, other=0)
    features = hidden + tl.load(state + pair, mask=mask, other=0) * state_stride
    offset = None
    if bias is not None:
        offset = bias + action * BINS
    x = linear(
        features,
        weight + action * action_stride,
        offset,
        k,
        mask,
        bin_stride,
        FEATURES,
        BINS,
        BLOCK_D,
        COMPUTE,
        PRECISION,
    )
    below_top, exponential, total = softmax(x)
    log_total = tl.log(total)
    if stats is not None:
        mean = bin_moment(k, exponential, centres, BINS) / total
        entropy = log_total - tl.sum(times_log(exponential, below_top), 1) / total
        store_stats(stats, samples, sample, mask, mask, mean, entropy, tl.max(x, 1) + log_total)
    if loss is not None:
        value = tl.load(target + sample, mask=mask, other=0.0)
        cell, fraction = scalar_position(value, low, high, origin, width, inverse_width, PROJECTION)
        p = scalar_probabilities(k, cell, fraction, inverse_sigma, PROJECTION, BINS)
        nats = tl.sum(times_log(p, log_total[:, None] - below_top), 1)
        tl.store(loss + sample, nats, mask=mask)
        if rows is not None:
            place = rows + pair[:, None] * BINS + k[None, :]
            tl.store(place, exponential / total[:, None] - p, mask=mask[:, None] & in_row[None, :])


@triton.jit
def scaled_rows(rows, order, upstream, upstream_stride, pair, mask, k, BINS: tl.constexpr):
    """Gradients of logits ``[R, B]``, each row times what comes from above; 0 where there is none."""
    scale = tl.load(upstream + tl.load(order + pair, mask=mask, other=0) * upstream_stride, mask=mask, other=0.0)
    g = tl.load(rows + pair[:, None] * BINS + k[None, :], mask=mask[:, None] & (k < BINS)[None, :], other=0.0)
    return g * scale[:, None]


@triton.jit
def weight_gradient(
    hidden,
    rows,
    state,
    order,
    upstream,
    factor,
    actions,
    offsets,
    of_weight,
    of_bias,
    state_stride,
    upstream_stride,
    FEATURES: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """A part ``[BLOCK_K, BLOCK_D]`` of one action's block, summed over its pairs in their order; zeros without any.

    With ``actions [U]``, block u is of action ``actions[u]``; otherwise of action u.

        of_weight[u] = factor * (upstream * rows).T @ hidden[state]      of_bias[u] = factor * (upstream * rows).sum(0)
    """
    block = tl.program_id(0).to(tl.int64)
    action = block
    if actions is not None:
        action = tl.load(actions + block)
    start = tl.load(offsets + action)
    stop = tl.load(offsets + action + 1)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    k = tl.program_id(2) * BLOCK_K + tl.arange(0, BLOCK_K)
    inside = d < FEATURES
    in_row = k < BINS
    total = tl.zeros([BLOCK_K, BLOCK_D], dtype=tl.float32)
    bias_total = tl.zeros([BLOCK_K], dtype=tl.float32)
    for first in range(start, stop, BLOCK_P):
        pair = first + tl.arange(0, BLOCK_P)
        mask = pair < stop
        g = scaled_rows(rows, order, upstream, upstream_stride, pair, mask, k, BINS)
        features = hidden + tl.load(state + pair, mask=mask, other=0) * state_stride
        h = tl.load(features[:, None] + d[None, :], mask=mask[:, None] & inside[None, :], other=0.0)
        h = operand(h, COMPUTE)
        total = tl.dot(tl.trans(operand(g, COMPUTE)), h, total, input_precision=PRECISION)
        bias_total += tl.sum(g, 0)
    if factor is not None:
        total *= tl.load(factor)
        bias_total *= tl.load(factor)
    if of_weight is not None:
        place = of_weight + (block * BINS + k[:, None]) * FEATURES + d[None, :]
        tl.store(place, total.to(of_weight.dtype.element_ty), mask=in_row[:, None] & inside[None, :])
    if of_bias is not None:  # noqa: SIM102 (what is None is left out before anything is compiled)
        if tl.program_id(1) == 0:
            tl.store(of_bias + block * BINS + k, bias_total.to(of_bias.dtype.element_ty), mask=in_row)


@triton.jit
def hidden_gradient(
    weight,
    rows,
    state,
    order,
    upstream,
    factor,
    tiles,
    programs,
    of_hidden,
    by_pair,
    action_stride,
    bin_stride,
    upstream_stride,
    FEATURES: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK_P: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """``factor * upstream * rows[i] @ weight[a]``, for a tile: to ``of_hidden[state_i]``, or ``by_pair[i]`` float32."""
    tile = tl.program_id(0)
    action = tl.load(tiles + tile)
    start = tl.load(tiles + programs + tile)
    stop = tl.load(tiles + 2 * programs + tile)
    if start >= stop:
        return
    pair = start + tl.arange(0, BLOCK_P)
    mask = pair < stop
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = d < FEATURES
    total = tl.zeros([BLOCK_P, BLOCK_D], dtype=tl.float32)
    for first in range(0, BINS, BLOCK_K):
        k = first + tl.arange(0, BLOCK_K)
        g = scaled_rows(rows, order, upstream, upstream_stride, pair, mask, k, BINS)
        place = weight + action * action_stride + k[:, None] * bin_stride + d[None, :]
        w = tl.load(place, mask=(k < BINS)[:, None] & inside[None, :], other=0.0)
        w = operand(w, COMPUTE)
        total = tl.dot(operand(g, COMPUTE), w, total, input_precision=PRECISION)
    if factor is not None:
        total *= tl.load(factor)
    written = mask[:, None] & inside[None, :]
    if by_pair is None:
        row = tl.load(state + pair, mask=mask, other=0)
        place = of_hidden + row[:, None] * FEATURES + d[None, :]
        tl.store(place, total.to(of_hidden.dtype.element_ty), mask=written)
    else:
        tl.store(by_pair + pair[:, None] * FEATURES + d[None, :], total, mask=written)


@triton.jit
def sum_by_state(by_pair, place, offsets, of_hidden, FEATURES: tl.constexpr, BLOCK_D: tl.constexpr):
    """``of_hidden[b]``: the sum of ``by_pair[place[j]]`` for j from ``offsets[b]`` to ``offsets[b + 1]``, in order."""
    state = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    total = tl.zeros([BLOCK_D], dtype=tl.float32)
    for j in range(tl.load(offsets + state), tl.load(offsets + state + 1)):
        total += tl.load(by_pair + tl.load(place + j) * FEATURES + d, mask=d < FEATURES, other=0.0)
    tl.store(of_hidden + state * FEATURES + d, total.to(of_hidden.dtype.element_ty), mask=d < FEATURES)


@triton.jit
def action_values(
    hidden,
    weight,
    bias,
    legal,
    centres,
    values,
    best,
    which,
    states,
    actions,
    actions_per_program,
    state_stride,
    action_stride,
    bin_stride,
    legal_stride,
    FEATURES: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK_B: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
    COMPUTE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """Means of some states' distributions over some actions, one action after another.

    They are stored to ``values [B, A]``, or only the largest is kept, of equals the first, and NaN before any number:
    in ``best [., B]`` and ``which [., B]``, one row for each part of the actions. An action that none of the states may
    take is not computed.
    """
    state = tl.program_id(0).to(tl.int64) * BLOCK_B + tl.arange(0, BLOCK_B)
    mask = state < states
    k = tl.arange(0, BLOCK_K)
    begin = tl.program_id(1) * actions_per_program
    top = tl.full([BLOCK_B], -float("inf"), dtype=tl.float32)
    chosen = tl.full([BLOCK_B], -1, dtype=tl.int32)
    for action in range(begin, tl.minimum(begin + actions_per_program, actions)):
        allowed = mask
        if legal is not None:
            allowed = tl.load(legal + state * legal_stride + action, mask=mask, other=0) != 0
        if tl.max(allowed.to(tl.int32), 0) > 0:
            a = tl.cast(action, tl.int64)
            offset = None
            if bias is not None:
                offset = bias + a * BINS
            x = linear(
                hidden + state * state_stride,
                weight + a * action_stride,
                offset,
                k,
                mask,
                bin_stride,
                FEATURES,
                BINS,
                BLOCK_D,
                COMPUTE,
                PRECISION,
            )
            _, exponential, total = softmax(x)
            mean = (bin_moment(k, exponential, centres, BINS) / total).to(tl.float32)
            if values is not None:
                tl.store(values + state * actions + action, mean, mask=mask)
            else:
                better = allowed & ((mean > top) | ((mean != mean) & (top == top)))
                top = tl.where(better, mean, top)
                chosen = tl.where(better, action, chosen)
    if values is None:
        place = tl.program_id(1).to(tl.int64) * states + state
        tl.store(best + place, top, mask=mask)
        tl.store(which + place, chosen, mask=mask)
