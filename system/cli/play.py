"""``isogon play``: against a trained policy, or with its advice."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .endings import Stopped
from .train import WhichCheckpoint

if TYPE_CHECKING:
    from ..play import WordleAdviser
    from .play_screen import Screen

play_app = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Play with a trained policy.")


@play_app.callback()
def play() -> None:
    """Play with a trained policy: it plays your word, or advises you in a game of your own."""


@play_app.command("wordle")
def wordle(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Directory of a Wordle run.")],
    word: Annotated[str | None, typer.Option(metavar="WORD", help="Let it guess this word.")] = None,
    advise: Annotated[
        bool,
        typer.Option(
            "--advise",
            help="Let it advise you in a Wordle elsewhere.  [dim]default on a terminal without --word[/dim]",
        ),
    ] = False,
    checkpoint: WhichCheckpoint = "last",
) -> None:
    """Watch the policy guess a word of yours, or take its advice in a Wordle that you play elsewhere.

    For each of its five best guesses it shows how many more guesses it expects to need after it, and how likely it
    thinks each number is. Without --word, and where stdin is no terminal, the words to guess are read from stdin.

    [bold]Examples[/bold]

      isogon play wordle runs/wordle-1
      isogon play wordle runs/wordle-1 --word crane
      echo crane | isogon play wordle runs/wordle-1
    """
    if word is not None and advise:
        raise typer.BadParameter(
            "it cannot be given together with --word: leave one of them out", param_hint="--advise"
        )
    try:
        _play_wordle(run, checkpoint, word, advise or (word is None and sys.stdin.isatty()))
    except BaseException as error:
        raise Stopped(error) from error


def _play_wordle(run: Path, checkpoint: str, word: str | None, advise: bool) -> None:
    # Whatever needs torch is loaded once the arguments are known to be good.
    from .play_dialogue import advise_on_game, guess_word, guess_words
    from .play_screen import Screen
    from .reading import LineReader

    screen = Screen.of_stdout()
    adviser, seen = _open(run, checkpoint, screen)
    if word is not None:
        guess_word(adviser, word, seen, screen)
    elif advise:
        advise_on_game(adviser, LineReader(), screen)
    else:
        guess_words(adviser, LineReader(), seen, screen)


def _open(path: Path, checkpoint: str, screen: Screen) -> tuple[WordleAdviser, frozenset[str]]:
    """The run's policy, and the words that its training saw."""
    import torch

    from ..builder import build_spec, word_split
    from ..play import WordleAdviser
    from ..runs.errors import RunDirectoryUnsuited
    from ..saved_run import SavedRun

    run = SavedRun.open(path)
    split, words = word_split(run.config), build_spec(run.config).action_words
    if split is None or words is None:
        raise RunDirectoryUnsuited(
            f"run directory {path} is of a run on {run.config.environment.kind}, which is not Wordle: "
            "name one of isogon train wordle"
        )
    torch.set_num_threads(run.config.torch_threads)
    saved = run.load_policy(screen.name, checkpoint)
    screen.name(f"{path}, checkpoint {saved.checkpoint.name}, {len(words):,} words")
    return WordleAdviser(saved.policy, words, run.config.replay.discount), frozenset(
        words[index] for index in split.train
    )
