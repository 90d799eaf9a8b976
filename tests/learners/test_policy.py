from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from isogon.learners.encodings import ArraySpec, EnvironmentSpec
from isogon.learners.learner import GREEDY, Exploration
from isogon.learners.networks import LetterTiedConfig, MLPConfig, MLPTorso, ValueModule, build_value_module
from isogon.learners.policy import QPolicy, build_policy
from isogon.learners.values import FullMap, MeanSquared, ValueConfig, ValueHead

from .learner_suite import WORDLE_SPEC, WORDS, random_boards

N, A = 12, 6
SPEC = EnvironmentSpec("table", {"q": ArraySpec((A,), "float32")}, A, has_legal=True)


class Itself(nn.Module):
    """A torso that hands the observed values on: the observation is its own Q-table."""

    observations_repeat = False

    def forward(self, observation: dict[str, torch.Tensor]) -> torch.Tensor:
        return observation["q"]


def reader(top: int = A) -> QPolicy:
    """A policy to which observations say what its actions are worth."""
    form = FullMap(A, A, 1, torch.Generator())
    form.weight.data = torch.eye(A)[:, None]
    return QPolicy(ValueModule(cast(MLPTorso, Itself()), ValueHead(form, MeanSquared()), A), top)


def draws(
    q: list[float], legal: list[bool] | None, exploration: Exploration, *, top: int = A, count: int = 40_000
) -> np.ndarray:
    """How often each action is played, as shares."""
    observation = {"q": np.tile(np.array(q, np.float32), (count, 1))}
    mask = None if legal is None else np.tile(np.array(legal), (count, 1))
    actions = reader(top).act(observation, mask, exploration, np.random.default_rng(0))
    assert actions.dtype == np.int64
    return np.bincount(actions, minlength=A) / count


def random_case(seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    generator = np.random.default_rng(seed)
    legal = generator.random((N, A)) < 0.4
    legal[np.arange(N), generator.integers(A, size=N)] = True
    return {"q": generator.normal(size=(N, A)).astype(np.float32)}, legal


@pytest.mark.parametrize("seed", range(5))
def test_greedy_takes_the_best_legal_action(seed: int) -> None:
    observation, legal = random_case(seed)
    policy, generator = reader(), np.random.default_rng(0)
    assert np.array_equal(policy.act(observation, None, GREEDY, generator), observation["q"].argmax(1))
    best = np.where(legal, observation["q"], -np.inf).argmax(1)
    assert np.array_equal(policy.act(observation, legal, GREEDY, generator), best)


@pytest.mark.parametrize(
    "exploration", [GREEDY, Exploration(epsilon=1.0), Exploration(temperature=5.0), Exploration(0.5, 2.0)]
)
def test_illegal_actions_are_never_played(exploration: Exploration) -> None:
    policy, generator = reader(top=4), np.random.default_rng(1)
    for seed in range(40):
        observation, legal = random_case(seed)
        actions = policy.act(observation, legal, exploration, generator)
        assert legal[np.arange(N), actions].all()


@pytest.mark.parametrize("legal", [None, [True, False, True, True, False, True]])
def test_a_temperature_plays_by_the_softmax(legal: list[bool] | None) -> None:
    q, temperature = [0.3, 2.0, -0.5, 1.0, 0.9, 0.0], 0.7
    odds = np.exp(np.array(q) / temperature) * (np.ones(A) if legal is None else np.array(legal))
    # Five standard deviations of a share over 40,000 draws are at most 0.0125.
    np.testing.assert_allclose(draws(q, legal, Exploration(temperature=temperature)), odds / odds.sum(), atol=0.0125)


def test_a_temperature_draws_from_the_best_few_only() -> None:
    q = [0.3, 2.0, -0.5, 1.0, 0.9, 0.0]
    odds = np.exp(np.array(q)) * np.array([0, 1, 0, 1, 1, 0])
    shares = draws(q, None, Exploration(temperature=1.0), top=3)
    np.testing.assert_allclose(shares, odds / odds.sum(), atol=0.0125)
    assert (shares[odds == 0] == 0).all()
    assert draws(q, None, Exploration(temperature=1.0), top=1).tolist() == [0, 1, 0, 0, 0, 0]
    assert reader(top=100).top == A


def test_a_low_temperature_is_greedy_and_does_not_overflow() -> None:
    assert draws([-3.0, 1e4, 0.0, 0.0, 0.0, 9.9e3], None, Exploration(temperature=1e-3)).tolist() == [0, 1, 0, 0, 0, 0]


@pytest.mark.parametrize("legal", [None, [False, True, True, False, True, False]])
def test_epsilon_is_the_share_of_uniform_actions(legal: list[bool] | None) -> None:
    may = np.ones(A) if legal is None else np.array(legal, float)
    expected = 0.3 * may / may.sum()
    expected[1] += 0.7
    np.testing.assert_allclose(draws([0, 9, 1, 2, 3, 4], legal, Exploration(epsilon=0.3)), expected, atol=0.0125)


def test_equal_streams_play_equally() -> None:
    observation, legal = random_case(0)
    explore = Exploration(0.2, 1.0)
    one, other, third = (reader().act(observation, legal, explore, np.random.default_rng(s)) for s in (3, 3, 4))
    assert np.array_equal(one, other)
    assert not np.array_equal(one, third)


def test_nothing_to_act_on() -> None:
    none = {"q": np.zeros((0, A), np.float32)}
    actions = reader().act(none, np.zeros((0, A), bool), Exploration(0.5, 1.0), np.random.default_rng(0))
    assert actions.shape == (0,)
    assert actions.dtype == np.int64


def test_a_state_without_a_legal_action_is_an_error() -> None:
    observation, legal = random_case(0)
    legal[3] = False
    with pytest.raises(ValueError, match="no action in 1 of 12"):
        reader().act(observation, legal, GREEDY, np.random.default_rng(0))


TILT = ValueConfig(form="tilt", bins=31, vmin=-6.0, vmax=0.0)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("exploration", [GREEDY, Exploration(temperature=0.5), Exploration(0.3, 0.5)])
def test_boards_that_repeat_are_answered_as_if_each_stood_alone(masked: bool, exploration: Exploration) -> None:
    policy = build_policy(LetterTiedConfig(hidden=16), TILT, WORDLE_SPEC, 8)
    generator = np.random.default_rng(0)
    which = generator.integers(10, size=200)
    observation = {name: part.numpy()[which] for name, part in random_boards(10, 0).items()}
    # Equal boards with different masks must be kept apart.
    legal = generator.random((4, len(WORDS)))[generator.integers(4, size=200)] < 0.5 if masked else None

    def act() -> np.ndarray:
        return policy.act(observation, legal, exploration, np.random.default_rng(7))

    merged = act()
    assert len(np.unique(merged)) > 3
    encoded: list[int] = []
    hook = policy.module.torso.register_forward_pre_hook(lambda _, given: encoded.append(len(given[0]["letters"])))
    act()
    policy.module.torso.observations_repeat = False
    assert np.array_equal(act(), merged)
    hook.remove()
    boards = [observation["letters"][n].tobytes() + observation["colours"][n].tobytes() for n in range(200)]
    masks = [b"" if legal is None else legal[n].tobytes() for n in range(200)]
    assert encoded == [len(set(zip(boards, masks, strict=True))), 200]


def test_built_policies_differ_only_until_weights_are_loaded() -> None:
    network = MLPConfig(hidden=(8,))
    value = ValueConfig(bins=11, vmin=-1.0, vmax=1.0)
    policy = build_policy(network, value, SPEC, 4)
    trained = build_value_module(network, value, SPEC, torch.Generator().manual_seed(5))
    tensors = {name: part.numpy() for name, part in trained.state_dict().items()}
    for part in tensors.values():
        part.flags.writeable = False  # as what comes out of Ray's object store
    policy.load_tensors(tensors)
    observation, legal = random_case(3)
    with torch.no_grad():
        values = trained.head.values(trained.torso({"q": torch.from_numpy(observation["q"])})).numpy()
    best = np.where(legal, values, -np.inf).argmax(1)
    assert np.array_equal(policy.act(observation, legal, GREEDY, np.random.default_rng(0)), best)
    with torch.no_grad():
        trained.head.get_parameter("form.weight").zero_()
    assert np.array_equal(policy.act(observation, legal, GREEDY, np.random.default_rng(0)), best), "loading copies"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"head.form.bias": np.zeros((2, 1), np.float32)}, r"'head.form.bias' is \[2, 1\], expected \[6, 1\]"),
        ({"head.form.bias": None}, "'head.form.bias' is not in both"),
        ({"head.form.other": np.zeros(1, np.float32)}, "'head.form.other' is not in both"),
    ],
)
def test_weights_of_another_network_are_refused_whole(change: dict[str, Any], message: str) -> None:
    policy = reader()
    given = {name: part.numpy() + 1.0 for name, part in policy.module.state_dict().items()} | change
    before = {name: part.clone() for name, part in policy.module.state_dict().items()}
    with pytest.raises(ValueError, match=message):
        policy.load_tensors({name: part for name, part in given.items() if part is not None})
    assert all(torch.equal(part, before[name]) for name, part in policy.module.state_dict().items())
