"""The command line as a whole: help, bad input, how it is called, pipes and disks behind it."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from isogon import __version__
from isogon.system.cli.app import app
from isogon.system.cli.endings import program

from .command_line import FAKE, PLAIN, Isogon, isogon_process, make_run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["train", "evaluate", "play", "config", "isogon train wordle"]),
        (["-h"], ["Examples"]),
        (["train", "--help"], ["Examples", "--set", "--resume", "isogon train wordle --set", "--json", "Ctrl-C"]),
        (["evaluate", "--help"], ["Examples", "isogon evaluate runs/wordle-1"]),
        (["report", "--help"], ["Examples", "isogon report runs/wordle-1", "--output"]),
        (["play", "wordle", "--help"], ["Examples", "--word", "--advise", "isogon play wordle runs/wordle-1"]),
        (["doctor", "--help"], ["Examples", "--json", "24"]),
        (["config", "--help"], ["list", "show"]),
        (["config", "show", "--help"], ["Examples", "--explain"]),
    ],
)
@pytest.mark.parametrize("columns", ["40", "100"])
def test_help_teaches(arguments: list[str], words: list[str], columns: str) -> None:
    result = CliRunner(env={"COLUMNS": columns, "TERMINAL_WIDTH": columns}).invoke(app, arguments)
    assert result.exit_code in (0, 2)
    unfolded = " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.output).split())
    assert all(word in unfolded for word in words), unfolded
    assert "[bold]" not in result.output


def test_help_is_quick_and_loads_nothing_heavy(folder: Path) -> None:
    script = (
        "import sys\nfrom isogon.system.cli import main\n"
        "try: main(['train', '--help'])\nexcept SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'ray', 'numpy', 'gymnasium'} & set(sys.modules)\nassert not heavy, heavy"
    )
    began = time.monotonic()
    assert isogon_process(folder, program=["-c", script]).code == 0
    # It takes 0.15 s; the rest is for a busy machine.
    assert time.monotonic() - began < 5


def test_no_arguments_are_a_call_for_help(folder: Path) -> None:
    result = isogon_process(folder, program=["-m", "isogon"])
    assert (result.code, result.err) == (0, "")
    assert "isogon train wordle" in result.out


def test_version(folder: Path) -> None:
    assert isogon_process(folder, "--version", program=["-m", "isogon"]).out == f"isogon {__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["trian"], 2, "Did you mean 'train'?"),
        (["train", "--sed", "1"], 2, "No such option"),
        (["train", "pole.yaml", "--seed", "x"], 2, "'--seed'"),
        (["train"], 2, "or a config file, as in: isogon train wordle"),
        (["train", "wordel"], 2, "unknown preset wordel: did you mean wordle?"),
        (["train", "none.yaml"], 2, "config file none.yaml cannot be read"),
        (["train", "pole.yaml", "--set", "sed=1"], 2, "unknown key sed in --set sed=1: did you mean seed?"),
        (["train", "pole.yaml", "--seed", "-1"], 2, "seed is -1 in --set seed=-1"),
        (["config", "show", "pole.yaml", "--set", "seed=x"], 2, 'seed is "x" in --set seed=x'),
        (["train", "--resume"], 2, "--resume needs --run-dir DIR"),
        (["train", "--resume", "--run-dir", "none"], 10, "run directory none is not there"),
        (["train", "--resume", "--run-dir", "run", "--seed", "7"], 12, "seed: 0 -> 7"),
        (["evaluate"], 2, "Missing argument 'RUN...'"),
    ],
)
def test_bad_input(folder: Path, isogon: Isogon, arguments: list[str], code: int, words: str) -> None:
    make_run(folder)
    result = isogon(*arguments)
    assert words in result.line(code)
    assert result.out == ""


def test_bad_input_in_a_process_of_its_own(folder: Path) -> None:
    result = isogon_process(folder, "train", "pole.yaml", "--set", "learner.duble_q=1", program=["-m", "isogon"])
    assert "did you mean learner.double_q?" in result.line(2)
    assert "No such command" in isogon_process(folder, "trian", program=["-m", "isogon"]).line(2)


def test_several_problems_have_a_line_each(isogon: Isogon) -> None:
    result = isogon("train", "pole.yaml", "--set", "seed=x", "--set", "device=x")
    assert result.code == 2
    assert [line[:14] for line in result.err.splitlines()] == ["isogon: seed i", "isogon: device"]


def test_a_reader_that_goes_away_ends_the_run_quietly(folder: Path) -> None:
    for arguments in ([FAKE, "train", "pole.yaml"], ["-m", "isogon", "--help"]):
        reading, writing = os.pipe()
        os.close(reading)
        process = subprocess.Popen(
            [sys.executable, *arguments], cwd=folder, env=PLAIN, stdout=writing, stderr=subprocess.PIPE
        )
        os.close(writing)
        assert process.communicate(timeout=60)[1] == b""
        assert process.returncode == 141


def test_a_full_disk_behind_stdout(folder: Path) -> None:
    with open("/dev/full", "w") as full:
        result = subprocess.run(
            [sys.executable, "-m", "isogon", "--version"],
            cwd=folder, env=PLAIN, stdout=full, stderr=subprocess.PIPE, text=True, timeout=60, check=False,
        )  # fmt: skip
    assert result.returncode == 13
    assert result.stderr.startswith("isogon: the disk is full")


@pytest.mark.parametrize(
    ("called", "on_the_path", "named"),
    [
        (".venv/bin/isogon", None, ".venv/bin/isogon"),
        (".venv/bin/isogon", "/usr/bin/isogon", "isogon"),
        ("/site-packages/isogon/__main__.py", None, "python -m isogon"),
        ("notebook", None, "isogon"),
    ],
)
def test_the_command_is_named_so_that_it_can_be_called(
    called: str, on_the_path: str | None, named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [called])
    monkeypatch.setattr("shutil.which", lambda name: on_the_path)
    assert program() == named
