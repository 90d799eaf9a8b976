"""What a federation costs beside training: rounds, bytes, scheduling, the server's memory.

Clients answer at once. Isogon's server, bare Ray calls and Flower's simulation make rounds in turns, with as many
processes for clients as there are clients; figures are medians. Durability is off in comparisons, and on beside them.
Bare calls are the least that Ray can do: the model into the object store once, a call to each actor, whose answer is a
fresh array for each tensor, and all answers out of the store, where nobody looks at them.

The last line of output is one JSON object. What could not be measured is null there, with its reason under "absent".
``--record`` appends a row for each key to ``results/federation.csv``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from harness import RESULTS, ROOT, append_rows, describe_commit, describe_machine, describe_versions


@dataclass
class Findings:
    """By key; and why some are missing."""

    values: dict[str, float | None] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)

    def put(self, **found: float) -> None:
        """Note findings, rounded to four digits."""
        self.values |= {key: float(f"{value:.4g}") for key, value in found.items()}
        for key in found:
            print(f"  {key}: {self.values[key]:,}", flush=True)

    def miss(self, reason: str, *keys: str) -> None:
        """Note that these could not be found."""
        self.values |= dict.fromkeys(keys)
        self.absent |= dict.fromkeys(keys, reason)
        print(f"  absent: {', '.join(keys)}: {reason}", flush=True)


def main() -> None:
    options = _parser().parse_args()
    findings = Findings()
    options.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.folder, prefix="federation-") as folder:
        rounds_section(findings, options, Path(folder))
        scheduler_section(findings, options)
        memory_section(findings, options, Path(folder))
    summary = {
        "benchmark": "federation",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **describe_commit(ROOT),
        "machine": describe_machine(),
        "versions": describe_versions(),
        **findings.values,
        "absent": findings.absent,
    }
    if options.record:
        record(summary, findings.values, options.results / "federation.csv")
    print(json.dumps(summary))


def rounds_section(findings: Findings, options: argparse.Namespace, folder: Path) -> None:
    """A small model with many clients, a large one with two: beside bare calls and Flower, and durable."""
    from federation_rounds import Size, config_of, durable_rounds, local_ray

    small = Size(2, 1024, 2, 1) if options.quick else Size(10, 10_240, options.rounds)
    large = Size(2, 400_000, 2, 1) if options.quick else Size(2, 50_000_000, options.large_rounds)
    with local_ray(small.clients):
        print(f"{small.clients} clients x {small.nbytes:,} bytes, {small.clients} processes of each competitor")
        median = _beside_rivals(small, options, findings, "ray_round_vs_flower", "flower_round_ms")
        findings.put(
            ray_round_vs_bare=median["isogon"] / median["bare"],
            **{f"{_label(name)}_round_ms": 1e3 * seconds for name, seconds in median.items()},
        )
        if "flower" in median:
            findings.put(ray_round_vs_flower=median["flower"] / median["isogon"])
        durable = statistics.median(durable_rounds(config_of(small, durable=True), folder / "small")[small.warmup :])
        findings.put(ray_durable_round_ms=1e3 * durable)
        print(f"{large.clients} clients x {large.nbytes:,} bytes, {large.clients} processes of each competitor")
        median = _beside_rivals(large, options, findings, "ray_bytes_vs_flower", "flower_mb_per_second")
        findings.put(
            ray_bytes_vs_bare=median["bare"] / median["isogon"],
            **{f"{_label(name)}_mb_per_second": large.mb_per_second(seconds) for name, seconds in median.items()},
        )
        if "flower" in median:
            findings.put(ray_bytes_vs_flower=median["flower"] / median["isogon"])
        durable = statistics.median(durable_rounds(config_of(large, durable=True), folder / "large")[large.warmup :])
        findings.put(ray_durable_mb_per_second=large.mb_per_second(durable))


def _label(competitor: str) -> str:
    return "ray" if competitor == "isogon" else competitor


def _beside_rivals(size: Any, options: argparse.Namespace, findings: Findings, *flower_keys: str) -> dict[str, float]:
    from federation_rounds import BareCalls, in_turns
    from flower_peer import FlowerAbsent, flower_python, flower_rounds

    bare = BareCalls(size)
    try:
        with ExitStack() as stack:
            rivals = {"bare": bare.round}
            if options.quick or options.without_flower:
                findings.miss("left out by --quick or --without-flower", *flower_keys)
            else:
                try:
                    flower = stack.enter_context(flower_rounds(flower_python(options.flower), size))
                    rivals["flower"] = flower.round
                except FlowerAbsent as error:
                    findings.miss(str(error), *flower_keys)
            return in_turns(size, rivals)
    finally:
        bare.close()


def scheduler_section(findings: Findings, options: argparse.Namespace) -> None:
    """FedCompass's own time for an assignment, with few clients and many, in turns."""
    from scheduler_cost import measure

    counts = {100: 1_000_000, 10_000: 1_000_000, 100_000: 1_000_000}
    if options.quick:
        counts = {10: 1_000, 100: 1_000, 1_000: 2_000}
    print(
        "scheduler: "
        + ", ".join(f"{number:,} assignments of {clients:,} clients" for clients, number in counts.items())
    )
    taken: dict[int, list[float]] = {clients: [] for clients in counts}
    for seed in range(1 if options.quick else options.scheduler_runs):
        for clients, number in counts.items():
            taken[clients].append(measure(clients, number, seed))
    few, some, many = (statistics.median(values) for values in taken.values())
    findings.put(
        scheduler_us_per_assignment_100=few,
        scheduler_us_per_assignment_10k=some,
        scheduler_us_per_assignment_100k=many,
        scheduler_growth_100_to_100k=many / few,
    )


def memory_section(findings: Findings, options: argparse.Namespace, folder: Path) -> None:
    """The server's peak memory with few and with many clients, whose updates wait on disk."""
    nbytes, few, many = (4_000_000, 10, 1_000) if not options.quick else (4_000, 2, 4)
    keys = ("server_rss_mb_10", "server_rss_mb_1000", "server_rss_growth_ratio")
    print(f"memory: {few:,} and {many:,} clients x {nbytes:,} bytes")
    if not sys.platform.startswith("linux"):
        findings.miss("a process's peak memory is read from /proc, which this system has not", *keys)
        return
    needed, free = 2 * many * nbytes, shutil.disk_usage(folder).free
    if free < needed:
        findings.miss(f"{folder} has {free:,} bytes free and updates may take {needed:,}", *keys)
        return
    script = Path(__file__).with_name("server_memory.py")
    peaks = []
    for clients in (few, many):
        place = folder / f"memory-{clients}"
        command = [sys.executable, str(script), str(clients), str(nbytes), str(place)]
        ended = subprocess.run(command, capture_output=True, text=True, check=True)
        peaks.append(int(ended.stdout.splitlines()[-1]))
        shutil.rmtree(place)
    findings.put(**dict(zip(keys, (peaks[0] / 1e6, peaks[1] / 1e6, peaks[1] / peaks[0]), strict=True)))


def record(summary: Mapping[str, Any], values: Mapping[str, Any], path: Path) -> None:
    """Append a row for each value to a file of results."""
    common = {
        "date": summary["date"],
        "commit": summary["commit"],
        "dirty": summary["dirty"],
        "machine": f"{summary['machine']['cpu']}, {summary['machine']['cores']} cores",
        **{name: summary["versions"].get(name, "") for name in ("python", "numpy", "ray")},
    }
    append_rows(path, common, values)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure federations; the last line is one JSON object.")
    parser.add_argument("--rounds", type=int, default=100, help="of the small model (default: %(default)s)")
    parser.add_argument("--large-rounds", type=int, default=30, help="of the large model (default: %(default)s)")
    parser.add_argument("--scheduler-runs", type=int, default=3, help="of each size (default: %(default)s)")
    parser.add_argument("--quick", action="store_true", help="tiny sizes: shows that it runs, and measures nothing")
    parser.add_argument("--without-flower", action="store_true", help="leave Flower out")
    parser.add_argument(
        "--flower",
        type=Path,
        default=ROOT / "runs" / "flower",
        help="environment with Flower, made where it is missing (default: %(default)s)",
    )
    parser.add_argument(
        "--folder", type=Path, default=ROOT / "runs", help="on a disk with 8 GB to spare (default: %(default)s)"
    )
    parser.add_argument("--record", action="store_true", help="append the findings to a file of results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of that file (default: %(default)s)")
    return parser


if __name__ == "__main__":
    main()
