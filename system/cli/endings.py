"""How a command ends that does not reach its end: one line on stderr, details in a file, an exit code."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

from ..errors import ExitCode, UserError, explain, log_details
from ..program import program

__all__ = ["Stopped", "end_on_sigterm", "program", "report"]

_WITH_DETAILS = frozenset(
    {ExitCode.BUG, ExitCode.RAY_START, ExitCode.WORKERS_LOST, ExitCode.WORKER_FAILED, ExitCode.OUT_OF_MEMORY}
)

_NOT_WORTH_RESUMING = frozenset({ExitCode.CONFIG, ExitCode.WORD_LIST, ExitCode.ENVIRONMENT})
"""What the config itself makes impossible."""


class Stopped(Exception):
    """A command's work ended before its end.

    Attributes:
        cause: what ended it.
        run_dir: of the run that can be resumed, if there is one.
        again: the command that goes on with it; None: ``train --resume``.
    """

    def __init__(self, cause: BaseException, run_dir: Path | None = None, again: str | None = None) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.run_dir = run_dir
        self.again = again


def end_on_sigterm() -> None:
    """Make SIGTERM end the main thread as Ctrl-C does, by an exception, so that everything is closed on the way out.

    Called again after Ray has started, which puts a handler of its own there that does not let us close anything.
    """
    if threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGTERM) is not _terminate:
        signal.signal(signal.SIGTERM, _terminate)


class Terminated(SystemExit):
    """By SIGTERM; own code that calls `sys.exit` raises a plain SystemExit, and is told of as its own failure."""


def report(error: BaseException) -> int:
    """Tell the user on stderr why a command ended, write the details down, and give the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":
        # Typer has printed the help.
        return 0
    format_usage_error = getattr(error, "format_message", None)
    if format_usage_error is not None:
        return _say(UserError(ExitCode.CONFIG, " ".join(format_usage_error().split()) + _see_help(error)))
    cause, run_dir = (error.cause, error.run_dir) if isinstance(error, Stopped) else (error, None)
    if isinstance(cause, SystemExit):
        if isinstance(cause.__context__, BrokenPipeError):
            return _say(UserError(ExitCode.OUTPUT_CLOSED, ""))
        # Ray's own handlers of SIGTERM, which stand while it starts, end with other codes.
        told = UserError(ExitCode.TERMINATED, "terminated")
    else:
        told = explain(cause)
    detailed = told.code in _WITH_DETAILS or told.has_details
    log = _write_details(cause, detailed, run_dir)
    line = told.line
    if told.code == ExitCode.BUG:
        line += f": this is a bug of Isogon, please report it with {log}"
    elif log and detailed and told is not cause:
        line += f" (details: {log})"
    if run_dir is not None and told.code not in _NOT_WORTH_RESUMING:
        resume = f"{program()} train --resume --run-dir {shlex.quote(str(run_dir))}"
        line += f"; go on with: {(isinstance(error, Stopped) and error.again) or resume}"
    return _say(UserError(told.code, line))


def _terminate(signum: int, frame: FrameType | None) -> None:
    # A second one would interrupt the closing.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated(ExitCode.TERMINATED)


def _see_help(error: BaseException) -> str:
    context = getattr(error, "ctx", None)
    return f" (see {context.command_path} --help)" if context is not None else ""


def _say(told: UserError) -> int:
    if told.code == ExitCode.OUTPUT_CLOSED:
        # Whoever read the output is gone; Python would complain of it once more when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return int(told.code)
    for line in told.line.splitlines():
        print(f"isogon: {line}", file=sys.stderr, flush=True)
    return int(told.code)


def _write_details(error: BaseException, detailed: bool, run_dir: Path | None) -> str:
    """Where the traceback is now. A user's mistake before there is a run leaves no file."""
    if run_dir is None and not detailed:
        return ""
    try:
        path = _log_of(run_dir) if run_dir else _new_log()
        log_details(error, path)
    except OSError as failure:
        return f"no log, for it could not be written: {failure.strerror}"
    return str(path)


def _log_of(run_dir: Path) -> Path:
    attempts = [int(folder.name) for folder in (run_dir / "attempts").glob("*") if folder.name.isdecimal()]
    return run_dir / "attempts" / str(max(attempts)) / "log.txt" if attempts else run_dir / "log.txt"


def _new_log() -> Path:
    handle, name = tempfile.mkstemp(prefix="isogon-", suffix=".log")
    os.close(handle)
    return Path(name)
