"""How fast, exact and frugal the kernels are: `isogon.kernels` beside whatever else a user could take.

Competitors are measured in turns in one process (see `harness`). Minima say what the code can do, medians what it did;
ratios are of minima, because a second thread on a busy machine spoils medians. Before anything is timed each
competitor's loss and gradient are compared with float64.

glibc by default maps and unmaps every large tensor anew, at the price of a page fault for every 4 KiB; that would be
measured instead of the arithmetic. So this process starts itself again with thresholds that let all competitors reuse
memory. The measurement of memory runs in processes of its own, with thresholds that give every block back.

The last line of output is one JSON object. What could not be measured is null there, with its reason under "absent".
``--record`` appends a row for each key to ``results/kernels.csv``.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import PIPED_WIDTH, RESULTS, ROOT, append_rows, describe_commit, describe_machine, describe_versions

MALLOC = {
    "MALLOC_MMAP_THRESHOLD_": str(2**33),
    "MALLOC_TRIM_THRESHOLD_": str(2**33),
    "MALLOC_TOP_PAD_": str(2**28),
}


def main() -> None:
    options = _parser().parse_args()
    if any(os.environ.get(name) != value for name, value in MALLOC.items()):
        # glibc reads them when a process starts.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], {**os.environ, **MALLOC})
    summary = run(options)
    if options.record:
        record(summary, options.results)
    print(json.dumps(summary))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Measure everything, print the table, and give the JSON object."""
    import torch
    from hl_gauss_competitors import Absent
    from kernel_peers import peers_section
    from kernel_report import Effort, Report
    from kernels_on_cpu import CPU, KEYS, cpu_sections
    from kernels_on_gpu import gpu_sections
    from rich.console import Console

    effort = Effort(2, 1e-4, quick=True) if options.quick else Effort(options.rounds, options.sample_seconds)
    report = Report()
    if options.gpu_only:
        for key in KEYS:
            report.put(key, Absent("left out by --gpu-only"))
    else:
        cpu_sections(report, effort)
    gpu_sections(report, effort)
    device = torch.device("cuda") if torch.cuda.is_available() else CPU
    peers_section(report, effort, device, rows=512 if effort.quick else 65536, width=64 if effort.quick else 512)
    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    console.print(report.table)
    for what, reason in report.absent.items():
        console.print(f"absent: {what}: {reason}", markup=False, highlight=False)
    return {
        "benchmark": "kernels",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **describe_commit(ROOT),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "samples": effort.rounds,
        **report.values,
        "absent": report.absent,
    }


def record(summary: Mapping[str, Any], folder: Path) -> Path:
    """Append a row for each key that has a value to ``<folder>/kernels.csv`` and return that path."""
    common = {
        "date": summary["date"],
        "commit": summary["commit"],
        "dirty": summary["dirty"],
        "machine": f"{summary['machine']['cpu']}, {summary['machine']['cores']} cores",
        "card": summary["gpu_card"] or "",
        **{name: summary["versions"].get(name, "") for name in ("python", "torch", "triton")},
    }
    path = folder / "kernels.csv"
    prefixes = ("cpu_", "gpu_", "loss_", "extra_")
    append_rows(path, common, {key: value for key, value in summary.items() if key.startswith(prefixes)})
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure isogon.kernels; the last line is one JSON object.")
    parser.add_argument(
        "--rounds", type=_rounds, default=30, help="samples of each, at least 20 (default: %(default)s)"
    )
    parser.add_argument(
        "--sample-seconds", type=float, default=0.02, help="least seconds of a sample (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, and measures nothing")
    parser.add_argument("--gpu-only", action="store_true", help="leave the CPU's sections out")
    parser.add_argument("--record", action="store_true", help="append the findings to a file of results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of that file (default: %(default)s)")
    return parser


def _rounds(text: str) -> int:
    if (rounds := int(text)) < 20:
        raise argparse.ArgumentTypeError(f"{rounds} samples are too few for a minimum: at least 20, or --quick")
    return rounds


if __name__ == "__main__":
    main()
