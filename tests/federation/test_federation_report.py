"""Reports of federations' run directories: the numbers are the runs', whatever state they are in."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from isogon.system.api import report
from isogon.system.errors import ExitCode, explain
from isogon.system.federation.timeline import TIMELINE, Span
from isogon.system.reports import ReportUnwritable
from isogon.system.reports.federation import report_federations
from isogon.system.runs.checkpoints import CheckpointRef
from isogon.system.runs.directory import RunDirectory, RunDirectoryDamaged, RunDirectoryMissing

CLIENTS = [{"name": "north", "count": 1}, {"name": "south", "count": 2}]


class Page(HTMLParser):
    """A page, read strictly: every element is closed, in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self._open: list[str] = []
        self.tags: set[str] = set()
        self.ids: set[str] = set()
        self._pieces: list[str] = []
        self.feed(page)
        self.close()
        assert self._open == []
        self.text = " ".join(" ".join(self._pieces).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids |= {value for name, value in attrs if name == "id" and value}
        assert not any(name in ("src", "href") or name.startswith("on") for name, _ in attrs)
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] not in (["style"], ["title"]):
            self._pieces.append(data)


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def piece(worker: str, begun: float, arrived: float, ended: float, version: int = 1, **changes: Any) -> Span:
    first = Span(worker, begun, arrived, ended, 10, version, "applied", weight=0.5, compute_seconds=arrived - begun)
    first.token = f"1/{worker}/{round(begun)}"
    for name, value in changes.items():
        setattr(first, name, value)
    return first


SPANS = [
    piece("north", 0.0, 8.0, 10.0),
    piece("south-0", 0.0, 10.0, 10.0),
    piece("south-1", 0.0, 15.0, 15.0, staleness=1),
    piece("north", 10.0, 14.0, 15.0, version=2),
    piece("south-0", 10.0, 20.0, 20.0, version=2, outcome="dropped", reason="closing", weight=0.0),
]

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """Write a federation's directory, as a run leaves it."""

    def write(
        name: str,
        *,
        scores: Sequence[float] = (0.1, 0.5, 0.8),
        done: bool = True,
        spans: Sequence[Span] = SPANS,
        **config: Any,
    ) -> Path:
        directory = RunDirectory.create(tmp_path / name)
        settings = {"name": "silos", "seed": 0, "strategy": {"kind": "fedcompass"}, "clients": CLIENTS} | config
        with directory.hold():
            directory.write_config(settings)
            attempt = directory.claim_attempt(None)
            write_spans(directory.log_path(attempt).with_name(TIMELINE), spans)
            for index, score in enumerate(scores):
                row: dict[str, Any] = {"step": index + 1, "seconds": 10.0 * index, "share": 0.5 * index}
                row['isogon_federation_local_steps_total{client_group="north"}'] = 100.0 * index
                directory.append_metrics(attempt, row)
                seen = {"evaluation": {"score": score}, "evaluated_version": index + 1, "evaluated_at": 10.0 * index}
                directory.append_metrics(attempt, row | seen)
            if done:
                directory.write_summary(
                    {
                        "score": scores[-1],
                        "best_score": max(scores),
                        "target_seconds": None,
                        "model_versions": 3,
                        "updates_applied": 4,
                        "updates_dropped": 1,
                        "local_steps": 40,
                        "federation_seconds": 20.0,
                        "final_loss": 1.25,
                        "attempts": 1,
                    }
                )
        return directory.path

    return write


def write_spans(path: Path, spans: Sequence[Span]) -> None:
    path.write_text("".join(json.dumps(row_of(span)) + "\n" for span in spans))


def row_of(span: Span) -> dict[str, Any]:
    """As a run writes it, with the version that came of the commit."""
    return span.to_json() | {"step": span.version + span.staleness + 1}


def test_a_page_has_the_runs_numbers(make: Make) -> None:
    run = make("silos-1", budget={"seconds": 20.0, "target": 0.5})
    page = read(report([run]))
    assert {"curves", "results", "staleness", "work", "clients", "runs", "config"} <= page.ids
    assert not {"script", "link", "img", "iframe"} & page.tags
    assert "A score of 0.800." in page.text
    results = page.text.partition("Score strategy score best score seconds to target run seconds final loss ")[2]
    # The summary has no time of the target, but the curve reached it at 10 s.
    assert results.startswith("fedcompass 0.800 0.800 10.0 20.0 1.250 ")
    work = page.text.partition("arrivals' spread, s ")[2]
    # Two commits of two clients: 2 s of 10 s apart, and 1 s of 15 s. 47 of 60 client seconds were worked.
    assert work.startswith("fedcompass 3 4 1 dropped 40 0.25 78.3% 5.0% 2.0 1.50 13.3%")
    clients = page.text.partition("s per step busy results wait staleness weight ")[2]
    assert clients.startswith("north 20 2 0 0.6 60.0% 15.0% 0.00 50.0% south-0 10 1 1 1 100.0% 0.0% 0.00 25.0% south-1")
    assert "75% 0 25% 1 versions" in page.text


def test_strategies_beside_each_other_are_pooled_over_seeds(make: Make, tmp_path: Path) -> None:
    target = {"seconds": 20.0, "target": 0.7}
    runs = [
        make("a0", scores=[0.2, 0.8], budget=target),
        make("a1", scores=[0.2, 0.6], budget=target, seed=1),
        make("b0", scores=[0.3, 0.9], budget=target, strategy={"kind": "fedavg"}),
        make("n0", scores=[0.1, 0.4], budget=target, participants=["north"]),
    ]
    page = read(report(runs, tmp_path / "all.html"))
    assert "Scores: fedcompass 0.700 over 2 seeds; fedavg 0.900; north alone 0.400." in page.text
    row = page.text.partition("final loss fedcompass by seed 0: 0.800; 1: 0.600 ")[2]
    assert row.startswith("0.700 0.600 to 0.800 0.700 0.600 to 0.800 reached in 1 of 2 20.0 1.250 fedavg")
    assert "north alone 0.400 0.400 not reached 20.0" in page.text
    assert "bands reach from the lowest to the highest" in page.text
    assert "Of each group's first run, the fastest client above." in page.text


def test_only_what_differs_tells_groups_apart(make: Make, tmp_path: Path) -> None:
    runs = [make(f"r{k}", strategy={"kind": "fedbuff", "buffer": k, "speed": {"momentum": 0.9}}) for k in (3, 5)]
    page = read(report(runs, tmp_path / "all.html"))
    assert "fedbuff, strategy.buffer 3" in page.text
    assert "fedbuff, strategy.buffer 5" in page.text
    assert "momentum 0.9 0.800" not in page.text
    other = make(
        "r6", strategy={"kind": "fedbuff", "buffer": 3, "speed": {"momentum": 0.9}}, ray={"address": "x"}, seed=2
    )
    assert "over 2 seeds" in read(report([runs[0], other], tmp_path / "all.html")).text


def test_pieces_of_all_attempts_count_up_to_where_the_next_took_over(make: Make) -> None:
    run = RunDirectory.open(make("silos-1", done=False))
    first = run.read_attempts()[0]
    folder = run.log_path(first).parent
    write_spans(folder / TIMELINE, [piece("north", 0, 1, 1, 1), piece("north", 1, 2, 2, 2), piece("north", 2, 3, 3, 3)])
    (run.path / "checkpoints" / "1-2").mkdir()
    with run.hold():
        second = run.claim_attempt(CheckpointRef(1, 2))
        write_spans(run.log_path(second).with_name(TIMELINE), [piece("south-0", 2.5, 3.5, 3.5, 3)])
    page = read(report([run.path]))
    # Of the first attempt the piece that its checkpoint holds; what came later came again.
    assert re.search(r" north 10 1 0 .* south-0 10 1 0 ", page.text)
    assert "Who worked when is shown up to the newest checkpoint." in page.text
    assert "attempts 2" in page.text


# Runs that are not whole.


def test_damaged_figures_are_left_out_and_said(make: Make) -> None:
    run = make("silos-1")
    good = json.dumps(row_of(SPANS[0]))
    spoilt = [
        "{torn",
        "[1]",
        json.dumps(row_of(SPANS[0]) | {"begun": "soon"}),
        json.dumps(row_of(SPANS[0]) | {"arrived": 99.0}),
        good.replace("8.0", "NaN"),
        json.dumps({"span": "north"}),
        json.dumps(row_of(SPANS[0]) | {"more": 1}),
        json.dumps(row_of(SPANS[0]) | {"outcome": "lost"}),
    ]
    (run / "attempts" / "1" / TIMELINE).write_text(
        "\n".join([good, *spoilt, good, json.dumps(row_of(SPANS[3])), '{"span": "no'])
    )
    (run / "summary.json").write_text("[1]")
    with (run / "attempts" / "1" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 9, "evaluation": {"score": null}, "evaluated_at": 3}\n{"step": 10, "evaluation": 3}\n{to')
    heard: list[str] = []
    page = read(report_federations([run], run / "report.html", heard.append))
    assert "8 of 11 lines of" in page.text
    assert "Its summary is left out: summary.json holds no mapping." in page.text
    assert "ended before its end" in page.text
    assert "A score of 0.800, ended before its end." in page.text
    assert re.search(r" north 20 2 0 ", page.text)
    assert any("8 of 11 lines" in line for line in heard)


def test_a_run_that_has_nothing_yet_and_one_that_is_going(make: Make) -> None:
    run = RunDirectory.open(make("silos-1", scores=[], done=False, spans=[]))
    with run.hold():
        page = read(report([run.path]))
    assert "A score of nothing yet, still going." in page.text
    assert f"process {os.getpid()}" in page.text
    assert "No piece of training has ended yet" in page.text
    assert {"results", "runs"} <= page.ids
    assert not {"curves", "work", "staleness", "clients"} & page.ids
    with pytest.raises(ValueError, match="no run has been evaluated yet") as raised:
        report([run.path], run.path / "curves.svg")
    assert explain(raised.value).code == ExitCode.CONFIG


def test_what_is_hostile_stays_text(make: Make, tmp_path: Path) -> None:
    name = "<script>alert(1)</script>"
    run = make("silos-1", strategy={"kind": name}, spans=[piece(name, 0, 1, 2)])
    page = report([run])
    assert "script" not in read(page).tags
    assert "<script>" not in page.read_text()
    assert name in read(page).text
    picture = report([run], tmp_path / "x.svg")
    ElementTree.fromstring(picture.read_text())


def test_many_clients_and_pieces_are_bounded_and_said(make: Make) -> None:
    spans = [
        piece(f"c{client}", 0.1 * index, 0.1 * index + 0.08, 0.1 * index + 0.1, amount=client + 1)
        for client in range(100)
        for index in range(100)
    ]
    path = report([make("silos-1", spans=spans, clients=[{"name": "c", "count": 100}])])
    page = read(path)
    assert "40 of 100 clients are drawn, evenly over their speeds." in page.text
    assert "fedcompass, its beginning" in page.text
    assert "The first 5 of 20 seconds: more bars could not be told apart." in page.text
    assert "60 others, mean of each" in page.text
    assert path.read_text().count("<rect") < 6_000
    assert path.stat().st_size < 1_000_000


# Which report, and where.


def test_scores_alone_are_a_picture(make: Make, tmp_path: Path) -> None:
    runs = [make("a"), make("b", strategy={"kind": "fedavg"}, budget={"target": 0.75})]
    picture = tmp_path / "scores.svg"
    assert report(runs, picture) == report(runs, picture) == picture
    root = ElementTree.fromstring(picture.read_text())
    texts = [text.text for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"silos: score of the global model", "fedcompass", "fedavg", "target 0.75", "run seconds"} <= set(texts)
    picture.write_text("<svg/>")
    with pytest.raises(ReportUnwritable, match="no report of Isogon's"):
        report(runs, picture)


def test_federations_and_training_runs_are_not_mixed(make: Make, tmp_path: Path) -> None:
    run = make("silos-1")
    training = RunDirectory.create(tmp_path / "pole")
    with training.hold():
        training.write_config({"name": "pole", "budget": {}, "environment": {}})
    with pytest.raises(ValueError, match=r"is a federation and .*pole is none: report on each kind apart") as raised:
        report([training.path, run], tmp_path / "all.html")
    assert explain(raised.value).code == ExitCode.CONFIG
    with pytest.raises(RunDirectoryMissing, match="is of no federation"):
        report_federations([training.path], tmp_path / "x.html", print)
    (run / "attempts" / "1" / "attempt.json").write_text("{}")
    with pytest.raises(RunDirectoryDamaged):
        report([run])
