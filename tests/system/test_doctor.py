"""`isogon doctor`: what it reads, what it calls missing, how it ends."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from isogon.system import machine
from isogon.system.cli.app import main
from isogon.system.operations import Fact, doctor, examine, speed
from isogon.system.operations.doctor import IMPORTS, within
from isogon.system.operations.speed import Speed, time_machine
from isogon.system.training import ray_session

PYPROJECT = Path(__file__).parents[2] / "pyproject.toml"


@pytest.fixture(autouse=True)
def no_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")


def found(name: str, folder: Path) -> Fact:
    (fact,) = [fact for fact in examine(folder) if fact.name == name]
    return fact


def test_it_knows_all_that_is_needed() -> None:
    needed = tomllib.loads(PYPROJECT.read_text())["project"]["dependencies"]
    assert {re.split(r"[\[>=<]", line)[0] for line in needed} == set(IMPORTS)


def test_this_installation_lacks_nothing(tmp_path: Path) -> None:
    facts = examine(tmp_path)
    assert [fact for fact in facts if fact.status == "missing"] == []
    names = [fact.name for fact in facts]
    assert len(set(names)) == len(names)
    assert {"isogon", "python", "torch", "numpy", "ray", "gymnasium", "cpu", "cores", "cuda", "torch_threads"} < set(
        names
    )
    assert {"kernel_backend_cpu", "ray_address", "free_memory_bytes", "free_disk_bytes"} < set(names)
    assert found("torch", tmp_path).value == torch.__version__
    assert found("torch_threads", tmp_path).value == torch.get_num_threads()
    assert all(bool(fact.remedy) == (fact.status != "ok") for fact in facts)
    json.dumps([vars(fact) for fact in facts])


@pytest.mark.parametrize(
    ("version", "allowed", "fits"),
    [
        ("2.10.0", ">=2.10", True),
        ("2.9.1", ">=2.10", False),
        ("2.13.0+cpu", ">=2.10", True),
        ("2.60.0", ">=2.60,<3", True),
        ("2.60.0", "<3,>=2.60", True),
        ("3.0.0", ">=2.60,<3", False),
        ("2.60.0rc1", ">=2.60", True),
        ("1", "", True),
        ("unknown", ">=1", True),
    ],
)
def test_bounds_of_versions(version: str, allowed: str, fits: bool) -> None:
    assert within(version, allowed) == fits


def test_a_part_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    fact = found("safetensors", tmp_path)
    assert (fact.status, fact.value, fact.text) == ("missing", None, "not installed")
    assert fact.remedy.startswith("pip install 'safetensors")


def test_a_part_that_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_one.py").write_text("raise OSError('libgomp.so.1: cannot open\\nshared object file')")
    (tmp_path / "needy_one.py").write_text("import there_is_no_such_module")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(doctor, "IMPORTS", {"broken-one": "broken_one", "needy-one": "needy_one"})
    broken, needy = found("broken-one", tmp_path), found("needy-one", tmp_path)
    assert broken.status == needy.status == "missing"
    assert broken.text == ("installed, but does not load (OSError: libgomp.so.1: cannot open shared object file)")
    assert needy.text == "needs there_is_no_such_module, which is not installed"


def test_a_part_that_is_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_requirements", lambda: {"numpy": ">=99"})
    fact = found("numpy", tmp_path)
    assert fact.status == "missing"
    assert fact.text.endswith(", and >=99 is needed")
    assert fact.remedy == "pip install 'numpy>=99'"


def test_requirements_are_read_as_pip_writes_them(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = ["ray[default]<3,>=2.60", "PyYAML>=6.0", 'pytest>=8.3; extra == "dev"']
    monkeypatch.setattr("importlib.metadata.requires", lambda name: lines)
    assert doctor._requirements() == {"ray": "<3,>=2.60", "pyyaml": ">=6.0"}


def test_a_cluster_that_answers_and_one_that_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        monkeypatch.setenv("RAY_ADDRESS", address)
        assert found("ray_address", tmp_path).text == f"{address} answers"
    fact = found("ray_address", tmp_path)
    assert fact.status == "missing"
    assert f"{address} does not answer" in fact.text
    assert "unset RAY_ADDRESS" in fact.remedy
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert found("ray_address", tmp_path).status == "ok"


def test_the_authentication_that_a_cluster_wants(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(tmp_path / "token"))
    assert found("ray_auth_mode", tmp_path).status == "ok"
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    fact = found("ray_auth_mode", tmp_path)
    assert (fact.status, fact.text) == ("missing", "RAY_AUTH_MODE is token, and a token is not there")
    assert "ray get-auth-token --generate" in fact.remedy
    (tmp_path / "token").touch()
    assert found("ray_auth_mode", tmp_path).status == "ok"
    monkeypatch.delenv("RAY_AUTH_MODE")
    assert found("ray_auth_mode", tmp_path).status == "ok"
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert found("ray_auth_mode", tmp_path).status == "note"


@pytest.mark.parametrize(("free", "status"), [(10 * 2**30, "ok"), (2**29, "note"), (2**20, "missing")])
def test_a_disk_that_fills(free: int, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=free, total=2 * free))
    fact = found("free_disk_bytes", tmp_path)
    assert (fact.value, fact.status) == (free, status)


def test_shared_memory_of_a_container(mount_disk: Callable[[str], Path]) -> None:
    (fact,) = doctor._shared_memory(mount_disk("size=64m"))
    assert (fact.value, fact.status) == (64 * 2**20, "note")
    assert "--shm-size=1g" in fact.remedy
    (fact,) = doctor._shared_memory(mount_disk("size=1g"))
    assert fact.status == "ok"
    assert doctor._shared_memory(Path("/there/is/none")) == []
    assert doctor._OBJECT_STORE_BYTES == ray_session._OBJECT_STORE_BYTES


def test_memory_and_cores_of_a_container(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  9000 kB\nMemAvailable:    8000 kB\n")
    assert machine.free_memory(meminfo, tmp_path) == 8000 * 1024
    (tmp_path / "memory.current").write_text("1000\n")
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.free_memory(meminfo, tmp_path) == 8000 * 1024
    (tmp_path / "memory.max").write_text("4000\n")
    assert machine.free_memory(meminfo, tmp_path) == 3000
    assert (machine.free_memory(tmp_path / "none", tmp_path / "none") or 0) > 2**20
    assert machine.cpu_quota(tmp_path) is None
    (tmp_path / "cpu.max").write_text("150000 100000\n")
    assert machine.cpu_quota(tmp_path) == 1.5
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert machine.cpu_quota(tmp_path) is None
    assert machine.describe_machine().startswith(f"{machine.cpu_model()}, {machine.usable_cores()} core")


def test_little_memory_is_noted() -> None:
    assert doctor._memory(2**28).status == "note"
    assert doctor._memory(None).status == doctor._memory(2**34).status == "ok"
    assert doctor._memory(2**28).text == "256 MiB"
    assert doctor._memory(3 * 2**33).text == "24.0 GiB"


# Speed.


def test_the_machine_is_timed_in_the_time_given() -> None:
    torch.set_num_threads(2)
    try:
        began = time.perf_counter()
        measured = time_machine(0.2)
        assert measured.seconds == pytest.approx(time.perf_counter() - began, abs=0.1)
        assert measured.seconds < 30
        assert measured.updates_per_second > 0.1
        assert measured.boards_per_second > 10
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    with pytest.raises(ValueError, match="seconds is 0"):
        time_machine(0)


def test_a_rate_is_what_was_done_in_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    durations = iter([100.0, 0.1, 5.0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1])

    def work() -> int:
        now[0] += next(durations)
        return 7

    # The first call does not count, and one disturbed call does not weigh.
    assert speed._median_rate(work, 5.5) == pytest.approx(70.0)


# The command.


def ended(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as end:
            main(arguments)
    finally:
        signal.signal(signal.SIGTERM, before)
    out, err = capsys.readouterr()
    assert isinstance(end.value.code, int)
    return end.value.code, out, err


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "time_machine", lambda: Speed(81.25, 6000.0, 1, 6.5))


@pytest.mark.usefixtures("quick")
def test_people_are_told(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    code, out, err = ended(capsys, "doctor")
    assert (code, err) == (0, "")
    assert max(map(len, out.splitlines())) <= 40
    assert "81 updates/s" in out
    assert "6,000 boards/s" in out
    assert out.endswith("everything that is needed is there\n")


@pytest.mark.usefixtures("quick")
def test_machines_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = ended(capsys, "doctor", "--json")
    assert (code, err) == (0, "")
    told = json.loads(out)
    assert told["ready"] is True
    assert told["speed"]["updates_per_second"] == 81.25
    assert {"section", "name", "value", "text", "status", "remedy"} == told["facts"][0].keys()


@pytest.mark.parametrize("part", ["torch", "numpy", "ray"])
def test_it_works_where_heavy_parts_are_missing(part: str) -> None:
    script = f"import sys; sys.modules[{part!r}] = None; from isogon.system.cli import main; main(['doctor'])"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script],
        env={**os.environ, "COLUMNS": "40"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 24
    assert f"{part}: not installed: pip install '{part}" in done.stderr
    assert "free disk" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 40


@pytest.mark.parametrize("arguments", [["doctor"], ["doctor", "--json"]])
def test_what_is_missing_ends_it_with_a_code(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    code, out, err = ended(capsys, *arguments)
    assert code == 24
    assert err.startswith("isogon: not ready: gymnasium: not installed: pip install 'gymnasium")
    assert len(err.splitlines()) == 1
    if "--json" in arguments:
        assert json.loads(out)["ready"] is False
        assert json.loads(out)["speed"] is None
    else:
        assert "MISSING: not installed" in out
        assert "updates/s" not in out


def test_it_says_why_the_kernels_are_slow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there was no compiler, and only there."""
    for missing, used, status in ((None, "native", "ok"), ("no compiler was found", "torch", "note")):
        monkeypatch.setattr("isogon.kernels.backends.why_not", lambda name, missing=missing: missing)
        fact = found("kernel_backend_cpu", tmp_path)
        assert (fact.value, fact.status, fact.remedy) == (used, status, missing or "")
        assert ("several times slower" in fact.text) == (missing is not None)
