"""Replay: from rollouts to transitions with their returns, and from those to batches."""

from .config import ReplayConfig
from .intake import RolloutIntake
from .transitions import Returns, TransitionAssembler, n_step_returns
from .uniform import UniformReplay

__all__ = ["ReplayConfig", "Returns", "RolloutIntake", "TransitionAssembler", "UniformReplay", "n_step_returns"]
