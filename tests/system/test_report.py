"""Reports of real runs: one file that needs nothing else, whose numbers are the run's, whatever state it is in."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from isogon.actors.environments.wordle import load_words
from isogon.system.api import RunResult, evaluate, report, train
from isogon.system.callbacks import Callback
from isogon.system.config.files import load_config
from isogon.system.errors import ExitCode, explain
from isogon.system.evaluation import rival_returns
from isogon.system.reports import ReportUnwritable
from isogon.system.runs.directory import RunDirectory, RunDirectoryDamaged, RunDirectoryMissing
from isogon.system.saved_run import SavedRun

WORDLE = [
    "deterministic=true",
    "actors.publish_every_updates=5",
    "checkpoints.every_seconds=null",
    "checkpoints.every_updates=15",
    "actors.pool=in_process",
    "actors.envs_per_worker=32",
    "actors.steps_per_assignment=64",
    "actors.updates_per_step=0.05",
    "budget.seconds=null",
    "budget.updates=60",
    "evaluation.filter_games=2",
    "evaluation.every_share=0.25",
    "offline.steps=2000",
    "replay.min_size=500",
    "replay.batch_size=32",
    "network.hidden=16",
    "network.channels=2",
]
VOID = {"meta", "br"}


class Parsed(HTMLParser):
    """A page, read strictly: every element is closed, in order."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.ids: set[str] = set()
        self.pieces: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == [], "elements are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        self.ids |= {value for name, value in attrs if name == "id" and value}
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open, f"</{tag}> closes nothing"
        assert self.open[-1] == tag, f"</{tag}> closes {self.open[-1]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.pieces.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.pieces).split())


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunResult]:
    folder = tmp_path_factory.mktemp("runs")
    words = folder / "words & <b>.txt"
    words.write_text("\n".join(load_words()[::20]) + "\n")
    wordle = load_config("wordle", [*WORDLE, f"environment.word_list={words}"])
    pole = load_config("cartpole", ["budget.env_steps=1500", "evaluation.episodes=3", "replay.min_size=200"])
    return {
        "wordle": train(wordle, run_dir=folder / "wordle-1"),
        "other seed": train(wordle.model_copy(update={"seed": 1}), run_dir=folder / "wordle-2"),
        "pole": train(pole, run_dir=folder / "pole-1"),
    }


@pytest.fixture
def copy(trained: dict[str, RunResult], tmp_path: Path) -> Callable[..., Path]:
    """A copy of a trained run, to be spoilt."""

    def make(which: str = "wordle", name: str = "copy") -> Path:
        path = tmp_path / name
        shutil.copytree(trained[which].run_dir, path)
        return path

    return make


class Heard(Callback):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_message(self, text: str) -> None:
        self.lines.append(text)


def read(path: Path) -> Parsed:
    return Parsed(path.read_text(encoding="utf-8"))


def shown(value: float, digits: int) -> str:
    return f"{value:.{digits}f}".replace("-", "−")


def test_train_leaves_a_report_whose_numbers_are_the_runs(trained: dict[str, RunResult]) -> None:
    result = trained["wordle"]
    assert result.report == result.run_dir / "report.html"
    page = read(result.report)
    assert {"curves", "results", "games", "time", "runs", "config"} <= page.ids
    for name in ("never_seen_return", "filter_return", "entropy_search_return", "data_policy_return", "seen_return"):
        assert shown(result.summary[name], 3) in page.text, name
    for end in ("_low", "_high"):
        assert f"{result.summary[f'never_seen_vs_filter{end}']:+.3f}".replace("-", "−") in page.text
    assert f"{result.summary['never_seen_solved']:.1%}" in page.text
    last = RunDirectory.open(result.run_dir).read_metrics()[-1]
    learning = last['isogon_phase_seconds_total{phase="learning"}']
    assert f"learning {learning:,.1f} s, {learning / last['seconds']:.1%}" in page.text
    assert f"updates {result.summary['updates']}" in page.text
    assert f"torch {result.summary['versions']['torch']}" in page.text
    assert re.search(r"machine .*\d+ cores?, \d+ GiB", page.text)
    # What differs from the preset, and nothing else.
    assert "network.hidden 256 16" in page.text
    assert "value.bins" not in page.text.partition("The whole config")[0]


def test_a_page_needs_nothing_else(trained: dict[str, RunResult], tmp_path: Path) -> None:
    everything = report([result.run_dir for result in trained.values()], tmp_path / "all.html")
    text = everything.read_text()
    page = read(everything)
    assert not {"script", "link", "img", "iframe", "object", "embed", "base", "image", "use"} & set(page.tags)
    for tag, name, value in page.attributes:
        assert name not in ("src", "srcset", "href", "xlink:href", "action", "poster", "data", "style"), (tag, name)
        assert not name.startswith("on"), (tag, name)
        assert "://" not in value, (tag, name, value)
    assert "url(" not in text
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert ("meta", "content", "width=device-width, initial-scale=1") in page.attributes


def test_a_gymnasium_run_has_no_games(trained: dict[str, RunResult]) -> None:
    result = trained["pole"]
    assert result.report is not None
    page = read(result.report)
    assert "games" not in page.ids
    assert {"curves", "results", "time", "runs", "config"} <= page.ids
    summary = result.summary
    assert f"{summary['evaluation_return']:.2f}" in page.text
    bounds = f"{summary['evaluation_return_low']:.2f} to {summary['evaluation_return_high']:.2f}"
    assert bounds in page.text


def test_several_runs_are_pooled_over_seeds_and_compared(trained: dict[str, RunResult], tmp_path: Path) -> None:
    paths = [result.run_dir for result in trained.values()]
    page = read(report(paths, tmp_path / "all.html"))
    pooled = evaluate(paths[:2])
    assert shown(pooled["never_seen_return"], 3) in page.text
    for end in ("_low", "_high"):
        assert f"{pooled[f'never_seen_vs_filter{end}']:+.3f}".replace("-", "−") in page.text
    each = ", ".join(
        f"{seed}: {shown(trained[name].summary['never_seen_return'], 3)}"
        for seed, name in enumerate(("wordle", "other seed"))
    )
    assert f"by seed {each}" in page.text
    assert "CartPole-v1" in page.text
    assert f"cartpole: returns {trained['pole'].summary['evaluation_return']:.2f}" in page.text


def test_what_is_hostile_stays_text(copy: Callable[..., Path]) -> None:
    run = copy(name="<script>alert(1)<b>&'\"")
    log = run / "attempts" / "1" / "log.txt"
    log.write_text("</p><script>alert(2)</script>\n")
    (run / "summary.json").unlink()
    path = report([run])
    page = read(path)
    assert "<script" not in path.read_text()
    assert "<script>alert(1)<b>&'\"" in page.text
    assert "alert(2)" in page.text
    # The word list's path has markup in it too.
    assert "words & <b>.txt" in page.text


def test_a_name_that_is_no_utf8(copy: Callable[..., Path], tmp_path: Path) -> None:
    run = copy(name="plain").rename(os.fsdecode(os.fsencode(tmp_path) + b"/run-\xff"))
    read(report([run]))


def test_curves_alone_are_a_picture_beside_players_that_do_not_learn(
    trained: dict[str, RunResult], tmp_path: Path
) -> None:
    runs = [trained["wordle"].run_dir, trained["other seed"].run_dir]
    picture = tmp_path / "curves.svg"
    assert report(runs, picture) == report(runs, picture) == picture
    words = picture.read_text()
    rivals = rival_returns(SavedRun.open(runs[0]).config)
    assert -6 < rivals["data policy"] < rivals["perfect filtering"] < rivals["entropy search"] < 0
    for name, value in rivals.items():
        assert f"{name} {shown(value, 2)}" in words
    with pytest.raises(ValueError, match="name runs whose returns compare") as raised:
        report([runs[0], trained["pole"].run_dir], picture)
    assert explain(raised.value).code == ExitCode.CONFIG
    picture.write_text("<svg/>")
    with pytest.raises(ReportUnwritable, match="no report of Isogon's"):
        report(runs, picture)


# Runs that are not done.


def test_a_run_that_is_still_going(copy: Callable[..., Path]) -> None:
    run = copy()
    before = sorted(path.name for path in run.iterdir())
    with RunDirectory.open(run).hold():
        heard = Heard()
        page = read(report([run], callbacks=[heard]))
    assert "still going" in page.text
    assert f"process {os.getpid()} on {socket.gethostname()}" in page.text
    assert any("still going" in line for line in heard.lines)
    assert {"curves", "games"} <= page.ids
    assert "−" in page.text.partition("validation return of")[2][:3]
    assert sorted(path.name for path in run.iterdir()) == before


def test_a_run_that_failed(copy: Callable[..., Path]) -> None:
    run = copy()
    (run / "summary.json").unlink()
    (run / "attempts" / "1" / "log.txt").write_text("2026 WorkFailed\nTraceback\nWorkFailed: no ROM\n\n")
    page = read(report([run]))
    assert f"ended before its end (WorkFailed: no ROM): go on with isogon train --resume --run-dir {run}" in page.text
    assert {"curves", "games"} <= page.ids


def test_a_run_that_was_killed_while_it_held_the_directory(copy: Callable[..., Path]) -> None:
    run = copy()
    (run / "summary.json").unlink()
    (run / ".holder.json").write_text(json.dumps({"pid": 2**22 + 1, "host": socket.gethostname()}))
    assert "ended before its end" in read(report([run])).text


def test_a_summary_of_an_earlier_attempt_does_not_count(copy: Callable[..., Path]) -> None:
    run = RunDirectory.open(copy())
    with run.hold():
        run.claim_attempt(run.checkpoint_line()[0])
    page = read(report([run.path]))
    assert "ended before its end" in page.text


def test_a_run_that_has_nothing_yet(copy: Callable[..., Path]) -> None:
    run = copy()
    for name in ("attempts", "checkpoints"):
        shutil.rmtree(run / name)
        (run / name).mkdir()
    (run / "summary.json").unlink()
    page = read(report([run]))
    assert "never begun" in page.text
    assert "no metrics yet" in page.text
    assert "no whole checkpoint yet" in page.text
    assert "curves" not in page.ids


# Other versions.


def test_a_config_with_an_unknown_key(copy: Callable[..., Path]) -> None:
    run = copy()
    with (run / "config.yaml").open("a") as file:
        file.write("warp_drive: 9\n")
    page = read(report([run]))
    assert "another version of Isogon (unknown key warp_drive)" in page.text
    assert "No games are shown" in page.text
    assert {"curves", "results", "time"} <= page.ids


def test_metrics_with_unknown_and_spoilt_figures(copy: Callable[..., Path]) -> None:
    run = copy()
    with (run / "attempts" / "1" / "metrics.jsonl").open("a") as file:
        row: dict[str, Any] = {"step": 60, "seconds": "soon", "isogon_warp_factor": 9, "isogon_evaluation_return": None}
        file.write(json.dumps(row) + "\n{torn")
    page = read(report([run]))
    assert "figures that this version does not know: isogon_warp_factor" in page.text
    assert "curves" in page.ids


def test_a_checkpoint_of_another_network(copy: Callable[..., Path]) -> None:
    run = copy()
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace("hidden: 16", "hidden: 24"))
    page = read(report([run]))
    assert "No games are shown: " in page.text
    assert "results" in page.ids


def test_a_checkpoint_of_another_word_list(copy: Callable[..., Path], tmp_path: Path) -> None:
    run = RunDirectory.open(copy())
    config = run.read_config()
    words = load_words(config["environment"]["word_list"])
    others = [word for word in load_words() if word not in words][: len(words)]
    config["environment"]["word_list"] = str(tmp_path / "others.txt")
    (tmp_path / "others.txt").write_text("\n".join(others) + "\n")
    run.write_config(config)
    page = read(report([run.path]))
    assert "No games are shown: checkpoint" in page.text
    assert "games" in page.ids
    assert "results" in page.ids


def test_an_attempt_of_a_newer_version(copy: Callable[..., Path]) -> None:
    run = copy()
    path = run / "attempts" / "1" / "attempt.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"weather": "fair"}))
    assert "curves" in read(report([run])).ids


# Refusals.


def test_what_cannot_be_reported_is_said(copy: Callable[..., Path], tmp_path: Path) -> None:
    run = copy()
    (tmp_path / "empty").mkdir()

    def refused(error: type[Exception], code: ExitCode, words: str, *runs: Path, output: Path | None = None) -> None:
        with pytest.raises(error, match=words) as raised:
            report(runs, output)
        assert explain(raised.value).code == code

    refused(RunDirectoryMissing, ExitCode.RUN_DIRECTORY, "is not there", tmp_path / "nope")
    refused(RunDirectoryMissing, ExitCode.RUN_DIRECTORY, "no run directory", run, tmp_path / "empty")
    refused(ValueError, ExitCode.CONFIG, "named twice", run, run / ".." / run.name)
    refused(ValueError, ExitCode.CONFIG, "no runs")
    refused(ReportUnwritable, ExitCode.PERMISSION, "is a folder", run, output=tmp_path)
    refused(ReportUnwritable, ExitCode.PERMISSION, "no folder", run, output=tmp_path / "x" / "y.html")
    config = (run / "config.yaml").read_bytes()
    refused(ReportUnwritable, ExitCode.PERMISSION, "no report of Isogon's", run, output=run / "config.yaml")
    assert (run / "config.yaml").read_bytes() == config
    (run / "summary.json").write_text("[1]")
    refused(RunDirectoryDamaged, ExitCode.RUN_DIRECTORY, "no mapping", run)


def test_a_report_is_written_over_and_several_go_here(
    copy: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, other = copy("pole", "a"), copy("pole", "b")
    monkeypatch.chdir(tmp_path)
    assert report([run]) == report([run]) == run / "report.html"
    # Two runs of one seed: shown together, not pooled.
    assert report([run, other]) == Path("report.html")
    assert "have the seed 0 twice" in read(tmp_path / "report.html").text


def test_a_report_that_cannot_be_written_fails_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, page: str) -> None:
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("isogon.system.api.write_report", full)
    heard = Heard()
    pole = load_config("cartpole", ["budget.env_steps=300", "evaluation.episodes=1", "replay.min_size=200"])
    result = train(pole, run_dir=tmp_path / "run", callbacks=[heard])
    assert result.report is None
    assert RunDirectory.open(result.run_dir).read_summary() is not None
    assert any("no report was written (the disk is full" in line for line in heard.lines)
