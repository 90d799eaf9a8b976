"""Federations from config to result, by command and from Python: killed, resumed, refused."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from isogon.learners.plugins import PluginError
from isogon.system.config.files import ConfigError, ResumeRefused
from isogon.system.errors import ExitCode, explain
from isogon.system.federation.config import FederationConfig
from isogon.system.federation.files import load_federation
from isogon.system.federation.run import federate
from isogon.system.federation.span_log import read_spans
from isogon.system.federation.timeline import Span
from isogon.system.runs.directory import RunDirectory

from .counting import BY_STEP

HERE = Path(__file__).parent
SETTINGS: dict[str, Any] = {
    "name": "counting",
    "task": {"kind": "custom", "class": "counting:Counting"},
    "clients": [{"name": "a"}, {"name": "b"}, {"name": "c"}],
    "strategy": {"kind": "fedbuff", "steps": 2, "buffer": 2},
    "budget": {"versions": 3},
    "pool": "in_process",
}


def settings_of(folder: Path, step_seconds: float = 0.0, **changes: Any) -> dict[str, Any]:
    pids = folder / "pids"
    pids.mkdir(exist_ok=True)
    kwargs = {"folder": str(pids), "step_seconds": step_seconds}
    return {**SETTINGS, "task": {**SETTINGS["task"], "kwargs": kwargs}, **changes}


def counted(spans: Sequence[Span], names: Sequence[str]) -> dict[str, np.ndarray]:
    """The model that these pieces come to."""
    total = sum(s.weight * s.amount * (1 + names.index(s.worker)) for s in spans if s.outcome == "applied")
    return {name: np.full(2, total * step) for name, step in BY_STEP.items()}


def check_result(run_dir: Path, names: Sequence[str]) -> dict[str, Span]:
    """Assert that the model is the sum of what was applied, and each piece ended once; all pieces by token."""
    spans, notes = read_spans(RunDirectory.open(run_dir))
    assert not notes
    summary = json.loads((run_dir / "summary.json").read_text())
    model = load_file(run_dir / "model.safetensors")
    for name, expected in counted(spans, names).items():
        np.testing.assert_allclose(model[name], expected, rtol=1e-12)
    applied = [span for span in spans if span.outcome == "applied"]
    assert {s.version + s.staleness + 1 for s in applied} == set(range(2, summary["model_versions"] + 1))
    assert summary["updates_applied"] == len(applied)
    assert summary["local_steps"] == sum(span.amount for span in applied)
    assert not list(run_dir.glob("spool/*.update*"))
    assert (run_dir / "report.html").exists()
    return {span.token: span for span in spans}


@pytest.fixture
def config(quick_disk: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., FederationConfig]:
    monkeypatch.syspath_prepend(str(HERE))

    def make(**changes: Any) -> FederationConfig:
        return FederationConfig.model_validate(settings_of(quick_disk, **changes))

    return make


def command(folder: Path, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "isogon", "federate", "run", "--run-dir", str(folder / "run"), *arguments]


def environment() -> Mapping[str, str]:
    path = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")]))
    return {**os.environ, "PYTHONPATH": path, "RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


def test_a_command_that_is_killed_goes_on_with_resume(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, 0.01, budget={"versions": 10_000})
    (tmp_path / "counting.json").write_text(json.dumps(settings))
    with (tmp_path / "out.txt").open("w") as out:
        arguments = command(tmp_path, "--preset", str(tmp_path / "counting.json"))
        server = subprocess.Popen(arguments, env=environment(), stdout=out, stderr=out, start_new_session=True)
    run = tmp_path / "run"
    try:
        deadline = time.monotonic() + 60
        while not any(run.glob("checkpoints/1-[6-9]/manifest.json")):
            assert server.poll() is None, (tmp_path / "out.txt").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()
    assert not (run / "summary.json").exists()
    newest = max(int(path.parent.name.partition("-")[2]) for path in run.glob("checkpoints/1-*/manifest.json"))
    more = ["--resume", "--set", f"budget.versions={newest + 3}"]
    done = subprocess.run(
        command(tmp_path, *more, "--json"), env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((run / "summary.json").read_text())
    assert json.loads(done.stdout.splitlines()[-1])["model_versions"] == summary["model_versions"]
    assert summary["attempts"] == 2
    assert newest + 4 <= summary["model_versions"] <= newest + 5
    spans = check_result(run, ["a", "b", "c"])
    assert {token.partition("/")[0] for token in spans} == {"1", "2"}


def test_a_federation_from_python_is_taken_up_with_a_larger_budget(
    quick_disk: Path, config: Callable[..., FederationConfig]
) -> None:
    first = federate(config(), run_dir=quick_disk / "run")
    assert first.summary["model_versions"] >= 4
    spans = check_result(quick_disk / "run", ["a", "b", "c"])
    more = federate(config(budget={"versions": 8}), run_dir=quick_disk / "run", resume=True)
    assert more.summary["attempts"] == 2
    assert spans.keys() <= check_result(quick_disk / "run", ["a", "b", "c"]).keys()
    np.testing.assert_array_equal(more.model["weight"], load_file(quick_disk / "run/model.safetensors")["weight"])
    with pytest.raises(ResumeRefused, match=r"strategy\.buffer") as caught:
        federate(config(strategy={"kind": "fedbuff", "buffer": 3}), run_dir=quick_disk / "run", resume=True)
    assert explain(caught.value).code == ExitCode.RESUME_REFUSED


def test_one_that_is_not_durable_begins_anew_and_says_so(
    quick_disk: Path, config: Callable[..., FederationConfig]
) -> None:
    from .federations import Said

    light = config(server={"durable": False})
    federate(light, run_dir=quick_disk / "run")
    said = Said()
    again = federate(light, run_dir=quick_disk / "run", resume=True, callbacks=[said])
    assert "there is no checkpoint" in said.one("it begins anew")
    check_result(quick_disk / "run", ["a", "b", "c"])
    assert again.summary["updates_applied"] == 6


@pytest.mark.parametrize("name", ["checkpoints/1-4/run.json", "checkpoints/1-4/manifest.json"])
def test_checkpoints_that_are_lost_are_told(
    name: str, quick_disk: Path, config: Callable[..., FederationConfig]
) -> None:
    from .federations import Said

    federate(config(), run_dir=quick_disk / "run")
    (quick_disk / "run" / name).unlink()
    said = Said()
    federate(config(), run_dir=quick_disk / "run", resume=True, callbacks=[said])
    assert said.one("the model goes back to version 3: what was applied since then, up to version 4, is lost")
    check_result(quick_disk / "run", ["a", "b", "c"])
    for path in quick_disk.glob("run/checkpoints/*/server.json"):
        path.write_text("{}")
    with pytest.raises(ValueError, match=r"none of the 3 checkpoints in .* is whole") as caught:
        federate(config(), run_dir=quick_disk / "run", resume=True)
    assert explain(caught.value).code == ExitCode.CHECKPOINT


# Own code.


def test_own_code_that_raises_costs_its_piece_and_is_named(
    quick_disk: Path, config: Callable[..., FederationConfig]
) -> None:
    from .federations import Said

    said = Said()
    told = config(budget={"versions": 6})
    (quick_disk / "pids" / "raise-b").touch()
    federate(told, run_dir=quick_disk / "run", callbacks=[said])
    spans = check_result(quick_disk / "run", ["a", "b", "c"]).values()
    assert {span.outcome for span in spans if span.worker == "b"} == {"dropped"}
    lines = [line for line in said.lines if line.startswith("b failed at")]
    assert len(lines) == 3
    assert all("told to raise" in line and "counting.py" in line for line in lines)


@pytest.mark.parametrize(
    ("code", "line"),
    [
        ("class C:\n    pass", "initial_model"),
        ("class C:\n    def train(self): ...\n    def evaluate(self): ...", "initial_model"),
        ("class C(Base):\n    @staticmethod\n    def initial_model(seed): return {}", "expected named numpy arrays"),
        ("class C(Base):\n    @staticmethod\n    def initial_model(seed): return {'a': [1]}", "'a' as a list"),
        ("class C(Base):\n    @staticmethod\n    def initial_model(seed): raise KeyError('x')", "KeyError"),
        ("raise OSError('no licence')", "no licence"),
        ("", "C"),
    ],
)
def test_own_code_that_is_no_client_is_one_line(
    code: str, line: str, quick_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = "class Base:\n    def train(self, model, work): ...\n    def evaluate(self, model, amount, generator): ...\n"
    (quick_disk / "own.py").write_text(base + code)
    monkeypatch.syspath_prepend(str(quick_disk))
    monkeypatch.delitem(sys.modules, "own", raising=False)
    settings = {**SETTINGS, "task": {"kind": "custom", "class": "own:C"}}
    with pytest.raises(PluginError) as caught:
        federate(FederationConfig.model_validate(settings), run_dir=quick_disk / "run")
    told = explain(caught.value)
    assert told.code == ExitCode.CONFIG
    assert line in told.line
    assert "\n" not in told.line
    assert not (quick_disk / "run").exists()


# What no config may say.


@pytest.mark.parametrize(
    ("override", "line"),
    [
        (
            "strategy={kind: fedcompass, q_min: 30, q_max: 20}",
            "q_min is 30 and q_max 20: q_min must not be above q_max",
        ),
        ("clients=[{name: a}, {name: a}]", "two clients are called a: give their groups different names"),
        ("clients=[{name: a, count: 2}, {name: a-1}]", "two clients are called a-1"),
        ("server.average={kind: krum}", "server.average is krum, which needs 5 updates in every commit"),
        ("server.average={kind: median}", "strategy fedbuff is sure of 2"),
        ("participants=[a, d]", "participants has d"),
        ("least_clients=4", "least_clients is 4 and there are 3"),
        ("budget={target: 1}", "a budget needs at least one of"),
        ("silence={factor: 0.5}", "silence.factor"),
        ("strategy={kind: fedbuff, buffers: 3}", "buffer"),
    ],
)
def test_what_does_not_go_together_is_one_line(override: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "counting.json"
    path.write_text(json.dumps(SETTINGS))
    with pytest.raises(ConfigError) as caught:
        load_federation(str(path), [override])
    told = explain(caught.value)
    assert told.code == ExitCode.CONFIG
    assert line in told.line
