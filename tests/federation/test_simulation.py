"""Federations in virtual time: the same bits at any parallelism, mistakes told before anything runs, who is faster."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from isogon.actors.pools.contract import WorkFailed
from isogon.system.cli.app import main
from isogon.system.config.files import FEDERATIONS, ConfigError, preset_names
from isogon.system.federation.comparison import relative_times
from isogon.system.federation.config import FederationConfig
from isogon.system.federation.files import load_federation
from isogon.system.federation.simulate import simulate
from isogon.system.federation.simulation import RunKey, SimulatedRun, simulate_run
from isogon.system.runs.errors import RunDirectoryExists

SHORT = ("budget.seconds=250", "simulation.seeds=2")
SPEEDS = ("homogeneous", "normal", "exponential")
FEW = ("fedcompass", "fedbuff")


def config(*changes: str) -> FederationConfig:
    return load_federation("digits", list(changes))


def figures(directory: Path) -> dict[str, Any]:
    """simulation.json, without what may differ from run to run."""
    content: dict[str, Any] = json.loads((directory / "simulation.json").read_bytes())
    return {name: content[name] for name in ("reference", "target", "comparison", "runs")}


def test_the_figures_do_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    for name, jobs in (("one", 1), ("two", 2)):
        simulate(config(*SHORT), strategies=FEW, speeds=["exponential"], jobs=jobs, out=tmp_path / name)
    one = figures(tmp_path / "one")
    assert [run["strategy"] for run in one["runs"]] == [*FEW, *FEW]
    assert all(len(run["curve"]) > 3 for run in one["runs"])
    assert one == figures(tmp_path / "two")


def test_a_run_is_fixed_by_its_seed_to_the_last_bit() -> None:
    short = config(*SHORT, "simulation.dropouts.probability=0.1", "simulation.links.bytes_per_second=1000")

    def run(seed: int) -> SimulatedRun:
        return simulate_run(short, RunKey("fedcompass", "exponential", seed), keep_spans=True)

    first = run(0)
    assert first == run(0)
    assert len(first.spans) > 10
    assert any(span.reason for span in first.spans)
    other = run(1)
    assert first.curve[0] != other.curve[0]
    assert replace(first, key=other.key) != other


def test_an_order_of_strategies_changes_none_of_them() -> None:
    """Nothing is drawn from a stream that runs share."""
    short = config(*SHORT)
    alone = simulate_run(short, RunKey("fedbuff", "normal", 0))
    simulate_run(short, RunKey("fedavg", "normal", 0))
    assert simulate_run(short, RunKey("fedbuff", "normal", 0)) == alone


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--set", "task.data.partition.size_alpha=0.5"], "with seed 0: client 0 .* is left without data: take fewer"),
        (["--strategy", "fedcompas"], "--strategy fedcompas is not in the simulation: did you mean fedcompass"),
        (
            ["--speeds", "linear"],
            "--speeds linear is not in the simulation: there are homogeneous, normal, exponential",
        ),
        (["--set", "clients=[{name: client, count: 2000}]"], "2000 clients share 1437 samples: .* take fewer clients"),
        (["--set", "simulation=null"], "digits has no simulation: add the section simulation"),
        (["--set", "strategy.q_min=200"], "q_min is 200 and q_max 100: q_min must not be above q_max"),
    ],
)
def test_mistakes_are_one_line_before_anything_runs(
    arguments: list[str], told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["federate", "simulate", "--preset", "digits", *arguments])
    out, err = capfd.readouterr()
    assert len(err.splitlines()) == 1
    assert re.search(told, err), err
    assert not out
    assert not list(tmp_path.iterdir())


def test_a_later_seed_that_leaves_a_client_without_data_is_told_before_the_first_runs(tmp_path: Path) -> None:
    poor = config("task.data.partition.size_alpha=6", "simulation.seeds=3")
    with pytest.raises(ConfigError, match=r"^with seed 2: client \d .* is left without data"):
        simulate(poor, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_directory_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(RunDirectoryExists, match="is there already: name a new directory by --out"):
        simulate(config(*SHORT), strategies=["fedavg"], out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_a_simulation_that_is_stopped_ends_at_once_and_leaves_nothing(how: signal.Signals, tmp_path: Path) -> None:
    # A budget that takes hours; Ctrl-C goes to all processes of a terminal, SIGTERM to one.
    command = [sys.executable, "-m", "isogon", "federate", "simulate", "--preset", "digits", "--jobs", "2", "--json"]
    changes = ["--set", "budget={seconds: 1.0e+9}", "--strategy", "fedavg", "--out", str(tmp_path / "out")]
    process = subprocess.Popen(
        [*command, *changes], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    try:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["event"] == "start"
        deadline = time.monotonic() + 30
        while len(children := children_of(process.pid)) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        (os.killpg if how == signal.SIGINT else os.kill)(process.pid, how)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + how
    assert len(err.splitlines()) <= 1, err
    assert not out
    assert not (tmp_path / "out").exists()
    assert len(children) >= 3
    while left := [child for child in children if is_running(child)]:
        assert time.monotonic() < deadline, f"{left} of {children} still run"
        time.sleep(0.1)


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def children_of(pid: int) -> list[int]:
    """The two processes, and the one that watches over their semaphores."""
    return [int(text) for text in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def test_a_process_that_is_killed_ends_the_simulation_with_a_word(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killer:
        def on_begin(self, runs: int, directory: Path) -> None:
            """Nobody is there to be killed yet."""

        def on_run(self, run: SimulatedRun) -> None:
            for process in multiprocessing.active_children():
                process.kill()

    with pytest.raises(WorkFailed, match="one of the simulation's 2 processes was killed"):
        simulate(config(*SHORT), strategies=FEW, jobs=2, out=tmp_path / "out", watcher=Killer())
    assert not (tmp_path / "out").exists()


def test_who_is_faster_with_the_digits() -> None:
    """The ordering at one weight, over two seeds; docs/simulating-federations.md has it over five."""
    digits, names = config(), ("fedasync", "fedbuff", "fedcompass")
    keys = [RunKey(name, speeds, seed) for speeds in SPEEDS for name in names for seed in (0, 1)]
    keys += [RunKey("fedavg", "exponential", seed) for seed in (0, 1)]
    runs = [simulate_run(digits, key) for key in keys]
    for speeds in SPEEDS:
        of = {row.strategy: row for row in relative_times([r for r in runs if r.key.speeds == speeds], "fedcompass")}
        slowest, slow = of["fedasync"].ratio, of["fedbuff"].ratio
        assert slowest is not None
        assert slow is not None
        # Of one fifth and more: no accident of a seed.
        assert slowest > 1.2 * slow > 1.2 * 1.2
        stale = [of[name].staleness or 0.0 for name in names]
        assert stale == sorted(stale, reverse=True)
        assert (of["fedcompass"].utilisation or 0.0) > 0.8
        if speeds == "exponential":
            assert (of["fedavg"].ratio or 0.0) > 1.5
            assert (of["fedavg"].utilisation or 1.0) < 0.5


@pytest.mark.parametrize("name", [name for name in preset_names(FEDERATIONS) if name.startswith("digits-")])
def test_the_digits_presets_differ_in_what_they_compare_alone(name: str) -> None:
    plain, other = config(), load_federation(name)
    assert (other.task, other.clients) == (plain.task, plain.clients)
    assert other.simulation is not None
    assert other.simulation.reference in other.simulation.strategies
