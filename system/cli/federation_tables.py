"""The end of `isogon federate simulate`: a table for each distribution of speeds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.box import SIMPLE_HEAD
from rich.table import Table

from ..reports.comparison_table import comparison_table

if TYPE_CHECKING:
    from ..federation.simulate import SimulationOutcome

_LEFT_OUT = ("updates",)
"""What 80 columns have no room for; the report has it."""
_SHORT = {"relative time": "relative", "seconds to target": "seconds", "staleness": "stale", "utilisation": "busy"}


def simulation_tables(outcome: SimulationOutcome) -> list[Table]:
    """The comparison under each distribution of speeds, what a reader must know under the last.

    They fit 80 columns; the range over seeds is under its mean. What is fastest is bold.
    """
    tables, notes = [], []
    for speeds, rows in outcome.rows.items():
        content = comparison_table(speeds, rows, outcome.reference, outcome.target)
        shown = [index for index, column in enumerate(content.columns) if column not in _LEFT_OUT]
        table = Table(
            title=f"\n{content.title}",
            box=SIMPLE_HEAD,
            title_justify="left",
            show_edge=False,
            pad_edge=False,
            padding=(0, 1, 0, 0),
        )
        for index in shown:
            name = content.columns[index]
            table.add_column(_SHORT.get(name, name), justify="right" if index else "left", overflow="fold")
        for row, figures in zip(content.rows, rows, strict=True):
            cells = [row.cells[index].replace(" to ", "–") for index in shown]
            table.add_row(*cells, style="bold" if figures.rank == 1 else None)
        tables.append(table)
        notes += [note for note in content.notes if note not in notes]
    if tables:
        tables[-1].caption, tables[-1].caption_justify = "\n".join(notes), "left"
    return tables
