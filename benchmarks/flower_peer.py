"""Flower's simulation as a competitor: in an environment and in processes of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from federation_rounds import Size

VERSIONS = "flwr 1.42.0 on ray 2.55.1"
_SCRIPT = Path(__file__).with_name("flower_rounds.py")
# What Flower asks for, but for its pins of versions that exclude each other's dependencies.
_REQUIREMENTS = (
    *("certifi", "grpcio>=1.70", "grpcio-health-checking", "protobuf>=5.28,<7", "cryptography", "pycryptodome"),
    *("iterators<0.0.3", "typer<0.21", "tomli", "tomli-w", "pathspec", "prompt-toolkit", "rich<15", "pyyaml"),
    *("requests", "httpx", "click<9", "packaging<26", "sqlalchemy[asyncio]", "alembic", "uvicorn[standard]"),
    *("fastapi", "starlette", "numpy<3", "ray==2.55.1"),
)


class FlowerAbsent(RuntimeError):
    """It cannot be measured here; the message says why."""


def flower_python(folder: Path) -> Path:
    """The Python of an environment with Flower, which is made where it is missing.

    Raises:
        FlowerAbsent: it could not be installed.
    """
    python = folder / "bin" / "python"
    done = folder / "installed"
    if done.exists():
        return python
    pip = [str(python), "-m", "pip", "install", "--quiet"]
    for command in (
        [sys.executable, "-m", "venv", "--clear", str(folder)],
        [*pip, "--no-deps", "flwr==1.42.0", "uv<0.14"],
        [*pip, *_REQUIREMENTS],
    ):
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        if ended.returncode:
            lines = (ended.stderr or ended.stdout).strip().splitlines() or [f"exit status {ended.returncode}"]
            raise FlowerAbsent(f"Flower could not be installed: {lines[-1]}")
    done.touch()
    return python


class FlowerRounds:
    """A simulation that runs; `flower_rounds` makes one."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process = process
        self._log = log

    def answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            last = self._log.read_text("utf-8", "replace").strip().splitlines()[-1:]
            raise FlowerAbsent(f"Flower's simulation ended: {' '.join(last)}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def round(self) -> float:
        """Seconds of one. Raises FlowerAbsent where it fails."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        answer = self.answer()
        if answer["failed"]:
            raise FlowerAbsent(f"a client of Flower's simulation failed: {answer['failed'][0]}")
        return float(answer["seconds"])


@contextmanager
def flower_rounds(python: Path, size: Size) -> Iterator[FlowerRounds]:
    """A simulation of this size, with as many processes for its clients as there are clients.

    Raises:
        FlowerAbsent: it does not start.
    """
    command = [str(python), str(_SCRIPT), f"--clients={size.clients}", f"--nbytes={size.nbytes}"]
    command.append(f"--rounds={size.warmup + size.rounds}")
    # Isogon's own source is not for Flower's Python, whose packages are others.
    environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "RAY_ADDRESS")}
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "FLWR_TELEMETRY_ENABLED": "0", "RAY_AUTH_MODE": "disabled"}
    environment |= {"RAY_worker_niceness": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log.txt").open("w") as log:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=environment
        )
        try:
            rounds = FlowerRounds(process, Path(folder) / "log.txt")
            rounds.answer()
            yield rounds
        finally:
            # At the end of its input it makes the rounds that are left, all at once, and ends its own Ray.
            process.communicate(timeout=120)
