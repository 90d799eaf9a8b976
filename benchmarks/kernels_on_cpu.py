"""The kernels' benchmark on a CPU: speed, error and memory of `isogon.kernels.hl_gauss_loss`."""

from __future__ import annotations

import gc
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from harness import Competitor
from hl_gauss_competitors import (
    Absent,
    Way,
    check_same_work,
    failed,
    hl_gauss_pytorch,
    isogon,
    paper_listing,
    rivals,
    truth,
)
from kernel_report import OURS, Effort, Report

from isogon.kernels import Support, hl_gauss_loss
from isogon.kernels.backends import why_not

CPU = torch.device("cpu")
KEYS = (
    "cpu_vs_eager",
    "cpu_vs_compile",
    "cpu_vs_hl_gauss_pytorch",
    "cpu_k51_vs_eager_1t",
    "cpu_n256_vs_eager_1t",
    "cpu_n32_vs_eager_1t",
    "loss_error",
    "extra_memory_in_gradients",
)
SOFTMAX_LENGTHS = tuple(2**power for power in range(10, 23, 2))
"""1,024 to 4,194,304 logits in a row."""


def support_of(bins: int, sigma_ratio: float = 0.75) -> Support:
    return Support(-10.0, 10.0, bins, sigma_ratio)


def samples(
    rows: int, bins: int, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits from N(0, 25) and targets all over the range."""
    generator = torch.Generator().manual_seed(0)
    logits = (5 * torch.randn(rows, bins, generator=generator)).to(device, dtype).requires_grad_()
    return logits, (20 * torch.rand(rows, generator=generator) - 10).to(device)


def loss_competitors(
    ways: Mapping[str, Way | Absent], logits: torch.Tensor, target: torch.Tensor, support: Support
) -> dict[str, Competitor | Absent]:
    """The ways, each checked to do the same work, with isogon and a bare copy of the logits, the least there can be."""
    buffer, source = torch.empty_like(logits, requires_grad=False), logits.detach()
    wanted = truth(logits, target, support)
    competitors: dict[str, Competitor | Absent] = {}
    for name, way in {**ways, OURS: isogon(support)}.items():
        if isinstance(way, Absent):
            competitors[name] = way
            continue
        try:
            check_same_work(way, logits, target, wanted)
        except Exception as error:
            if name == OURS:
                raise
            competitors[name] = failed(error)
        else:
            competitors[name] = Competitor(_bound(way, logits, target))
    return {**competitors, "copy": Competitor(lambda: buffer.copy_(source))}


def speed_section(report: Report, effort: Effort) -> None:
    """The issue's cases; threads are set for each, and what is compiled is compiled for that many."""
    before = torch.get_num_threads()
    many = 1024 if effort.quick else 65536
    torch.set_num_threads(2)
    support = support_of(128)
    logits, target = samples(many, 128, CPU)
    ways = rivals(support, CPU, compile_too=not effort.quick) | {"hl-gauss-pytorch": hl_gauss_pytorch(support)}
    timings = report.compare(
        f"N={many:,} K=128, 2 threads", loss_competitors(ways, logits, target, support), effort, CPU
    )
    report.put_ratio("cpu_vs_eager", timings, "eager")
    report.put_ratio("cpu_vs_compile", timings, "compile, plain", "compile, hand-derived")
    report.put_ratio("cpu_vs_hl_gauss_pytorch", timings, "hl-gauss-pytorch")
    torch.set_num_threads(1)
    support = support_of(51)
    for key, rows in (("cpu_k51_vs_eager_1t", many), ("cpu_n256_vs_eager_1t", 256), ("cpu_n32_vs_eager_1t", 32)):
        logits, target = samples(rows, 51, CPU)
        eager = {"eager": rivals(support, CPU, compile_too=False)["eager"]}
        timings = report.compare(
            f"N={rows:,} K=51, 1 thread", loss_competitors(eager, logits, target, support), effort, CPU
        )
        report.put_ratio(key, timings, "eager")
    torch.set_num_threads(before)


def error_section(report: Report, effort: Effort) -> None:
    """The largest difference to float64 over bins and widths; beside it, that of the paper's listing in float32."""
    errors: dict[str, list[torch.Tensor]] = {"eager": [], OURS: []}
    for bins in (51, 1001) if effort.quick else (2, 51, 101, 128, 255, 601, 1001):
        for ratio in (0.1, 0.75, 2.0) if effort.quick else (0.1, 0.3, 0.5, 0.75, 1.0, 2.0):
            support = support_of(bins, ratio)
            logits, target = (each.detach() for each in samples(64 if effort.quick else 2048, bins, CPU))
            exact = hl_gauss_loss(logits.double(), target.double(), support, reduction="none")
            loss = hl_gauss_loss(logits, target, support, reduction="none")
            plain = paper_listing(support, CPU, reduction="none")(logits, target)
            errors[OURS].append((loss.double() - exact).abs().max())
            errors["eager"].append((plain.double() - exact).abs().max())
    # Unlike Python's, torch's maximum does not overlook NaN.
    largest = {name: torch.stack(found).max().item() for name, found in errors.items()}
    report.put("loss_error", largest[OURS])
    for name, error in largest.items():
        report.table.add_row("error of the loss", name, f"{error:.2g}", "", f"{error / largest[OURS]:.3g}")
    report.table.add_section()


def memory_section(report: Report, effort: Effort) -> None:
    """Peak memory of one forward and backward beyond what it began with, in gradients, each in a process of its own."""
    rows = 16384 if effort.quick else 65536
    found: dict[str, float | Absent] = {}
    for name in (OURS,) if effort.quick else ("eager", OURS):
        # Every block of a megabyte is mapped and given back on its own, so that none is left over from the warm-up.
        # (A heap that is padded at its top would serve it from there, from pages that are resident already.)
        limits = {"MALLOC_MMAP_THRESHOLD_": str(2**20), "MALLOC_TRIM_THRESHOLD_": "0", "MALLOC_TOP_PAD_": "0"}
        environment = {**os.environ, **limits}
        command = [sys.executable, str(Path(__file__)), name, str(rows)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            found[name] = Absent(done.stderr.strip().splitlines()[-1])
        else:
            found[name] = float(json.loads(done.stdout))
    for name, gradients in found.items():
        shown = "absent" if isinstance(gradients, Absent) else f"{gradients:.2f} gradients"
        report.table.add_row("extra memory at its peak", name, shown, "", "")
    report.put("extra_memory_in_gradients", found[OURS])
    report.table.add_section()


def extra_memory(name: str, rows: int) -> float:
    """In gradients. Linux only: the kernel's high-water mark of resident memory, reset after a warm-up."""
    support = support_of(128)
    logits, target = samples(rows, 128, CPU)
    way = isogon(support) if name == OURS else rivals(support, CPU, compile_too=False)[name]
    assert not isinstance(way, Absent)
    way(logits, target)
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmRSS")
    result = way(logits, target)
    extra = _resident("VmHWM") - before
    del result
    return extra / (logits.numel() * logits.element_size())


def two_pass_section(report: Report, effort: Effort) -> None:
    """The two ways of the C kernel through a row, from 1,024 logits to 4 million: one thread, forward and backward.

    Either exponentials are kept in scratch after the first pass, or they are made twice (Dukhan and Ablavatski's
    two-pass softmax). Which lengths the latter wins goes into ``two_pass_wins_at``; from which one it is used in truth
    into ``two_pass_used_from``.
    """
    if (missing := why_not("native")) is not None:
        report.absent["two-pass softmax"] = missing
        return
    native: Any = importlib.import_module("isogon.kernels._native")
    threads, used_from = torch.get_num_threads(), native.use_two_passes_from(1)
    torch.set_num_threads(1)
    wins = []
    try:
        for length in SOFTMAX_LENGTHS[:2] if effort.quick else SOFTMAX_LENGTHS:
            support = support_of(length)
            logits, target = samples(max(1, 2**20 // length), length, CPU)
            way = isogon(support)

            def go(first: int, way: Way = way, logits: torch.Tensor = logits, target: torch.Tensor = target) -> None:
                native.use_two_passes_from(first)
                way(logits, target)

            timings = report.compare(
                f"rows of {length:,}; isogon keeps exponentials",
                {OURS: Competitor(_bound(go, 2**62)), "isogon in two passes": Competitor(_bound(go, 1))},
                effort,
                CPU,
            )
            if timings["isogon in two passes"].minimum < timings[OURS].minimum:
                wins.append(length)
    finally:
        native.use_two_passes_from(used_from)
        torch.set_num_threads(threads)
    report.values["two_pass_wins_at"] = ", ".join(f"{length:,}" for length in wins) or "nowhere on this machine"
    report.values["two_pass_used_from"] = float(used_from)


def cpu_sections(report: Report, effort: Effort) -> None:
    """All of it."""
    speed_section(report, effort)
    error_section(report, effort)
    memory_section(report, effort)
    two_pass_section(report, effort)


def _bound(run: Callable[..., object], *arguments: object) -> Callable[[], object]:
    return lambda: run(*arguments)


def _resident(field: str) -> int:
    """Bytes of a ``/proc/self/status`` field, which are given in kB."""
    lines = Path("/proc/self/status").read_text("utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{field}:"))


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(json.dumps(extra_memory(sys.argv[1], int(sys.argv[2]))))
