"""Traps in numbers: poison and masks, half precision, extreme logits, every size."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from isogon.kernels.rows import RowKernels

from .row_cases import HALF, KINDS, answers, check, check_problem, draw, same_bits

SIZES = (2, 3, 15, 16, 17, 31, 51, 101, 127, 128, 129, 255, 513, 601, 1001, 1025, 4096)


class NumberTraps:
    """See `row_suite.RowSuite`."""

    device = "cpu"

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("dtype", [torch.float32, *HALF])
    def test_3_nan_and_infinity_poison_their_own_sample_alone(
        self, rows: RowKernels, dtype: torch.dtype, kind: str
    ) -> None:
        problem = draw(37, 19, kind, device=self.device, dtype=dtype)
        clean = problem.run(rows)
        logits, target, probs = problem.logits.clone(), problem.target.clone(), problem.probs.clone()
        logits[2, 0] = logits[3, 18] = logits[20, 7] = math.nan
        logits[5, 4] = math.inf
        logits[9] = -math.inf
        bad = [2, 3, 5, 9, 20, 36]
        lost = [*bad, 12]
        target[[12, 36]] = math.nan
        probs[[12, 36], 3] = math.nan
        result = replace(problem, logits=logits, target=target, probs=probs).run(rows)
        assert result.loss is not None
        assert result.gradient is not None
        assert result.stats is not None
        assert bool(result.loss[lost].isnan().all())
        assert bool(result.gradient[lost].isnan().all())
        # The target hides nothing of the logits.
        for name in ("mean", "entropy", "logsumexp"):
            assert not bool(getattr(result.stats, name)[bad[:-1]].isfinite().any()), name
        assert result.nan in (-1, 2 if kind in ("hl_gauss", "two_hot", "one_hot") else 0)
        others = [i for i in range(37) if i not in lost]
        same_bits(result, draw(37, 19, kind, device=self.device, dtype=dtype).only(others).run(rows), others)
        same_bits(clean, draw(37, 19, kind, device=self.device, dtype=dtype).only(others).run(rows), others)

    @pytest.mark.parametrize("bins", [7, 37])
    def test_3_nan_in_any_bin_is_seen(self, rows: RowKernels, bins: int) -> None:
        problem = draw(bins, bins, device=self.device)
        problem.logits.fill_diagonal_(math.nan)
        result = problem.run(rows)
        assert result.loss is not None
        assert result.gradient is not None
        assert bool(result.loss.isnan().all())
        assert bool(result.gradient.isnan().all())

    @pytest.mark.parametrize("kind", KINDS)
    def test_3_logits_of_minus_infinity_mask_their_bins(self, rows: RowKernels, kind: str) -> None:
        """Finite where the target has no mass there, infinite where it has, and never NaN."""
        problem = draw(24, 33, kind, device=self.device)
        problem.target[:12] = -8.0
        problem.target[12:] = 8.0
        problem.probs[:12, 10:] = 0
        problem.probs.div_(problem.probs.sum(-1, keepdim=True))
        if kind == "c51":
            problem.target.mul_(0.01)
            problem.discount.fill_(1)
        problem.logits[:, 14:] = -math.inf
        problem.logits[3, 0] = problem.logits[15, 14] = -math.inf
        result = check_problem(rows, problem)
        assert result.loss is not None
        assert bool(result.loss[:3].isfinite().all())
        assert bool((result.loss[12:] == math.inf).all())

    @pytest.mark.parametrize("kind", ["hl_gauss", "probs"])
    def test_3_all_bins_but_one_masked(self, rows: RowKernels, kind: str) -> None:
        problem = draw(11, 11, kind, device=self.device, ratio=0.01)
        problem.target.copy_(problem.support.centres())
        problem.probs.copy_(torch.eye(11))
        alone = torch.full((11, 11), -math.inf, device=self.device)
        for size in (0.0, -90.0, 90.0, 1e30):
            result = check_problem(rows, replace(problem, logits=alone.clone().fill_diagonal_(size)))
            assert result.loss is not None
            assert result.loss.abs().max() == 0

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("bins", [17, 128])
    @pytest.mark.parametrize("dtype", HALF)
    def test_5_half_precision(self, rows: RowKernels, dtype: torch.dtype, bins: int, kind: str) -> None:
        """Loss and sums in float32, the gradient formed in float32 and rounded once."""
        truth, plain = answers(33, bins, kind, dtype)
        problem = draw(33, bins, kind, device=self.device, dtype=dtype)
        result = problem.run(rows)
        check(result, truth, plain, dtype)
        full = replace(problem, logits=problem.logits.float()).run(rows)
        assert result.loss is not None
        assert full.loss is not None
        torch.testing.assert_close(result.loss, full.loss, rtol=1e-6, atol=1e-6)
        assert full.gradient is not None
        assert result.gradient is not None
        once = full.gradient.to(dtype)
        differing = (result.gradient != once).double().mean().item()
        assert differing < 1e-3
        torch.testing.assert_close(result.gradient, once, rtol=torch.finfo(dtype).eps, atol=1e-7)

    @pytest.mark.parametrize("dtype", HALF)
    def test_5_smallest_and_largest_halves(self, rows: RowKernels, dtype: torch.dtype) -> None:
        problem = draw(16, 16, device=self.device, dtype=dtype)
        limits = torch.finfo(dtype)
        smallest = limits.smallest_normal
        for i, size in enumerate((smallest, smallest / 4, smallest * limits.eps, limits.max, -limits.max, -smallest)):
            problem.logits[2 * i] = 0
            problem.logits[2 * i, ::3] = size
        problem.logits[1, 3] = math.inf
        problem.logits[3, 1::2] = -math.inf
        problem.logits[5] = limits.max
        check_problem(rows, problem)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("bins", [6, 51])
    def test_6_extreme_logits(self, rows: RowKernels, bins: int, kind: str) -> None:
        sizes = (0.0, 1e-40, 1.0, 30.0, 87.0, 89.0, 104.0, 1e4, 1e9, 1e30, 3e38)
        problem = draw(6 * len(sizes), bins, kind, device=self.device)
        for i, size in enumerate(sizes):
            equal, opposite, peak, hole, alternating, mixed = problem.logits[6 * i : 6 * i + 6]
            equal[:] = size
            opposite[:] = -size
            peak[:], peak[bins // 2] = 0, size
            hole[:], hole[bins // 2] = 0, -size
            alternating[::2], alternating[1::2] = size / 2, -size / 2
            mixed[bins // 3] = size
        check_problem(rows, problem)

    @pytest.mark.parametrize("bins", [2, 51, 129])
    @pytest.mark.parametrize("kind", ["hl_gauss", "probs"])
    def test_6_sums_of_exponentials_of_every_size(self, rows: RowKernels, kind: str, bins: int) -> None:
        """Around e^-30 and e^40, where kernels in C change their way, and where float32 ends."""
        levels = (-104, -88, -87, -60, -30.001, -30, -29.999, -20, 20, 39.999, 40, 40.001, 60, 88, 88.8, 89)
        problem = draw(len(levels), bins, kind, device=self.device)
        level = torch.tensor(levels, device=self.device).unsqueeze(-1)
        problem.logits.copy_(0.2 * problem.logits)
        problem.logits.copy_(problem.logits - torch.logsumexp(problem.logits, -1, keepdim=True) + level)
        check_problem(rows, problem)

    @pytest.mark.parametrize("shift", [2.0**5, -(2.0**6), 2.0**13, -(2.0**13)])
    def test_6_shifts_change_nothing(self, rows: RowKernels, shift: float) -> None:
        problem = draw(20, 51, device=self.device)
        problem.logits.copy_((problem.logits * 1024).round() / 1024)
        moved = replace(problem, logits=problem.logits + shift).run(rows)
        wanted = problem.run(rows)
        assert moved.loss is not None
        assert moved.gradient is not None
        assert moved.stats is not None
        assert wanted.stats is not None
        torch.testing.assert_close(moved.loss, wanted.loss, rtol=0, atol=1e-5)
        torch.testing.assert_close(moved.gradient, wanted.gradient, rtol=0, atol=2e-6)
        torch.testing.assert_close(moved.stats.mean, wanted.stats.mean, rtol=0, atol=1e-5)
        torch.testing.assert_close(moved.stats.entropy, wanted.stats.entropy, rtol=0, atol=1e-5)

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("bins", SIZES)
    def test_7_every_number_of_bins_and_of_samples(self, rows: RowKernels, bins: int, kind: str) -> None:
        """And a sample's result does not depend on how many there are (12)."""
        truth, plain = answers(33, bins, kind)
        problem = draw(33, bins, kind, device=self.device)
        result = problem.run(rows)
        check(result, truth, plain)
        for n in (1, 2, 15, 16, 17):
            same_bits(result, problem.only(slice(n)).run(rows), slice(n))

    @pytest.mark.parametrize("kind", KINDS)
    def test_7_a_thousand_samples(self, rows: RowKernels, kind: str) -> None:
        truth, plain = answers(1000, 51, kind)
        check(draw(1000, 51, kind, device=self.device).run(rows), truth, plain)
