"""One run of a comparison, in the process that does it."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import torch

from ..api import train
from ..callbacks import Callback, Progress
from ..config.run import RunConfig
from ..errors import explain, log_details
from .plan import Failed, Result


class CpuClock(Callback):
    """CPU seconds of this process between the first and the last progress of a run, which frame its training.

    Other processes at work on the machine lengthen the time by the clock much, and this by what they take of caches and
    of memory's speed: a tenth on a machine that is busy.
    """

    def __init__(self) -> None:
        self._began: float | None = None
        self.seconds = 0.0

    def on_progress(self, progress: Progress) -> None:
        """The first one comes with the first update, the last one at the end of the budget."""
        now = time.process_time()
        self._began = now if self._began is None else self._began
        self.seconds = now - self._began


def do_trial(config: RunConfig, run_dir: Path) -> Result | Failed:
    """Train by `api.train` and give what it came to. What a run raises is told, not raised: others go on.

    A run that did not come to its end before is begun anew, so that its time is all of its time.
    """
    if run_dir.exists():
        shutil.rmtree(run_dir)
    torch.set_num_threads(config.torch_threads)
    clock, began = CpuClock(), time.process_time()
    try:
        done = train(config, run_dir=run_dir, callbacks=[clock])
    except Exception as error:
        log_details(error, run_dir / "log.txt")
        return Failed(explain(error).line)
    return Result(
        validation_return=done.summary["validation_return"],
        never_seen_returns=tuple(done.played["never_seen"]["return"].tolist()),
        cpu_seconds=round(clock.seconds, 3),
        seconds=done.summary["train_seconds"],
        total_cpu_seconds=round(time.process_time() - began, 3),
        env_steps=done.summary["env_steps"],
    )
