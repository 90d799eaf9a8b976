"""``isogon federate simulate``: all runs of a simulation, what they come to together, and what is left on disk."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

from ..config.files import ConfigError, describe
from ..config.keys import nearest
from ..machine import describe_machine
from ..reports.simulation import write_simulation_report
from ..runs.atomic_files import create_numbered, write_atomically
from ..runs.attempts import without_infinities
from ..runs.checkpoints import installed_versions
from ..runs.errors import RunDirectoryExists
from ..runs.places import place_of_new_runs
from .builder import build_scheduler, check_clients
from .comparison import Row, relative_times
from .config import FederationConfig, SimulationConfig, as_one_run
from .simulation import RunKey, SimulatedRun, run_keys, simulate_all


class SimulationWatcher(Protocol):
    """Who is told how a simulation goes."""

    def on_begin(self, runs: int, directory: Path) -> None:
        """So many runs, and where their results go."""
        ...

    def on_run(self, run: SimulatedRun) -> None:
        """One run is done."""
        ...


@dataclass(frozen=True)
class SimulationOutcome:
    """What a simulation came to.

    Attributes:
        directory: where it is kept.
        runs: all of them.
        rows: by distribution of speeds, the comparison of strategies.
        reference: the strategy that times are told relative to.
        target: score whose time is compared; None: none was set.
        seconds: of wall time.
        report: the page.
    """

    directory: Path
    runs: tuple[SimulatedRun, ...]
    rows: Mapping[str, Sequence[Row]]
    reference: str
    target: float | None
    seconds: float
    report: Path


def simulate(
    config: FederationConfig,
    *,
    strategies: Sequence[str] = (),
    speeds: Sequence[str] = (),
    jobs: int | None = None,
    out: Path | None = None,
    watcher: SimulationWatcher | None = None,
) -> SimulationOutcome:
    """Simulate every strategy under every distribution of speeds with every seed, and compare them.

    Args:
        config: with a simulation.
        strategies: only these; all where there are none.
        speeds: only these; all where there are none.
        jobs: processes; None: one for each core. The results do not depend on it.
        out: a new directory; None takes the first free ``runs/<name>-simulation-<k>``.
        watcher: told how it goes.

    Raises:
        ConfigError: there is nothing to simulate, no strategy or distribution of that name, or a partition that leaves
            a client without data with one of the seeds.
        PluginError: own code that cannot be used.
        RunDirectoryExists: ``out`` is there already.
        WorkFailed: one of the processes was killed.
    """
    began = time.monotonic()
    config = _chosen(config, strategies, speeds)
    assert config.simulation is not None
    for offset in range(config.simulation.seeds):
        check_clients(as_one_run(config, seed=config.seed + offset))
    for strategy in config.simulation.strategies.values():
        build_scheduler(as_one_run(config, strategy=strategy), attempt=1)
    directory = _new_directory(config, out)
    try:
        runs = _all_runs(config, config.simulation, jobs, directory, watcher)
    except BaseException:
        # Nothing is in it yet.
        directory.rmdir()
        raise
    reference = config.simulation.reference
    rows = {
        name: relative_times([run for run in runs if run.key.speeds == name], reference)
        for name in config.simulation.speeds
    }
    target, report = config.budget.target, directory / "report.html"
    outcome = SimulationOutcome(directory, tuple(runs), rows, reference, target, time.monotonic() - began, report)
    write_atomically(directory / "config.yaml", describe(config))
    write_atomically(directory / "simulation.json", json.dumps(_as_json(outcome), indent=1, allow_nan=False) + "\n")
    for output in (report, directory / "report.svg"):
        write_simulation_report(config.name, runs, reference, target, output)
    return outcome


def _all_runs(
    config: FederationConfig,
    simulation: SimulationConfig,
    jobs: int | None,
    directory: Path,
    watcher: SimulationWatcher | None,
) -> list[SimulatedRun]:
    keys, runs = run_keys(simulation, config.seed), []
    if watcher is not None:
        watcher.on_begin(len(keys), directory)
    processes = min(jobs or len(os.sched_getaffinity(0)), len(keys))
    for run in simulate_all(config, keys, processes, lambda key: key.seed == config.seed):
        runs.append(run)
        if watcher is not None:
            watcher.on_run(run)
    return runs


def _chosen(config: FederationConfig, strategies: Sequence[str], speeds: Sequence[str]) -> FederationConfig:
    """The config with what was chosen alone; its own strategy where it compares none."""
    simulation = config.simulation
    if simulation is None:
        raise ConfigError(f"{config.name} has no simulation: add the section simulation, with speeds and strategies")
    there = simulation.strategies or {config.strategy.kind: config.strategy}
    picked = {name: there[_known("strategy", name, there)] for name in strategies or there}
    reference = simulation.reference if simulation.reference in picked else next(iter(picked))
    changes = {
        "strategies": picked,
        "speeds": {
            name: simulation.speeds[_known("speeds", name, simulation.speeds)] for name in speeds or simulation.speeds
        },
        "reference": reference,
    }
    return config.model_copy(update={"simulation": simulation.model_copy(update=changes)})


def _known(what: str, name: str, there: Mapping[str, Any]) -> str:
    if name not in there:
        meant = nearest(name, list(there))
        hint = f"did you mean {meant}?" if meant else f"there are {', '.join(there)}"
        raise ConfigError(f"--{what} {name} is not in the simulation: {hint}")
    return name


def _new_directory(config: FederationConfig, out: Path | None) -> Path:
    if out is None:
        parent = place_of_new_runs()
        parent.mkdir(parents=True, exist_ok=True)
        return create_numbered(parent, f"{config.name}-simulation-", 1)[1]
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunDirectoryExists(f"{out} is there already: name a new directory by --out")
    out.mkdir(parents=True, exist_ok=True)
    return out


def _as_json(outcome: SimulationOutcome) -> dict[str, Any]:
    def row_of(run: SimulatedRun) -> dict[str, Any]:
        figures = {name: value for name, value in asdict(run).items() if name not in ("key", "spans")}
        return {**_key(run.key), **figures, "curve": [list(point) for point in run.curve]}

    content: dict[str, Any] = without_infinities(
        {
            "reference": outcome.reference,
            "target": outcome.target,
            "comparison": {name: [asdict(row) for row in rows] for name, rows in outcome.rows.items()},
            "runs": [row_of(run) for run in outcome.runs],
            "seconds": round(outcome.seconds, 3),
            "machine": describe_machine(),
            "versions": installed_versions(),
        }
    )
    return content


def _key(key: RunKey) -> dict[str, Any]:
    return {"strategy": key.strategy, "speeds": key.speeds, "seed": key.seed}
