"""What federations came to: tables of groups beside each other, over seeds, and of clients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, TypeAlias

import numpy as np

from ..metrics.recorder import RESULTS_DROPPED
from .curves import number
from .federation_data import FederationRun, best_score, client_count, last_score, score_curve
from .federation_groups import FederationGroup
from .federation_work import ClientWork, Work, work_of
from .results import NOTHING, Row, Table, fixed, percent
from .svg import STYLES

_FINAL = "final_"
_MOST_FINAL = 8


@dataclass(frozen=True, eq=False)
class FederationResult:
    """One run's figures: of its summary where it is done, as far as it came where it is not."""

    run: FederationRun
    work: Work

    def told(self, key: str) -> float | None:
        """A figure of the summary."""
        return number(self.run.summary or {}, key)

    @property
    def score(self) -> float | None:
        """Of the last evaluation."""
        return _first(self.told("score"), last_score(self.run))

    @property
    def best(self) -> float | None:
        """The best score."""
        return _first(self.told("best_score"), best_score(self.run))

    def seconds_to(self, target: float | None) -> float | None:
        """Run seconds when the target was reached; None where it was not."""
        curve = score_curve(self.run)
        if target is None or curve is None or (curve.value < target).all():
            return self.told("target_seconds") if target is not None else None
        return _first(self.told("target_seconds"), float(curve.seconds[np.argmax(curve.value >= target)]))

    @property
    def versions(self) -> float | None:
        """Of the global model."""
        return _first(self.told("model_versions"), number(self.run.newest, "step"))

    @property
    def applied(self) -> float | None:
        """Clients' updates that were applied."""
        return _first(self.told("updates_applied"), float(self._count("applied")))

    @property
    def dropped(self) -> float | None:
        """Pieces that were not applied."""
        counted = number(self.run.newest, RESULTS_DROPPED.name)
        return _first(self.told("updates_dropped"), _first(counted, float(self._count("dropped"))))

    @property
    def steps(self) -> float | None:
        """Local steps that were applied."""
        done = sum(span.amount for span in self.run.spans if span.outcome == "applied")
        return _first(self.told("local_steps"), float(done))

    @property
    def staleness(self) -> float | None:
        """Mean over applied pieces, in versions."""
        return _first(self.work.staleness, self.told("mean_staleness"))

    @property
    def utilisation(self) -> float | None:
        """Share of the clients' time that they worked."""
        return _first(self.work.utilisation, self.told("utilisation"))

    def _count(self, outcome: str) -> int:
        return sum(span.outcome == outcome for span in self.run.spans)


Compared: TypeAlias = Sequence[tuple[FederationGroup, Sequence[FederationResult]]]
"""Groups beside each other, each with its runs' figures."""


def results_of(groups: Sequence[FederationGroup]) -> Compared:
    """The groups with their runs' figures."""
    return [
        (
            group,
            [FederationResult(run, work_of(run.spans, client_count(run.settings), run.seconds)) for run in group.runs],
        )
        for group in groups
    ]


def score_table(compared: Compared) -> Table:
    """How good the groups' models became, and how soon."""
    finals = _final_names([results for _, results in compared])
    targets = sorted({group.target for group, _ in compared if group.target is not None})
    columns = ["strategy", "score", "best score", *(["seconds to target"] if targets else []), "run seconds"]
    rows = []
    for group, own in compared:
        timed = [_target_cell(group, own)] if targets else []
        cells = [
            group.label,
            _cell([result.score for result in own], 3),
            _cell([result.best for result in own], 3),
            *timed,
            _cell([result.run.seconds for result in own], 1),
            *(
                _cell([result.told(f"{_FINAL}{name}") for result in own], None if name.endswith("solved") else 3)
                for name in finals
            ),
        ]
        rows.append(Row(tuple(cells), _seeds(own), group.style % STYLES))
    notes = ["The score is of the global model, at its last evaluation and at its best one."]
    if targets:
        notes.append(f"The target is a score of {' or '.join(f'{target:g}' for target in targets)}.")
    if finals:
        notes.append("Final figures are of the last version, evaluated when the run was over.")
    return Table(
        "Score",
        (*columns, *(f"final {name.replace('_', ' ')}" for name in finals)),
        tuple(rows),
        (
            *notes,
            *_over_seeds(compared),
        ),
    )


def work_table(compared: Compared) -> Table:
    """How much was done, and how well the clients were used."""
    rows = []
    for group, results in compared:
        cells = (
            group.label,
            _cell([one.versions for one in results], 0),
            f"{_mean([one.applied for one in results], 0)}\n{_mean([one.dropped for one in results], 0)} dropped",
            _cell([one.steps for one in results], 0),
            _cell([one.staleness for one in results], 2),
            _cell([one.utilisation for one in results], None),
            _cell([one.work.waiting for one in results], None),
            _cell([one.work.in_a_commit for one in results], 1),
            _spread_cell(results),
        )
        rows.append(Row(cells, style=group.style % STYLES))
    columns = (
        "strategy",
        "versions",
        "updates applied",
        "local steps",
        "staleness",
        "utilisation",
        "results wait",
        "in a commit",
        "arrivals' spread, s",
    )
    notes = (
        "Staleness is the number of versions between the one that an update began from and the newest when it was "
        "applied. Utilisation is the share of the clients' time that they worked, and what waits is the share that a "
        "result of theirs waited for its commit.",
        "Arrivals' spread is the time from the first to the last result of a commit, median over commits of several "
        "clients, and below it its share of the longest of their pieces.",
        *_over_seeds(compared),
    )
    return Table("Work", columns, tuple(rows), notes)


def client_table(label: str, shown: Sequence[ClientWork], others: Sequence[ClientWork]) -> Table:
    """A group's clients, one by one, and those for whom there is no room as one line."""
    columns = (
        "client",
        "local steps",
        "pieces applied",
        "dropped",
        "s per step",
        "busy",
        "results wait",
        "staleness",
        "weight",
    )
    rows = [_client_row(client.client, client) for client in shown]
    if others:
        rows.append(_client_row(f"{len(others):,} others, mean of each", _mean_client(others)))
    return Table(label, columns, tuple(rows), ())


def _client_row(name: str, client: ClientWork) -> Row:
    seconds = client.seconds_per_step
    return Row(
        (
            name,
            f"{client.steps:,}",
            f"{client.applied:,}",
            f"{client.dropped:,}",
            NOTHING if seconds is None else f"{seconds:.3g}",
            percent(client.busy),
            percent(client.waiting),
            fixed(client.staleness, 2),
            percent(client.weight),
        )
    )


def _mean_client(clients: Sequence[ClientWork]) -> ClientWork:
    def mean(figures: Sequence[float | None]) -> float | None:
        known = [figure for figure in figures if figure is not None]
        return fmean(known) if known else None

    return ClientWork(
        client="",
        applied=round(fmean(client.applied for client in clients)),
        dropped=round(fmean(client.dropped for client in clients)),
        steps=round(fmean(client.steps for client in clients)),
        seconds_per_step=mean([client.seconds_per_step for client in clients]),
        busy=mean([client.busy for client in clients]),
        waiting=mean([client.waiting for client in clients]),
        staleness=mean([client.staleness for client in clients]),
        weight=fmean(client.weight for client in clients),
    )


def _shown(value: float, digits: int | None) -> str:
    """``digits`` is None for shares."""
    return percent(value) if digits is None else fixed(value, digits)


def _mean(values: Sequence[float | None], digits: int | None) -> str:
    known = [value for value in values if value is not None]
    return _shown(fmean(known), digits) if known else NOTHING


def _cell(values: Sequence[float | None], digits: int | None) -> str:
    """The mean of what is known, its range below it."""
    known = [_shown(value, digits) for value in sorted(value for value in values if value is not None)]
    mean = _mean(values, digits)
    return mean if not known or known[0] == known[-1] else f"{mean}\n{known[0]} to {known[-1]}"


def _spread_cell(results: Sequence[FederationResult]) -> str:
    relative = _mean([one.work.relative_spread for one in results], None)
    spread = _mean([one.work.arrival_spread for one in results], 2)
    return spread if relative == NOTHING else f"{spread}\n{relative}"


def _target_cell(group: FederationGroup, results: Sequence[FederationResult]) -> str:
    times = [result.seconds_to(group.target) for result in results]
    missed = sum(time is None for time in times)
    if not missed:
        return _cell(times, 1)
    if group.target is None:
        return NOTHING
    return f"reached in {len(times) - missed} of {len(times)}" if len(times) > 1 else "not reached"


def _seeds(results: Sequence[FederationResult]) -> str:
    states = {"done": "", "going": "still going", "stopped": "ended early"}
    if len(results) == 1:
        return states[results[0].run.state]
    told = [
        f"{result.run.settings.get('seed', '?')}: "
        f"{', '.join(filter(None, [fixed(result.score, 3), states[result.run.state]]))}"
        for result in results
    ]
    return f"by seed {'; '.join(told)}"


def _over_seeds(compared: Compared) -> list[str]:
    if all(len(results) == 1 for _, results in compared):
        return []
    return ["Figures of several seeds are means, with the least and the largest of them below."]


def _final_names(results: Sequence[Sequence[FederationResult]]) -> list[str]:
    summaries: list[Mapping[str, Any]] = [result.run.summary or {} for own in results for result in own]
    names = dict.fromkeys(
        key.removeprefix(_FINAL)
        for summary in summaries
        for key in summary
        if key.startswith(_FINAL) and number(summary, key) is not None
    )
    return list(names)[:_MOST_FINAL]


def _first(value: float | None, other: float | None) -> float | None:
    return other if value is None else value
