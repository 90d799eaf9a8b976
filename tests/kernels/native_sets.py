"""The instruction sets that the kernels in C can use on this machine."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from isogon.kernels.backends import why_not
from isogon.kernels.rows import RowKernels


def _available() -> tuple[str, ...]:
    if why_not("native") is not None:
        return ()
    names = []
    for name in ("avx512", "avx2", "portable"):
        try:
            with using(name):
                names.append(name)
        except ValueError:
            continue
    return tuple(names)


@contextmanager
def using(name: str) -> Iterator[RowKernels]:
    """The kernels in C with one of the instruction sets. Raises ValueError where it is not there."""
    native: Any = importlib.import_module("isogon.kernels._native")
    before = native.instruction_set()
    native.use_instruction_set(name)
    try:
        rows: Any = importlib.import_module("isogon.kernels.rows_native")
        yield rows
    finally:
        native.use_instruction_set(before)


INSTRUCTION_SETS = _available()
"""Empty where the extension is not built."""
