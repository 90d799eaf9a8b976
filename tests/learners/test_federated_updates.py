"""What a client of a federation asks of the Q-learner: a scaled rate, a penalty, a new beginning."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from isogon.learners.encodings import ArraySpec, EnvironmentSpec
from isogon.learners.networks import MLPConfig, build_value_module
from isogon.learners.networks.config import LetterBeliefConfig, LetterTiedConfig, LetterUntiedConfig
from isogon.learners.proximal import Penalty, proximal_penalty
from isogon.learners.q_learning import QLearner
from isogon.learners.q_learning_config import QLearningConfig
from isogon.learners.randomness import stream
from isogon.learners.schedules import Schedule
from isogon.learners.values import ValueConfig

from .learner_suite import WORDLE_SPEC, WORDS

SPEC = EnvironmentSpec("toy", {"x": ArraySpec((3,), "float32")}, num_actions=2)
VALUE = ValueConfig(bins=11, vmin=-2.0, vmax=2.0)


def learner(**config: float) -> QLearner:
    module = build_value_module(MLPConfig(hidden=(8,)), VALUE, SPEC, torch.Generator().manual_seed(0))
    settings = QLearningConfig(learning_rate=Schedule(start=1e-2), warmup_updates=0, max_gradient_norm=1e9, **config)
    return QLearner(module, settings, stream(0, "learner"))


def batch(seed: int = 0) -> dict[str, object]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "observation_tm1": {"x": torch.randn(16, 3, generator=generator)},
        "action_tm1": torch.randint(2, (16,), generator=generator),
        "reward_t": torch.randn(16, generator=generator),
        "discount_t": torch.zeros(16),
    }


def weights(one: QLearner) -> torch.Tensor:
    return torch.cat([part.flatten() for part, _ in one.shared().values()]).clone()


def test_half_the_rate_makes_half_of_adams_first_step() -> None:
    steps = []
    for scale in (1.0, 0.5):
        one = learner()
        before = weights(one)
        stats = one.update(batch(), 0.0, rate_scale=scale)
        assert stats.learning_rate == pytest.approx(1e-2 * scale)
        steps.append(weights(one) - before)
    torch.testing.assert_close(steps[1], 0.5 * steps[0], rtol=1e-4, atol=1e-7)


def test_the_proximal_penalty_and_its_gradient_are_the_papers() -> None:
    module = nn.Linear(2, 1)
    start = {name: torch.full_like(part, 0.25) for name, part in module.named_parameters()}
    penalty = proximal_penalty(start, mu=3.0)
    value = penalty(module)
    value.backward()  # type: ignore[no-untyped-call]
    distance = sum(float(((part.detach() - 0.25) ** 2).sum()) for part in module.parameters())
    assert float(value.detach()) == pytest.approx(1.5 * distance, rel=1e-5)
    for part in module.parameters():
        assert part.grad is not None
        torch.testing.assert_close(part.grad, 3.0 * (part.detach() - 0.25))
    # The place that it pulls to does not move with the weights that it was copied from.
    kept = proximal_penalty(dict(module.named_parameters()), mu=1.0)
    with torch.no_grad():
        module.bias.add_(2.0)
    assert float(kept(module).detach()) == pytest.approx(2.0)
    with pytest.raises(ValueError, match="mu is -1"):
        proximal_penalty(start, mu=-1.0)


def test_a_penalty_is_in_the_loss_and_its_gradient_in_the_step() -> None:
    plain, penalised = learner(), learner()
    given = {name: part for name, (part, _) in penalised.shared().items()}
    away: Penalty = proximal_penalty({name: part + 0.5 for name, part in given.items()}, mu=100.0)
    size = weights(plain).numel()
    one, other = plain.update(batch(), 0.0), penalised.update(batch(), 0.0, penalty=away)
    assert "penalty" not in one.stats
    assert other.stats["penalty"] == pytest.approx(0.5 * 100 * 0.25 * size, rel=1e-4)
    assert other.loss == pytest.approx(one.loss + other.stats["penalty"], rel=1e-5)
    # Adam's first step is the gradient's sign: everything is drawn to where the penalty is 0.
    start = weights(learner())
    torch.testing.assert_close(weights(penalised) - start, torch.full((size,), 1e-2), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("keep", [True, False])
def test_restart_follows_the_weights_that_came(keep: bool) -> None:
    one = learner(average_decay=0.9)
    for seed in range(5):
        one.update(batch(seed), 0.0)
    came = {name: torch.zeros_like(part) for name, (part, _) in one.shared().items()}
    one.load_shared(came)
    assert any(part.any() for part in one.policy_tensors().values()), "the average is still of the old weights"
    one.restart(keep_optimiser=keep)
    state = one.state_dict()
    for follower in ("target", "average"):
        assert not any(part.any() for part in state[follower].values())
    assert bool(state["adam"]) == keep
    assert state["updates"] == 5


def test_kept_moments_carry_on_and_new_ones_begin() -> None:
    """After equal gradients Adam's moments know only their sign; a gradient turned around shows whether they do."""
    deltas = {}
    for keep in (True, False):
        one = learner()
        for _ in range(10):
            one.update(batch(), 0.0)
        one.restart(keep_optimiser=keep)
        before = weights(one)
        one.update(batch(1), 0.0)
        deltas[keep] = weights(one) - before
    # A first step of Adam is as long as the rate wherever there is a gradient at all.
    fresh = deltas[False][deltas[False] != 0].abs()
    assert float((fresh - 1e-2).abs().max()) < 1e-4
    assert float((deltas[True].abs() - 1e-2).abs().max()) > 1e-3


@pytest.mark.parametrize("network", [LetterTiedConfig, LetterBeliefConfig, LetterUntiedConfig])
def test_what_crosses_a_link_does_not_hang_on_the_list_of_words(
    network: type[LetterTiedConfig | LetterBeliefConfig | LetterUntiedConfig],
) -> None:
    """Clients with different words share one model: names, kinds, shapes, and first weights by seed."""
    value = ValueConfig(form="tilt", bins=31, vmin=-6.0, vmax=0.0)
    made = []
    for words in (WORDS[:9], WORDS[9:40]):
        spec = EnvironmentSpec("wordle", WORDLE_SPEC.observation, len(words), True, words)
        config = network(hidden=8, channels=2)
        module = build_value_module(config, value, spec, torch.Generator().manual_seed(0))
        made.append(QLearner(module, QLearningConfig(), stream(0, "learner")))
    one, other = (learner.shared() for learner in made)
    assert {name: kind for name, (_, kind) in one.items()} == {name: kind for name, (_, kind) in other.items()}
    for name, (part, _) in one.items():
        torch.testing.assert_close(part, other[name][0], rtol=0, atol=0)
    made[1].load_shared({name: part for name, (part, _) in one.items()})
    assert one.keys() == made[0].policy_tensors().keys(), "a policy cannot take over what crossed the link"
