"""How many guesses a return stands for."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

_LEAST = 1e-12
"""Of the share of a return that is left to come: no number of guesses returns less than ``-1 / (1 - discount)``."""


def misses_of_return(value: npt.ArrayLike, discount: float) -> npt.NDArray[np.float64]:
    """The number of guesses that miss, from here on, whose discounted return is ``value``, elementwise.

    n misses return ``-(1 - discount^n) / (1 - discount)``, without a discount -n. The inverse is defined between whole
    numbers too, falls with the value and never ends: what no game can return is far beyond the last guess. With a
    discount of 0 every number of misses returns -1, and is 1 here.

    Args:
        value: of any shape.
        discount: of one step, in [0, 1].
    """
    values = np.asarray(value, np.float64)
    if discount in (0.0, 1.0):
        return -values
    return np.asarray(np.log(np.maximum(1 + values * (1 - discount), _LEAST)) / np.log(discount))
