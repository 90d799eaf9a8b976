"""A federation from its config to its result: what ``isogon federate run`` and `isogon.federate` do."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
import torch

from ...actors.federation.client import FederatedTask
from ..callbacks import Callback, GuardedCallbacks
from ..config.files import check_resume
from ..errors import check_port_free, explain
from ..program import program
from ..reports.federation import report_federations
from ..runs.atomic_files import write_atomically
from ..runs.checkpoints import Checkpoint, CheckpointInvalid, installed_versions
from ..runs.directory import RunDirectory, RunDirectoryMissing
from ..runs.places import about_place, check_outlasts_job, place_of_new_runs
from ..training.ray_session import check_ray
from .attempt import FederationAttempt, Outcome
from .builder import build_scheduler, build_task, silos
from .config import FederationConfig
from .files import saved_federation
from .timeline import TIMELINE


@dataclass(frozen=True)
class FederationResult:
    """What a federation left.

    Attributes:
        run_dir: its directory.
        summary: the content of its summary.json.
        model: the global model, named arrays; also in the directory, as model.safetensors.
        report: its report.html; None where that could not be made, which a callback was told of.
    """

    run_dir: Path
    summary: dict[str, Any]
    model: dict[str, np.ndarray]
    report: Path | None = None


def federate(
    config: FederationConfig, *, run_dir: Path | None = None, resume: bool = False, callbacks: Sequence[Callback] = ()
) -> FederationResult:
    """Run a federation, and write ``summary.json``, ``model.safetensors`` and ``report.html``.

    Args:
        config: see `load_federation`.
        run_dir: a new directory; None takes the first free ``runs/<name>-<k>``, in a Ray job
            ``~/isogon-runs/<name>-<k>``.
        resume: go on with the federation in ``run_dir`` where it was: with every update that was acknowledged, and none
            twice. Fields of the config that may not change must be as they were.
        callbacks: told what happens. One that raises is left out from then on, and the summary says so.

    Raises:
        ValueError: a run directory, checkpoint, config or own code that cannot serve (each a class of its own).
        RuntimeError: no client is left, a Ray that does not start.
        OSError: the disk is full, ...; what was acknowledged stays.
    """
    began = time.monotonic()
    task = build_task(config)
    _check_before_anything_is_made(config, task)
    watching = GuardedCallbacks(callbacks)
    torch.set_num_threads(config.torch_threads)
    directory = _open_directory(config, run_dir, resume)
    with directory.hold():
        checkpoint = _checkpoint_to_resume(directory, watching.on_message) if resume else None
        directory.write_config(config.model_dump(mode="json"))
        attempt = directory.claim_attempt(checkpoint.ref if checkpoint else None)
        watching.log = directory.log_path(attempt).with_name("callbacks.txt")
        watching.on_start(config, directory.path, checkpoint.ref.name if checkpoint else None)
        if run_dir is None and (place := about_place(directory.path)):
            watching.on_message(place)
        outcome = FederationAttempt(config, task, directory, attempt, [watching]).run(checkpoint)
        if outcome.standing.updates == 0:
            watching.on_message(
                f"nothing was learnt: of {outcome.dropped} pieces of clients' work none was applied; the reasons are "
                f"in {directory.log_path(attempt).with_name(TIMELINE)}"
            )
        watching.on_message("evaluating the final model")
        summary = {
            **_summary_of(config, outcome),
            **{f"final_{name}": value for name, value in task.evaluate_final(outcome.model).items() if name != "score"},
            "total_seconds": round(time.monotonic() - began, 3),
            "attempts": attempt.number,
            "run_dir": str(directory.path),
            "versions": installed_versions(),
            **({"callbacks_left_out": list(watching.left_out)} if watching.left_out else {}),
        }
        whole = {name: np.asarray(part, order="C") for name, part in outcome.model.items()}
        write_atomically(directory.path / "model.safetensors", safetensors.numpy.save(whole))
        directory.write_summary(summary)
    written = _report_of(directory.path, watching.on_message)
    watching.on_end(summary)
    return FederationResult(directory.path, summary, outcome.model, written)


def _summary_of(config: FederationConfig, outcome: Outcome) -> dict[str, Any]:
    standing, totals = outcome.standing, outcome.totals
    clients = len(silos(config))
    shown = list(totals.clients.items())[: config.server.client_metrics]
    return {
        "federation": config.name,
        "strategy": config.strategy.kind,
        "seeds": [config.seed],
        "clients": clients,
        "score": standing.score,
        "best_score": standing.best_score,
        "target_seconds": standing.target_seconds,
        "model_versions": standing.version,
        "updates_applied": standing.updates,
        "updates_dropped": outcome.dropped,
        "local_steps": standing.local_steps,
        "mean_staleness": _rounded(totals.mean_staleness()),
        "utilisation": _rounded(totals.utilisation(clients, standing.seconds)),
        "federation_seconds": round(standing.seconds, 3),
        "by_client": {name: _plain(one.__dict__) for name, one in shown},
    }


def _plain(figures: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 3) if isinstance(value, float) else value for name, value in figures.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _check_before_anything_is_made(config: FederationConfig, task: FederatedTask) -> None:
    """What can be told to be wrong at once leaves no run directory behind."""
    task.initial_model()
    build_scheduler(config, attempt=1)
    if config.pool == "ray":
        check_ray(config.ray, config.metrics.port)
    elif config.metrics.port is not None:
        check_port_free(config.metrics.port)


def _open_directory(config: FederationConfig, run_dir: Path | None, resume: bool) -> RunDirectory:
    if run_dir is not None:
        check_outlasts_job(run_dir)
    if not resume:
        if run_dir is None:
            return RunDirectory.create_next(place_of_new_runs(), config.name)
        return RunDirectory.create(run_dir)
    if run_dir is None:
        raise RunDirectoryMissing("resume needs the directory of the federation to go on with: name it by run_dir")
    directory = RunDirectory.open(run_dir)
    check_resume(saved_federation(directory), config)
    return directory


def _checkpoint_to_resume(directory: RunDirectory, warn: Callable[[str], None]) -> Checkpoint | None:
    checkpoint, line = directory.latest_checkpoint(warn), directory.checkpoint_line()
    if checkpoint is None and line:
        raise CheckpointInvalid(
            f"none of the {len(line)} checkpoints in {directory.path} is whole: restore one from a copy, "
            "or begin a new federation"
        )
    if checkpoint is None:
        warn(
            "there is no checkpoint, for it was killed before the first one or server.durable is false: it begins anew"
        )
    elif checkpoint.ref != line[0]:
        warn(
            f"the model goes back to version {checkpoint.step}: what was applied since then, up to version "
            f"{line[0].step}, is lost"
        )
    return checkpoint


def _report_of(run_dir: Path, say: Callable[[str], None]) -> Path | None:
    """The report of a run that is done. It is a picture of what is on disk: failing to draw it fails nothing else."""
    say("writing the report")
    try:
        return report_federations([run_dir], run_dir / "report.html", say)
    except (ValueError, OSError) as error:
        again = f"{program()} report {shlex.quote(str(run_dir))}"
        say(f"no report was written ({explain(error).line}); try again with: {again}")
        return None
