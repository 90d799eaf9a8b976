from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch
from torch import nn

from isogon.kernels import Support
from isogon.learners.batch import Batch
from isogon.learners.encodings import ArraySpec, EnvironmentSpec
from isogon.learners.networks import MLPConfig, MLPTorso, ValueModule, build_value_module
from isogon.learners.q_learning import QLearner
from isogon.learners.q_learning_config import QLearningConfig
from isogon.learners.randomness import stream
from isogon.learners.schedules import Schedule
from isogon.learners.state import decode_state, encode_state
from isogon.learners.values import C51, FullMap, MeanSquared, ValueConfig, ValueHead

CONSTANT = Schedule(start=1e-2)
ONE = Schedule(start=1.0)


# Two states and three actions, by hand: the network is a table.

Q_FIRST = [[1.0, 5.0, 3.0], [-2.0, -1.0, -4.0]]
Q_LATER = [[9.0, 0.0, 2.0], [-3.0, -6.0, -1.0]]


class OneHot(nn.Module):
    """A torso whose features are the observed state, one-hot."""

    observations_repeat = False

    def forward(self, observation: dict[str, torch.Tensor]) -> torch.Tensor:
        return nn.functional.one_hot(observation["state"], 2).float()


def table(q: list[list[float]]) -> ValueModule:
    """A module whose values ``q [2, 3]`` are its weights."""
    form = FullMap(2, 3, 1, torch.Generator())
    form.weight.data = torch.tensor(q).T[:, None].contiguous()
    return ValueModule(cast(MLPTorso, OneHot()), ValueHead(form, MeanSquared()), 3)


def learner_of(q: list[list[float]], **config: Any) -> QLearner:
    config = {"learning_rate": CONSTANT, "warmup_updates": 0, **config}
    return QLearner(table(q), QLearningConfig(**config), stream(0, "learner"))


def change_online(learner: QLearner, q: list[list[float]]) -> None:
    learner.load_shared(
        {name: part for name, (part, _) in QLearner(table(q), QLearningConfig(), stream(0, "-")).shared().items()}
    )


def step(after: list[int], reward: float = 0.0, discount: float | list[float] = 1.0, **fields: Any) -> Batch:
    """Transitions from state 0 by action 0 to the states ``after``."""
    count = len(after)
    return {
        "observation_tm1": {"state": torch.zeros(count, dtype=torch.int64)},
        "action_tm1": torch.zeros(count, dtype=torch.int64),
        "reward_t": torch.full((count,), reward),
        "discount_t": torch.tensor(discount if isinstance(discount, list) else [discount] * count),
        "observation_t": {"state": torch.tensor(after)},
        **fields,
    }


def targets(learner: QLearner, batch: Batch) -> list[float]:
    """The targets of a batch that begins in state 0 with action 0: value minus TD error."""
    value = torch.tensor(online_table(learner)[0][0])
    return (value - learner.loss(batch).td_error).tolist()


def online_table(learner: QLearner) -> list[list[float]]:
    return table_of(dict((name, part) for name, (part, _) in learner.shared().items()))


def table_of(tensors: dict[str, Any]) -> list[list[float]]:
    weight, bias = (torch.as_tensor(tensors[f"head.form.{name}"]) for name in ("weight", "bias"))
    rows: list[list[float]] = (weight[:, 0] + bias).T.tolist()
    return rows


def test_double_q_takes_the_online_networks_action_and_the_target_networks_value() -> None:
    learner = learner_of(Q_FIRST, double_q=True)
    change_online(learner, Q_LATER)
    # Online would play action 0 in state 0 and action 2 in state 1.
    assert targets(learner, step([0, 1], 0.5, 0.9)) == pytest.approx([0.5 + 0.9 * 1.0, 0.5 + 0.9 * -4.0])


def test_single_q_takes_the_target_networks_best() -> None:
    learner = learner_of(Q_FIRST, double_q=False)
    change_online(learner, Q_LATER)
    assert targets(learner, step([0, 1], 0.5, 0.9)) == pytest.approx([0.5 + 0.9 * 5.0, 0.5 + 0.9 * -1.0])


@pytest.mark.parametrize(("double_q", "expected"), [(True, [3.0, -2.0]), (False, [3.0, -2.0])])
def test_illegal_actions_are_never_the_next(double_q: bool, expected: list[float]) -> None:
    learner = learner_of(Q_FIRST, double_q=double_q)
    change_online(learner, Q_LATER if double_q else Q_FIRST)
    # Without the mask it would be action 0 and 2 (online), or 1 and 1 (target).
    legal = torch.tensor([[False, False, True], [True, False, False]])
    assert targets(learner, step([0, 1], legal_t=legal)) == pytest.approx(expected)


@pytest.mark.parametrize("double_q", [True, False])
def test_where_nothing_follows_nothing_need_be_legal(double_q: bool) -> None:
    learner = learner_of(Q_FIRST, double_q=double_q)
    legal = torch.tensor([[False, False, False], [False, True, True]])
    assert targets(learner, step([0, 1], -7.0, [0.0, 0.5], legal_t=legal)) == pytest.approx([-7.0, -7.0 + 0.5 * -1.0])
    with pytest.raises(ValueError, match="no action in 1 of 2"):
        learner.loss(step([0, 1], legal_t=legal))


def test_a_return_is_a_step_without_discount() -> None:
    learner = learner_of(Q_FIRST)
    n_step = step([0, 1], 2.5, 0.0)
    monte_carlo = {name: part for name, part in n_step.items() if name != "observation_t"}
    pairs = {
        "observation_tm1": {"state": torch.tensor([0])},
        "row": torch.tensor([0, 0]),
        "action": torch.tensor([0, 0]),
        "target": torch.tensor([2.5, 2.5]),
    }
    losses = [learner.loss(batch) for batch in (n_step, monte_carlo, pairs)]
    assert [float(loss.value.detach()) for loss in losses] == [(1.0 - 2.5) ** 2] * 3
    assert all(torch.equal(loss.td_error, losses[0].td_error) for loss in losses)


def test_importance_weights_multiply_the_pairs_losses() -> None:
    learner = learner_of(Q_FIRST)
    batch = step([0, 0], discount=0.0, weight=torch.tensor([0.5, 3.0]))
    batch = {**batch, "reward_t": torch.tensor([2.0, 4.0])}
    assert float(learner.loss(batch).value.detach()) == pytest.approx((0.5 * 1.0 + 3.0 * 9.0) / 2)


def test_gradients_are_scaled_down_to_their_greatest_norm() -> None:
    def gradient_after(greatest: float) -> tuple[float, float]:
        learner = learner_of(Q_FIRST, max_gradient_norm=greatest)
        told = learner.update(step([1], reward=50.0, discount=0.0), progress=0.0).gradient_norm
        parts = [p.grad.flatten() for p in learner.module.parameters() if p.grad is not None]
        return told, float(torch.cat(parts).norm())

    told, left = gradient_after(0.5)
    assert told > 10
    assert left == pytest.approx(0.5, rel=1e-4)
    assert gradient_after(1e6) == pytest.approx((told, told))


def test_the_target_network_is_copied_every_n_updates() -> None:
    learner = learner_of(Q_FIRST, double_q=False, target_update_every=3, average_decay=0.0)
    probe = step([0], legal_t=torch.tensor([[True, False, False]]))
    for update in range(1, 8):
        before = targets(learner, probe)
        learner.update(step([0, 1], 8.0, 0.0), 0.0)
        online = online_table(learner)[0][:1]
        assert targets(learner, probe) == pytest.approx(online if update % 3 == 0 else before)
        assert online != pytest.approx(before), "every update moves the value that is looked at"


@pytest.mark.parametrize("double_q", [True, False])
def test_without_a_target_network_the_average_is_the_target(double_q: bool) -> None:
    learner = learner_of(Q_FIRST, double_q=double_q, target_update_every=0, average_decay=0.9)
    for _ in range(5):
        learner.update(step([0, 1], 8.0, 0.0), 0.0)
    change_online(learner, Q_LATER)
    average = table_of(learner.policy_tensors())
    best = [int(np.argmax(row)) for row in (Q_LATER if double_q else average)]
    assert targets(learner, step([0, 1])) == pytest.approx([average[0][best[0]], average[1][best[1]]])


@pytest.mark.parametrize("decay", [0.0, 0.2, 0.999])
def test_the_average_is_a_young_one_that_ages(decay: float) -> None:
    learner = learner_of(Q_FIRST, average_decay=decay)
    expected = np.array(Q_FIRST)
    for update in range(1, 31):
        learner.update(step([0, 1], 8.0, 0.0), 0.0)
        share = min(decay, update / (update + 19))
        expected = share * expected + (1 - share) * np.array(online_table(learner))
        np.testing.assert_allclose(table_of(learner.policy_tensors()), expected, rtol=1e-5)
        assert table_of({k: v for k, v in learner.policy().module.state_dict().items()}) == table_of(
            learner.policy_tensors()
        )


def test_c51_learns_the_projected_distribution_of_the_next_state() -> None:
    support = Support(0.0, 4.0, 5, anchor="atoms")
    form = FullMap(2, 3, 5, torch.Generator())
    p_first = torch.rand(3, 2, 5, generator=torch.Generator().manual_seed(0)) + 0.1
    p_first[:, :, 0] += torch.tensor([[9.0, 0.0], [0.0, 9.0], [9.0, 9.0]])
    p_first /= p_first.sum(2, keepdim=True)
    form.weight.data = p_first.log().transpose(1, 2).contiguous()
    module = ValueModule(cast(MLPTorso, OneHot()), ValueHead(form, C51(support)), 3)
    learner = QLearner(module, QLearningConfig(double_q=False), stream(0, "learner"))
    # Action 1 is the best in state 0 and action 0 in state 1: the others have much mass at value 0.
    loss = learner.loss(step([0, 1, 1], 0.5, [0.5, 1.0, 0.0]))

    def projected(p: np.ndarray, reward: float, discount: float) -> np.ndarray:
        # Bellemare et al. 2017, algorithm 1, atom by atom.
        m = np.zeros(5)
        for atom in range(5):
            b = min(max(reward + discount * atom, 0.0), 4.0)
            low, high = int(np.floor(b)), int(np.ceil(b))
            m[low] += p[atom] * (1.0 if low == high else high - b)
            m[high] += p[atom] * (0.0 if low == high else b - low)
        return m

    first = p_first.double().numpy()
    wanted = [projected(first[1, 0], 0.5, 0.5), projected(first[0, 1], 0.5, 1.0), projected(first[0, 1], 0.5, 0.0)]
    played = np.log(first[0, 0])
    assert float(loss.value.detach()) == pytest.approx(np.mean([-(m * played).sum() for m in wanted]), rel=1e-5)
    value = float((first[0, 0] * np.arange(5)).sum())
    assert loss.td_error.tolist() == pytest.approx([value - float((m * np.arange(5)).sum()) for m in wanted], abs=1e-5)


# The conservative regulariser.


def conservative(contrast: list[int] | None, actions: int, weight: Schedule = ONE) -> QLearner:
    config = QLearningConfig(learning_rate=CONSTANT, warmup_updates=0, cql_weight=weight, cql_actions=actions)
    chosen = None if contrast is None else np.array(contrast)
    return QLearner(table(Q_FIRST), config, stream(0, "learner"), contrast_actions=chosen)


PLAYED: Batch = {
    "observation_tm1": {"state": torch.tensor([0, 1])},
    "row": torch.tensor([1, 0, 0]),
    "action": torch.tensor([2, 1, 0]),
    "target": torch.tensor([-3.0, 4.0, 0.0]),
}


@pytest.mark.parametrize("contrast", [None, [0, 1, 2], [0], [1, 2]])
def test_the_penalty_is_cqls(contrast: list[int] | None) -> None:
    learner = conservative(contrast, 0)
    q = np.array(Q_FIRST)
    penalties, errors = [], []
    for row, action, target in zip(*(PLAYED[name].tolist() for name in ("row", "action", "target")), strict=True):
        others = set(range(3) if contrast is None else contrast) | {action}
        penalties.append(np.log(sum(np.exp(q[row, a]) for a in others)) - q[row, action])
        errors.append((q[row, action] - target) ** 2)
    loss = learner.loss(PLAYED)
    assert loss.stats["cql_penalty"] == pytest.approx(np.mean(penalties), rel=1e-5)
    assert float(loss.value.detach()) == pytest.approx(np.mean(errors) + np.mean(penalties), rel=1e-5)


def test_the_penalty_lowers_what_was_not_played() -> None:
    learner = conservative(None, 0, Schedule(start=100.0))
    batch = {**PLAYED, "row": torch.tensor([0]), "action": torch.tensor([0]), "target": torch.tensor([1.0])}
    for _ in range(20):
        learner.update(batch, 0.0)
    moved = np.array(online_table(learner)[0]) - np.array(Q_FIRST[0])
    assert moved[0] > 0.1
    assert max(moved[1:]) < -0.1


def test_only_contrast_actions_are_drawn_and_all_of_them_in_time() -> None:
    learner = conservative([0, 2], 1)
    batch = {**PLAYED, "row": torch.tensor([0]), "action": torch.tensor([0]), "target": torch.tensor([0.0])}
    touched = torch.zeros(3, dtype=torch.bool)
    for _ in range(20):
        learner.module.zero_grad()
        learner.loss(batch).value.backward()  # type: ignore[no-untyped-call]
        touched |= learner.module.get_parameter("head.form.weight").grad.abs().sum((1, 2)) > 0  # type: ignore[union-attr]
    assert touched.tolist() == [True, False, True]


def test_drawn_actions_differ_from_each_other() -> None:
    learner = conservative(None, 2)
    batch = {**PLAYED, "row": torch.tensor([0]), "action": torch.tensor([0]), "target": torch.tensor([0.0])}
    seen = {round(learner.loss(batch).stats["cql_penalty"], 4) for _ in range(40)}
    # Two of three, and the played action 0, which may be one of the two.
    odds = np.exp(np.array(Q_FIRST[0]) - Q_FIRST[0][0])
    sums = (odds[0] + odds[1], odds[0] + odds[2], odds.sum())
    assert sorted(seen) == pytest.approx(sorted(np.log(sums)), abs=1e-4)


def test_progress_drives_the_penaltys_weight() -> None:
    learner = conservative(None, 0, Schedule(kind="linear", start=2.0, end=0.0))
    stats = learner.update(PLAYED, 0.25)
    assert stats.loss == pytest.approx(
        float(((torch.tensor([-4.0, 5.0, 1.0]) - PLAYED["target"]) ** 2).mean()) + 1.5 * stats.stats["cql_penalty"]
    )
    assert "cql_penalty" not in learner.update(PLAYED, 1.0).stats


@pytest.mark.parametrize("contrast", [np.array([], np.int64), np.array([0, 3]), np.array([-1]), np.array([0.5])])
def test_wrong_contrast_actions_are_refused(contrast: np.ndarray) -> None:
    with pytest.raises(ValueError, match="contrast_actions"):
        QLearner(table(Q_FIRST), QLearningConfig(), stream(0, "learner"), contrast_actions=contrast)


def test_another_networks_checkpoint_is_refused_whole() -> None:
    learner = learner_of(Q_FIRST)
    before = encode_state(learner.state_dict())
    state = decode_state(*before)
    state["module"]["head.form.weight"] += 1.0
    state["target"]["head.form.bias"] = torch.zeros(3, 2)
    with pytest.raises(ValueError, match=r"target weights are of another network: 'head.form.bias' is \[3, 2\]"):
        learner.load_state_dict(state)
    assert encode_state(learner.state_dict()) == before


# Learning.


def chain_values(states: int, discount: float) -> np.ndarray:
    """``[states, 2]``, by value iteration: left (0) and right (1); beyond the right end lies the reward 1."""
    q = np.zeros((states, 2))
    for _ in range(1000):
        v = q.max(1)
        q = np.stack([discount * v[np.maximum(np.arange(states) - 1, 0)], discount * np.append(v[1:], 0.0)], axis=1)
        q[-1, 1] = 1.0
    return q


def test_bootstrapped_double_q_reaches_the_values_of_a_chain() -> None:
    states, discount = 5, 0.8
    eye = torch.eye(states)
    s, a = torch.arange(states).repeat_interleave(2), torch.tensor([0, 1]).repeat(states)
    after = (s + 2 * a - 1).clamp(0, states - 1)
    end = (s == states - 1) & (a == 1)
    batch = {
        "observation_tm1": {"observation": eye[s]},
        "action_tm1": a,
        "reward_t": end.float(),
        "discount_t": torch.where(end, 0.0, discount),
        "observation_t": {"observation": eye[after]},
    }
    spec = EnvironmentSpec("chain", {"observation": ArraySpec((states,), "float32")}, 2)
    value = ValueConfig(kind="hl_gauss", bins=31, vmin=-0.25, vmax=1.25)
    module = build_value_module(MLPConfig(hidden=(32,)), value, spec, torch.Generator().manual_seed(0))
    config = QLearningConfig(
        learning_rate=Schedule(kind="cosine", start=1e-2, end=1e-4), warmup_updates=10, target_update_every=20
    )
    learner = QLearner(module, config, stream(0, "learner"))
    for update in range(800):
        learner.update(batch, update / 800)
    policy = learner.policy()
    with torch.no_grad():
        learnt = policy.module.head.values(policy.module.torso({"observation": eye})).numpy()
    np.testing.assert_allclose(learnt, chain_values(states, discount), atol=0.02)
