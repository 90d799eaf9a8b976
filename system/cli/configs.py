"""``isogon config``: look at presets and at what ``--set`` makes of them."""

from __future__ import annotations

from typing import Annotated

import typer

from .train import Overrides

config_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Show presets and configs.")


@config_app.command("list")
def list_presets() -> None:
    """List the presets, of training runs and of federations."""
    from ..config.files import FEDERATIONS, PRESETS, preset_names, preset_title

    for heading, package in (("isogon train", PRESETS), ("isogon federate", FEDERATIONS)):
        names = preset_names(package)
        typer.echo(f"{heading}:")
        for name in names:
            typer.echo(f"  {name:<{max(map(len, names))}}  {preset_title(name, package)}".rstrip())


@config_app.command("show")
def show(
    source: Annotated[str, typer.Argument(metavar="PRESET|FILE", help="A preset or a YAML file.")],
    overrides: Overrides = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say what each key means.")] = False,
) -> None:
    """Print a whole config, defaults included, as YAML that [bold]train[/bold] or [bold]federate[/bold] takes.

    [bold]Examples[/bold]

      isogon config show wordle --explain
      isogon config show wordle --set network.hidden=512 > my.yaml
      isogon config show digits --explain
    """
    from ..config.files import FEDERATIONS, describe, load_config, preset_names

    if source in preset_names(FEDERATIONS):
        from ..federation.files import load_federation

        typer.echo(describe(load_federation(source, overrides or []), explain=explain), nl=False)
    else:
        typer.echo(describe(load_config(source, overrides or []), explain=explain), nl=False)
