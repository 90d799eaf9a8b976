"""A comparison of strategies as a table: for a page and for a terminal alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..federation.comparison import Row as Comparison
from .results import NOTHING, Row, Table, fixed, percent

_PLAIN_COLUMNS = ("score", "staleness", "utilisation", "versions", "updates", "dropped")


def comparison_table(
    speeds: str,
    rows: Sequence[Comparison],
    reference: str,
    target: float | None,
    styles: Mapping[str, int] | None = None,
) -> Table:
    """Strategies under one distribution of speeds.

    Args:
        speeds: its name.
        rows: of `relative_times`.
        reference: the strategy that times are told relative to.
        target: score whose time is compared; None: there was none, and there are no times.
        styles: of the strategies, for colours.
    """
    styles = styles or {}
    timed = ("relative time", "seconds to target") if target is not None else ()
    return Table(
        title=f"{speeds.capitalize()} speeds",
        columns=("strategy", *timed, *_PLAIN_COLUMNS),
        rows=tuple(
            Row(
                (row.strategy, *((_relative(row), _seconds(row)) if timed else ()), *_plain_cells(row)),
                style=styles.get(row.strategy),
            )
            for row in rows
        ),
        notes=tuple(notes_of(rows, reference, target)),
    )


def notes_of(rows: Sequence[Comparison], reference: str, target: float | None) -> list[str]:
    """What a reader must know of the table."""
    seeds = rows[0].runs
    over = f"over {seeds} seeds" if seeds > 1 else "of one seed"
    if target is None:
        return [f"Means {over}. The budget has no target, so there is no time to it."]
    spread = ", below them the least and the largest" if seeds > 1 else ""
    notes = [
        f"Virtual seconds to a score of {target:g}, and relative to {reference} seed by seed: geometric means {over}"
        f"{spread}. All other figures are means; what is in hand at a run's end is dropped."
    ]
    if any(row.reached < row.runs for row in rows):
        notes.append(
            "Where the target was not reached with every seed there is no mean; ≥ bounds it from below, with the "
            "length of the run for the time that is not known."
        )
    if next(row.reached < row.runs for row in rows if row.strategy == reference):
        notes.append(f"{reference} did not reach the target with every seed: nothing is told relative to it.")
    return notes


def _relative(row: Comparison) -> str:
    if row.ratio is not None and row.ratio_low is not None and row.ratio_high is not None:
        return _with_range(fixed(row.ratio, 2), row.ratio_low, row.ratio_high, 2, row.runs)
    return NOTHING if row.at_least is None else f"≥ {fixed(row.at_least, 2)}"


def _seconds(row: Comparison) -> str:
    if row.seconds is not None and row.seconds_low is not None and row.seconds_high is not None:
        mean = fixed(row.seconds, 0) + (" ★" if row.rank == 1 else "")
        return _with_range(mean, row.seconds_low, row.seconds_high, 0, row.runs)
    return f"reached in {row.reached} of {row.runs}"


def _with_range(mean: str, low: float, high: float, digits: int, runs: int) -> str:
    return f"{mean}\n{fixed(low, digits)} to {fixed(high, digits)}" if runs > 1 and low < high else mean


def _plain_cells(row: Comparison) -> tuple[str, ...]:
    return (
        fixed(row.score, 3),
        fixed(row.staleness, 2),
        percent(row.utilisation),
        fixed(row.versions, 0),
        fixed(row.updates, 0),
        fixed(row.dropped, 0),
    )
