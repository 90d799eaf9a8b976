"""The `isogon` command: its subcommands, and how the process ends."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from ... import __version__
from .compare import compare
from .configs import config_app
from .doctor import doctor
from .endings import end_on_sigterm, report
from .evaluate import evaluate
from .federate import federate_app
from .play import play_app
from .report import report as report_runs
from .train import train

app = typer.Typer(
    name="isogon",
    no_args_is_help=True,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(train)
app.command()(evaluate)
app.command("report")(report_runs)
app.command()(compare)
app.command()(doctor)
app.add_typer(federate_app, name="federate")
app.add_typer(play_app, name="play")
app.add_typer(config_app, name="config")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"isogon {__version__}")
        raise typer.Exit


@app.callback()
def isogon(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and stop.")
    ] = False,
) -> None:
    """Distributed reinforcement learning and federated training on Ray, with value functions learnt by classification.

    [bold]Examples[/bold]

      isogon train wordle
      isogon evaluate runs/wordle-1 runs/wordle-2
      isogon report runs/wordle-1
      isogon play wordle runs/wordle-1 --word crane
      isogon compare --quick
      isogon federate simulate --preset digits
      isogon federate run --preset wordle-silos
      isogon config show wordle --explain
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The console's entry: run a command, print one line for whatever goes wrong, exit with its code.

    Args:
        arguments: without the program's name; None takes the process's.
    """
    end_on_sigterm()
    # Environments of one's own are named by module, and are looked for beside oneself, as `python -m` does.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        command = typer.main.get_command(app)
        given = sys.argv[1:] if arguments is None else list(arguments)
        code = command.main(args=given, prog_name="isogon", standalone_mode=False) or 0
        # A full disk or a closed pipe shows itself only when what was printed is written.
        sys.stdout.flush()
    except BaseException as error:
        code = report(error)
    sys.exit(code)
