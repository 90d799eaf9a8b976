"""Who makes the runs: tasks of Ray, as many at once as there are cores."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from ..config.run import RayConfig, RunConfig
from ..errors import explain
from ..training.ray_session import check_ray, ray_session
from .plan import Failed, Result, Trial

_RETRIES = 2
"""Of a run whose process is lost, and of nothing else: what a run itself raises it would raise again."""


class Runner(Protocol):
    """Makes runs, several at a time."""

    def submit(self, trial: Trial, config: RunConfig, run_dir: Path) -> None:
        """Let a run be made when there is room."""

    def wait(self, timeout: float) -> list[tuple[Trial, Result | Failed]]:
        """Those that ended since the last call; waits at most ``timeout`` seconds for one."""


class RayRunner:
    """Each run is a Ray task on one CPU. `ray_runner` gives one."""

    def __init__(self) -> None:
        import ray

        self._ray = ray
        self._task = ray.remote(num_cpus=1, max_retries=_RETRIES)(_do_in_worker)
        self._running: dict[Any, Trial] = {}

    def submit(self, trial: Trial, config: RunConfig, run_dir: Path) -> None:
        """Let a run be made when a CPU is free."""
        # Workers may have another working directory.
        self._running[self._task.remote(config.model_dump(mode="json"), run_dir.resolve())] = trial

    def wait(self, timeout: float) -> list[tuple[Trial, Result | Failed]]:
        """Those that ended since the last call; waits at most ``timeout`` seconds for one."""
        if not self._running:
            return []
        ready, _ = self._ray.wait(list(self._running), num_returns=1, timeout=timeout)
        ended: list[tuple[Trial, Result | Failed]] = []
        for reference in ready:
            trial = self._running.pop(reference)
            try:
                ended.append((trial, self._ray.get(reference)))
            except self._ray.exceptions.RayError as error:
                ended.append((trial, Failed(explain(error).line)))
        return ended

    def close(self) -> None:
        """End the runs that are still going, on a cluster that goes on as on one that ends here."""
        for reference in self._running:
            self._ray.cancel(reference, force=True)
        self._running = {}


@contextmanager
def ray_runner(config: RayConfig, jobs: int) -> Iterator[RayRunner]:
    """A runner within a Ray session; a local one has ``jobs`` CPUs, a cluster as many as it has.

    Raises:
        UserError: the address of a cluster does not answer.
    """
    check_ray(config, None)
    with ray_session(config, jobs, None):
        runner = RayRunner()
        try:
            yield runner
        finally:
            runner.close()


def _do_in_worker(config: dict[str, Any], run_dir: Path) -> Result | Failed:
    # `system.api` has the comparison in it, and a run is made by `system.api`.
    from .work import do_trial

    return do_trial(RunConfig.model_validate(config), run_dir)
