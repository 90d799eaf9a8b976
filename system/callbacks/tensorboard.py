"""A callback that lets TensorBoard show a run."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...learners.plugins import PluginError
from .contract import Callback, Progress

if TYPE_CHECKING:
    from ..config.run import RunConfig


class TensorBoard(Callback):
    """Writes every figure of the run, and its evaluations, over the learner's updates: ``tensorboard --logdir RUN``.

    The files are in ``RUN/tensorboard``. A resumed run goes on in them from its checkpoint; what an earlier attempt
    wrote beyond it is hidden.

    Args:
        flush_seconds: at most so much is lost when the process is killed.

    Raises:
        PluginError: the package tensorboard is not installed.
    """

    def __init__(self, flush_seconds: int = 10) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise PluginError(
                f"the callback TensorBoard writes with the package tensorboard, which cannot be used ({error}): "
                "pip install tensorboard"
            ) from None
        self._writer_class = SummaryWriter
        self._flush_seconds = flush_seconds
        self._writer: SummaryWriter | None = None

    def on_start(self, config: RunConfig, run_dir: Path, resumed_from: str | None) -> None:
        """Open the files."""
        # A checkpoint's name ends in its update.
        purge = int(resumed_from.rpartition("-")[2]) + 1 if resumed_from else None
        folder = str(run_dir / "tensorboard")
        self._writer = self._writer_class(folder, purge_step=purge, flush_secs=self._flush_seconds)

    def on_progress(self, progress: Progress) -> None:
        """Every metric of `system.metrics`; a label, such as the phase, becomes the last part of the name."""
        for name, value in progress.metrics.items():
            self._add(re.sub(r'\{\w+="([^"]*)"\}', r"/\1", name), value, progress.updates)

    def on_evaluation(self, progress: Progress, scores: Mapping[str, float]) -> None:
        """Under ``evaluation/``."""
        for name, value in scores.items():
            self._add(f"evaluation/{name}", value, progress.updates)
        self._flush()

    def on_checkpoint(self, path: Path) -> None:
        """What is kept of the run is kept of its figures."""
        self._flush()

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """The summary's numbers under ``summary/``, and close the files."""
        for name, value in summary.items():
            if isinstance(value, int | float):
                self._add(f"summary/{name}", value, int(summary["updates"]))
        if self._writer is not None:
            self._writer.close()

    def _add(self, name: str, value: float, step: int) -> None:
        if self._writer is not None and math.isfinite(value):
            self._writer.add_scalar(name, value, step)

    def _flush(self) -> None:
        if self._writer is not None:
            self._writer.flush()
