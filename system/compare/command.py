"""`isogon.compare`: a comparison of losses from its beginning, or from where it was stopped, to its tables' figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...actors.environments.config import WordleConfig
from ..errors import ExitCode, UserError
from ..evaluation import play_opponents
from ..machine import describe_machine, usable_cores
from ..runs.checkpoints import installed_versions
from ..runs.places import about_place, check_outlasts_job, place_of_new_runs
from .config import CompareConfig
from .directory import ComparisonDirectory
from .outcome import build_outcome
from .plan import Failed, Trial, wanted_trials
from .runners import ray_runner
from .session import Watcher, done_results, run_comparison


def compare(
    config: CompareConfig, *, directory: Path | None = None, jobs: int | None = None, watcher: Watcher | None = None
) -> dict[str, Any]:
    """Tune each loss alike, train it over several seeds, and compare them at equal steps and at equal time.

    The runs are Ray tasks of one CPU each. One that fails is told of and does not keep the others from going on.

    Args:
        config: see `system.compare.load_comparison`.
        directory: a new directory, or that of a comparison with the same config, which goes on where it was; None
            takes the first free ``runs/compare-<k>``. On a cluster it lies on a path that all nodes share.
        jobs: runs at a time, where Ray is started here; None: as many as there are cores.
        watcher: told what happens.

    Returns:
        What `compare.outcome.build_outcome` gives, with ``sessions``, the time that it took (see
        `ComparisonDirectory.sessions`), ``machine, versions, directory, file``; ``file``, compare.json, holds the rest.

    Raises:
        ValueError: a directory that holds something else, or a comparison with another config.
        RuntimeError: a Ray that does not start.
        OSError: the disk is full, ...; the runs that are done stay.
    """
    watcher = watcher or Watcher()
    if directory is None:
        at = ComparisonDirectory.begin_next(place_of_new_runs(), config)
    else:
        check_outlasts_job(directory)
        at = ComparisonDirectory.begin_or_continue(directory, config)
    with at.hold():
        watcher.on_directory(at.path)
        if directory is None and (place := about_place(at.path)):
            watcher.on_message(place)
        if changed := at.changed_versions():
            watcher.on_message(f"it began with other versions ({'; '.join(changed)}): runs may differ by that too")
        base = next(iter(config.tables.values())).base
        results, failed = done_results(config, at), dict[Trial, Failed]()
        if wanted_trials(config, results):
            with ray_runner(base.ray, jobs or usable_cores()) as runner:
                results, failed = run_comparison(config, at, runner, watcher)
        if failed and not results:
            reason = next(iter(failed.values())).reason
            raise UserError(ExitCode.WORKER_FAILED, f"none of {len(failed)} runs came to its end; the first: {reason}")
        watcher.on_message("playing the never-seen words without learning")
        assert isinstance(base.environment, WordleConfig)
        assert base.offline is not None
        opponents = play_opponents(base.environment, base.evaluation.filter_games, base.offline.smart_share)
        outcome = {
            **build_outcome(config, results, failed, opponents),
            "sessions": at.sessions(),
            "machine": describe_machine(),
            "versions": installed_versions(),
        }
        file = at.write_outcome(outcome)
    return {**outcome, "directory": str(at.path), "file": str(file)}
