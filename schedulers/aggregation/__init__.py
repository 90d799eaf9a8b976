"""How a commit's updates become the next global model.

A `ServerRule` is what the model's owner calls. `AveragedStep` is made of two parts that go together freely: an average
of the updates (`WeightedSum`, or a robust one: `Median`, `TrimmedMean`, `Krum`) and what a server optimiser makes of it
(`Add`, `Momentum`, `Adam`, `Yogi`). `check_update` says whether an update is fit to be given to any of them.
"""

from .average import Average, Combined, WeightedSum
from .optimisers import Adam, Add, Momentum, ServerOptimiser, Yogi
from .robust import Krum, Median, TrimmedMean
from .rule import AveragedStep, ServerRule
from .tensors import AverageKind, Tensors, check_kinds, check_layout, check_update

__all__ = [
    "Adam",
    "Add",
    "Average",
    "AverageKind",
    "AveragedStep",
    "Combined",
    "Krum",
    "Median",
    "Momentum",
    "ServerOptimiser",
    "ServerRule",
    "Tensors",
    "TrimmedMean",
    "WeightedSum",
    "Yogi",
    "check_kinds",
    "check_layout",
    "check_update",
]
