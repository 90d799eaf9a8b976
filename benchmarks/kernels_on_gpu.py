"""The kernels' benchmark on a GPU, as shares of what the same card does in the same run.

Every section takes the device and sizes, so that all of it but the speed can be tried on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from harness import Competitor
from hl_gauss_competitors import Absent, failed, rivals
from kernel_report import OURS, Effort, Report
from kernels_on_cpu import loss_competitors, samples, support_of

from isogon.kernels import Support, hl_gauss_loss, hl_gauss_q_loss, q_max

KEYS = (
    "gpu_fp32_copy_share",
    "gpu_bf16_copy_share",
    "gpu_vs_eager",
    "gpu_vs_inductor",
    "gpu_q_head_vs_bound",
    "gpu_q_head_vs_grouped_mm",
    "gpu_q_max_vs_gemm",
    "gpu_card",
)


@dataclass(frozen=True)
class QHead:
    """Sizes of a Q-head: B rows of D features, A actions of K bins.

    Attributes:
        rows: B; each has one action.
        features: D.
        actions: A.
        bins: K.
        slab: rows that the dense product takes at a time, since all logits together would not fit.
    """

    rows: int = 65536
    features: int = 1024
    actions: int = 1968
    bins: int = 128
    slab: int = 4096


def loss_section(report: Report, effort: Effort, device: torch.device, *, rows: int = 2**20, bins: int = 128) -> None:
    """The loss over logits that are many times the cards' caches, in float32 and bfloat16."""
    support = support_of(bins)
    for key, dtype in (("gpu_fp32_copy_share", torch.float32), ("gpu_bf16_copy_share", torch.bfloat16)):
        logits, target = samples(rows, bins, device, dtype)
        ways = rivals(support, device, compile_too=not effort.quick)
        case = f"N={rows:,} K={bins}, {str(dtype).removeprefix('torch.')}"
        timings = report.compare(case, loss_competitors(ways, logits, target, support), effort, device)
        report.put(key, timings["copy"].minimum / timings[OURS].minimum)
        if dtype == torch.float32:
            report.put_ratio("gpu_vs_eager", timings, "eager")
            report.put_ratio("gpu_vs_inductor", timings, "compile, plain", "compile, hand-derived")


def grouped_loss(
    hidden: torch.Tensor, weight: torch.Tensor, action: torch.Tensor, target: torch.Tensor, support: Support
) -> torch.Tensor:
    """The chosen actions' loss from what torch has: rows sorted by action, one grouped product, the loss."""
    order = torch.argsort(action)
    ends = torch.bincount(action, minlength=weight.shape[0]).cumsum(0).to(torch.int32)
    logits = torch.nn.functional.grouped_mm(hidden[order], weight.transpose(1, 2), offs=ends)
    return hl_gauss_loss(logits, target[order], support)


def dense_loss(
    hidden: torch.Tensor, weight: torch.Tensor, action: torch.Tensor, target: torch.Tensor, support: Support
) -> torch.Tensor:
    """The same by all actions' logits, of which one each is taken."""
    logits = (hidden @ weight.flatten(0, 1).T).view(-1, *weight.shape[:2])
    return hl_gauss_loss(logits[torch.arange(len(action), device=action.device), action], target, support)


def q_head_section(report: Report, effort: Effort, device: torch.device, head: QHead) -> None:
    """Loss of the chosen actions of a large Q-head, forward and backward, in bfloat16.

    The bound is the time in which the card copies what must be read and written at least: hidden and weights once
    forward and once backward, and both gradients.
    """
    hidden, weight, action, target = _q_head_tensors(head, device)
    support = support_of(head.bins)
    row = torch.arange(head.rows, device=device)
    some = slice(0, head.slab)

    def run(loss: Callable[[], torch.Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad(loss(), (hidden, weight))

    moved = 3 * (hidden.numel() * hidden.element_size() + weight.numel() * weight.element_size())
    source = torch.empty(moved // 4, dtype=torch.bfloat16, device=device)
    buffer = torch.empty_like(source)
    competitors: dict[str, Competitor | Absent] = {
        OURS: Competitor(run(lambda: hl_gauss_q_loss(hidden, weight, None, row, action, target, support)), head.rows),
        "argsort, grouped_mm, loss": _tried(
            run(lambda: grouped_loss(hidden, weight, action, target, support)), head.rows
        ),
        "dense, scaled from a slab": _tried(
            run(lambda: dense_loss(hidden[some], weight, action[some], target[some], support)), head.slab
        ),
        "bound: copy of as many bytes": Competitor(lambda: buffer.copy_(source), head.rows),
    }
    case = f"Q-head B={head.rows:,} D={head.features:,} A={head.actions:,} K={head.bins}"
    timings = report.compare(case, competitors, effort, device)
    report.put("gpu_q_head_vs_bound", timings[OURS].minimum / timings["bound: copy of as many bytes"].minimum)
    report.put_ratio("gpu_q_head_vs_grouped_mm", timings, "argsort, grouped_mm, loss")


def q_max_section(report: Report, effort: Effort, device: torch.device, head: QHead) -> None:
    """The best of all actions, beside a plain product of the same shape, a slab of rows at a time into one buffer."""
    hidden, weight, _, _ = (each.detach() for each in _q_head_tensors(head, device))
    support = support_of(head.bins)
    some, columns = hidden[: head.slab], weight.flatten(0, 1).T
    product = torch.empty(some.shape[0], columns.shape[1], dtype=hidden.dtype, device=device)
    competitors: dict[str, Competitor | Absent] = {
        OURS: Competitor(lambda: q_max(hidden, weight, None, support), head.rows),
        "product alone": Competitor(lambda: torch.mm(some, columns, out=product), some.shape[0]),
    }
    case = f"q_max B={head.rows:,} A={head.actions:,} K={head.bins}"
    timings = report.compare(case, competitors, effort, device)
    report.put("gpu_q_max_vs_gemm", timings["product alone"].minimum / timings[OURS].minimum)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        q_max(hidden, weight, None, support)
        extra = torch.cuda.max_memory_allocated(device) - before
        report.table.add_row(case, OURS, f"{extra / head.rows:,.0f} bytes a row", "", "")


def gpu_sections(report: Report, effort: Effort) -> None:
    """All of it, or the reason why there is none."""
    if not torch.cuda.is_available():
        for key in KEYS:
            report.put(key, Absent("torch sees no CUDA device"))
        return
    device = torch.device("cuda")
    report.put("gpu_card", torch.cuda.get_device_name(device))
    head = QHead(rows=2048, features=256, actions=128, slab=256) if effort.quick else QHead()
    loss_section(report, effort, device, rows=2**14 if effort.quick else 2**20)
    torch.cuda.empty_cache()
    q_head_section(report, effort, device, head)
    torch.cuda.empty_cache()
    q_max_section(report, effort, device, head)


def _q_head_tensors(head: QHead, device: torch.device) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator(device).manual_seed(0)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, device=device, dtype=torch.bfloat16)

    hidden = normal(head.rows, head.features).requires_grad_()
    weight = normal(head.actions, head.bins, head.features).mul_(head.features**-0.5).requires_grad_()
    action = torch.randint(head.actions, (head.rows,), generator=generator, device=device)
    target = 20 * torch.rand(head.rows, generator=generator, device=device) - 10
    return hidden, weight, action, target


def _tried(run: Callable[[], object], items: int) -> Competitor | Absent:
    try:
        run()
    except Exception as error:
        return failed(error)
    return Competitor(run, items)
