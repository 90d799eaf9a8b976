"""The loop of a comparison: ask the plan what can be run, have it run, keep what it came to.

Consumes: results on disk, and those of runs that end. Produces: result files. Waits for: runs. Unblocked by: a run that
ends, or twice a second, so that whoever watches sees time pass.
"""

from __future__ import annotations

import time
from pathlib import Path

from .config import CompareConfig
from .directory import ComparisonDirectory
from .plan import Failed, Result, Trial, arms_of, expected_trials, plan_arm, trial_config, wanted_trials
from .runners import Runner

_WAIT_SECONDS = 0.5


class Watcher:
    """Does nothing at every occasion; subclass it."""

    def on_directory(self, directory: Path) -> None:
        """The comparison's directory stands."""

    def on_message(self, text: str) -> None:
        """One line for a person."""

    def on_begin(self, done: int, expected: int) -> None:
        """So many runs are done already, of those that will be needed as far as is known."""

    def on_result(self, trial: Trial, result: Result, done: int, expected: int) -> None:
        """A run is done."""

    def on_failure(self, trial: Trial, failed: Failed) -> None:
        """A run did not come to its end; the others go on without it."""

    def on_wait(self, running: int) -> None:
        """Time has passed; so many runs are handed out."""


def run_comparison(
    config: CompareConfig, directory: ComparisonDirectory, runner: Runner, watcher: Watcher
) -> tuple[dict[Trial, Result], dict[Trial, Failed]]:
    """Make all runs that are not done yet.

    Runs that failed are not tried again, until the comparison is run again.

    Returns:
        What the runs came to, those of earlier sessions included, and which failed in this one.
    """
    results, failed = done_results(config, directory), dict[Trial, Failed]()
    handed_out: set[Trial] = set()
    earlier, began, already = directory.sessions(), time.monotonic(), len(results)
    watcher.on_begin(len(results), expected_trials(config, results))
    while True:
        for trial in wanted_trials(config, results, failed):
            if trial not in handed_out:
                handed_out.add(trial)
                runner.submit(trial, trial_config(config, trial), directory.run_dir(trial))
        running = len(handed_out) - len(handed_out & (results.keys() | failed.keys()))
        if not running:
            return results, failed
        watcher.on_wait(running)
        for trial, outcome in runner.wait(_WAIT_SECONDS):
            if isinstance(outcome, Failed):
                failed[trial] = outcome
                watcher.on_failure(trial, outcome)
            else:
                directory.write_result(trial, outcome)
                results[trial] = outcome
                session = {"seconds": round(time.monotonic() - began, 1), "runs": len(results) - already}
                directory.write_sessions([*earlier, session])
                watcher.on_result(trial, outcome, len(results), expected_trials(config, results, failed))


def done_results(config: CompareConfig, directory: ComparisonDirectory) -> dict[Trial, Result]:
    """What runs of earlier sessions came to: what the plan asks for, once their predecessors are known."""
    results: dict[Trial, Result] = {}
    while True:
        found = {
            trial: result
            for arm in arms_of(config)
            for trial in plan_arm(config, arm, results).trials
            if trial not in results and (result := directory.result(trial)) is not None
        }
        if not found:
            return results
        results |= found
