"""`Support`: the bins over which a scalar is represented. Nothing else in Isogon defines bins.

K bins of equal width lie on a *grid*. Without a transform the grid's unit is the value's own. With one it is
``symlog(value)``, and ``vmin``, ``vmax`` are given in it:

* ``"symlog"``: the regression happens on the grid. A target is squashed first, the mean is taken on the grid and then
  expanded: ``value = symexp(sum_k p_k grid_k)`` (TD-MPC2, Hansen et al. 2024, section 3.1).
* ``"symexp"``: the grid only spaces the bins, densely near 0. The mean is taken over the expanded centres:
  ``value = sum_k p_k symexp(grid_k)``, unbiased for random targets (DreamerV3, Hafner et al. 2025, "symexp twohot").
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch

_LARGEST_SYMLOG = 88.0
"""symexp of more than this overflows float32."""


def symlog(x: torch.Tensor) -> torch.Tensor:
    """``sign(x) log(1 + |x|)``, elementwise (DreamerV3, equation 9)."""
    return torch.sign(x) * torch.log1p(torch.abs(x))


def symexp(x: torch.Tensor) -> torch.Tensor:
    """``sign(x) (exp(|x|) - 1)``, elementwise: the inverse of `symlog`."""
    return torch.sign(x) * torch.expm1(torch.abs(x))


@dataclass(frozen=True)
class Support:
    """Which values a distribution over K bins can take.

    Attributes:
        vmin: lower end of the range, in grid units.
        vmax: upper end of the range, in grid units.
        bins: number of bins K, at least 2.
        sigma_ratio: standard deviation of HL-Gauss targets in bin widths (0.75 in "Stop Regressing", Farebrother et al.
            2024).
        anchor: what the range names. ``"edges"``: the outermost edges of the outermost bins, so that every value lies
            inside (HL-Gauss). ``"atoms"``: the outermost bins' centres (two-hot, C51).
        transform: None, ``"symlog"`` or ``"symexp"``; see the module's docstring.

    Raises:
        ValueError: the range is empty or not finite, there are fewer than two bins, or a choice is unknown.
    """

    vmin: float
    vmax: float
    bins: int
    sigma_ratio: float = 0.75
    anchor: Literal["edges", "atoms"] = "edges"
    transform: Literal["symlog", "symexp"] | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.vmin) and math.isfinite(self.vmax)):
            raise ValueError(f"vmin is {self.vmin} and vmax {self.vmax}: both must be finite")
        if self.vmin >= self.vmax:
            raise ValueError(f"vmin is {self.vmin} and vmax {self.vmax}: vmin must be the smaller")
        if isinstance(self.bins, bool) or not isinstance(self.bins, int) or self.bins < 2:
            raise ValueError(f"bins is {self.bins!r}: it must be an int of at least 2")
        if not (math.isfinite(self.sigma_ratio) and self.sigma_ratio > 0):
            raise ValueError(f"sigma_ratio is {self.sigma_ratio}: it must be finite and above 0")
        if self.anchor not in ("edges", "atoms"):
            raise ValueError(f"anchor is {self.anchor!r}: it must be 'edges' or 'atoms'")
        if self.transform not in (None, "symlog", "symexp"):
            raise ValueError(f"transform is {self.transform!r}: it must be None, 'symlog' or 'symexp'")
        if self.transform and max(abs(self.vmin), abs(self.vmax)) > _LARGEST_SYMLOG:
            raise ValueError(
                f"vmin is {self.vmin} and vmax {self.vmax}: with transform={self.transform!r} they are in symlog "
                f"units, of which {_LARGEST_SYMLOG} is the largest that float32 can expand"
            )

    def __hash__(self) -> int:
        return self._hash

    @cached_property
    def _hash(self) -> int:
        # Supports are keys of caches on paths where a microsecond counts.
        return hash((self.vmin, self.vmax, self.bins, self.sigma_ratio, self.anchor, self.transform))

    @cached_property
    def width(self) -> float:
        """Width of a bin, in grid units."""
        return (self.vmax - self.vmin) / (self.bins if self.anchor == "edges" else self.bins - 1)

    @cached_property
    def sigma(self) -> float:
        """Standard deviation of HL-Gauss targets, in grid units."""
        return self.sigma_ratio * self.width

    @cached_property
    def first_centre(self) -> float:
        """Centre of bin 0, in grid units."""
        return self.vmin + self.width / 2 if self.anchor == "edges" else self.vmin

    @cached_property
    def last_centre(self) -> float:
        """Centre of bin K - 1, in grid units."""
        return self.vmax - self.width / 2 if self.anchor == "edges" else self.vmax

    @cached_property
    def lowest(self) -> float:
        """Lowest target that is not clamped: ``vmin``, in units of value."""
        return self._expand(self.vmin)

    @cached_property
    def highest(self) -> float:
        """Highest target that is not clamped: ``vmax``, in units of value."""
        return self._expand(self.vmax)

    def grid_centres(
        self, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> torch.Tensor:
        """Centres of the bins in grid units, ``[K]``, equally spaced."""
        return _linspace(self.first_centre, self.last_centre, self.bins, device).to(dtype)

    def grid_edges(
        self, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None
    ) -> torch.Tensor:
        """Edges of the bins in grid units, ``[K + 1]``; bin k lies between edges k and k + 1."""
        half = 0.0 if self.anchor == "edges" else self.width / 2
        return _linspace(self.vmin - half, self.vmax + half, self.bins + 1, device).to(dtype)

    def centres(self, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None) -> torch.Tensor:
        """Centres of the bins in units of value, ``[K]``."""
        return self.from_grid(self.grid_centres(dtype=torch.float64, device=device)).to(dtype)

    def edges(self, *, dtype: torch.dtype = torch.float32, device: torch.device | str | None = None) -> torch.Tensor:
        """Edges of the bins in units of value, ``[K + 1]``."""
        return self.from_grid(self.grid_edges(dtype=torch.float64, device=device)).to(dtype)

    def to_grid(self, value: torch.Tensor) -> torch.Tensor:
        """Values in grid units, elementwise."""
        return symlog(value) if self.transform else value

    def from_grid(self, position: torch.Tensor) -> torch.Tensor:
        """Grid positions in units of value, elementwise: the inverse of `to_grid`."""
        return symexp(position) if self.transform else position

    def expectation(self, probabilities: torch.Tensor) -> torch.Tensor:
        """The value ``[...]`` that distributions ``[..., K]`` stand for; see the module's docstring.

        Raises:
            ValueError: the last dimension is not K.
        """
        if probabilities.shape[-1:] != (self.bins,):
            raise ValueError(
                f"probabilities have shape {tuple(probabilities.shape)}: the last must be {self.bins} bins"
            )
        if self.transform == "symexp":
            return _symmetric_sum(probabilities * self.centres(dtype=probabilities.dtype, device=probabilities.device))
        return self.from_grid(probabilities @ self.grid_centres(dtype=probabilities.dtype, device=probabilities.device))

    def _expand(self, position: float) -> float:
        return math.copysign(math.expm1(abs(position)), position) if self.transform else position


def _linspace(start: float, end: float, steps: int, device: torch.device | str | None) -> torch.Tensor:
    # torch.linspace does not mirror exactly: from -1 to 1 it can miss 0.
    share = torch.arange(1 - steps, steps, 2, dtype=torch.float64, device=device) / (steps - 1)
    return (start + end) / 2 + (end - start) / 2 * share


def _symmetric_sum(terms: torch.Tensor) -> torch.Tensor:
    # Expanded centres reach 5e8; summed from one side they leave rounding errors where mirrored bins should cancel.
    half = terms.shape[-1] // 2
    pairs = terms[..., :half] + terms[..., terms.shape[-1] - half :].flip(-1)
    return pairs.sum(-1) + terms[..., half : terms.shape[-1] - half].sum(-1)
