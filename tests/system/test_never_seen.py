"""Nothing of the words set apart reaches training, and nothing is chosen by the test words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from isogon.actors.environments.build import build_environment
from isogon.actors.environments.config import EnvironmentConfig, Purpose
from isogon.actors.environments.contract import VectorEnvironment
from isogon.actors.environments.wordle import build_vocabulary, load_words, split_words
from isogon.learners.learner import GREEDY
from isogon.learners.networks import ValueModule
from isogon.learners.policy import QPolicy
from isogon.learners.randomness import stream
from isogon.learners.values.kinds import HeadLoss
from isogon.system import builder
from isogon.system.api import train
from isogon.system.builder import build_learner, build_spec, build_worker_spec
from isogon.system.config.files import load_config
from isogon.system.config.run import RunConfig
from isogon.system.runs.directory import RunDirectory

from .test_training import final_state, short_wordle


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return short_wordle(tmp_path)


def test_every_word_that_training_saw_is_a_training_word(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Offline and online games alike, guesses and boards; and environments are built for no other purpose."""
    asked: set[Purpose] = set()

    def build_and_note(environment: EnvironmentConfig, purpose: Purpose, num_envs: int) -> VectorEnvironment:
        asked.add(purpose)
        return build_environment(environment, purpose, num_envs)

    monkeypatch.setattr(builder, "build_environment", build_and_note)
    train(config, run_dir=tmp_path / "run")
    assert asked == {"train", "validation"}

    environment = config.environment
    assert environment.kind == "wordle"
    vocabulary = build_vocabulary(load_words(environment.word_list))
    allowed = set(split_words(vocabulary.words, environment).train.tolist())
    replay = final_state(tmp_path / "run")["replay"]["transitions"]
    assert set(replay["action_tm1"].tolist()) <= allowed
    letters = replay["observation_tm1/letters"].reshape(-1, 5)
    assert set(vocabulary.indices_of(letters[letters[:, 0] >= 0]).tolist()) <= allowed
    assert len(replay["action_tm1"]) > 1500


def test_validation_words_alone_are_evaluated_in_training(config: RunConfig, tmp_path: Path) -> None:
    environment = config.environment
    assert environment.kind == "wordle"
    split = split_words(load_words(environment.word_list), environment)
    spec = build_worker_spec(config, build_spec(config))
    assert spec.evaluation_purpose == "validation"
    assert builder.evaluation_episodes(config) == len(split.validation)
    assert spec.environment("validation", 1).num_envs == len(split.validation)


def test_words_set_apart_have_no_part_in_what_the_learner_or_a_player_in_training_weighs() -> None:
    config = load_config("wordle-long", ["network.hidden=8", "network.channels=2"])
    environment, spec = config.environment, build_spec(config)
    assert environment.kind == "wordle"
    apart = np.ones(spec.num_actions, dtype=bool)
    apart[split_words(load_words(), environment).train] = False
    weighed: list[torch.Tensor] = []

    def note(_module: torch.nn.Module, _inputs: Any, output: dict[str, torch.Tensor]) -> None:
        weighed.append(output["belief"])

    vector = build_environment(environment, "train", 4)
    observation = vector.reset(stream(0, "games"))
    learner = build_learner(config, spec)
    assert isinstance(learner.module, ValueModule)
    learner.module.torso.register_forward_hook(note)
    learner.module.torso({name: torch.from_numpy(part) for name, part in observation.items()})
    player = build_worker_spec(config, spec).policy()
    assert isinstance(player, QPolicy)
    player.module.torso.register_forward_hook(note)
    player.act(observation, vector.legal(), GREEDY, stream(0, "act"))
    evaluated = build_environment(environment, "never_seen", 16)
    player.act(evaluated.reset(stream(0, "games")), evaluated.legal(), GREEDY, stream(0, "act"))
    for training in weighed[:2]:
        assert training[:, apart].abs().max() == 0
        assert float(training[0].sum()) == pytest.approx(1, abs=1e-4)
    assert weighed[2][:, apart].min() > 0


def test_the_regulariser_draws_training_words_alone(config: RunConfig) -> None:
    conservative = config.learner.model_copy(
        update={"cql_weight": config.learner.cql_weight.model_copy(update={"start": 1.0}), "cql_actions": 0}
    )
    config = config.model_copy(update={"learner": conservative})
    environment = config.environment
    assert environment.kind == "wordle"
    split = split_words(load_words(environment.word_list), environment)
    learner = build_learner(config, build_spec(config))
    drawn: list[torch.Tensor] = []

    class Noting(torch.nn.Module):
        def forward(self, *arguments: Any) -> tuple[HeadLoss, torch.Tensor | None]:
            drawn.append(arguments[-1])
            answer: tuple[HeadLoss, torch.Tensor | None] = module(*arguments)
            return answer

    module, learner.module = learner.module, Noting()
    boards = torch.full((2, 6, 5), -1, dtype=torch.int8)
    pairs = {"row": torch.arange(2), "action": torch.from_numpy(split.train[:2]), "target": torch.tensor([-2.0, -3.0])}
    learner.update({"observation_tm1": {"letters": boards, "colours": boards}, **pairs}, progress=0.0)
    np.testing.assert_array_equal(drawn[0].numpy(), split.train)


def test_the_kept_run_says_how_its_words_were_split(config: RunConfig, tmp_path: Path) -> None:
    train(config.model_copy(update={"seed": 3}), run_dir=tmp_path / "run")
    assert RunDirectory.open(tmp_path / "run").read_config()["environment"]["split_seed"] == 0
