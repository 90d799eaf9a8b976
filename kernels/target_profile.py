"""Target masses as polynomials: what the C kernel evaluates in place of error functions.

The masses that a target puts into the bins around its cell are smooth functions of where in the cell it lies. Cut into
pieces half a standard deviation at most from end to end of which the function hardly bends, they are polynomials of low
degree to float32's precision, one for each bin, and a vector of bins takes one multiply-add for each degree.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

from .projections import Projection

_LANES = 16
"""Floats of the widest vector; a window is a multiple of it."""

_REACH = 5.6
"""Standard deviations beyond which no mass is left in float32: erfc(5.6 / sqrt 2) / 2 is 1e-8."""

_DEGREE = 4
_PIECE = 0.17
"""Longest piece, in standard deviations: error at degree 4 up to 3e-8, rounding to float32 included."""

_NARROW = 0.5 / _REACH
"""sigma_ratio below which a target's mass crosses one edge of its cell at most."""


@dataclass(frozen=True)
class Profile:
    """Bin ``cell - before + j`` has mass ``sum_i coefficients[piece, i, j] s^i`` at s in [-1, 1] of a piece.

    Attributes:
        place: what pieces cut: ``"cell"``, the place within the cell; ``"edge"``, the distance to the nearer edge
            times ``scale``, first all pieces for the lower edge and then as many for the upper, the last of each
            for everything farther; ``"bin"``, nothing: the whole mass lies in one bin.
        before: bins of the window before the cell.
        scale: of the distance, for ``"edge"``.
        coefficients: ``[pieces, degree + 1, window]`` float32, contiguous.
    """

    place: Literal["cell", "edge", "bin"]
    before: int
    scale: float
    coefficients: torch.Tensor


def profile(projection: Projection, sigma_ratio: float, bins: int) -> Profile:
    """The profile of a projection onto so many bins; ``sigma_ratio`` matters to HL-Gauss alone."""
    match projection:
        case "one_hot":
            return Profile("bin", 0, 1.0, _padded(torch.ones(1, 1, 1, dtype=torch.float64)))
        case "two_hot":
            hats = torch.tensor([[[0.5, 0.5], [-0.5, 0.5]]], dtype=torch.float64)
            return Profile("cell", 0, 1.0, _padded(hats))
        case "hl_gauss":
            if sigma_ratio < _NARROW:
                return _narrow(sigma_ratio)
            return _wide(sigma_ratio, min(math.ceil(_REACH * sigma_ratio), bins))


@lru_cache(maxsize=64)
def _wide(sigma_ratio: float, before: int) -> Profile:
    pieces = math.ceil(1 / (_PIECE * sigma_ratio))
    fraction = (_nodes() + 1 + 2 * torch.arange(pieces, dtype=torch.float64).unsqueeze(-1)) / (2 * pieces)
    bins = torch.arange(-before, before + 1, dtype=torch.float64)
    left = (bins - fraction.unsqueeze(-1)) / sigma_ratio
    right = (bins + 1 - fraction.unsqueeze(-1)) / sigma_ratio
    tail_left, tail_right = _tail(left.abs()), _tail(right.abs())
    beside = (tail_left - tail_right).abs()
    mass = torch.where((left < 0) & (right > 0), 1 - tail_left - tail_right, beside)
    return Profile("cell", before, 1.0, _padded(_fit(mass)))


@lru_cache(maxsize=64)
def _narrow(sigma_ratio: float) -> Profile:
    pieces = math.ceil(_REACH / _PIECE)
    distance = (_nodes() + 1 + 2 * torch.arange(pieces, dtype=torch.float64).unsqueeze(-1)) * (_REACH / pieces / 2)
    beyond = _tail(distance)
    nothing = torch.zeros_like(beyond)
    crossed_below = _fit(torch.stack([beyond, 1 - beyond, nothing], -1))
    crossed_above = _fit(torch.stack([nothing, 1 - beyond, beyond], -1))
    inside = torch.zeros(1, _DEGREE + 1, 3, dtype=torch.float64)
    inside[0, 0, 1] = 1
    coefficients = torch.cat([crossed_below, inside, crossed_above, inside])
    return Profile("edge", 1, pieces / _REACH / sigma_ratio, _padded(coefficients))


def _nodes() -> torch.Tensor:
    """Chebyshev's, on [-1, 1]."""
    return torch.cos(math.pi * (torch.arange(_DEGREE + 1, dtype=torch.float64) + 0.5) / (_DEGREE + 1))


def _fit(values: torch.Tensor) -> torch.Tensor:
    """Coefficients ``[pieces, degree + 1, bins]`` of the polynomials through values ``[pieces, nodes, bins]``."""
    fitted: torch.Tensor = torch.linalg.solve(torch.linalg.vander(_nodes(), N=_DEGREE + 1), values)
    return fitted


def _tail(u: torch.Tensor) -> torch.Tensor:
    tail: torch.Tensor = torch.special.erfc(u * math.sqrt(0.5)) / 2
    return tail


def _padded(coefficients: torch.Tensor) -> torch.Tensor:
    _, degrees, window = coefficients.shape
    missing = (0, -window % _LANES, 0, _DEGREE + 1 - degrees)
    return torch.nn.functional.pad(coefficients, missing).float().contiguous()
