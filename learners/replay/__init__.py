"""Replay: from rollouts to transitions with their returns, and from those to batches."""

from .config import ReplayConfig
from .intake import RolloutIntake
from .replay import Replay
from .transitions import Returns, TransitionAssembler, n_step_returns

__all__ = ["Replay", "ReplayConfig", "Returns", "RolloutIntake", "TransitionAssembler", "n_step_returns"]
