"""Kernels of others whose work is the same as isogon's for hard targets: cross-entropy, and a linear layer with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from harness import Competitor
from hl_gauss_competitors import Absent, failed
from kernel_report import OURS, Effort, Report
from kernels_on_cpu import samples, support_of

from isogon.kernels import hl_gauss_loss

Tensors: TypeAlias = tuple[torch.Tensor, ...]
HardLoss: TypeAlias = Callable[..., torch.Tensor]


def peers_section(report: Report, effort: Effort, device: torch.device, *, rows: int, width: int) -> None:
    """One-hot targets: of logits ``[rows, 128]``, and of a linear layer ``[rows, width] -> 128``."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    support = support_of(128)
    logits, target = samples(rows, 128, device, dtype)
    label = torch.ceil((target - support.vmin) / support.width).long().sub(1).clamp(0, 127)
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(rows, width, generator=generator).to(device, dtype).requires_grad_()
    weight = (torch.randn(128, width, generator=generator) / width**0.5).to(device, dtype).requires_grad_()

    def ours(x: torch.Tensor) -> torch.Tensor:
        return hl_gauss_loss(x, target, support, projection="one_hot")

    of_logits: dict[str, HardLoss | Absent] = {
        OURS: ours,
        "torch cross_entropy": lambda x: torch.nn.functional.cross_entropy(x.float(), label),
        "Liger": _with_labels(_liger, label),
        "quack": _with_labels(_quack, label),
    }
    of_linear: dict[str, HardLoss | Absent] = {
        OURS: lambda h, w: ours(torch.nn.functional.linear(h, w)),
        "torch linear_cross_entropy": _with_labels(_torch_linear, label),
        "Apple's cut_cross_entropy": _with_labels(_cut, label),
    }
    for case, losses, leaves in (
        (f"hard targets, N={rows:,} K=128", of_logits, (logits,)),
        (f"linear {width} and hard targets", of_linear, (hidden, weight)),
    ):
        wanted = losses[OURS]
        assert not isinstance(wanted, Absent)
        value = wanted(*leaves).item()
        competitors = {name: _competitor(loss, leaves, value) for name, loss in losses.items()}
        report.compare(f"{case}, {str(dtype).removeprefix('torch.')}", competitors, effort, device)


def _competitor(loss: HardLoss | Absent, leaves: Tensors, value: float) -> Competitor | Absent:
    if isinstance(loss, Absent):
        return loss

    # Liger's gradient overwrites the logits: everyone works on copies of its own.
    own = [leaf.detach().clone().requires_grad_() for leaf in leaves]

    def run() -> Tensors:
        gradients: Tensors = torch.autograd.grad(loss(*own), own)
        return gradients

    try:
        found = loss(*own).item()
        run()
    except Exception as error:
        return failed(error)
    if abs(found - value) > 0.02 * max(1.0, abs(value)):
        return Absent(f"not the same work: loss {found} for {value}")
    return Competitor(run)


def _with_labels(find: Callable[[], HardLoss], label: torch.Tensor) -> HardLoss | Absent:
    try:
        loss = find()
    except (ImportError, AttributeError) as error:
        return failed(error)
    return lambda *leaves: loss(*leaves, label)


def _liger() -> HardLoss:
    from liger_kernel.transformers.functional import liger_cross_entropy

    loss: HardLoss = liger_cross_entropy
    return loss


def _quack() -> HardLoss:
    from quack.cross_entropy import cross_entropy

    return lambda x, label: cross_entropy(x, label).mean()


def _cut() -> HardLoss:
    from cut_cross_entropy import linear_cross_entropy

    loss: HardLoss = linear_cross_entropy
    return loss


def _torch_linear() -> HardLoss:
    loss: HardLoss = torch.nn.functional.linear_cross_entropy
    options = torch.nn.LinearCrossEntropyOptions()
    return lambda hidden, weight, label: loss(hidden, weight, label, options=options)
