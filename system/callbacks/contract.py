"""What a run tells those who watch it. A callback overrides the methods that it cares for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Progress:
    """Where a run stands. Told about twice a second.

    Attributes:
        share: of the budget that is used, in [0, 1].
        phase: ``"offline"`` while only the data policy's games are learnt from, then ``"online"``; of a federation
            ``"federation"``.
        seconds: of training so far, all attempts together, standstills not counted.
        updates: learner updates so far; of a federation clients' updates that were applied.
        env_steps: environment steps played so far, the offline games apart; of a federation clients' local steps.
        version: newest published version of the weights, or of the global model.
        metrics: the newest figures by their name in `system.metrics`, such as ``isogon_episode_return``.
    """

    share: float
    phase: str
    seconds: float
    updates: int
    env_steps: int
    version: int
    metrics: Mapping[str, float] = field(default_factory=dict)


class Callback:
    """Does nothing at every occasion; subclass it.

    All methods are called in the learner's process, between two updates: what they take, the run waits for.

    Attributes:
        required: whether the run ends where this callback raises, rather than going on without it.
    """

    required: bool = False

    def on_start(self, config: Any, run_dir: Path, resumed_from: str | None) -> None:
        """The run directory stands and work begins. ``resumed_from`` names the checkpoint, if there is one.

        ``config`` is a training run's `RunConfig`, or a federation's `FederationConfig`.
        """

    def on_message(self, text: str) -> None:
        """One line for a person: what is being done now, or a warning."""

    def on_progress(self, progress: Progress) -> None:
        """The run has come further."""

    def on_evaluation(self, progress: Progress, scores: Mapping[str, float]) -> None:
        """An evaluation on the validation set is in: ``mean_return``, ``mean_length``."""

    def on_checkpoint(self, path: Path) -> None:
        """A checkpoint is on disk, whole."""

    def on_end(self, summary: Mapping[str, Any]) -> None:
        """The run is done and ``summary.json`` is written."""
