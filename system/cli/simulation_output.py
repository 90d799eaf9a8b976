"""What ``isogon federate simulate`` prints while it works and when it is done."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from .endings import end_on_sigterm

if TYPE_CHECKING:
    from types import TracebackType

    from ..federation.simulate import SimulationOutcome
    from ..federation.simulation import SimulatedRun


def choose_simulation_output(as_json: bool) -> SimulationOutput:
    """The output that suits where stdout goes."""
    if as_json:
        return JsonSimulationOutput()
    if sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
        return TerminalSimulationOutput()
    return SimulationOutput()


class SimulationOutput:
    """Lines, one for each run that is done. For pipes and simple terminals."""

    def __init__(self) -> None:
        self._console = Console(force_terminal=False, color_system=None, highlight=False, width=120)
        self._done = 0
        self._runs = 0

    def __enter__(self) -> Self:
        end_on_sigterm()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""

    def on_begin(self, runs: int, directory: Path) -> None:
        """Say how much there is to do."""
        self._runs = runs
        self._print(f"simulation {directory}: {runs} runs")

    def on_run(self, run: SimulatedRun) -> None:
        """Say what came of a run."""
        self._done += 1
        self._print(f"{self._done:4d}/{self._runs}  {_told(run)}")

    def conclude(self, outcome: SimulationOutcome) -> None:
        """Print the tables, and where everything is."""
        from .federation_tables import simulation_tables

        for table in simulation_tables(outcome):
            self._console.print(table)
        for line in _where(outcome):
            self._print(line)

    def _print(self, text: str) -> None:
        print(text, flush=True)


class TerminalSimulationOutput(SimulationOutput):
    """A bar, with the newest run beside it."""

    def __init__(self) -> None:
        super().__init__()
        self._console = Console(highlight=False)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            expand=True,
        )
        self._task = self._bar.add_task("starting")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._bar.stop()

    def on_begin(self, runs: int, directory: Path) -> None:
        """Begin to draw."""
        self._bar.update(self._task, total=runs, description="simulating")
        self._bar.start()

    def on_run(self, run: SimulatedRun) -> None:
        """Redraw."""
        self._bar.update(self._task, advance=1, description=f"{run.key.strategy}, {run.key.speeds}")

    def conclude(self, outcome: SimulationOutcome) -> None:
        """Print the tables."""
        self._bar.stop()
        super().conclude(outcome)

    def _print(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)


class JsonSimulationOutput(SimulationOutput):
    """One JSON object a line: ``start``, ``run`` for each run, ``summary``."""

    def on_begin(self, runs: int, directory: Path) -> None:
        """Event ``start``."""
        self._send("start", runs=runs, directory=str(directory))

    def on_run(self, run: SimulatedRun) -> None:
        """Event ``run``."""
        self._send("run", **vars(run.key), target_seconds=run.target_seconds, score=run.score, versions=run.versions)

    def conclude(self, outcome: SimulationOutcome) -> None:
        """Event ``summary``, the last line: the comparison, and where everything is."""
        content = json.loads((outcome.directory / "simulation.json").read_bytes())
        self._send(
            "summary",
            comparison=content["comparison"],
            directory=str(outcome.directory),
            report_file=str(outcome.report),
            seconds=content["seconds"],
        )

    def _send(self, event: str, **content: Any) -> None:
        print(json.dumps({"event": event, **content}, allow_nan=False), flush=True)


def _told(run: SimulatedRun) -> str:
    reached = "target not reached" if run.target_seconds is None else f"target at {run.target_seconds:,.0f} s"
    return f"{run.key.speeds}, seed {run.key.seed}, {run.key.strategy}: {reached}, score {run.score:.3f}"


def _where(outcome: SimulationOutcome) -> list[str]:
    return [
        f"{len(outcome.runs)} runs in {outcome.seconds:.1f} s; all times are virtual seconds",
        f"figures in {outcome.directory / 'simulation.json'}",
        f"report in {outcome.report}",
    ]
