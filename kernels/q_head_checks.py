"""What a Q-head's functions refuse, and which implementation and dtype they compute with.

B states, A actions, P pairs, D features, K bins.
"""

from __future__ import annotations

import importlib.util
import os

import torch

from . import q_head_torch
from .backends import Impl, fitting_kernels
from .backends import why_not as missing_backend
from .q_head_backend import QHeadBackend
from .rows import RowKernels
from .selection import check_below
from .support import Support

TRITON_BINS = 512
"""The most bins that the Triton kernels hold in registers."""

_TRITON_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def check_layer(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, support: Support) -> None:
    """Raise ValueError unless hidden ``[B, D]``, weight ``[A, K, D]`` and bias ``[A, K]`` fit each other."""
    if hidden.dim() != 2:
        raise ValueError(f"hidden has shape {tuple(hidden.shape)}: it must be [B, D]")
    if weight.dim() != 3 or weight.shape[2] != hidden.shape[1] or weight.shape[0] == 0:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}, hidden {tuple(hidden.shape)}: they must be [A, K, D] and [B, D], "
            f"with at least one action"
        )
    if weight.shape[1] != support.bins:
        raise ValueError(
            f"weight has shape {tuple(weight.shape)}: the second must be the support's {support.bins} bins"
        )
    if bias is not None and bias.shape != weight.shape[:2]:
        raise ValueError(f"bias has shape {tuple(bias.shape)}, weight {tuple(weight.shape)}: it must be [A, K]")
    tensors = {"hidden": hidden, "weight": weight} | ({} if bias is None else {"bias": bias})
    for name, tensor in tensors.items():
        if not tensor.dtype.is_floating_point:
            raise ValueError(f"{name} has dtype {tensor.dtype}: it must be floating")
        check_device(name, tensor, hidden.device)
        if tensor.dtype != hidden.dtype and not torch.is_autocast_enabled(hidden.device.type):
            raise ValueError(
                f"{name} has dtype {tensor.dtype}, hidden {hidden.dtype}: outside torch.autocast they must be the same"
            )


def check_device(name: str, tensor: torch.Tensor, device: torch.device) -> None:
    """Raise ValueError unless the tensor lies where hidden does."""
    if tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device}, hidden on {device}: they must be on one device")


def check_pairs(row: torch.Tensor | None, action: torch.Tensor, hidden: torch.Tensor) -> None:
    """Raise ValueError unless row and action are int64 ``[P]``; without rows P must be B."""
    for name, tensor in ({"action": action} | ({} if row is None else {"row": row})).items():
        if tensor.dtype != torch.int64:
            raise ValueError(f"{name} has dtype {tensor.dtype}: it must be torch.int64")
        if tensor.dim() != 1:
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}: it must be [P]")
        check_device(name, tensor, hidden.device)
    if row is not None and row.shape != action.shape:
        raise ValueError(f"row has shape {tuple(row.shape)}, action {tuple(action.shape)}: both must be [P]")
    if row is None and action.shape[0] != hidden.shape[0]:
        raise ValueError(
            f"action has shape {tuple(action.shape)}: without row it must be ({hidden.shape[0]},), as hidden"
        )


def check_samples(name: str, tensor: torch.Tensor, like: str, size: int, device: torch.device) -> None:
    """Raise ValueError unless the tensor is floating and constant, one number for each of ``size`` samples."""
    if tensor.shape != (size,):
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}: it must be ({size},), as {like}")
    if not tensor.dtype.is_floating_point:
        raise ValueError(f"{name} has dtype {tensor.dtype}: it must be floating")
    check_device(name, tensor, device)
    if tensor.requires_grad:
        raise ValueError(f"{name} requires a gradient: it is a constant, detach it")


def check_indices(row: torch.Tensor | None, action: torch.Tensor, states: int, actions: int, validate: bool) -> None:
    """Raise ValueError if a row or action is too large; on CUDA only if told to, because the host waits for it.

    There is nothing to look at while something is compiled: operators look when they run.
    """
    if torch.compiler.is_compiling() or not action.numel() or not (validate or action.device.type == "cpu"):
        return
    check_below("action", action, actions, "actions")
    if row is not None:
        check_below("row", row, states, "states")


def check_legal_shape(legal: torch.Tensor | None, hidden: torch.Tensor, actions: int) -> None:
    """Raise ValueError unless there is no mask, or it is bool ``[B, A]``."""
    if legal is None:
        return
    if legal.dtype != torch.bool:
        raise ValueError(f"legal has dtype {legal.dtype}: it must be torch.bool")
    if legal.shape != (hidden.shape[0], actions):
        raise ValueError(f"legal has shape {tuple(legal.shape)}: it must be {(hidden.shape[0], actions)}, [B, A]")
    check_device("legal", legal, hidden.device)


def check_some_legal(legal: torch.Tensor | None, validate: bool) -> None:
    """Raise ValueError if a state has no legal action; when it looks is as of `check_indices`."""
    if torch.compiler.is_compiling() or legal is None or not (validate or legal.device.type == "cpu"):
        return
    stuck = (~legal.any(-1)).nonzero().flatten()
    if stuck.numel():
        raise ValueError(
            f"legal has no legal action in {stuck.numel()} of {legal.shape[0]} states, such as state {int(stuck[0])}: "
            f"leave them out, or give the terminal ones a discount of 0 in td_target"
        )


def refuse_sparse_under_ddp() -> None:
    """Raise ValueError if gradients are going to be averaged over processes."""
    distributed = torch.distributed
    if distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1:
        raise ValueError(
            f"sparse_weight_gradient is True in a group of {distributed.get_world_size()} processes: "
            f"DistributedDataParallel averages dense gradients only; pass sparse_weight_gradient=False, or train in "
            f"one process"
        )


def compute_dtype(hidden: torch.Tensor) -> torch.dtype:
    """To what the operands of the matrix products are rounded: hidden's dtype, or autocast's where it is on."""
    device = hidden.device.type
    if hidden.dtype == torch.float64 or not torch.is_autocast_enabled(device):
        return hidden.dtype
    return torch.get_autocast_dtype(device)


def choose(impl: Impl, hidden: torch.Tensor, compute: torch.dtype, bins: int) -> tuple[QHeadBackend, RowKernels]:
    """Who computes products, and who losses from logits, where it is not the reference.

    Raises:
        ValueError: the implementation is unknown, or cannot do it; says why.
    """
    if impl not in ("auto", "triton", "native", "torch"):
        raise ValueError(f"impl is {impl!r}: it must be 'auto', 'triton', 'native', 'torch' or 'reference'")
    why_not = _why_not_triton(hidden, compute, bins)
    if impl == "triton" and why_not:
        raise ValueError(f"impl is 'triton', but {why_not}: pass impl='auto' or 'torch'")
    if impl == "triton" or (impl == "auto" and hidden.device.type == "cuda" and why_not is None):
        from . import q_head_triton

        return q_head_triton, fitting_kernels("torch")
    if impl == "native" and (hidden.device.type != "cpu" or compute == torch.float64):
        raise ValueError(f"impl is 'native' and hidden is {hidden.dtype} on {hidden.device}: C does float32 on the CPU")
    if impl == "native" and (missing := missing_backend("native")) is not None:
        raise ValueError(f"impl is 'native': {missing}")
    in_c = hidden.device.type == "cpu" and compute != torch.float64 and missing_backend("native") is None
    return q_head_torch, fitting_kernels("native" if impl != "torch" and in_c else "torch")


def _why_not_triton(hidden: torch.Tensor, compute: torch.dtype, bins: int) -> str | None:
    if compute not in _TRITON_DTYPES:
        return f"hidden has dtype {hidden.dtype}, and the kernels take {', '.join(map(str, _TRITON_DTYPES))}"
    if bins > TRITON_BINS:
        return f"there are {bins} bins, and the kernels take up to {TRITON_BINS}"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed"
    if hidden.device.type != "cuda" and os.environ.get("TRITON_INTERPRET") != "1":
        return f"hidden is on {hidden.device}, and the kernels run on CUDA"
    return None
