"""Run by a test, as a process of its own: counts what calls of the row kernels compile, without a GPU.

Triton is told that there is an H100, and to compile what it would launch. Prints one JSON object: a list of
``[what was called, how many kernels that compiled]``.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver
from triton.runtime.jit import JITFunction

warnings.simplefilter("error")


class AbsentGPU:
    """As much of a driver as compiling needs."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int | None = None) -> int:
        return 0


run = JITFunction.run


def compile_only(kernel: Any, *arguments: Any, grid: Any, warmup: bool, **options: Any) -> None:
    """What replaces a launch."""
    run(kernel, *arguments, grid=grid, warmup=True, **options)


def main() -> None:
    driver.set_active(AbsentGPU())
    JITFunction.run = compile_only
    from tests.kernels.row_checks import scalars

    from isogon.kernels import Support, rows_triton
    from isogon.kernels.dense_rows_triton import dense_rows
    from isogon.kernels.rows import DistributionTargets
    from isogon.kernels.scale_triton import scale_in_place
    from isogon.kernels.window_rows_triton import window_rows

    def compilations() -> int:
        kernels = (window_rows, dense_rows, scale_in_place)
        return sum(len(caches[0]) for kernel in kernels for caches in kernel.device_caches.values())

    def forward(n: int, support: Support, coefficient: float = 0.5, **options: Any) -> None:
        targets = scalars(torch.zeros(n), support)
        logits = torch.zeros(n, support.bins)
        rows_triton.forward(logits, None, targets, torch.ones(n), coefficient, gradient=True, stats=False, **options)

    def chosen(n: int, pairs: int, origin: float) -> None:
        targets = DistributionTargets(
            torch.ones(pairs, 51), 51, torch.zeros(pairs), torch.ones(pairs), origin, width=-origin / 25
        )
        index = torch.arange(pairs)
        rows_triton.forward(torch.zeros(n, 51), index, targets, None, 1 / pairs, gradient=True, stats=True)

    def gradient(n: int, upstream: torch.Tensor) -> None:
        targets = scalars(torch.zeros(n), Support(-1.0, 1.0, 51))
        rows_triton.gradient(torch.zeros(n, 51), None, targets, torch.ones(n), upstream)

    def scale(n: int) -> None:
        rows_triton.scale_(torch.zeros(n), torch.ones(()))

    calls: list[tuple[str, Callable[[], None]]] = [
        ("first", lambda: forward(17, Support(-10.0, 10.0, 51))),
        *((f"{n} rows", lambda n=n: forward(n, Support(-10.0, 10.0, 51))) for n in (1, 16, 1000)),
        ("another support", lambda: forward(17, Support(0.0, 1.0, 51))),
        ("another ratio", lambda: forward(17, Support(-10.0, 10.0, 51, 0.8))),
        ("coefficient 1", lambda: forward(17, Support(-10.0, 10.0, 51), 1.0)),
        ("first chosen", lambda: chosen(9, 4, -10.0)),
        ("other chosen", lambda: chosen(16, 7, -3.0)),
        ("first gradient", lambda: gradient(17, torch.ones(17))),
        ("other gradient", lambda: gradient(32, torch.ones(32))),
        ("gradient with one factor", lambda: gradient(17, torch.ones(()))),
        ("first scale", lambda: scale(7)),
        ("other scale", lambda: scale(10**6)),
    ]
    seen = []
    for name, call in calls:
        before = compilations()
        call()
        seen.append((name, compilations() - before))
    print(json.dumps(seen))


if __name__ == "__main__":
    main()
