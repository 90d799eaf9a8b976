from __future__ import annotations

import csv
import importlib
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from isogon.kernels import Support, hl_gauss_loss

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPT = [sys.executable, str(BENCHMARKS / "kernels.py")]
MODULES = ("harness", "hl_gauss_competitors", "kernel_peers", "kernel_report", "kernels_on_cpu", "kernels_on_gpu")
CPU_KEYS = {
    "cpu_vs_eager",
    "cpu_vs_compile",
    "cpu_vs_hl_gauss_pytorch",
    "cpu_k51_vs_eager_1t",
    "cpu_n256_vs_eager_1t",
    "cpu_n32_vs_eager_1t",
    "loss_error",
    "extra_memory_in_gradients",
}
GPU_KEYS = {
    "gpu_fp32_copy_share",
    "gpu_bf16_copy_share",
    "gpu_vs_eager",
    "gpu_vs_inductor",
    "gpu_q_head_vs_bound",
    "gpu_q_head_vs_grouped_mm",
    "gpu_q_max_vs_gemm",
    "gpu_card",
}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The benchmark's modules, imported as the script does, and forgotten afterwards."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]


def test_quick_prints_every_key_and_records_it(tmp_path: Path) -> None:
    command = [*SCRIPT, "--quick", "--record", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert {"date", "commit", "machine", "versions", "absent"} | CPU_KEYS | GPU_KEYS <= summary.keys()
    for key in CPU_KEYS | GPU_KEYS:
        assert (summary[key] is None) == (key in summary["absent"]), key
    measured = {key for key in CPU_KEYS | GPU_KEYS if isinstance(summary[key], float)}
    assert CPU_KEYS - measured <= {"cpu_vs_compile", "cpu_vs_hl_gauss_pytorch", "extra_memory_in_gradients"}
    assert all(summary[key] > 0 for key in measured)
    assert summary["loss_error"] < 1e-5
    if sys.platform == "linux":
        assert 0.9 < summary["extra_memory_in_gradients"] < 10
    with (tmp_path / "kernels.csv").open(encoding="utf-8") as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    assert rows.keys() == measured
    assert all(float(rows[key]["value"]) == summary[key] for key in measured)
    assert rows["loss_error"]["commit"] == summary["commit"]
    assert rows["loss_error"]["torch"] == summary["versions"]["torch"]


def test_too_few_samples_are_refused() -> None:
    done = subprocess.run([*SCRIPT, "--rounds", "19"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "19 samples are too few" in done.stderr


def test_a_competitor_with_another_sigma_is_found_out(modules: dict[str, Any]) -> None:
    competitors, on_cpu = modules["hl_gauss_competitors"], modules["kernels_on_cpu"]
    support = on_cpu.support_of(51)
    logits, target = on_cpu.samples(64, 51, torch.device("cpu"))
    wanted = competitors.truth(logits, target, support)
    competitors.check_same_work(competitors.isogon(support), logits, target, wanted)
    competitors.check_same_work(competitors.hand_derived(support, logits.device), logits, target, wanted)
    other = Support(-10.0, 10.0, 51, sigma_ratio=0.75 * 2**0.5)
    with pytest.raises(RuntimeError, match="not the same work"):
        competitors.check_same_work(competitors.isogon(other), logits, target, wanted)
    found = on_cpu.loss_competitors({"other": competitors.isogon(other)}, logits, target, support)
    assert "not the same work" in found["other"].reason
    assert {"isogon", "copy"} <= found.keys()


def test_rivals_of_the_q_head_compute_the_chosen_actions_loss(modules: dict[str, Any]) -> None:
    on_gpu = modules["kernels_on_gpu"]
    head = on_gpu.QHead(rows=40, features=32, actions=6, bins=16, slab=8)
    hidden, weight, action, target = on_gpu._q_head_tensors(head, torch.device("cpu"))
    support = modules["kernels_on_cpu"].support_of(16)
    exact = torch.einsum("bd,bkd->bk", hidden.double(), weight.double()[action])
    wanted = hl_gauss_loss(exact, target, support)
    for rival in (on_gpu.grouped_loss, on_gpu.dense_loss):
        loss = rival(hidden, weight, action, target, support)
        assert loss.item() == pytest.approx(wanted.item(), rel=5e-3)
        for found, exact_gradient in zip(
            torch.autograd.grad(loss, (hidden, weight)),
            torch.autograd.grad(wanted, (hidden, weight), retain_graph=True),
            strict=True,
        ):
            torch.testing.assert_close(found.double(), exact_gradient.double(), rtol=0.05, atol=1e-3)


def test_sections_for_a_gpu_run_anywhere(modules: dict[str, Any]) -> None:
    report = modules["kernel_report"].Report()
    effort = modules["kernel_report"].Effort(2, 1e-5, quick=True)
    head = modules["kernels_on_gpu"].QHead(rows=16, features=8, actions=4, bins=8, slab=4)
    device = torch.device("cpu")
    modules["kernels_on_gpu"].loss_section(report, effort, device, rows=64, bins=16)
    modules["kernels_on_gpu"].q_head_section(report, effort, device, head)
    modules["kernels_on_gpu"].q_max_section(report, effort, device, head)
    assert report.values.keys() == GPU_KEYS - {"gpu_card"}
    assert report.values["gpu_fp32_copy_share"] > 0
    assert report.values["gpu_vs_inductor"] is None


def test_both_ways_through_a_long_row_are_compared(modules: dict[str, Any]) -> None:
    native = pytest.importorskip("isogon.kernels._native", reason="the C extension is not built")
    report = modules["kernel_report"].Report()
    used_from = native.use_two_passes_from(2**14)
    modules["kernels_on_cpu"].two_pass_section(report, modules["kernel_report"].Effort(2, 1e-5, quick=True))
    assert native.use_two_passes_from(used_from) == 2**14
    assert report.table.row_count == 4
    assert report.values["two_pass_used_from"] == 2**14
    wins = report.values["two_pass_wins_at"]
    assert wins == "nowhere on this machine" or set(wins.split(", ")) <= {"1,024", "4,096"}
