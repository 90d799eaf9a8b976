"""``isogon federate``: run a federation, or simulate many."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .endings import Stopped, program
from .train import AsJson, Overrides

if TYPE_CHECKING:
    from ..federation.config import FederationConfig

federate_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="rich",
    help="Clients with data of their own learn one model: on Ray, or in virtual time.",
)

Preset = Annotated[
    str | None,
    typer.Option(
        "--preset",
        metavar="PRESET|FILE",
        help="A federation's preset ([bold]isogon config list[/bold]) or a YAML file. With --resume its own config, "
        "if left out.",
    ),
]


@federate_app.command()
def run(
    preset: Preset = None,
    overrides: Overrides = None,
    seed: Annotated[int | None, typer.Option(help="Short for --set seed=N.")] = None,
    run_dir: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A new directory.  [dim]default: runs/<name>-<k>; in a Ray job ~/isogon-runs/<name>-<k>[/dim]",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the federation in --run-dir.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run a federation, evaluate its model, and print a summary.

    Killed at any moment it goes on with --resume: with every update that was acknowledged, and none twice.

    [bold]Examples[/bold]

      isogon federate run --preset wordle-silos
      isogon federate run --preset wordle-silos --set strategy.kind=fedavg --seed 1
      isogon federate run --preset digits --set pool=in_process --set budget.versions=20
      isogon federate run --resume --run-dir runs/wordle-silos-1
    """
    changes = [*(overrides or []), *([f"seed={seed}"] if seed is not None else [])]
    config = _resumed_config(preset, changes, run_dir) if resume else _config(preset, changes)

    # Whatever needs torch is loaded once the config is known to be good.
    from .outputs import choose_output

    with choose_output(as_json) as output:
        try:
            from ..federation.run import federate

            result = federate(config, run_dir=run_dir, resume=resume, callbacks=[output])
        except BaseException as error:
            again = f"{program()} federate run --resume --run-dir {shlex.quote(str(output.run_dir))}"
            raise Stopped(error, output.run_dir, again) from error
        output.conclude(result.summary, result.run_dir / "summary.json", result.report)


@federate_app.command()
def simulate(
    preset: Preset = None,
    overrides: Overrides = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Short for --set simulation.seeds=N.")] = None,
    strategies: Annotated[
        list[str] | None,
        typer.Option(
            "--strategy", metavar="NAME", help="Only these of the preset's. Repeatable.  [dim]default: all[/dim]"
        ),
    ] = None,
    speeds: Annotated[
        list[str] | None,
        typer.Option(
            "--speeds", metavar="NAME", help="Only these of the preset's. Repeatable.  [dim]default: all[/dim]"
        ),
    ] = None,
    jobs: Annotated[
        int | None, typer.Option(min=1, help="Processes; results are the same.  [dim]default: one a core[/dim]")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="A new directory for results.  [dim]default: runs/<name>-simulation-<k>[/dim]"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compare strategies in virtual time: training is real, how long it takes is simulated.

    Ends with a table of the times to the target for each distribution of speeds, simulation.json and report.html.

    [bold]Examples[/bold]

      isogon federate simulate --preset digits
      isogon federate simulate --preset digits --speeds exponential --strategy fedcompass --strategy fedavg
      isogon federate simulate --preset digits --set 'clients=[{name: client, count: 1000}]' --seeds 1
    """
    config = _config(preset, [*(overrides or []), *([f"simulation.seeds={seeds}"] if seeds is not None else [])])

    from .simulation_output import choose_simulation_output

    with choose_simulation_output(as_json) as output:
        from ..federation.simulate import simulate as simulate_federations

        outcome = simulate_federations(
            config, strategies=strategies or [], speeds=speeds or [], jobs=jobs, out=out, watcher=output
        )
        output.conclude(outcome)


def _config(preset: str | None, changes: list[str]) -> FederationConfig:
    from ..config.files import FEDERATIONS, ConfigError, preset_names
    from ..federation.files import load_federation

    if preset is None:
        raise ConfigError(
            f"name a preset ({', '.join(preset_names(FEDERATIONS))}) or a config file, as in: "
            "isogon federate run --preset wordle-silos"
        )
    return load_federation(preset, changes)


def _resumed_config(preset: str | None, changes: list[str], run_dir: Path | None) -> FederationConfig:
    from ..config.files import ConfigError, check_resume
    from ..federation.files import load_federation, saved_federation
    from ..runs.directory import RunDirectory
    from ..runs.places import check_outlasts_job

    if run_dir is None:
        raise ConfigError("--resume needs --run-dir DIR, the federation to go on with")
    check_outlasts_job(run_dir)
    directory = RunDirectory.open(run_dir)
    saved = saved_federation(directory)
    config = load_federation(preset or str(directory.path / "config.yaml"), changes)
    check_resume(saved, config)
    return config
