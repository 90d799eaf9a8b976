"""What a command prints while it works and when it is done: for a terminal, for a pipe, or for a machine."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from io import UnsupportedOperation
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, TaskProgressColumn, TextColumn
from rich.progress import Progress as Bars
from rich.text import Text

from ..callbacks import Callback, Progress
from ..config.run import RunConfig
from .endings import end_on_sigterm, program
from .figures import FederationFigures, Figures
from .summary import summary_table

if TYPE_CHECKING:
    from ..federation.config import FederationConfig

_LINE_SECONDS = 5.0
_EVENT_SECONDS = 1.0


def choose_output(as_json: bool) -> Output:
    """The output that suits where stdout goes."""
    if as_json:
        return JsonOutput()
    if sys.stdout.isatty() and os.environ.get("TERM") not in ("dumb", "unknown"):
        return TerminalOutput(Console(highlight=False))
    return PlainOutput()


class Output(Callback):
    """A callback that prints, for the length of a ``with``.

    Attributes:
        run_dir: of the run that has begun and not ended, so of one that can be resumed.
    """

    required = True
    run_dir: Path | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave the terminal and stdout as they were."""

    def on_start(self, config: RunConfig | FederationConfig, run_dir: Path, resumed_from: str | None) -> None:
        """Know the run."""
        end_on_sigterm()
        self.run_dir = run_dir

    def on_progress(self, progress: Progress) -> None:
        """Ray may have started since."""
        end_on_sigterm()

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """Nothing is left to resume."""
        self.run_dir = None

    def conclude(self, summary: Mapping[str, Any], file: Path | None = None, report: Path | None = None) -> None:
        """Print the summary, and where it and the report are on disk."""
        raise NotImplementedError


class PlainOutput(Output):
    """Lines, without control characters: every few seconds, and at each event. For pipes and simple terminals."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._figures: Figures | FederationFigures = Figures()
        self._progress: Progress | None = None
        self._printed_at = -math.inf

    def on_start(self, config: RunConfig | FederationConfig, run_dir: Path, resumed_from: str | None) -> None:
        """Name the run."""
        super().on_start(config, run_dir, resumed_from)
        self._figures = figures_of(config, self._clock)
        _print_line(f"run {run_dir}{f', resumed from checkpoint {resumed_from}' if resumed_from else ''}")

    def on_message(self, text: str) -> None:
        """Print it."""
        _print_line(text)

    def on_progress(self, progress: Progress) -> None:
        """Print a line where the last one is old, or the phase is new."""
        super().on_progress(progress)
        new_phase = self._progress is None or self._progress.phase != progress.phase
        self._progress = progress
        self._figures.take(progress)
        if new_phase or self._clock() - self._printed_at >= _LINE_SECONDS:
            self._printed_at = self._clock()
            where = f"{progress.seconds:6.1f} s  {progress.phase} {progress.share:.0%}"
            _print_line("  ".join([where, *self._figures.phrases()]))

    def on_evaluation(self, progress: Progress, scores: Mapping[str, float]) -> None:
        """Print a line."""
        self._figures.take_evaluation(scores)
        _print_line(f"{progress.seconds:6.1f} s  {self._figures.evaluates_on}: {_listed(scores)}")

    def on_checkpoint(self, path: Path) -> None:
        """Print a line; not for a federation's, which come with each commit."""
        if not isinstance(self._figures, FederationFigures):
            _print_line(f"checkpoint {path.name}")

    def conclude(self, summary: Mapping[str, Any], file: Path | None = None, report: Path | None = None) -> None:
        """Print the table."""
        console = Console(force_terminal=False, color_system=None, highlight=False)
        with console.capture() as table:
            console.print(summary_table(summary))
        for line in table.get().splitlines():
            _print_line(line.rstrip())
        for line in _what_next(summary, file, report):
            _print_line(line)


class TerminalOutput(Output):
    """A bar with the newest figures under it, redrawn in place; messages scroll away above."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            console=console,
            expand=True,
        )
        self._task = self._bars.add_task("starting", total=1.0)
        self._live = Live(Group(self._bars, Text()), console=console, refresh_per_second=4)
        self._figures: Figures | FederationFigures = Figures()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop drawing."""
        self._live.stop()

    def on_start(self, config: RunConfig | FederationConfig, run_dir: Path, resumed_from: str | None) -> None:
        """Begin to draw."""
        super().on_start(config, run_dir, resumed_from)
        self._figures = figures_of(config)
        self._say(f"run {run_dir}{f', resumed from checkpoint {resumed_from}' if resumed_from else ''}")
        self._live.start()

    def on_message(self, text: str) -> None:
        """Print it above the bar."""
        self._say(text)

    def on_progress(self, progress: Progress) -> None:
        """Redraw."""
        super().on_progress(progress)
        self._figures.take(progress)
        phase = progress.phase if progress.share < 1 else "evaluating"
        self._bars.update(self._task, description=phase, completed=progress.share)
        lines = fold_phrases(self._figures.phrases(), self._console.width)
        self._live.update(Group(self._bars, Text("\n".join(lines), style="dim")))

    def on_evaluation(self, progress: Progress, scores: Mapping[str, float]) -> None:
        """The next redraw shows it."""
        self._figures.take_evaluation(scores)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """Stop drawing."""
        super().on_end(summary)
        self._live.stop()

    def conclude(self, summary: Mapping[str, Any], file: Path | None = None, report: Path | None = None) -> None:
        """Print the table."""
        self._console.print(summary_table(summary))
        for line in _what_next(summary, file, report):
            self._say(line)

    def _say(self, text: str) -> None:
        # Paths are to be copied: they are neither wrapped nor read as markup.
        self._console.print(_printable(text), markup=False, soft_wrap=True)


class JsonOutput(Output):
    """One JSON object a line. While it lasts, whatever else writes to stdout writes to stderr, children included.

    Args:
        clock: seconds, only ever rising.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._out: TextIO = sys.stdout
        self._sent_at = -math.inf

    def __enter__(self) -> Self:
        with suppress(UnsupportedOperation):
            sys.stdout.flush()
            self._out = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
            os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give stdout back."""
        if self._out is not sys.stdout:
            sys.stdout.flush()
            os.dup2(self._out.fileno(), sys.stdout.fileno())
            self._out.close()

    def on_start(self, config: RunConfig | FederationConfig, run_dir: Path, resumed_from: str | None) -> None:
        """Event ``start``."""
        super().on_start(config, run_dir, resumed_from)
        self._send("start", name=config.name, seed=config.seed, run_dir=run_dir, resumed_from=resumed_from)

    def on_message(self, text: str) -> None:
        """Event ``message``."""
        self._send("message", text=text)

    def on_progress(self, progress: Progress) -> None:
        """Event ``progress``, once a second."""
        super().on_progress(progress)
        if self._clock() - self._sent_at >= _EVENT_SECONDS:
            self._sent_at = self._clock()
            self._send("progress", **vars(progress))

    def on_evaluation(self, progress: Progress, scores: Mapping[str, float]) -> None:
        """Event ``evaluation``."""
        self._send("evaluation", seconds=progress.seconds, updates=progress.updates, scores=scores)

    def on_checkpoint(self, path: Path) -> None:
        """Event ``checkpoint``."""
        self._send("checkpoint", path=path)

    def conclude(self, summary: Mapping[str, Any], file: Path | None = None, report: Path | None = None) -> None:
        """Event ``summary``, the last line: the content of summary.json, and where that and the report are."""
        files = {"summary_file": file, "report_file": report}
        self._send("summary", **summary, **{name: path for name, path in files.items() if path})

    def _send(self, event: str, **content: Any) -> None:
        print(json.dumps(_plain({"event": event, **content}), allow_nan=False), file=self._out, flush=True)


def figures_of(
    config: RunConfig | FederationConfig, clock: Callable[[], float] = time.monotonic
) -> Figures | FederationFigures:
    """What tells of a run with this config, a training run's or a federation's."""
    if isinstance(config, RunConfig):
        return Figures(config.environment.kind == "wordle", clock)
    return FederationFigures(clock)


def fold_phrases(phrases: Sequence[str], width: int) -> list[str]:
    """Phrases two spaces apart, as many on a line as fit; none is broken.

    A line that is too wide would be cropped whenever a message, which is not wrapped, is printed above it.
    """
    lines: list[str] = []
    for phrase in phrases:
        if lines and len(lines[-1]) + 2 + len(phrase) <= width:
            lines[-1] += f"  {phrase}"
        else:
            lines.append(phrase)
    return lines


def _what_next(summary: Mapping[str, Any], file: Path | None, report: Path | None) -> list[str]:
    """Where the run's files are, and the command that plays it where there is one: only Wordle has never-seen words."""
    lines = [f"{name} in {path}" for name, path in (("summary", file), ("report", report)) if path is not None]
    if file is not None and summary.get("never_seen_return") is not None:
        lines.append(f"play with it: {program()} play wordle {shlex.quote(str(file.parent))}")
    return lines


def _plain(value: Any) -> Any:
    """The value as JSON has it. A number that is not finite is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)


def _print_line(text: str) -> None:
    print(_printable(text), flush=True)


def _printable(text: str) -> str:
    """Messages may quote file names and foreign errors: nothing in them moves the cursor."""
    return "".join(character if character.isprintable() else " " for character in text)


def _listed(scores: Mapping[str, float]) -> str:
    return "  ".join(f"{name} {value:.3f}" for name, value in scores.items())
