"""Kernels that call one device function each; only tests that have triton import this."""

import triton
import triton.language as tl

from isogon.kernels.projections_triton import upper_tail


@triton.jit
def evaluate_tail(u, tail, BLOCK: tl.constexpr):
    """``tail = upper_tail(u)``, a block a program."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(tail + place, upper_tail(tl.load(u + place)))
