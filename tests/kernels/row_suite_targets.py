"""Traps in targets: out of range, on edges, under narrow and wide Gaussians; and what holds for all of them."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from isogon.kernels import Projection, Support, target_probabilities
from isogon.kernels.rows import RowKernels

from .row_cases import KINDS, PROJECTIONS, Problem, answers, check, check_problem, draw, same_bits

RATIOS = (1e-6, 1e-4, 0.01, 0.05, 0.0892, 0.0893, 0.1, 0.75, 2.0, 20.0, 100.0)


def scalars(target: torch.Tensor, support: Support, projection: str, device: str) -> Problem:
    """Targets below logits of 0."""
    n, bins = target.shape[0], support.bins
    zeros = torch.zeros(n, bins, device=device)
    return Problem(zeros, support, projection, target.to(device), zeros, target.to(device))


def implied_probabilities(rows: RowKernels, problem: Problem) -> torch.Tensor:
    """Target probabilities ``[P, K]`` read off the gradient, float64: q - p with q uniform."""
    gradient = problem.run(rows, stats=False).gradient
    assert gradient is not None
    return 1 / problem.support.bins - gradient.double().cpu()


class TargetTraps:
    """See `row_suite.RowSuite`."""

    device = "cpu"
    many = 5000

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
    @pytest.mark.parametrize("projection", PROJECTIONS)
    def test_1_targets_beyond_the_range_pull_to_its_end(
        self, rows: RowKernels, projection: Projection, dtype: torch.dtype
    ) -> None:
        """An existing package gives loss 0 and gradient 0 for them, in silence."""
        support = Support(-2.0, 3.0, 11)
        beyond = torch.tensor([3.125, 5, 100, 6e4, math.inf], dtype=dtype)
        ends = torch.tensor([3.0] * 5 + [-2.0] * 5, dtype=dtype)
        result = scalars(torch.cat([beyond, -beyond]), support, projection, self.device).run(rows)
        at_ends = scalars(ends, support, projection, self.device).run(rows)
        same_bits(result, at_ends)
        assert result.gradient is not None
        assert bool((result.gradient.abs().amax(-1) > 0.1).all())
        assert (result.clipped, at_ends.clipped) in ((10, 0), (-1, -1))
        assert result.nan in (0, -1)

    @pytest.mark.parametrize("bins", [2, 11, 101])
    @pytest.mark.parametrize("projection", PROJECTIONS)
    def test_2_targets_on_edges_centres_and_ends(self, rows: RowKernels, projection: Projection, bins: int) -> None:
        support = Support(-10.0, 10.0, bins, anchor="atoms" if projection == "two_hot" else "edges")
        marks = torch.cat([support.edges(), support.centres()])
        up, down = torch.tensor(math.inf), torch.tensor(-math.inf)
        target = torch.cat([marks, torch.nextafter(marks, up), torch.nextafter(marks, down)])
        problem = scalars(target, support, projection, self.device)
        check_problem(rows, problem)
        implied = implied_probabilities(rows, problem)
        wanted = target_probabilities(target.double(), support, projection)
        assert (implied.sum(-1) - 1).abs().max() < 1e-6
        assert (implied - wanted).abs().max() < 5e-7
        assert implied.min() > -1e-7

    def test_2_truncated_gaussians_have_the_mean_that_float64_has(self, rows: RowKernels) -> None:
        """Not the target: a Gaussian whose upper half is cut off at the end of the range has its mean inside."""
        support = Support(-10.0, 10.0, 51)
        target = torch.tensor([10.0, 9.9, 0.0, -10.0])
        implied = implied_probabilities(rows, scalars(target, support, "hl_gauss", self.device))
        mean = support.expectation(implied)
        exact = support.expectation(target_probabilities(target.double(), support))
        assert (mean - exact).abs().max() < 2e-5
        assert (mean - target).tolist() == pytest.approx([-0.27, -0.20, 0, 0.27], abs=0.01)

    @pytest.mark.parametrize("bins", [5, 51])
    @pytest.mark.parametrize("ratio", RATIOS)
    def test_4_narrow_and_wide_gaussians(self, rows: RowKernels, ratio: float, bins: int) -> None:
        truth, plain = answers(40, bins, "hl_gauss", ratio=ratio)
        check(draw(40, bins, "hl_gauss", ratio=ratio, device=self.device).run(rows), truth, plain)
        support = Support(-10.0, 10.0, bins, ratio)
        step = support.width * min(ratio, 0.2)
        marks = torch.cat([support.edges(dtype=torch.float64), support.centres(dtype=torch.float64)])
        target = torch.cat([marks + step * k for k in (-5.7, -5.5, -2, -0.7, 0, 0.7, 2, 5.5, 5.7)])
        implied = implied_probabilities(rows, scalars(target, support, "hl_gauss", self.device))
        exact = target_probabilities(target, support)
        torchs = target_probabilities(target, support, dtype=torch.float32)
        assert (implied.sum(-1) - 1).abs().max() < 1e-6
        assert (implied - exact).abs().max() < 5e-7 + (torchs - exact).abs().max()

    @pytest.mark.parametrize("ratio", [1e-6, 1e-3])
    def test_4_without_width_a_gaussian_is_one_bin_or_half_of_two(self, rows: RowKernels, ratio: float) -> None:
        support = Support(0.0, 8.0, 8, ratio)
        target = torch.tensor([0.0, 0.5, 3.0, 3.5, 8.0])
        implied = implied_probabilities(rows, scalars(target, support, "hl_gauss", self.device))
        wanted = torch.zeros(5, 8, dtype=torch.float64)
        wanted[0, 0] = wanted[1, 0] = wanted[3, 3] = wanted[4, 7] = 1
        wanted[2, 2] = wanted[2, 3] = 0.5
        assert (implied - wanted).abs().max() < 2e-7

    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        bins=st.integers(2, 70),
        ratio=st.floats(0.01, 10),
        target=st.floats(-8, 8, width=32),
        scale=st.floats(0, 20),
        seed=st.integers(0, 2**31),
        kind=st.sampled_from(KINDS),
    )
    def test_13_properties_of_any_sample(
        self, rows: RowKernels, bins: int, ratio: float, target: float, scale: float, seed: int, kind: str
    ) -> None:
        """As good as plain torch, loss at least the target's entropy, gradients sum to 0, weights are factors."""
        generator = torch.Generator().manual_seed(seed)
        logits = scale * torch.randn(2, bins, generator=generator)
        probs = torch.softmax(torch.randn(2, bins, generator=generator), -1)
        support = Support(-5.0, 5.0, bins, ratio)
        parts = (logits, torch.full((2,), target), probs, torch.tensor([0.0, 0.99]), torch.tensor([1.0, 0.25]))
        logits, *others = (part.to(self.device) for part in parts)
        result = check_problem(rows, Problem(logits, support, kind, *others))
        assert result.gradient is not None
        assert result.loss is not None
        assert result.gradient.double().sum(-1).abs().max() < 1e-6
        implied = torch.softmax(logits[:1].double(), -1).cpu() - result.gradient[:1].double().cpu()
        entropy = -torch.special.xlogy(implied, implied.clamp(min=0)).sum()
        assert result.loss[0].item() >= entropy.item() - 2e-5
