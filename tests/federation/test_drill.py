"""The drill: one federation on a real Ray, and everything that can be lost is lost on the way.

Each client's update is known beforehand, ``steps`` times a vector of its own, so that the final model tells what was
applied: the sum of weight times update over the pieces that the timeline calls applied, each once.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from isogon.system.federation.span_log import read_spans
from isogon.system.federation.timeline import Span
from isogon.system.runs.directory import RunDirectory

pytestmark = pytest.mark.ray

NAMES = ["steady", "killed", "hanging", "leaving"]
PATIENCE = 180.0

CLIENTS = '''
import os, time
from pathlib import Path
import numpy as np
from isogon.actors.federation import LocalModel


class Drilled:
    """Its update is known: steps times a unit vector of its own. What it does is told by files in a folder."""

    samples = 10

    def __init__(self, silo, folder):
        self.silo, self.folder = silo, Path(folder)
        (self.folder / f"{silo.name}.pid").write_text(str(os.getpid()))

    @staticmethod
    def initial_model(seed, folder):
        return {"weight": np.zeros(4)}

    @staticmethod
    def evaluate_on_server(model, folder):
        return {"score": float(model["weight"].sum())}

    def train(self, model, work):
        for _ in range(work.steps):
            work.after_step()
        while (self.folder / f"{self.silo.name}.hangs").exists():
            time.sleep(0.05)
        weight = model["weight"].copy()
        weight[self.silo.index] += work.steps
        if (self.folder / f"{self.silo.name}.diverges").exists():
            weight[:] = np.nan
        return LocalModel({"weight": weight}, work.steps)

    def evaluate(self, model, amount, generator):
        return {"score": float(model["weight"].sum())}
'''

CONFIG = """
name: drill
task: {{kind: custom, class: "drilled:Drilled", kwargs: {{folder: {folder}}}}}
clients:
  - {{name: steady, num_cpus: 0.5, seconds_per_step: 0.02}}
  - {{name: killed, num_cpus: 0.5, seconds_per_step: 0.03}}
  - {{name: hanging, num_cpus: 0.5, seconds_per_step: 0.04}}
  - {{name: leaving, num_cpus: 0.5, seconds_per_step: 0.04, max_restarts: 0}}
least_clients: 4
strategy: {{kind: fedcompass, q_min: 4, q_max: 16}}
silence: {{factor: 1.5, least_seconds: 3.0}}
budget: {{seconds: 1000}}
"""


class Drill:
    """The federation's files, and commands to it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        (folder / "drilled.py").write_text(CLIENTS)
        (folder / "drill.yaml").write_text(CONFIG.format(folder=folder))

    @contextmanager
    def server(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The server, in a process of its own."""
        source = Path(__file__).parents[2] / "src"
        path = os.pathsep.join([str(self.folder), str(source)])
        command = [sys.executable, "-m", "isogon", "federate", "run", *arguments, "--run-dir", str(self.run_dir)]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env={**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.communicate()

    def pid(self, client: str) -> int:
        return int((self.folder / f"{client}.pid").read_text())

    def spans(self) -> list[Span]:
        return read_spans(RunDirectory.open(self.run_dir))[0] if (self.run_dir / "config.yaml").exists() else []

    def applied(self, client: str) -> int:
        return sum(span.worker == client and span.outcome == "applied" for span in self.spans())

    def reasons(self, client: str) -> str:
        return "; ".join(span.reason for span in self.spans() if span.worker == client)

    def messages(self) -> str:
        return "".join(path.read_text() for path in sorted(self.run_dir.glob("attempts/*/messages.txt")))

    def goes_on(self, client: str) -> None:
        """Wait until more of this client's work is applied."""
        before = self.applied(client)
        wait(lambda: self.applied(client) > before + 1, f"{client} went on")


def wait(until: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not until():
        assert time.monotonic() < deadline, f"it never came to this: {what}"
        time.sleep(0.1)


def test_whatever_is_lost_the_model_is_the_sum_of_what_was_applied(tmp_path: Path) -> None:
    drill = Drill(tmp_path)
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
    expected = np.zeros(4)
    for span in applied:
        expected[NAMES.index(span.worker)] += span.weight * span.amount
    np.testing.assert_allclose(load_file(drill.run_dir / "model.safetensors")["weight"], expected, rtol=1e-9)
    summary = json.loads((drill.run_dir / "summary.json").read_text())
    assert (summary["updates_applied"], summary["attempts"]) == (len(applied), 2)
    assert all(span.reason for span in spans.values() if span.outcome == "dropped")
    assert not list((drill.run_dir / "spool").glob("*.update"))
