"""The command line over an `api` that trains nothing: what it does is said by the environment variable FAKE.

Run as a program it is `isogon`; the tests also import it.
"""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from isogon.system.callbacks import Callback, Progress
from isogon.system.config.run import RunConfig

SUMMARY: dict[str, Any] = {
    "preset": "pole",
    "seeds": [0, 1],
    "evaluation_return": 475.25,
    "evaluation_return_low": 470.0,
    "evaluation_return_high": 480.0,
    "never_seen_return": None,
    "train_seconds": 1.5,
    "not_finite": float("nan"),
}


class RunResult:
    def __init__(self, run_dir: Path) -> None:
        self.run_dir = run_dir
        self.summary = SUMMARY
        self.report = run_dir / "report.html"


def train(
    config: RunConfig, *, run_dir: Path | None = None, resume: bool = False, callbacks: Sequence[Callback] = ()
) -> RunResult:
    fake = os.environ.get("FAKE", "")
    directory = run_dir or Path("runs") / f"{config.name}-1"
    (directory / "attempts" / "2").mkdir(parents=True, exist_ok=True)
    if fake == "early":
        raise OSError(28, "No space left on device", str(directory))
    for callback in callbacks:
        callback.on_start(config, directory, "1-500" if resume else None)
        callback.on_message("starting \x1b[31mRay\n")
    for number in range(4):
        progress = Progress(
            number / 4, "offline" if number < 2 else "online", number, 10 * number, 100 * number, 1, metrics(number)
        )
        for callback in callbacks:
            callback.on_progress(progress)
            callback.on_evaluation(progress, {"mean_return": -3.5, "solved": 0.5})
            callback.on_checkpoint(directory / "checkpoints" / f"1-{number}")
    _misbehave(fake, directory)
    for callback in callbacks:
        callback.on_end(SUMMARY)
    return RunResult(directory)


def evaluate(
    runs: Sequence[Path], *, checkpoint: str = "last", video: bool = False, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    for callback in callbacks:
        callback.on_message(f"{runs[0]}: playing")
    return SUMMARY | {"runs": [str(run) for run in runs]}


def report(runs: Sequence[Path], output: Path | None = None, *, callbacks: Sequence[Callback] = ()) -> Path:
    for callback in callbacks:
        callback.on_message(f"{runs[0]}: It is still going.")
    return output or runs[0] / "report.html"


def metrics(number: int) -> dict[str, float]:
    return {"isogon_episode_return": -4.0 + number, "isogon_episodes_total": 1000.0 * number}


def _misbehave(fake: str, directory: Path) -> None:
    match fake:
        case "bug":
            raise KeyError("nobody knows")
        case "disk":
            raise OSError(28, "No space left on device", str(directory / "x"))
        case "worker":
            # It loads torch, which the other cases do without.
            from isogon.actors.pools.contract import WorkFailed

            raise WorkFailed("worker env-0 raised RuntimeError: no ROM")
        case "chatter":
            print("chatter from Python")
            subprocess.run(["echo", "chatter from a child"], check=True)
        case "wait":
            print("waiting", flush=True)
            time.sleep(60)
        case "like_ray":
            sys.exit(15)


API = ModuleType("isogon.system.api")
vars(API).update(train=train, evaluate=evaluate, report=report)

if __name__ == "__main__":
    from isogon.system.cli import main

    sys.modules["isogon.system.api"] = API
    main()
