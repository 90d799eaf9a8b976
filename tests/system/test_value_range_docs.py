"""The commands of docs/value-ranges.md, run as written but for their length."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from isogon.system.cli import main

PAGE = Path(__file__).parents[2] / "docs" / "value-ranges.md"
COMMANDS = re.findall(r"^(?:\$ )?isogon (train .*)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
SHORT = [
    "budget.env_steps=1500",
    "evaluation.episodes=1",
    "evaluation.every_share=1.0",
    "checkpoints.every_updates=999",
]


def test_the_page_has_commands() -> None:
    assert len(COMMANDS) == 3


@pytest.mark.parametrize(
    ("number", "words"),
    [(0, "0 to 2, and are clipped"), (1, "values range from -9 to 110: 100 games"), (2, "targets clipped      0.0%")],
)
def test_a_command_prints_what_the_page_says(
    number: int, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shorter = [part for change in SHORT for part in ("--set", change)]
    with pytest.raises(SystemExit) as end:
        main([*shlex.split(COMMANDS[number]), *shorter])
    assert end.value.code == 0
    assert words in capsys.readouterr().out
    assert number == 2 or words in PAGE.read_text(encoding="utf-8")
