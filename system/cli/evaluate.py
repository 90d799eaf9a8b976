"""``isogon evaluate``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .endings import Stopped
from .train import AsJson, WhichCheckpoint


def evaluate(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run directories of one preset, over seeds.")],
    checkpoint: WhichCheckpoint = "last",
    video: Annotated[
        bool, typer.Option("--video", help="Write an episode as video.webp into each run; the report shows it.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Play a checkpoint of each run and pool the results over their seeds.

    [bold]Examples[/bold]

      isogon evaluate runs/wordle-1
      isogon evaluate runs/wordle-1 --checkpoint best
      isogon evaluate runs/minatar-1 --video
      isogon evaluate runs/wordle-1 runs/wordle-2 runs/wordle-3 --json
    """
    from .outputs import choose_output

    with choose_output(as_json) as output:
        try:
            from ..api import evaluate as evaluate_runs

            summary = evaluate_runs(runs, checkpoint=checkpoint, video=video, callbacks=[output])
        except BaseException as error:
            raise Stopped(error) from error
        output.conclude(summary)
