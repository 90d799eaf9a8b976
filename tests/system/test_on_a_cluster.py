"""Isogon on a real cluster that does not have it: where players are, and what is said where they cannot be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from .ray_cluster import RayCluster, ray_cluster

pytestmark = pytest.mark.ray

POLE = """
name: pole
environment: {kind: gymnasium, id: CartPole-v1}
value: {kind: hl_gauss, bins: 51, vmin: 0, vmax: 100}
network: {kind: mlp, hidden: [16]}
replay: {returns: n_step, n_step: 3, discount: 0.99, min_size: 200, batch_size: 32}
actors: {pool: ray, workers: 2, updates_per_step: 0.1, label_selector: {zone: right}}
budget: {env_steps: 4000}
"""


@pytest.fixture
def two_nodes(tmp_path: Path) -> Iterator[RayCluster]:
    with ray_cluster(tmp_path, "disabled", ["left", "right"]) as cluster:
        yield cluster


def test_players_are_on_the_nodes_with_the_labels(two_nodes: RayCluster, tmp_path: Path) -> None:
    cluster = two_nodes
    (tmp_path / "pole.yaml").write_text(POLE)
    isogon = "PYTHONPATH=src python -m isogon train"
    train = f"ray job submit --working-dir src -- python -m isogon train {tmp_path}/pole.yaml"
    trained = cluster.run(train)
    assert trained.returncode == 0, trained.stdout
    # Nobody named a place: the job's home is the cluster's.
    run = tmp_path / "isogon-runs" / "pole-1"
    assert f"the run stays on the node {cluster_host()}, in {run}:" in trained.stdout
    players = json.loads(
        cluster.run("ray list actors --filter class_name=WorkerHost --detail --format json 2>/dev/null").stdout
    )
    nodes = json.loads(cluster.run("ray list nodes --detail --format json 2>/dev/null").stdout)
    zones = {node["node_id"]: node["labels"]["zone"] for node in nodes}
    assert sorted(zones.values()) == ["left", "right"]
    assert [zones[player["node_id"]] for player in players] == ["right", "right"]

    nowhere = cluster.run(
        f"{isogon} {tmp_path}/pole.yaml --run-dir {tmp_path}/nowhere --set actors.label_selector.zone=middle "
        f"--set ray.start_timeout_seconds=2 --set ray.address={cluster.address}"
    )
    assert nowhere.returncode == 20
    assert "no worker is there after 2 seconds (ray.start_timeout_seconds)" in nowhere.stdout
    assert "is zone=middle, and the cluster has these nodes: 1 with zone=left and 2 CPUs; 1 with zone=right and 2" in (
        nowhere.stdout
    )

    # On another Ray, one of this machine that the run starts: what it needs is in the run directory.
    elsewhere = cluster.run(
        f"{isogon} --resume --run-dir {run} --set budget.env_steps=6000 --set 'actors.label_selector={{}}'"
    )
    assert elsewhere.returncode == 0, elsewhere.stdout
    assert json.loads((run / "summary.json").read_text())["env_steps"] >= 6000


def cluster_host() -> str:
    return subprocess.run(["hostname"], capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.parametrize(
    ("versions", "words"),
    [
        ("('2.58.0', '3.11.7')", "this process Ray 2.58.0 on Python 3.11.7"),
        ("(ray.__version__, '3.9.1')", "this process Ray {ray} on Python 3.9.1"),
    ],
)
def test_other_versions_than_the_cluster_has(local_ray: None, versions: str, words: str, tmp_path: Path) -> None:
    script = (
        f"import ray; ray._private.utils.compute_version_info = lambda: {versions}\n"
        f"from isogon.system.cli import main; main(['train', 'wordle', '--run-dir', {str(tmp_path / 'run')!r}])"
    )
    address = ray.get_runtime_context().gcs_address
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_ADDRESS": address},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 25, done.stderr
    assert f"the cluster runs Ray {ray.__version__} on Python " in done.stderr
    assert words.format(ray=ray.__version__) in done.stderr
