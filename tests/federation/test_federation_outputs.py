"""What a federation says while it runs, and its summary."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from isogon.system.callbacks import Progress
from isogon.system.cli.figures import FederationFigures, Figures
from isogon.system.cli.outputs import PlainOutput, figures_of
from isogon.system.cli.summary import summary_table
from isogon.system.config.files import load_config
from isogon.system.federation.files import load_federation


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def progress(share: float, steps: int, staleness: float, updates: int, dropped: float = 0.0) -> Progress:
    metrics = {
        "isogon_pool_workers": 4.0,
        "isogon_federation_staleness_versions_sum": staleness,
        "isogon_federation_staleness_versions_count": float(updates),
        "isogon_pool_results_dropped_total": dropped,
    }
    return Progress(share, "federation", 0.0, updates, steps, 1_234, metrics)


def test_a_federation_is_told_in_short_phrases() -> None:
    clock = Clock()
    figures = FederationFigures(clock)
    assert figures.phrases() == []
    figures.take(progress(0.0, 0, 5.0, 10))
    assert figures.phrases() == ["version 1,234", "10 updates", "4 clients"]
    clock.now += 10
    figures.take(progress(0.25, 3_000, 20.0, 20, dropped=2.0))
    figures.take_evaluation({"score": 0.8125, "loss": 3.0})
    # Of the last ten updates, not of all; a quarter in ten seconds.
    assert figures.phrases() == [
        "version 1,234",
        "20 updates",
        "4 clients",
        "score 0.812",
        "staleness 1.5",
        "2 dropped",
        "300 steps/s",
        "eta 0:30",
    ]
    clock.now += 2
    figures.take(progress(1.0, 3_003, 20.0, 20))
    assert not any("eta" in phrase for phrase in figures.phrases())


def test_the_config_says_which_figures_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    config = load_federation("digits")
    assert isinstance(figures_of(config), FederationFigures)
    assert isinstance(figures_of(load_config("wordle")), Figures)
    output = PlainOutput(Clock())
    output.on_start(config, Path("runs/digits-1"), "1-5")
    output.on_evaluation(progress(0.5, 1, 0.0, 1), {"score": 0.5, "loss": 1.0})
    output.on_progress(progress(0.5, 1, 0.0, 1))
    assert capsys.readouterr().out.splitlines() == [
        "run runs/digits-1, resumed from checkpoint 1-5",
        "   0.0 s  global model: score 0.500  loss 1.000",
        "   0.0 s  federation 50%  version 1,234  1 updates  4 clients  score 0.500",
    ]


def test_a_summary_has_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    summary = {
        "federation": "wordle-silos",
        "strategy": "fedcompass",
        "clients": 4,
        "score": -3.125,
        "best_score": -3.0,
        "target_seconds": None,
        "updates_applied": 1_200,
        "updates_dropped": 3,
        "mean_staleness": 0.75,
        "utilisation": 0.9,
        "final_never_seen_return": -3.25,
    }
    Console(width=80).print(summary_table(summary))
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "federation wordle-silos",
        "strategy fedcompass",
        "clients 4",
        "score -3.125",
        "best -3.000",
        "never-seen words: return -3.250",
        "clients' updates 1,200 applied, 3 dropped",
        "staleness 0.75 versions, mean",
        "clients worked 90.0% of the time",
    ]
