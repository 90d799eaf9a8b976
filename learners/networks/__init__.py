"""Networks: torsos, which encode observations, and `ValueModule`, a torso with its value head."""

from .config import LetterBeliefConfig, LetterTiedConfig, LetterUntiedConfig, MLPConfig, NetworkConfig
from .letter_belief import BeliefScorer, LetterBeliefTorso
from .letter_tied import LetterTiedTorso, WordScorer
from .letter_untied import LetterUntiedTorso
from .mlp import MLPTorso
from .value_module import ValueModule, build_value_module

__all__ = [
    "BeliefScorer",
    "LetterBeliefConfig",
    "LetterBeliefTorso",
    "LetterTiedConfig",
    "LetterTiedTorso",
    "LetterUntiedConfig",
    "LetterUntiedTorso",
    "MLPConfig",
    "MLPTorso",
    "NetworkConfig",
    "ValueModule",
    "WordScorer",
    "build_value_module",
]
