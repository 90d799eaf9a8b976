"""What pieces of training come to, and how they are drawn, against numbers made by hand and a slow reading."""

from __future__ import annotations

from itertools import pairwise
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from isogon.system.federation.timeline import Span
from isogon.system.reports.bars import range_chart
from isogon.system.reports.federation_work import clients_of, commits_of, staleness_bars, work_of
from isogon.system.reports.gantt import (
    MOST_BARS,
    MOST_CLIENTS,
    busy_share,
    by_client,
    gantt_chart,
    load_chart,
    round_down,
    some_of,
    window_of,
)


def span(
    worker: str,
    begun: float,
    arrived: float | None,
    ended: float,
    *,
    staleness: int = 0,
    weight: float = 0.5,
    **more: int,
) -> Span:
    return Span(
        worker=worker,
        begun=begun,
        arrived=arrived,
        ended=ended,
        amount=more.get("amount", 10),
        version=1,
        outcome="dropped" if more.get("dropped") else "applied",
        weight=weight,
        staleness=staleness,
        compute_seconds=0.0 if arrived is None else 0.9 * (arrived - begun),
    )


PIECES = [
    span("a", 0, 10, 12, amount=20),
    span("b", 0, 12, 12, staleness=1, weight=1.5),
    span("a", 12, 20, 24),
    span("b", 12, 23, 24, staleness=3),
    span("c", 0, 5, 30, dropped=1, weight=0.0),
    span("d", 20, None, 40, dropped=1, weight=0.0),
]


def test_what_all_pieces_come_to() -> None:
    work = work_of(PIECES, 4, 40.0)
    assert work.staleness == 1.0
    assert work.utilisation == pytest.approx((10 + 12 + 8 + 11 + 5) / (4 * 40))
    assert work.waiting == pytest.approx((2 + 0 + 4 + 1 + 25) / (4 * 40))
    assert work.in_a_commit == 2.0
    # Two commits: 2 s apart of 12 s, and 3 s apart of 11 s.
    assert work.arrival_spread == pytest.approx(2.5)
    assert work.relative_spread == pytest.approx((2 / 12 + 3 / 11) / 2)
    assert [len(commit) for commit in commits_of(PIECES)] == [2, 2]


def test_a_commit_of_one_client_has_no_spread_and_nothing_has_no_figures() -> None:
    work = work_of([span("a", 0, 1, 5), span("a", 1, 4, 5)], 1, 5.0)
    assert (work.arrival_spread, work.in_a_commit) == (None, 2.0)
    nothing = work_of([], None, 0.0)
    assert set(vars(nothing).values()) == {None}


def test_each_client() -> None:
    lines = {line.client: line for line in clients_of(by_client(PIECES), 40.0)}
    a, d = lines["a"], lines["d"]
    assert (a.applied, a.dropped, a.steps, a.staleness) == (2, 0, 30, 0.0)
    assert a.seconds_per_step == pytest.approx(0.9 * 18 / 30)
    assert [a.busy, a.waiting] == pytest.approx([18 / 40, 6 / 40])
    assert a.weight == pytest.approx(1.0 / 3.0)
    assert sum(line.weight for line in lines.values()) == pytest.approx(1.0)
    assert (d.applied, d.dropped, d.seconds_per_step, d.busy) == (0, 1, None, 0.0)


@given(st.lists(st.integers(0, 60), min_size=1))
def test_bars_of_staleness_are_all_of_it(values: list[int]) -> None:
    bars = staleness_bars([span("a", 0, 1, 1, staleness=value) for value in values], max(values))
    assert len(bars) <= 12
    assert sum(share for _, share in bars) == pytest.approx(1.0)
    assert bars[0][0].partition("–")[0] == "0"


def test_clients_are_in_the_order_of_their_speed_and_some_stand_for_all() -> None:
    assert list(by_client(PIECES)) == ["c", "a", "b", "d"]
    many = {str(index): [span(str(index), 0, 1, 1)] for index in range(1_000)}
    some = list(map(int, some_of(many)))
    assert len(some) == MOST_CLIENTS
    assert (some[0], some[-1]) == (0, 999)
    assert {b - a for a, b in pairwise(some)} <= {25, 26}
    assert some_of({"a": []}) == {"a": []}


def test_what_is_drawn_is_bounded() -> None:
    def row(pieces: int) -> list[Span]:
        return [span("a", index, index + 1, index + 1) for index in range(pieces)]

    assert window_of({"a": row(60)}) == float("inf")
    assert window_of({"a": row(60), "b": row(61)}) == 60.0
    crowd = {str(index): row(60) for index in range(MOST_CLIENTS)}
    end = window_of(crowd)
    assert sum(one.begun < end for spans in crowd.values() for one in spans) <= MOST_BARS
    chart = gantt_chart(crowd, end=end, style=0, title="all")
    assert chart.count("<rect") <= MOST_BARS
    assert load_chart(crowd, end=60.0, style=0, title="all").count("<rect") <= MOST_BARS


@given(st.floats(1e-3, 1e6))
def test_round_times_are_below_and_not_far(seconds: float) -> None:
    assert 0.66 * seconds < round_down(seconds) <= seconds * (1 + 1e-8)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0.1, 5), min_size=2, max_size=12), st.integers(1, 9))
def test_busy_share_is_what_counting_gives(gaps: list[float], bins: int) -> None:
    times = np.cumsum(gaps)
    spans = [span("a", begun, arrived, arrived) for begun, arrived in zip(times[::2], times[1::2], strict=False)]
    edges = np.linspace(0.0, float(times[-1]) + 1.0, bins + 1)
    slow = [
        sum(max(min(one.ended, high) - max(one.begun, low), 0.0) for one in spans) / (high - low)
        for low, high in pairwise(edges)
    ]
    np.testing.assert_allclose(busy_share(spans, edges), slow, atol=1e-9)


def test_bars_lie_where_the_pieces_were() -> None:
    root = ElementTree.fromstring(str(gantt_chart(by_client(PIECES), end=40.0, style=2, title="all")))

    def place(seconds: float) -> float:
        return 74.0 + seconds / 40.0 * (350.0 - 74.0)

    def of(kind: str) -> list[tuple[float, float]]:
        found = [rect for rect in root.iter("rect") if kind in rect.attrib["class"].split()]
        return [(float(rect.attrib["x"]), float(rect.attrib["width"])) for rect in found]

    assert of("work") == [
        pytest.approx((place(begun), place(arrived) - place(begun)), abs=0.02)
        for begun, arrived in ((0, 10), (12, 20), (0, 12), (12, 23))
    ]
    waits = [(10, 12), (20, 24), (23, 24)]
    assert of("wait") == [
        pytest.approx((place(start), place(end) - place(start)), abs=0.02) for start, end in [(5, 30), *waits]
    ]
    # Drawn within the outline of what it lasted.
    assert of("dropped")[1] == pytest.approx((place(20) + 0.5, place(40) - place(20) - 1.0), abs=0.02)
    commits = [line for line in root.iter("line") if line.attrib["class"] == "commit"]
    assert [float(line.attrib["x1"]) for line in commits] == [pytest.approx(place(t), abs=0.02) for t in (12, 24)]
    # Over the second and the third row, where a and b are.
    assert {(line.attrib["y1"], line.attrib["y2"]) for line in commits} == {("18.5", "45.5")}
    assert [text.text for text in root.iter("text")][:4] == ["c", "a", "b", "d"]


def test_what_twice_takes_is_as_far_as_half() -> None:
    rows = [("half", 0, 0.5, 0.4, 0.6), ("one", 1, 1.0, 1.0, 1.0), ("twice", 2, 2.0, 1.5, 2.5)]
    root = ElementTree.fromstring(str(range_chart(rows, title="times", x_label="x", mark=1.0)))
    half, one, twice = (float(circle.attrib["cx"]) for circle in root.iter("circle"))
    assert one - half == pytest.approx(twice - one, abs=0.02)
    (mark,) = (line for line in root.iter("line") if line.attrib["class"] == "mark")
    assert float(mark.attrib["x1"]) == pytest.approx(one, abs=0.02)
