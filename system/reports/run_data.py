"""What a report knows of a run: its directory, read once."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import ValidationError

from ...actors.environments.wordle import build_vocabulary, load_words, split_words
from ..config.keys import locate
from ..config.problems import Origin, one_line
from ..config.run import RunConfig
from ..metrics.recorder import METRICS
from ..program import program
from ..runs.attempts import Attempt
from ..runs.directory import RunDirectory, RunDirectoryDamaged, RunDirectoryMissing
from ..saved_run import SavedRun
from .games import Game, choose_answers, play_games

State = Literal["done", "going", "stopped"]

_ROW_KEYS = frozenset({"step", "seconds", "share"})
_GAMES = 5
_TELLING = frozenset({"budget", "environment", "learner"})
"""Keys of which every version of Isogon has written some."""


@dataclass(frozen=True, eq=False)
class RunData:
    """One run.

    Attributes:
        path: of its directory.
        settings: the content of config.yaml.
        config: the same as this version understands it; None where it does not.
        rows: of metrics, oldest first.
        summary: the content of summary.json; None while the run is not done.
        state: whether the run is done, still going, or ended before its end.
        attempts: whose work counts, oldest first.
        notes: what a reader must know of it, as sentences.
    """

    path: Path
    settings: Mapping[str, Any]
    config: RunConfig | None
    rows: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any] | None
    state: State
    attempts: Sequence[Attempt]
    notes: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of the directory."""
        return self.path.resolve().name


def read_run(path: Path) -> RunData:
    """Read a run directory, whatever state the run is in and whichever version wrote it.

    Raises:
        RunDirectoryMissing: it is none, or another program's.
        RunDirectoryDamaged: a file in it is not as it was written.
    """
    directory = RunDirectory.open(path)
    settings = directory.read_config()
    if not settings.keys() & _TELLING:
        raise RunDirectoryMissing(
            f"run directory {path} is of another program: its config.yaml has none of the keys "
            f"{', '.join(sorted(_TELLING))}; name the directory of a run that was started"
        )
    config, problem = _understood(settings)
    rows, attempts = directory.read_metrics(), directory.read_attempts()
    summary = directory.read_summary()
    if summary is not None and not isinstance(summary, Mapping):
        raise RunDirectoryDamaged(f"{path / 'summary.json'} holds no mapping: resume the run, which writes it again")
    state, note = state_of(directory, summary, attempts, "train")
    notes = [note, problem, _unknown_figures(rows)]
    if not rows:
        notes.append("There are no metrics yet, so there are no curves.")
    return RunData(
        path=path,
        settings=settings,
        config=config,
        rows=rows,
        summary=summary if state == "done" else None,
        state=state,
        attempts=attempts,
        notes=tuple(filter(None, notes)),
    )


def are_federations(runs: Sequence[Path]) -> bool:
    """Whether these run directories are federations'.

    Raises:
        ValueError: some are and some are not.
        RunDirectoryMissing: one is no run directory.
        RunDirectoryDamaged: a config cannot be read.
    """
    are = {path: RunDirectory.open(path).is_federation for path in runs}
    if len(set(are.values())) > 1:
        one, other = (next(path for path, it_is in are.items() if it_is is wanted) for wanted in (True, False))
        raise ValueError(f"{one} is a federation and {other} is none: report on each kind apart")
    return any(are.values())


def check_each_once(runs: Sequence[Path]) -> None:
    """Raises ValueError where there are no runs, or one is named twice."""
    if not runs:
        raise ValueError("there are no runs to report on: name at least one run directory")
    places = [path.resolve() for path in runs]
    if twice := [path for path, place in zip(runs, places, strict=True) if places.count(place) > 1]:
        raise ValueError(f"run directory {twice[-1]} is named twice: name each run once")


def play(run: RunData, say: Callable[[str], None]) -> list[Game]:
    """Games of the run's newest policy; none where the run does not play Wordle.

    Raises:
        ValueError: there is no whole checkpoint that this version can play, or no word list.
    """
    if run.config is None or run.config.environment.kind != "wordle":
        return []
    environment = run.config.environment
    vocabulary = build_vocabulary(load_words(environment.word_list))
    answers = choose_answers(split_words(vocabulary.words, environment), environment, _GAMES)
    saved = SavedRun.open(run.path).load_policy(say)
    say(f"{run.path}: playing checkpoint {saved.checkpoint.name}")
    return play_games(saved.policy, vocabulary, answers)


def _understood(settings: Mapping[str, Any]) -> tuple[RunConfig | None, str | None]:
    try:
        return RunConfig.model_validate_json(json.dumps(settings), strict=True), None
    except ValidationError as error:
        problems = [
            # What keys there are today is no help to a run that is over.
            f"unknown key {locate(RunConfig, problem['loc']).key}"
            if problem["type"] == "extra_forbidden"
            else one_line(RunConfig, problem, Origin("config.yaml", {}))
            for problem in error.errors()
        ]
        reason = "; ".join(problems[:3])
    except (TypeError, ValueError, RecursionError) as error:
        reason = str(error)
    return None, (
        f"Its config is of another version of Isogon ({reason}): what needs it is left out. "
        "The version that wrote it can show all."
    )


def state_of(
    directory: RunDirectory, summary: Mapping[str, Any] | None, attempts: Sequence[Attempt], command: str
) -> tuple[State, str | None]:
    """Whether a run is done, and what there is to say where it is not.

    Args:
        directory: its.
        summary: the content of summary.json, which may be an earlier attempt's; None where there is none.
        attempts: whose work counts, oldest first.
        command: what goes on with it, without the program's name, as in ``train``.
    """
    if (holder := directory.holder()) is not None:
        return "going", f"It is still going ({holder}): this is how far it had come when the report was made."
    newest = attempts[-1] if attempts else None
    if summary is not None and (newest is None or summary.get("attempts", newest.number) == newest.number):
        return "done", None
    if newest is None:
        return "stopped", "It was never begun."
    reason = _last_line(directory.log_path(newest))
    return "stopped", (
        f"It ended before its end{f' ({reason})' if reason else ''}: go on with "
        f"{program()} {command} --resume --run-dir {shlex.quote(str(directory.path))}"
    )


def _last_line(log: Path) -> str:
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return ""
    return next((line.strip()[:300] for line in reversed(lines) if line.strip()), "")


def _unknown_figures(rows: Sequence[Mapping[str, Any]]) -> str | None:
    if not rows:
        return None
    names = {name.partition("{")[0] for name in rows[-1]} - _ROW_KEYS
    histograms = {f"{name}{end}" for name, metric in METRICS.items() if metric.kind == "histogram" for end in _ENDS}
    if unknown := sorted(names - set(METRICS) - histograms):
        more = f" and {len(unknown) - 3} more" if len(unknown) > 3 else ""
        return f"Its metrics have figures that this version does not know: {', '.join(unknown[:3])}{more}."
    return None


_ENDS = ("_sum", "_count")
