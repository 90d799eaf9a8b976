"""What is played: the contract of a vectorised environment, Wordle, Atari, MinAtar, any discrete Gymnasium one."""

from .build import build_environment, environment_spec
from .config import (
    AtariConfig,
    CustomEnvironmentConfig,
    EnvironmentConfig,
    GymnasiumConfig,
    MinAtarConfig,
    Purpose,
    WordleConfig,
)
from .contract import Observation, Player, Step, VectorEnvironment

__all__ = [
    "AtariConfig",
    "CustomEnvironmentConfig",
    "EnvironmentConfig",
    "GymnasiumConfig",
    "MinAtarConfig",
    "Observation",
    "Player",
    "Purpose",
    "Step",
    "VectorEnvironment",
    "WordleConfig",
    "build_environment",
    "environment_spec",
]
