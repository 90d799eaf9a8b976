"""The commands of docs/clusters.md, clusters, as a user gives them, against a head node that does not have Isogon."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..system.ray_cluster import RayCluster, ray_cluster
from .pages import ROOT, blocks_of

pytestmark = pytest.mark.ray

PAGE = ROOT / "docs" / "clusters.md"
SHORT = (
    "--set evaluation.filter_games=2 --set offline.steps=20000 --set replay.min_size=5000 --set replay.batch_size=32"
)


@pytest.fixture
def head_with_token(tmp_path: Path) -> Iterator[RayCluster]:
    with ray_cluster(tmp_path, "token", ["right"]) as cluster:
        yield cluster


def wait_for_log(cluster: RayCluster, job: str, words: str) -> None:
    deadline = time.monotonic() + 60
    while words not in (log := cluster.run(["ray", "job", "logs", job]).stdout):
        assert time.monotonic() < deadline, log
        assert "isogon: " not in log, log
        time.sleep(0.2)


def test_the_commands_of_the_page(head_with_token: RayCluster, tmp_path: Path) -> None:
    cluster, runs = head_with_token, tmp_path / "runs"
    done: dict[str, subprocess.CompletedProcess[str]] = {}
    for command in (command.text for block in blocks_of(PAGE) if block.runs for command in block.commands()):
        short = command.replace("/shared/runs", str(runs)).replace("head:6379", cluster.address)
        short = short.replace("train wordle", f"train wordle {SHORT}")
        short = re.sub(r"budget.seconds=\d+", "budget.seconds=3", short)
        if "--resume" in command:
            short = short.replace("budget.seconds=3", "budget.seconds=6")
        done[command] = cluster.run(short)
        assert done[command].returncode == 0, done[command].stdout
        if "--no-wait" in command:
            wait_for_log(cluster, "second", " updates")
    first = next(done[command].stdout for command in done if "id first" in command)
    assert re.search(r"^ +\d\.\d s  online .* updates", first, re.MULTILINE), first
    assert f"summary in {runs}/first/summary.json" in first
    logs = next(done[command].stdout for command in done if "logs second" in command)
    checkpoint = re.search(r"^checkpoint (\S+)$", logs, re.MULTILINE)
    assert checkpoint is not None, logs
    assert f"isogon: terminated; go on with: python -m isogon train --resume --run-dir {runs}/second" in logs
    third = next(done[command].stdout for command in done if "id third" in command)
    assert f"run {runs}/second, resumed from checkpoint {checkpoint[1]}" in third
    for run in ("first", "second", "direct", "right"):
        assert json.loads((runs / run / "summary.json").read_text())["never_seen_return"] is not None
    assert len(list((runs / "second" / "attempts").iterdir())) == 2

    # A place that would go with the job is refused, readable in the job's own log; unnamed, a run goes to the home.
    refused = cluster.run("ray job submit --working-dir src -- python -m isogon train wordle --run-dir runs/x")
    assert refused.returncode == 1
    assert "isogon: run directory runs/x is relative" in refused.stdout
    assert "exit code 10" in refused.stdout
    # Who has another authentication gets a line of ours, after Ray's own.
    sent_away = cluster.run(
        f"PYTHONPATH=src python -m isogon train wordle {SHORT} --run-dir {runs}/no --set ray.address={cluster.address}",
        RAY_AUTH_MODE="disabled",
        RAY_gcs_rpc_server_connect_timeout_s="1",
    )
    assert sent_away.returncode == 15
    assert "set RAY_AUTH_MODE to the same for the head, the nodes and here (disabled now)" in sent_away.stdout
