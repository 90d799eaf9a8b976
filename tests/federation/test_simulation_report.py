"""What a simulation ends with: a page, a picture and tables, from runs made by hand."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import pytest
from rich.console import Console

from isogon.system.cli.federation_tables import simulation_tables
from isogon.system.federation.comparison import relative_times
from isogon.system.federation.simulate import SimulationOutcome
from isogon.system.federation.simulation import RunKey, SimulatedRun
from isogon.system.federation.timeline import Span
from isogon.system.reports import ReportUnwritable
from isogon.system.reports.simulation import build_simulation_page, write_simulation_report
from isogon.system.reports.simulation_curves import gantt_end, score_series

STRATEGIES: dict[str, list[float | None]] = {
    "fedcompass": [100.0, 200.0],
    "fedavg": [200.0, 200.0],
    "fedasync<&>": [300.0, None],
}
STYLES = {strategy: style for style, strategy in enumerate(STRATEGIES)}


def run(strategy: str, speeds: str, seed: int, target_seconds: float | None) -> SimulatedRun:
    seconds = target_seconds or 400.0
    spans = tuple(
        Span(f"client-{client}", 50.0 * index, 50.0 * index + 40.0, 50.0 * (index + 1), 20, index, "applied")
        for client in range(3)
        for index in range(int(seconds / 50))
    )
    return SimulatedRun(
        key=RunKey(strategy, speeds, seed),
        target_seconds=target_seconds,
        score=0.9 if target_seconds else 0.7,
        seconds=seconds,
        versions=8,
        updates=24,
        local_steps=480,
        dropped=3,
        staleness=0.25,
        utilisation=0.8,
        curve=((0.0, 0.1), (seconds / 2, 0.5), (seconds, 0.9 if target_seconds else 0.7)),
        spans=spans if seed == 0 else (),
    )


RUNS = [
    run(strategy, speeds, seed, time)
    for speeds in ("even", "exponential")
    for strategy, times in STRATEGIES.items()
    for seed, time in enumerate(times)
]
EVEN = [one for one in RUNS if one.key.speeds == "even"]


def test_a_page_compares_under_each_distribution(tmp_path: Path) -> None:
    page = build_simulation_page("digits", RUNS, "fedcompass", 0.9)
    assert [section.title for section in page.sections] == ["Even speeds", "Exponential speeds"]
    assert (
        page.sentence == "First to a score of 0.9 over 2 seeds: fedcompass under even speeds; fedcompass under "
        "exponential speeds."
    )
    table = page.sections[0].table
    assert table.columns[:4] == ("strategy", "relative time", "seconds to target", "score")
    compass, average, asynchronous = (row.cells for row in table.rows)
    assert compass[:3] == ("fedcompass", "1.00", "141 ★\n100 to 200")
    assert average[:3] == ("fedavg", "1.41\n1.00 to 2.00", "200")
    # The second run lasted 400 s and never came there: 300 / 100 and at least 400 / 200.
    assert asynchronous[:4] == ("fedasync<&>", "≥ 2.45", "reached in 1 of 2", "0.800")
    assert any("Where the target was not reached" in note for note in table.notes)
    # Only the first seed has spans.
    assert [chart.title for chart in page.sections[0].gantts] == list(STRATEGIES)
    written = write_simulation_report("digits", RUNS, "fedcompass", 0.9, tmp_path / "report.html").read_text()
    assert "fedasync&lt;&amp;&gt;" in written
    assert "fedasync<&>" not in written
    (tmp_path / "other.html").write_text("mine")
    with pytest.raises(ReportUnwritable):
        write_simulation_report("digits", RUNS, "fedcompass", 0.9, tmp_path / "other.html")


def test_without_a_target_there_is_no_time_to_it() -> None:
    timeless = [replace(one, target_seconds=None) for one in RUNS]
    page = build_simulation_page("digits", timeless, "fedcompass", None)
    assert "no target" in page.sentence
    assert page.sections[0].table.columns[:2] == ("strategy", "score")
    assert [chart.title for chart in page.sections[0].curves] == ["Score over time"]


def test_ties_are_first_together() -> None:
    tied = [replace(one, target_seconds=50.0) if one.key.strategy == "fedavg" else one for one in EVEN]
    tied += [replace(one, key=replace(one.key, strategy="twin")) for one in tied if one.key.strategy == "fedavg"]
    page = build_simulation_page("digits", tied, "fedcompass", 0.9)
    assert page.sentence == "First to a score of 0.9 over 2 seeds: fedavg and twin under even speeds."


def test_where_a_run_has_ended_its_score_is_held() -> None:
    (compass, *_) = score_series(EVEN, STYLES)
    spread = compass.spread
    assert (spread.seconds[0], spread.seconds[-1]) == (0.0, 200.0)
    # At 150 s the first run has ended with 0.9, and the second stands at 0.5.
    at = int(spread.seconds.searchsorted(150.0))
    assert (spread.mean[at], spread.low[at], spread.high[at]) == pytest.approx((0.7, 0.5, 0.9))
    assert spread.low[-1] == pytest.approx(0.9)


def test_the_close_view_has_room_for_some_pieces_and_no_more() -> None:
    # Six pieces of 40 s and a tenth, in a run of 100 s; the longest run with spans is 300 s.
    assert gantt_end(EVEN, "fedcompass") == 250.0
    assert gantt_end([one for one in EVEN if one.key.seed == 1], "fedcompass") is None


def test_one_picture_shows_all(tmp_path: Path) -> None:
    path = write_simulation_report("digits", RUNS, "fedcompass", 0.9, tmp_path / "report.svg")
    assert write_simulation_report("digits", RUNS, "fedcompass", 0.9, path) == path
    root = ElementTree.fromstring(path.read_text())
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {*STRATEGIES, "even speeds", "exponential speeds", "target 0.9", "client-2"} <= set(texts)
    assert {f"who worked when: {one}, exponential speeds" for one in ("fedcompass", "fedavg")} <= set(texts)


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_terminal_gets_the_same_figures(width: int) -> None:
    console = Console(width=width, file=io.StringIO(), force_terminal=False)
    rows = {"even": relative_times(EVEN, "fedcompass")}
    outcome = SimulationOutcome(Path("d"), tuple(EVEN), rows, "fedcompass", 0.9, 1.0, Path("d/report.html"))
    for table in simulation_tables(outcome):
        console.print(table)
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= width
    if width >= 80:
        lines = [line.split() for line in text.splitlines()]
        assert ["fedcompass", "1.00", "141", "★", "0.900", "0.25", "80.0%", "8", "3"] in lines
        assert ["1.00–2.00"] in lines
        assert any(line[:3] == ["fedasync<&>", "≥", "2.45"] for line in lines)
    assert "[" not in text
