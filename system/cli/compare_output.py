"""What `isogon compare` prints while it works: a bar in a terminal, lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from ..compare.plan import Failed, Result, Trial
from ..compare.session import Watcher
from .endings import end_on_sigterm

MODES = {"offline": "offline alone", "online": "offline, then online"}
_TABLES = {"tied": "", "untied": "untied, "}


def choose_compare_output() -> CompareOutput:
    """The output that suits where stdout goes."""
    if sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
        return TerminalCompareOutput(Console(highlight=False))
    return CompareOutput()


class CompareOutput(Watcher):
    """Prints a line for each run, for the length of a ``with``.

    Attributes:
        directory: of the comparison that has begun.
    """

    directory: Path | None = None

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began = 0.0
        self._done_before = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal as it was."""

    def on_directory(self, directory: Path) -> None:
        """Know what can be gone on with."""
        self.directory = directory
        self.say(f"comparison in {directory}")

    def on_message(self, text: str) -> None:
        """Print it."""
        self.say(text)

    def on_begin(self, done: int, expected: int) -> None:
        """Say what is to be done. Ray has started."""
        end_on_sigterm()
        self._began, self._done_before = self._clock(), done
        self.say(f"{done} of {expected} runs are done; more follow where a loss needs another time than hl_gauss")

    def on_result(self, trial: Trial, result: Result, done: int, expected: int) -> None:
        """Print a line."""
        line = f"{describe_trial(trial)}: validation {result.validation_return:.3f}, {result.cpu_seconds:.1f} CPU s"
        self.say(f"[{done}/{expected}] {line}; {self._left(done, expected)}")

    def on_failure(self, trial: Trial, failed: Failed) -> None:
        """Print a line."""
        self.say(f"FAILED {describe_trial(trial)}: {failed.reason}")

    def on_wait(self, running: int) -> None:
        """Nothing to print."""
        end_on_sigterm()

    def say(self, text: str) -> None:
        """Print a line. Messages may quote file names and foreign errors: nothing in them moves the cursor."""
        print("".join(character if character.isprintable() else " " for character in text), flush=True)

    def _left(self, done: int, expected: int) -> str:
        made = done - self._done_before
        minutes = (self._clock() - self._began) / made * (expected - done) / 60
        return "less than a minute left" if minutes < 1 else f"about {minutes:.0f} min left"


class TerminalCompareOutput(CompareOutput):
    """A bar of runs, redrawn in place; the lines scroll away above."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            console=console,
            expand=True,
        )
        self._task = self._bar.add_task("starting", total=None)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._bar.stop()

    def on_begin(self, done: int, expected: int) -> None:
        """Begin to draw."""
        super().on_begin(done, expected)
        self._bar.update(self._task, completed=done, total=expected, description="running")
        self._bar.start()

    def on_result(self, trial: Trial, result: Result, done: int, expected: int) -> None:
        """Print a line and move the bar."""
        super().on_result(trial, result, done, expected)
        self._bar.update(self._task, completed=done, total=expected, description=self._left(done, expected))

    def say(self, text: str) -> None:
        """Print above the bar. Paths are to be copied: they are neither wrapped nor read as markup."""
        printable = "".join(character if character.isprintable() else " " for character in text)
        self._console.print(printable, markup=False, soft_wrap=True)


def describe_trial(trial: Trial) -> str:
    """A run in words."""
    arm = trial.arm
    return (
        f"{_TABLES[arm.table]}{MODES[arm.mode]}, {arm.loss}: CQL weight {trial.cql_weight:g}, learning rate "
        f"{trial.learning_rate:g}, {trial.updates:,} updates, seed {trial.seed}"
    )
