"""Ways to get HL-Gauss's mean loss and its gradient by the logits, and a check that they do the same work.

A way takes ``logits [N, K]`` and ``target [N]`` and gives the 0-d loss and the gradient ``[N, K]``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch

from isogon.kernels import Support, hl_gauss_loss

Loss: TypeAlias = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Way: TypeAlias = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]

CHUNK = 16384
"""Rows that the float64 reference takes at a time."""


@dataclass(frozen=True)
class Absent:
    """A competitor that cannot run here, and why."""

    reason: str


def failed(error: BaseException) -> Absent:
    """A competitor that raised: its exception's first line."""
    return Absent(f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}")


def differentiated(loss: Loss) -> Way:
    """A loss with its gradient by autograd."""

    def way(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        value = loss(logits, target)
        (gradient,) = torch.autograd.grad(value, logits)
        return value, gradient

    return way


def isogon(support: Support) -> Way:
    return differentiated(lambda logits, target: hl_gauss_loss(logits, target, support))


def paper_listing(support: Support, device: torch.device, reduction: str = "mean") -> Loss:
    """HL-Gauss as Farebrother et al. 2024 (arXiv 2403.03950, appendix A) list it: erf at all edges, cross-entropy."""
    probs = _paper_probabilities(support, device)
    return lambda logits, target: torch.nn.functional.cross_entropy(logits.float(), probs(target), reduction=reduction)


def hand_derived(support: Support, device: torch.device) -> Way:
    """The same with loss and gradient written out, for torch.compile: nothing is saved for a backward pass."""
    probs = _paper_probabilities(support, device)

    def way(logits: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, p = logits.detach().float(), probs(target)
        logsumexp = torch.logsumexp(x, -1, keepdim=True)
        loss = (logsumexp.squeeze(-1) - (p * x).sum(-1)).mean()
        return loss, ((torch.exp(x - logsumexp) - p) / x.shape[0]).to(logits.dtype)

    return way


def hl_gauss_pytorch(support: Support) -> Way | Absent:
    """The package hl-gauss-pytorch: ``sigma_to_bin_ratio`` is in it what `Support.sigma_ratio` is here."""
    try:
        from hl_gauss_pytorch import HLGaussLoss
    except ImportError as error:
        return failed(error)
    loss = HLGaussLoss(
        support.vmin,
        support.vmax,
        support.bins,
        sigma_to_bin_ratio=support.sigma_ratio,
        warn_out_of_range=False,
    )
    if not math.isclose(loss.sigma, support.sigma, rel_tol=1e-6):
        raise RuntimeError(f"hl-gauss-pytorch has sigma {loss.sigma}, the support {support.sigma}: not the same work")
    return differentiated(loss)


def compiled(way: Loss | Way) -> Callable[..., object]:
    """torch.compile for one shape, and for the number of threads that torch has at the first call."""
    result: Callable[..., object] = torch.compile(way, dynamic=False, fullgraph=True)
    return result


def rivals(support: Support, device: torch.device, *, compile_too: bool) -> dict[str, Way | Absent]:
    """Everything that HL-Gauss is compared with, by name."""
    plain = paper_listing(support, device)
    ways: dict[str, Way | Absent] = {"eager": differentiated(plain)}
    if compile_too:
        ways["compile, plain"] = differentiated(compiled(plain))  # type: ignore[arg-type]
        ways["compile, hand-derived"] = compiled(hand_derived(support, device))  # type: ignore[assignment]
    else:
        ways |= dict.fromkeys(("compile, plain", "compile, hand-derived"), Absent("left out by --quick"))
    return ways


@dataclass(frozen=True)
class Truth:
    """Mean loss in float64, and the gradient of the first rows' summed loss."""

    loss: float
    gradient: torch.Tensor


def truth(logits: torch.Tensor, target: torch.Tensor, support: Support) -> Truth:
    """What every way should give."""
    rows, total = logits.shape[0], 0.0
    first = logits[:CHUNK].detach().double().requires_grad_()
    (gradient,) = torch.autograd.grad(hl_gauss_loss(first, target[:CHUNK].double(), support, reduction="sum"), first)
    for begin in range(0, rows, CHUNK):
        part = slice(begin, begin + CHUNK)
        total += hl_gauss_loss(logits[part].detach().double(), target[part].double(), support, reduction="sum").item()
    return Truth(total / rows, gradient)


def check_same_work(way: Way, logits: torch.Tensor, target: torch.Tensor, wanted: Truth) -> None:
    """Raise RuntimeError unless a way's loss and gradient are the truth, as well as the dtype allows."""
    loss, gradient = way(logits, target)
    allowed = 2e-3 if logits.dtype == torch.float32 else 2e-2
    first = gradient[: wanted.gradient.shape[0]].double() * logits.shape[0]
    error = (first - wanted.gradient).abs().max().item()
    if not (abs(loss.item() - wanted.loss) <= 1e-3 * max(1.0, abs(wanted.loss)) and error <= allowed):
        raise RuntimeError(f"not the same work: loss {loss.item()} for {wanted.loss}, gradient off by {error} of 1")


def _paper_probabilities(support: Support, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    edges = torch.linspace(support.vmin, support.vmax, support.bins + 1, dtype=torch.float32, device=device)
    scale = math.sqrt(2.0) * support.sigma

    def probs(target: torch.Tensor) -> torch.Tensor:
        cdf = torch.special.erf((edges - target.unsqueeze(-1)) / scale)
        mass: torch.Tensor = (cdf[..., 1:] - cdf[..., :-1]) / (cdf[..., -1:] - cdf[..., :1])
        return mass

    return probs
