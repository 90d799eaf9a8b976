"""``isogon report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .endings import Stopped


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="RUN...", help="Run directories: of training runs, of any presets, or of federations."),
    ],
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="The file to write; one that ends in .svg gets the curves alone.  "
            "[dim]default: report.html in the run's directory; of several runs, here[/dim]",
        ),
    ] = None,
) -> None:
    """Show runs, finished or not, and compare them, in one HTML file that needs nothing else.

    Runs that differ in their seeds alone are shown together, with their spread.

    [bold]Examples[/bold]

      isogon report runs/wordle-1
      isogon report runs/wordle-1 runs/wordle-2 runs/wordle-3 --output wordle.html
      isogon report runs/wordle-1 runs/wordle-2 runs/wordle-3 --output curves.svg
      isogon report runs/wordle-silos-1 runs/wordle-silos-2 --output strategies.html
    """
    from .outputs import choose_output

    with choose_output(as_json=False) as out:
        try:
            from ..api import report as report_runs

            written = report_runs(runs, output, callbacks=[out])
        except BaseException as error:
            raise Stopped(error) from error
        out.on_message(f"report in {written}")
