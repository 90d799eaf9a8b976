"""What the sections of the kernels' benchmark share: how they measure, and where their findings go."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from harness import Benchmark, Competitor, Timing, format_seconds, measure
from hl_gauss_competitors import Absent
from rich.table import Table

OURS = "isogon"


@dataclass(frozen=True)
class Effort:
    """How long is measured.

    Attributes:
        rounds: samples of each competitor.
        sample_seconds: how long a sample lasts at least.
        quick: small sizes, no torch.compile: shows that everything runs, and measures nothing.
    """

    rounds: int = 30
    sample_seconds: float = 0.02
    quick: bool = False


@dataclass
class Report:
    """Findings by key, why some are missing, and the table of all timings."""

    values: dict[str, float | str | None] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    table: Table = field(default_factory=lambda: _empty_table())

    def put(self, key: str, value: float | str | Absent) -> None:
        """Note a finding, rounded to four digits, or None and the reason; RuntimeError for a number that is none."""
        if isinstance(value, float) and not math.isfinite(value):
            raise RuntimeError(f"{key} is {value}: it must be finite")
        if isinstance(value, Absent):
            self.values[key] = None
            self.absent[key] = value.reason
        else:
            self.values[key] = value if isinstance(value, str) else float(f"{value:.4g}")

    def compare(
        self, case: str, competitors: Mapping[str, Competitor | Absent], effort: Effort, device: torch.device
    ) -> dict[str, Timing]:
        """Measure those that are there, in turns, and add them to the table; ``isogon`` must be among them."""
        here = {name: each for name, each in competitors.items() if isinstance(each, Competitor)}
        timings = measure(
            Benchmark(case, "row", OURS, here),
            rounds=effort.rounds,
            sample_seconds=effort.sample_seconds,
            clock=clock_of(device),
        )
        for name, each in competitors.items():
            if isinstance(each, Absent):
                self.absent[f"{case}: {name}"] = each.reason
                self.table.add_row(case, name, "absent", "", "")
                continue
            minimum, median = (getattr(timings[name], which) * each.items for which in ("minimum", "median"))
            ratio = timings[name].minimum / timings[OURS].minimum
            self.table.add_row(case, name, format_seconds(minimum), format_seconds(median), f"{ratio:.3g}")
        self.table.add_section()
        return timings

    def put_ratio(self, key: str, timings: Mapping[str, Timing], *rivals: str) -> None:
        """How many times as long the fastest of the rivals takes as isogon, by minima."""
        times = [timings[name].minimum for name in rivals if name in timings]
        self.put(key, min(times) / timings[OURS].minimum if times else Absent(f"no {' or '.join(rivals)} here"))


def clock_of(device: torch.device) -> Callable[[], float]:
    """Seconds; on a GPU after all that was asked of it is done."""
    if device.type != "cuda":
        return time.perf_counter

    def clock() -> float:
        torch.cuda.synchronize(device)
        return time.perf_counter()

    return clock


def _empty_table() -> Table:
    table = Table(
        caption="A call is forward and backward. The last column is by minima: above 1 is slower than isogon."
    )
    for heading in ("case", "competitor", "minimum a call", "median a call", "times isogon's"):
        table.add_column(heading, justify="left" if heading in ("case", "competitor") else "right")
    return table
