"""Where run directories are made that nobody named, and where none may be: a Ray job's own folder goes with the job."""

from __future__ import annotations

import os
import socket
from pathlib import Path

from .errors import RunDirectoryFleeting


def in_ray_job() -> bool:
    """Whether this process was started by ``ray job submit``."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def place_of_new_runs() -> Path:
    """The folder in which a new run directory gets the first free number."""
    return Path.home() / "isogon-runs" if in_ray_job() else Path("runs")


def check_outlasts_job(run_dir: Path) -> None:
    """Refuse a place that goes when this process's Ray job does.

    Raises:
        RunDirectoryFleeting: the path is relative, in a Ray job.
    """
    if in_ray_job() and not run_dir.is_absolute():
        raise RunDirectoryFleeting(
            f"run directory {run_dir} is relative, and a Ray job's working directory goes when Ray clears it up: "
            "name an absolute path, one that all nodes share if they do, as in --run-dir /shared/runs/first"
        )


def about_place(run_dir: Path) -> str:
    """Where a run is kept whose directory nobody named, and what that means; empty outside a Ray job."""
    if not in_ray_job():
        return ""
    return (
        f"the run stays on the node {socket.gethostname()}, in {run_dir}: "
        "with --run-dir and a path that all nodes share it can go on from any of them"
    )
