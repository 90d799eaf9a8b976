"""Value heads: the network's last layer, what its outputs mean, and their loss, behind one word of the config."""

from .build import build_head
from .config import RangeFromGames, ValueConfig
from .forms import Form, FullMap, Hidden, LinearScorer, Scorer, Tilt, features
from .head import ValueHead
from .kinds import C51, Categorical, CategoricalTarget, HeadLoss, Kind, MeanSquared, SoftmaxMeanSquared, Target
from .presets import VALUE_PRESETS, ValuePreset, check_range, support_of
from .returns import ReturnBounds, fitting_scale, range_around

__all__ = [
    "C51",
    "VALUE_PRESETS",
    "Categorical",
    "CategoricalTarget",
    "Form",
    "FullMap",
    "HeadLoss",
    "Hidden",
    "Kind",
    "LinearScorer",
    "MeanSquared",
    "RangeFromGames",
    "ReturnBounds",
    "Scorer",
    "SoftmaxMeanSquared",
    "Target",
    "Tilt",
    "ValueConfig",
    "ValueHead",
    "ValuePreset",
    "build_head",
    "check_range",
    "features",
    "fitting_scale",
    "range_around",
    "support_of",
]
