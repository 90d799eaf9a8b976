from __future__ import annotations

import csv
import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SCRIPT = [sys.executable, str(BENCHMARKS / "federation.py")]
MODULES = ("federation", "federation_clients", "federation_rounds", "flower_peer", "harness", "scheduler_cost")
FLOWER_KEYS = {"ray_round_vs_flower", "flower_round_ms", "ray_bytes_vs_flower", "flower_mb_per_second"}
KEYS = FLOWER_KEYS | {
    "ray_round_vs_bare",
    "ray_bytes_vs_bare",
    "scheduler_us_per_assignment_10k",
    "scheduler_growth_100_to_100k",
    "server_rss_growth_ratio",
    "ray_durable_round_ms",
    "ray_durable_mb_per_second",
}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """The benchmark's modules, imported as the script does, and forgotten afterwards."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield {name: importlib.import_module(name) for name in MODULES}
    for name in MODULES:
        del sys.modules[name]


@pytest.mark.ray
def test_quick_prints_every_key_and_records_it(tmp_path: Path) -> None:
    command = [*SCRIPT, "--quick", "--folder", str(tmp_path / "runs"), "--record", "--results", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert {"date", "commit", "machine", "versions", "absent"} | KEYS <= summary.keys()
    assert summary["absent"].keys() == FLOWER_KEYS
    assert all(summary[key] > 0 for key in KEYS - FLOWER_KEYS)
    assert all(summary[key] is None for key in FLOWER_KEYS)
    with (tmp_path / "federation.csv").open(encoding="utf-8") as file:
        rows = {row["key"]: row for row in csv.DictReader(file)}
    assert rows.keys() >= KEYS - FLOWER_KEYS
    assert all(float(row["value"]) == summary[key] for key, row in rows.items())
    assert rows["ray_round_vs_bare"]["commit"] == (summary["commit"] or "")
    assert list((tmp_path / "runs").iterdir()) == []


def test_rivals_move_the_same_payload(modules: dict[str, Any]) -> None:
    """What a bare actor answers is an update that the server takes, of the size that throughput is told by."""
    clients, rounds = modules["federation_clients"], modules["federation_rounds"]
    size = rounds.Size(3, 4_000, 1)
    model = clients.model_of(size.nbytes)
    answer = clients.BareAnswer(size.nbytes).answer(model)
    assert sum(part.nbytes for part in answer.values()) == size.nbytes
    assert size.mb_per_second(0.5) == pytest.approx(2 * 3 * 4_000 / 0.5 / 1e6)
    assert all(not np.shares_memory(part, model[name]) for name, part in answer.items())


def test_rounds_are_timed_without_what_is_between_them(
    modules: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = modules["federation_rounds"]
    now = 0.0

    def between() -> None:
        nonlocal now
        now += 1_000.0

    def tick() -> float:
        nonlocal now
        now += 1.0
        return now

    monkeypatch.setattr(rounds.time, "perf_counter", tick)
    config = rounds.config_of(rounds.Size(2, 64, 3, 1), durable=False, pool="in_process")
    seconds = rounds.isogon_rounds(config, between)
    assert len(seconds) == 4
    assert all(0 < each < 100 for each in seconds)


def test_memory_that_does_not_fit_the_disk_is_absent(modules: dict[str, Any], tmp_path: Path) -> None:
    federation = modules["federation"]
    findings, options = federation.Findings(), federation._parser().parse_args([])
    full = type(federation.shutil.disk_usage(tmp_path))(10**9, 10**9, 1_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(federation.shutil, "disk_usage", lambda folder: full)
        federation.memory_section(findings, options, tmp_path)
    assert findings.values["server_rss_growth_ratio"] is None
    assert "1,000 bytes free and updates may take 8,000,000,000" in findings.absent["server_rss_growth_ratio"]


def test_flower_that_cannot_be_installed_or_dies_is_absent(modules: dict[str, Any], tmp_path: Path) -> None:
    peer = modules["flower_peer"]
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\necho 'no module named flwr' >&2\nexit 1\n")
    broken.chmod(0o755)
    size = modules["federation_rounds"].Size(2, 64, 1)
    with (
        pytest.raises(peer.FlowerAbsent, match="simulation ended: no module named flwr"),
        peer.flower_rounds(broken, size),
    ):
        pass
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer.sys, "executable", os.fspath(broken))
        with pytest.raises(peer.FlowerAbsent, match="could not be installed: no module named flwr"):
            peer.flower_python(tmp_path / "flower")
