"""Learners: what turns batches into better weights, and what actors need of them. No Ray, no pools, no clock.

`batch` and `learner` are the contracts. `q_learning.QLearner` learns action values from what `replay` gives, with a
network of `networks` and a value head of `values`; `policy.QPolicy` acts by them.
"""

from .batch import Batch, Observation, Source
from .learner import GREEDY, Exploration, Learner, Loss, Policy, SharedTensors, UpdateFailed, UpdateStats
from .policy import QPolicy, build_policy
from .q_learning import QLearner
from .q_learning_config import QLearningConfig
from .schedules import Schedule

__all__ = [
    "GREEDY",
    "Batch",
    "Exploration",
    "Learner",
    "Loss",
    "Observation",
    "Policy",
    "QLearner",
    "QLearningConfig",
    "QPolicy",
    "Schedule",
    "SharedTensors",
    "Source",
    "UpdateFailed",
    "UpdateStats",
    "build_policy",
]
