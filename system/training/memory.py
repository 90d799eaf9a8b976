"""Whether a replay fits, said before it is filled."""

from __future__ import annotations

import math

import numpy as np

from ...learners.encodings.spec import ArraySpec, EnvironmentSpec
from ..builder import frames_kept
from ..config.files import ConfigError
from ..config.run import RunConfig
from ..machine import free_memory

_NUMBERS = 8 + 4 + 4
"""Bytes of a transition's action, reward and discount."""


def replay_bytes(config: RunConfig, spec: EnvironmentSpec, players: int) -> int:
    """Bytes of the full replay's arrays; what players and batches hold besides is not in it."""
    replay = config.replay
    bootstrapped = replay.returns != "monte_carlo"
    observation = sum(_bytes(field) for field in spec.observation.values())
    observations = 2 if bootstrapped else 1
    transition = _NUMBERS
    if spec.has_legal and bootstrapped:
        transition += math.ceil(spec.num_actions / 8)
    total = 0
    if spec.history > 1:
        # Frames' numbers, and how many there were at the insertion; with each frame the number of the one before.
        transition += 8 * observations + 8
        total += frames_kept(config, spec, players) * (observation + 8)
    else:
        transition += observations * observation
    if replay.sampling == "prioritised":
        total += 16 << (replay.capacity - 1).bit_length()
    return total + replay.capacity * transition


def check_memory(config: RunConfig, spec: EnvironmentSpec, players: int) -> None:
    """Raise ConfigError where the full replay would need more memory than there is."""
    free, needed = free_memory(), replay_bytes(config, spec, players)
    if free is None or needed <= free:
        return
    capacity = config.replay.capacity
    fitting = max(1, math.floor(0.9 * capacity * free / needed))
    raise ConfigError(
        f"replay.capacity is {capacity:,}: full it needs {needed / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are "
        f"free; set it to {fitting:,} or lower, or use a larger machine"
    )


def _bytes(field: ArraySpec) -> int:
    numbers = math.prod(field.shape)
    if field.dtype == "bool" and field.shape:
        return numbers // field.shape[-1] * math.ceil(field.shape[-1] / 8)
    return numbers * np.dtype(field.dtype).itemsize
