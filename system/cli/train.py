"""``isogon train``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .endings import Stopped

if TYPE_CHECKING:
    from ..config.run import RunConfig

Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace one value of the config; the value is YAML. Repeatable."),
]
WhichCheckpoint = Annotated[
    str,
    typer.Option(
        metavar="last|best|NAME", help="Which checkpoint: the newest, the one with the best validation return, or one."
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print one JSON object a line, the summary last, and nothing else, on stdout.")
]


def train(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="PRESET|FILE",
            help="A preset ([bold]isogon config list[/bold]) or a YAML file. With --resume the run's own config, "
            "if left out.",
        ),
    ] = None,
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set seed=N.")] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A new directory for the run.  [dim]default: runs/<name>-<k>; in a Ray job "
            "~/isogon-runs/<name>-<k>[/dim]",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --run-dir.")] = False,
    as_json: AsJson = False,
) -> None:
    """Train an agent, evaluate it, and print a summary.

    The run directory holds config, metrics, checkpoints, summary.json and report.html. Ctrl-C stops a run; it can be
    resumed.

    [bold]Examples[/bold]

      isogon train wordle
      isogon train wordle --set budget.seconds=30 --seed 1
      isogon train my.yaml --run-dir runs/first --json
      isogon train --resume --run-dir runs/first
    """
    changes = [*(overrides or []), *([f"seed={seed}"] if seed is not None else [])]
    config = _resumed_config(source, changes, run_dir) if resume else _new_config(source, changes)

    # Whatever needs torch is loaded once the config is known to be good.
    from .outputs import choose_output

    with choose_output(as_json) as output:
        try:
            from ..api import train as train_run

            result = train_run(config, run_dir=run_dir, resume=resume, callbacks=[output])
        except BaseException as error:
            raise Stopped(error, output.run_dir) from error
        output.conclude(result.summary, result.run_dir / "summary.json", result.report)


def _new_config(source: str | None, changes: list[str]) -> RunConfig:
    from ..config.files import ConfigError, load_config, preset_names

    if source is None:
        raise ConfigError(f"name a preset ({', '.join(preset_names())}) or a config file, as in: isogon train wordle")
    return load_config(source, changes)


def _resumed_config(source: str | None, changes: list[str], run_dir: Path | None) -> RunConfig:
    from ..config.files import ConfigError, check_resume, load_config

    if run_dir is None:
        raise ConfigError("--resume needs --run-dir DIR, the run to go on with")
    from ..runs.directory import RunDirectory
    from ..runs.places import check_outlasts_job

    check_outlasts_job(run_dir)
    directory = RunDirectory.open(run_dir)
    directory.check_trained()
    saved = str(directory.path / "config.yaml")
    config = load_config(source or saved, changes)
    check_resume(load_config(saved), config)
    return config
