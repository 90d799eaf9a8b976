"""What pieces of training come to: by client, by commit, by staleness."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from ..federation.timeline import Span, Totals

_MOST_BARS = 12


@dataclass(frozen=True)
class Work:
    """All pieces of a run.

    Attributes:
        staleness: mean over applied pieces, in versions; None where none was applied.
        utilisation: share of the clients' time that they worked; None where that cannot be told.
        waiting: share of the clients' time that a result of theirs waited for its commit; None likewise.
        in_a_commit: applied pieces in one, mean; None where there was none.
        arrival_spread: seconds from the first result of a commit to its last, median over commits of several clients;
            None where there is no such commit.
        relative_spread: the same as a share of the longest of the pieces.
    """

    staleness: float | None
    utilisation: float | None
    waiting: float | None
    in_a_commit: float | None
    arrival_spread: float | None
    relative_spread: float | None


@dataclass(frozen=True)
class ClientWork:
    """One client's pieces.

    Attributes:
        client: its name.
        applied, dropped: pieces.
        steps: local steps applied.
        seconds_per_step: in the client; None where nothing came of it.
        busy: share of the run that it worked.
        waiting: share of the run that its results waited.
        staleness: mean over applied pieces; None where none was.
        weight: share of all weight that was applied.
    """

    client: str
    applied: int
    dropped: int
    steps: int
    seconds_per_step: float | None
    busy: float | None
    waiting: float | None
    staleness: float | None
    weight: float


def work_of(spans: Sequence[Span], clients: int | None, seconds: float) -> Work:
    """What a run's pieces come to.

    Args:
        spans: its pieces.
        clients: how many there are; None: as many as have a piece.
        seconds: how long it was.
    """
    totals = Totals()
    for span in spans:
        totals.take(span)
    number = clients or len(totals.clients)
    waited = sum(_waited(span) for span in spans)
    commits = commits_of(spans)
    spreads = [(_spread(commit), _longest(commit)) for commit in commits if len({span.worker for span in commit}) > 1]
    relative = [spread / longest for spread, longest in spreads if longest > 0]
    return Work(
        staleness=totals.mean_staleness(),
        utilisation=totals.utilisation(number, seconds) if spans else None,
        waiting=waited / (number * seconds) if spans and seconds > 0 else None,
        in_a_commit=fmean(len(commit) for commit in commits) if commits else None,
        arrival_spread=median(spread for spread, _ in spreads) if spreads else None,
        relative_spread=median(relative) if relative else None,
    )


def commits_of(spans: Sequence[Span]) -> list[list[Span]]:
    """The applied pieces of each commit, in the order of the commits."""
    commits: dict[float, list[Span]] = {}
    for span in spans:
        if span.outcome == "applied" and span.arrived is not None:
            commits.setdefault(span.ended, []).append(span)
    return [commits[time] for time in sorted(commits)]


def clients_of(by_client: Mapping[str, Sequence[Span]], seconds: float) -> list[ClientWork]:
    """A line for each client, in their order."""
    whole = sum(span.weight for spans in by_client.values() for span in spans)
    return [_client(name, spans, seconds, whole) for name, spans in by_client.items()]


def staleness_bars(spans: Sequence[Span], most: int) -> list[tuple[str, float]]:
    """Shares of applied pieces by staleness: ``(range of versions, share)`` from 0 to ``most``, at most 12 of them."""
    counts = Counter(span.staleness for span in spans if span.outcome == "applied")
    total = sum(counts.values())
    width = math.ceil((most + 1) / _MOST_BARS)
    bars = []
    for first in range(0, most + 1, width):
        last = first + width - 1
        within = sum(count for staleness, count in counts.items() if first <= staleness <= last)
        bars.append((str(first) if width == 1 else f"{first}–{last}", within / total if total else 0.0))
    return bars


def most_stale(spans: Sequence[Span]) -> int:
    """The largest staleness of an applied piece; 0 where there is none."""
    return max((span.staleness for span in spans if span.outcome == "applied"), default=0)


def _client(name: str, spans: Sequence[Span], seconds: float, whole: float) -> ClientWork:
    applied = [span for span in spans if span.outcome == "applied"]
    came = [span for span in spans if span.arrived is not None]
    steps = sum(span.amount for span in came)
    weight = sum(span.weight for span in applied)
    return ClientWork(
        client=name,
        applied=len(applied),
        dropped=len(spans) - len(applied),
        steps=sum(span.amount for span in applied),
        seconds_per_step=sum(span.compute_seconds for span in came) / steps if steps else None,
        busy=sum(_worked(span) for span in spans) / seconds if seconds > 0 else None,
        waiting=sum(_waited(span) for span in spans) / seconds if seconds > 0 else None,
        staleness=fmean(span.staleness for span in applied) if applied else None,
        weight=weight / whole if whole > 0 else 0.0,
    )


def _worked(span: Span) -> float:
    return 0.0 if span.arrived is None else span.arrived - span.begun


def _waited(span: Span) -> float:
    return 0.0 if span.arrived is None else span.ended - span.arrived


def _spread(commit: Sequence[Span]) -> float:
    arrivals = [span.arrived for span in commit if span.arrived is not None]
    return max(arrivals) - min(arrivals)


def _longest(commit: Sequence[Span]) -> float:
    return max(_worked(span) for span in commit)
