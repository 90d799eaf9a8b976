"""The command line: help, output for people, pipes and machines, exit codes, interruption."""

import importlib.util
import io
import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from rich.console import Console
from typer.testing import CliRunner

from isogon import __version__
from isogon.system.callbacks import Progress
from isogon.system.cli.app import app, main
from isogon.system.cli.endings import program
from isogon.system.cli.figures import Figures
from isogon.system.cli.outputs import PlainOutput, TerminalOutput, fold_phrases
from isogon.system.cli.summary import summary_table
from isogon.system.config.files import load_config, preset_names

FAKE = str(Path(__file__).with_name("isogon_with_fake_api.py"))
CONFIG = """
name: pole
environment: {kind: gymnasium, id: CartPole-v1}
value: {kind: hl_gauss, bins: 51, vmin: 0, vmax: 100}
budget: {env_steps: 1000}
"""
PLAIN = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "NO_COLOR", "TERM", "COLUMNS")}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    (tmp_path / "pole.yaml").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    before = signal.getsignal(signal.SIGTERM)
    yield tmp_path
    signal.signal(signal.SIGTERM, before)


@dataclass
class Ended:
    """How a command ended."""

    code: int
    out: str
    err: str

    def line(self, code: int) -> str:
        """The one line on stderr of a command that ended with this code."""
        assert self.code == code, self.err
        assert self.err.startswith("isogon: ")
        assert len(self.err.splitlines()) == 1, self.err
        return self.err.strip()


Isogon = Callable[..., Ended]


@pytest.fixture
def isogon(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Isogon:
    """The command line over the fake api, in this process: loading torch anew takes seconds."""
    spec = importlib.util.spec_from_file_location("isogon_with_fake_api", FAKE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "isogon.system.api", module.API)

    def run(*arguments: str, **env: str) -> Ended:
        for name, value in env.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(SystemExit) as end:
            main(arguments)
        out, err = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Ended(end.value.code, out, err)

    return run


def isogon_process(folder: Path, *arguments: str, program: Sequence[str] = (FAKE,), **env: str) -> Ended:
    """The same in a process of its own, or another program."""
    done = subprocess.run(
        [sys.executable, *program, *arguments],
        cwd=folder,
        env=PLAIN | env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def make_run(folder: Path) -> Path:
    run = folder / "run"
    for name in ("attempts/1", "checkpoints"):
        (run / name).mkdir(parents=True)
    (run / "config.yaml").write_text(CONFIG)
    return run


# Help.


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


# Configs.


def test_config_show_is_a_config(isogon: Isogon) -> None:
    Path("shown.yaml").write_text(isogon("config", "show", "pole.yaml", "--set", "seed=3").out)
    assert load_config("shown.yaml") == load_config("pole.yaml", ["seed=3"])
    assert "# units of each ReLU layer" in isogon("config", "show", "pole.yaml", "--explain").out


def test_config_list(isogon: Isogon) -> None:
    lines = isogon("config", "list").out.splitlines()
    assert [line.split()[0] for line in lines] == preset_names()


# Bad input: one line, a code.


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


# Output.


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


def test_report(isogon: Isogon) -> None:
    assert isogon("report", "a").out.splitlines() == ["a: It is still going.", "report in a/report.html"]
    assert isogon("report", "a", "b", "--output", "c.html").out.splitlines()[-1] == "report in c.html"
    assert "RUN" in isogon("report").line(2)


def test_evaluate(isogon: Isogon) -> None:
    lines = isogon("evaluate", "a", "b").out.splitlines()
    assert lines[0] == "a: playing"
    assert any(line.split() == ["runs", "a,", "b"] for line in lines)
    assert any(line.split() == ["seeds", "0,", "1"] for line in lines)
    events = [json.loads(line) for line in isogon("evaluate", "a", "b", "--json").out.splitlines()]
    assert [event["event"] for event in events] == ["message", "summary"]
    assert events[-1]["runs"] == ["a", "b"]


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


# Interruption.


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


# On a terminal.


def on_terminal(folder: Path, **env: str) -> str:
    """What `isogon train` writes to a terminal."""
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, FAKE, "train", "pole.yaml"], cwd=folder, env=PLAIN | env, stdout=follower, stderr=follower
    )
    os.close(follower)
    written = b""
    while select.select([leader], [], [], 30)[0]:
        try:
            written += os.read(leader, 65536)
        except OSError:
            break
    os.close(leader)
    assert process.wait(30) == 0, written
    return written.decode()


def test_a_terminal_gets_a_bar(folder: Path) -> None:
    written = on_terminal(folder, TERM="xterm-256color", COLUMNS="40")
    assert "\x1b[" in written
    assert "online" in written
    assert "30 updates" in written
    assert "\x1b[31m" not in written.replace("\x1b[31m ", "")
    assert "summary in runs/pole-1/summary.json" in written
    assert "report in runs/pole-1/report.html" in written
    # The cursor is given back.
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_no_color_is_respected(folder: Path) -> None:
    written = on_terminal(folder, TERM="xterm-256color", NO_COLOR="1")
    assert "30 updates" in written
    assert not re.search(r"\x1b\[(?:[0-9;]*;)?(?:3[0-8]|4[0-8])(?:;[0-9;]*)?m", written)


def test_a_dumb_terminal_gets_lines(folder: Path) -> None:
    written = on_terminal(folder, TERM="dumb")
    assert "\x1b" not in written
    assert "checkpoint 1-3" in written


def test_a_wordle_run_ends_by_naming_how_to_play_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    line = f"play with it: {program()} play wordle 'my runs/wordle-1'"
    file = Path("my runs/wordle-1/summary.json")
    for output in (PlainOutput(), TerminalOutput(Console(width=40))):
        output.conclude({"never_seen_return": -2.7}, file, file.with_name("report.html"))
        assert capsys.readouterr().out.splitlines()[-2:] == ["report in my runs/wordle-1/report.html", line]
        output.conclude({"evaluation_return": 475.0}, file)
        assert "play with it" not in capsys.readouterr().out


def test_the_bar_fits_forty_columns() -> None:
    console = Console(width=40, force_terminal=True, color_system=None, record=True, file=io.StringIO())
    config = load_config("wordle")
    with TerminalOutput(console) as output:
        output.on_start(config, Path("runs/wordle-1"), None)
        output.on_progress(Progress(0.25, "online", 30.0, 1234, 56789, 3, {"isogon_episodes_total": 4321.0}))
        console.print(output._live.renderable)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 40
    assert any("online" in line and "25%" in line for line in lines)
    assert "1,234 updates  4,321 games" in "  ".join(line.strip() for line in lines)


@pytest.mark.parametrize("width", [10, 40, 200])
def test_no_phrase_is_broken(width: int) -> None:
    phrases = ["1,234 updates", "56,789 steps", "return 178.00", "clipped 84.2%", "1,489 steps/s", "eta 0:07"]
    lines = fold_phrases(phrases, width)
    assert "  ".join(lines) == "  ".join(phrases)
    assert all(len(line) <= width or line in phrases for line in lines)
    assert len(lines) == {10: 6, 40: 3, 200: 1}[width]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def progress(share: float, updates: int = 0, steps: int = 0, **metrics: float) -> Progress:
    return Progress(share, "online", 0.0, updates, steps, 1, metrics)


def test_figures_are_of_the_last_seconds() -> None:
    clock = Clock()
    figures = Figures(clock=clock)
    assert figures.phrases() == []
    figures.take(progress(0.0))
    assert figures.seconds_left() is None
    for second in range(1, 41):
        clock.now = 100.0 + second
        # Ten times faster from the 20th second on.
        figures.take(progress(0.001 * second if second < 20 else 0.01 * (second - 18), steps=100 * second))
    assert figures.seconds_left() == pytest.approx((1 - 0.22) / 0.01, rel=1e-6)
    figures.take_evaluation({"mean_return": -3.456})
    assert figures.phrases() == ["0 updates", "4,000 steps", "validation -3.46", "100 steps/s", "eta 1:18"]
    clock.now += 1
    figures.take(progress(1.0, steps=4_100, isogon_episode_return=-4.0))
    assert figures.phrases()[2] == "return -4.00"
    assert not any("eta" in phrase for phrase in figures.phrases())


def test_lines_come_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    output = PlainOutput(clock)
    for _ in range(100):
        clock.now += 0.5
        output.on_progress(progress(0.5))
    assert len(capsys.readouterr().out.splitlines()) == pytest.approx(50 / 5, abs=1)


SUMMARIES: list[tuple[dict[str, Any], list[str], list[str]]] = [
    ({"never_seen_return": -3.2}, ["never-seen words: return  -3.200"], ["difference", "evaluation return"]),
    (
        {"never_seen_vs_filter": 0.4, "never_seen_vs_filter_low": 0.3, "never_seen_vs_filter_high": 0.5},
        ["difference  +0.400 (95 %: +0.300 to +0.500)"],
        ["never-seen words: return"],
    ),
    ({"never_seen_solved": 0.987, "seeds": [0, 1]}, ["never-seen words solved  98.7%", "seeds  0, 1"], []),
    ({}, [], ["return"]),
]  # fmt: skip


@pytest.mark.parametrize(("summary", "there", "absent"), SUMMARIES)
@pytest.mark.parametrize("width", [40, 120])
def test_summary_shows_what_there_is(summary: dict[str, Any], there: list[str], absent: list[str], width: int) -> None:
    console = Console(width=width, record=True, file=io.StringIO())
    console.print(summary_table(summary))
    text = console.export_text()
    assert all(len(line) <= width for line in text.splitlines())
    assert not any(word in text for word in absent)
    if width == 120:
        rows = ["  ".join(part for part in re.split(r"\s{2,}", line.strip()) if part) for line in text.splitlines()]
        assert all(row in rows for row in there)


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
