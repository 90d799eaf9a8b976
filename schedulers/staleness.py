"""How much less an update counts that was made from an older version of the model.

Each function takes a staleness u >= 0 in versions and gives a factor in (0, 1], 1 at u = 0. Xie et al. 2019,
"Asynchronous federated optimization" (https://arxiv.org/abs/1903.03934), section 5.2.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeAlias

Staleness: TypeAlias = Callable[[int], float]


def constant() -> Staleness:
    """1 at any staleness."""
    return _constant


def polynomial(exponent: float) -> Staleness:
    """``(u + 1) ** -exponent``. Raises ValueError for a negative exponent: older updates would count more."""
    if not exponent >= 0:
        raise ValueError(f"exponent is {exponent}: it must be at least 0, or older updates would count more")
    return partial(_polynomial, exponent)


def hinge(slope: float, free: float) -> Staleness:
    """1 up to ``free`` versions, then ``1 / (slope * (u - free) + 1)``.

    Raises:
        ValueError: ``slope`` or ``free`` is negative.
    """
    if not (slope >= 0 and free >= 0):
        raise ValueError(f"slope is {slope} and free {free}: both must be at least 0")
    return partial(_hinge, slope, free)


def _constant(_staleness: int) -> float:
    return 1.0


def _polynomial(exponent: float, staleness: int) -> float:
    return float((staleness + 1.0) ** -exponent)


def _hinge(slope: float, free: float, staleness: int) -> float:
    return 1.0 if staleness <= free else 1.0 / (slope * (staleness - free) + 1.0)
