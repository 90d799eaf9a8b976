"""Metrics are declared once, counted cheaply, and exported as declared: each exporter against a real scrape."""

from __future__ import annotations

import json
import math
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import prometheus_client
import prometheus_client.parser
import pytest

import isogon.system.metrics.recorder as m
from isogon.system.metrics.exporters import NullExporter, PrometheusExporter
from isogon.system.metrics.recorder import METRICS, Metric, MetricsRecorder


class Listing:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def count(self, metric: Metric, labels: Mapping[str, str], amount: float) -> None:
        self.told.append(("count", metric.name, dict(labels), amount))

    def set(self, metric: Metric, labels: Mapping[str, str], value: float) -> None:
        self.told.append(("set", metric.name, dict(labels), value))

    def observe(self, metric: Metric, labels: Mapping[str, str], values: Sequence[float]) -> None:
        self.told.append(("observe", metric.name, dict(labels), list(values)))

    def close(self) -> None:
        self.told.append(("close",))


@pytest.fixture
def listing() -> Listing:
    return Listing()


@pytest.fixture
def recorder(listing: Listing) -> MetricsRecorder:
    return MetricsRecorder("wordle-1", listing)


def test_the_declared_names_keep_the_rules() -> None:
    assert {"isogon_env_steps_total", "isogon_learner_updates_total", "isogon_learner_loss_nats"} < METRICS.keys()
    assert {"isogon_episode_return", "isogon_phase_seconds_total", "isogon_pool_queue_results"} < METRICS.keys()
    for name, metric in METRICS.items():
        assert metric.name == name
        assert metric.unit == "1" or metric.unit in name.split("_"), name
        assert metric.help
        assert "\n" not in metric.help
    assert len({metric.help for metric in METRICS.values()}) == len(METRICS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": "env_steps_total"},
        {"name": "isogon_env_steps"},
        {"name": "isogon_Env_total"},
        {"kind": "gauge"},
        {"labels": ("worker",)},
        {"labels": ("run",)},
        {"boundaries": (1.0,)},
        {"name": "isogon_x_seconds", "kind": "histogram"},
        {"name": "isogon_x_seconds", "kind": "histogram", "boundaries": (0.0, 1.0)},
        {"name": "isogon_x_seconds", "kind": "histogram", "boundaries": (2.0, 1.0)},
    ],
)
def test_declarations_that_break_the_rules_are_refused(wrong: dict[str, Any]) -> None:
    right: dict[str, Any] = {"name": "isogon_x_total", "kind": "counter", "unit": "x", "help": "x"}
    Metric(**right)
    with pytest.raises(ValueError, match=r"metric '.*: expected|metric '.* has the (labels|boundaries)"):
        Metric(**{**right, **wrong})


def test_only_what_changed_is_exported_and_only_when_flushed(recorder: MetricsRecorder, listing: Listing) -> None:
    recorder.count(m.ENV_STEPS, 3)
    recorder.count(m.ENV_STEPS, 4)
    recorder.count(m.PHASE_SECONDS, 0.5, phase="learning")
    recorder.count(m.EPISODES, 0)
    recorder.set(m.EPISODE_RETURN, 1.0)
    recorder.set(m.EPISODE_RETURN, 2.0)
    recorder.observe(m.CHECKPOINT_SECONDS, 0.25)
    recorder.observe(m.CHECKPOINT_SECONDS, 4)
    assert listing.told == []
    run = {"run": "wordle-1"}
    recorder.flush()
    assert listing.told == [
        ("count", "isogon_env_steps_total", run, 7.0),
        ("count", "isogon_phase_seconds_total", {**run, "phase": "learning"}, 0.5),
        ("set", "isogon_episode_return", run, 2.0),
        ("observe", "isogon_checkpoint_seconds", run, [0.25, 4.0]),
    ]
    listing.told.clear()
    recorder.flush()
    assert listing.told == []
    recorder.count(m.ENV_STEPS)
    recorder.set(m.EPISODE_RETURN, 2.0)
    recorder.close()
    assert listing.told == [
        ("count", "isogon_env_steps_total", run, 1.0),
        ("set", "isogon_episode_return", run, 2.0),
        ("close",),
    ]


def test_a_snapshot_has_the_newest_figures(recorder: MetricsRecorder) -> None:
    seven: Any = np.int64(7)
    figure: Any = np.float32(-3.5)
    recorder.count(m.ENV_STEPS, seven)
    recorder.flush()
    recorder.count(m.ENV_STEPS, 2)
    recorder.count(m.PHASE_SECONDS, 0.5, phase="learning")
    recorder.count(m.PHASE_SECONDS, 1.5, phase="sampling")
    recorder.set(m.EPISODE_RETURN, figure)
    recorder.observe(m.CHECKPOINT_SECONDS, np.float64(0.25))
    recorder.observe(m.CHECKPOINT_SECONDS, 0.5)
    snapshot = recorder.snapshot()
    assert snapshot == {
        "isogon_env_steps_total": 9.0,
        'isogon_phase_seconds_total{phase="learning"}': 0.5,
        'isogon_phase_seconds_total{phase="sampling"}': 1.5,
        "isogon_episode_return": -3.5,
        "isogon_checkpoint_seconds_sum": 0.75,
        "isogon_checkpoint_seconds_count": 2.0,
    }
    assert {type(value) for value in snapshot.values()} == {float}


def test_totals_go_on_after_a_resume_and_exports_begin_anew(recorder: MetricsRecorder, listing: Listing) -> None:
    recorder.count(m.ENV_STEPS, np.float64(1000))
    recorder.count(m.PHASE_SECONDS, 5.5, phase="learning")
    recorder.set(m.EPISODE_RETURN, 1.0)
    state = json.loads(json.dumps(recorder.state_dict()))
    state["counters"].append({"name": "isogon_of_old_total", "labels": {}, "total": 1.0})
    resumed = MetricsRecorder("wordle-1", listing)
    resumed.load_state_dict(state)
    resumed.count(m.ENV_STEPS, 1)
    assert resumed.snapshot() == {
        "isogon_env_steps_total": 1001.0,
        'isogon_phase_seconds_total{phase="learning"}': 5.5,
    }
    resumed.flush()
    assert listing.told == [("count", "isogon_env_steps_total", {"run": "wordle-1"}, 1.0)]
    assert {type(entry["total"]) for entry in recorder.state_dict()["counters"]} == {float}


@pytest.mark.parametrize("amount", [-1, -1e-9, math.nan, math.inf])
def test_counters_only_go_up(amount: float, recorder: MetricsRecorder) -> None:
    with pytest.raises(ValueError, match="isogon_env_steps_total cannot go up by"):
        recorder.count(m.ENV_STEPS, amount)
    assert recorder.snapshot() in ({}, {"isogon_env_steps_total": 0.0})


def test_misuse_is_refused(recorder: MetricsRecorder) -> None:
    twin = Metric(m.ENV_STEPS.name, "counter", "steps", "a twin")
    for undeclared in (twin, Metric("isogon_other_total", "counter", "1", "undeclared")):
        with pytest.raises(ValueError, match="is not declared"):
            recorder.count(undeclared)
    for labels in ({}, {"phase": "x", "role": "y"}, {"role": "y"}):
        with pytest.raises(ValueError, match=r"isogon_phase_seconds_total has the labels \('phase',\): got"):
            recorder.count(m.PHASE_SECONDS, 1.0, **labels)
    with pytest.raises(ValueError, match="isogon_env_steps_total is a counter, no gauge"):
        recorder.set(m.ENV_STEPS, 1)
    with pytest.raises(ValueError, match="isogon_episode_return is a gauge, no counter"):
        recorder.count(m.EPISODE_RETURN)
    with pytest.raises(ValueError, match="cannot observe nan"):
        recorder.observe(m.CHECKPOINT_SECONDS, math.nan)


def test_recording_costs_the_hot_loop_little(recorder: MetricsRecorder) -> None:
    times = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(2000):
            recorder.count(m.LEARNER_UPDATES)
            recorder.count(m.PHASE_SECONDS, 0.001, phase="learning")
            recorder.set(m.LEARNER_LOSS, 1.0)
        times.append((time.perf_counter() - began) / 2000)
    assert min(times) < 100e-6, "three figures should take a few microseconds"


def record_everything(recorder: MetricsRecorder) -> None:
    for metric in METRICS.values():
        labels = dict.fromkeys(metric.labels, "learning")
        if metric.kind == "counter":
            recorder.count(metric, 7, **labels)
        elif metric.kind == "gauge":
            recorder.set(metric, -2.5, **labels)
        else:
            recorder.observe(metric, 0.25, **labels)


def check_prometheus(text: str, prefix: str = "") -> None:
    """Every metric is there, of its kind, with its help, its labels and the figure of `record_everything`."""
    families = {family.name: family for family in prometheus_client.parser.text_string_to_metric_families(text)}
    for metric in METRICS.values():
        family = families[prefix + metric.name.removesuffix("_total")]
        assert (family.type, family.documentation) == (metric.kind, metric.help)
        samples = {sample.name: sample for sample in family.samples if sample.labels.get("run") == "r-1"}
        sample = samples[prefix + metric.name + ("_count" if metric.kind == "histogram" else "")]
        assert sample.value == {"counter": 7.0, "gauge": -2.5, "histogram": 1.0}[metric.kind]
        assert set(sample.labels) >= {"run", *metric.labels}


def test_prometheus_scrapes_what_was_recorded() -> None:
    exporter = PrometheusExporter(port=0)
    recorder = MetricsRecorder("r-1", exporter)
    try:
        record_everything(recorder)
        recorder.flush()
        with urllib.request.urlopen(f"http://127.0.0.1:{exporter.port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    finally:
        recorder.close()
    check_prometheus(text)
    assert re.search(r'isogon_checkpoint_seconds_bucket\{le="0\.3",run="r-1"\} 1\.0', text)
    assert 'isogon_checkpoint_seconds_sum{run="r-1"} 0.25' in text
    assert re.search(r'isogon_checkpoint_seconds_bucket\{le="0\.1",run="r-1"\} 0\.0', text)
    recorder.close()
    assert exporter.port is None


def test_a_registry_of_ones_own_and_no_server() -> None:
    registry = prometheus_client.CollectorRegistry()
    exporter = PrometheusExporter(registry)
    recorder = MetricsRecorder("r-1", exporter)
    record_everything(recorder)
    recorder.close()
    assert exporter.port is None
    check_prometheus(prometheus_client.generate_latest(registry).decode())
    assert "isogon" not in prometheus_client.generate_latest().decode()


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"metrics cannot be served on 127.0.0.1:{port}: Address already in use"):
            PrometheusExporter(port=port)


def test_without_an_exporter_figures_are_kept_and_ray_is_not_imported() -> None:
    recorder = MetricsRecorder("r-1", NullExporter())
    record_everything(recorder)
    recorder.close()
    assert recorder.snapshot()["isogon_env_steps_total"] == 7.0
    program = "import sys, isogon.system.metrics.exporters; assert 'ray' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


RAY_PROGRAM = """
import sys
import ray
sys.path.insert(0, sys.argv[1])
from test_metrics import record_everything
from isogon.system.metrics.exporters import RayExporter
from isogon.system.metrics.recorder import MetricsRecorder
ray.init(address="local", num_cpus=1, include_dashboard=False, object_store_memory=80 * 2**20, log_to_driver=False)
recorder = MetricsRecorder("r-1", RayExporter())
record_everything(recorder)
recorder.close()
print(ray.nodes()[0]["MetricsExportPort"], flush=True)
sys.stdin.read()
ray.shutdown()
"""


@pytest.mark.ray
def test_ray_exports_what_was_recorded() -> None:
    environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "RAY_metrics_report_interval_ms": "1000"}
    environment.pop("RAY_ADDRESS", None)
    program = subprocess.Popen(
        [sys.executable, "-c", RAY_PROGRAM, os.path.dirname(__file__)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert program.stdout is not None
    try:
        port = int(program.stdout.readline())
        text = scrape_until(port, "ray_isogon_checkpoint_seconds_sum", deadline=time.monotonic() + 30)
    finally:
        program.communicate(timeout=60)
    check_prometheus(text, prefix="ray_")
    assert program.returncode == 0


def scrape_until(port: int, name: str, deadline: float) -> str:
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                text: str = answer.read().decode()
        except OSError:
            text = ""
        if name in text:
            return text
        if time.monotonic() > deadline:
            pytest.fail(f"{name} was not exported; these were: {sorted(set(re.findall(r'ray_isogon_[a-z_]+', text)))}")
        time.sleep(0.3)
