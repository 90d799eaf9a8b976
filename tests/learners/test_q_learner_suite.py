"""The suite of all learners on `QLearner`: for each kind of value, and with Wordle's network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from isogon.learners.batch import Batch
from isogon.learners.encodings import ArraySpec, EnvironmentSpec
from isogon.learners.learner import Learner
from isogon.learners.networks import LetterTiedConfig, MLPConfig, build_value_module
from isogon.learners.q_learning import QLearner
from isogon.learners.q_learning_config import QLearningConfig
from isogon.learners.randomness import stream
from isogon.learners.schedules import Schedule
from isogon.learners.values import ValueConfig

from .learner_suite import WORDLE_SPEC, WORDS, LearnerCase, LearnerSuite, random_boards

PLAIN_SPEC = EnvironmentSpec("plain", {"place": ArraySpec((3,), "float32"), "speed": ArraySpec((2,), "float32")}, 4)
BINS: dict[str, Any] = {"bins": 21, "vmin": -5.0, "vmax": 5.0}


def plain_batch(seed: int, count: int = 32) -> Batch:
    generator = torch.Generator().manual_seed(seed)

    def observation() -> dict[str, torch.Tensor]:
        return {
            name: torch.randn(count, *part.shape, generator=generator) for name, part in PLAIN_SPEC.observation.items()
        }

    legal = torch.rand(count, 4, generator=generator) < 0.5
    legal[:, 0] = True
    return {
        "observation_tm1": observation(),
        "action_tm1": torch.randint(4, (count,), generator=generator),
        "reward_t": torch.randn(count, generator=generator) + 1.0,
        "discount_t": 0.3 * (torch.rand(count, generator=generator) < 0.7).float(),
        "observation_t": observation(),
        "legal_t": legal,
    }


def wordle_batch(seed: int, count: int = 24, pairs: int = 40) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    return {
        "observation_tm1": random_boards(count, seed),
        "row": torch.randint(count, (pairs,), generator=generator),
        "action": torch.randint(len(WORDS), (pairs,), generator=generator),
        "target": -torch.randint(7, (pairs,), generator=generator).float(),
    }


class TestMLPWithFullHead(LearnerSuite):
    @pytest.fixture(params=["hl_gauss", "two_hot", "c51", "mse", "mse_softmax"])
    def case(self, request: pytest.FixtureRequest) -> LearnerCase:
        value = ValueConfig(kind=request.param, **({} if request.param == "mse" else BINS))

        def make(*, seed: int, learning_rate: Schedule, warmup: int = 0) -> Learner:
            generator = torch.Generator().manual_seed(seed)
            module = build_value_module(MLPConfig(hidden=(32, 16)), value, PLAIN_SPEC, generator)
            config = QLearningConfig(
                learning_rate=learning_rate, warmup_updates=warmup, target_update_every=4, average_decay=0.9
            )
            return QLearner(module, config, stream(seed, "learner"))

        return LearnerCase(make, plain_batch)


class TestMLPWithNoisyHead(LearnerSuite):
    @pytest.fixture(params=["full", "dueling"])
    def case(self, request: pytest.FixtureRequest) -> LearnerCase:
        value = ValueConfig(form=request.param, noisy_sigma=0.1, **BINS)

        def make(*, seed: int, learning_rate: Schedule, warmup: int = 0) -> Learner:
            generator = torch.Generator().manual_seed(seed)
            module = build_value_module(MLPConfig(hidden=(32, 16)), value, PLAIN_SPEC, generator)
            config = QLearningConfig(
                learning_rate=learning_rate, warmup_updates=warmup, target_update_every=0, average_decay=0.9
            )
            return QLearner(module, config, stream(seed, "learner"))

        return LearnerCase(make, plain_batch)


class TestWordleWithTilt(LearnerSuite):
    @pytest.fixture(params=["plain", "conservative"])
    def case(self, request: pytest.FixtureRequest) -> LearnerCase:
        value = ValueConfig(form="tilt", bins=31, vmin=-6.0, vmax=0.0)
        cql = Schedule(kind="linear", start=0.01 if request.param == "conservative" else 0.0, end=0.0)

        def make(*, seed: int, learning_rate: Schedule, warmup: int = 0) -> Learner:
            network, generator = LetterTiedConfig(hidden=32), torch.Generator().manual_seed(seed)
            config = QLearningConfig(
                learning_rate=learning_rate,
                warmup_updates=warmup,
                target_update_every=0,
                average_decay=0.9,
                cql_weight=cql,
                cql_actions=8,
            )
            module = build_value_module(network, value, WORDLE_SPEC, generator)
            return QLearner(module, config, stream(seed, "learner"), contrast_actions=np.arange(30))

        return LearnerCase(make, wordle_batch)
