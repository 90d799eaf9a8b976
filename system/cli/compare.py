"""``isogon compare``."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from .endings import Stopped, program
from .train import Overrides


def compare(
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Directory of the comparison; one that was stopped goes on.  [dim]default: runs/compare-<k>[/dim]",
        ),
    ] = None,
    losses: Annotated[
        list[str] | None,
        typer.Option(
            "--loss", metavar="LOSS", help="Compare only these with hl_gauss. Repeatable.  [dim]default: all[/dim]"
        ),
    ] = None,
    tables: Annotated[
        list[str] | None,
        typer.Option(
            "--table",
            metavar="TABLE",
            help="tied: weights shared by all letters; untied: not. Repeatable.  [dim]default: both[/dim]",
        ),
    ] = None,
    seeds: Annotated[int | None, typer.Option(min=2, help="Seeds of the final runs.  [dim]default: 5[/dim]")] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="A tenth of the updates, fewer tries, two seeds: to see it work. Its figures say nothing."
        ),
    ] = False,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Runs at a time, without a cluster.  [dim]default: one a core[/dim]")
    ] = None,
    overrides: Overrides = None,
) -> None:
    """Compare losses: each tuned alike on the validation words, then trained over several seeds.

    Takes about an hour on two cores. Ctrl-C stops it; the same command with --out goes on. Ends with tables, and with
    compare.json in the directory.

    [bold]Examples[/bold]

      isogon compare
      isogon compare --quick
      isogon compare --loss two_hot --table untied --out runs/two-hot
    """
    from ..compare.config import load_comparison

    config = load_comparison(overrides or [], losses=losses or [], tables=tables or [], seeds=seeds, quick=quick)

    # Whatever needs torch is loaded once the config is known to be good.
    from .compare_output import choose_compare_output
    from .compare_tables import print_outcome

    with choose_compare_output() as output:
        try:
            from ..compare.command import compare as compare_losses

            outcome = compare_losses(config, directory=out, jobs=jobs, watcher=output)
        except BaseException as error:
            again = _again(output.directory, overrides, losses, tables, seeds, quick, jobs)
            raise Stopped(error, output.directory, again) from error
    print_outcome(outcome)


def _again(
    directory: Path | None,
    overrides: list[str] | None,
    losses: list[str] | None,
    tables: list[str] | None,
    seeds: int | None,
    quick: bool,
    jobs: int | None,
) -> str:
    """The command that goes on with it."""
    words = [program(), "compare", "--out", shlex.quote(str(directory))]
    for option, values in (("--loss", losses), ("--table", tables), ("--set", overrides)):
        for value in values or []:
            words += [option, shlex.quote(value)]
    words += [f"--{name}={value}" for name, value in (("seeds", seeds), ("jobs", jobs)) if value is not None]
    return " ".join([*words, *(["--quick"] if quick else [])])
