"""The work of a training run: one attempt at it, the learner rank's loop, and what stands around the loop."""

from .attempt import Outcome, TrainingAttempt
from .rank import Rank

__all__ = ["Outcome", "Rank", "TrainingAttempt"]
