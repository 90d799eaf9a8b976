"""Every command of the documentation is run as it is written, or the page says that it is not."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import pytest

import isogon
from isogon.system.api import train
from isogon.system.config.files import load_config

from .pages import NOT_RUN, PAGES, README, RUN, Block, Command, blocks_of, matches, missing_line, needs_of, run_by

SECONDS = 240
"""For the commands of one page; they take a quarter of that on two busy cores."""
AT_ONCE = 2
SMALL = [
    "actors.pool=in_process",
    "actors.envs_per_worker=64",
    "actors.steps_per_assignment=128",
    "budget={updates: 40}",
    "evaluation={every_share: 0.25, filter_games: 2}",
    "offline.steps=20000",
    "replay={capacity: 20000, batch_size: 64, min_size: 5000, returns: monte_carlo, discount: 1.0}",
    "network.hidden=32",
    "network.channels=2",
]
RUN_HERE = [page for page in PAGES if not run_by(page) and any(block.runs for block in blocks_of(page))]
_MARK = "\x1e"
_ENDED = re.compile(rf"{_MARK}ended (\d+) (\d+)\n")


@dataclass(frozen=True)
class Ended:
    """How a command ended, and all that it printed."""

    status: int
    lines: list[str]


@dataclass(frozen=True)
class Played:
    """The commands of a page that were run, each with its block and its ending; None for those never reached."""

    commands: list[tuple[Block, Command, Ended | None]]


def names(path: Path) -> str:
    return path.name


@pytest.mark.parametrize("page", [README, *PAGES], ids=names)
def test_each_block_is_run_or_said_not_to_be(page: Path) -> None:
    for block in blocks_of(page):
        where = f"{page.name}:{block.line}"
        if page != README:
            assert block.language in RUN.keys() | NOT_RUN, f"{where}: name the language (text, if it is none)"
        if block.language in RUN and "not run" in block.marks:
            assert block.marks["not run"], f"{where}: say why it is not run"
            if page != README:
                assert re.search(r"\bnot\s+run\b", block.beside, re.IGNORECASE), f"{where}: tell the reader as well"
        if block.runs:
            assert block.commands(), f"{where}: nothing in it is a command, which stands after '$ '"


@pytest.mark.parametrize("page", [page for page in PAGES if run_by(page)], ids=names)
def test_a_page_that_another_test_runs_is_named_there(page: Path) -> None:
    assert page.stem in Path(__file__).with_name(run_by(page)).read_text("utf-8")


@pytest.fixture(scope="session")
def small_runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``runs/wordle-1`` to ``-3``, over three seeds."""
    folder = tmp_path_factory.mktemp("small")
    for seed in range(3):
        train(load_config("wordle", [*SMALL, f"seed={seed}"]), run_dir=folder / "runs" / f"wordle-{seed + 1}")
    return folder


@pytest.fixture(scope="session")
def played(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, small_runs: Path
) -> Iterator[dict[Path, Future[Played]]]:
    """The pages that are to be tested, two at a time."""
    wanted = [
        cast(Path, item.callspec.params["page"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.originalname == "test_commands_do_what_the_page_says"
    ]
    tools = tmp_path_factory.mktemp("tools")
    source = Path(isogon.__file__).parents[1]
    for name, arguments in (("isogon", "-P -c 'from isogon.system.cli import main; main()'"), ("python", "")):
        (tools / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments} "$@"\n')
        (tools / name).chmod(0o755)
    env = {name: value for name, value in os.environ.items() if name not in ("RAY_ADDRESS", "FORCE_COLOR", "COLUMNS")}
    env |= {
        "PATH": f"{tools}{os.pathsep}{env['PATH']}",
        "PYTHONPATH": str(source),
        "RAY_AUTH_MODE": "disabled",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
    }
    with ThreadPoolExecutor(AT_ONCE) as pool:
        yield {
            page: pool.submit(play, page, tmp_path_factory.mktemp(page.stem), small_runs, env)
            for page in sorted(wanted, key=lambda page: -len(blocks_of(page)))
        }


def play(page: Path, folder: Path, small_runs: Path, env: dict[str, str]) -> Played:
    """Run a page's commands in one shell, in a folder of their own."""
    for run in needs_of(page):
        shutil.copytree(small_runs / run, folder / run)
    script = ["last=0"]
    commands: list[tuple[Block, Command]] = []
    for block in blocks_of(page):
        if block.file:
            script.append(f"cat > {block.file} <<'END_OF_BLOCK'\n{block.text}END_OF_BLOCK")
            continue
        if not block.runs:
            continue
        script.append(f"{block.marks.get('before', ':')} >before.log 2>&1 </dev/null")
        for command in block.commands():
            number = len(commands)
            # `$?` is the status of the page's command before this one.
            script.append(f'(exit "$last")\n{command.text}\nlast=$?\nprintf "\\n{_MARK}ended {number} %d\\n" "$last"')
            commands.append((block, command))
    output = run_script("\n".join(script), folder, env)
    pieces = _ENDED.split(output)
    endings = {
        int(number): Ended(int(status), printed.splitlines())
        for printed, number, status in zip(pieces[0::3], pieces[1::3], pieces[2::3], strict=False)
    }
    return Played([(block, command, endings.get(number)) for number, (block, command) in enumerate(commands)])


def run_script(script: str, folder: Path, env: dict[str, str]) -> str:
    """What a shell prints, errors included. It is ended, with all that it started, when its time is up."""
    log = folder / ".printed"
    with log.open("wb") as out:
        process = subprocess.Popen(
            ["bash", "-c", script], cwd=folder, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        try:
            process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(30)
    return log.read_text(encoding="utf-8", errors="replace")


@pytest.mark.parametrize("page", RUN_HERE, ids=names)
def test_commands_do_what_the_page_says(page: Path, played: dict[Path, Future[Played]]) -> None:
    commands = played[page].result().commands
    for number, (block, command, ended) in enumerate(commands):
        where = f"{page.name}:{block.line}: $ {command.text}"
        assert ended is not None, f"{where}: not reached in {SECONDS} s"
        printed = "\n".join(ended.lines)
        status_follows = number + 1 < len(commands) and commands[number + 1][1].text == "echo $?"
        if command.printed and command.printed[-1].startswith("isogon: "):
            assert ended.status != 0, f"{where}: ended well, and the page says that it does not:\n{printed}"
        elif not status_follows:
            assert ended.status == 0, f"{where}: ended with {ended.status}, and the page does not say so:\n{printed}"
        if "output not compared" not in block.marks:
            absent = missing_line(command.printed, ended.lines)
            assert absent is None, f"{where}: did not print {absent!r} (in this order), but:\n{printed}"
        if command.text == "echo $?":
            assert [line for line in ended.lines if line] == list(command.printed), f"{where}: printed {printed}"


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("updates  10,762", "updates       60", True),
        ("difference +0.397 (95 %: +0.291 to +0.503)", "difference  -2.6 (95 %: -2.8 to -2.5)", True),
        ("  35.1 s  online 27%  291 games", "1 s  online 100%  7 games", True),
        ("device is cuda and ...: set device=cpu", "device is cuda and it rains: set device=cpu", True),
        ("checkpoint 1-10762", "checkpoints 1-40", False),
        ("seeds  0", "seeds  none", False),
        ("run runs/wordle-1", "run runs/wordle-1 again", False),
    ],
)
def test_numbers_may_differ_and_words_may_not(shown: str, printed: str, same: bool) -> None:
    assert matches(shown, printed) == same


def test_lines_are_looked_for_in_order() -> None:
    assert missing_line(("a", "...", "c"), ["a", "b", "c"]) is None
    assert missing_line(("c", "a"), ["a", "b", "c"]) == "a"
