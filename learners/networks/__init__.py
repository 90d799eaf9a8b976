"""Networks: torsos, which encode observations, and `ValueModule`, a torso with its value head."""

from .config import CustomNetworkConfig, LetterTiedConfig, MLPConfig, NetworkConfig
from .custom import CustomTorso, EncodedTorso
from .letter_tied import LetterTiedTorso, WordScorer
from .mlp import MLPTorso
from .value_module import ValueModule, build_value_module

__all__ = [
    "CustomNetworkConfig",
    "CustomTorso",
    "EncodedTorso",
    "LetterTiedConfig",
    "LetterTiedTorso",
    "MLPConfig",
    "MLPTorso",
    "NetworkConfig",
    "ValueModule",
    "WordScorer",
    "build_value_module",
]
