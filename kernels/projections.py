"""Target distributions: scalars and distributions projected onto the bins of a `Support`.

A projection turns a target y into probabilities over K bins:

* ``"hl_gauss"``: mass of a Gaussian around y in each bin, renormalised to the range (Imani & White 2018; Farebrother et
  al. 2024, section 3.1). With edges e and standard deviation s, in grid units:
  ``p_i = [Phi((e_{i+1} - y)/s) - Phi((e_i - y)/s)] / [Phi((e_K - y)/s) - Phi((e_0 - y)/s)]``.
  Its mean is y in the interior, and up to a few bin widths inside the range where y is close to an end.
* ``"two_hot"``: the two neighbouring centres share the mass so that the mean is y exactly; y beyond the outermost
  centre goes to that centre.
* ``"one_hot"``: all mass in the bin that holds y; an edge belongs to the bin below it.
"""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

import torch

from .support import Support

Projection: TypeAlias = Literal["hl_gauss", "two_hot", "one_hot"]


def target_probabilities(
    target: torch.Tensor,
    support: Support,
    projection: Projection = "hl_gauss",
    *,
    dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """Project scalar targets onto the bins.

    Args:
        target: ``[...]`` floating, in units of value; values outside the range, infinite ones too, are clamped to it.
            NaN gives NaN in its own row.
        support: the bins.
        projection: see the module's docstring.
        dtype: float32 or float64, of the result and of the arithmetic per bin; by default the target's, and float32
            for half precision. Positions are always computed in float64.

    Returns:
        Probabilities ``[..., K]``.

    Raises:
        ValueError: the target is not floating, or the projection or dtype is unknown.
    """
    if not target.dtype.is_floating_point:
        raise ValueError(f"target has dtype {target.dtype}: it must be floating, values and not bin numbers")
    if dtype is None:
        dtype = torch.float64 if target.dtype == torch.float64 else torch.float32
    if dtype not in (torch.float32, torch.float64):
        raise ValueError(f"dtype is {dtype}: it must be torch.float32 or torch.float64")
    return masses(bin_position(target, support, projection), projection, support.bins, support.sigma_ratio, dtype)


def bin_position(target: torch.Tensor, support: Support, projection: Projection) -> torch.Tensor:
    """Where targets ``[...]`` lie, in bins, float64, clamped to the range.

    Counted from the first edge, or with ``"two_hot"`` from the first centre, and then such that sharing by distance
    keeps the mean.

    Raises:
        ValueError: the projection is unknown.
    """
    check_projection(projection)
    value = target.double().clamp(support.lowest, support.highest)
    if projection == "two_hot":
        return _mean_preserving_position(value, support)
    return (_grid_position(value, support) + 0.5).clamp(0, support.bins)


def masses(
    position: torch.Tensor, projection: Projection, bins: int, sigma_ratio: float, dtype: torch.dtype
) -> torch.Tensor:
    """Probabilities ``[..., K]`` of targets at positions ``[...]`` of `bin_position`."""
    match projection:
        case "hl_gauss":
            return _gaussian_mass(position, bins, sigma_ratio, dtype)
        case "two_hot":
            return _hat(position, bins, dtype)
        case "one_hot":
            return _hat((torch.ceil(position) - 1).clamp(0, bins - 1), bins, dtype)


def check_projection(projection: str) -> None:
    """Raise ValueError unless it is one."""
    if projection not in ("hl_gauss", "two_hot", "one_hot"):
        raise ValueError(f"projection is {projection!r}: it must be 'hl_gauss', 'two_hot' or 'one_hot'")


def project_categorical(
    reward: torch.Tensor, discount: torch.Tensor, probs: torch.Tensor, support: Support
) -> torch.Tensor:
    """The distribution of ``reward + discount * Z``, projected back onto the centres where Z lies.

    Equation 7 of Bellemare et al. 2017 ("A distributional perspective on reinforcement learning", C51): each centre's
    mass moves to where the Bellman update puts it, is clamped to the outermost centres, and is shared by its two
    neighbours so that the mean stays.

    Args:
        reward: ``[...]`` floating; several steps' discounted sum for n-step targets.
        discount: ``[...]`` floating, of Z; 0 where the episode ends.
        probs: ``[..., K]`` floating, the distribution of Z.
        support: the bins of both distributions.

    Returns:
        Probabilities ``[..., K]`` in the dtype of ``probs``. NaN in a row stays in that row.

    Raises:
        ValueError: the shapes do not fit each other or the support.
    """
    if probs.shape[-1:] != (support.bins,):
        raise ValueError(f"probs has shape {tuple(probs.shape)}: the last must be the support's {support.bins} bins")
    for name, tensor in (("reward", reward), ("discount", discount)):
        if tensor.shape != probs.shape[:-1]:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}, probs {tuple(probs.shape)}: it must be [..., K]")
    atoms = support.centres(dtype=torch.float64, device=probs.device)
    moved = reward.double().unsqueeze(-1) + discount.double().unsqueeze(-1) * atoms
    position = _mean_preserving_position(moved, support)
    below = torch.floor(position)
    share_above = (position - below).to(probs.dtype)
    index = torch.nan_to_num(below).long()
    projected = torch.zeros_like(probs)
    projected = projected.scatter_add(-1, index, probs * (1 - share_above))
    return projected.scatter_add(-1, (index + 1).clamp(max=support.bins - 1), probs * share_above)


def _grid_position(value: torch.Tensor, support: Support) -> torch.Tensor:
    """Where values lie in float64, counted in bins from the centre of bin 0."""
    from_vmin = (support.to_grid(value) - support.vmin) / support.width
    return from_vmin - 0.5 if support.anchor == "edges" else from_vmin


def _mean_preserving_position(value: torch.Tensor, support: Support) -> torch.Tensor:
    """Like `_grid_position`, but such that sharing by distance keeps the mean; clamped to the outermost centres."""
    position = _grid_position(value, support).clamp(0, support.bins - 1)
    if support.transform != "symexp":
        return position
    below = torch.floor(position).clamp(max=support.bins - 2)
    low = support.from_grid(support.first_centre + below * support.width)
    high = support.from_grid(support.first_centre + (below + 1) * support.width)
    return below + ((value - low) / (high - low)).clamp(0, 1)


def _hat(position: torch.Tensor, bins: int, dtype: torch.dtype) -> torch.Tensor:
    """``max(0, 1 - |position - k|)`` for each bin k: linear sharing between the two nearest."""
    k = torch.arange(bins, dtype=torch.float64, device=position.device)
    return (1 - (position.unsqueeze(-1) - k).abs()).clamp(min=0).to(dtype)


def _gaussian_mass(position: torch.Tensor, bins: int, sigma_ratio: float, dtype: torch.dtype) -> torch.Tensor:
    """HL-Gauss probabilities ``[..., K]`` from positions in bins from the first edge.

    Distances to edges are taken as integers minus a fraction, which float32 holds without cancellation at any K. The
    upper tail ``erfc(|u| / sqrt 2) / 2`` is taken on either side of the target for the same reason: far from it both
    values of Phi round to 1.
    """
    cell = torch.floor(position)
    fraction = (position - cell).to(dtype).unsqueeze(-1)
    k = torch.arange(bins + 1, dtype=torch.float64, device=position.device)
    u = ((k - cell.unsqueeze(-1)).to(dtype) - fraction) / sigma_ratio
    tail = torch.special.erfc(u.abs() * math.sqrt(0.5)) / 2
    left, right = tail[..., :-1], tail[..., 1:]
    beside = (left - right).abs()
    mass = torch.where((u[..., :-1] < 0) & (u[..., 1:] > 0), 1 - left - right, beside)
    in_range: torch.Tensor = 1 - tail[..., :1] - tail[..., -1:]
    return mass / in_range
