"""The harness of all benchmarks: competitors measured in turns, one of them the baseline.

A benchmark file builds a `Benchmark` and calls `main`. A *sample* times enough calls of one competitor to last
``sample_seconds``. A round takes one sample of every competitor, each round beginning with the next of them, so that
what else the machine does falls on all alike. Each competitor is warmed up first. The minimum is what the code can
do, the median what it did. A ratio is a competitor's seconds an item over the baseline's: below 1 is faster.

The last line of output is one JSON object; ``--record`` also appends it to ``results/<name>.jsonl``.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parent.parent
RESULTS = Path(__file__).resolve().parent / "results"
PIPED_WIDTH = 120
PACKAGES = ("numpy", "torch", "triton", "ray", "gymnasium")


@dataclass(frozen=True)
class Competitor:
    """One way to do the work.

    Attributes:
        run: does it once; what it returns is ignored.
        items: how much work one call does, in the benchmark's unit.
        also: how much it does in other units, such as ``{"game": 7_000}``: reported as so many a second.
    """

    run: Callable[[], object]
    items: float = 1.0
    also: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Benchmark:
    """What is compared.

    Attributes:
        name: of the benchmark, and of its file of results.
        unit: what an item of work is, such as ``"step of a board"``.
        baseline: the competitor that ratios refer to.
        competitors: by name.

    Raises:
        ValueError: the baseline is not among the competitors, or a competitor does no work.
    """

    name: str
    unit: str
    baseline: str
    competitors: Mapping[str, Competitor]

    def __post_init__(self) -> None:
        if self.baseline not in self.competitors:
            raise ValueError(f"baseline {self.baseline!r} is not a competitor: choose of {', '.join(self.competitors)}")
        for name, competitor in self.competitors.items():
            if not competitor.items > 0:
                raise ValueError(f"competitor {name!r} does {competitor.items} items a call: it must be above 0")


@dataclass(frozen=True)
class Timing:
    """Seconds an item, over a competitor's samples."""

    minimum: float
    median: float
    samples: int
    calls_per_sample: int


def measure(
    benchmark: Benchmark,
    *,
    rounds: int = 10,
    warmup: int = 2,
    sample_seconds: float = 0.05,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Timing]:
    """Time every competitor, interleaved.

    Args:
        benchmark: what is compared.
        rounds: samples of each competitor, >= 1.
        warmup: calls of each before any is measured; at least one more is made to see how long a call takes.
        sample_seconds: how long a sample lasts at least, a single long call excepted.
        clock: monotonic, in seconds.

    Raises:
        ValueError: ``rounds`` is less than 1.
    """
    if rounds < 1:
        raise ValueError(f"rounds is {rounds}: at least one sample is needed")
    calls = {
        name: _calls_per_sample(competitor, warmup, sample_seconds, clock)
        for name, competitor in benchmark.competitors.items()
    }
    names = list(benchmark.competitors)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            competitor = benchmark.competitors[name]
            seconds[name].append(_time_calls(competitor, calls[name], clock) / (calls[name] * competitor.items))
    return {name: Timing(min(taken), statistics.median(taken), rounds, calls[name]) for name, taken in seconds.items()}


def summarise(benchmark: Benchmark, timings: Mapping[str, Timing]) -> dict[str, Any]:
    """A benchmark's result as JSON values: date, commit, machine, versions, and a row for each competitor."""
    baseline = timings[benchmark.baseline]
    return {
        "benchmark": benchmark.name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **describe_commit(ROOT),
        "machine": describe_machine(),
        "versions": describe_versions(),
        "unit": benchmark.unit,
        "baseline": benchmark.baseline,
        "competitors": {
            name: {
                "seconds_minimum": timing.minimum,
                "seconds_median": timing.median,
                "ratio_minimum": timing.minimum / baseline.minimum,
                "ratio_median": timing.median / baseline.median,
                "items_per_second": 1 / timing.median,
                **_also_per_second(benchmark.competitors[name], timing),
                "samples": timing.samples,
                "calls_per_sample": timing.calls_per_sample,
            }
            for name, timing in timings.items()
        },
    }


def describe_commit(root: Path) -> dict[str, Any]:
    """``commit`` (None outside a git checkout with a commit) and ``dirty``, whether the tree differs from it."""

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    status = git("status", "--porcelain")
    return {
        "commit": git("rev-parse", "--verify", "--quiet", "HEAD"),
        "dirty": None if status is None else bool(status),
    }


def describe_machine() -> dict[str, Any]:
    """``cpu``, its model; ``cores``, those that this process may use; ``memory_gib``; ``system``."""
    return {
        "cpu": _cpu_model(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "system": platform.platform(),
    }


def describe_versions() -> dict[str, str]:
    """Python's version, and those of `PACKAGES` that are installed."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def main(build: Callable[[], Benchmark], arguments: Sequence[str] | None = None) -> None:
    """A benchmark's command line: measure, print a table, then the JSON object as the last line."""
    options = _parser().parse_args(arguments)
    benchmark = build()
    timings = measure(benchmark, rounds=options.rounds, warmup=options.warmup, sample_seconds=options.sample_seconds)
    summary = summarise(benchmark, timings)
    Console(width=None if sys.stdout.isatty() else PIPED_WIDTH).print(_table(summary))
    line = json.dumps(summary)
    if options.record:
        record(line, options.results, benchmark.name)
    print(line)


def record(line: str, folder: Path, name: str) -> Path:
    """Append a result to ``<folder>/<name>.jsonl`` and return that path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{name}.jsonl"
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    return path


def append_rows(path: Path, common: Mapping[str, Any], values: Mapping[str, Any]) -> None:
    """Append a row of ``common``, key and value for each value that is a number to a CSV file with these columns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = not path.exists()
    with path.open("a", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, (*common, "key", "value"))
        if new:
            writer.writeheader()
        writer.writerows(
            {**common, "key": key, "value": value} for key, value in values.items() if type(value) is float
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure competitors in turns; the last line is one JSON object.")
    parser.add_argument("--rounds", type=int, default=10, help="samples of each competitor (default: %(default)s)")
    parser.add_argument("--warmup", type=int, default=2, help="calls before measuring (default: %(default)s)")
    parser.add_argument(
        "--sample-seconds", type=float, default=0.05, help="least seconds of a sample (default: %(default)s)"
    )
    parser.add_argument("--record", action="store_true", help="append the JSON object to a file of results")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of that file (default: %(default)s)")
    return parser


def _also_per_second(competitor: Competitor, timing: Timing) -> dict[str, float]:
    calls_per_second = 1 / (timing.median * competitor.items)
    return {f"{unit}s_per_second": amount * calls_per_second for unit, amount in competitor.also.items()}


def _table(summary: Mapping[str, Any]) -> Table:
    machine = summary["machine"]
    table = Table(
        title=f"{summary['benchmark']} ({machine['cpu']}, {machine['cores']} cores)",
        caption=f"An item is one {summary['unit']}. The ratio is of medians, to the baseline's: below 1 is faster.",
    )
    for heading in ("competitor", "median an item", "minimum an item", "items a second", "ratio", "also"):
        table.add_column(heading, justify="left" if heading == "competitor" else "right")
    for name, row in summary["competitors"].items():
        marked = f"{name} (baseline)" if name == summary["baseline"] else name
        times = [format_seconds(row[key]) for key in ("seconds_median", "seconds_minimum")]
        rates = {key: rate for key, rate in row.items() if key.endswith("_per_second")}
        items = f"{rates.pop('items_per_second'):,.0f}"
        also = ", ".join(f"{rate:,.0f} {key.removesuffix('_per_second')} a second" for key, rate in rates.items())
        table.add_row(marked, *times, items, f"{row['ratio_median']:.3g}", also)
    return table


def format_seconds(seconds: float) -> str:
    for size, unit in ((1.0, "s"), (1e-3, "ms"), (1e-6, "µs")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


def _time_calls(competitor: Competitor, calls: int, clock: Callable[[], float]) -> float:
    run = competitor.run
    begin = clock()
    for _ in range(calls):
        run()
    return clock() - begin


def _calls_per_sample(competitor: Competitor, warmup: int, sample_seconds: float, clock: Callable[[], float]) -> int:
    for _ in range(warmup):
        competitor.run()
    calls = 1
    while (taken := _time_calls(competitor, calls, clock)) < sample_seconds:
        # A first estimate from one short call is rough, so it grows at most tenfold at a time.
        calls = min(calls * 10, max(calls + 1, math.ceil(calls * 1.1 * sample_seconds / max(taken, 1e-9))))
    return calls


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()
