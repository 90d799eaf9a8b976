"""The end of `isogon compare`: its tables."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from .compare_output import MODES

_TITLES = {"tied": "weights shared by all letters", "untied": "each letter with weights of its own"}
_BUDGETS = {"steps": "Equal steps", "time": "Equal CPU time"}
_PIPE_WIDTH = 120


def print_outcome(outcome: Mapping[str, Any]) -> None:
    """Print tables and notes."""
    # A pipe has no width: lines are as long as the tables need.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    with console.capture() as captured:
        console.print(_players(outcome))
        for table in outcome["tables"]:
            for budget in _BUDGETS:
                if rows := [row for row in table["rows"] if row["budget"] == budget]:
                    console.print(_table(table, budget, rows))
        for note in _notes(outcome):
            console.print(note, markup=False, soft_wrap=True)
    for line in captured.get().splitlines():
        print(line.rstrip())


def _titled(title: str, first_column: str) -> Table:
    table = Table(title=title, box=SIMPLE_HEAD, title_justify="left", collapse_padding=True, pad_edge=False)
    table.add_column(first_column)
    return table


def _players(outcome: Mapping[str, Any]) -> Table:
    table = _titled(f"Without learning, {outcome['words']} never-seen words", "player")
    for column in ("return", "over filtering", "solved"):
        table.add_column(column, justify="right")
    for row in outcome["players"]:
        gain = "" if row["player"] == "perfect filtering" else _interval(row, "gain")
        table.add_row(row["player"], f"{row['return']:.3f}", gain, f"{row['solved']:.1%}")
    return table


def _table(content: Mapping[str, Any], budget: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    table = _titled(f"{_BUDGETS[budget]}, {_TITLES[content['table']]}", "loss")
    for column in ("return", "over filtering", "against hl_gauss", "updates", "CPU s"):
        table.add_column(column, justify="right", no_wrap=column == "against hl_gauss")
    if budget == "steps":
        table.add_column("CQL, rate", justify="right")
    mode = None
    for row in rows:
        if row["mode"] != mode:
            mode = row["mode"]
            table.add_row(f"[bold]{MODES[mode]}[/bold]")
        updates = f"{row['updates']:,}{' (same runs)' if row['same_runs'] and row['verdict'] else ''}"
        cells = [
            f"  {row['loss']}",
            f"{row['return']:.3f}",
            _interval(row, "gain"),
            _against(row),
            updates,
            f"{row['cpu_seconds']:.1f}",
        ]
        if budget == "steps":
            cells.append(f"{row['cql_weight']:g}, {row['learning_rate']:g}{' *' if row['edges'] else ''}")
        table.add_row(*cells)
    return table


def _notes(outcome: Mapping[str, Any]) -> list[str]:
    notes = [
        "return: minus the number of guesses before the solving one, -6 where none solves; mean over seeds and words.",
        "over filtering: gain over perfect filtering, word by word; 95 % BCa bootstrap over words.",
        "against hl_gauss: 95 % interval over seeds and words; a tie where it holds 0.",
        "CPU s: median CPU time of a run's training. CQL, rate: tuned regulariser's weight and learning rate.",
    ]
    rows = [(table["table"], row) for table in outcome["tables"] for row in table["rows"]]
    for name, row in rows:
        if row["budget"] == "steps":
            where = f"{row['loss']}, {MODES[row['mode']]}{', untied' if name == 'untied' else ''}"
            if len(row["seeds"]) < outcome["seeds"]:
                notes.append(f"{where}: {len(row['seeds'])} of {outcome['seeds']} seeds, since the others failed")
            notes += [f"* {where}: {edge}: a better one may lie beyond" for edge in row["edges"]]
    notes += [f"failed: {name}: {reason}" for name, reason in outcome["failed"].items()]
    if outcome["failed"]:
        notes.append("the same command tries what failed again")
    sessions = outcome["sessions"]
    minutes = sum(session["seconds"] for session in sessions) / 60
    notes += [
        f"{outcome['runs']} runs in {minutes:.1f} min{f' of {len(sessions)} sessions' if len(sessions) > 1 else ''}, "
        f"{outcome['cpu_seconds'] / 60:.1f} min of CPU time, on {outcome['machine']}",
        f"figures in {outcome['file']}",
    ]
    return notes


def _against(row: Mapping[str, Any]) -> str:
    if row["verdict"] is None:
        return ""
    return f"{row['verdict']} {_interval(row, 'against')}"


def _interval(row: Mapping[str, Any], name: str) -> str:
    return f"{row[name]:+.2f} \\[{row[f'{name}_low']:+.2f}, {row[f'{name}_high']:+.2f}]"
