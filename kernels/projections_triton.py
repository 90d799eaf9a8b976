"""Triton device functions that build target distributions in registers.

They compute what `isogon.kernels.projections` does: `window_probabilities` and `scalar_probabilities` what
`target_probabilities` does, `moved_probabilities` what `project_categorical` does. R is the samples of a tile, B its
bins, W those of a window around the targets. Positions are split into the cell, an integer, and the fraction of it, so
that float32 holds distances to edges without cancellation at any K.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def upper_tail(u):
    """``erfc(u / sqrt 2) / 2`` in float32: a normal variable's chance of more than ``u >= 0``.

    Two to the power of a polynomial of degree 9, fitted to ``log2 erfc`` on [0, 6] for the least error of
    ``upper_tail ** 0.7``, and exactly 1/2 at 0: 1e-8 absolute before rounding and below 6e-8 after it, 5e-6 relative up
    to 4. From 6 on it is constant, so that differences are 0: the tail itself is 1e-9 there.
    """
    u = tl.minimum(u, 6.0)
    p = 3.39782673e-07 * u - 7.09068627e-06
    p = p * u + 6.07059519e-05
    p = p * u - 0.000241256013
    p = p * u - 5.82878929e-05
    p = p * u + 0.00700147683
    p = p * u - 0.0524709038
    p = p * u - 0.45921278
    p = p * u - 1.15110493
    return tl.exp2(p * u - 1.0)


@triton.jit
def gaussian_mass(from_cell, fraction, inverse_sigma):
    """Mass of a Gaussian at ``fraction`` between ``from_cell`` (int32) and ``from_cell + 1``, float32, elementwise.

    Tails are taken on the edge's own side of the target, so that no small mass is the difference of two numbers near 1.
    """
    left = upper_tail(tl.abs(from_cell.to(tl.float32) - fraction) * inverse_sigma)
    right = upper_tail(tl.abs((from_cell + 1).to(tl.float32) - fraction) * inverse_sigma)
    return tl.where(from_cell == 0, 1.0 - left - right, tl.abs(left - right))


@triton.jit
def split_position(position, low, high):
    """Float64 positions, clamped to ``[low, high]``, as (cell int32, fraction float32); NaN has a fraction of NaN."""
    poison = tl.where(position == position, 0.0, float("nan"))
    position = tl.where(position > low, position, low)
    position = tl.where(position < high, position, high)
    cell = tl.floor(position)
    return cell.to(tl.int32), (position - cell).to(tl.float32) + poison


@triton.jit
def scalar_position(target, low, high, origin, width, inverse_width, PROJECTION: tl.constexpr):
    """Scalars ``[R]`` as (cell, fraction) ``[R]``, as `isogon.kernels.rows.ScalarTargets` defines positions.

    Positions grow with targets, so that clamping the former to ``[low, high]``, where ``lowest`` and ``highest`` lie,
    is clamping the latter. For one-hot targets the cell is the bin that holds the target, and the fraction 0, or NaN of
    NaN; they divide, because a product with the inverse could put a target on an edge into the wrong bin.
    """
    from_origin = target.to(tl.float64) - origin
    position = tl.ceil(from_origin / width) - 1.0 if PROJECTION == "one_hot" else from_origin * inverse_width
    return split_position(position, low, high)


@triton.jit
def window_probabilities(
    cell,
    fraction,
    inverse_sigma,
    half,
    PROJECTION: tl.constexpr,
    BINS: tl.constexpr,
    BLOCK_W: tl.constexpr,
):
    """Bins ``cell - half .. cell - half + W - 1`` as ``[R, W]``, and their probabilities; 0 in bins that are not."""
    from_cell = (tl.arange(0, BLOCK_W) - half)[None, :]
    bins = from_cell + cell[:, None]
    if PROJECTION == "hl_gauss":
        mass = gaussian_mass(from_cell, fraction[:, None], inverse_sigma)
        mass = tl.where((bins >= 0) & (bins < BINS), mass, 0.0)
        mass = mass * (1.0 / tl.sum(mass, 1) + (fraction - fraction))[:, None]
    else:
        mass = hat(from_cell, fraction[:, None])
    return bins, mass


@triton.jit
def scalar_probabilities(k, cell, fraction, inverse_sigma, PROJECTION: tl.constexpr, BINS: tl.constexpr):
    """Probabilities ``[R, B]`` of the bins ``k [B]``, which may be some of all K; 0 beyond the last bin."""
    from_cell = k[None, :] - cell[:, None]
    if PROJECTION == "hl_gauss":
        below = upper_tail((cell.to(tl.float32) + fraction) * inverse_sigma)
        above = upper_tail(tl.maximum((BINS - cell).to(tl.float32) - fraction, 0.0) * inverse_sigma)
        mass = gaussian_mass(from_cell, fraction[:, None], inverse_sigma)
        mass = mass * (1.0 / (1.0 - below - above) + (fraction - fraction))[:, None]
        mass = tl.where(k[None, :] < BINS, mass, 0.0)
    else:
        mass = hat(from_cell, fraction[:, None])
    return mass


@triton.jit
def hat(from_cell, fraction):
    """``1 - fraction`` in the cell, ``fraction`` in the one above, else 0; NaN everywhere if the fraction is."""
    beside = tl.where(from_cell == 1, fraction, fraction - fraction)
    return tl.where(from_cell == 0, 1.0 - fraction, beside)


@triton.jit
def moved_probabilities(
    k,
    probs,
    bin_stride,
    reward,
    discount,
    active,
    origin,
    inverse_width,
    BINS: tl.constexpr,
):
    """Distributions of ``reward + discount * Z``, projected onto the bins ``k [B]``: ``[R, B]``.

    ``probs [R]`` points to the distributions of Z. Every bin adds up its share of all sources in their order, so the
    sums are the same each time.
    """
    base = (reward.to(tl.float64) + discount.to(tl.float64) * origin - origin) * inverse_width
    total = tl.zeros([probs.shape[0], k.shape[0]], dtype=tl.float32)
    for source in range(BINS):
        cell, fraction = split_position(base + discount.to(tl.float64) * source, 0.0, BINS - 1.0)
        mass = tl.load(probs + source * bin_stride, mask=active, other=0.0).to(tl.float32)
        total += mass[:, None] * hat(k[None, :] - cell[:, None], fraction[:, None])
    return total
