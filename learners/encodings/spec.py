"""What an environment tells a network about itself: the shapes that both must agree on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass


@dataclass(frozen=True)
class ArraySpec:
    """Shape (without the batch) and numpy dtype name of one observation field."""

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True)
class EnvironmentSpec:
    """One environment, as a network sees it.

    Attributes:
        name: for messages, such as ``"wordle"`` or ``"gymnasium CartPole-v1"``.
        observation: field name to its shape and dtype. A plain array observation has the one field ``"observation"``.
        num_actions: size of the discrete action set.
        has_legal: whether some actions may be illegal in some states.
        action_words: for word games, the word that each action stands for; otherwise None.
        history: newest observations of an episode that a network sees together; ``observation`` is of one.
    """

    name: str
    observation: Mapping[str, ArraySpec]
    num_actions: int
    has_legal: bool = False
    action_words: tuple[str, ...] | None = None
    history: int = 1

    def fingerprint(self) -> str:
        """SHA-256 of all of it, the words and their order among them: two of one fingerprint mean the same actions."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()
