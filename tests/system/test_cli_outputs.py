"""What a run shows: on terminals, in lines, as figures and as a summary."""

import io
import os
import pty
import re
import select
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from isogon.system.callbacks import Progress
from isogon.system.cli.endings import program
from isogon.system.cli.figures import Figures
from isogon.system.cli.outputs import PlainOutput, TerminalOutput, fold_phrases
from isogon.system.cli.summary import summary_table
from isogon.system.config.files import load_config

from .command_line import FAKE, PLAIN


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
