"""Environments that raise or give what is no number: a run goes on, or stops with a checkpoint."""

from __future__ import annotations

from pathlib import Path

import pytest

from isogon import Callback, Progress, load_config, train
from isogon.actors.pools import WorkFailed

HERE = Path(__file__).parent


class Watch(Callback):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.failed = 0.0
        self.steps = 0
        self.checkpoints: list[Path] = []

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def on_progress(self, progress: Progress) -> None:
        self.steps = progress.env_steps
        self.failed = progress.metrics.get("isogon_pool_pieces_failed_total", 0.0)

    def on_checkpoint(self, folder: Path) -> None:
        self.checkpoints.append(folder)


def run(tmp_path: Path, watch: Watch, how: str, times: int, *overrides: str) -> None:
    files = tmp_path / "files"
    files.mkdir()
    for number in range(times):
        (files / f"{number:03}").touch()
    config = load_config(
        "cartpole",
        [
            f"environment={{kind: custom, class: 'stumbling:Stumbling', kwargs: {{folder: '{files}', how: {how}}}}}",
            "deterministic=false",
            "network.hidden=[8]",
            "actors.envs_per_worker=4",
            "actors.workers=2",
            "replay={capacity: 1000, min_size: 50, batch_size: 8}",
            "budget={env_steps: 1000}",
            "evaluation={every_share: 0.5, episodes: 2}",
            *overrides,
        ],
    )
    train(config, run_dir=tmp_path / "run", callbacks=[watch])


@pytest.fixture(autouse=True)
def own_code(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(HERE))


@pytest.mark.parametrize("how", ["raise", "reward", "observation"])
def test_a_run_goes_on_and_counts(tmp_path: Path, how: str) -> None:
    watch = Watch()
    run(tmp_path, watch, how, 3)
    assert watch.steps >= 1000
    # Environments that go in step may stumble in the same piece.
    assert 1 <= watch.failed <= 3
    told = [message for message in watch.messages if "failed at" in message]
    assert len(told) == watch.failed
    assert all(("lost its way" if how == "raise" else "nan" if how == "reward" else "inf") in each for each in told)


def test_one_that_never_gets_better_ends_the_run_with_a_checkpoint(tmp_path: Path) -> None:
    watch = Watch()
    with pytest.raises(
        WorkFailed, match=r"lost its way .*; 4 pieces of work failed with none between them that went well"
    ):
        run(
            tmp_path,
            watch,
            "raise",
            1000,
            "actors.max_failures=3",
            "actors.workers=1",
            "actors.steps_per_assignment=64",
        )
    assert watch.failed <= 4


def test_a_deterministic_run_ends_at_the_first(tmp_path: Path) -> None:
    watch = Watch()
    with pytest.raises(WorkFailed, match="OSError: the emulator lost its way"):
        run(tmp_path, watch, "raise", 1, "deterministic=true", "replay.keep_in_checkpoint=true")
