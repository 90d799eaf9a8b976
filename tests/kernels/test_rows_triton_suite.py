"""The suite of the row kernels on Triton: whole on a GPU; in Triton's interpreter the part that it gets through."""

from __future__ import annotations

from typing import cast

import pytest
import torch

from isogon.kernels.rows import RowKernels

from .row_suite_layout import LayoutTraps
from .row_suite_numbers import NumberTraps
from .row_suite_targets import TargetTraps

# The interpreter computes in NumPy, which warns of infinities and NaN that are meant here.
pytestmark = pytest.mark.filterwarnings("ignore::RuntimeWarning")
pytest.importorskip("triton", reason="triton is not installed: it is made for Linux on x86-64 and Arm")


class OnTriton:
    device = "cuda" if torch.cuda.is_available() else "cpu"

    @pytest.fixture
    def rows(self) -> RowKernels:
        from isogon.kernels import rows_triton

        return cast(RowKernels, rows_triton)


class TestTargets(OnTriton, TargetTraps):
    pass


@pytest.mark.skipif(not torch.cuda.is_available(), reason="takes many minutes in the interpreter, seconds on a GPU")
class TestNumbersAndLayout(OnTriton, NumberTraps, LayoutTraps):
    pass
