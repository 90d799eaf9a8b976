"""`isogon train`: what fails, what is printed, how it is interrupted."""

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import ModuleType

import pytest

from isogon.system.cli.endings import program

from .command_line import FAKE, PLAIN, Isogon, isogon_process, make_run


@pytest.mark.parametrize(
    ("fake", "code", "words", "logged"),
    [
        ("disk", 13, "the disk is full, writing runs/pole-1/x", "OSError"),
        (
            "worker",
            21,
            "raised RuntimeError: no ROM (details: runs/pole-1/attempts/2/log.txt)",
            "WorkFailed",
        ),
        ("bug", 1, "bug of Isogon, please report it with runs/pole-1/attempts/2/log.txt", "KeyError: 'nobody knows'"),
        ("like_ray", 143, "terminated", "SystemExit: 15"),
    ],
)
def test_a_run_that_fails(isogon: Isogon, fake: str, code: int, words: str, logged: str) -> None:
    line = isogon("train", "pole.yaml", FAKE=fake).line(code)
    assert words in line
    assert line.endswith(f"; go on with: {program()} train --resume --run-dir runs/pole-1")
    log = Path("runs/pole-1/attempts/2/log.txt").read_text()
    assert logged in log
    assert "Traceback" in log


def test_a_run_that_fails_before_it_begins_offers_no_resume(isogon: Isogon) -> None:
    assert "resume" not in isogon("train", "pole.yaml", FAKE="early").line(13)


def test_a_bug_before_there_is_a_run_leaves_a_log(
    isogon: Isogon, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("logs")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    monkeypatch.setitem(sys.modules, "isogon.system.api", ModuleType("api"))
    line = isogon("train", "pole.yaml").line(1)
    (log,) = folder.iterdir()
    assert line.endswith(f"this is a bug of Isogon, please report it with {log}")
    assert "ImportError" in log.read_text()


def test_piped_output_is_plain_lines(folder: Path) -> None:
    result = isogon_process(folder, "train", "pole.yaml", COLUMNS="40")
    assert (result.code, result.err) == (0, "")
    assert all(character.isprintable() or character == "\n" for character in result.out)
    lines = result.out.splitlines()
    assert lines[0] == "run runs/pole-1"
    assert sum("validation: mean_return -3.500  solved 0.500" in line for line in lines) == 4
    assert sum("checkpoint 1-" in line for line in lines) == 4
    assert [line for line in lines if " offline " in line or " online " in line][1].startswith("   2.0 s  online 50%")
    assert lines[-2:] == ["summary in runs/pole-1/summary.json", "report in runs/pole-1/report.html"]
    assert "475.25 (95 %: 470.00 to 480.00)" in " ".join(result.out.split())


def test_a_resumed_run_takes_its_own_config(folder: Path, isogon: Isogon) -> None:
    make_run(folder)
    result = isogon("train", "--resume", "--run-dir", "run", "--set", "budget.env_steps=2000")
    assert (result.code, result.err) == (0, "")
    assert "run run, resumed from checkpoint 1-500" in result.out


def test_json_is_all_there_is_on_stdout(folder: Path) -> None:
    result = isogon_process(folder, "train", "pole.yaml", "--json", "--seed", "5", FAKE="chatter")
    assert result.code == 0
    events = [json.loads(line) for line in result.out.splitlines()]
    assert events[0] == {
        "event": "start",
        "name": "pole",
        "seed": 5,
        "run_dir": "runs/pole-1",
        "resumed_from": None,
    }
    kinds = [event["event"] for event in events]
    assert set(kinds) == {"start", "message", "progress", "evaluation", "checkpoint", "summary"}
    assert kinds.index("summary") == len(kinds) - 1
    assert events[-1]["evaluation_return"] == 475.25
    assert events[-1]["not_finite"] is None
    assert events[-1]["summary_file"] == "runs/pole-1/summary.json"
    assert events[-1]["report_file"] == "runs/pole-1/report.html"
    assert "chatter from a child" in result.err
    assert "chatter from Python" in result.err


@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_signals_end_the_run_and_say_how_to_resume(folder: Path, number: signal.Signals, code: int, word: str) -> None:
    process = subprocess.Popen(
        [sys.executable, FAKE, "train", "pole.yaml", "--run-dir", "my run"],
        cwd=folder, env=PLAIN | {"FAKE": "wait"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    while process.stdout.readline() != "waiting\n":
        assert process.poll() is None
    process.send_signal(number)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == code
    assert errors == f"isogon: {word}; go on with: isogon train --resume --run-dir 'my run'\n"
