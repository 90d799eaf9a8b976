"""The result of a report's runs: one sentence, and tables with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..metrics.recorder import EVALUATION_RETURN
from .curves import number
from .groups import Group, by_task
from .svg import STYLES

NOTHING = "–"


@dataclass(frozen=True)
class Row:
    """One line of a table.

    Attributes:
        cells: as many as there are columns; what is after a line break is smaller.
        small: what is added under the first of them.
        style: of the group that it is of; None for players that did not learn here.
    """

    cells: tuple[str, ...]
    small: str = ""
    style: int | None = None


@dataclass(frozen=True)
class Table:
    """Groups of one task beside each other. ``notes`` are sentences under it."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Result:
    """What a group came to.

    Attributes:
        group: of runs.
        summary: over its runs that are done: of one, its own; of several, pooled as `isogon evaluate` does. None where
            no run is done or they cannot be pooled.
        note: why there is none, as a sentence; empty otherwise.
    """

    group: Group
    summary: Mapping[str, Any] | None
    note: str = ""

    @property
    def kind(self) -> str:
        """Of the environment."""
        return str(self.group.environment.get("kind", ""))


def fixed(value: float | None, digits: int = 3, sign: bool = False) -> str:
    """A number for people, with a true minus; a dash for none."""
    return NOTHING if value is None else f"{value:{'+' if sign else ''},.{digits}f}".replace("-", "−")


def percent(value: float | None) -> str:
    """A share in percent; a dash for none."""
    return NOTHING if value is None else f"{value:.1%}"


def interval(summary: Mapping[str, Any], name: str, digits: int, sign: bool = False) -> str:
    """A figure, and on a line of its own its 95 % interval where it has one; a dash for none."""
    value, low, high = _with_bounds(summary, name)
    if value is None or low is None or high is None:
        return fixed(value, digits, sign)
    return f"{fixed(value, digits, sign)}\n{bounds(low, high, digits, sign)}"


def bounds(low: float, high: float, digits: int, sign: bool = False) -> str:
    """``95 %: low to high``."""
    return f"95\u00a0%: {fixed(low, digits, sign)} to {fixed(high, digits, sign)}"


def sentence(results: Sequence[Result]) -> str:
    """What came out, in one sentence."""
    if len(results) == 1:
        text = _of_group(results[0])
        return f"{text[:1].upper()}{text[1:]}."
    clauses = []
    for result in results:
        name = "never_seen_return" if result.kind == "wordle" else "evaluation_return"
        value = number(result.summary or {}, name)
        where = " on never-seen words" if result.kind == "wordle" else ""
        outcome = f"returns {fixed(value, 2)}{where}" if value is not None else _unfinished(result)
        clauses.append(f"{result.group.label}: {outcome}")
    return f"{'; '.join(clauses)}."


def tables(results: Sequence[Result]) -> list[Table]:
    """A table for each task, with the players that did not learn beside the groups."""
    of = {id(result.group): result for result in results}
    tasks = [[of[id(group)] for group in same] for same in by_task([result.group for result in results])]
    return [_wordle_table(same) if same[0].kind == "wordle" else _plain_table(same) for same in tasks]


def _with_bounds(summary: Mapping[str, Any], name: str) -> tuple[float | None, float | None, float | None]:
    return number(summary, name), number(summary, f"{name}_low"), number(summary, f"{name}_high")


def _of_group(result: Result) -> str:
    summary = result.summary
    if summary is None:
        return _unfinished(result)
    over = f", over {len(result.group.done)} seeds" if len(result.group.done) > 1 else ""
    if result.kind != "wordle":
        episodes = number(summary, "evaluation_episodes")
        played = "" if episodes is None else f" in {episodes:,.0f} episodes"
        value, low, high = _with_bounds(summary, "evaluation_return")
        known = "" if low is None or high is None else f" ({bounds(low, high, 2)})"
        return f"a mean return of {fixed(value, 2)}{known}{played}{over}"
    gain, low, high = _with_bounds(summary, "never_seen_vs_filter")
    text = (
        f"solves {percent(number(summary, 'never_seen_solved'))} of words that it never saw, with a mean return of "
        f"{fixed(number(summary, 'never_seen_return'))}{over}"
    )
    if gain is None or low is None or high is None:
        return text
    better = "better than" if low > 0 else "worse than" if high < 0 else "no different, as far as can be told, from"
    return f"{text}: {better} perfect filtering ({fixed(gain, 2, True)}; {bounds(low, high, 2, True)})"


def _unfinished(result: Result) -> str:
    runs = result.group.runs
    if len(runs) > 1:
        done = len(result.group.done)
        return f"{done} of {len(runs)} runs are done, without a result that they share"
    rows = runs[0].rows
    newest: Mapping[str, Any] = rows[-1] if rows else {}
    state = {"going": "is still going", "stopped": "ended before its end", "done": "is done, without figures"}
    text = f"the run {state[runs[0].state]}"
    if (share := number(newest, "share")) is not None:
        text += f", {share:.0%} of its budget used"
    if (value := number(newest, EVALUATION_RETURN.name)) is not None:
        text += f", with a validation return of {fixed(value, 2)}"
    return text


def _wordle_table(results: Sequence[Result]) -> Table:
    rows = [
        Row(
            (
                result.group.label,
                fixed(number(summary, "never_seen_return")),
                interval(summary, "never_seen_vs_filter", 3, True),
                interval(summary, "never_seen_vs_entropy_search", 3, True),
                percent(number(summary, "never_seen_solved")),
                fixed(number(summary, "seen_return")),
                percent(number(summary, "seen_solved")),
                fixed(number(summary, "validation_return")),
            ),
            _seeds(result, "never_seen_return", 3),
            result.group.style % STYLES,
        )
        for result in results
        for summary in [result.summary or {}]
    ]
    others = []
    for label, returns, solved in (
        ("entropy search", "entropy_search_return", None),
        ("perfect filtering", "filter_return", "filter_solved"),
        ("offline games' players", "data_policy_return", "data_policy_solved"),
    ):
        for result in results:
            if (value := number(result.summary or {}, returns)) is not None:
                share = percent(number(result.summary or {}, solved)) if solved else NOTHING
                row = Row((label, fixed(value), NOTHING, NOTHING, share, NOTHING, NOTHING, NOTHING))
                others += [row] if row not in others else []
    columns = (
        "player",
        "return, never-seen words",
        "against perfect filtering",
        "against entropy search",
        "solved, never-seen words",
        "return, trained words",
        "solved, trained words",
        "return, validation words",
    )
    notes = (
        "The return is minus the number of guesses before the solving one, −6 where none solves. Entropy search and "
        "perfect filtering know the list, and which words of it are still possible. No learnt player is told that; "
        "with the network letter_belief it knows the list and weighs it by what answers have shown of colours.",
        "Differences are taken word by word; their intervals are bootstraps over words.",
        "Choices, of a loss or of a setting, are to be made by the validation words, which training never saw either.",
    )
    return Table(results[0].group.task, columns, tuple([*rows, *others]), (*notes, *_notes(results)))


def _plain_table(results: Sequence[Result]) -> Table:
    rows = []
    normalised = any(number(result.summary or {}, "human_normalised") is not None for result in results)
    for result in results:
        summary = result.summary or {}
        episodes = number(summary, "evaluation_episodes")
        cells = (
            result.group.label,
            interval(summary, "evaluation_return", 2),
            *([interval(summary, "human_normalised", 3)] if normalised else []),
            NOTHING if episodes is None else f"{episodes:,.0f}",
        )
        rows.append(Row(cells, _seeds(result, "evaluation_return", 2), result.group.style % STYLES))
    columns = ("player", "return", *(["human-normalised"] if normalised else []), "episodes")
    notes = ["Episodes by the averaged weights; the interval is a bootstrap over episodes."]
    if normalised:
        notes.append("Human-normalised: 0 is a random player's mean return, 1 a human tester's.")
    return Table(results[0].group.task, columns, tuple(rows), (*notes, *_notes(results)))


def _seeds(result: Result, name: str, digits: int) -> str:
    if len(result.group.runs) == 1:
        run = result.group.runs[0]
        return "" if run.state == "done" else {"going": "still going", "stopped": "ended early"}[run.state]
    shown = []
    for run in result.group.runs:
        value = number(run.summary or {}, name)
        what = fixed(value, digits) if value is not None else "still going" if run.state == "going" else "ended early"
        shown.append(f"{run.settings.get('seed', '?')}: {what}")
    return f"by seed {', '.join(shown)}"


def _notes(results: Sequence[Result]) -> list[str]:
    return [f"{result.group.label}: {result.note}" for result in results if result.note]
