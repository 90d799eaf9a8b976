"""Normalised returns: rewards of any size learn alike, and nothing outside the head knows of the scale."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch

from isogon.learners.batch import Batch
from isogon.learners.encodings import ArraySpec, EnvironmentSpec
from isogon.learners.learner import Exploration
from isogon.learners.networks import MLPConfig, build_value_module
from isogon.learners.policy import QPolicy
from isogon.learners.q_learning import QLearner
from isogon.learners.q_learning_config import QLearningConfig
from isogon.learners.randomness import stream
from isogon.learners.schedules import Schedule
from isogon.learners.state import decode_state, encode_state
from isogon.learners.values import ReturnBounds, ValueConfig, ValueHead, support_of

SPEC = EnvironmentSpec("toy", {"observation": ArraySpec((3,), "float32")}, 4)
Kind = Literal["hl_gauss", "two_hot", "c51", "mse", "mse_softmax"]
Form = Literal["full", "tilt"]
KINDS: list[tuple[Kind, Form]] = [
    ("hl_gauss", "full"), ("hl_gauss", "tilt"), ("two_hot", "full"), ("c51", "full"), ("mse", "full"),
    ("mse_softmax", "full"),
]  # fmt: skip


def learner(kind: Kind = "hl_gauss", form: Form = "full", normalise: bool = True, **options: Any) -> QLearner:
    value = ValueConfig(kind=kind, form=form, bins=21, vmin=-1.0, vmax=1.0, normalise_returns=normalise)
    config = {"learning_rate": Schedule(start=1e-2), "warmup_updates": 0, "target_update_every": 3, **options}
    return QLearner(
        build_value_module(MLPConfig(hidden=(8,)), value, SPEC, torch.Generator().manual_seed(0)),
        QLearningConfig(**config),
        stream(0, "learner"),
        returns=ReturnBounds(0.9, None) if normalise else None,
    )


def batch(seed: int, times: float) -> Batch:
    rng = np.random.default_rng(seed)

    def observation() -> dict[str, torch.Tensor]:
        return {"observation": torch.from_numpy(rng.normal(size=(16, 3)).astype(np.float32))}

    return {
        "observation_tm1": observation(),
        "action_tm1": torch.from_numpy(rng.integers(4, size=16)),
        "reward_t": torch.from_numpy((times * rng.normal(size=16)).astype(np.float32)),
        "discount_t": torch.from_numpy(np.where(rng.random(16) < 0.3, 0.0, 0.9).astype(np.float32)),
        "observation_t": observation(),
    }


def train(one: QLearner, times: float, updates: range = range(12)) -> list[float]:
    """The losses. An episode comes before the 1st, 5th and 9th update."""
    losses = []
    for update in updates:
        if update % 4 == 0:
            one.observe_episode(np.full(3, times * (1 + update), np.float32), terminated=True)
        losses.append(one.update(batch(update, times), 0.0).loss)
    return losses


def set_scale(head: ValueHead, scale: float) -> None:
    assert head.scale is not None
    head.scale.fill_(scale)


def scales(one: QLearner) -> list[float]:
    parts = one.state_dict()
    return [float(parts[name]["head.scale"]) for name in ("module", "target", "average")]


@pytest.mark.parametrize(("kind", "form"), KINDS)
def test_rewards_of_another_size_learn_the_same(kind: Kind, form: Form) -> None:
    """By a power of two, which changes no digit: the same losses and weights, values that many times as large."""
    plain, large = (learner(kind, form, cql_weight=Schedule(start=0.3)) for _ in range(2))
    assert train(plain, 1.0) == train(large, 1024.0)
    for name, part in plain.policy_tensors().items():
        times = 1024.0 if name == "head.scale" else 1.0
        assert np.array_equal(times * part, large.policy_tensors()[name]), name
    # The greedy policy is the same, and so is the one that explores: a temperature is in units of the scale.
    observation = {"observation": np.random.default_rng(1).normal(size=(200, 3)).astype(np.float32)}
    for temperature in (0.0, 0.2):
        exploration = Exploration(temperature=temperature)
        one, other = (
            each.policy().act(observation, None, exploration, stream(0, "explore")) for each in (plain, large)
        )
        assert np.array_equal(one, other)
        assert temperature == 0 or len(set(one)) > 1


@pytest.mark.parametrize(("kind", "form"), KINDS)
def test_a_scaled_head_is_a_plain_one_in_other_units(kind: Kind, form: Form) -> None:
    scaled, plain = learner(kind, form), learner(kind, form, normalise=False)
    scaled.observe_episode(np.array([8.0], np.float32), terminated=True)
    head, other = scaled._plain.head, plain._plain.head
    set_scale(head, 8.0)
    hidden = torch.randn(5, 8, generator=torch.Generator().manual_seed(1))
    row, action = torch.arange(5), torch.tensor([0, 3, 1, 1, 2])
    target = torch.tensor([-7.0, 0.0, 3.0, 8.0, -1.0])
    with torch.no_grad():
        assert torch.equal(head.values(hidden), 8 * other.values(hidden))
        assert torch.equal(head.best(hidden)[0], 8 * other.best(hidden)[0])
        assert torch.equal(head.top(hidden, None, 2)[0], 8 * other.top(hidden, None, 2)[0])
        assert torch.equal(head.values_at(hidden, action[:, None]), 8 * other.values_at(hidden, action[:, None]))
        one, two = (h.loss(hidden, row, action, t) for h, t in ((head, target), (other, target / 8)))
    assert torch.equal(one.loss, two.loss)
    assert torch.equal(one.value, 8 * two.value)
    assert torch.equal(one.td_error, 8 * two.td_error)
    for of_scaled, of_plain in ((head.edges(), other.edges()), (head.centres(), other.centres())):
        assert (of_scaled is None) == (of_plain is None) == (kind == "mse")
        assert of_scaled is None or of_plain is None or torch.equal(of_scaled, 8 * of_plain)


def test_the_scale_fits_the_longest_game_and_the_target_keeps_its_own() -> None:
    one = learner(target_update_every=4, average_decay=0.0)
    assert scales(one) == [1.0, 1.0, 1.0]
    one.update(batch(0, 0.0), 0.0)
    one.observe_episode(np.zeros(5, np.float32), terminated=True)
    one.update(batch(0, 0.0), 0.0)
    # Where every reward is 0 there is no unit yet.
    assert scales(one) == [1.0, 1.0, 1.0]
    one.observe_episode(np.array([3.0, 0.0], np.float32), terminated=True)
    one.update(batch(1, 1.0), 0.0)
    # 3 a step for ever, at a discount of 0.9; the first scale is everybody's.
    assert scales(one) == pytest.approx([30.0, 30.0, 30.0])
    one.observe_episode(np.array([-6.0, 0.0], np.float32), terminated=True)
    one.update(batch(2, 1.0), 0.0)
    assert scales(one) == pytest.approx([60.0, 60.0, 60.0])
    one.observe_episode(np.array([9.0, 0.0], np.float32), terminated=True)
    one.update(batch(3, 1.0), 0.0)
    assert scales(one) == pytest.approx([90.0, 60.0, 90.0])


def test_bootstrapped_targets_are_in_units_of_return() -> None:
    """With targets of one network and the online one of another scale, read back from the loss."""
    kinds: tuple[Kind, ...] = ("hl_gauss", "two_hot", "c51", "mse_softmax", "mse")
    for kind in kinds:
        one = learner(kind, double_q=False)
        set_scale(one._plain.head, 64.0)
        set_scale(one._target.head, 16.0)
        data = batch(0, 1.0)
        with torch.no_grad():
            slow = one._target
            best = slow.head.values(slow.torso(data["observation_t"])).max(1).values
            wanted = data["reward_t"] + data["discount_t"] * best
            online = one._plain
            value = online.head.values(online.torso(data["observation_tm1"])).gather(1, data["action_tm1"][:, None])
            found = value[:, 0] - one.loss(data).td_error
        assert torch.allclose(found, wanted, atol=1e-4), kind


def test_a_checkpoint_holds_the_scale_and_what_it_comes_from() -> None:
    whole, first, second = learner(), learner(), learner()
    losses = train(whole, 3.0)
    begun = train(first, 3.0, range(6))
    second.load_state_dict(decode_state(*encode_state(first.state_dict())))
    assert begun + train(second, 3.0, range(6, 12)) == losses
    assert scales(second) == scales(whole)


def test_a_learner_that_does_not_normalise_has_no_scale() -> None:
    plain = learner(normalise=False)
    assert not any("scale" in name for name in plain.policy_tensors())
    assert "returns" not in plain.state_dict()
    with pytest.raises(ValueError, match="does not normalise"):
        plain.observe_episode(np.ones(3, np.float32), terminated=True)
    with pytest.raises(ValueError, match="only there"):
        QLearner(plain._plain, QLearningConfig(), stream(0, "learner"), returns=ReturnBounds(0.9, None))
    with pytest.raises(ValueError, match="another network"):
        QPolicy(plain._plain, 4).load_tensors(learner().policy_tensors())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"vmin": "auto", "vmax": 1.0}, "normalise_returns is true and an end of the range is auto"),
        ({"vmin": 1.0, "vmax": 2.0}, "0 must be in it"),
        ({"preset": "dreamerv3"}, "the transform symexp"),
    ],
)
def test_what_cannot_be_normalised_is_refused(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        support_of(ValueConfig(**{"bins": 21, "normalise_returns": True, **options}))
