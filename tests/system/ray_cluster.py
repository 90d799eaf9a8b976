"""A real Ray cluster on this machine, of one node or several, that does not have Isogon."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sysconfig
import tempfile
import time
import venv
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
_START_SECONDS = 90.0


@dataclass(frozen=True)
class RayNode:
    """One node of a cluster: all processes that ``ray start`` started."""

    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """End them at once, as a power cut does; what is of another session is left alone."""
        for pid in _of_session(self.process.pid):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


@dataclass(frozen=True)
class RayCluster:
    """Where it is, the environment for commands against it, and the folders of its nodes: logs, and Ray's own."""

    address: str
    bin: Path
    environment: dict[str, str]
    logs: Path
    temp: Path

    def run(self, command: str | Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command from the repository's root, its errors among its output."""
        return subprocess.run(
            command,
            shell=isinstance(command, str),
            cwd=REPOSITORY,
            env=self.environment | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=180,
            check=False,
        )

    @contextmanager
    def node(self, zone: str, *arguments: str) -> Iterator[RayNode]:
        """Another node of two CPUs, with a label that says its zone, until the block ends."""
        # Nodes that share a folder would take a job's files from under each other's feet.
        self.temp.mkdir(exist_ok=True)
        temp = Path(tempfile.mkdtemp(dir=self.temp))
        arguments = arguments or (f"--address={self.address}",)
        command = [str(self.bin / "ray"), "start", "--block", f"--temp-dir={temp}", f"--labels=zone={zone}", *arguments]
        with _node(command, self.environment, self.logs / f"{zone}-{temp.name}.log") as node:
            yield node


@contextmanager
def ray_cluster(folder: Path, auth_mode: str, zones: Sequence[str], **environment: str) -> Iterator[RayCluster]:
    """A node of two CPUs for each zone, with a label that says so; the first is the head.

    Args:
        folder: an empty one, the home of all that runs. Ray's own files lie elsewhere: sockets' paths are short.
        zones: different ones.
        auth_mode: RAY_AUTH_MODE of everything, in which ``token`` makes a token.
        environment: of the nodes and of commands, beside this process's without its PYTHONPATH.
    """
    binaries = environment_without_isogon(folder / "venv")
    if has_isogon(binaries):
        pytest.skip("Isogon is installed, not as editable: an environment without it cannot be made from this one")
    gcs, dashboard, client = free_ports(3)
    outside = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "PYTHONPATH")}
    cluster = RayCluster(
        f"127.0.0.1:{gcs}",
        binaries,
        outside
        | {
            "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
            "RAY_AUTH_MODE": auth_mode,
            "RAY_AUTH_TOKEN": "0123456789abcdef" * 4,
            "RAY_API_SERVER_ADDRESS": f"http://127.0.0.1:{dashboard}",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",
            "HOME": str(folder),
        }
        | environment,
        folder,
        Path("/tmp") / f"isogon-ray-{gcs}",
    )
    head = ["--head", f"--port={gcs}", f"--dashboard-port={dashboard}", f"--ray-client-server-port={client}"]
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, cluster.temp, ignore_errors=True)
        for zone in zones:
            stack.enter_context(cluster.node(zone, *head))
            head = []
        yield cluster


@contextmanager
def _node(command: list[str], environment: dict[str, str], log: Path) -> Iterator[RayNode]:
    ports = zip(
        ("dashboard-agent-listen-port", "dashboard-agent-grpc-port", "metrics-export-port", "node-manager-port",
         "object-manager-port", "runtime-env-agent-port"),
        free_ports(6),
        strict=True,
    )  # fmt: skip
    command = [
        *command, "--num-cpus=2", "--object-store-memory=100000000", "--min-worker-port=0", "--max-worker-port=0",
        *(f"--{name}={port}" for name, port in ports),
    ]  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(
            command, env=environment, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        deadline = time.monotonic() + _START_SECONDS
        # `ray start` waits for everything that it started before it says that it blocks.
        while "--block" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield RayNode(process)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(30)
        finally:
            # What did not end with it is of its session, and nothing else is.
            RayNode(process).kill()


def _of_session(session: int) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if os.getsid(int(folder.name)) == session:
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def environment_without_isogon(folder: Path) -> Path:
    """A virtual environment that sees what this one has installed, but for Isogon; its folder of commands."""
    venv.create(folder, with_pip=False, symlinks=True)
    binaries = folder / "bin"
    (site,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file is searched, but .pth files in it, such as an editable installation's, are not read.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    ray = binaries / "ray"
    ray.write_text(f"#!{binaries / 'python'}\nfrom ray.scripts.scripts import main\nmain()\n")
    ray.chmod(0o755)
    return binaries


def free_ports(number: int) -> list[int]:
    """Ports that nobody listens on now."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(number)]
        for each in sockets:
            each.bind(("", 0))
        return [each.getsockname()[1] for each in sockets]


def has_isogon(binaries: Path) -> bool:
    """Whether that environment has Isogon after all, as where it is installed and not editable."""
    done = subprocess.run(
        [binaries / "python", "-c", "import isogon"], cwd="/", env={}, capture_output=True, check=False
    )
    return done.returncode == 0
