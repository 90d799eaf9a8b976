"""Tensors in, tensors out: bins, projections onto them, and the losses over them.

B batch, K bins, ``[...]`` any leading shape. Nothing here knows of networks, learners or Ray.
"""

from .backends import Impl
from .categorical import categorical_loss
from .cross_entropy import OutOfRange, Reduction
from .hl_gauss import hl_gauss_loss
from .projections import Projection, project_categorical, target_probabilities
from .reference import HLGaussStats
from .support import Support, symexp, symlog

__all__ = [
    "HLGaussStats",
    "Impl",
    "OutOfRange",
    "Projection",
    "Reduction",
    "Support",
    "categorical_loss",
    "hl_gauss_loss",
    "project_categorical",
    "symexp",
    "symlog",
    "target_probabilities",
]
