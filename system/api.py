"""Isogon from Python: what the command line does, as functions."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from ..actors.work import Scores
from .builder import check_parts
from .callbacks import Callback, GuardedCallbacks, build_callbacks
from .config.files import check_resume
from .config.run import RunConfig
from .episode import play_to_show
from .errors import check_device, check_port_free, explain
from .evaluation import check_poolable, play_evaluation, rival_returns, summarise
from .program import program
from .reports import RunData, build_page, check_each_once, draw_curves, read_run, render, write_report
from .reports.federation import report_federations
from .reports.files import check_output
from .reports.run_data import are_federations, play
from .reports.video import VIDEO, encode_video
from .runs.atomic_files import write_atomically
from .runs.checkpoints import Checkpoint, CheckpointInvalid, installed_versions
from .runs.directory import RunDirectory, RunDirectoryMissing
from .runs.places import about_place, check_outlasts_job, place_of_new_runs
from .saved_run import SavedRun
from .training.attempt import TrainingAttempt, range_of
from .training.ray_session import check_ray


@dataclass(frozen=True)
class RunResult:
    """What a run left.

    Attributes:
        run_dir: its directory.
        summary: the content of its summary.json.
        report: its report.html; None where that could not be made, which a callback was told of.
        played: the final evaluation's greedy episodes by purpose, in Wordle one for each word of a set.
    """

    run_dir: Path
    summary: dict[str, Any]
    report: Path | None = None
    played: Mapping[str, Scores] = field(default_factory=dict)


def train(
    config: RunConfig, *, run_dir: Path | None = None, resume: bool = False, callbacks: Sequence[Callback] = ()
) -> RunResult:
    """Train, evaluate, and write ``summary.json`` and ``report.html``.

    Args:
        config: see `system.config.load_config`, which reads presets and files.
        run_dir: a new directory; None takes the first free ``runs/<name>-<k>``, in a Ray job
            ``~/isogon-runs/<name>-<k>``.
        resume: go on with the run in ``run_dir`` from its newest whole checkpoint, or from its beginning where there
            is none. Fields of the config that may not change must be as they were.
        callbacks: told what happens, besides those that the config names. One that raises is left out from then on,
            and the summary says so; see `Callback.required`.

    Raises:
        ValueError: a run directory, checkpoint, config or own code that cannot serve (each a class of its own).
        RuntimeError: workers that failed or are lost for good, a Ray that does not start.
        OSError: the disk is full, ...; the checkpoints so far stay.
    """
    began = time.monotonic()
    _check_before_anything_is_made(config)
    watching = GuardedCallbacks([*callbacks, *build_callbacks(config.callbacks)])
    torch.set_num_threads(config.torch_threads)
    directory, config = _open_directory(config, run_dir, resume)
    with directory.hold():
        checkpoint = _checkpoint_to_resume(directory, [watching]) if resume else None
        directory.write_config(config.model_dump(mode="json"))
        attempt = directory.claim_attempt(checkpoint.ref if checkpoint else None)
        watching.log = directory.log_path(attempt).with_name("callbacks.txt")
        watching.on_start(config, directory.path, checkpoint.ref.name if checkpoint else None)
        if run_dir is None and (place := about_place(directory.path)):
            watching.on_message(place)
        # Of attempts that were killed only the training up to the checkpoint is known.
        earlier = checkpoint.parts["run"]["counters"]["seconds"] if checkpoint else 0.0
        work = TrainingAttempt(config, directory, attempt, [watching])
        outcome = work.run(checkpoint)
        if outcome.updates == 0:
            work.say(
                f"nothing was learnt: the budget ended before there were replay.min_size {config.replay.min_size} "
                "transitions; raise the budget or lower replay.min_size"
            )
        work.say("evaluating the final policy")
        played = play_evaluation(config, outcome.policy)
        summary = {
            "preset": config.name,
            "seeds": [config.seed],
            **summarise([config], [played]),
            **({"found_range": range_of(outcome.config.value)} if outcome.config.value.found_range else {}),
            "targets_clipped": outcome.targets_clipped,
            "train_seconds": round(outcome.seconds, 3),
            "total_seconds": round(earlier + time.monotonic() - began, 3),
            "updates": outcome.updates,
            "env_steps": outcome.env_steps,
            "attempts": attempt.number,
            "run_dir": str(directory.path),
            "versions": installed_versions(),
        }
        told = _with_left_out(summary, watching)
        directory.write_summary(told)
    written = _report_of(directory.path, [watching])
    watching.on_end(told)
    # The report and the end are told of too, and may be what a callback fails at.
    if (summary := _with_left_out(summary, watching)) != told:
        directory.write_summary(summary)
    return RunResult(directory.path, summary, written, played)


def evaluate(
    runs: Sequence[Path], *, checkpoint: str = "last", video: bool = False, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Play a checkpoint of each run greedily and pool the figures over the runs' seeds.

    Args:
        runs: run directories of one config but for the seed, and on Atari but for the game.
        checkpoint: ``last``, the newest whole one; ``best``, the one with the best validation return in its run; or a
            name, such as ``1-5000``.
        video: write ``video.webp`` into each run's directory besides: an episode, and what its actions were thought to
            be worth. `report` shows it.
        callbacks: told what is being done.

    Returns:
        What `evaluation.summarise` gives, with ``preset, seeds, runs, evaluate_seconds, versions``.

    Raises:
        ValueError: no runs, runs of different configs or of one seed twice, a directory that is none, or one without
            such a checkpoint; a video of an environment that has no screen, or without Pillow.
    """
    began = time.monotonic()
    say = _teller(callbacks)
    saved = [SavedRun.open(path) for path in runs]
    configs = [run.config for run in saved]
    check_poolable(configs)
    torch.set_num_threads(configs[0].torch_threads)
    played, updates = [], []
    for run in saved:
        loaded = run.load_policy(say, checkpoint)
        say(f"{run.directory.path}: playing checkpoint {loaded.checkpoint.name}")
        updates.append(loaded.checkpoint.step)
        played.append(play_evaluation(run.config, loaded.policy))
        if video:
            path = run.directory.path / VIDEO
            write_atomically(path, encode_video(play_to_show(run.config, loaded.policy)))
            say(f"video in {path}")
    return {
        "preset": configs[0].name,
        "seeds": [config.seed for config in configs],
        **summarise(configs, played),
        "checkpoint_updates": updates,
        "runs": [str(run.directory.path) for run in saved],
        "evaluate_seconds": round(time.monotonic() - began, 3),
        "versions": installed_versions(),
    }


def report(runs: Sequence[Path], output: Path | None = None, *, callbacks: Sequence[Callback] = ()) -> Path:
    """Write one HTML file that shows runs, finished or not, and compares them; it needs nothing else.

    Runs that differ in their seeds alone are shown as one, with their spread; figures over several are pooled as
    `evaluate` does. What a run lacks, or this version does not understand, is left out, and the page says so.

    Args:
        runs: run directories, of training runs or of federations.
        output: the file; None writes ``report.html`` into the directory of a single run, and into the working
            directory for several. One that ends in ``.svg`` gets the validation curves, or the federations' scores,
            alone, as a picture.
        callbacks: told what is being done, and what is left out.

    Returns:
        The file.

    Raises:
        ValueError: no runs, a directory that is none or is damaged, the same one twice; a place where the report cannot
            go, or something that is no report stands; training runs beside federations; curves of runs that do not
            play the same.
        OSError: the disk is full, ...; a report that was there stays.
    """
    say = _teller(callbacks)
    check_each_once(runs)
    where = output or (runs[0] if len(runs) == 1 else Path()) / "report.html"
    if are_federations(runs):
        return report_federations(runs, where, say)
    data = [read_run(path) for path in runs]
    check_output(where)
    for run in data:
        for note in run.notes:
            say(f"{run.path}: {note}")

    def pool(done: Sequence[RunData]) -> dict[str, Any]:
        return evaluate([run.path for run in done], callbacks=callbacks)

    if where.suffix == ".svg":
        config = data[0].config
        write_report(where, draw_curves(data, rival_returns(config) if config else {}))
        return where
    made = f"Made by isogon {installed_versions().get('isogon', '?')} on {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    page = build_page(data, pool=pool, play=lambda run: play(run, say), made=made)
    write_report(where, render(page))
    return where


def _report_of(run_dir: Path, callbacks: Sequence[Callback]) -> Path | None:
    """The report of a run that is done. It is a picture of what is on disk: failing to draw it fails nothing else."""
    say = _teller(callbacks)
    say("writing the report")
    try:
        return report([run_dir], callbacks=callbacks)
    except (ValueError, OSError) as error:
        again = f"{program()} report {shlex.quote(str(run_dir))}"
        say(f"no report was written ({explain(error).line}); try again with: {again}")
        return None


def _check_before_anything_is_made(config: RunConfig) -> None:
    """What can be told to be wrong at once leaves no run directory behind."""
    check_device(config.device)
    check_parts(config)
    if config.actors.pool == "ray":
        check_ray(config.ray, config.metrics.port)
    elif config.metrics.port is not None:
        check_port_free(config.metrics.port)


def _with_left_out(summary: dict[str, Any], watching: GuardedCallbacks) -> dict[str, Any]:
    return {**summary, **({"callbacks_left_out": list(watching.left_out)} if watching.left_out else {})}


def _open_directory(config: RunConfig, run_dir: Path | None, resume: bool) -> tuple[RunDirectory, RunConfig]:
    """The directory, and the config with the range of values that an earlier attempt found, if one did."""
    if run_dir is not None:
        check_outlasts_job(run_dir)
    if not resume:
        # A range that another run found, whose config this may be, is not this one's.
        new = config.model_copy(update={"value": config.value.model_copy(update={"found_range": None})})
        if run_dir is None:
            return RunDirectory.create_next(place_of_new_runs(), config.name), new
        return RunDirectory.create(run_dir), new
    if run_dir is None:
        raise RunDirectoryMissing("resume needs the directory of the run to go on with: name it by run_dir")
    directory = RunDirectory.open(run_dir)
    saved = SavedRun.open(run_dir).config
    check_resume(saved, config)
    found = {"found_range": saved.value.found_range}
    return directory, config.model_copy(update={"value": config.value.model_copy(update=found)})


def _checkpoint_to_resume(directory: RunDirectory, callbacks: Sequence[Callback]) -> Checkpoint | None:
    checkpoint = directory.latest_checkpoint(_teller(callbacks))
    if checkpoint is None and (line := directory.checkpoint_line()):
        raise CheckpointInvalid(
            f"none of the {len(line)} checkpoints in {directory.path} is whole: restore one from a copy, "
            "or begin a new run"
        )
    return checkpoint


def _teller(callbacks: Sequence[Callback]) -> Callable[[str], None]:
    def say(text: str) -> None:
        for callback in callbacks:
            callback.on_message(text)

    return say
