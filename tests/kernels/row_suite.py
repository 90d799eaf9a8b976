"""What every backend of row kernels is put through: the contract of `isogon.kernels.rows`.

A test module subclasses `RowSuite` and gives the fixture ``rows``. The numbers in the names of tests are groups of
traps: 1 targets out of range, 2 targets on edges and ends, 3 NaN and masks, 4 narrow and wide Gaussians, 5 half
precision, 6 extreme logits, 7 sizes, 8 strides, 9 offsets beyond 32 bits, 10 weights and chosen rows, 11 gradients made
again, 12 the same bits, 13 properties, 14 agreement of backends, 15 threads and forks, 16 autocast and torch.compile.
"""

from __future__ import annotations

from .row_suite_layout import LayoutTraps
from .row_suite_numbers import NumberTraps
from .row_suite_targets import TargetTraps


class RowSuite(TargetTraps, NumberTraps, LayoutTraps):
    """All of them.

    Attributes:
        device: where tensors lie.
        many: samples enough to show a dependence on threads.
    """
