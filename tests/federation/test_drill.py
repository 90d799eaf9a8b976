"""The drill: federations on a real Ray, and everything that can be lost is lost on the way."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from ..system.ray_cluster import ray_cluster
from .drill import PATIENCE, Drill, wait

pytestmark = pytest.mark.ray

NAMES = ["steady", "killed", "hanging", "leaving"]

CONFIG = """
name: drill
clients:
  - {name: steady, num_cpus: 0.5, seconds_per_step: 0.02}
  - {name: killed, num_cpus: 0.5, seconds_per_step: 0.03}
  - {name: hanging, num_cpus: 0.5, seconds_per_step: 0.04}
  - {name: leaving, num_cpus: 0.5, seconds_per_step: 0.04, max_restarts: 0}
least_clients: 4
strategy: {kind: fedcompass, q_min: 4, q_max: 16}
silence: {factor: 1.5, least_seconds: 3.0}
budget: {seconds: 1000}
"""

NODES = """
name: nodes
clients:
  - {name: home, num_cpus: 0.5, seconds_per_step: 0.02, label_selector: {zone: home}}
  - {name: away, num_cpus: 0.5, seconds_per_step: 0.02, label_selector: {zone: away}}
least_clients: 1
strategy: {kind: fedcompass, q_min: 4, q_max: 16}
evaluation: {every_versions: 1}
budget: {seconds: 1000, target: 1.0}
"""


def test_whatever_is_lost_the_model_is_the_sum_of_what_was_applied(tmp_path: Path) -> None:
    drill = Drill(tmp_path, CONFIG)
    with drill.server("--preset", str(tmp_path / "drill.yaml")) as server:
        wait(lambda: all(drill.applied(name) for name in NAMES), "all clients' first updates are applied")

        first = drill.pid("killed")
        os.kill(first, signal.SIGKILL)
        wait(lambda: drill.pid("killed") != first, "the killed client's process is replaced")
        drill.goes_on("killed")

        os.kill(drill.pid("leaving"), signal.SIGKILL)
        wait(lambda: "client left" in drill.reasons("leaving"), "the one that leaves is missed")

        (tmp_path / "hanging.hangs").touch()
        wait(lambda: "given up: no answer from hanging" in drill.messages(), "the hanging client is given up")
        drill.goes_on("steady")
        (tmp_path / "hanging.hangs").unlink()
        drill.goes_on("hanging")

        (tmp_path / "steady.diverges").touch()
        wait(lambda: "NaN or an infinity in 'weight'" in drill.messages(), "an update that is not finite is refused")
        (tmp_path / "steady.diverges").unlink()
        drill.goes_on("killed")

        server.send_signal(signal.SIGKILL)
        server.wait()
    at_kill = {span.token: span for span in drill.spans()}
    assert not (drill.run_dir / "summary.json").exists()

    seconds = max(span.ended for span in at_kill.values()) + 8.0
    with drill.server("--resume", "--set", f"budget.seconds={seconds}") as server:
        output, _ = server.communicate(timeout=PATIENCE)
    assert server.returncode == 0, output
    assert "took up checkpoint 1-" in output

    spans = {span.token: span for span in drill.spans()}
    assert len(spans) == len(drill.spans())
    # What had ended before the kill ended in the same way, and the new attempt's clients worked on.
    assert {token: span.outcome for token, span in spans.items() if token in at_kill} == {
        token: span.outcome for token, span in at_kill.items()
    }
    applied = [span for span in spans.values() if span.outcome == "applied"]
    assert {span.worker for span in applied if span.token.startswith("2/")} >= {"steady", "killed", "hanging"}
    model = load_file(drill.run_dir / "model.safetensors")["weight"]
    np.testing.assert_allclose(model, drill.expected(NAMES), rtol=1e-9)
    summary = json.loads((drill.run_dir / "summary.json").read_text())
    assert (summary["updates_applied"], summary["attempts"]) == (len(applied), 2)
    assert all(span.reason for span in spans.values() if span.outcome == "dropped")
    assert not list((drill.run_dir / "spool").glob("*.update"))


def test_a_client_joins_late_with_its_node_and_comes_back_with_another(tmp_path: Path) -> None:
    drill = Drill(tmp_path, NODES)
    (tmp_path / "ray").mkdir()
    with ray_cluster(tmp_path / "ray", "disabled", ["home"], PYTHONPATH=drill.python_path) as cluster:
        drill.environment["RAY_ADDRESS"] = cluster.address
        with drill.server("--preset", str(tmp_path / "drill.yaml")) as server:
            wait(lambda: drill.applied("home") > 2, "the client that has a node works")
            assert not drill.applied("away")
            with cluster.node("away") as node:
                wait(lambda: drill.applied("away") > 1, "the client joins with its node")
                first = drill.pid("away")
                node.kill()
                wait(lambda: "client left" in drill.reasons("away"), "the client is missed")
                drill.goes_on("home")
            with cluster.node("away"):
                drill.goes_on("away")
                assert drill.pid("away") != first
                (tmp_path / "enough").touch()
                output, _ = server.communicate(timeout=PATIENCE)
    assert server.returncode == 0, output
    model = load_file(drill.run_dir / "model.safetensors")["weight"]
    np.testing.assert_allclose(model, drill.expected(["home", "away"]), rtol=1e-9)
    left = [span for span in drill.spans() if span.worker == "away" and span.outcome == "dropped"]
    assert [span.reason for span in left if "client left" in span.reason]
