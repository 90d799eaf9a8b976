"""Isogon's value heads in RLlib's DQN: the loss against Isogon's own learner, and what RLlib does with both parts."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from ray import tune
from ray.rllib.algorithms.dqn import DQN, DQNConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from isogon.learners.q_learning import QLearner
from isogon.learners.q_learning_config import QLearningConfig
from isogon.learners.randomness import stream
from isogon.learners.rllib import IsogonDQNLearner, IsogonDQNModule
from isogon.learners.values import FullMap

BOX = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
THREE: Any = gymnasium.spaces.Discrete(3)
MODEL: dict[str, Any] = {
    "network": {"kind": "mlp", "hidden": [16]},
    "value": {"bins": 11, "vmin": -5.0, "vmax": 5.0},
}
ENDED = torch.tensor([False, False, True, False, True, False])
STEPS = torch.tensor([1, 3, 2, 2, 1, 1])
DISCOUNT = [0.9, 0.729, 0.0, 0.81, 0.0, 0.9]
"""0.9 to the power of the steps, and nothing after an end."""


def dqn_config(model: dict[str, Any] = MODEL) -> DQNConfig:
    config = (
        DQNConfig()
        .rl_module(rl_module_spec=RLModuleSpec(module_class=IsogonDQNModule), model_config=model)
        .learners(learner_class=IsogonDQNLearner)
        .env_runners(num_env_runners=0)
        .training(gamma=0.9, num_steps_sampled_before_learning_starts=100, train_batch_size=8)
        .reporting(min_sample_timesteps_per_iteration=150)
        .debugging(seed=0, log_level="ERROR")
    )
    return cast(DQNConfig, config)


def cartpole(model: dict[str, Any] = MODEL) -> DQNConfig:
    return cast(DQNConfig, dqn_config(model).environment("CartPole-v1"))


def module(**model: Any) -> IsogonDQNModule:
    model = {**MODEL, "epsilon": 0.0, "num_atoms": 1, **model}
    return IsogonDQNModule(observation_space=BOX, action_space=THREE, model_config=model)


def observations(seed: int, count: int = 6) -> torch.Tensor:
    return torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("double_q", [True, False])
@pytest.mark.parametrize("kind", ["hl_gauss", "two_hot", "c51", "mse_softmax", "mse"])
def test_the_loss_is_that_of_isogons_own_learner(kind: str, double_q: bool) -> None:
    config = dqn_config({**MODEL, "value": {**MODEL["value"], "kind": kind}}).training(double_q=double_q)
    learner = config.build_learner(spaces={"default_policy": (BOX, THREE)})
    ours = cast(IsogonDQNModule, learner.module["default_policy"].unwrapped())
    with torch.no_grad():
        for parameter in ours.values.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(5)))
    own = QLearner(ours.values, QLearningConfig(double_q=double_q), stream(0, "learner"))
    own.load_state_dict({**own.state_dict(), "target": ours.target_values.state_dict()})
    reward, weight = torch.linspace(-3.0, 3.0, 6), torch.linspace(0.2, 1.0, 6)
    action = torch.tensor([0, 2, 1, 1, 0, 2])
    batch = {
        Columns.OBS: observations(1), Columns.NEXT_OBS: observations(2), Columns.ACTIONS: action,
        Columns.REWARDS: reward, Columns.TERMINATEDS: ENDED, "n_step": STEPS, "weights": weight,
    }  # fmt: skip
    loss = learner.compute_loss_for_module(
        module_id="default_policy", config=config, batch=batch, fwd_out=ours.forward_train(batch)
    )
    expected = own.loss(
        {
            "observation_tm1": {"observation": observations(1)},
            "action_tm1": action,
            "reward_t": reward,
            "discount_t": torch.tensor(DISCOUNT),
            "observation_t": {"observation": observations(2)},
            "weight": weight,
        }
    )
    parameters = list(ours.values.parameters())
    torch.testing.assert_close(loss, expected.value)
    torch.testing.assert_close(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected.value, parameters))
    (priorities,) = torch.tensor(learner.metrics.peek(("default_policy", "td_error")))
    torch.testing.assert_close(priorities, expected.td_error.abs())


def test_exploration_strays_as_often_as_epsilon_says() -> None:
    drawn = module(epsilon=[(0, 1.0), (100, 0.0)])
    batch = {Columns.OBS: observations(0).repeat(1000, 1)}
    greedy = drawn.forward_inference(batch)[Columns.ACTIONS]
    assert torch.equal(greedy, drawn.compute_q_values(batch)["qf_preds"].argmax(1))
    assert torch.equal(drawn.forward_exploration(batch, t=100)[Columns.ACTIONS], greedy)
    for t, epsilon in ((0, 1.0), (50, 0.5)):
        changed = (drawn.forward_exploration(batch, t=t)[Columns.ACTIONS] != greedy).float().mean()
        # A third of what is drawn is the greedy action again; five standard deviations of 6,000 draws.
        share = epsilon * 2 / 3
        assert float(changed) == pytest.approx(share, abs=5 * math.sqrt(share * (1 - share) / 6000))


def test_actors_hold_no_target_network() -> None:
    learners, actors = module(), IsogonDQNModule(
        observation_space=BOX, action_space=THREE, inference_only=True, model_config={**MODEL, "epsilon": 0.0}
    )  # fmt: skip
    learners.make_target_networks()
    assert any(name.startswith("_target_values.") for name in learners.state_dict())
    state = learners.get_state(inference_only=True)
    assert state.keys() == actors.state_dict().keys()
    actors.set_state(state)
    batch = {Columns.OBS: observations(3)}
    torch.testing.assert_close(actors.compute_q_values(batch), learners.compute_q_values(batch))


def test_the_target_network_lags_behind_and_is_never_in_training_mode() -> None:
    made = module()
    made.make_target_networks()
    batch = {Columns.OBS: observations(3)}
    before = made.compute_q_values(batch)["qf_preds"].detach()
    with torch.no_grad():
        cast(FullMap, made.values.head.form).bias.add_(torch.linspace(-1, 1, 33).view(3, 11))
    made.forward_train(batch)
    torch.testing.assert_close(made.forward_target(batch)["qf_preds"], before)
    assert made.values.training
    assert not any(part.training for part in made.target_values.modules())


def test_a_dict_of_images_and_numbers_is_read_by_its_names() -> None:
    space = gymnasium.spaces.Dict({"a": gymnasium.spaces.Box(0, 255, (2, 2), np.uint8), "b": BOX})
    made = IsogonDQNModule(observation_space=space, action_space=THREE, model_config={**MODEL, "epsilon": 0.0})
    observation = {"a": torch.zeros(4, 2, 2, dtype=torch.uint8), "b": observations(0, 4)}
    assert made.compute_q_values({Columns.OBS: observation})["qf_preds"].shape == (4, 3)


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"epsilon": 0.0, "num_atoms": 51}, "num_atoms is 51"),
        ({"epsilon": 0.0, "value": {"vmin": 0.0, "vmax": 1.0}}, "bins not set"),
        ({"epsilon": 0.0, "value": {"bins": 11, "vmin": "auto", "vmax": 1.0}}, "set vmin and vmax to numbers"),
        (
            {"epsilon": 0.0, "value": {"bins": 11, "vmin": 0.0, "vmax": 1.0, "noisy_sigma": 0.5}},
            "asks for noisy_sigma=0.5",
        ),
        ({"epsilon": 0.0, "value": {"bins": 1, "vmin": 0.0, "vmax": 1.0}}, r"model_config: value\.bins"),
        ({"epsilon": 0.0, "network": {"kind": "letter_tied"}}, "network letter_tied reads words"),
        ({}, "has no epsilon"),
    ],
)
def test_what_does_not_fit_is_said_with_its_remedy(model: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        IsogonDQNModule(observation_space=BOX, action_space=THREE, model_config={**MODEL, **model})


@pytest.mark.parametrize(
    ("observation", "action", "said"),
    [
        (BOX, BOX, "action space is Box.*must be Discrete"),
        (BOX, gymnasium.spaces.Discrete(3, start=1), "start from 0"),
        (gymnasium.spaces.Discrete(4), THREE, r"observation space 'observation' is Discrete\(4\)"),
    ],
)
def test_spaces_that_do_not_fit_are_named(observation: Any, action: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        IsogonDQNModule(observation_space=observation, action_space=action, model_config={**MODEL, "epsilon": 0.0})


@pytest.mark.ray
def test_it_trains_and_a_new_algorithm_restores_what_was_saved(local_ray: None, tmp_path: Path) -> None:
    algorithm = cartpole().build_algo()
    before = weights(algorithm)
    algorithm.train()
    result = algorithm.train()
    seen = result["learners"]["default_policy"]
    assert result["num_env_steps_sampled_lifetime"] >= 300
    assert seen["num_module_steps_trained_lifetime"] >= 8 * 150
    assert 0 < seen["qf_loss"] < math.log(11) + 1
    trained = weights(algorithm)
    assert all(np.isfinite(part).all() for part in trained.values())
    assert any((trained[name] != before[name]).any() for name in before)
    algorithm.save_to_path(tmp_path / "saved")
    restored = cartpole().build_algo()
    restored.restore_from_path(tmp_path / "saved")
    assert all((weights(restored)[name] == part).all() for name, part in trained.items())
    batch = {Columns.OBS: torch.randn(5, 4)}
    q = [cast(IsogonDQNModule, each.get_module()).compute_q_values(batch)["qf_preds"] for each in (algorithm, restored)]
    assert torch.equal(*q)
    assert restored.train()["num_env_steps_sampled_lifetime"] >= 450
    algorithm.stop()
    restored.stop()


def weights(algorithm: DQN) -> dict[str, np.ndarray]:
    """Everything that the learner holds, target network included."""
    state = algorithm.learner_group.get_state(components="learner/rl_module/default_policy")
    return cast(dict[str, np.ndarray], state["learner"]["rl_module"]["default_policy"])


@pytest.mark.ray
def test_tune_searches_over_losses(local_ray: None, tmp_path: Path) -> None:
    kinds = ["hl_gauss", "mse"]
    model = {**MODEL, "value": {**MODEL["value"], "kind": tune.grid_search(kinds)}}
    results = tune.Tuner(
        DQN,
        param_space=cartpole(model),
        run_config=tune.RunConfig(stop={"training_iteration": 1}, storage_path=str(tmp_path), verbose=0),
    ).fit()
    assert not results.errors
    trained = [each.metrics["learners"]["default_policy"]["num_module_steps_trained_lifetime"] for each in results]
    assert len(trained) == 2
    assert min(trained) > 0
