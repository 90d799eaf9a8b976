"""Traps around the numbers: strides, weights, chosen rows, gradients made again, and results that must not vary."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from isogon.kernels.rows import RowKernels

from .row_cases import HALF, KINDS, Problem, check_problem, draw, same_bits


def transposed(x: torch.Tensor) -> torch.Tensor:
    return x.t().contiguous().t()


def every_second(x: torch.Tensor) -> torch.Tensor:
    spread = torch.full((x.shape[0], 2 * x.shape[1]), math.nan, dtype=x.dtype, device=x.device)
    spread[:, ::2] = x
    return spread[:, ::2]


def part_of_wider_rows(x: torch.Tensor) -> torch.Tensor:
    wider = torch.full((x.shape[0], x.shape[1] + 5), math.nan, dtype=x.dtype, device=x.device)
    wider[:, 3:-2] = x
    return wider[:, 3:-2]


def one_element_late(x: torch.Tensor) -> torch.Tensor:
    """Contiguous, at an address that no vector is aligned to."""
    storage = torch.empty(x.numel() + 1, dtype=x.dtype, device=x.device)
    late = storage[1:].view(x.shape)
    late.copy_(x)
    return late


def gaps(x: torch.Tensor) -> torch.Tensor:
    """Every third element of a tensor of NaN."""
    spread = torch.full((3 * x.shape[0], *x.shape[1:]), math.nan, dtype=x.dtype, device=x.device)
    spread[::3] = x
    return spread[::3]


class LayoutTraps:
    """See `row_suite.RowSuite`."""

    device = "cpu"
    many = 5000

    @pytest.mark.parametrize("dtype", [torch.float32, *HALF])
    @pytest.mark.parametrize("lay", [transposed, every_second, part_of_wider_rows, one_element_late, gaps])
    def test_8_logits_of_any_strides(
        self, rows: RowKernels, lay: Callable[[torch.Tensor], torch.Tensor], dtype: torch.dtype
    ) -> None:
        for kind in ("hl_gauss", "probs"):
            problem = draw(19, 37, kind, device=self.device, dtype=dtype)
            same_bits(replace(problem, logits=lay(problem.logits)).run(rows), problem.run(rows))

    @pytest.mark.parametrize("kind", KINDS)
    def test_8_logits_that_are_expanded(self, rows: RowKernels, kind: str) -> None:
        problem = draw(19, 37, kind, device=self.device)
        for spread in (problem.logits[:1].expand(19, 37), problem.logits[:, :1].expand(19, 37)):
            result = replace(problem, logits=spread).run(rows)
            same_bits(result, replace(problem, logits=spread.contiguous()).run(rows))

    @pytest.mark.parametrize("kind", KINDS)
    def test_8_targets_and_weights_of_any_strides(self, rows: RowKernels, kind: str) -> None:
        problem = draw(19, 37, kind, device=self.device)
        assert problem.weight is not None
        spread = replace(
            problem,
            target=gaps(problem.target),
            probs=transposed(problem.probs),
            discount=gaps(problem.discount),
            weight=gaps(problem.weight),
        )
        same_bits(spread.run(rows), problem.run(rows))
        one = replace(problem, target=problem.target[:1].expand(19), weight=problem.weight[:1].expand(19))
        same_bits(one.run(rows), replace(one, target=one.target.clone(), weight=one.weight.clone()).run(rows))  # type: ignore[union-attr]

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_10_weight_zero_is_exactly_nothing(self, rows: RowKernels, dtype: torch.dtype, kind: str) -> None:
        """Whatever the sample's logits and target are, and however the zeros lie in a block of samples."""
        for zeros in ([0], [36], [*range(16)], [*range(0, 37, 2)], [5, 6, 7, 18, 31, 32], [*range(37)]):
            problem = draw(37, 19, kind, device=self.device, dtype=dtype)
            assert problem.weight is not None
            problem.weight[zeros] = 0
            kept = [i for i in range(37) if i not in zeros]
            alone = problem.only(kept).run(rows, 0.5)
            problem.logits[zeros] = math.nan
            problem.logits[zeros[::2]] = math.inf
            problem.target[zeros] = math.nan
            problem.probs[zeros] = math.inf
            problem.discount[zeros] = math.nan
            result = problem.run(rows, 0.5)
            assert result.loss is not None
            assert result.gradient is not None
            assert bool((result.loss[zeros] == 0).all())
            assert bool((result.gradient[zeros] == 0).all())
            assert result.stats is not None
            for part in result.stats:
                assert part is None or bool((part[zeros] == 0).all())
            assert result.nan in (0, -1)
            if kept:
                same_bits(result, alone, kept)
            again = rows.gradient(
                problem.logits, None, problem.targets(), problem.weight, torch.full((37,), math.inf).to(self.device)
            )
            assert bool((again[zeros] == 0).all())

    @pytest.mark.parametrize("kind", KINDS)
    def test_10_weights_and_coefficients_are_factors(self, rows: RowKernels, kind: str) -> None:
        """The total too, for a backend that gives one, and losses that nobody asks for may be missing."""
        problem = draw(33, 51, kind, device=self.device)
        assert problem.weight is not None
        problem.weight[3], problem.weight[4], problem.weight[5] = 0, -2, 1e-3
        result = check_problem(rows, problem, 0.25)
        assert result.loss is not None
        total = 0.25 * (problem.weight.double() * result.loss.double()).sum()
        bare = rows.forward(
            problem.logits, None, problem.targets(), problem.weight, 0.25, gradient=False, stats=False, only_total=True
        )
        assert bare.gradient is None
        assert bare.stats is None
        for given in (result, bare):
            if given.total is not None:
                assert given.total.item() == pytest.approx(total.item(), rel=1e-6)
            else:
                assert given.loss is not None
                assert torch.equal(given.loss, result.loss)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("dtype", [torch.float32, *HALF])
    def test_10_chosen_rows(self, rows: RowKernels, dtype: torch.dtype, kind: str) -> None:
        """Read by several samples or by none, left out by a negative index; poison where nobody reads."""
        problem, index = self.chosen(kind, dtype)
        problem.logits[11] = 0
        result = check_problem(rows, problem)
        assert result.gradient is not None
        unread = [11, *(i for i in range(12) if i not in index.tolist())]
        assert len(unread) > 2
        assert bool((result.gradient[unread] == 0).all())
        problem.logits[unread] = math.nan
        poisoned = problem.run(rows)
        same_bits(poisoned, result)
        kept = replace(problem, index=index[2:], target=problem.target[2:], probs=problem.probs[2:])
        kept = replace(
            kept, discount=problem.discount[2:], weight=None if problem.weight is None else problem.weight[2:]
        )
        rest = kept.run(rows)
        assert torch.equal(rest.gradient, result.gradient)  # type: ignore[arg-type]
        assert result.loss is not None
        assert rest.loss is not None
        assert torch.equal(rest.loss, result.loss[2:])
        assert bool((result.loss[:2] == 0).all())

    def chosen(self, kind: str, dtype: torch.dtype = torch.float32) -> tuple[Problem, torch.Tensor]:
        """20 samples of 12 rows, of which the first two are left out."""
        problem = draw(20, 19, kind, device=self.device, dtype=dtype)
        assert problem.weight is not None
        problem.weight[:2] = 0
        index = torch.tensor([-1, -1, 3, 3, 0, 7, 7, 7, 10, 3, 8, 8, 3, 0, 9, 9, 9, 9, 1, 0], device=self.device)
        return replace(problem, logits=problem.logits[:12].clone(), index=index), index

    @pytest.mark.parametrize("kind", KINDS)
    def test_10_rows_add_up_in_the_order_of_samples(self, rows: RowKernels, kind: str) -> None:
        problem, index = self.chosen(kind)
        whole = problem.run(rows, stats=False).gradient
        wanted = torch.zeros(12, 19, device=self.device)
        for i in range(2, 20):
            one = replace(
                problem,
                index=index[i : i + 1],
                target=problem.target[i : i + 1],
                probs=problem.probs[i : i + 1],
                discount=problem.discount[i : i + 1],
                weight=problem.weight[i : i + 1],  # type: ignore[index]
            )
            part = one.run(rows, stats=False).gradient
            assert part is not None
            wanted += part
        assert whole is not None
        assert torch.equal(whole, wanted)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("chosen", [False, True])
    def test_11_the_gradient_made_again(self, rows: RowKernels, chosen: bool, kind: str) -> None:
        problem = self.chosen(kind)[0] if chosen else draw(20, 19, kind, device=self.device)
        assert problem.weight is not None
        one = torch.ones((), device=self.device)
        arguments = (problem.logits, problem.index, problem.targets())
        again = rows.gradient(*arguments, problem.weight, one)
        assert torch.equal(again, problem.run(rows, stats=False).gradient)  # type: ignore[arg-type]
        upstream = torch.linspace(-1, 2, 20, device=self.device)
        uneven = rows.gradient(*arguments, problem.weight, upstream)
        wanted = replace(problem, weight=problem.weight * upstream).run(rows, stats=False).gradient
        torch.testing.assert_close(uneven, wanted, rtol=1e-6, atol=1e-7)
        bare = rows.gradient(*arguments, None if not chosen else (problem.weight != 0).float(), upstream)
        torch.testing.assert_close(
            bare, rows.gradient(*arguments, (problem.weight != 0).float(), upstream), rtol=1e-6, atol=1e-7
        )

    @pytest.mark.parametrize("dtype", [torch.float32, *HALF])
    def test_11_scaling_in_place(self, rows: RowKernels, dtype: torch.dtype) -> None:
        gradient = torch.randn(33, 51, generator=torch.Generator().manual_seed(0)).to(self.device, dtype)
        scaled = gradient.clone()
        rows.scale_(scaled, torch.tensor(1.0, device=self.device))
        assert torch.equal(scaled, gradient)
        rows.scale_(scaled, torch.tensor(0.3, device=self.device))
        torch.testing.assert_close(scaled, (gradient.float() * 0.3).to(dtype), rtol=torch.finfo(dtype).eps, atol=0)
        rows.scale_(scaled, torch.tensor(0.0, device=self.device))
        assert bool((scaled == 0).all())

    @pytest.mark.parametrize("kind", KINDS)
    def test_12_the_same_bits_in_every_run_and_on_any_number_of_threads(self, rows: RowKernels, kind: str) -> None:
        problem = draw(self.many, 51, kind, device=self.device)
        indexed = replace(problem, index=torch.arange(self.many, device=self.device).flip(0) // 3)
        wanted = problem.run(rows), indexed.run(rows)
        threads = torch.get_num_threads()
        try:
            for number in (1, 2, 3):
                torch.set_num_threads(number)
                same_bits(problem.run(rows), wanted[0])
                same_bits(indexed.run(rows), wanted[1])
        finally:
            torch.set_num_threads(threads)
        small = problem.only(slice(40))
        for _ in range(10):
            same_bits(small.run(rows), small.run(rows))

    @pytest.mark.parametrize("kind", KINDS)
    def test_12_a_sample_does_not_depend_on_its_place(self, rows: RowKernels, kind: str) -> None:
        problem = draw(50, 51, kind, device=self.device)
        order = torch.randperm(50, generator=torch.Generator().manual_seed(1)).to(self.device)
        whole = problem.run(rows)
        part = problem.only(order[:33]).run(rows)
        same_bits(whole, part, order[:33])
