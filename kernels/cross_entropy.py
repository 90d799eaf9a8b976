"""What all losses over bins share: cross-entropy in plain torch, importance weights, reductions, checks."""

from __future__ import annotations

from typing import Literal, NoReturn, TypeAlias

import torch

Reduction: TypeAlias = Literal["mean", "sum", "weighted_mean", "none"]
"""``"none"``: the weighted losses ``[...]``; ``"sum"``: their sum; ``"mean"``: their sum over the number of samples;
``"weighted_mean"``: their sum over the sum of the weights. Means of nothing are NaN, as in torch."""

OutOfRange: TypeAlias = Literal["clamp", "error"]
"""What to do with targets outside the range, infinite ones too: move them to the nearer end, or refuse them."""


def log_softmax(logits: torch.Tensor) -> torch.Tensor:
    """Log-probabilities ``[..., K]``, computed in float32 at least."""
    return torch.log_softmax(logits, -1, dtype=torch.float64 if logits.dtype == torch.float64 else torch.float32)


def cross_entropy(log_probabilities: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """``-sum_k probs_k log_probabilities_k``, ``[...]``, where 0 times minus infinity is 0."""
    probs = probs.to(log_probabilities.dtype)
    return -torch.where(probs == 0, 0.0, probs * log_probabilities).sum(-1)


def ignore_unweighted(tensor: torch.Tensor, weight: torch.Tensor | None, fill: float = 0.0) -> torch.Tensor:
    """Replace what belongs to samples of weight 0, so that its NaN or infinity reaches no gradient."""
    if weight is None:
        return tensor
    unweighted = (weight == 0).reshape(weight.shape + (1,) * (tensor.dim() - weight.dim()))
    return tensor.masked_fill(unweighted, fill)


def reduce_loss(loss: torch.Tensor, weight: torch.Tensor | None, reduction: Reduction) -> torch.Tensor:
    """Weigh the losses ``[...]`` of single samples and reduce them. Raises ValueError if the reduction is unknown."""
    check_reduction(reduction)
    weighted = loss if weight is None else loss * weight.to(loss.dtype)
    match reduction:
        case "none":
            return weighted
        case "sum":
            return weighted.sum()
        case "mean":
            return weighted.mean()
        case "weighted_mean":
            return weighted.mean() if weight is None else weighted.sum() / weight.to(loss.dtype).sum()


def check_reduction(reduction: str) -> None:
    """Raise ValueError unless it is one."""
    if reduction not in ("mean", "sum", "weighted_mean", "none"):
        raise ValueError(f"reduction is {reduction!r}: it must be 'mean', 'sum', 'weighted_mean' or 'none'")


_DTYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def check_logits(logits: torch.Tensor, bins: int | None = None) -> None:
    """Raise ValueError unless logits are floating ``[..., K]`` with at least two bins, or just as many as said."""
    if logits.dtype not in _DTYPES:
        raise ValueError(f"logits have dtype {logits.dtype}: they must be floating, of 16 bits at least")
    if logits.dim() == 0 or logits.shape[-1] < 2 or (bins is not None and logits.shape[-1] != bins):
        wanted = "at least 2 bins" if bins is None else f"the support's {bins} bins"
        raise ValueError(f"logits have shape {tuple(logits.shape)}: the last must be {wanted}")


def check_weight(weight: torch.Tensor | None, shape: torch.Size, device: torch.device | None = None) -> None:
    """Raise ValueError unless there is no weight or one constant weight for each sample of ``shape``."""
    if weight is None:
        return
    if weight.shape != shape:
        raise ValueError(f"weight has shape {tuple(weight.shape)}: it must be {tuple(shape)}, one for each sample")
    check_constant("weight", weight, device)


def check_constant(name: str, tensor: torch.Tensor, device: torch.device | None) -> None:
    """Raise ValueError unless a tensor is floating, needs no gradient and lies where the logits do."""
    if not tensor.dtype.is_floating_point:
        raise ValueError(f"{name} has dtype {tensor.dtype}: it must be floating")
    if tensor.requires_grad:
        raise ValueError(f"{name} requires a gradient: it is a constant, detach it")
    if device is not None and tensor.device != device:
        raise ValueError(f"{name} is on {tensor.device} and logits on {device}: both must be on one device")


def check_target_kind(target: torch.Tensor, out_of_range: str) -> None:
    """Raise ValueError unless targets are floating constants and the policy is known."""
    if out_of_range not in ("clamp", "error"):
        raise ValueError(f"out_of_range is {out_of_range!r}: it must be 'clamp' or 'error'")
    if not target.dtype.is_floating_point:
        raise ValueError(f"target has dtype {target.dtype}: it must be floating, values and not bin numbers")
    if target.requires_grad:
        raise ValueError("target requires a gradient: targets are constants, detach it")


def check_target(target: torch.Tensor, lowest: float, highest: float, out_of_range: OutOfRange) -> torch.Tensor:
    """Which targets ``[...]`` lie outside ``[lowest, highest]``, as bool. Raises ValueError as `hl_gauss_loss` says."""
    check_target_kind(target, out_of_range)
    if torch.compiler.is_compiling():
        if out_of_range == "error":
            raise ValueError("out_of_range is 'error' under torch.compile, where plain torch cannot look at targets")
        return (target < lowest) | (target > highest)
    may_wait = out_of_range == "error" or target.device.type == "cpu"
    if may_wait and bool(torch.isnan(target).any()):
        raise ValueError(f"target has {int(torch.isnan(target).sum())} NaN of {target.numel()}")
    outside = (target < lowest) | (target > highest)
    if out_of_range == "error" and bool(outside.any()):
        raise_outside(target, outside, lowest, highest)
    return outside


def raise_outside(target: torch.Tensor, outside: torch.Tensor, lowest: float, highest: float) -> NoReturn:
    """Raise the ValueError that names a target outside the range."""
    worst = target[outside]
    raise ValueError(
        f"target has {worst.numel()} of {target.numel()} outside [{lowest}, {highest}], such as {worst[0].item()}: "
        f"widen vmin and vmax, or pass out_of_range='clamp'"
    )
