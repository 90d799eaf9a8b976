"""Tensors in, tensors out: bins, projections onto them, and the losses over them.

B batch, K bins, ``[...]`` any leading shape. Nothing here knows of networks, learners or Ray.
"""

from .backends import Impl
from .categorical import categorical_loss
from .cross_entropy import OutOfRange, Reduction
from .hl_gauss import hl_gauss_loss
from .projections import Projection, project_categorical, target_probabilities
from .q_head import hl_gauss_q_loss, q_chosen, q_max, q_values
from .reference import HLGaussStats
from .support import Support, symexp, symlog
from .td_targets import td_target

__all__ = [
    "HLGaussStats",
    "Impl",
    "OutOfRange",
    "Projection",
    "Reduction",
    "Support",
    "categorical_loss",
    "hl_gauss_loss",
    "hl_gauss_q_loss",
    "project_categorical",
    "q_chosen",
    "q_max",
    "q_values",
    "symexp",
    "symlog",
    "target_probabilities",
    "td_target",
]
