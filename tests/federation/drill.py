"""Clients whose updates are known beforehand, so that the final model tells what was applied.

An update is ``steps`` times a unit vector of the client's own: the model is the sum of weight times update over the
pieces that the timeline calls applied, each once.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from isogon.system.federation.span_log import read_spans
from isogon.system.federation.timeline import Span
from isogon.system.runs.directory import RunDirectory

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
        return {"score": float((Path(folder) / "enough").exists())}

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


class Drill:
    """The federation's files, and commands to it.

    Args:
        folder: an empty one, of the files by which clients are told what to do, too.
        config: the federation's but for its task, as YAML.
        environment: of the server, beside this process's.
    """

    def __init__(self, folder: Path, config: str, **environment: str) -> None:
        self.folder = folder
        self.run_dir = folder / "run"
        self.python_path = os.pathsep.join([str(folder), str(Path(__file__).parents[2] / "src")])
        self.environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "PYTHONPATH": self.python_path, **environment}
        (folder / "drilled.py").write_text(CLIENTS)
        task = f'task: {{kind: custom, class: "drilled:Drilled", kwargs: {{folder: {folder}}}}}'
        (folder / "drill.yaml").write_text(f"{task}\n{config}")

    @contextmanager
    def server(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """The server, in a process of its own."""
        command = [sys.executable, "-m", "isogon", "federate", "run", *arguments, "--run-dir", str(self.run_dir)]
        process = subprocess.Popen(
            command,
            cwd=self.folder,
            env=self.environment,
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

    def expected(self, names: list[str]) -> np.ndarray:
        """The final model, by what the timeline calls applied; ``names`` are the clients' in the config's order."""
        model = np.zeros(4)
        for span in self.spans():
            if span.outcome == "applied":
                model[names.index(span.worker)] += span.weight * span.amount
        return model

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
