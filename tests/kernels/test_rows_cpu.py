"""The row kernels that work on the CPU: in C, with every set of vectors that this machine has, and in torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import cast

import pytest
import torch

from isogon.kernels import rows_torch
from isogon.kernels.rows import RowKernels

from .native_sets import INSTRUCTION_SETS, using
from .row_cases import EPS, KINDS, draw
from .row_suite import RowSuite


class TestNative(RowSuite):
    @pytest.fixture(params=INSTRUCTION_SETS)
    def rows(self, request: pytest.FixtureRequest) -> Iterator[RowKernels]:
        with using(request.param) as rows:
            yield rows


class TestTorch(RowSuite):
    @pytest.fixture
    def rows(self) -> RowKernels:
        return cast(RowKernels, rows_torch)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bins", [2, 51, 255])
def test_14_instruction_sets_and_torch_agree(kind: str, bins: int) -> None:
    problem = draw(64, bins, kind)
    wanted = problem.run(cast(RowKernels, rows_torch))
    for name in INSTRUCTION_SETS:
        with using(name) as rows:
            result = problem.run(rows)
            torch.testing.assert_close(result.loss, wanted.loss, rtol=EPS, atol=1e-5)
            torch.testing.assert_close(result.gradient, wanted.gradient, rtol=0, atol=2e-6)
