"""What is played: the contract of a vectorised environment, Wordle, and any discrete Gymnasium environment."""

from .build import build_environment, environment_spec
from .config import CustomEnvironmentConfig, EnvironmentConfig, GymnasiumConfig, Purpose, WordleConfig
from .contract import Observation, Player, Step, VectorEnvironment

__all__ = [
    "CustomEnvironmentConfig",
    "EnvironmentConfig",
    "GymnasiumConfig",
    "Observation",
    "Player",
    "Purpose",
    "Step",
    "VectorEnvironment",
    "WordleConfig",
    "build_environment",
    "environment_spec",
]
