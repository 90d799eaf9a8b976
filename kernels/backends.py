"""Which implementation does the work, and why."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Literal, TypeAlias, cast

import torch

from . import rows_torch
from .rows import RowKernels

Impl: TypeAlias = Literal["auto", "triton", "native", "torch", "reference"]
"""``"triton"``: on CUDA. ``"native"``: in C, on the CPU. ``"torch"``: torch's operations and a gradient written by
hand, on any device. ``"reference"``: plain torch under autograd, which can be differentiated twice. ``"auto"``: for
float64 the reference, else the first of the others that there is for the logits' device."""

_MODULES = {"triton": "rows_triton", "native": "rows_native"}
_PLACES = {"triton": "cuda", "native": "cpu"}


def takes_reference(impl: Impl, dtype: torch.dtype) -> bool:
    """Whether logits of a dtype go to the plain reference. Raises ValueError if the implementation is unknown."""
    if impl == "auto":
        return dtype == torch.float64
    if impl not in ("reference", "torch", *_MODULES):
        raise ValueError(f"impl is {impl!r}: it must be 'auto', 'triton', 'native', 'torch' or 'reference'")
    return impl == "reference"


def choose(impl: Impl, logits: torch.Tensor) -> RowKernels:
    """The row kernels for some logits that do not go to the reference.

    Raises:
        ValueError: the implementation is not for these logits, or is not installed.
    """
    device, dtype = logits.device.type, logits.dtype
    if impl == "auto":
        return _automatic(device)
    if impl != "torch":
        if (missing := why_not(impl)) is not None:
            raise ValueError(f"impl is {impl!r}: {missing}")
        if dtype == torch.float64:
            raise ValueError(f"impl is {impl!r} and logits are float64: take 'reference', 'torch' or 'auto'")
        if device != _PLACES[impl] and not (impl == "triton" and _interpreted()):
            raise ValueError(f"impl is {impl!r} and logits are on {device}: it works on {_PLACES[impl]} alone")
    return fitting_kernels(impl)


@cache
def _automatic(device: str) -> RowKernels:
    fitting = next((name for name, place in _PLACES.items() if place == device), None)
    return fitting_kernels(fitting) if fitting and why_not(fitting) is None else fitting_kernels("torch")


@cache
def fitting_kernels(name: str) -> RowKernels:
    """A backend that is there, by its name."""
    if name == "torch":
        return rows_torch
    return cast(RowKernels, importlib.import_module(f".{_MODULES[name]}", __package__))


@cache
def why_not(name: str) -> str | None:
    """Why a backend is not there, with a remedy; None where it is."""
    try:
        importlib.import_module(f".{_MODULES[name]}", __package__)
    except ImportError as error:
        if name == "native":
            return (
                f"the C extension was not built ({error}); install a C compiler and Python's headers, then install "
                "isogon again"
            )
        return f"triton cannot be imported ({error}); install isogon[gpu]"
    return None


def describe() -> dict[str, str]:
    """What ``"auto"`` takes on each device that is there, in a sentence: ``{"cpu": ..., "cuda": ...}``."""
    told = {}
    missing = why_not("native")
    if missing is None:
        native = importlib.import_module("._native", __package__)
        told["cpu"] = f"native, C with {_VECTORS[native.instruction_set()]}"
    else:
        told["cpu"] = "torch, several times slower than C"
    if torch.cuda.is_available():
        missing = why_not("triton")
        told["cuda"] = "triton" if missing is None else "torch, several times slower than triton"
    return told


_VECTORS = {
    "avx512": "AVX-512 vectors",
    "avx2": "AVX2 vectors",
    "portable": "vectors of 4 floats, the portable path",
}


@cache
def _interpreted() -> bool:
    """Whether triton runs its interpreter, which takes tensors on the CPU."""
    return bool(importlib.import_module("triton").knobs.runtime.interpret)
