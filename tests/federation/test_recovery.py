"""A federation's server is killed at every moment, and resumed: nothing acknowledged is lost, nothing applied twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from .federations import STRATEGIES, Federation, check_ended, federation_config
from .moments import Moment, every_moment
from .timed_pool import Deeds


def federation_of(strategy: str, path: Path, deeds: Deeds | None = None) -> Federation:
    """With evaluations by the clients, so that all that can be in a journal is in one."""
    config = federation_config(STRATEGIES[strategy], evaluation={"clients_every_seconds": 1.0, "episodes": 1})
    return Federation(path, config, deeds=deeds or Deeds())


def moments_of(federation: Federation, patch: pytest.MonkeyPatch, kept: Sequence[str] = ()) -> list[Moment[Deeds]]:
    """Everything that is on the disk while it runs to its end, from where there is something to go on with."""
    with every_moment(federation.path, patch, federation.deeds.copy) as moments:
        outcome = federation.run()
    check_ended(federation, outcome, kept or federation.deeds.acknowledged)
    return [moment for moment in moments if "config.yaml" in moment.files]


def resume(strategy: str, moment: Moment[Deeds], folder: Path, *, power_cut: bool = False) -> None:
    moment.restore(folder, power_cut=power_cut)
    federation = federation_of(strategy, folder, moment.known.copy())
    spans = check_ended(federation, federation.run(), moment.known.acknowledged)
    if not power_cut:
        # Every event is in the journal before anything is handed out for it.
        assert moment.known.updates.keys() <= spans.keys()


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_at_any_moment_it_goes_on(strategy: str, quick_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = moments_of(federation_of(strategy, quick_disk / "first"), monkeypatch)
    assert len(moments) > 100
    assert any(moment.loses_by_power_cut for moment in moments)
    for number, moment in enumerate(moments):
        resume(strategy, moment, quick_disk / str(number))
        if moment.loses_by_power_cut:
            resume(strategy, moment, quick_disk / f"{number}-cut", power_cut=True)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_killed_again_while_it_takes_up_it_goes_on(
    strategy: str, quick_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = moments_of(federation_of(strategy, quick_disk / "first"), monkeypatch)
    # In the middle of a commit: its checkpoint is not there yet, and all its updates are.
    commits = [moment for moment in first if any(".tmp/run.json" in name for name in moment.files)]
    killed = commits[len(commits) // 2]
    killed.restore(quick_disk / "second")
    federation = federation_of(strategy, quick_disk / "second", killed.known.copy())
    second = moments_of(federation, monkeypatch, killed.known.acknowledged)
    for number, moment in enumerate(second[: len(second) // 2 : 2]):
        resume(strategy, moment, quick_disk / str(number))
