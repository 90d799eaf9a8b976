"""The Triton kernel that applies an upstream factor to a gradient made in the forward pass."""

from __future__ import annotations

import triton
import triton.language as tl

from .row_parts_triton import rounded

SCALE_BLOCK = 4096


@triton.jit(do_not_specialize=["count"])
def scale_in_place(values, factor, count: tl.int64, BLOCK: tl.constexpr):
    """``values.mul_(factor)`` for a 0-d factor on the device, in float32; nothing at all where it is 1.

    Programs take blocks in turns. Each reads the factor first, and ends if it is 1.
    """
    by = tl.load(factor).to(tl.float32)
    if by != 1.0:
        start = tl.program_id(0).to(tl.int64) * BLOCK
        while start < count:
            place = start + tl.arange(0, BLOCK)
            scaled = tl.load(values + place, mask=place < count, other=0.0).to(tl.float32) * by
            tl.store(values + place, rounded(scaled, values.dtype.element_ty), mask=place < count)
            start += tl.num_programs(0).to(tl.int64) * BLOCK
