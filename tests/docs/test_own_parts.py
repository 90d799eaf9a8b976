"""The pages on own code, done as a reader does: the files as they stand there, in an empty folder, and the commands."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from isogon.system.config.files import load_config
from isogon.system.runs.directory import RunDirectory

DOCS = Path(__file__).parents[2] / "docs"
FILE = re.compile(r"^`(?P<name>[\w.]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
CONSOLE = re.compile(r"^```console\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = {"isogon": [sys.executable, "-m", "isogon"], "python": [sys.executable]}
SCRIPT = re.compile(r"^```python\n(import isogon\n.*?)^```$", re.MULTILINE | re.DOTALL)


def write_files(page: str, folder: Path) -> list[str]:
    """The page's files, as a reader copies them."""
    files = {match["name"]: match["text"] for match in FILE.finditer(page)}
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return sorted(files)


def commands(page: str) -> list[tuple[str, str]]:
    """Each command with the output that the page shows, empty where it shows none."""
    parts = [part for block in CONSOLE.findall(page) for part in f"\n{block}".split("\n$ ")[1:]]
    return [(command, output.strip()) for command, _, output in (part.partition("\n") for part in parts)]


def run(words: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    quiet = {"RAY_AUTH_MODE": "disabled", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_USAGE_STATS_ENABLED": "0"}
    environment = {**os.environ, **quiet, "COLUMNS": "200"}
    environment.pop("RAY_ADDRESS", None)
    return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, timeout=180, check=False)


@pytest.mark.ray
@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("own-environment", ["grid.yaml", "grid_world.py", "vector_grid.py"]),
        ("own-network", ["my_encoding.py", "my_network.py", "pole.yaml"]),
        ("callbacks", ["my_callback.py", "pole.yaml"]),
        (
            "own-federation",
            ["line.py", "line.yaml", "quorum.py", "quorum.yaml", "record.py", "rings.py", "rings.yaml"],
        ),
    ],
)
def test_the_page_does_what_it_says(name: str, files: list[str], tmp_path: Path) -> None:
    page = (DOCS / f"{name}.md").read_text(encoding="utf-8")
    assert write_files(page, tmp_path) == files
    for command, output in commands(page):
        program, *arguments = shlex.split(command)
        done = run([*PROGRAMS.get(program, [program]), *arguments], tmp_path)
        refused = output.startswith("isogon: ")
        assert done.returncode == (2 if refused else 0), (command, done.stderr)
        assert "Traceback" not in done.stdout + done.stderr, command
        if output:
            assert done.stderr.strip() == output, command
    for number, script in enumerate(SCRIPT.findall(page)):
        done = run([sys.executable, "-c", script], tmp_path)
        assert done.returncode == 0, (number, done.stderr)
    CHECKS[name](tmp_path)


def check_environment(folder: Path) -> None:
    summary = json.loads((folder / "runs" / "grid" / "summary.json").read_text())
    assert summary["evaluation_return"] == -8, "the shortest way takes 8 steps"
    vector = RunDirectory.open(folder / "runs" / "vector")
    checkpoint = vector.latest_checkpoint(pytest.fail)
    assert checkpoint is not None
    assert json.loads((folder / "runs" / "grid-ray" / "summary.json").read_text())["env_steps"] >= 1500
    assert len(list((folder / "runs").glob("*"))) == 3, "a refused run left a directory"


def check_network(folder: Path) -> None:
    config = load_config(str(folder / "runs" / "pole" / "config.yaml"))
    assert config == load_config(str(folder / "pole.yaml"))
    checkpoint = RunDirectory.open(folder / "runs" / "pole").latest_checkpoint(pytest.fail)
    assert checkpoint is not None
    weights = checkpoint.parts["learner"]["module"]
    assert weights["torso.torso.module.first.weight"].shape == (64, 4 * 6)


def check_callbacks(folder: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # type: ignore[import-untyped]

    run_dir = folder / "runs" / "pole"
    diary = [json.loads(line) for line in (run_dir / "evaluations.jsonl").read_text().splitlines()]
    assert len(diary) == 3
    events = EventAccumulator(str(run_dir / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert {"isogon_learner_loss_nats", "isogon_phase_seconds_total/learning"} <= set(tags)
    shown = {event.step: event.value for event in events.Scalars("evaluation/mean_return")}
    assert shown == pytest.approx({line["updates"]: line["mean_return"] for line in diary})
    best = max(RunDirectory.open(run_dir).read_scores().values())
    assert best == max(line["mean_return"] for line in diary)
    assert (folder / "runs" / "pole-1" / "diary.jsonl").exists()


def check_federation(folder: Path) -> None:
    runs = folder / "runs"
    summaries = {path.parent.name: json.loads(path.read_text()) for path in runs.glob("*/summary.json")}
    assert sorted(summaries) == ["left", "line", "line-1", "line-ray", "quorum", "rings"]
    assert summaries["rings"]["score"] > 0.95
    assert summaries["rings"]["score"] > summaries["left"]["score"]
    assert (summaries["rings"]["clients"], summaries["left"]["clients"]) == (3, 1)
    assert set(summaries["line-ray"]["by_client"]) == {"fast-0", "fast-1", "slow"}
    # Who follows the line all the way is off by its noise alone, and the first model by 1.
    assert all(summaries[name]["score"] > -0.1 for name in ("line", "line-1", "line-ray"))
    assert summaries["quorum"]["model_versions"] == 21
    # Half of six come in time.
    assert summaries["quorum"]["updates_applied"] == 60
    rows = [
        json.loads(line) for line in (runs / "quorum" / "attempts" / "1" / "timeline.jsonl").read_text().splitlines()
    ]
    assert {row["reason"] for row in rows if row["outcome"] == "dropped"} == {"came after its round", "the run ends"}
    simulated = json.loads((runs / "simulated" / "simulation.json").read_text())
    assert {run["strategy"] for run in simulated["runs"]} == {"quorum", "fedcompass"}
    assert len(list(runs.iterdir())) == 7, "a refused run left a directory"


CHECKS = {
    "own-environment": check_environment,
    "own-network": check_network,
    "own-federation": check_federation,
    "callbacks": check_callbacks,
}
