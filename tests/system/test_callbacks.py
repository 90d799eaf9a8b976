"""Callbacks that fail, and the checkpoints that are kept: a run loses nothing by either."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from isogon.learners.plugins import Plugin, PluginError
from isogon.system.api import evaluate, train
from isogon.system.callbacks import Callback, Progress, TensorBoard, build_callbacks
from isogon.system.callbacks.guarded import GuardedCallbacks
from isogon.system.cli.endings import Terminated
from isogon.system.config.files import load_config
from isogon.system.config.run import CallbackConfig
from isogon.system.errors import ExitCode, explain
from isogon.system.runs.directory import RunDirectory, RunDirectoryMissing

SHORT = ["budget.env_steps=1500", "evaluation.episodes=4", "evaluation.every_share=0.2", "replay.min_size=200"]
SHORT += ["checkpoints.every_updates=20", "checkpoints.keep=1"]


class Fails(Callback):
    def __init__(self, method: str) -> None:
        self.method = method
        self.calls = 0

    def on_progress(self, progress: Progress) -> None:
        self._fail("on_progress")

    def on_message(self, text: str) -> None:
        self._fail("on_message")

    def on_end(self, summary: Mapping[str, Any]) -> None:
        self._fail("on_end")

    def _fail(self, method: str) -> None:
        if method == self.method:
            self.calls += 1
            raise ArithmeticError("one too\nmany")


class Heard(Callback):
    def __init__(self) -> None:
        self.messages: list[str] = []
        self.scores: list[float] = []
        self.checkpoints: list[str] = []
        self.ended = False

    def on_message(self, text: str) -> None:
        self.messages.append(text)

    def on_evaluation(self, progress: Progress, scores: Mapping[str, float]) -> None:
        self.scores.append(scores["mean_return"])

    def on_checkpoint(self, path: Path) -> None:
        self.checkpoints.append(path.name)

    def on_end(self, summary: Mapping[str, Any]) -> None:
        self.ended = True


@pytest.mark.parametrize("method", ["on_progress", "on_message", "on_end"])
def test_a_callback_that_raises_is_left_out_and_the_run_goes_on(method: str, tmp_path: Path) -> None:
    heard, fails = Heard(), Fails(method)
    config = load_config("cartpole", [*SHORT, "budget.env_steps=600"])
    summary = train(config, run_dir=tmp_path / "run", callbacks=[fails, heard]).summary
    assert fails.calls == 1
    assert heard.ended
    told = [message for message in heard.messages if "left out" in message]
    assert len(told) == 1
    assert f"Fails in {method}: ArithmeticError: one too many (" in told[0]
    assert "\n" not in told[0]
    log = tmp_path / "run" / "attempts" / "1" / "callbacks.txt"
    assert str(log) in told[0]
    assert "Traceback" in log.read_text()
    assert [what.split(":", 1)[1] for what in summary["callbacks_left_out"]]
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary


def test_a_required_callback_ends_the_run(tmp_path: Path) -> None:
    fails = Fails("on_progress")
    fails.required = True
    with pytest.raises(ArithmeticError):
        train(load_config("cartpole", SHORT), run_dir=tmp_path / "run", callbacks=[fails])


def test_a_callback_that_is_none_ends_the_command_before_anything_is_made(tmp_path: Path) -> None:
    for name, message in (
        (
            "pathlib:Path",
            r"callbacks\[0\].class pathlib:Path: it gave a \w*Path, expected a subclass of isogon.Callback",
        ),
        ("isogon.system.callbacks:Tensorboard", r"has no Tensorboard: did you mean TensorBoard\?"),
    ):
        config = load_config("cartpole", [*SHORT, f"callbacks=[{name!r}]"])
        with pytest.raises(PluginError, match=message) as caught:
            train(config, run_dir=tmp_path / "run")
        assert explain(caught.value).code == ExitCode.CONFIG
    assert not (tmp_path / "run").exists()


class Misspelt(Callback):
    def on_evaluate(self, progress: Progress, scores: Mapping[str, float]) -> None:
        """Nothing calls it."""


def test_a_method_that_nothing_calls_is_named_with_what_was_meant() -> None:
    with pytest.raises(
        ValueError, match=r"callback Misspelt: nothing calls its method on_evaluate; did you mean on_eval"
    ):
        GuardedCallbacks([Misspelt()])
    with pytest.raises(PluginError, match=r"nothing calls its method on_evaluate; did you mean on_evaluation\?"):
        build_callbacks([CallbackConfig(class_=f"{__name__}:Misspelt")])


class Exits(Callback):
    def on_message(self, text: str) -> None:
        sys.exit(3)


def test_own_code_that_exits_has_failed_and_a_signal_ends_the_run() -> None:
    guarded = GuardedCallbacks([Exits()])
    guarded.on_message("anything")
    assert guarded.left_out
    assert "SystemExit: 3" in guarded.left_out[0]
    with (
        pytest.raises(PluginError, match="its construction raised SystemExit: 3"),
        Plugin("callback", "a:B").running("its construction"),
    ):
        sys.exit(3)
    with pytest.raises(Terminated), Plugin("callback", "a:B").running("its construction"):
        raise Terminated(143)


def test_names_and_sections_are_the_same_in_a_config() -> None:
    config = load_config("cartpole", ["callbacks=[a:B, {class: c:D, kwargs: {e: 1}}]"])
    assert config.callbacks == (CallbackConfig(class_="a:B"), CallbackConfig(class_="c:D", kwargs={"e": 1}))
    built = build_callbacks([CallbackConfig(class_="isogon.system.callbacks:TensorBoard", kwargs={"flush_seconds": 3})])
    assert isinstance(built[0], TensorBoard)


def test_tensorboard_that_is_missing_is_named_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(PluginError, match=r"needs? |which cannot be used .*: pip install tensorboard$"):
        build_callbacks([CallbackConfig(class_="isogon.system.callbacks:TensorBoard")])


def test_the_best_checkpoint_is_what_was_evaluated_and_stays(tmp_path: Path) -> None:
    """Greedy play of the checkpoint gives the score that it was kept for."""
    heard = Heard()
    config = load_config("cartpole", SHORT)
    train(config, run_dir=tmp_path / "run", callbacks=[heard])
    directory = RunDirectory.open(tmp_path / "run")
    scores = directory.read_scores()
    best = directory.find_checkpoint("best", pytest.fail)
    assert scores[best.ref.name] == max(heard.scores)
    assert {ref.name for ref in directory.checkpoint_line()} == {best.ref.name, heard.checkpoints[-1]}
    assert len(heard.checkpoints) > 4, "nothing was there to be pruned"

    names = {which: evaluate([tmp_path / "run"], checkpoint=which)["checkpoint_updates"] for which in ("best", "last")}
    assert names == {"best": [best.step], "last": [int(heard.checkpoints[-1].split("-")[1])]}
    assert evaluate([tmp_path / "run"], checkpoint=best.ref.name)["checkpoint_updates"] == [best.step]
    with pytest.raises(RunDirectoryMissing, match="has no checkpoint 1-7: name last, best or one of 1-"):
        evaluate([tmp_path / "run"], checkpoint="1-7")


def test_without_evaluations_there_is_no_best(tmp_path: Path) -> None:
    train(
        load_config("cartpole", [*SHORT, "checkpoints.keep_best=0", "budget.env_steps=600"]), run_dir=tmp_path / "run"
    )
    assert not (tmp_path / "run" / "scores.json").exists()
    with pytest.raises(RunDirectoryMissing, match="has no checkpoint that was evaluated"):
        evaluate([tmp_path / "run"], checkpoint="best")


def test_the_best_survives_a_kill(tmp_path: Path) -> None:
    """Killed right after its first score; resumed, it knows that score and ends with the uninterrupted run's."""
    command = [
        sys.executable,
        "-m",
        "isogon",
        "train",
        "cartpole",
        *(part for text in SHORT for part in ("--set", text)),
    ]
    run_dir = tmp_path / "killed"
    process = subprocess.Popen([*command, "--run-dir", str(run_dir)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (run_dir / "scores.json").exists():
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    first = RunDirectory.open(run_dir).read_scores()
    train(load_config("cartpole", SHORT), run_dir=run_dir, resume=True)
    train(load_config("cartpole", SHORT), run_dir=tmp_path / "whole")
    resumed, whole = RunDirectory.open(run_dir), RunDirectory.open(tmp_path / "whole")
    best, wanted = (directory.find_checkpoint("best", pytest.fail) for directory in (resumed, whole))
    assert best.step == wanted.step
    assert resumed.read_scores()[best.ref.name] == whole.read_scores()[wanted.ref.name] >= max(first.values())


def test_own_code_that_raises_in_a_run_ends_it_with_a_line_and_a_checkpoint(tmp_path: Path) -> None:
    """Before the run: exit code 2 and a log of its own. Within it: 21, the run's log, and how to go on."""
    (tmp_path / "own.py").write_text(
        "import gymnasium\n\n\nclass Late(gymnasium.wrappers.TransformReward):\n"
        "    def __init__(self, after):\n        self.left = after\n"
        "        super().__init__(gymnasium.make('CartPole-v1'), self.reward_of)\n\n"
        "    def reward_of(self, reward):\n        self.left -= 1\n        return reward / bool(self.left)\n"
    )
    environment = ["environment.kind=custom", "environment.class=own:Late", "deterministic=false"]
    environment += ["actors.max_failures=0"]
    for after, code, where in ((1, 2, r"/\S+\.log"), (40, 21, "run/attempts/1/log.txt")):
        sets = [*SHORT, *environment, f"environment.kwargs.after={after}"]
        command = [sys.executable, "-m", "isogon", "train", "cartpole", "--run-dir", "run"]
        done = subprocess.run(
            [*command, *(part for text in sets for part in ("--set", text))],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        (line,) = done.stderr.strip().splitlines()
        found = re.search(rf"own:Late: step raised ZeroDivisionError: .* \(own.py:11\).*\(details: ({where})\)", line)
        assert found, line
        assert "return reward / bool(self.left)" in (tmp_path / found[1]).read_text()
        assert ("--resume" in line) == (code == 21) == (tmp_path / "run").exists()
