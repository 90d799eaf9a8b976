from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from isogon.actors.environments import GymnasiumConfig, WordleConfig, build_environment, environment_spec
from isogon.actors.environments.wordle import load_words, split_words
from isogon.learners.randomness import stream

WORDS = load_words()
SPLIT = split_words(WORDS, WordleConfig())


def test_training_knows_training_words_alone() -> None:
    environment = build_environment(WordleConfig(), "train", 7)
    assert environment.num_envs == 7
    environment.reset(stream(0, "environment"))
    legal = environment.legal()
    assert legal is not None
    assert (np.flatnonzero(legal.all(0)) == SPLIT.train).all()
    assert (legal.any(0) == legal.all(0)).all()


@pytest.mark.parametrize("purpose", ["seen", "validation", "never_seen"])
def test_evaluation_has_a_board_for_each_answer_and_allows_every_word(purpose: str) -> None:
    answers = SPLIT.train if purpose == "seen" else getattr(SPLIT, purpose)
    environment = build_environment(WordleConfig(), purpose, 1)  # type: ignore[arg-type]
    assert environment.num_envs == len(answers)
    environment.reset(stream(0, "environment"))
    legal = environment.legal()
    assert legal is not None
    assert legal.all()
    step = environment.step(answers)
    assert step.terminated.all()
    assert not step.reward.any()


def test_specs_are_those_of_the_environments() -> None:
    for config in (WordleConfig(), GymnasiumConfig(id="CartPole-v1")):
        environment = build_environment(config, "train", 1)
        assert environment_spec(config) == environment.spec
        environment.close()
    assert environment_spec(WordleConfig()).action_words == WORDS


def test_gymnasium_is_loaded_only_where_it_is_played() -> None:
    program = (
        "import sys; from isogon.actors.environments import *; environment_spec(WordleConfig()); "
        "build_environment(WordleConfig(), 'train', 1); print('gymnasium' in sys.modules, 'ray' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
