"""What only the row kernels in C have: conversions of halves, stores past the caches, two ways through long rows."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from isogon.kernels import Support
from isogon.kernels.rows import RowKernels, RowResult, ScalarTargets

from .native_sets import INSTRUCTION_SETS, using
from .row_cases import HALF, KINDS, Problem, check, check_problem, draw, same_bits

native: Any = pytest.importorskip("isogon.kernels._native", reason="the C extension is not built")


@pytest.fixture(params=INSTRUCTION_SETS)
def rows(request: pytest.FixtureRequest) -> Iterator[RowKernels]:
    with using(request.param) as kernels:
        yield kernels


@pytest.mark.parametrize("dtype", HALF)
def test_5_all_halves_are_read_exactly(rows: RowKernels, dtype: torch.dtype) -> None:
    """Below the target (1, -1), which sums to 0, the loss is x_1 - x_0 to the bit."""
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype)
    halves = halves[halves.isfinite()]
    logits = torch.stack([torch.zeros_like(halves), halves], -1)
    assert logits.shape[0] > 63000
    result = opposites(logits, torch.tensor([[1.0, -1.0]]).expand(logits.shape)).run(rows, stats=False)
    assert torch.equal(result.loss, halves.float())  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", HALF)
def test_5_gradients_are_rounded_to_the_nearest_even_half(rows: RowKernels, dtype: torch.dtype) -> None:
    """Every half, what lies halfway to the next, and floats beside both: below the target (-v, v) the gradient is v."""
    halves = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(dtype).float()
    halves = halves[halves.isfinite()].sort().values
    # The largest float32 below twice the largest half is rounded to infinity, as torch does.
    between = (halves.double() + torch.cat([halves[1:], 2 * halves[-1:]]).double()) / 2
    marks = torch.cat([halves, between.float(), -between.float()])
    values = torch.cat([marks, *(torch.nextafter(marks, torch.tensor(end)) for end in (math.inf, -math.inf))])
    values = values[values.isfinite()]
    logits = torch.zeros(values.shape[0], 2, dtype=dtype)
    gradient = opposites(logits, torch.stack([-values, values], -1)).run(rows, stats=False).gradient
    assert gradient is not None
    wanted = torch.stack([values, -values], -1).to(dtype)
    assert torch.equal(gradient, wanted)
    assert bool(gradient.isinf().any())
    lost = opposites(torch.full((2, 2), math.nan, dtype=dtype), torch.ones(2, 2)).run(rows, stats=False)
    assert bool(lost.gradient.isnan().all())  # type: ignore[union-attr]


def opposites(logits: torch.Tensor, probs: torch.Tensor) -> Problem:
    unused = torch.zeros(logits.shape[0])
    return Problem(logits, Support(0.0, 1.0, 2, anchor="atoms"), "probs", unused, probs, unused)


@pytest.fixture
def streaming() -> Iterator[None]:
    """Gradients of any size are streamed past the caches."""
    before = native.use_streaming_above(0)
    yield
    native.use_streaming_above(before)


@pytest.mark.parametrize("bins", [2, 16, 51, 64, 101, 1000, 1504])
@pytest.mark.usefixtures("streaming")
def test_8_gradients_streamed_past_the_caches(rows: RowKernels, bins: int) -> None:
    """The same bits as in small batches, with weights of 0 in some blocks, and where the last block is not full."""
    for kind in ("hl_gauss", "c51"):
        problem = draw(77, bins, kind)
        assert problem.weight is not None
        problem.weight[[20, 48, 63, 76]] = 0
        streamed = problem.run(rows)
        before = native.use_streaming_above(2**40)
        for part in (slice(0, 10), slice(10, 50), slice(50, 77)):
            same_bits(streamed, problem.only(part).run(rows), part)
        native.use_streaming_above(before)
        same_bits(replace(problem, logits=problem.logits.t().contiguous().t()).run(rows), streamed)


@pytest.mark.usefixtures("streaming")
def test_8_streamed_rows_beside_rows_in_two_passes(rows: RowKernels) -> None:
    """Logits that two passes cannot take go the other way, and their gradients are still to be written out."""
    problem = draw(12, 1008)
    problem.logits[1::3] += 3e7
    problem.logits[7] += 3e7
    before = native.use_two_passes_from(100)
    try:
        streamed = problem.run(rows, stats=False)
        native.use_streaming_above(2**40)
        same_bits(streamed, problem.run(rows, stats=False))
    finally:
        native.use_two_passes_from(before)
    check(streamed, problem.plain(torch.float64), problem.plain(torch.float32))


@pytest.mark.parametrize("bins", [51, 64])
def test_8_what_does_not_fit_the_last_cache(bins: int) -> None:
    """Logits and gradient of more than the cache, whatever its size is, so that nothing but size decides."""
    before = native.use_streaming_above(32 << 20)
    try:
        n = (32 << 20) // (8 * bins) + 1001
        generator = torch.Generator().manual_seed(bins)
        logits = torch.randn(n, bins, generator=generator)
        weight = torch.rand(n, generator=generator) - 0.05
        weight[weight < 0] = 0
        target = 20 * torch.rand(n, generator=generator) - 10
        problem = Problem(logits, Support(-10.0, 10.0, bins), "hl_gauss", target, logits, target, weight)
        with using(INSTRUCTION_SETS[0]) as best:
            whole = problem.run(best, stats=False)
            for first in range(0, n, 30000):
                part = slice(first, first + 30000)
                same_bits(whole, problem.only(part).run(best, stats=False), part)
    finally:
        native.use_streaming_above(before)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [0.0, 30.0, 1e5, -1e5, 3e7])
def test_6_two_passes_through_long_rows(rows: RowKernels, offset: float, kind: str) -> None:
    """As good as the other way, for large logits too, with masks, poison and halves."""
    before = native.use_two_passes_from(100)
    try:
        problem = draw(6, 1001, kind)
        problem.logits.add_(offset)
        problem.logits[1, ::3] = -math.inf
        truth, plain = problem.plain(torch.float64), problem.plain(torch.float32)
        check(problem.run(rows, stats=False), truth, plain)
        check_one_by_one(rows, problem)
        if offset == 0:
            check_one_by_one(rows, replace(problem, logits=problem.logits.bfloat16()))
            check_one_by_one(rows, replace(problem, logits=problem.logits.t().contiguous().t()))
        problem.logits[2, 500], problem.logits[3, 0], problem.logits[4] = math.nan, math.inf, -math.inf
        problem.target[5] = math.nan
        problem.probs[5] = math.nan
        lost: RowResult = problem.run(rows, stats=False)
        assert bool(lost.loss[2:].isnan().all())  # type: ignore[index]
        assert bool(lost.gradient[2:].isnan().all())  # type: ignore[index]
        check(problem.only(slice(2)).run(rows, stats=False), *(cut(answer) for answer in (truth, plain)))
    finally:
        native.use_two_passes_from(before)


def cut(answer: Any) -> Any:
    return answer._make(None if part is None else part[:2] for part in answer)


def check_one_by_one(rows: RowKernels, problem: Problem) -> None:
    for i in range(6):
        one = problem.only(slice(i, i + 1))
        dtype = one.logits.dtype
        check(one.run(rows, stats=False), one.plain(torch.float64), one.plain(dtype), dtype)


def test_9_offsets_beyond_32_bits(rows: RowKernels, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of rows that are read and of gradients that are written. Memory that nobody touches costs nothing."""
    far = 2**31 + 17
    storage = torch.empty(far + 100, dtype=torch.bfloat16)
    problem = draw(2, 51, dtype=torch.bfloat16)
    spread = storage.as_strided((2, 51), (far, 1))
    spread.copy_(problem.logits)
    same_bits(replace(problem, logits=spread).run(rows), problem.run(rows))

    states = (2**31) // 64 + 5
    plain = draw(3, 64)
    index = torch.tensor([0, states - 1, states - 1])
    everywhere = plain.logits[:1].expand(states, 64)
    monkeypatch.setattr(torch, "zeros", lambda *shape: torch.from_numpy(np.zeros(shape, np.float32)))
    gradient = replace(plain, logits=everywhere, index=index).run(rows, stats=False).gradient
    monkeypatch.undo()
    assert gradient is not None
    small = replace(plain, logits=everywhere[:2], index=index.clamp(max=1)).run(rows, stats=False).gradient
    assert small is not None
    assert torch.equal(gradient[[0, -1]], small)
    assert bool((gradient[[1, 2, states // 2, -2]] == 0).all())


def test_a_support_stays_good_however_many_others_came_after() -> None:
    """C reads the profile of a support by its address, so that it must not be freed."""
    with using(INSTRUCTION_SETS[0]) as best:
        problem = draw(17, 51)
        wanted = problem.run(best)
        for i in range(100):
            replace(problem, support=Support(-10.0, 10.0, 51, 0.2 + i / 100)).run(best)
        poison = [torch.full((size,), math.nan) for size in range(16, 2000, 16) for _ in range(8)]
        same_bits(problem.run(best), wanted)
        assert len(poison) > 0


@pytest.mark.parametrize("kind", ["hl_gauss", "c51"])
def test_15_many_python_threads_at_once(rows: RowKernels, kind: str) -> None:
    """Large calls let go of the interpreter's lock, and use threads of their own beside it."""
    problems = [draw(600 + i, 51, kind) for i in range(8)]
    wanted = [problem.run(rows) for problem in problems]
    before, wrong = torch.get_num_threads(), []

    def call_often(i: int) -> None:
        for _ in range(10):
            try:
                same_bits(problems[i].run(rows), wanted[i])
            except BaseException as error:
                wrong.append(error)

    torch.set_num_threads(2)
    try:
        threads = [threading.Thread(target=call_often, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        torch.set_num_threads(before)
    assert not wrong


def test_an_instruction_set_that_is_not_there_is_refused() -> None:
    with pytest.raises(ValueError, match="instruction set is 'neon'"):
        native.use_instruction_set("neon")
    assert native.instruction_set() == INSTRUCTION_SETS[0]


def test_4_a_window_wider_than_all_bins_is_cut(rows: RowKernels) -> None:
    """A Gaussian a thousand times as wide as the range is a uniform target, not a window of millions of bins."""
    problem = draw(9, 7, ratio=1e6)
    result = check_problem(rows, problem)
    uniform = replace(problem, kind="probs", probs=torch.full((9, 7), 1 / 7)).run(rows)
    torch.testing.assert_close(result.loss, uniform.loss, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("two_passes", [False, True])
@pytest.mark.parametrize("bins", [16384, 2**20 + 3])
def test_7_sums_of_long_rows_keep_their_digits(rows: RowKernels, bins: int, two_passes: bool) -> None:
    """A million equal terms, one after the other, would lose three digits."""
    before = native.use_two_passes_from(1 if two_passes else 2**62)
    try:
        logits = torch.full((1, bins), -0.3)
        target = ScalarTargets(torch.zeros(1), "hl_gauss", bins, 0.75, -10.0, 10.0, -10.0, 20.0 / bins)
        loss = rows.forward(logits, None, target, None, 1.0, gradient=False, stats=False).loss
    finally:
        native.use_two_passes_from(before)
    assert loss is not None
    assert loss.item() == pytest.approx(math.log(bins), abs=2e-5)
